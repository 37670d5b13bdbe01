# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From settings, load balancers and the record to the pools and the schedule of a deployment."""

from __future__ import annotations

import dataclasses
import typing as t

from ..module_utils._admission import FORWARD, IDLE
from ..module_utils._capabilities import CAPABILITIES, require
from ..module_utils._configuration import parse_duration
from ..module_utils._errors import PlanError, UsageError
from ..module_utils._plan import NO_PROVIDER
from ..module_utils._pools import (
    AB_TEST,
    BACK_PART,
    BLOCK_EVENTS,
    BLUE_GREEN,
    CANARY,
    ROLLBACK,
    STRATEGIES,
    Pools,
    Step,
    deployment_steps,
    live_pool,
    named_value,
    pools_of,
    read_test_route,
    routing_for,
    unsafe_parts,
    wishes_of,
)
from ..module_utils._routing_limits import refuse_beyond
from ..module_utils._schedule import SHIFT, is_schedule_name, parse_schedule
from ._record import is_retiring

if t.TYPE_CHECKING:
    from ._planning import Endpoint, Settings
    from ._record import Deployment, Record

# How far back the record is looked through for what a pool holds.
_DEPTH = 50
_DEFAULTS: dict[str, t.Any] = {
    BLUE_GREEN: "all_at_once",
    CANARY: [{"shift": "10%"}, {"bake": "5m"}],
    "canary by targets": [{"bake": "5m"}],
}


@dataclasses.dataclass(frozen=True)
class Observed:
    """What is known of the pools before a plan is made.

    ``endpoints``: the targets of each pool, as the load balancer knows them there; ``routings``:
    what each load balancer has at present; ``canaries``: the targets that
    ``deploy_canary_targets`` names; ``warnings``: what the load balancers say a person should know.
    """

    endpoints: dict[str, list[Endpoint]] = dataclasses.field(default_factory=dict)
    routings: list[dict[str, t.Any] | None] = dataclasses.field(default_factory=list)
    canaries: list[str] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Pooled:
    """What a strategy with pools or a schedule adds to a plan.

    ``touched`` are the targets that get the revision, None for all; ``total`` is what the minimum
    is counted of; ``first`` are canaries.
    """

    pools: Pools | None = None
    schedule: list[Step] = dataclasses.field(default_factory=list)
    touched: frozenset[str] | None = None
    total: int | None = None
    first: list[str] = dataclasses.field(default_factory=list)
    mode: str = FORWARD


def plan_pools(
    strategy: str,
    settings: Settings,
    endpoints: t.Sequence[Endpoint],
    digest: str,
    *,
    record: Record,
    observed: Observed,
) -> Pooled:
    """Decide which pool gets the revision and by which steps users come to it.

    A rollback of a group whose newest deployment had pools uses them again, all at once.

    :raises UsageError: a setting that cannot be read, or that the provider cannot do
    :raises PlanError: the pools do not allow it
    """
    kind = _kind(strategy, settings, record)
    if kind is None:
        return Pooled()
    names = list(settings["deploy_traffic_pools"] or {})
    if kind == CANARY and not names:
        return _by_targets(strategy, settings, endpoints, observed)
    _refuse_provider(kind, settings)
    rules = settings if strategy in STRATEGIES else {**settings, **AT_ONCE}
    known = _deployments(settings, record)
    test_route = read_test_route(rules["deploy_test_route"])
    sticky = named_value(
        rules["deploy_sticky"], "deploy_sticky", ("ttl",) if _has_ttl(rules) else ()
    )
    if sticky and "ttl" in sticky:
        sticky["ttl"] = parse_duration(sticky["ttl"], "deploy_sticky.ttl")
    live = live_pool(names, observed.routings, _last_live(record, known)) if len(names) == 2 else ""
    pools = pools_of(
        kind,
        names,
        {pool: [one.target for one in found] for pool, found in observed.endpoints.items()},
        live,
        before=_before(names, observed),
        test_route=test_route,
        sticky=sticky,
        retire=rules["deploy_retire"],
        leaving=_leaving_hooks(settings, record),
    )
    require(settings["deploy_traffic_provider"], wishes_of(pools))
    if kind == CANARY and strategy == ROLLBACK:
        return Pooled(pools=pools)
    schedule = schedule_of(kind, rules)
    steps = deployment_steps(
        schedule,
        pools,
        bake=parse_duration(rules["deploy_bake_time"], "deploy_bake_time")
        if kind == BLUE_GREEN
        else 0.0,
        ready_timeout=parse_duration(rules["deploy_ready_timeout"], "deploy_ready_timeout"),
        ready_on_timeout=rules["deploy_ready_on_timeout"],
        retire_after=parse_duration(rules["deploy_retire_after"], "deploy_retire_after"),
        fleet=kind == BLUE_GREEN
        and strategy != ROLLBACK
        and settings.get("deploy_green_fleet") == "copy_auto_scaling_group",
    )
    for share in sorted({float(step["share"]) for step in steps if step.get("share") is not None}):
        refuse_beyond(settings["deploy_traffic_provider"], routing_for(pools, share, "plan"))
    if kind == CANARY:
        return Pooled(pools=pools, schedule=steps, first=pools["idle"])
    fresh = strategy == ROLLBACK and holds(known, pools["new"], digest)
    touched = frozenset() if fresh else frozenset(pools["idle"])
    return Pooled(pools=pools, schedule=steps, touched=touched, total=len(pools["idle"]), mode=IDLE)


