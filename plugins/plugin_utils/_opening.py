# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Open a deployment: from variables and targets to a plan in the record."""

from __future__ import annotations

import dataclasses
import difflib
import getpass
import socket
import time
import typing as t
from pathlib import Path

from ..module_utils._ab_test import parse_ab_test
from ..module_utils._errors import PlanError, UsageError
from ..module_utils._functions import PLATFORM
from ..module_utils._plan import NO_PROVIDER, render_plan
from ..module_utils._pools import AB_TEST
from ..module_utils._routing import PROVIDER_OPTIONS
from ..module_utils._saved_plan import Saved, first_difference, plan_difference
from ._alarms import refuse_active
from ._choosing import find_revision
from ._fresh_baseline import baseline_before, deployment_after, is_baseline
from ._function_pools import plan_functions
from ._gates import alarms_of
from ._history import left_open
from ._lambda._package import prune_packages
from ._lambda._plan import look_at, with_functions
from ._planning import Endpoint, Plan, Settings, plan_deployment
from ._play_facts import baseline_fleet, deployment_fact, fleet, planned_fact
from ._pooling import Observed, plan_pools
from ._record import NewDeployment
from ._revisions import note_use, prune
from ._saving import load_saved, save, write_saved

if t.TYPE_CHECKING:
    from ..module_utils._functions import FunctionSettings
    from ._record import Deployment, Record, RevisionRow
    from ._saving import Situation


@dataclasses.dataclass(frozen=True)
class Opened:
    """What the plays after the opening need to know.

    Where a fresh baseline comes first, it is the deployment ``baseline``, and the other one is
    opened when it has succeeded.
    """

    deployment: dict[str, t.Any]
    fleet: dict[str, t.Any]
    plan: Plan
    plan_text: str
    baseline: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    baseline_fleet: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    baseline_plan: Plan = dataclasses.field(default_factory=dict)


def no_targets(
    group: str, pattern: str, groups: t.Mapping[str, t.Sequence[str]] | None = None
) -> UsageError:
    """Return the refusal of a deployment to nobody; ``groups`` are those of the inventory."""
    if groups is not None and not groups.get("all"):
        return UsageError(
            f"The deployment group {group} has no targets: the inventory has no host at all. Name "
            "one with -i, or in ansible.cfg."
        )
    known = [name for name in groups or () if name not in ("all", "ungrouped")]
    near = difflib.get_close_matches(pattern, known, n=3) or known[:5]
    others = ", …" if len(known) > len(near) else ""
    told = f" (it has {', '.join(near)}{others})" if near else ""
    return UsageError(
        f"The deployment group {group} has no targets: no host of the inventory matches "
        f"{pattern!r}. Set deploy_targets to a group or pattern of the inventory{told}, and check "
        "--limit."
    )


