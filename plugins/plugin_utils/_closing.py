# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Close a deployment, and open the rollback of one that failed."""

from __future__ import annotations

import dataclasses
import typing as t

from ..module_utils._admission import ALARM_CODES
from ..module_utils._plan import PlanTarget, make_plan
from ..module_utils._pools import BLOCK_EVENTS, BLUE_GREEN, way_back
from ._fresh_baseline import deployment_after, is_baseline
from ._planning import ALARM_EVENT, FAILURE_EVENT, STOP_EVENT, Endpoint
from ._play_facts import fleet
from ._record import MOVING, NewDeployment, RevisionRow, is_retiring

if t.TYPE_CHECKING:
    from ._record import Deployment, Record, Step, Target


@dataclasses.dataclass(frozen=True)
class Closed:
    """How a deployment ended, the deployment that rolls it back, or why there is none.

    ``following`` is the deployment for which this one has made a fresh baseline.
    """

    deployment: Deployment
    rollback: Deployment | None
    rollback_fleet: dict[str, t.Any] | None
    note: str
    summary: str
    following: Deployment | None = None
    following_fleet: dict[str, t.Any] | None = None


def close_deployment(record: Record, deployment_id: str) -> Closed:
    """Decide how a deployment ended, and open its rollback if the group's rules ask for one.

    Both are one transaction: no other controller comes between.
    """
    finished, opened = record.conclude(deployment_id, what_follows)
    targets = record.targets(deployment_id)
    summary = describe(finished, targets)
    if is_baseline(finished):
        return _closed_baseline(finished, opened, summary)
    rollback = opened
    if rollback is None:
        good = good_of(finished, record.last_known_good(finished.application, finished.group))
        note = why_no_rollback(finished, targets, good, record.steps(deployment_id))
        return Closed(finished, None, None, note, f"{summary}\n{note}".strip())
    members = rollback_fleet(rollback, targets)
    what = f"{len(members['targets'])} changed target(s)" if members["targets"] else "the traffic"
    summary += f"\nRolling back {what} to {rollback.revision.digest[:12]} as {rollback.id}."
    return Closed(finished, rollback, members, "", summary)


def what_follows(
    ended: Deployment,
    targets: t.Sequence[Target],
    good: RevisionRow | None,
    steps: t.Sequence[Step] = (),
) -> NewDeployment | None:
    """Return what is opened when a deployment ends: its rollback, or what it was a baseline for."""
    if is_baseline(ended):
        return deployment_after(ended) if ended.status == "Succeeded" else None
    return rollback_of(ended, targets, good, steps)


def _closed_baseline(baseline: Deployment, opened: Deployment | None, summary: str) -> Closed:
    if opened is None:
        note = "" if baseline.status == "Succeeded" else "No canary was touched."
        return Closed(baseline, None, None, note, f"{summary}\n{note}".strip())
    endpoints = [Endpoint(**endpoint) for endpoint in opened.options["endpoints"]]
    members = fleet(opened.plan, endpoints, options=opened.options, revision=opened.revision)
    summary += f"\nThe baseline is fresh; the canaries follow as {opened.id}."
    return Closed(baseline, None, None, "", summary, opened, members)


def is_paused(deployment: Deployment, steps: t.Sequence[Step] = ()) -> bool:
    """Tell whether a deployment waits to be resumed: with targets or steps left, or a gate."""
    left = deployment.overview.get("Pending", 0) + deployment.overview.get("InProgress", 0)
    left += sum(1 for step in steps if step.status in ("Pending", "InProgress"))
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


def has_moved(deployment: Deployment, steps: t.Sequence[Step]) -> bool:
    """Tell whether users may have reached the pool that the deployment changed."""
    return bool(deployment.plan.get("pools")) and any(
        step.kind in MOVING and step.started_at is not None for step in steps
    )


