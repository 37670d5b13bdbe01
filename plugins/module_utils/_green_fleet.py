# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From an Auto Scaling group to a copy of it for the other pool of a blue/green deployment.

Sources: the API reference of ``DescribeAutoScalingGroups`` and ``CreateAutoScalingGroup``;
CodeDeploy's ``COPY_AUTO_SCALING_GROUP``. A copy is attached to no target group until its
deployment has succeeded: Bascule registers its instances when they have the revision, and a group
that asks the load balancer for the health of its instances would replace those that have none yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

POOL_TAG = "bascule:pool"
ORIGIN_TAG = "bascule:origin"
LONGEST_NAME = 255

# What is taken over as it is where the group has it.
COPIED = (
    "MixedInstancesPolicy", "MinSize", "MaxSize", "DesiredCapacity", "DefaultCooldown",
    "VPCZoneIdentifier", "HealthCheckType", "HealthCheckGracePeriod", "PlacementGroup",
    "TerminationPolicies", "NewInstancesProtectedFromScaleIn", "MaxInstanceLifetime",
    "CapacityRebalance", "Context", "DesiredCapacityType", "DefaultInstanceWarmup",
    "InstanceMaintenancePolicy",
)  # fmt: skip
# The role that Auto Scaling takes by itself. Naming it would need the permission to pass it.
_DEFAULT_ROLE = "/AWSServiceRoleForAutoScaling"


def tag_of(group: Mapping[str, Any], key: str) -> str:
    """Return the value of a group's tag; empty if it has none."""
    for tag in group.get("Tags") or ():
        if tag["Key"] == key:
            return str(tag.get("Value") or "")
    return ""


def by_pool(
    groups: Sequence[Mapping[str, Any]], origin: str, pools: Sequence[str]
) -> dict[str, Mapping[str, Any]]:
    """Return the group that serves each pool: ``origin``, or a copy of it.

    :param groups: as described, also others
    :raises PlanError: a group of no pool, or two of one pool
    """
    found: dict[str, Mapping[str, Any]] = {}
    for group in groups:
        name = str(group["AutoScalingGroupName"])
        # A group that is being deleted is none any more.
        if origin not in (name, tag_of(group, ORIGIN_TAG)) or group.get("Status"):
            continue
        pool = tag_of(group, POOL_TAG)
        if pool not in pools:
            raise PlanError(
                f"The Auto Scaling group {name} belongs to the pool {pool or '(none)'}; "
                f"deploy_traffic_pools has {', '.join(pools)}. Give it and its instances the tag "
                f"{POOL_TAG} with the name of its pool."
            )
        if pool in found:
            raise PlanError(
                f"Two Auto Scaling groups serve the pool {pool}: "
                f"{found[pool]['AutoScalingGroupName']} and {name}. Delete the one that is not "
                "needed."
            )
        found[pool] = group
    return found


def copy_of(group: Mapping[str, Any], origin: str, pool: str, mark: str) -> dict[str, Any]:
    """Return the arguments of ``CreateAutoScalingGroup`` for a copy.

    :param group: as ``DescribeAutoScalingGroups`` tells it
    :param pool: the pool that the copy serves
    :param mark: makes the name its own
    """
    made: dict[str, Any] = {
        name: group[name] for name in COPIED if group.get(name) not in (None, "", [])
    }
    name = f"{origin[: LONGEST_NAME - len(pool) - len(mark) - 2]}-{pool}-{mark}"
    made["AutoScalingGroupName"] = name
    if "MixedInstancesPolicy" not in made and group.get("LaunchTemplate"):
        # A template is named by its id or by its name, never by both.
        template = dict(group["LaunchTemplate"])
        template.pop("LaunchTemplateName", None)
        made["LaunchTemplate"] = template
    elif "MixedInstancesPolicy" not in made:
        made["LaunchConfigurationName"] = group["LaunchConfigurationName"]
    role = str(group.get("ServiceLinkedRoleARN") or "")
    if role and not role.endswith(_DEFAULT_ROLE):
        made["ServiceLinkedRoleARN"] = role
    if "VPCZoneIdentifier" not in made:
        made["AvailabilityZones"] = list(group.get("AvailabilityZones") or ())
    kept = [
        {"Key": tag["Key"], "Value": tag.get("Value") or "", "PropagateAtLaunch": launch}
        for tag in group.get("Tags") or ()
        for launch in [bool(tag.get("PropagateAtLaunch"))]
        if not tag["Key"].startswith("aws:") and tag["Key"] not in (POOL_TAG, ORIGIN_TAG)
    ]
    made["Tags"] = [
        *kept,
        {"Key": POOL_TAG, "Value": pool, "PropagateAtLaunch": True},
        {"Key": ORIGIN_TAG, "Value": origin, "PropagateAtLaunch": True},
    ]
    return made


def missing(group: Mapping[str, Any]) -> str:
    """Say what a group lacks until all its instances are in service; nothing is ``""``."""
    wanted = int(group["DesiredCapacity"])
    states = [str(one["LifecycleState"]) for one in group.get("Instances") or ()]
    serving = states.count("InService")
    if serving >= wanted:
        return ""
    others = sorted({state for state in states if state != "InService"})
    return f"{serving} of {wanted} instances are in service" + (
        f", others are {', '.join(others)}" if others else ""
    )
