# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A copy of the live pool's Auto Scaling group for the idle pool, and the end of the old one."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any

from ..module_utils._errors import PlanError, UsageError
from ..module_utils._green_fleet import by_pool, copy_of, missing
from ._aws import client
from ._planning import Endpoint
from ._providers._calls import service
from ._providers._desk import Desk
from ._providers._elbv2 import connect_router, describe_groups
from ._scaling import ScalingError, told

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LOOK_SECONDS = 5.0
# A pool is live if it has all of the traffic.
WHOLE = 100.0


def live_and_idle(options: Mapping[str, Any]) -> tuple[str, str]:
    """Return the pool that has the traffic and the other one.

    :param options: of the provider elbv2: ``listener`` and ``pools``
    :raises UsageError: there are not two pools
    :raises PlanError: the traffic is shared
    """
    pools = list(options.get("pools") or {})
    if len(pools) != 2:
        raise UsageError(
            "An Auto Scaling group is copied from one pool to another: deploy_traffic_pools names "
            f"{', '.join(pools) or 'none'}, wanted two."
        )
    router = connect_router(dict(options), None, "")
    shown = router.shown()
    weights = shown.as_data()["weights"] if shown else {}
    live = [pool for pool in pools if weights.get(pool) == WHOLE]
    if not live:
        raise PlanError(
            f"{router.where} shares the traffic ({weights or 'between other target groups'}); one "
            "pool must have all of it before a blue/green deployment."
        )
    return live[0], next(pool for pool in pools if pool != live[0])


def provide(
    origin: str,
    options: Mapping[str, Any],
    *,
    timeout: float,
    check: bool = False,
    tell: Callable[[str], None] = lambda _text: None,
) -> dict[str, Any]:
    """See that the idle pool has an Auto Scaling group whose instances are all in service.

    One that is there already, from an earlier deployment or from one that was interrupted, is
    used as it is.

    :param origin: name of the group that the first deployment found
    :param timeout: seconds within which all instances must be in service
    :param check: create nothing
    :returns: ``{"changed", "group", "source", "pool", "size", "instances"}``; no group and no
        instances when one would be created
    :raises PlanError: the groups do not fit the pools
    :raises ScalingError: AWS refuses, or the instances do not come into service
    """
    live, idle = live_and_idle(options)
    scaling: Any = client("autoscaling")
    groups = by_pool(_describe(scaling), origin, [live, idle])
    if live not in groups:
        raise PlanError(
            f"No Auto Scaling group serves the pool {live}: there is no group {origin}, and none "
            "that was copied from it. Check deploy_auto_scaling_groups and the region."
        )
    source = str(groups[live]["AutoScalingGroupName"])
    size = int(groups[live]["DesiredCapacity"])
    answer = {
        "source": source, "pool": idle, "group": "", "size": size, "instances": [],
        "changed": False,
    }  # fmt: skip
    if idle in groups:
        name = str(groups[idle]["AutoScalingGroupName"])
    else:
        made = copy_of(groups[live], origin, idle, secrets.token_hex(4))
        answer["changed"] = True
        if check:
            return answer
        name = made["AutoScalingGroupName"]
        with told(f"The Auto Scaling group {source} could not be copied"):
            scaling.create_auto_scaling_group(**made)
    return {**answer, "group": name, "instances": _wait(scaling, name, timeout, check, tell)}


def foreseen_targets(foreseen: Mapping[str, Any]) -> list[Endpoint]:
    """Return the targets that a copy would bring, by number: their instances do not exist yet.

    :param foreseen: ``source``, ``pool`` and ``size`` of what ``provide`` would do
    """
    names = [f"copy-of-{foreseen['source']}-{n}" for n in range(1, int(foreseen["size"]) + 1)]
    pool = str(foreseen["pool"])
    return [
        Endpoint(target=name, name=name, address="", port=0, zone="", pool=pool) for name in names
    ]


def foreseen_text(foreseen: Mapping[str, Any]) -> str:
    """Return what a person has to know of a plan for targets that there are not yet."""
    source, size = foreseen["source"], int(foreseen["size"])
    return (
        f"The Auto Scaling group {source} would be copied for the pool {foreseen['pool']}, with "
        f"{size} instance{'' if size == 1 else 's'}. They do not exist yet: the plan has them by "
        f"number (copy-of-{source}-1 …), and what a revision would change on them is not shown."
    )


def retire(
    origin: str, options: Mapping[str, Any], *, keep: bool = False, check: bool = False
) -> dict[str, Any]:
    """Let the live pool's group keep its target group filled, and delete the old pool's group.

    :param keep: leave the old pool's group as it is; the next deployment uses it
    :param check: change nothing
    :returns: ``{"changed", "group", "terminated"}``: the live pool's group, and the deleted one's
        name or ``""``
    :raises ScalingError: AWS refuses
    """
    live, idle = live_and_idle(options)
    scaling: Any = client("autoscaling")
    groups = by_pool(_describe(scaling), origin, [live, idle])
    if live not in groups:
        raise PlanError(f"No Auto Scaling group serves the pool {live}; nothing is terminated.")
    name = str(groups[live]["AutoScalingGroupName"])
    named = str(options["pools"][live]["target_group"])
    target_group = str(describe_groups(service("elbv2"), [named], Desk())[0]["arn"])
    old = str(groups[idle]["AutoScalingGroupName"]) if idle in groups and not keep else ""
    attached = target_group in (groups[live].get("TargetGroupARNs") or ())
    answer = {"changed": bool(old) or not attached, "group": name, "terminated": old}
    if check:
        return answer
    if not attached:
        with told(f"The Auto Scaling group {name} could not be attached to its target group"):
            scaling.attach_load_balancer_target_groups(
                AutoScalingGroupName=name, TargetGroupARNs=[target_group]
            )
    if old:
        with told(f"The Auto Scaling group {old} could not be deleted"):
            scaling.delete_auto_scaling_group(AutoScalingGroupName=old, ForceDelete=True)
    return answer


def _wait(
    scaling: Any, name: str, timeout: float, check: bool, tell: Callable[[str], None]
) -> list[str]:
    """Wait until all instances are in service; return their ids."""
    deadline = time.monotonic() + timeout
    said = ""
    while True:
        group = next(
            (one for one in _describe(scaling, name) if one["AutoScalingGroupName"] == name), None
        )
        if group is None:
            raise ScalingError(f"The Auto Scaling group {name} has been deleted meanwhile.")
        lacking = missing(group)
        if not lacking or check:
            return [str(one["InstanceId"]) for one in group["Instances"]]
        if time.monotonic() >= deadline:
            raise ScalingError(
                f"The Auto Scaling group {name} did not come up within {timeout:g} s: {lacking}. "
                "Look at its activities (aws autoscaling describe-scaling-activities), or raise "
                "deploy_green_fleet_timeout. The next deployment goes on with this group."
            )
        if lacking != said:
            tell(f"Waiting for the Auto Scaling group {name}: {lacking}.")
            said = lacking
        time.sleep(min(LOOK_SECONDS, max(0.1, timeout / 20)))


def _describe(scaling: Any, *names: str) -> list[dict[str, Any]]:
    """Describe Auto Scaling groups, all if none is named."""
    with told("The Auto Scaling groups could not be read"):
        pages = scaling.get_paginator("describe_auto_scaling_groups").paginate(
            **({"AutoScalingGroupNames": list(names)} if names else {})
        )
        return [group for page in pages for group in page["AutoScalingGroups"]]