# A way back waits for nobody.
AT_ONCE: dict[str, t.Any] = {
    "deploy_schedule": "all_at_once",
    "deploy_bake_time": 0,
    "deploy_test_route": {},
    "deploy_sticky": {},
    "deploy_ready_timeout": 0,
    "deploy_retire": "keep",
}


def holds(deployments: t.Sequence[Deployment], pool: str, digest: str) -> bool:
    """Tell whether a pool has a revision, ready to serve, by the deployments (newest first)."""
    for one in deployments:
        pools = one.plan.get("pools")
        if pools and pools["kind"] == BLUE_GREEN and pools["new"] != pool:
            if pools.get("retire") == "terminate" and one.status == "Succeeded":
                return False
            continue
        return one.status == "Succeeded" and one.revision.digest == digest
    return False


def _kind(strategy: str, settings: Settings, record: Record) -> str | None:
    if strategy == AB_TEST:
        raise UsageError(
            "The strategy ab_test is for Lambda functions (deploy_compute_platform: lambda). For "
            "hosts: blue_green with deploy_sticky keeps users on their pool, and an approval in "
            "deploy_schedule decides."
        )
    if strategy in STRATEGIES:
        return strategy
    if strategy != ROLLBACK:
        return None
    known = _deployments(settings, record)
    if not settings["deploy_traffic_pools"]:
        _refuse_lost_pools(known)
        return None
    for one in known:
        pools = one.plan.get("pools")
        if pools:
            return str(pools["kind"])
    return None


def _refuse_lost_pools(known: t.Sequence[Deployment]) -> None:
    """Refuse to go back without the pools that the newest deployment had.

    :param known: the deployments of the group, newest first
    """
    for one in known[:1]:
        members = sorted((one.plan.get("pools") or {}).get("members") or {})
        if members:
            raise UsageError(
                f"The newest deployment {one.id} shared the traffic between the pools "
                f"{', '.join(members)}, and now deploy_traffic_pools has none. A rollback without "
                "them would change targets under their users. Give deploy_traffic_provider and "
                "deploy_traffic_pools as they were, in the inventory or with -e; to go on without "
                "pools, deploy the revision that is wanted."
            )


def _deployments(settings: Settings, record: Record) -> list[Deployment]:
    return record.deployments(
        settings["deploy_application"], settings["deploy_group"], limit=_DEPTH
    )


def _leaving_hooks(settings: Settings, record: Record) -> list[str]:
    """Return which of ``BLOCK_EVENTS`` the group's revision has hooks for."""
    state = record.group_state(settings["deploy_application"], settings["deploy_group"])
    if state is None:
        return []
    hooks = record.deployment(state.deployment_id).revision.appspec.get("hooks") or {}
    return [event for event in BLOCK_EVENTS if hooks.get(event)]


