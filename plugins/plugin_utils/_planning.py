# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From settings, targets and what the record knows of them to a plan."""

from __future__ import annotations

import collections
import dataclasses
import typing as t

from ..module_utils._admission import FORWARD, IDLE
from ..module_utils._approval import approval_rule
from ..module_utils._baseline import FRESH, choose_baseline
from ..module_utils._capabilities import require
from ..module_utils._configuration import (
    MinimumHealthy,
    parse_configuration,
    parse_duration,
    parse_minimum_healthy,
    parse_stages,
)
from ..module_utils._errors import PlanError, UsageError
from ..module_utils._functions import is_lambda
from ..module_utils._plan import NO_PROVIDER, UNKNOWN, PlanTarget, make_plan
from ..module_utils._pools import CANARY
from ..module_utils._rehearsal import GoodRevision, rehearse
from ..module_utils._schedule import is_schedule_name, nearest_name
from ..module_utils._zonal import Zonal, parse_zonal
from ._gates import configure, planned_gates
from ._pooling import Pooled
from ._revisions import has_revision

if t.TYPE_CHECKING:
    from pathlib import Path

    from ._record import Record, TargetState

# The event of ``deploy_rollback_on`` that asks for a rollback of what failed.
FAILURE_EVENT = "DEPLOYMENT_FAILURE"
# That which asks for a rollback of what was stopped.
STOP_EVENT = "DEPLOYMENT_STOP_ON_REQUEST"

# That which asks for a rollback of what an alarm has stopped.
ALARM_EVENT = "DEPLOYMENT_STOP_ON_ALARM"

Settings = dict[str, t.Any]
Plan = dict[str, t.Any]


