# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record: what every controller, action and face of Bascule agrees on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ...module_utils._errors import RecordError
from . import _admit, _close, _history, _known
from ._change import Change, changing, only
from ._location import locate, prepare, reading, release, writing
from ._rows import (
    DECIDED,
    ActiveDeploymentError,
    Admission,
    BundleHolder,
    ClaimedError,
    Deployment,
    Event,
    NewDeployment,
    RevisionRow,
    Target,
    TargetState,
    deployment_from,
    event_from,
    target_from,
)
from ._session import Query, Session

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Iterable, Mapping
    from types import TracebackType

# A claim that fails although nobody holds the group any more: the holder has just ended.
_CLAIM_ATTEMPTS = 5


class Record:
    """A record that is ready to be used; make one with ``Record.open``.

    Each method is a transaction of its own, safe in forked processes and with several
    controllers. All methods raise RecordError.
    """

    def __init__(self, url: str | None = None) -> None:
        """Find the record and, if there is none yet, create it."""
        self._location = locate(url)
        prepare(self._location)

    @classmethod
    def open(cls, url: str | None = None) -> Record:
        """Open the record at ``url``.

        None means $BASCULE_RECORD, else ``record.db`` in the state folder: $BASCULE_STATE or
        ``${XDG_STATE_HOME:-~/.local/state}/bascule``. A SQLite file is created with mode 0600.
        """
        return cls(url)

    @property
    def url(self) -> str:
        """The record's address, without a password."""
        return self._location.shown

    def close(self) -> None:
        """Close this process's connection to a server; it is opened again when needed."""
        release(self._location)

    def __enter__(self) -> Record:
        """Give the record itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    # Deployments

    def create_deployment(self, new: NewDeployment) -> Deployment:
        """Write a deployment and take its group; raises ActiveDeploymentError if it is taken.

        A rollback of the deployment that holds the group ends that one and takes over in the
        same transaction, so that nobody comes between.
        """
        for _attempt in range(_CLAIM_ATTEMPTS):
            try:
                with writing(self._location) as session:
                    deployment_id = _close.create(session, new, time.time())
            except ClaimedError:
                holder = self._holder(new.application, new.group)
                if holder is not None:
                    raise _active_error(holder) from None
            else:
                return self.deployment(deployment_id)
        raise RecordError(
            f"{new.application}/{new.group} changed hands {_CLAIM_ATTEMPTS} times while a "
            "deployment of it was to be created. Try again."
        )

    def deployment(self, deployment_id: str) -> Deployment:
        """Return the deployment of this id."""
        with reading(self._location) as session:
            found = session.rows(Query(table="deployments", equals={"id": deployment_id}))
            return _with_overviews(session, [only(found, deployment_id)])[0]

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
        with reading(self._location) as session:
            return _with_overviews(session, session.rows(query))

    def targets(self, deployment_id: str) -> list[Target]:
        """Return the targets of a deployment in the order of its plan."""
        query = Query(table="targets", equals={"deployment_id": deployment_id}, order=("position",))
        with reading(self._location) as session:
            return [target_from(row) for row in session.rows(query)]

    def events(self, deployment_id: str, target: str | None = None, after: int = 0) -> list[Event]:
        """Return the events whose ``sequence`` is above ``after``, in that order."""
        equals = {"deployment_id": deployment_id}
        if target is not None:
            equals["target"] = target
        query = Query(table="events", equals=equals, above=("sequence", after), order=("sequence",))
        with reading(self._location) as session:
            return [event_from(row) for row in session.rows(query)]

    def halt(self, deployment_id: str, error_code: str, message: str) -> None:
        """Admit nobody any more; targets in flight go on. ``finish`` ends the deployment.

        MANUAL_STOP and ALARM_ACTIVE make it end as Stopped, other codes as Failed. Only the
        first halt counts.
        """
        with self._changing(deployment_id, synced=True) as change:
            _admit.halt(change, error_code, message)

    def finish(self, deployment_id: str) -> Deployment:
        """End the deployment by the rule and free its group; does nothing if it has ended.

        Targets that were not started become Skipped, those in flight Unknown (they count as
        failed).
        """
        with self._changing(deployment_id, synced=True) as change:
            _close.finish(change)
        return self.deployment(deployment_id)

    def abandon(self, deployment_id: str, why: str = "") -> Deployment:
        """End a deployment that nobody will go on with, as Stopped, and free its group."""
        with self._changing(deployment_id, synced=True) as change:
            if change.is_final:
                raise RecordError(
                    f"Deployment {deployment_id} has ended already "
                    f"({change.deployment['status']}); there is nothing to abandon."
                )
            _close.abandon(change, why)
        return self.deployment(deployment_id)

    # Targets

    def note_staged(self, deployment_id: str, target: str, *, digest_present: bool) -> None:
        """Note that the target passed its preflight; ``digest_present``: it holds the bundle."""
        with self._changing(deployment_id) as change:
            change.target(target)
            change.begin_work()
            change.set_target(target, staged=True)
            change.note("Staged", target)
            if digest_present:
                _history.note_bundle(change, target)

    def note_current(self, deployment_id: str, target: str) -> None:
        """Note that the target has the revision already: it succeeds without a change."""
        with self._changing(deployment_id) as change:
            if change.target(target)["status"] not in ("Pending", "InProgress"):
                return
            change.begin_work()
            change.set_target(
                target, status="Succeeded", staged=True, changed=False, in_service=True,
                started_at=change.now, finished_at=change.now,
            )  # fmt: skip
            change.note("Current", target, status="Succeeded")

    def admit(
        self, deployment_id: str, target: str, *, now: float | None = None, in_turn: bool = False
    ) -> Admission:
        """Ask whether the target may start now; see Admission for the answers.

        ``in_turn`` leaves free slots to the targets before this one in the plan. Who asks so must
        stop to after a while: a target that is never going to ask would hold up all others.

        The numbers in the answer are those it was made from (before an admission). ``now`` is
        for tests. A target that has to wait takes no lock.
        """
        moment = time.time() if now is None else now
        with reading(self._location) as session:
            seen = _admit.look(session, deployment_id, target, moment, in_turn=in_turn)
        if not seen.admits and seen.halt_code is None:
            return seen.answer
        with changing(self._location, deployment_id, moment) as change:
            return _admit.admit(change, target, in_turn=in_turn)

    def settle(
        self,
        deployment_id: str,
        target: str,
        status: str,
        *,
        error_code: str | None = None,
        message: str = "",
        changed: bool = True,
    ) -> None:
        """Write how a target ended: Succeeded or Failed.

        The first verdict stands; a repeated or contrary one changes nothing. Failed may also be
        said of a target that was never admitted (its staging failed). After the deployment has
        ended, the target's status is still written down, the deployment's is not touched.
        """
        if status not in ("Succeeded", "Failed"):
            raise RecordError(f"A target ends as Succeeded or Failed, not as {status!r}.")
        with self._changing(deployment_id) as change:
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
                changed=changed and before["started_at"] is not None, finished_at=change.now,
                **values,
            )  # fmt: skip
            change.note("Settled", target, status=status, error_code=error_code, message=message)

    def set_in_service(self, deployment_id: str, target: str, in_service: bool) -> None:
        """Users reach the target (True), or do not (False)."""
        with self._changing(deployment_id) as change:
            if bool(change.target(target)["in_service"]) == in_service:
                return
            change.set_target(target, in_service=in_service)
            change.note("InService" if in_service else "OutOfService", target)

    def add_events(
        self, deployment_id: str, target: str, events: Iterable[Mapping[str, Any]]
    ) -> None:
        """Keep lifecycle events as the host reported them.

        Each is {event, status, started, ended, error_code, script, message, log}. One that is
        known already (same event, status and start) is left out: a resumed host tells again.
        """
        with self._changing(deployment_id) as change:
            change.target(target)
            known = {
                (row["event"], row["status"], row["started"])
                for row in change.session.rows(
                    Query(
                        table="events",
                        columns=("event", "status", "started"),
                        equals={
                            "deployment_id": deployment_id,
                            "target": target,
                            "kind": "lifecycle",
                        },
                    )
                )
            }
            for event in events:
                entry = _lifecycle_event(event)
                if (entry["event"], entry["status"], entry["started"]) not in known:
                    change.add({**entry, "target": target})

    # What is known between deployments

    def last_known_good(self, application: str, group: str) -> RevisionRow | None:
        """Return the revision of the group's newest successful deployment, unless marked bad."""
        found = self.good_deployment(application, group)
        return found.revision if found else None

    def good_deployment(self, application: str, group: str) -> _known.GoodDeployment | None:
        """Return the group's newest successful deployment of a revision not marked bad."""
        with reading(self._location) as session:
            return _known.good_deployment(session, application, group)

    def group_state(self, application: str, group: str) -> _known.GroupState | None:
        """Return the group's revision, marked bad or not; None where nothing has succeeded."""
        with reading(self._location) as session:
            return _known.group_state(session, application, group)

    def revisions(self, application: str | None = None) -> list[_known.KnownRevision]:
        """Return the revisions that were deployed, those of the newest deployments first."""
        with reading(self._location) as session:
            return _known.revisions(session, application)

    def bad_revisions(self, application: str) -> dict[str, str]:
        """Return the digests of an application that are marked bad, each with the reason."""
        with reading(self._location) as session:
            return _known.bad_revisions(session, application)

    def mark_revision(self, application: str, digest: str, *, bad: bool, why: str = "") -> None:
        """Mark a revision as bad, so that no rollback goes to it, or take the mark back."""
        with writing(self._location) as session:
            _history.mark_revision(session, application, digest, bad=bad, why=why)

    def target_states(self, application: str, group: str) -> dict[str, TargetState]:
        """Return what is known of each target of the group, by its name."""
        with reading(self._location) as session:
            return _history.target_states(session, application, group)

    def has_bundle(self, application: str, group: str, target: str, digest: str) -> bool:
        """Whether the bundle was delivered to the target before (the host may have lost it)."""
        with reading(self._location) as session:
            return _history.has_bundle(session, application, group, target, digest)

    def revision_holders(self, digest: str) -> list[BundleHolder]:
        """Return the targets that the bundle was delivered to."""
        with reading(self._location) as session:
            return _history.revision_holders(session, digest)

    def _changing(
        self, deployment_id: str, *, synced: bool = False
    ) -> contextlib.AbstractContextManager[Change]:
        return changing(self._location, deployment_id, time.time(), synced=synced)

    def _holder(self, application: str, group: str) -> Deployment | None:
        query = Query(
            table="active", equals={"application": application, "deployment_group": group}
        )
        with reading(self._location) as session:
            found = session.rows(query)
            if not found:
                return None
            wanted = {"id": found[0]["deployment_id"]}
            held = _with_overviews(session, session.rows(Query(table="deployments", equals=wanted)))
        return held[0] if held else None


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


def _active_error(holder: Deployment) -> ActiveDeploymentError:
    since = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(holder.created_at))
    return ActiveDeploymentError(
        f"{holder.application}/{holder.group} has an active deployment: {holder.id} "
        f"({holder.strategy}, {holder.status}), started by {holder.started_by} on "
        f"{holder.started_from} at {since}. Go on with it: `bascule resume {holder.id}`; "
        f"or give it up: `bascule abandon {holder.id}`.",
        holder,
    )