def open_deployment(
    strategy: str,
    settings: Settings,
    endpoints: t.Sequence[Endpoint],
    *,
    record: Record,
    cache: Path,
    base: Path,
    check: bool,
    situation: Situation | None = None,
    observed: Observed | None = None,
    functions: t.Sequence[FunctionSettings] = (),
) -> Opened:
    """Resolve the revision, make the plan and, unless checking, write both to the record.

    A deployment that has nothing to do has ended when this returns.

    :param settings: the public variables with their defaults
    :param endpoints: the targets in inventory order
    :param base: folder from which a relative path is looked up
    :param situation: what a saved plan is made of; needed for ``deploy_plan`` and
        ``deploy_plan_output``
    :param observed: what is known of the pools of the group
    :param functions: the targets as functions, where they are
    :raises BasculeError: nothing has been changed then
    """
    seen = observed or Observed()
    group = settings["deploy_group"]
    if not endpoints:
        raise no_targets(group, settings["deploy_targets"])
    saved = None
    if settings["deploy_plan"]:
        saved = load_saved(base / Path(settings["deploy_plan"]).expanduser())
    revision = find_revision(
        strategy,
        settings,
        record=record,
        cache=cache,
        base=Path(saved["run"]["base"]) if saved else base,
        expected=saved["revision"]["digest"] if saved else None,
        functions=functions,
    )

    def saving(plan: Plan) -> Saved:
        if situation is None:
            raise UsageError("A plan can be saved and applied only by a run of a strategy.")
        salt = saved["salt"] if saved else None
        return save(
            strategy, settings, endpoints, revision, plan, situation, record=record, salt=salt
        )

    only_after = None
    if saved:
        now = saving({})
        _refuse_changes(saved, first_difference(saved, now))
        only_after = now["record"]["newest"] or ""
    look = None
    if functions:
        look = look_at(
            functions,
            revision,
            record=record,
            # A way back is not refused because of what it is to undo.
            accept_drift=settings["deploy_lambda_accept_drift"] or strategy == "rollback",
        )
        pooled = plan_functions(strategy, settings, endpoints, revision, look.current)
    else:
        pooled = plan_pools(
            strategy, settings, endpoints, revision.digest, record=record, observed=seen
        )
    placed = list(endpoints)
    if pooled.pools and look is None:
        placed = _in_their_pools(endpoints, pooled.pools, seen)
    pool_of = {
        there.target: there.pool
        for one, there in zip(endpoints, placed, strict=True)
        if there.pool != one.pool
    }
    plan = plan_deployment(
        strategy, settings, placed, revision.digest, record=record, cache=cache, pooled=pooled
    )
    plan["warnings"] += seen.warnings if plan["targets"] else []
    if look is not None:
        plan = with_functions(plan, look, revision)
    if saved:
        _refuse_changes(saved, plan_difference(saved, plan))
    if settings["deploy_plan_output"]:
        if not check:
            raise UsageError(
                "deploy_plan_output saves a plan, and nothing must be deployed then: add --check."
            )
        write_saved(base / Path(settings["deploy_plan_output"]).expanduser(), saving(plan))
    text = render_plan(plan)
    new = new_deployment(strategy, settings, plan, revision, placed, pool_endpoints=seen.endpoints)
    if (
        look is not None
        and look.before is not None
        and (
            look.warnings
            or record.good_deployment(settings["deploy_application"], settings["deploy_group"])
            is None
        )
    ):
        # The record does not know what the aliases lead to: this is what a failure goes back to.
        new = dataclasses.replace(
            new, options={**new.options, "before": dataclasses.asdict(look.before)}
        )
    new = dataclasses.replace(new, options={**new.options, "pool_of": pool_of})
    members = fleet(plan, placed, options=new.options, revision=revision)
    if plan["targets"]:
        refuse_active(new.options.get("alarms"))
    if check:
        return Opened(planned_fact(new), members, plan, text)
    note_use(revision.digest, cache=cache)
    before = baseline_before(new, record) if plan["targets"] else None
    if before is not None:
        created = record.create_deployment(dataclasses.replace(before, only_after=only_after))
        fact = deployment_fact(created)
        return Opened(fact, members, plan, text, fact, baseline_fleet(created), created.plan)
    prune(cache, settings["deploy_cached_revisions"], record.needed_digests)
    if functions:
        prune_packages(cache, settings["deploy_cached_revisions"], record.needed_packages)
    created = record.create_deployment(dataclasses.replace(new, only_after=only_after))
    if not plan["targets"] and not plan["schedule"]:
        created = record.finish(created.id)
    return Opened(deployment_fact(created), members, plan, text)


def _in_their_pools(
    endpoints: t.Sequence[Endpoint], pools: t.Mapping[str, t.Any], seen: Observed
) -> list[Endpoint]:
    """Return targets as they are reached in their pool; of two slots in that which is changed."""
    known = {
        one.target: one
        for pool in (pools["old"], pools["new"])
        for one in seen.endpoints.get(pool, ())
    }
    return [known.get(one.target, one) for one in endpoints]


