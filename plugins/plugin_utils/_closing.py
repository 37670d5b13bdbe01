# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Close a deployment, and open the rollback of one that failed."""

from __future__ import annotations

import dataclasses
import typing as t

from ..module_utils._admission import ALARM_CODES
from ..module_utils._plan import PlanTarget, make_plan
from ._opening import fleet
from ._planning import ALARM_EVENT, FAILURE_EVENT, STOP_EVENT, Endpoint
from ._record import NewDeployment

if t.TYPE_CHECKING:
    from ._record import Deployment, Record, RevisionRow, Target


@dataclasses.dataclass(frozen=True)
class Closed:
    """How a deployment ended, the deployment that rolls it back, or why there is none."""

    deployment: Deployment
    rollback: Deployment | None
    rollback_fleet: dict[str, t.Any] | None
    note: str
    summary: str


def close_deployment(record: Record, deployment_id: str) -> Closed:
    """Decide how a deployment ended, and open its rollback if the group's rules ask for one.

    Both are one transaction: no other controller comes between.
    """
    finished, rollback = record.conclude(deployment_id, rollback_of)
    targets = record.targets(deployment_id)
    summary = describe(finished, targets)
    if rollback is None:
        good = record.last_known_good(finished.application, finished.group)
        note = why_no_rollback(finished, targets, good)
        return Closed(finished, None, None, note, f"{summary}\n{note}".strip())
    members = rollback_fleet(rollback, targets)
    summary += (
        f"\nRolling back {len(members['targets'])} changed target(s) to "
        f"{rollback.revision.digest[:12]} as {rollback.id}."
    )
    return Closed(finished, rollback, members, "", summary)


def is_paused(deployment: Deployment) -> bool:
    """Tell whether a deployment waits for somebody to resume it: with targets left, or a gate."""
    left = deployment.overview.get("Pending", 0) + deployment.overview.get("InProgress", 0)
    waits = left > 0 or deployment.paused_step is not None
    return deployment.paused_at is not None and not deployment.is_final and waits


def rollback_asked(ended: Deployment) -> bool:
    """Tell whether a deployment that failed or was stopped is to be rolled back."""
    event = {"Failed": FAILURE_EVENT, "Stopped": STOP_EVENT}.get(ended.status)
    if event == STOP_EVENT and ended.error_code in ALARM_CODES:
        event = ALARM_EVENT
    return event is not None and (
        ended.rollback_on_stop or event in ended.options.get("rollback_on", [])
    )


def why_no_rollback(
    deployment: Deployment, targets: t.Sequence[Target], good: RevisionRow | None
) -> str:
    """Return why a deployment that failed or was stopped is not rolled back; empty if it is."""
    if deployment.status == "Succeeded" or deployment.strategy == "rollback":
        return ""
    changed = any(target.changed for target in targets)
    if deployment.status == "Stopped" and not rollback_asked(deployment):
        if not changed:
            return ""
        return (
            "The changed targets were left as they are. To bring them back: "
            f"`bascule rollback {deployment.id}`."
        )
    if not rollback_asked(deployment):
        return "No automatic rollback: deploy_rollback_on does not ask for one."
    if not changed:
        return "No rollback is needed: no target was changed."
    if good is None:
        return (
            "No rollback is possible: no revision has succeeded in this deployment group before. "
            "Deploy one that works; the targets that failed stay out of the load balancer."
        )
    return ""


def rollback_of(
    failed: Deployment, targets: t.Sequence[Target], good: RevisionRow | None
) -> NewDeployment | None:
    """Return the deployment that brings the changed targets back; None if there is to be none.

    Targets that are out of service come first, and begin out of service.
    """
    if failed.strategy == "rollback" or not rollback_asked(failed) or good is None:
        return None
    if why_no_rollback(failed, targets, good):
        return None
    changed = [target for target in targets if target.changed]
    plan = make_plan(
        strategy="rollback",
        targets=[
            PlanTarget(name=target.name, zone=target.zone, in_service=target.in_service)
            for target in changed
        ],
        digest=good.digest,
        minimum=failed.plan["minimum_healthy"],
        stages=[len(changed)],
        bake_time=0.0,
        provider=failed.plan["provider"],
        total=failed.plan["total"],
        mode="rollback",
    )
    return NewDeployment(
        application=failed.application,
        group=failed.group,
        strategy="rollback",
        creator="codeDeployRollback",
        revision=good,
        plan=plan,
        description=f"Rollback of {failed.id}",
        options={"rollback_on": [], "endpoints": failed.options["endpoints"]},
        rollback_of=failed.id,
        started_by=failed.started_by,
        started_from=failed.started_from,
    )


def rollback_fleet(rollback: Deployment, targets: t.Sequence[Target]) -> dict[str, t.Any]:
    """Return the facts the plays of a rollback are built from; ``targets``: of the failed one."""
    endpoints = [Endpoint(**endpoint) for endpoint in rollback.options["endpoints"]]
    members = fleet(rollback.plan, endpoints)
    changed = [target for target in targets if target.changed]
    members["retreat"] = retreat(changed, endpoints, rollback.plan)
    return members


def retreat(
    changed: t.Sequence[Target], endpoints: t.Sequence[Endpoint], plan: dict[str, t.Any]
) -> list[dict[str, t.Any]]:
    """Return the targets that can leave the load balancer at once without breaking the floor.

    They serve the bad revision: users should not have to wait for their turn in the rollback.
    """
    out = sum(1 for target in changed if not target.in_service)
    spare = max(0, plan["total"] - out - plan["minimum_healthy"])
    names = [target.name for target in changed if target.in_service][:spare]
    return [endpoint.at_load_balancer() for endpoint in endpoints if endpoint.target in names]


def describe(deployment: Deployment, targets: t.Sequence[Target]) -> str:
    """Return one sentence on how a deployment ended."""
    by_status: dict[str, list[str]] = {}
    for target in targets:
        by_status.setdefault(target.status, []).append(target.name)
    unchanged = [one.name for one in targets if one.status == "Succeeded" and not one.changed]
    if deployment.status == "Succeeded" and len(unchanged) == len(targets):
        return (
            f"{deployment.id} Succeeded: nothing to do, all {len(targets)} targets already have "
            f"revision {deployment.revision.digest[:12]}."
        )
    counts = ", ".join(f"{len(names)} {status}" for status, names in sorted(by_status.items()))
    text = f"{deployment.id} {deployment.status}: {counts}."
    if deployment.error_message:
        text += f" {deployment.error_code}: {deployment.error_message}"
    for target in targets:
        if target.status == "Failed":
            text += f"\n  {target.name}: {target.message}"
    return text
