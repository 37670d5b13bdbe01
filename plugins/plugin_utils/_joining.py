# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Late joiners: targets that have come into the inventory since a deployment was planned."""

from __future__ import annotations

import typing as t

from ..module_utils._plan import render_plan
from ..module_utils._pools import BLUE_GREEN
from ._opening import Opened, new_deployment
from ._planning import is_up_to_date, plan_deployment
from ._play_facts import deployment_fact, fleet

if t.TYPE_CHECKING:
    from pathlib import Path

    from ._planning import Endpoint, Settings
    from ._record import Deployment, Record, TargetState

# CodeDeploy's word for who makes a deployment that brings outdated instances up to date.
CREATOR = "CodeDeployAutoUpdate"


def joined_since(
    deployment: Deployment, endpoints: t.Sequence[Endpoint], states: t.Mapping[str, TargetState]
) -> list[Endpoint]:
    """Return the targets that the plan did not know and that do not have its revision."""
    known = {one["target"] for one in deployment.options["endpoints"]}
    return [
        one
        for one in endpoints
        if one.target not in known
        and not is_up_to_date(states.get(one.target), deployment.revision.digest)
    ]


def by_users(
    deployment: Deployment,
    joined: t.Sequence[Endpoint],
    pools: t.Mapping[str, t.Sequence[Endpoint]],
) -> tuple[list[Endpoint], list[Endpoint]]:
    """Divide the targets that have joined into those that users are to reach, and the others.

    Where pools take turns, a target of the idle pool gets its revision when that pool is next.
    """
    between = deployment.plan.get("pools")
    if not between or between["kind"] != BLUE_GREEN:
        return list(joined), []
    live = {one.target: one for one in pools.get(between["new"], ())}
    serving = [live[one.target] for one in joined if one.target in live]
    return serving, [one for one in joined if one.target not in live]


def open_follow_up(
    deployment_id: str,
    settings: Settings,
    endpoints: t.Sequence[Endpoint],
    *,
    record: Record,
    cache: Path,
    pools: t.Mapping[str, t.Sequence[Endpoint]] | None = None,
) -> Opened | None:
    """Open the deployment that brings a revision to the targets that joined meanwhile.

    After a rollback that succeeded it is the revision that was brought back. It has one stage, no
    rollback of its own, and the option ``follows``. The targets that have
    the revision already count for the minimum.

    :param endpoints: the targets of the inventory as it is now
    :param pools: those of each pool, as the load balancer knows them there
    :returns: None if none has joined, or if neither the deployment nor its rollback succeeded
    :raises BasculeError: it cannot be opened
    """
    begun = record.deployment(deployment_id)
    found = record.deployment(begun.rolled_back_by) if begun.rolled_back_by else begun
    states = record.target_states(found.application, found.group)
    joined = joined_since(found, endpoints, states)
    if found.status != "Succeeded" or not joined:
        return None
    digest = found.revision.digest
    joined, _resting = by_users(found, joined, pools or {})
    if not joined:
        return None
    named = {one.target: one.pool for one in endpoints}
    placed = {one.target: one for one in joined}
    counted = [
        placed.get(one.target, one)
        for one in endpoints
        if one.target in placed or is_up_to_date(states.get(one.target), digest)
    ]
    only_once = {
        **settings,
        "deploy_stages": ["100%"],
        "deploy_bake_time": 0,
        "deploy_zonal": "",
        "deploy_approval": "none",
        "deploy_rollback_on": [],
        "deploy_description": f"Targets that joined during {found.id}",
    }
    plan = plan_deployment(
        begun.strategy,
        only_once,
        counted,
        digest,
        record=record,
        cache=cache,
        among=[one.target for one in joined],
    )
    new = new_deployment(
        begun.strategy, only_once, plan, found.revision, counted, creator=CREATOR, follows=begun.id
    )
    pool_of = {one.target: one.pool for one in joined if one.pool != named[one.target]}
    created = record.create_deployment(new)
    return Opened(
        deployment_fact(created),
        {**fleet(plan, counted, revision=found.revision), "pool_of": pool_of},
        plan,
        render_plan(plan),
    )
