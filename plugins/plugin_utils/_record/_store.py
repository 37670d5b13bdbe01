# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record: what every controller, action and face of Bascule agrees on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ...module_utils._errors import LeaseHeldError, LeaseLostError, RecordError
from . import _admit, _close, _control, _history, _known, _lease, _notifying, _shifting
from ._change import SUMMARY, check_fence, only
from ._functions import FunctionRecord
from ._gated import GatedRecord
from ._holder import is_orphaned
from ._lasting import LastingRecord
from ._notice import tell
from ._rows import (
    DECIDED,
    ActiveDeploymentError,
    Admission,
    Approval,
    ClaimedError,
    Deployment,
    Event,
    NewDeployment,
    Target,
    deployment_from,
    event_from,
    target_from,
)
from ._scaled import ScaledRecord
from ._session import Query, Session
from ._sharing import Sharing
from ._shifted import ShiftedRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from ._again import Answer
    from ._change import Change
    from ._lease import Lease
    from ._rows import RevisionRow

# A claim that fails although nobody holds the group any more: the holder has just ended.
_CLAIM_ATTEMPTS = 5
_LEASE_PAUSE = 0.5


class Record(FunctionRecord, GatedRecord, ShiftedRecord, ScaledRecord, LastingRecord):
    """A record that is ready to be used; make one with ``Record.open``.

    Each method is a transaction of its own, safe in forked processes and with several
    controllers. All methods raise RecordError, and those that change a deployment LeaseLostError
    if the record was opened with a fence that is not the deployment's any more.
    """

    # Deployments

    def create_deployment(self, new: NewDeployment) -> Deployment:
        """Write a deployment and take its group; raises ActiveDeploymentError if it is taken.

        A rollback of the deployment that holds the group ends that one and takes over in the
        same transaction, so that nobody comes between.
        """
        deployment_id = _close.new_id()
        moment = time.time()

        def create(session: Session, unsure: bool) -> None:
            known = Query(table="deployments", columns=("id",), equals={"id": deployment_id})
            if unsure and session.rows(known):
                return
            _close.create(session, new, deployment_id, moment, fence=self._fence)

        for _attempt in range(_CLAIM_ATTEMPTS):
            try:
                self._write(create, synced=True)
            except ClaimedError:
                held = self._read(lambda session: _holder(session, new.application, new.group))
                if held is None:
                    continue
                if held[0].id != deployment_id:
                    raise _active_error(*held) from None
            return self.deployment(deployment_id)
        raise RecordError(
            f"{new.application}/{new.group} changed hands {_CLAIM_ATTEMPTS} times while a "
            "deployment of it was to be created. Try again."
        )

    def deployment(self, deployment_id: str) -> Deployment:
        """Return the deployment of this id."""
        query = Query(table="deployments", equals={"id": deployment_id})
        return self._read(
            lambda session: _with_overviews(session, [only(session.rows(query), deployment_id)])
        )[0]

    def deployments(
        self, application: str | None = None, group: str | None = None, limit: int = 20
    ) -> list[Deployment]:
        """Deployments, newest first."""
        wanted = {"application": application, "deployment_group": group}
        query = Query(
            table="deployments",
            equals={name: value for name, value in wanted.items() if value is not None},
            order=("-number",),
            limit=limit,
        )
        return self._read(lambda session: _with_overviews(session, session.rows(query)))

    def targets(self, deployment_id: str) -> list[Target]:
        """Return the targets of a deployment in the order of its plan."""
        query = Query(table="targets", equals={"deployment_id": deployment_id}, order=("position",))
        return [target_from(row) for row in self._read(lambda session: session.rows(query))]

    def events(self, deployment_id: str, target: str | None = None, after: int = 0) -> list[Event]:
        """Return the events whose ``sequence`` is above ``after``, in that order."""
        equals = {"deployment_id": deployment_id}
        if target is not None:
            equals["target"] = target
        query = Query(table="events", equals=equals, above=("sequence", after), order=("sequence",))
        return [event_from(row) for row in self._read(lambda session: session.rows(query))]

    def halt(self, deployment_id: str, error_code: str, message: str) -> None:
        """Admit nobody any more; targets in flight go on. ``finish`` ends the deployment.

        MANUAL_STOP and ALARM_ACTIVE make it end as Stopped, other codes as Failed. Only the
        first halt counts.
        """
        self._change(
            deployment_id, lambda change: _control.halt(change, error_code, message), synced=True
        )

    def finish(self, deployment_id: str) -> Deployment:
        """End the deployment by the rule and free its group; does nothing if it has ended.

        Targets that were not started become Skipped, those in flight Unknown (they count as
        failed).
        """
        return self.conclude(deployment_id, lambda _ended, _targets, _good, _steps: None)[0]

    def conclude(
        self,
        deployment_id: str,
        answer: Callable[
            [Deployment, list[Target], RevisionRow | None, list[_shifting.Step]],
            NewDeployment | None,
        ],
    ) -> tuple[Deployment, Deployment | None]:
        """End the deployment as ``finish`` does, and open what follows it in the same transaction.

        So no controller comes between a deployment and its rollback.

        :param answer: gets the ended deployment, its targets, the last known good revision and the
            steps, and returns the deployment that rolls it back, or None. It is not asked about a
            deployment that had ended before, and asked again if the record goes away meanwhile
        """
        rollback_id = _close.new_id()

        def conclude(change: Change) -> str | None:
            if change.is_final:
                return None
            _close.finish(change)
            change.write()
            session, key = change.session, {"deployment_id": deployment_id}
            ended = _deployments(session, {"id": deployment_id})[0]
            rows = session.rows(Query(table="targets", equals=key, order=("position",)))
            if ended.status == "Failed" and ended.options.get("mark_bad_on_failure"):
                _history.mark_at_fault(session, ended)
            good = _known.good_deployment(session, ended.application, ended.group)
            following = answer(
                ended,
                [target_from(row) for row in rows],
                good.revision if good else None,
                _shifting.steps(session, deployment_id),
            )
            if following is None:
                return None
            _close.create(session, following, rollback_id, change.now, fence=self._fence)
            return rollback_id

        opened = self._change(deployment_id, conclude, synced=True)
        return self.deployment(deployment_id), self.deployment(opened) if opened else None

    def abandon(self, deployment_id: str, why: str = "") -> Deployment:
        """End a deployment that nobody will go on with, as Stopped, and free its group.

        Raises LeaseHeldError while a controller other than this process's own lives; what a dead
        one has left behind cannot write to the deployment any more.
        """

        def abandon(change: Change) -> None:
            if change.is_final:
                raise RecordError(
                    f"Deployment {deployment_id} has ended already "
                    f"({change.deployment['status']}); there is nothing to abandon."
                )
            _lease.refuse_others(change, "What a living controller works on is not abandoned.")
            _close.abandon(change, why)

        self._change(deployment_id, abandon, synced=True)
        return self.deployment(deployment_id)

    # What people ask of it

    def request_stop(self, deployment_id: str, why: str = "", *, rollback: bool = False) -> None:
        """Halt a deployment because a person wants it; its controller ends it as Stopped.

        :param rollback: let the controller roll the changed targets back then
        :raises RecordError: it has ended
        """
        self._change(
            deployment_id,
            lambda change: _control.request_stop(change, why, rollback=rollback),
            synced=True,
        )

    def pause(self, deployment_id: str, why: str, *, step: str | None = None) -> None:
        """Admit nobody until somebody takes the deployment over; targets in flight go on.

        It does nothing to a deployment that has ended or is paused already.

        :param step: that whose gates could not be decided, if it is because of them
        """
        self._change(deployment_id, lambda change: _control.pause(change, why, step), synced=True)

    def decide_approval(self, deployment_id: str, *, approve: bool, why: str = "") -> None:
        """Give or refuse the approval that a deployment waits for; a refusal halts it.

        :raises RecordError: it waits for none
        """
        self._change(
            deployment_id,
            lambda change: _control.decide(change, why, approve=approve),
            synced=True,
        )

    def go_on(self, deployment_id: str, why: str = "") -> None:
        """Give the approval that is waited for, or end the wait before the old pool is retired.

        :raises RecordError: the deployment waits for neither
        """
        self._change(deployment_id, lambda change: _shifting.go_on(change, why), synced=True)

    def approvals(self, deployment_id: str) -> list[Approval]:
        """Return the approvals that a deployment has asked for, in order."""
        return self._read(lambda session: _control.approvals(session, deployment_id))

    # What workers share

    def sharing(self, deployment_id: str) -> Sharing:
        """Return where the workers of a deployment share what they ask of a remote service."""
        return Sharing(self, deployment_id, self._fence)

    def read_shared(self, work: Callable[[Session], Answer]) -> Answer:
        """Read what is shared; for ``Sharing``."""
        return self._read(work)

    def change_shared(self, deployment_id: str, work: Callable[[Change], Answer]) -> Answer:
        """Change what is shared; for ``Sharing``."""
        return self._change(deployment_id, work)

    # Leases

    def lease(self, deployment_id: str) -> Lease | None:
        """Return who carries a deployment out, and whether that lives; None if it has ended."""
        return self._read(lambda session: _lease.lease_of(session, deployment_id))

    def take_over(self, deployment_id: str, *, wait: bool = False) -> Deployment:
        """Make this process's controller the one that carries the deployment out.

        The deployment that is returned has the new fence: a record that is opened with it may
        write, whoever held the deployment before may not any more.

        :param wait: wait for the lease of a controller that may be dead to run out, and tell so
        :raises LeaseHeldError: another controller lives
        :raises RecordError: the deployment has ended
        """
        while True:
            try:
                self._change(deployment_id, _lease.take, synced=True)
                return self.deployment(deployment_id)
            except LeaseHeldError as error:
                if not wait or error.certain:
                    raise
                self._wait_for_lease(deployment_id, error)

    def _wait_for_lease(self, deployment_id: str, held: LeaseHeldError) -> None:
        """Wait until the lease has run out; raises the refusal if its holder is alive after all."""
        tell(
            f"{deployment_id} is held by {held.holder}, which cannot be seen from here. Waiting "
            f"until {_lease.clock(held.until)}, when its lease runs out unless it is alive."
        )
        while (lease := self.lease(deployment_id)) is not None and not lease.is_free:
            if lease.expires_at is not None and lease.expires_at > held.until:
                raise held
            time.sleep(_LEASE_PAUSE)

    def beat(self, deployment_id: str) -> None:
        """Keep the lease of this controller; raises LeaseLostError when it was taken over.

        It is written only when it is time to, however many workers of a controller call this.
        """
        query = Query(table="deployments", columns=SUMMARY, equals={"id": deployment_id})

        def look(session: Session) -> Lease | None:
            check_fence(only(session.rows(query), deployment_id), self._fence)
            return _lease.lease_of(session, deployment_id)

        lease = self._read(look)
        if lease is not None and lease.own and _lease.is_due(lease) and not is_orphaned():
            self._change(deployment_id, _lease.beat)

    def release(self, deployment_id: str) -> None:
        """Give the lease back: anybody may go on with the deployment at once."""
        self._change(deployment_id, _lease.give_back)

    # Targets

    def note_staged(self, deployment_id: str, target: str, *, digest_present: bool) -> None:
        """Note that the target passed its preflight; ``digest_present``: it holds the bundle."""

        def note(change: Change) -> None:
            change.target(target)
            change.begin_work()
            change.set_target(target, staged=True)
            change.note("Staged", target)
            if digest_present:
                _history.note_bundle(change, target)

        self._change(deployment_id, note)

    def note_current(self, deployment_id: str, target: str) -> None:
        """Note that the target has the revision already: it succeeds without a change.

        If it was admitted before, it was this deployment that has brought the revision to it.
        """

        def note(change: Change) -> None:
            before = change.target(target)
            if before["status"] not in ("Pending", "InProgress"):
                return
            begun = before["started_at"]
            change.begin_work()
            change.set_target(
                target, status="Succeeded", staged=True, changed=begun is not None,
                in_service=True, started_at=change.now if begun is None else begun,
                finished_at=change.now,
            )  # fmt: skip
            change.note("Current", target, status="Succeeded")

        self._change(deployment_id, note)

    def admit(
        self, deployment_id: str, target: str, *, now: float | None = None, in_turn: bool = False
    ) -> Admission:
        """Ask whether the target may start now; see Admission for the answers.

        ``in_turn`` leaves free slots to the targets before this one in the plan. Who asks so must
        stop to after a while: a target that is never going to ask would hold up all others.

        The numbers in the answer are those it was made from (before an admission). ``now`` is
        for tests. A target that has to wait takes no lock. A worker whose controller has died gets
        no slot (LeaseLostError): nobody would go on with its target.
        """
        moment = time.time() if now is None else now
        if self._fence is not None and is_orphaned():
            raise LeaseLostError(
                f"The controller of {deployment_id} has ended; {target} is not begun any more. "
                f"Go on with it: `bascule resume {deployment_id}`."
            )
        seen = self._read(
            lambda session: _admit.look(
                session, deployment_id, target, moment, fence=self._fence, in_turn=in_turn
            )
        )
        if not seen.writes:
            return seen.answer
        return self._change(
            deployment_id,
            lambda change: _admit.admit(change, target, in_turn=in_turn),
            now=moment,
        )

    def lose_absent(self, deployment_id: str, target: str, present: Collection[str]) -> None:
        """Give up targets of earlier stages whose work has ended without a result.

        ``present`` are the targets that the controller of ``target`` works on now. Only a
        controller with a fence may ask: without it, another one may be at work on the others.
        """
        if self._fence is None:
            return
        if self._read(lambda session: _admit.lost_targets(session, deployment_id, target, present)):
            self._change(deployment_id, lambda change: _admit.lose(change, target, present))

    def settle(
        self,
        deployment_id: str,
        target: str,
        status: str,
        *,
        error_code: str | None = None,
        message: str = "",
    ) -> None:
        """Write how a target ended: Succeeded or Failed.

        The first verdict stands; a repeated or contrary one changes nothing. Failed may also be
        said of a target that was never admitted (its staging failed). After the deployment has
        ended, the target's status is still written down, the deployment's is not touched.
        """
        if status not in ("Succeeded", "Failed"):
            raise RecordError(f"A target ends as Succeeded or Failed, not as {status!r}.")

        def settle(change: Change) -> None:
            before = change.target(target)
            if before["status"] in DECIDED and before["status"] != "Skipped":
                return
            if before["status"] == "Pending" and status == "Succeeded":
                raise RecordError(
                    f"Target {target} of {deployment_id} cannot have succeeded: it was never "
                    "admitted. Call admit first, or note_current if nothing was to be done."
                )
            change.begin_work()
            values: dict[str, Any] = {"in_service": True} if status == "Succeeded" else {}
            change.set_target(
                target, status=status, error_code=error_code, message=message,
                changed=before["started_at"] is not None, finished_at=change.now,
                **values,
            )  # fmt: skip
            change.note("Settled", target, status=status, error_code=error_code, message=message)

        self._change(deployment_id, settle)

    def set_in_service(self, deployment_id: str, target: str, in_service: bool) -> None:
        """Users reach the target (True), or do not (False)."""

        def set_it(change: Change) -> None:
            if bool(change.target(target)["in_service"]) == in_service:
                return
            change.set_target(target, in_service=in_service)
            change.note("InService" if in_service else "OutOfService", target)

        self._change(deployment_id, set_it)

    def add_events(
        self,
        deployment_id: str,
        target: str,
        events: Iterable[Mapping[str, Any]],
        *,
        aside: bool = False,
    ) -> None:
        """Keep lifecycle events as the host reported them.

        Each is {event, status, started, ended, error_code, script, message, log}. One that is
        known already (same event, status and start) is left out: a resumed host tells again.

        :param aside: the target is not one of those that the deployment changes
        """
        told = [_lifecycle_event(event) for event in events]

        def add(change: Change) -> None:
            if not aside:
                change.target(target)
            key = {"deployment_id": deployment_id, "target": target, "kind": "lifecycle"}
            query = Query(table="events", columns=("event", "status", "started"), equals=key)
            known = {
                (row["event"], row["status"], row["started"]) for row in change.session.rows(query)
            }
            for entry in told:
                if (entry["event"], entry["status"], entry["started"]) not in known:
                    change.add({**entry, "target": target})

        self._change(deployment_id, add)

    # Notifications

    def notified(self, deployment_id: str) -> set[_notifying.NotificationKey]:
        """Return the messages about a deployment that were sent, or could not be."""
        return self._read(lambda session: _notifying.notified(session, deployment_id))

    def claim_notifications(
        self,
        deployment_id: str,
        keys: Sequence[_notifying.NotificationKey],
        *,
        claimant: str,
        stale_after: float,
    ) -> tuple[list[_notifying.NotificationKey], list[_notifying.NotificationKey]]:
        """Claim messages; return those that are this ``claimant``'s to send, and those of others.

        Those that have an outcome are in neither. A claim that is older than ``stale_after``
        seconds is taken over.
        """
        return self._change(
            deployment_id, lambda change: _notifying.claim(change, keys, claimant, stale_after)
        )

    def settle_notifications(
        self, deployment_id: str, outcomes: Sequence[tuple[_notifying.NotificationKey, str]]
    ) -> None:
        """Write what became of messages: an empty text, or why one could not be sent."""
        self._change(deployment_id, lambda change: _notifying.settle(change, outcomes))


