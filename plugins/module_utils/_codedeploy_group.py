# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a deployment group of AWS CodeDeploy to the variables and the inventory of one of ours.

The shapes are those of GetDeploymentGroup and GetDeploymentConfig. What has no counterpart is
named, with what can be done about it; nothing is left out in silence.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ._errors import UsageError
from ._green_fleet import ORIGIN_TAG, POOL_TAG
from ._tags import is_tagged, tag_groups

SERVER = "Server"
_PREDEFINED = frozenset(
    f"CodeDeployDefault.{name}" for name in ("OneAtATime", "HalfAtATime", "AllAtOnce")
)
# What DeploymentGroupInfo can hold (botocore's model of 2014-10-06): carried over or named here.
FIELDS = frozenset({
    "alarmConfiguration", "applicationName", "autoRollbackConfiguration", "autoScalingGroups",
    "blueGreenDeploymentConfiguration", "computePlatform", "deploymentConfigName",
    "deploymentGroupId", "deploymentGroupName", "deploymentStyle", "ec2DeploymentOptions",
    "ec2TagFilters", "ec2TagSet",
    "ecsServices", "lastAttemptedDeployment", "lastSuccessfulDeployment", "loadBalancerInfo",
    "onPremisesInstanceTagFilters", "onPremisesTagSet", "outdatedInstancesStrategy",
    "serviceRoleArn", "targetRevision", "terminationHookEnabled", "triggerConfigurations",
})  # fmt: skip
COPY = "COPY_AUTO_SCALING_GROUP"
_TAG_OF_GROUP = "aws:autoscaling:groupName"


@dataclasses.dataclass(frozen=True)
class Converted:
    """A deployment group as ours.

    ``host_group`` is the name of the inventory's group, ``condition`` decides in Jinja which
    instances belong to it (empty if none do), ``hosts`` are the on-premises ones, ``notes`` what
    is not carried over.
    """

    host_group: str
    strategy: str
    variables: dict[str, Any]
    condition: str
    hosts: tuple[str, ...]
    notes: tuple[str, ...]


def convert(
    group: Mapping[str, Any],
    configuration: Mapping[str, Any] | None,
    on_premises: Sequence[Mapping[str, Any]],
    *,
    known: Mapping[str, Mapping[str, Any]],
) -> Converted:
    """Convert a group of the compute platform Server.

    :param group: ``deploymentGroupInfo`` of GetDeploymentGroup
    :param configuration: ``deploymentConfigInfo`` of GetDeploymentConfig, None for a predefined one
    :param on_premises: ``instanceInfos`` of BatchGetOnPremisesInstances
    :param known: our public variables with their specifications
    :raises UsageError: it is a group for Lambda or ECS
    """
    platform = group.get("computePlatform") or SERVER
    if platform != SERVER or group.get("ecsServices"):
        raise UsageError(
            f"The deployment group {group['deploymentGroupName']} is for {platform}; only groups "
            "for EC2 and on-premises hosts can be imported."
        )
    notes: list[str] = []
    variables: dict[str, Any] = {
        "deploy_application": group["applicationName"],
        "deploy_group": group["deploymentGroupName"],
        **_configuration(group, configuration, notes),
        **_rollback(group, known, notes),
        **_late_joiners(group),
        **_load_balancer(group, notes),
        **_scaling(group, known, notes),
        **_alarms(group, notes),
        **_notifications(group),
    }
    strategy = _strategy(group, variables, notes)
    hosts = _hosts(group, on_premises, notes)
    condition = _condition(group, variables.get("deploy_green_fleet_group", ""))
    if not condition and not hosts:
        notes.append("It has no targets: neither tags nor Auto Scaling groups. Add hosts.")
    if group.get("terminationHookEnabled"):
        notes.append(
            "terminationHookEnabled: nothing of the revision runs on an instance when Auto Scaling "
            "terminates it. That it leaves the load balancer before it ends is "
            "deploy_auto_scaling_termination_hook, with a lifecycle hook of your own (docs/aws.md)."
        )
    if group.get("deploymentGroupId") and group.get("lastSuccessfulDeployment"):
        notes.append(
            f"deploymentGroupId {group['deploymentGroupId']} and the deployments under it: the "
            "record begins with the first deployment. To it the files that CodeDeploy has "
            "installed are foreign ones: allow it to replace them once, with "
            "deploy_file_exists_behavior=OVERWRITE."
        )
    for name in sorted(set(group) - FIELDS):
        notes.append(f"{name} {_short(group[name])}: not carried over; it was not known here.")
    if group.get("serviceRoleArn"):
        notes.append(
            f"serviceRoleArn {group['serviceRoleArn']}: Bascule works with the credentials of "
            "whoever runs it; `bascule iam-policy` prints what they need."
        )
    return Converted(
        host_group=host_group(group["deploymentGroupName"]),
        strategy=strategy,
        variables=variables,
        condition=condition,
        hosts=tuple(hosts),
        notes=tuple(notes),
    )