def resting(record: Record, application: str, group: str) -> frozenset[str]:
    """Return the targets that no user reaches: those of the idle pool, if the group takes turns.

    They keep what they had, for the way back, until a deployment gives them something else.
    """
    for one in record.deployments(application, group, limit=_DEPTH):
        if not one.is_final or one.options.get("follows"):
            continue
        pools = one.plan.get("pools")
        if not pools or pools["kind"] != BLUE_GREEN or pools.get("platform"):
            return frozenset()
        live = _left_on(record, one)
        serving = set(pools["members"][live])
        others = {name for found in pools["members"].values() for name in found}
        return frozenset(others - serving)
    return frozenset()


def _last_live(record: Record, deployments: t.Sequence[Deployment]) -> str | None:
    """Return the pool that the newest deployment with pools has left the traffic on."""
    for one in deployments:
        if one.plan.get("pools") and one.is_final:
            return _left_on(record, one)
    return None


def _left_on(record: Record, ended: Deployment) -> str:
    """Return the pool that a deployment with pools has left the traffic on.

    One that ended otherwise brought it home, unless that pool was not in service by then.
    """
    pools = ended.plan["pools"]
    if pools["kind"] != BLUE_GREEN:
        return str(pools["home"])
    if ended.status == "Succeeded":
        return str(pools["new"])
    unsafe = unsafe_parts(ended.plan.get("schedule") or ())
    steps = record.steps(ended.id) if unsafe else []
    if BACK_PART in unsafe and not any(one.kind == SHIFT and one.started_at for one in steps):
        return str(pools["old"])
    return str(pools["new"] if is_retiring(steps) else pools["home"])


def _before(names: t.Sequence[str], observed: Observed) -> dict[str, float] | None:
    for routing in observed.routings:
        weights = (routing or {}).get("weights") or {}
        if weights:
            return {name: float(weights.get(name, 0.0)) for name in names}
    return None


def _refuse_provider(kind: str, settings: Settings) -> None:
    provider = settings["deploy_traffic_provider"]
    if provider in NO_PROVIDER:
        able = sorted(name for name, words in CAPABILITIES.items() if {"weights", "drain"} <= words)
        raise UsageError(
            f"The strategy {kind} moves traffic between pools, and deploy_traffic_provider is "
            f"{provider or 'not set'}. Set it to one that can: {', '.join(able)}."
        )
    require(provider, ["weights"])


def _has_ttl(settings: Settings) -> bool:
    given = settings["deploy_sticky"]
    return isinstance(given, dict) and "ttl" in given


def schedule_of(
    kind: str, settings: Settings, default: str | None = None, *, complete: bool | None = None
) -> list[dict[str, t.Any]]:
    """Return the schedule that the settings name, or the default of the strategy.

    :param complete: whether it must end with all traffic on the new pool; not in a canary
        deployment of hosts, whose last step is the rest of the fleet
    """
    whole = kind != CANARY if complete is None else complete
    given, name = settings["deploy_schedule"], "deploy_schedule"
    if given in ("", None) and is_schedule_name(settings["deploy_configuration"]):
        given, name = settings["deploy_configuration"], "deploy_configuration"
    if given in ("", None):
        given = _DEFAULTS[default or kind]
    steps = parse_schedule(given, name, complete=whole)
    # The last step of a canary deployment is the rest of the fleet, not all traffic on the canary.
    if not whole and steps and steps[-1]["kind"] == SHIFT and steps[-1]["share"] == 100:
        steps.pop()
    return steps


def _by_targets(
    strategy: str, settings: Settings, endpoints: t.Sequence[Endpoint], observed: Observed
) -> Pooled:
    """Plan canaries that are targets among the others, with the share that these have."""
    if strategy == ROLLBACK:
        return Pooled()
    for name in ("deploy_test_route", "deploy_sticky"):
        if settings[name]:
            raise UsageError(
                f"{name} needs pools that the load balancer can tell apart: name them in "
                "deploy_traffic_pools."
            )
    canaries = [one.target for one in endpoints if one.target in observed.canaries]
    if not canaries or len(canaries) == len(endpoints):
        raise PlanError(
            f"deploy_canary_targets is {settings['deploy_canary_targets']!r}, which is "
            f"{'all' if canaries else 'none'} of {len(endpoints)} targets; wanted are some, and "
            "others that they can be compared with."
        )
    given = schedule_of(CANARY, settings, "canary by targets")
    return Pooled(schedule=deployment_steps(given, None), first=canaries)