def why_no_rollback(
    deployment: Deployment,
    targets: t.Sequence[Target],
    good: RevisionRow | None,
    steps: t.Sequence[Step] = (),
) -> str:
    """Return why a deployment that failed or was stopped is not rolled back; empty if it is."""
    if deployment.status == "Succeeded" or deployment.strategy == "rollback":
        return ""
    changed = any(target.changed for target in targets)
    pools = deployment.plan.get("pools")
    if pools and pools["kind"] == BLUE_GREEN:
        # The idle pool keeps what was tried on it; the way back is the traffic.
        if not has_moved(deployment, steps):
            return f"No rollback is needed: no user has reached {pools['new']}."
        if is_retiring(steps) and not rollback_asked(deployment):
            return (
                f"Users stay on {pools['new']}: {pools['old']} was leaving the load balancer "
                f"already. To bring them back: `bascule rollback {deployment.id}`."
            )
        if deployment.status == "Stopped" and not rollback_asked(deployment):
            return f"All traffic is on {pools['home']}; {pools['new']} keeps what was tried on it."
        changed = True
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


def good_of(deployment: Deployment, good: RevisionRow | None) -> RevisionRow | None:
    """Return the revision that a failure goes back to.

    Functions that the record did not know, or that others have moved, go back to what was there.
    """
    before = deployment.options.get("before")
    return RevisionRow(**before) if before else good


def rollback_of(
    failed: Deployment,
    targets: t.Sequence[Target],
    good: RevisionRow | None,
    steps: t.Sequence[Step] = (),
) -> NewDeployment | None:
    """Return the deployment that brings the changed targets back; None if there is to be none.

    Targets that are out of service come first, and begin out of service.
    """
    good = good_of(failed, good)
    if failed.strategy == "rollback" or not rollback_asked(failed) or good is None:
        return None
    if why_no_rollback(failed, targets, good, steps):
        return None
    pools = failed.plan.get("pools")
    traffic_alone = pools is not None and pools["kind"] == BLUE_GREEN
    idle = set(pools["idle"]) if pools else set()
    changed = [target for target in targets if target.changed and not traffic_alone]
    steps_back: list[dict[str, t.Any]] = []
    left_out: list[str] = []
    if pools is not None:
        left_out = [] if changed else sorted(pools["members"][pools["home"]])
        if has_moved(failed, steps):
            hooks = failed.revision.appspec.get("hooks") or {}
            leaving = [one for one in BLOCK_EVENTS if hooks.get(one)]
            pools, steps_back = way_back(pools, leaving, retired=is_retiring(steps))
    plan = make_plan(
        strategy="rollback",
        targets=[
            PlanTarget(
                name=target.name,
                zone=target.zone,
                in_service=target.in_service and target.name not in idle,
            )
            for target in changed
        ],
        digest=good.digest,
        minimum=failed.plan["minimum_healthy"],
        stages=[len(changed)] if changed else [],
        bake_time=0.0,
        pools=pools,
        schedule=steps_back,
        left_out=left_out,
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
        options={
            "rollback_on": [],
            "endpoints": failed.options["endpoints"],
            "pool_endpoints": failed.options.get("pool_endpoints") or {},
            "pool_of": failed.options.get("pool_of") or {},
            "scaling": failed.options.get("scaling"),
        },
        rollback_of=failed.id,
        started_by=failed.started_by,
        started_from=failed.started_from,
    )


def rollback_fleet(rollback: Deployment, targets: t.Sequence[Target]) -> dict[str, t.Any]:
    """Return the facts the plays of a rollback are built from; ``targets``: of the failed one."""
    endpoints = [Endpoint(**endpoint) for endpoint in rollback.options["endpoints"]]
    members = fleet(rollback.plan, endpoints, options=rollback.options, revision=rollback.revision)
    # No user reaches an idle pool, so its targets need not leave the traffic.
    changed = [one for one in targets if one.changed and one.name not in members["idle"]]
    if not members["targets"]:
        changed = []
    members["retreat"] = retreat(changed, endpoints, rollback.plan)
    return members


def retreat(
    changed: t.Sequence[Target], endpoints: t.Sequence[Endpoint], plan: dict[str, t.Any]
) -> list[dict[str, t.Any]]:
    """Return the targets that can leave the load balancer at once without breaking the floor.

    They serve the bad revision: users should not have to wait for their turn in the rollback.
    """
    out = sum(1 for target in changed if not target.in_service)
    spare = spare_targets(plan["total"], out, plan["minimum_healthy"])
    names = [target.name for target in changed if target.in_service][:spare]
    return [endpoint.at_load_balancer() for endpoint in endpoints if endpoint.target in names]


def spare_targets(total: int, out: int, minimum: int) -> int:
    """Return how many of ``total`` can leave the traffic at once, where ``out`` are out already."""
    return max(0, total - out - minimum)


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