def by_pool(endpoints: t.Iterable[Endpoint]) -> list[dict[str, t.Any]]:
    """Return endpoints as the action ``traffic`` takes them, a list for each pool."""
    found: dict[str, list[dict[str, t.Any]]] = {}
    for one in endpoints:
        found.setdefault(one.pool, []).append(one.at_load_balancer())
    return [{"pool": pool, "targets": targets} for pool, targets in found.items()]


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A target as the inventory, the load balancer and EC2 (``instance``) know it."""

    target: str
    name: str
    address: str
    port: int
    zone: str
    instance: str = ""
    pool: str = ""

    def at_load_balancer(self) -> dict[str, t.Any]:
        """Return the endpoint as the action ``traffic`` takes it."""
        return {
            "target": self.target,
            "name": self.name,
            "address": self.address,
            "port": self.port,
            **({"instance": self.instance} if self.instance else {}),
        }


def plan_deployment(
    strategy: str,
    settings: Settings,
    endpoints: t.Sequence[Endpoint],
    digest: str,
    *,
    record: Record,
    cache: Path,
    among: t.Collection[str] | None = None,
    pooled: Pooled | None = None,
) -> Plan:
    """Return the plan for the targets as the record last saw them.

    :param endpoints: the whole group
    :param among: only these are touched; by default all, or with ``deploy_only_outdated`` those
        that are not healthy with this revision. The others count for the minimum all the same
    :param pooled: what ``plan_pools`` has decided
    """
    pooled = pooled or Pooled()
    application, group = settings["deploy_application"], settings["deploy_group"]
    states = record.target_states(application, group)
    if among is None and settings["deploy_only_outdated"]:
        among = {
            one.target for one in endpoints if not is_up_to_date(states.get(one.target), digest)
        }
    if pooled.touched is not None:
        among = pooled.touched if among is None else pooled.touched & set(among)
    touched = [one for one in endpoints if among is None or one.target in among]
    first = [one.target for one in touched if one.target in pooled.first]
    idle = set(pooled.pools["idle"]) if pooled.pools else set()
    total = len(endpoints) if pooled.total is None else pooled.total
    current = record.group_state(application, group)
    zonal = None if strategy == "rollback" else zonal_of(settings)
    by_zones = zonal if pooled.mode == FORWARD and not first else None
    plan = make_plan(
        strategy=strategy,
        targets=[
            _plan_target(one, states.get(one.target), in_service=one.target not in idle)
            for one in touched
        ],
        digest=digest,
        # A deployment of functions has one abort for all of them.
        minimum=total if is_lambda(settings) else _minimum(settings, total, pooled),
        stages=_stages(settings, len(first), pooled.mode),
        bake_time=parse_duration(settings["deploy_bake_time"], "deploy_bake_time"),
        provider=settings["deploy_traffic_provider"],
        current=current.digest if current else None,
        rollback=_rehearsal(
            strategy,
            settings,
            digest,
            # The way back of an idle pool is the traffic alone.
            [] if pooled.mode == IDLE else touched,
            record=record,
            cache=cache,
        ),
        left_out=[one.target for one in endpoints if one not in touched],
        total=total,
        mode=pooled.mode,
        approval=_approval_rule(strategy, settings),
        pools=pooled.pools,
        schedule=pooled.schedule,
        first=first,
        zonal=by_zones,
        zones=collections.Counter(one.zone for one in endpoints),
        gates=planned_gates(strategy, settings),
        alarms_roll_back=ALARM_EVENT in settings["deploy_rollback_on"],
        baseline=_baseline(
            settings, [one for one in touched if one.target in first], endpoints, states,
            record=record, cache=cache, pools=pooled.pools,
        )
        if strategy == CANARY and first
        else None,
    )  # fmt: skip
    if zonal is not None and by_zones is None and touched:
        plan["warnings"].append(
            "Zones do not follow each other here, and have no minimum of their own: "
            + ("the canaries come first." if first else "a pool is changed as a whole.")
        )
    return plan


def _baseline(
    settings: Settings,
    canaries: t.Sequence[Endpoint],
    endpoints: t.Sequence[Endpoint],
    states: t.Mapping[str, TargetState],
    *,
    record: Record,
    cache: Path,
    pools: t.Mapping[str, t.Any] | None,
) -> dict[str, t.Any] | None:
    """Return the fresh baseline that the settings ask for; None where they ask for none.

    :param pools: where canaries are a pool of their own, the baseline is part of the other one
    :raises PlanError: there is no revision to compare with, or there are too few targets with it
    :raises UsageError: the judge is to measure there what is not counted of targets
    """
    if settings["deploy_canary_baseline"] != FRESH:
        if pools is None:
            _refuse_uncounted(settings)
        return None
    _refuse_uncounted(settings)
    good = record.good_deployment(settings["deploy_application"], settings["deploy_group"])
    if good is None:
        raise PlanError(
            "deploy_canary_baseline is fresh, and no revision has succeeded in this deployment "
            "group before: there is nothing to compare with. Set it to rest, or begin with the "
            "strategy rolling."
        )
    names = {one.target for one in canaries}
    among = pools["members"][pools["old"]] if pools else [one.target for one in endpoints]
    others = [
        (one.target, one.zone)
        for one in endpoints
        if one.target not in names
        and one.target in among
        and is_up_to_date(states.get(one.target), good.revision.digest)
    ]
    chosen = choose_baseline(
        [(one.target, one.zone) for one in canaries], others, fewer=pools is not None
    )
    application, group = settings["deploy_application"], settings["deploy_group"]
    if not has_revision(good.revision.digest, cache=cache):
        holders = {
            one.target
            for one in record.revision_holders(good.revision.digest)
            if (one.application, one.group) == (application, group)
        }
        if not holders.issuperset(chosen):
            raise PlanError(
                f"deploy_canary_baseline is fresh, and the bundle of the last good revision "
                f"{good.revision.digest[:12]} is neither in this controller's cache nor on "
                f"{', '.join(name for name in chosen if name not in holders)}. Set it to rest."
            )
    return {
        "targets": chosen, "digest": good.revision.digest,
        "description": good.revision.description or good.revision.source,
    }  # fmt: skip


def _refuse_uncounted(settings: Settings) -> None:
    """Refuse a judge that is to measure at the load balancer what that does not count by target."""
    if not settings["deploy_judge"]:
        return
    judge = configure(settings["deploy_judge"])
    for metric in judge.judge.metrics:
        if judge.sources[metric.name]["source"] != "proxy":
            continue
        if settings["deploy_traffic_provider"] not in NO_PROVIDER:
            require(settings["deploy_traffic_provider"], ["count"])
        if metric.kind == "series":
            raise UsageError(
                f"The metric {metric.name} of deploy_judge is a series of the load balancer, which "
                "knows the latency of pools, not of targets, and targets are compared here. Give "
                "it another source: prometheus, cloudwatch or command."
            )


def _minimum(settings: Settings, total: int, pooled: Pooled) -> int:
    """Return how many targets must stay healthy.

    Where canaries are a pool of their own, the minimum is one of the pool that serves, and no
    canary may fail.
    """
    if pooled.pools and pooled.mode == FORWARD:
        canaries = len(pooled.pools["idle"])
        return minimum_of(settings, total - canaries) + canaries
    return minimum_of(settings, total)


def _stages(settings: Settings, first: int, mode: str) -> t.Callable[[int], list[int]]:
    """Return the sizes of the stages for a number of targets.

    Canaries are a stage of their own, an idle pool is one.
    """

    def sizes(touched: int) -> list[int]:
        if mode == IDLE:
            return [touched] if touched else []
        rest = parse_stages(settings["deploy_stages"], touched - first)
        return [first, *rest] if first else rest

    return sizes


def _approval_rule(strategy: str, settings: Settings) -> dict[str, t.Any] | None:
    """Return whose leave the stages need; a way back asks nobody."""
    if strategy == "rollback":
        return None
    timeout = parse_duration(settings["deploy_approval_timeout"], "deploy_approval_timeout")
    return approval_rule(
        settings["deploy_approval"], timeout, settings["deploy_approval_on_timeout"]
    )


def is_up_to_date(state: TargetState | None, digest: str) -> bool:
    """Tell whether the record has a target as healthy with the revision ``digest``."""
    return state is not None and state.health == "Healthy" and state.digest == digest


def minimum_of(settings: Settings, total: int) -> int:
    """Return how many of ``total`` targets must stay healthy.

    :raises UsageError: the setting cannot be read
    """
    if settings["deploy_minimum_healthy_hosts"] in ("", None):
        given = settings["deploy_configuration"]
        # A configuration of traffic says nothing of hosts.
        one_at_a_time = "CodeDeployDefault.OneAtATime"
        minimum, _zonal = _configuration(one_at_a_time if is_schedule_name(given) else given)
    else:
        minimum = parse_minimum_healthy(
            settings["deploy_minimum_healthy_hosts"], "deploy_minimum_healthy_hosts"
        )
    return minimum.of(total)


def zonal_of(settings: Settings) -> Zonal | None:
    """Return how the zones follow each other; None if they do not matter.

    :raises UsageError: the setting cannot be read
    """
    own = parse_zonal(settings["deploy_zonal"])
    if own is not None:
        return own
    if is_schedule_name(settings["deploy_configuration"]):
        return None
    _minimum, described = _configuration(settings["deploy_configuration"])
    return parse_zonal(described, "zonalConfig of deploy_configuration")


def _configuration(given: t.Any) -> tuple[MinimumHealthy, t.Any]:
    """Read a configuration of hosts; what is almost a name of one of traffic is told by it."""
    try:
        return parse_configuration(given)
    except UsageError as error:
        near = nearest_name(given)
        if not near:
            raise
        raise UsageError(f"{error} Did you mean {near}?") from error


def _plan_target(
    endpoint: Endpoint, state: TargetState | None, *, in_service: bool = True
) -> PlanTarget:
    return PlanTarget(
        name=endpoint.target,
        zone=endpoint.zone,
        health=state.health if state else UNKNOWN,
        digest=state.digest if state else None,
        in_service=in_service,
    )


def _rehearsal(
    strategy: str,
    settings: Settings,
    digest: str,
    touched: t.Sequence[Endpoint],
    *,
    record: Record,
    cache: Path,
) -> dict[str, t.Any]:
    """Return whether a failure could be rolled back, with the bundle that would be needed."""
    application, group = settings["deploy_application"], settings["deploy_group"]
    names = [one.target for one in touched]
    automatic = strategy != "rollback" and FAILURE_EVENT in settings["deploy_rollback_on"]
    found = record.good_deployment(application, group)
    if found is None:
        # A group with a revision of its own and none to go back to has only bad ones.
        marked = record.group_state(application, group) is not None
        return rehearse(digest, None, names, automatic=automatic, marked_bad=marked)
    good = found.revision
    holders = {
        one.target
        for one in record.revision_holders(good.digest)
        if (one.application, one.group) == (application, group)
    }
    return rehearse(
        digest,
        GoodRevision(
            good.digest,
            description=good.description,
            deployment_id=found.id,
            succeeded_at=found.finished_at,
            cached=has_revision(good.digest, cache=cache),
            holders=frozenset(holders),
        ),
        names,
        automatic=automatic,
    )
