# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the plays of a deployment are built from: facts of it, and of its fleet in plan order."""

from __future__ import annotations

import typing as t

from ..module_utils._appspec_lambda import AFTER, BEFORE, EVENTS
from ..module_utils._functions import PLATFORM
from ..module_utils._plan import NO_PROVIDER
from ..module_utils._plan_hash import plan_hash
from ..module_utils._pools import (
    PARTS,
    hooks_of_pools,
    routing_for,
    routing_home,
    routing_unmoved,
    unsafe_parts,
)
from ..module_utils._realised import confirmation
from ..module_utils._schedule import POOL, step_label
from ._fresh_baseline import is_baseline
from ._lambda._revision import functions_of
from ._planning import Endpoint, Plan, by_pool
from ._record import group_id

if t.TYPE_CHECKING:
    from ._record import Deployment, NewDeployment, RevisionRow

# Which tasks of the role ``shift`` carry a step out.
TASKS = {
    "pool": "attach",
    "test": "route",
    "shift": "route",
    "bake": "ask",
    "gate": "ask",
    "approval": "ask",
    "retire": "retire",
    "hook": "function",
    "fleet": "fleet",
}

# In check mode nothing is written, but the plays still need a name for the deployment.
CHECK_ID = "d-CHECKONLY"


def deployment_fact(deployment: Deployment) -> dict[str, t.Any]:
    """Return a deployment as the plays and the callbacks know it."""
    return {
        "id": deployment.id,
        "status": deployment.status,
        "creator": deployment.creator,
        "application": deployment.application,
        "group": deployment.group,
        "group_id": deployment.group_id,
        "strategy": deployment.strategy,
        "digest": deployment.revision.digest,
        "plan_hash": deployment.plan_hash,
        "revision": deployment.revision.source,
        "description": deployment.revision.description,
        "rollback_of": deployment.rollback_of,
        "follows": deployment.options.get("follows"),
        "baseline": deployment.options.get("baseline"),
        "is_baseline": is_baseline(deployment),
        "error_code": deployment.error_code,
        "error_message": deployment.error_message,
        "fence": deployment.fence,
        **gated_facts(deployment.plan, deployment.options),
        "scaling": scaling_fact(deployment),
    }


def scaling_fact(deployment: Deployment) -> dict[str, t.Any] | None:
    """Return what the actions of a deployment have to know of launch hooks; None if nothing."""
    told = deployment.options.get("scaling")
    before = (deployment.rollback_of, deployment.options.get("follows"))
    return {**told, "held_for": [one for one in before if one]} if told else None


def planned_fact(new: NewDeployment) -> dict[str, t.Any]:
    """Return the same for a deployment that is only checked and in no record."""
    return {
        "id": CHECK_ID,
        "status": "Created",
        "creator": new.creator,
        "application": new.application,
        "group": new.group,
        "group_id": group_id(new.application, new.group),
        "strategy": new.strategy,
        "digest": new.revision.digest,
        "plan_hash": plan_hash(new.plan, new.revision.digest),
        "revision": new.revision.source,
        "description": new.revision.description,
        "rollback_of": None,
        "follows": None,
        "baseline": None,
        "is_baseline": False,
        "error_code": None,
        "error_message": "",
        "fence": None,
        **gated_facts(new.plan, new.options),
    }