def host_group(name: str) -> str:
    """Return the name of an inventory group: letters, digits and underscores."""
    text = re.sub(r"[^0-9A-Za-z_]", "_", name)
    return f"_{text}" if text[:1].isdigit() else text


def revision_of(group: Mapping[str, Any]) -> str:
    """Return the group's last revision as ``deploy_revision`` has it; empty for none."""
    revision = group.get("targetRevision") or {}
    stored = revision.get("s3Location") or {}
    if stored.get("bucket"):
        pins = [
            f"{name}={stored[key]}"
            for key, name in (("version", "versionId"), ("eTag", "eTag"))
            if stored.get(key)
        ]
        return f"s3://{stored['bucket']}/{stored['key']}" + (f"?{'&'.join(pins)}" if pins else "")
    hub = revision.get("gitHubLocation") or {}
    if hub.get("repository"):
        return f"github://{hub['repository']}@{hub['commitId']}"
    return ""


def _configuration(
    group: Mapping[str, Any], configuration: Mapping[str, Any] | None, notes: list[str]
) -> dict[str, Any]:
    name = str(group.get("deploymentConfigName") or "CodeDeployDefault.OneAtATime")
    if name in _PREDEFINED:
        return {"deploy_configuration": name}
    if not configuration:
        notes.append(f"The deployment configuration {name} cannot be read; one at a time instead.")
        return {}
    found: dict[str, Any] = {}
    if configuration.get("zonalConfig"):
        found["deploy_zonal"] = configuration["zonalConfig"]
    minimum = configuration.get("minimumHealthyHosts") or {}
    if minimum.get("type") == "FLEET_PERCENT":
        return {**found, "deploy_minimum_healthy_hosts": f"{minimum['value']}%"}
    if minimum.get("type") == "HOST_COUNT":
        return {**found, "deploy_minimum_healthy_hosts": int(minimum["value"])}
    notes.append(f"The deployment configuration {name} has no minimumHealthyHosts.")
    return found


def _rollback(
    group: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]], notes: list[str]
) -> dict[str, Any]:
    rules = group.get("autoRollbackConfiguration") or {}
    events = list(rules.get("events") or ()) if rules.get("enabled") else []
    choices = known["deploy_rollback_on"].get("choices") or ()
    for event in events:
        if event not in choices:
            notes.append(f"autoRollbackConfiguration {event}: not carried over.")
    return {"deploy_rollback_on": [event for event in events if event in choices]}


def _late_joiners(group: Mapping[str, Any]) -> dict[str, Any]:
    ignore = group.get("outdatedInstancesStrategy") == "IGNORE"
    return {"deploy_late_joiners": "report" if ignore else "deploy"}


