# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of a deployment's schedule: where it stands, and what the routing was set to.

All steps are written when the deployment is created. One that has succeeded is not done again, so
whoever takes the deployment over goes on where it stood.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ...module_utils._admission import HEALTH_CONSTRAINTS, ROLLBACK, conclude
from ...module_utils._errors import RecordError
from ...module_utils._pools import KEPT_PART
from ...module_utils._schedule import BAKE, RETIRE, step_label
from ._admit import counts_from, tally_query
from ._control import decide, halt
from ._holder import host, user
from ._session import Query, Row, Session

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ._change import Change

PENDING, IN_PROGRESS, SUCCEEDED, FAILED, SKIPPED = (
    "Pending",
    "InProgress",
    "Succeeded",
    "Failed",
    "Skipped",
)
UNDONE = (PENDING, IN_PROGRESS)

# What a step may do: be carried out; nothing, because it was or because the deployment ends before
# any traffic was moved; or wait for whoever resumes the deployment.
GO, PASSED, STOPPED, PAUSED = "go", "passed", "stopped", "paused"
# Kinds of steps after which the routing is another one.
MOVING = ("shift", "test")

# Statuses of a deployment in progress, as CodeDeploy has them: the new pool is ready and a person
# decides whether users come; all users are on it, it is watched, and the old pool is kept as it is.
WORKING, READY, BAKING = "InProgress", "Ready", "Baking"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a schedule; ``told`` says in words what it does. Times are epoch seconds."""

    number: int
    part: str
    kind: str
    told: str
    status: str
    started_at: float | None
    ended_at: float | None
    message: str

    def as_dict(self) -> dict[str, Any]:
        """Return the same as plain data, for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingChange:
    """What the routing between pools was set to, on one load balancer (``where``).

    ``waited`` is in seconds: until it was seen to be so.
    """

    sequence: int
    at: float
    provider: str
    where: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    waited: float

    def as_dict(self) -> dict[str, Any]:
        """Return the same as plain data, for JSON."""
        return asdict(self)


def create(session: Session, deployment_id: str, schedule: Sequence[Mapping[str, Any]]) -> None:
    """Write the steps of a plan."""
    if not schedule:
        return
    session.insert(
        "steps",
        [
            {
                "deployment_id": deployment_id, "number": step["number"], "part": step["part"],
                "kind": step["kind"], "told": step["text"], "status": PENDING,
                "started_at": None, "ended_at": None, "message": "",
            }
            for step in schedule
        ],
    )  # fmt: skip


def steps(session: Session, deployment_id: str) -> list[Step]:
    """Return the steps of a deployment in order."""
    query = Query(table="steps", equals={"deployment_id": deployment_id}, order=("number",))
    return [_step_from(row) for row in session.rows(query)]


def begin(change: Change, number: int) -> str:
    """Begin a step; returns go, passed, stopped or paused.

    A deployment of which too few targets have succeeded is halted before users come to them.

    :raises RecordError: there is no such step; or the deployment is to end, traffic was moved, and
        the pool that had it is still in service
    """
    step = _find(change, number)
    deployment = change.deployment
    if step.status == SUCCEEDED:
        return PASSED
    known = steps(change.session, deployment["id"])
    if any(one.status == FAILED for one in known):
        # All traffic was brought home when that step failed.
        return STOPPED
    moved = any(one.kind in MOVING and one.started_at is not None for one in known)
    if not moved and not change.is_final and _halt_if_too_few(change):
        return STOPPED
    if change.is_final or deployment["halted_at"] is not None:
        if not moved or is_retiring(known):
            return STOPPED
        raise RecordError(
            f"Step {number} is not begun: {deployment['error_code'] or deployment['status']}: "
            f"{deployment['error_message']}"
        )
    if deployment["paused_at"] is not None:
        return PAUSED
    change.begin_work()
    meanwhile = _meanwhile(change, step)
    if meanwhile != WORKING and deployment["status"] != meanwhile:
        change.set_deployment(status=meanwhile)
    again = step.status == IN_PROGRESS
    if not again:
        _set(change, number, status=IN_PROGRESS, started_at=change.now)
    change.note(
        "StepResumed" if again else "StepStarted",
        status=IN_PROGRESS,
        message=f"{number}. {step.told}",
    )
    return GO


def is_retiring(known: Sequence[Step]) -> bool:
    """Tell whether the old pool may have left the load balancer."""
    return any(one.kind == RETIRE and one.started_at is not None for one in known)


def _meanwhile(change: Change, step: Step) -> str:
    """Return the status of the deployment while a step is carried out."""
    if step.kind == "approval" and step.part == "ready":
        return READY
    if step.kind == "bake":
        query = Query(
            table="deployments", columns=("plan",), equals={"id": change.deployment["id"]}
        )
        plan = json.loads(change.session.rows(query)[0]["plan"])
        before = [one for one in plan["schedule"] if one["number"] < step.number]
        shares = [one["share"] for one in before if one["kind"] == "shift"]
        if shares and shares[-1] == 100:
            return BAKING
    return WORKING


def _halt_if_too_few(change: Change) -> bool:
    deployment = change.deployment
    if deployment["halted_at"] is not None or deployment["mode"] == ROLLBACK:
        return False
    groups = change.session.rows(tally_query(deployment["id"]))
    counts = counts_from(groups, deployment["total"])
    # A function whose version is published is as far as it can be before users come.
    ready = _published(change.session, deployment["id"])
    counts = dataclasses.replace(
        counts, in_flight=counts.in_flight - ready, succeeded=counts.succeeded + ready
    )
    outcome = conclude(counts, deployment["minimum_healthy"])
    if outcome.error_code != HEALTH_CONSTRAINTS:
        return False
    halt(change, HEALTH_CONSTRAINTS, outcome.message)
    return True


