# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asking for a slot: the counts of a deployment, and the answer to one target."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...module_utils import _approval
from ...module_utils._admission import ADMIT, HALT, Counts, Zone, decide
from ._change import SUMMARY, Change, check_fence, find_target, only
from ._control import ask, halt, rule_of, time_out, waiting_text
from ._lease import clock
from ._rows import FINAL_STATUSES, UNDECIDED, Admission
from ._session import Query, Row, Session

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An answer, and what has to be written for it: an admission (``admits``) or a halt.

    ``asks`` and ``times_out`` are the stage whose approval has to be asked for, or was not given
    in time.
    """

    answer: Admission
    admits: bool = False
    from_service: bool = False
    halt_code: str | None = None
    asks: int | None = None
    times_out: int | None = None

    @property
    def writes(self) -> bool:
        """Whether anything has to be written."""
        changes = (self.halt_code, self.asks, self.times_out)
        return self.admits or any(change is not None for change in changes)


def tally_query(deployment_id: str) -> Query:
    """Count the targets of a deployment by all that the rule looks at."""
    return Query(
        table="targets",
        columns=("stage", "status", "in_service", "from_service", "changed"),
        equals={"deployment_id": deployment_id},
        tally=True,
        latest="finished_at",
    )


def counts_from(groups: Iterable[Row], total: int, stage: int | None = None) -> Counts:
    """Sum up what ``tally_query`` found, for a target of ``stage``."""
    pending = in_flight = succeeded = failed = current = out = free_pending = service_failed = 0
    for group in groups:
        number, status = group["n"], group["status"]
        if status == "Pending":
            pending += number
            if not group["in_service"] and (stage is None or group["stage"] <= stage):
                free_pending += number
        elif status == "InProgress":
            in_flight += number
        elif status == "Succeeded":
            succeeded += number
            current += 0 if group["changed"] else number
        elif status in ("Failed", "Unknown"):
            failed += number
            service_failed += number if group["from_service"] else 0
        if not group["in_service"] or status in ("InProgress", "Failed", "Unknown"):
            out += number
    return Counts(
        total=total, pending=pending, in_flight=in_flight, succeeded=succeeded, failed=failed,
        current=current, out=out, free_pending=free_pending, service_failed=service_failed,
    )  # fmt: skip


def zones_of(deployment: Row, groups: Sequence[Row]) -> list[Zone]:
    """Return the zones of a deployment that goes by them, with what ``tally_query`` found."""
    zonal = _zonal(deployment)
    found = []
    for number, zone in enumerate(zonal["zones"] if zonal else ()):
        own = [group for group in groups if zonal["stages"][group["stage"]] == number]
        counts = counts_from(own, zone["total"])
        found.append(Zone(zone["name"], counts, zone["minimum_healthy"]))
    return found


def _zonal(deployment: Row) -> dict[str, Any]:
    return json.loads(deployment["zonal"]) if deployment["zonal"] else {}


def look(
    session: Session,
    deployment_id: str,
    name: str,
    now: float,
    *,
    fence: int | None,
    in_turn: bool,
) -> Evaluation:
    """Evaluate without a lock: good enough to tell a target to wait.

    :raises LeaseLostError: the fence is not the deployment's any more
    """
    query = Query(table="deployments", columns=SUMMARY, equals={"id": deployment_id})
    deployment = only(session.rows(query), deployment_id)
    check_fence(deployment, fence)
    return evaluate(session, deployment, name, now, in_turn=in_turn)


def evaluate(
    session: Session, deployment: Row, name: str, now: float, *, in_turn: bool
) -> Evaluation:
    """Answer one target from what the record says at this moment; nothing is written."""
    deployment_id = deployment["id"]
    target = find_target(session, deployment_id, name)
    groups = session.rows(tally_query(deployment_id))
    counts = counts_from(groups, deployment["total"], target["stage"])
    minimum = deployment["minimum_healthy"]
    in_service = bool(target["in_service"])
    zones = zones_of(deployment, groups)
    own = zones[_zonal(deployment)["stages"][target["stage"]]] if zones else None
    decision = decide(counts, minimum, deployment["mode"], in_service, own)

    def answer(
        verdict: str,
        reason: str,
        *,
        retry_at: float | None = None,
        resumed: bool = False,
        out_of_turn: bool = False,
        needs_approval: bool = False,
        leads: bool = False,
        gates: str = "",
        bakes: float = 0.0,
    ) -> Admission:
        return Admission(
            verdict=verdict, reason=reason, slots=decision.slots, in_flight=counts.in_flight,
            failed=counts.failed, total=counts.total, minimum_healthy=minimum,
            retry_at=retry_at, resumed=resumed, out_of_turn=out_of_turn,
            needs_approval=needs_approval, leads=leads, gates=gates, bakes=bakes,
        )  # fmt: skip

    status = target["status"]
    if status == "Succeeded":
        return Evaluation(answer("current", "the target has this revision already"))
    if deployment["status"] in FINAL_STATUSES:
        return Evaluation(answer("refused", f"the deployment has ended: {deployment['status']}"))
    if status == "InProgress":
        return Evaluation(answer("admitted", "admitted before, goes on", resumed=True))
    if status != "Pending":
        return Evaluation(answer("refused", f"the target is {status}: {target['message']}"))
    if deployment["halted_at"] is not None:
        return Evaluation(
            answer("refused", f"{deployment['error_code']}: {deployment['error_message']}")
        )
    if deployment["paused_at"] is not None:
        return Evaluation(answer("refused", f"paused: {deployment['pause_reason']}"))
    if decision.verdict == HALT:
        reason = f"{decision.error_code}: {decision.reason}"
        return Evaluation(answer("refused", reason), halt_code=decision.error_code)
    if decision.verdict != ADMIT:
        return Evaluation(answer("wait", decision.reason))
    held = held_by_stage(groups, target["stage"], deployment, now)
    step = _ungated(session, deployment, groups, target["stage"]) if deployment["gated"] else ""
    if step and (held is None or held[1] is not None):
        ready = now if held is None or held[1] is None else held[1]
        leads = _is_next(session, deployment_id, target, 1)
        reason = f"the gates of {step} are asked"
        return Evaluation(
            answer("wait", reason, leads=leads, gates=step, bakes=max(0.0, ready - now))
        )
    if held is not None:
        leads = held[1] is not None and _is_next(session, deployment_id, target, 1)
        return Evaluation(answer("wait", held[0], retry_at=held[1], leads=leads))
    unapproved = _unapproved(session, deployment, groups, target["stage"], now)
    if unapproved is not None:
        reason, until, asks, times_out = unapproved
        return Evaluation(
            answer(
                "wait",
                reason,
                retry_at=until,
                needs_approval=True,
                leads=_is_next(session, deployment_id, target, 1),
            ),
            asks=asks,
            times_out=times_out,
        )
    if in_turn and in_service and not _is_next(session, deployment_id, target, decision.slots):
        return Evaluation(answer("wait", "targets before it have their turn", out_of_turn=True))
    return Evaluation(answer("admitted", decision.reason), admits=True, from_service=in_service)


def lost_targets(
    session: Session, deployment_id: str, name: str, present: Collection[str]
) -> list[Row]:
    """Return the targets of earlier stages than ``name``'s that nobody decides about any more.

    A controller goes through the stages one after the other. Those it is at are ``present``; if
    another one of an earlier stage is undecided, whatever worked on it has ended without a word.
    """
    stage = find_target(session, deployment_id, name)["stage"]
    query = Query(
        table="targets",
        columns=("name", "stage", "status"),
        equals={"deployment_id": deployment_id},
        among=("status", UNDECIDED),
        order=("position",),
    )
    return [
        row for row in session.rows(query) if row["stage"] < stage and row["name"] not in present
    ]


def lose(change: Change, name: str, present: Collection[str]) -> None:
    """Write down that the targets that are lost are not waited for.

    One that was begun is Unknown and may still be settled; it counts as failed, and a rollback
    brings it back. One that was not is Skipped.
    """
    for row in lost_targets(change.session, change.deployment["id"], name, present):
        begun = row["status"] == "InProgress"
        status = "Unknown" if begun else "Skipped"
        message = (
            "What worked on it has ended without a result."
            if begun
            else "It never asked to be admitted, and its stage has ended."
        )
        values: dict[str, Any] = {"changed": True} if begun else {}
        change.set_target(
            row["name"], status=status, message=message, finished_at=change.now, **values
        )
        change.note("Lost", row["name"], status=status, message=message)


def _is_next(session: Session, deployment_id: str, target: Row, slots: int) -> bool:
    """Whether a target is among the first of its stage that the free slots are for."""
    equals = {"deployment_id": deployment_id, "stage": target["stage"], "status": "Pending"}
    first = Query(
        table="targets", columns=("position",), equals=equals, order=("position",), limit=slots
    )
    return any(row["position"] == target["position"] for row in session.rows(first))


def held_by_stage(
    groups: Iterable[Row], stage: int, deployment: Row, now: float
) -> tuple[str, float | None] | None:
    """Return why a target of ``stage`` waits for those before it, and until when if known."""
    before = [group for group in groups if group["stage"] < stage]
    undecided = sum(group["n"] for group in before if group["status"] in UNDECIDED)
    if undecided:
        return f"{undecided} targets of earlier stages are not decided yet", None
    # Targets that had the revision already give no reason to watch them.
    zonal = _zonal(deployment)
    waits: dict[int, float] = dict(enumerate(zonal["waits"])) if zonal else {}
    ends = [
        (group["latest"] + waits.get(group["stage"], deployment["bake_time"]), group["stage"])
        for group in before
        if (group["changed"] or group["status"] == "Failed") and group["latest"] is not None
    ]
    ready, last = max(ends, default=(now, 0))
    if ready <= now:
        return None
    if zonal and zonal["stages"][last] != zonal["stages"][stage]:
        zone = zonal["zones"][zonal["stages"][last]]
        watched = f"zone {zone['name']} is watched for {zone['monitor']:g} s before the next one"
        return f"{watched}, until {clock(ready)}", ready
    wait = waits.get(last, deployment["bake_time"])
    return f"the stage before bakes for {wait:g} s, until {clock(ready)}", ready


def _ungated(session: Session, deployment: Row, groups: Iterable[Row], stage: int) -> str:
    """Return the step whose gates have to be passed before a target of ``stage`` may begin.

    Empty if they are passed, or if no stage before has changed anything.
    """
    worked = [
        group["stage"]
        for group in groups
        if group["stage"] < stage and (group["changed"] or group["status"] == "Failed")
    ]
    if not worked:
        return ""
    step = f"stage {max(worked) + 1}"
    equals = {"deployment_id": deployment["id"], "step": step}
    found = session.rows(Query(table="gate_runs", columns=("verdict",), equals=equals))
    return "" if found and found[0]["verdict"] == "Pass" else step


def _unapproved(
    session: Session, deployment: Row, groups: Iterable[Row], stage: int, now: float
) -> tuple[str, float | None, int | None, int | None] | None:
    """Why a target of ``stage`` waits for a person, until when, and what has to be written."""
    rule = rule_of(deployment)
    if rule is None:
        return None
    worked = {
        group["stage"]
        for group in groups
        if group["stage"] < stage and (group["changed"] or group["status"] == "Failed")
    }
    wanted = _approval.to_approve(rule["mode"], worked)
    if wanted is None:
        return None
    key = {"deployment_id": deployment["id"], "stage": wanted}
    rows = session.rows(Query(table="approvals", equals=key))
    asked = _approval.Asked(rows[0]["status"], rows[0]["until"]) if rows else None
    verdict = _approval.judge(asked, rule["on_timeout"], now)
    if verdict == _approval.GO:
        return None
    until = rows[0]["until"] if rows else now + rule["timeout"]
    return (
        waiting_text(deployment["id"], f"stage {wanted + 1}", until, rule["on_timeout"]),
        until,
        wanted if verdict == _approval.ASK else None,
        wanted if verdict == _approval.TIME_OUT else None,
    )


def admit(change: Change, name: str, *, in_turn: bool) -> Admission:
    """Evaluate with the deployment locked, and write the admission or the halt."""
    evaluation = evaluate(change.session, change.deployment, name, change.now, in_turn=in_turn)
    answer = evaluation.answer
    if evaluation.admits:
        change.begin_work()
        change.set_target(
            name, status="InProgress", from_service=evaluation.from_service, started_at=change.now
        )
        change.note("Admitted", name, status="InProgress", message=answer.reason)
    elif evaluation.halt_code is not None:
        halt(change, evaluation.halt_code, answer.reason.partition(": ")[2])
    elif (rule := rule_of(change.deployment)) is not None:
        if evaluation.asks is not None:
            ask(change, evaluation.asks, rule)
        elif evaluation.times_out is not None:
            time_out(change, rule)
    return answer