def _load_balancer(group: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    style = group.get("deploymentStyle") or {}
    about = group.get("loadBalancerInfo") or {}
    if style.get("deploymentOption") != "WITH_TRAFFIC_CONTROL":
        if about:
            notes.append(
                "loadBalancerInfo: the group's deployments are WITHOUT_TRAFFIC_CONTROL, so no load "
                "balancer is set."
            )
        return {}
    pools = [str(one["name"]) for one in about.get("targetGroupInfoList") or ()]
    classic = [str(one["name"]) for one in about.get("elbInfoList") or ()]
    pair = _pair(about.get("targetGroupPairInfoList") or (), notes)
    if pair:
        return pair
    if pools and classic:
        notes.append(
            f"elbInfoList {', '.join(classic)}: a group has one traffic provider; the target "
            "groups are carried over, the classic load balancers are not."
        )
    if pools:
        return {"deploy_traffic_provider": "elbv2", "deploy_elbv2_target_groups": pools}
    if classic:
        return {"deploy_traffic_provider": "elb", "deploy_elb_names": classic}
    return {}


def _pair(pairs: Sequence[Mapping[str, Any]], notes: list[str]) -> dict[str, Any]:
    """Return two target groups that take turns, from a pair with its listeners."""
    for one in pairs:
        names = [str(group["name"]) for group in one.get("targetGroups") or ()]
        listeners = (one.get("prodTrafficRoute") or {}).get("listenerArns") or ()
        for listener in (one.get("testTrafficRoute") or {}).get("listenerArns") or ():
            notes.append(
                f"testTrafficRoute {listener}: here test requests come to the listener of all "
                "users and are told apart by a header: set deploy_test_route."
            )
        if len(names) == 2 and listeners:
            return {
                "deploy_traffic_provider": "elbv2",
                "deploy_elbv2_listener": str(listeners[0]),
                "deploy_traffic_pools": {
                    pool: {"target_group": name}
                    for pool, name in zip(("blue", "green"), names, strict=True)
                },
            }
        notes.append(
            f"targetGroupPairInfoList {_short(one)}: not carried over; two target groups and the "
            "listener of prodTrafficRoute are needed."
        )
    return {}


def _scaling(
    group: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]], notes: list[str]
) -> dict[str, Any]:
    names = [str(one["name"]) for one in _scaling_groups(group)]
    hooks = [
        str(one[kind])
        for one in _scaling_groups(group)
        for kind in ("hook", "terminationHook")
        if one.get(kind)
    ]
    if hooks:
        notes.append(
            f"Lifecycle hooks {', '.join(hooks)}: CodeDeploy's own. Delete them when CodeDeploy "
            "deploys no more, or instances wait for it."
        )
    if not names:
        return {}
    found: dict[str, Any] = {"deploy_auto_scaling_groups": names}
    options = group.get("ec2DeploymentOptions") or {}
    wanted = [str(one) for one in options.get("autoScalingGroupProcessesToSuspend") or ()]
    if wanted:
        # What CodeDeploy's launch hook does for newcomers, suspending does here: it stays.
        ours = [str(one) for one in known["deploy_auto_scaling_suspend"]["default"]]
        found["deploy_auto_scaling_suspend"] = list(dict.fromkeys([*ours, *wanted]))
    return found