def _holder(session: Session, application: str, group: str) -> tuple[Deployment, Lease] | None:
    """Return the group's active deployment, and who carries it out."""
    equals = {"application": application, "deployment_group": group}
    found = session.rows(Query(table="active", equals=equals))
    if not found:
        return None
    held = _deployments(session, {"id": found[0]["deployment_id"]})
    return (held[0], _lease.lease_from(found[0], session.now())) if held else None


def _deployments(session: Session, equals: dict[str, Any]) -> list[Deployment]:
    return _with_overviews(session, session.rows(Query(table="deployments", equals=equals)))


def _with_overviews(session: Session, found: list[dict[str, Any]]) -> list[Deployment]:
    if not found:
        return []
    overviews: dict[str, dict[str, int]] = {row["id"]: {} for row in found}
    query = Query(
        table="targets",
        columns=("deployment_id", "status"),
        among=("deployment_id", tuple(overviews)),
        tally=True,
    )
    for row in session.rows(query):
        overviews[row["deployment_id"]][row["status"]] = row["n"]
    return [deployment_from(row, overviews[row["id"]]) for row in found]


def _lifecycle_event(event: Mapping[str, Any]) -> dict[str, Any]:
    def maybe(name: str) -> str | None:
        value = event.get(name)
        return None if value is None else str(value)

    return {
        "kind": "lifecycle", "event": str(event["event"]), "status": str(event["status"]),
        "started": event.get("started"), "ended": event.get("ended"),
        "error_code": maybe("error_code"), "script": maybe("script"),
        "message": maybe("message") or "", "log": maybe("log") or "",
    }  # fmt: skip


def _active_error(held: Deployment, lease: Lease) -> ActiveDeploymentError:
    return ActiveDeploymentError(
        f"{held.application}/{held.group} has an active deployment: {held.id} "
        f"({held.strategy}, {held.status}), started by {held.started_by} on "
        f"{held.started_from} at {_lease.clock(held.created_at)}. {lease.text()} "
        f"Go on with it: `bascule resume {held.id}`; or give it up: `bascule abandon {held.id}`"
        + ("; both only when its controller has ended." if lease.state == _lease.ALIVE else "."),
        held,
    )