def _published(session: Session, deployment_id: str) -> int:
    key = {"deployment_id": deployment_id}
    of_functions = Query(table="function_versions", columns=("target",), equals=key)
    under_way = Query(table="targets", columns=("name",), equals={**key, "status": IN_PROGRESS})
    known = {row["target"] for row in session.rows(of_functions)}
    return sum(1 for row in session.rows(under_way) if row["name"] in known)


def end(change: Change, number: int, status: str, message: str) -> None:
    """Write down how a step ended; the first word stands."""
    step = _find(change, number)
    if step.status not in UNDONE:
        return
    _set(change, number, status=status, ended_at=change.now, message=message)
    if change.deployment["status"] in (READY, BAKING):
        change.set_deployment(status=WORKING)
    told = f"{number}. {step.told}" + (f": {message}" if message else "")
    change.note("StepEnded", status=status, message=told)


def go_on(change: Change, why: str) -> None:
    """End the wait before the old pool is retired, or give the approval that is waited for.

    CodeDeploy's ContinueDeployment, with TERMINATION_WAIT and with READY_WAIT. What the gates of
    the wait say counts as if its time had passed.

    :raises RecordError: the deployment waits for neither
    """
    deployment = change.deployment
    step = _kept(change)
    if step is None or deployment["halted_at"] is not None or deployment["paused_at"] is not None:
        decide(change, why, approve=True)
        return
    key = {"deployment_id": deployment["id"], "step": step_label(step.number)}
    if change.session.rows(Query(table="gate_runs", equals=key)):
        change.session.update("gate_runs", {"until": change.now}, **key)
    else:
        # Nobody has begun to ask; who does goes on from this row.
        fresh = {
            **key, "started_at": change.now, "until": change.now, "round": 1, "verdict": "",
            "message": "", "waits_for": "", "holder": None, "claimed_until": None,
            "fence": deployment["fence"],
        }  # fmt: skip
        change.session.insert("gate_runs", [fresh])
    told = f"{user()}@{host()} ends the wait before the old pool is retired"
    change.note("WaitEnded", message=told + (f": {why}" if why else ""))


def _kept(change: Change) -> Step | None:
    """Return the step that only keeps the old pool for a while, if that is where it stands."""
    if change.is_final:
        return None
    found = steps(change.session, change.deployment["id"])
    return next(
        (
            one
            for one in found
            if (one.part, one.kind, one.status) == (KEPT_PART, BAKE, IN_PROGRESS)
        ),
        None,
    )


def fail_present(change: Change, message: str) -> None:
    """Write down that the step which was carried out has failed, if there is one."""
    for step in steps(change.session, change.deployment["id"]):
        if step.status == IN_PROGRESS:
            end(change, step.number, FAILED, message)


def skip_rest(change: Change) -> None:
    """Write down that what was not begun will not be."""
    key = {"deployment_id": change.deployment["id"]}
    change.session.update("steps", {"status": SKIPPED}, status=PENDING, **key)
    change.session.update(
        "steps", {"status": FAILED, "ended_at": change.now}, status=IN_PROGRESS, **key
    )


def undone(session: Session, deployment_id: str) -> Step | None:
    """Return the first step that is still to be done."""
    return next((one for one in steps(session, deployment_id) if one.status in UNDONE), None)


def note_routing(
    change: Change,
    *,
    provider: str,
    where: str,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
    waited: float,
) -> None:
    """Write down what a load balancer was set to, as seen there."""
    key = {"deployment_id": change.deployment["id"]}
    newest = Query(
        table="routing_changes", columns=("sequence",), equals=key, order=("-sequence",), limit=1
    )
    last = next((row["sequence"] for row in change.session.rows(newest)), 0)
    change.session.insert(
        "routing_changes",
        [
            {
                **key, "sequence": last + 1, "at": change.now, "provider": provider,
                "target": where, "state": "routed", "before": json.dumps(before),
                "after": json.dumps(after), "waited": waited,
            }
        ],
    )  # fmt: skip
    told = weights_text(after)
    change.note("TrafficRouted", status="Succeeded", message=told)


def routing_changes(session: Session, deployment_id: str) -> list[RoutingChange]:
    """Return what the routing was set to, in order."""
    query = Query(
        table="routing_changes",
        equals={"deployment_id": deployment_id, "state": "routed"},
        order=("sequence",),
    )
    return [
        RoutingChange(
            sequence=row["sequence"],
            at=row["at"],
            provider=row["provider"],
            where=row["target"],
            before=json.loads(row["before"]),
            after=json.loads(row["after"]),
            waited=row["waited"],
        )
        for row in session.rows(query)
    ]


def weights_text(routing: Mapping[str, Any] | None) -> str:
    """Return a routing's shares as a person reads them."""
    weights = (routing or {}).get("weights") or {}
    told = ", ".join(f"{pool} {share:g}%" for pool, share in sorted(weights.items()))
    return told or "no shares"


def _find(change: Change, number: int) -> Step:
    key = {"deployment_id": change.deployment["id"], "number": number}
    found = change.session.rows(Query(table="steps", equals=key))
    if not found:
        raise RecordError(f"Deployment {change.deployment['id']} has no step {number}.")
    return _step_from(found[0])


def _set(change: Change, number: int, **values: Any) -> None:
    key = {"deployment_id": change.deployment["id"], "number": number}
    change.session.update("steps", values, **key)


def _step_from(row: Row) -> Step:
    return Step(**{name: row[name] for name in Step.__slots__})