def _scaling_groups(group: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [
        one if isinstance(one, Mapping) else {"name": one}
        for one in group.get("autoScalingGroups") or ()
    ]


def _alarms(group: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    about = group.get("alarmConfiguration") or {}
    names = [str(one["name"]) for one in about.get("alarms") or ()]
    if not names:
        return {}
    if not about.get("enabled"):
        notes.append(f"alarmConfiguration {', '.join(names)}: it is not enabled.")
        return {}
    ignore = bool(about.get("ignorePollAlarmFailure"))
    return {"deploy_alarms": names, "deploy_alarms_ignore_poll_failure": ignore}


def _notifications(group: Mapping[str, Any]) -> dict[str, Any]:
    channels = [
        {
            "type": "sns",
            "name": str(one["triggerName"]),
            "topic": str(one["triggerTargetArn"]),
            "events": list(one["triggerEvents"]),
        }
        for one in group.get("triggerConfigurations") or ()
    ]
    return {"deploy_notifications": channels} if channels else {}


def _strategy(group: Mapping[str, Any], variables: dict[str, Any], notes: list[str]) -> str:
    style = group.get("deploymentStyle") or {}
    if style.get("deploymentType") != "BLUE_GREEN":
        return "rolling" if "deploy_traffic_provider" in variables else "in_place"
    about = group.get("blueGreenDeploymentConfiguration") or {}
    variables.update(_blue_green(about, variables.get("deploy_auto_scaling_groups") or (), notes))
    if "deploy_green_fleet_group" in variables:
        # The groups take turns, and each is held still in its turn.
        del variables["deploy_auto_scaling_groups"]
    missing = (
        ""
        if "deploy_traffic_pools" in variables
        else ("name them in deploy_traffic_pools and their listener in deploy_elbv2_listener, and ")
    )
    notes.append(
        "It is a blue/green group. CodeDeploy moves instances in and out of one target group; here "
        f"two target groups take turns: {missing}say which hosts belong to which pool "
        "(docs/strategies.md)."
    )
    return "blue_green"


def _blue_green(
    about: Mapping[str, Any], scaling: Sequence[str], notes: list[str]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    ready = about.get("deploymentReadyOption") or {}
    if ready.get("actionOnTimeout") == "STOP_DEPLOYMENT":
        minutes = int(ready.get("waitTimeInMinutes") or 0)
        if not minutes:
            minutes = 60
            notes.append(
                "deploymentReadyOption STOP_DEPLOYMENT without waitTimeInMinutes: a person has an "
                "hour to approve."
            )
        found["deploy_schedule"] = [{"approval": f"{minutes}m"}, {"shift": "100%"}]
        found["deploy_approval_on_timeout"] = "stop"
    blue = about.get("terminateBlueInstancesOnDeploymentSuccess") or {}
    if blue.get("action") == "TERMINATE":
        found["deploy_retire"] = "drain"
        found["deploy_retire_after"] = f"{int(blue.get('terminationWaitTimeInMinutes') or 0)}m"
    elif blue:
        found["deploy_retire"] = "keep"
    return found | _green_fleet(about, scaling, found, notes)


def _green_fleet(
    about: Mapping[str, Any], scaling: Sequence[str], found: Mapping[str, Any], notes: list[str]
) -> dict[str, Any]:
    """Return where the hosts of the new pool come from."""
    fleet = (about.get("greenFleetProvisioningOption") or {}).get("action")
    if fleet == COPY and len(scaling) == 1:
        notes.append(
            f"greenFleetProvisioningOption {COPY}: give the group {scaling[0]} and its instances "
            f"the tag {POOL_TAG} with the name of their pool, and each pool a target group of its "
            "own (docs/aws.md)."
        )
        copied = {
            "deploy_green_fleet": "copy_auto_scaling_group",
            "deploy_green_fleet_group": scaling[0],
            "deploy_pool": "{{ ec2_tags['" + POOL_TAG + "'] }}",
        }
        return copied | ({"deploy_retire": "terminate"} if "deploy_retire_after" in found else {})
    if fleet == COPY:
        notes.append(
            f"greenFleetProvisioningOption {COPY}: not carried over; one Auto Scaling group can be "
            f"copied, this deployment group has {len(scaling)}."
        )
    elif fleet:
        notes.append(
            f"greenFleetProvisioningOption {fleet}: the hosts of both pools are those of the "
            "inventory; give each its deploy_pool."
        )
    if "deploy_retire_after" in found:
        notes.append(
            "terminateBlueInstancesOnDeploymentSuccess TERMINATE: the old pool leaves the load "
            "balancer, but its instances are not terminated."
        )
    return {}


def _condition(group: Mapping[str, Any], copied: str) -> str:
    """Return which instances are targets: those with the tags, and those of the groups.

    :param copied: the Auto Scaling group of which copies are made, empty for none
    """
    parts = []
    filters = (group.get("ec2TagSet") or {}).get("ec2TagSetList") or group.get("ec2TagFilters")
    if filters and any(tag_groups(filters)):
        parts.append(f"ec2_tags is bascule.deploy.tagged({_literal(filters)})")
    names = [str(one["name"]) for one in _scaling_groups(group)]
    if names:
        parts.append(f"ec2_tags.get({_literal(_TAG_OF_GROUP)}, '') in {_literal(names)}")
    if copied:
        parts.append(f"ec2_tags.get({_literal(ORIGIN_TAG)}, '') == {_literal(copied)}")
    return " or ".join(f"({part})" for part in parts) if len(parts) > 1 else "".join(parts)


def _hosts(
    group: Mapping[str, Any], on_premises: Sequence[Mapping[str, Any]], notes: list[str]
) -> list[str]:
    tag_set = (group.get("onPremisesTagSet") or {}).get("onPremisesTagSetList")
    filters = tag_set or group.get("onPremisesInstanceTagFilters")
    if not filters:
        return []
    names = []
    for one in on_premises:
        tags = {str(tag["Key"]): tag.get("Value") for tag in one.get("tags") or ()}
        if is_tagged(tags, filters) and not one.get("deregisterTime"):
            names.append(str(one["instanceName"]))
    if names:
        notes.append(
            f"On-premises instances {', '.join(names)}: CodeDeploy does not know their addresses. "
            "Add ansible_host where a name is none."
        )
    else:
        notes.append(f"On-premises tags {_short(filters)}: no registered instance has them.")
    return sorted(names)


def _literal(value: Any) -> str:
    """Return data as a literal of Jinja: JSON is one, but for its quotes in YAML."""
    return json.dumps(value, ensure_ascii=False)


def _short(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)