def _refuse_changes(saved: Saved, difference: str) -> None:
    if difference:
        made = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(saved["made"]["at"]))
        raise PlanError(
            f"The plan that {saved['made']['by']} made at {made} does not hold any more: "
            f"{difference}. Nothing was changed. If that is meant to be, make the plan again."
        )


def resume_deployment(
    deployment_id: str,
    settings: Settings,
    *,
    record: Record,
    check: bool = False,
    stop: t.Mapping[str, t.Any] | None = None,
    hosts: t.Collection[str] | None = None,
) -> Opened:
    """Take up a deployment that was interrupted; its plan stays as it was made.

    Unless checking, it is taken over from the controller that carried it out; if only the lease
    tells whether that one is dead, this waits until the lease has run out.

    :param stop: ``{"why", "rollback"}``: it is only brought to its end, as Stopped; written down
        once the settings are those it needs
    :param hosts: those of the inventory
    :raises UsageError: it has ended, belongs to another deployment group, or other settings or
        another inventory are given
    :raises LeaseHeldError: its controller is alive
    """
    found = left_open(record.deployment(deployment_id), record)
    if found.is_final:
        raise UsageError(
            f"The deployment {found.id} has ended as {found.status}; there is nothing to resume."
        )
    asked = settings["deploy_application"], settings["deploy_group"]
    if asked != (found.application, found.group):
        raise UsageError(
            f"The deployment {found.id} belongs to {found.application}/{found.group}, but the "
            f"variables name {asked[0]}/{asked[1]}. Resume it with the variables it had."
        )
    _refuse_other_settings(found, settings, ending=bool(found.error_code or stop))
    if hosts is not None:
        _refuse_other_inventory(found, hosts)
    if not check:
        if stop:
            record.request_stop(
                found.id, str(stop.get("why") or ""), rollback=bool(stop.get("rollback"))
            )
        found = record.take_over(found.id, wait=True)
    endpoints = [Endpoint(**endpoint) for endpoint in found.options["endpoints"]]
    fact = {**deployment_fact(found), "resumed": True}
    if is_baseline(found):
        then = deployment_after(found)
        members = fleet(then.plan, endpoints, options=then.options, revision=then.revision)
        text = render_plan(then.plan)
        return Opened(fact, members, then.plan, text, fact, baseline_fleet(found), found.plan)
    members = fleet(found.plan, endpoints, options=found.options, revision=found.revision)
    return Opened(fact, members, found.plan, render_plan(found.plan))


def _refuse_other_inventory(found: Deployment, hosts: t.Collection[str]) -> None:
    """Refuse an inventory that has nobody of the group; some may well have left it since.

    :raises UsageError: naming them
    """
    pools = found.options.get("pool_endpoints") or {}
    listed = [*found.options["endpoints"], *(one for pool in pools.values() for one in pool)]
    names = list(dict.fromkeys(str(one["target"]) for one in listed))
    if names and not set(names) & set(hosts):
        others = ", …" if len(names) > len(names[:5]) else ""
        raise UsageError(
            f"The inventory has none of the targets of {found.id} ({', '.join(names[:5])}{others})."
            " Give the one that it was begun with: -i INVENTORY. Nothing was changed."
        )