def gated_facts(plan: Plan, options: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return what the plays have to know of gates, alarms and launch hooks.

    ``last_step`` is the name of the step in which the gates of the last stage are asked, empty if
    none are.
    """
    gates = plan.get("gates") or {}
    last = f"stage {len(plan['stages'])}" if gates.get("staged") and plan["stages"] else ""
    return {"last_step": last, "alarms": options.get("alarms"), "scaling": None}


def fleet(
    plan: Plan,
    endpoints: t.Sequence[Endpoint],
    *,
    options: t.Mapping[str, t.Any] | None = None,
    revision: RevisionRow | None = None,
) -> dict[str, t.Any]:
    """Return the facts the plays are built from: targets in plan order, batches, endpoints.

    :param options: those of the deployment, and its ``revision``: needed where pools are
    """
    known = {endpoint.target: endpoint for endpoint in endpoints}
    order = [name for stage in plan["stages"] for name in stage]
    balanced = plan["provider"] not in NO_PROVIDER
    pools = plan.get("pools")
    idle = [name for name in order if pools and name in pools["idle"]]
    functions = idle if pools and pools.get("platform") == PLATFORM else []
    idle = [] if functions else idle
    canaries = [name for name in plan.get("canaries") or [] if name not in idle]
    rest = [name for name in order if name not in (*idle, *functions, *canaries)]
    later = [[name for name in stage if name in rest] for stage in plan["stages"]]
    anchor = (order or [one.target for one in endpoints])[:1]
    fresh = (plan.get("baseline") or {}).get("targets") or []
    compared = [
        name for name in plan.get("canaries") or [] if name in known and (fresh or not pools)
    ]
    beside = fresh or [name for name in known if name not in compared]
    arms = {"canary": compared, "baseline": beside} if compared else {}
    return {
        # Whom the judge compares where these are targets and not whole pools.
        "arms": {
            arm: [
                {**known[name].at_load_balancer(), **({"pool": known[name].pool} if pools else {})}
                for name in names
            ]
            for arm, names in arms.items()
        },
        "targets": order,
        "staged": [name for name in order if name not in functions],
        "functions": functions,
        # A task that is skipped costs as much as one that runs: each way has its own tasks.
        "direct": [] if balanced else rest,
        "balanced": rest if balanced else [],
        "idle": idle,
        "canaries_direct": [] if balanced else canaries,
        "canaries_balanced": canaries if balanced else [],
        # Their host may say that all is done, but they never came back into service.
        "unhealthy": [one["name"] for one in plan["targets"] if one["health"] == "Unhealthy"],
        "serial": [len(stage) for stage in later if stage] or [1],
        "endpoints": [known[name].at_load_balancer() for name in order if not functions],
        "in_pools": by_pool(known[name] for name in order if not functions),
        # What is done once is done with the variables of one host of the group.
        "closing": order or (anchor if plan.get("schedule") else []),
        **_moving(plan, order, idle, anchor, options or {}, revision),
        **_checking(plan, functions, revision),
    }


def baseline_fleet(baseline: Deployment) -> dict[str, t.Any]:
    """Return the facts the plays of a fresh baseline are built from."""
    endpoints = [Endpoint(**endpoint) for endpoint in baseline.options["endpoints"]]
    members = fleet(baseline.plan, endpoints, options=baseline.options, revision=baseline.revision)
    # They have this revision, and it is installed all the same.
    return {**members, "unhealthy": members["targets"]}


def _checking(
    plan: Plan, functions: t.Sequence[str], revision: RevisionRow | None
) -> dict[str, t.Any]:
    """Return which functions are checked by others all at once; a way back asks nobody.

    Functions that follow each other have steps of their own for it.
    """
    found: dict[str, list[str]] = {event: [] for event in EVENTS}
    in_order = bool((plan.get("pools") or {}).get("ladder"))
    if revision is not None and plan["strategy"] != "rollback" and not in_order:
        for target in functions:
            for event in functions_of(revision)[target]["hooks"]:
                found[event].append(target)
    return {"functions_before": found[BEFORE], "functions_after": found[AFTER]}


def _moving(
    plan: Plan,
    order: list[str],
    idle: list[str],
    anchor: list[str],
    options: t.Mapping[str, t.Any],
    revision: RevisionRow | None,
) -> dict[str, t.Any]:
    """Return the facts of pools and schedule; empty ones where no traffic is moved."""
    pools = plan.get("pools")
    hooks = (revision.appspec.get("hooks") or {}) if revision else {}
    salt = str(plan["digest"])[:16]
    steps: dict[str, list[dict[str, t.Any]]] = {part: [] for part in PARTS}
    # What gates and the judge compare depends on the share that the new pool has by then.
    present: dict[str, t.Any] = {
        "share": 0.0 if pools else None, "sticky": bool(pools and pools["sticky"]),
    }  # fmt: skip
    schedule = plan.get("schedule") or []
    for index, step in enumerate(schedule):
        if "share" in step:
            present = {**present, "share": _own_share(pools or {}, step["share"])}
        moves = pools is not None and "share" in step
        routed = {"routing": routing_for(pools or {}, step["share"], salt)} if moves else {}
        if pools is not None and step["kind"] == POOL:
            routed = {"routing": routing_unmoved(pools)}
        label = step_label(step["number"])
        asked = {
            "gates": _gates_of(step),
            "label": label,
            "tasks": TASKS[step["kind"]],
            "present": present,
            "confirm": confirmation(plan["provider"], step, schedule[index + 1 :]),
        }
        steps[step["part"]].append({**step, **routed, **asked})
    where = {part: anchor if found else [] for part, found in steps.items()}
    functions = bool(pools and pools.get("platform") == PLATFORM)
    return {
        "pools": pools or {},
        "home": routing_home(pools) if pools else {},
        "unsafe_parts": unsafe_parts(schedule),
        "pool_endpoints": options.get("pool_endpoints") or {},
        "pool_of": {
            name: pool for name, pool in (options.get("pool_of") or {}).items() if name in order
        },
        "steps": steps,
        # The plays of functions and of hosts are others.
        "step_hosts": {part: [] for part in PARTS} if functions else where,
        "function_hosts": where if functions else {part: [] for part in PARTS},
        "before_allow": idle if hooks.get("BeforeAllowTraffic") else [],
        "after_allow": idle if hooks.get("AfterAllowTraffic") else [],
        **hooks_of_pools(pools, hooks, back=plan["strategy"] == "rollback", touched=idle),
    }


def _own_share(pools: t.Mapping[str, t.Any], share: float) -> float:
    """Return the percent that is compared: of functions in order, that of the one that is moved."""
    own = (pools.get("ladder") or {}).get(f"{share:g}")
    if own is None:
        return share
    return next((float(one) for one in own.values() if 0 < one < 100), 100.0)


def _gates_of(step: t.Mapping[str, t.Any]) -> list[dict[str, t.Any]]:
    """Return the gates that a step has of its own."""
    if step["kind"] == "approval":
        waits = {"timeout": step["timeout"], "on_timeout": step["on_timeout"]}
        return [{"name": "approval", "type": "approval", **waits}]
    return [step["gate"]] if step["kind"] == "gate" else []