def _refuse_other_settings(found: Deployment, settings: Settings, *, ending: bool) -> None:
    """Refuse variables with which a deployment would go on another way than it was begun.

    They are not in the record, which keeps no secrets. Without the load balancer or the pools of
    the plan the traffic could be brought neither on nor back; without gates all would be well.

    :param ending: whether it only comes to its end
    :raises UsageError: naming what is missing
    """
    pools, gates = found.plan.get("pools") or {}, found.plan.get("gates") or {}
    begun, now = found.plan["provider"], settings["deploy_traffic_provider"]
    names = sorted(settings["deploy_traffic_pools"] or {})
    members = sorted(pools.get("members") or {})
    difference = ""
    if begun != now and not (begun in NO_PROVIDER and now in NO_PROVIDER):
        difference = f"deploy_traffic_provider {begun or 'none'}, and now it is {now or 'none'}"
    elif pools and pools.get("platform") != PLATFORM and members != names:
        difference = (
            f"the pools {', '.join(members)}, and now deploy_traffic_pools has "
            f"{', '.join(names) or 'none'}"
        )
    elif found.strategy == AB_TEST:
        deciding = [step["decides"] for step in found.plan["schedule"] if step.get("decides")]
        goal = parse_ab_test(settings["deploy_ab_test"]).goal
        if "metric" in deciding and not goal:
            difference = "a goal in deploy_ab_test, and now there is none"
    elif (
        gates.get("texts")
        # What is ending already asks no gate any more.
        and not ending
        and not (settings["deploy_gates"] or settings["deploy_judge"])
    ):
        difference = (
            f"deploy_gates ({'; '.join(gates['texts'])}), and now there are none to be asked"
        )
    if difference:
        raise UsageError(
            f"The deployment {found.id} was begun with {difference}. Give it the variables that it "
            "had, in the inventory or again with -e. Nothing was changed."
        )


def scaling_of(settings: Settings) -> dict[str, t.Any] | None:
    """Return at which hooks of which Auto Scaling groups instances may wait meanwhile.

    ``traffic`` is what takes them out of the traffic before they end: provider and options of the
    action traffic, None where there is no load balancer or no termination hook.
    """
    hook, groups = settings["deploy_auto_scaling_hook"], settings["deploy_auto_scaling_groups"]
    last = settings["deploy_auto_scaling_termination_hook"]
    if not groups or not (hook or last):
        return None
    return {
        "hook": str(hook),
        "termination_hook": str(last),
        "groups": [str(one) for one in groups],
        "traffic": _traffic_of(settings) if last else None,
    }


def _traffic_of(settings: Settings) -> dict[str, t.Any] | None:
    provider = settings["deploy_traffic_provider"]
    if provider in NO_PROVIDER:
        return None
    names = ("traffic_drain_timeout", "traffic_restore_timeout", *PROVIDER_OPTIONS[provider])
    options = {
        name.removeprefix("traffic_"): settings[f"deploy_{name}"]
        for name in names
        if f"deploy_{name}" in settings
    }
    pools = settings.get("deploy_traffic_pools") or {}
    return {"provider": provider, "options": {**options, "pools": pools, "interval": "1s"}}


def new_deployment(
    strategy: str,
    settings: Settings,
    plan: Plan,
    revision: RevisionRow,
    endpoints: t.Sequence[Endpoint],
    *,
    creator: str = "user",
    follows: str | None = None,
    pool_endpoints: t.Mapping[str, t.Sequence[Endpoint]] | None = None,
) -> NewDeployment:
    """Return the deployment as it is written to the record.

    :param endpoints: the whole group, also what the plan leaves out
    :param follows: id of the deployment after which targets have joined
    :param pool_endpoints: the targets of each pool, where traffic is moved between pools
    """
    pools = (pool_endpoints or {}) if plan["pools"] else {}
    return NewDeployment(
        application=settings["deploy_application"],
        group=settings["deploy_group"],
        strategy=strategy,
        creator=creator,
        revision=revision,
        plan=plan,
        options={
            "rollback_on": [] if strategy == "rollback" else settings["deploy_rollback_on"],
            "endpoints": [dataclasses.asdict(endpoint) for endpoint in endpoints],
            "pool_endpoints": {
                pool: [one.at_load_balancer() for one in found] for pool, found in pools.items()
            },
            "follows": follows,
            "mark_bad_on_failure": bool(settings["deploy_mark_bad_on_failure"]),
            "alarms": None if strategy == "rollback" else alarms_of(settings),
            "scaling": scaling_of(settings),
        },
        description=settings["deploy_description"],
        rollback_of=None,
        started_by=getpass.getuser(),
        started_from=socket.gethostname(),
    )
