from __future__ import annotations

from typing import Any

import boto3
import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._codedeploy_group import (
    FIELDS,
    Converted,
    convert,
    host_group,
    revision_of,
)
from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError
from ansible_collections.bascule.deploy.plugins.module_utils._schedule import parse_schedule
from ansible_collections.bascule.deploy.plugins.module_utils._zonal import parse_zonal
from ansible_collections.bascule.deploy.plugins.plugin_utils._settings import public_variables

WEB = {"Key": "Role", "Value": "web", "Type": "KEY_AND_VALUE"}
PROD = {"Key": "Env", "Value": "prod", "Type": "KEY_AND_VALUE"}
GROUP: dict[str, Any] = {
    "applicationName": "shop", "deploymentGroupName": "web", "computePlatform": "Server",
    "deploymentConfigName": "CodeDeployDefault.HalfAtATime", "ec2TagFilters": [WEB],
}  # fmt: skip
TRAFFIC = {"deploymentType": "IN_PLACE", "deploymentOption": "WITH_TRAFFIC_CONTROL"}


def made(
    configuration: dict[str, Any] | None = None,
    on_premises: list[dict[str, Any]] | None = None,
    **more: Any,
) -> Converted:
    return convert(
        {**GROUP, **more},
        configuration,
        on_premises or [],
        known=public_variables(),
    )


def variables(**more: Any) -> dict[str, Any]:
    return made(**more).variables


def test_a_simple_group() -> None:
    found = made()
    assert found.variables == {
        "deploy_application": "shop",
        "deploy_group": "web",
        "deploy_configuration": "CodeDeployDefault.HalfAtATime",
        "deploy_rollback_on": [],
        "deploy_late_joiners": "deploy",
    }
    assert found.strategy == "in_place"
    assert found.condition == (
        'ec2_tags is bascule.deploy.tagged([{"Key": "Role", "Value": "web", '
        '"Type": "KEY_AND_VALUE"}])'
    )
    assert found.notes == ()


@pytest.mark.parametrize(
    ("minimum", "wanted"),
    [
        ({"type": "FLEET_PERCENT", "value": 75}, "75%"),
        ({"type": "HOST_COUNT", "value": 3}, 3),
    ],
)
def test_a_configuration_of_their_own(minimum: dict[str, Any], wanted: Any) -> None:
    found = made({"minimumHealthyHosts": minimum}, deploymentConfigName="careful")
    assert found.variables["deploy_minimum_healthy_hosts"] == wanted
    zones = {"monitorDurationInSeconds": 60, "minimumHealthyHostsPerZone": minimum}
    zonal = made(
        {"minimumHealthyHosts": minimum, "zonalConfig": zones}, deploymentConfigName="careful"
    )
    assert zonal.variables["deploy_zonal"] == zones
    assert parse_zonal(zones)


def test_groups_of_tags_and_scaling_groups_together() -> None:
    found = made(
        ec2TagFilters=[], ec2TagSet={"ec2TagSetList": [[WEB], [PROD]]},
        autoScalingGroups=[
            {"name": "web-asg", "hook": "CodeDeploy-managed-hook", "terminationHook": "CD-goodbye"}
        ],
    )  # fmt: skip
    assert found.condition.startswith("(ec2_tags is bascule.deploy.tagged([[{")
    assert found.condition.endswith(
        ') or (ec2_tags.get("aws:autoscaling:groupName", \'\') in ["web-asg"])'
    )
    assert found.variables["deploy_auto_scaling_groups"] == ["web-asg"]
    assert any("CodeDeploy-managed-hook, CD-goodbye" in note for note in found.notes)
    options = {"autoScalingGroupProcessesToSuspend": ["Terminate", "AZRebalance"]}
    more = variables(autoScalingGroups=["web-asg"], ec2DeploymentOptions=options)
    assert more["deploy_auto_scaling_suspend"] == [
        "Launch", "ReplaceUnhealthy", "AZRebalance", "AlarmNotification", "ScheduledActions",
        "Terminate",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("about", "wanted"),
    [
        (
            {"targetGroupInfoList": [{"name": "blue"}, {"name": "api"}]},
            {"deploy_traffic_provider": "elbv2", "deploy_elbv2_target_groups": ["blue", "api"]},
        ),
        (
            {"elbInfoList": [{"name": "old"}]},
            {"deploy_traffic_provider": "elb", "deploy_elb_names": ["old"]},
        ),
    ],
)
def test_load_balancers(about: dict[str, Any], wanted: dict[str, Any]) -> None:
    found = made(loadBalancerInfo=about, deploymentStyle=TRAFFIC)
    assert found.strategy == "rolling"
    assert wanted.items() <= found.variables.items()
    without = made(loadBalancerInfo=about)
    assert "deploy_traffic_provider" not in without.variables
    assert any("WITHOUT_TRAFFIC_CONTROL" in note for note in without.notes)


def test_a_pair_of_target_groups_takes_turns() -> None:
    route = {"listenerArns": ["arn:listener/prod"]}
    pair = {
        "targetGroups": [{"name": "one"}, {"name": "two"}], "prodTrafficRoute": route,
        "testTrafficRoute": {"listenerArns": ["arn:listener/test"]},
    }  # fmt: skip
    style = {"deploymentType": "BLUE_GREEN", "deploymentOption": "WITH_TRAFFIC_CONTROL"}
    found = made(loadBalancerInfo={"targetGroupPairInfoList": [pair]}, deploymentStyle=style)
    assert {
        "deploy_traffic_provider": "elbv2", "deploy_elbv2_listener": "arn:listener/prod",
        "deploy_traffic_pools": {"blue": {"target_group": "one"}, "green": {"target_group": "two"}},
    }.items() <= found.variables.items()  # fmt: skip
    assert any("arn:listener/test" in note for note in found.notes)
    assert not any("name them in deploy_traffic_pools" in note for note in found.notes)
    half = made(
        loadBalancerInfo={"targetGroupPairInfoList": [{"targetGroups": [{"name": "one"}]}]},
        deploymentStyle=style,
    )
    assert "deploy_traffic_pools" not in half.variables
    assert any("targetGroupPairInfoList" in note for note in half.notes)


def test_what_follows_a_failure_and_who_is_told() -> None:
    trigger = {
        "triggerName": "pager", "triggerTargetArn": "arn:aws:sns:eu-central-1:1:t",
        "triggerEvents": ["DeploymentFailure", "InstanceFailure"],
    }  # fmt: skip
    found = variables(
        autoRollbackConfiguration={"enabled": True, "events": ["DEPLOYMENT_FAILURE"]},
        triggerConfigurations=[trigger],
        outdatedInstancesStrategy="IGNORE",
    )
    assert found["deploy_rollback_on"] == ["DEPLOYMENT_FAILURE"]
    assert found["deploy_late_joiners"] == "report"
    assert found["deploy_notifications"] == [
        {
            "type": "sns", "name": "pager", "topic": "arn:aws:sns:eu-central-1:1:t",
            "events": ["DeploymentFailure", "InstanceFailure"],
        }
    ]  # fmt: skip
    off = variables(autoRollbackConfiguration={"enabled": False, "events": ["DEPLOYMENT_FAILURE"]})
    assert off["deploy_rollback_on"] == []


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (
            {"deploymentGroupId": "4c1f", "lastSuccessfulDeployment": {"deploymentId": "d-1"}},
            "deploy_file_exists_behavior=OVERWRITE",
        ),
        ({"terminationHookEnabled": True}, "terminationHookEnabled"),
        ({"serviceRoleArn": "arn:aws:iam::1:role/x"}, "arn:aws:iam::1:role/x"),
        ({"ec2TagFilters": []}, "no targets"),
        (
            {
                "deploymentStyle": {"deploymentType": "BLUE_GREEN"},
                "blueGreenDeploymentConfiguration": {
                    "greenFleetProvisioningOption": {"action": "DISCOVER_EXISTING"}
                },
            },
            "greenFleetProvisioningOption",
        ),
        (
            {"alarmConfiguration": {"enabled": False, "alarms": [{"name": "cpu"}]}},
            "alarmConfiguration cpu: it is not enabled",
        ),
    ],
)  # fmt: skip
def test_what_is_not_carried_over_is_named(more: dict[str, Any], named: str) -> None:
    assert any(named in note for note in made(**more).notes)


@pytest.mark.parametrize(
    ("about", "wanted"),
    [
        (
            {
                "deploymentReadyOption": {
                    "actionOnTimeout": "STOP_DEPLOYMENT", "waitTimeInMinutes": 60,
                },
                "terminateBlueInstancesOnDeploymentSuccess": {
                    "action": "TERMINATE", "terminationWaitTimeInMinutes": 30,
                },
            },
            {
                "deploy_schedule": [{"approval": "60m"}, {"shift": "100%"}],
                "deploy_approval_on_timeout": "stop",
                "deploy_retire": "drain", "deploy_retire_after": "30m",
            },
        ),
        (
            {"deploymentReadyOption": {"actionOnTimeout": "STOP_DEPLOYMENT"}},
            {
                "deploy_schedule": [{"approval": "60m"}, {"shift": "100%"}],
                "deploy_approval_on_timeout": "stop",
            },
        ),
        (
            {
                "deploymentReadyOption": {"actionOnTimeout": "CONTINUE_DEPLOYMENT"},
                "terminateBlueInstancesOnDeploymentSuccess": {"action": "KEEP_ALIVE"},
            },
            {"deploy_retire": "keep"},
        ),
    ],
)  # fmt: skip
def test_blue_green(about: dict[str, Any], wanted: dict[str, Any]) -> None:
    style = {"deploymentType": "BLUE_GREEN", "deploymentOption": "WITH_TRAFFIC_CONTROL"}
    found = made(deploymentStyle=style, blueGreenDeploymentConfiguration=about)
    assert found.strategy == "blue_green"
    own = ("deploy_schedule", "deploy_approval_on_timeout", "deploy_retire", "deploy_retire_after")
    assert {name: found.variables[name] for name in own if name in found.variables} == wanted
    if "deploy_schedule" in wanted:
        assert parse_schedule(found.variables["deploy_schedule"])


COPYING = {
    "greenFleetProvisioningOption": {"action": "COPY_AUTO_SCALING_GROUP"},
    "terminateBlueInstancesOnDeploymentSuccess": {
        "action": "TERMINATE", "terminationWaitTimeInMinutes": 5,
    },
}  # fmt: skip


def test_a_group_that_is_copied() -> None:
    style = {"deploymentType": "BLUE_GREEN", "deploymentOption": "WITH_TRAFFIC_CONTROL"}
    more = {
        "deploymentStyle": style, "blueGreenDeploymentConfiguration": COPYING, "ec2TagFilters": [],
    }  # fmt: skip
    found = made(**more, autoScalingGroups=[{"name": "web-asg"}])
    own = {name: value for name, value in found.variables.items() if "retire" in name or
           "green" in name or "scaling" in name or name == "deploy_pool"}  # fmt: skip
    assert own == {
        "deploy_green_fleet": "copy_auto_scaling_group", "deploy_green_fleet_group": "web-asg",
        "deploy_retire": "terminate", "deploy_retire_after": "5m",
        "deploy_pool": "{{ ec2_tags['bascule:pool'] }}",
    }  # fmt: skip
    # A copy has a name of its own, and its instances the tag that leads back.
    assert found.condition == (
        '(ec2_tags.get("aws:autoscaling:groupName", \'\') in ["web-asg"]) or '
        '(ec2_tags.get("bascule:origin", \'\') == "web-asg")'
    )
    assert any("bascule:pool" in note for note in found.notes)
    two = made(**more, autoScalingGroups=[{"name": "a"}, {"name": "b"}])
    assert "deploy_green_fleet" not in two.variables
    assert two.variables["deploy_retire"] == "drain"
    assert any("one Auto Scaling group can be copied" in note for note in two.notes)
    assert any("TERMINATE" in note for note in two.notes)


# What those fields hold (a list is [], as is one of lists), but for tags and the revision, which
# have tests of their own, and deployments, of which nothing is carried over.
INSIDE = [
    "alarmConfiguration.alarms[].name",
    "alarmConfiguration.enabled",
    "alarmConfiguration.ignorePollAlarmFailure",
    "autoRollbackConfiguration.enabled",
    "autoRollbackConfiguration.events[]",
    "autoScalingGroups[].hook",
    "autoScalingGroups[].name",
    "autoScalingGroups[].terminationHook",
    "blueGreenDeploymentConfiguration.deploymentReadyOption.actionOnTimeout",
    "blueGreenDeploymentConfiguration.deploymentReadyOption.waitTimeInMinutes",
    "blueGreenDeploymentConfiguration.greenFleetProvisioningOption.action",
    "blueGreenDeploymentConfiguration.terminateBlueInstancesOnDeploymentSuccess.action",
    "blueGreenDeploymentConfiguration.terminateBlueInstancesOnDeploymentSuccess."
    "terminationWaitTimeInMinutes",
    "deploymentStyle.deploymentOption",
    "deploymentStyle.deploymentType",
    "ec2DeploymentOptions.autoScalingGroupProcessesToSuspend[]",
    "ecsServices[].clusterName",
    "ecsServices[].serviceName",
    "loadBalancerInfo.elbInfoList[].name",
    "loadBalancerInfo.targetGroupInfoList[].name",
    "loadBalancerInfo.targetGroupPairInfoList[].prodTrafficRoute.listenerArns[]",
    "loadBalancerInfo.targetGroupPairInfoList[].targetGroups[].name",
    "loadBalancerInfo.targetGroupPairInfoList[].testTrafficRoute.listenerArns[]",
    "triggerConfigurations[].triggerEvents[]",
    "triggerConfigurations[].triggerName",
    "triggerConfigurations[].triggerTargetArn",
]
APART = ("ec2Tag", "onPremises", "targetRevision", "lastSuccessful", "lastAttempted")


def inside(shape: Any, path: str) -> list[str]:
    """Return the paths of all that a shape of botocore holds."""
    if shape.type_name == "structure":
        return [
            found
            for name, one in shape.members.items()
            for found in inside(one, f"{path}.{name}" if path else name)
        ]
    if shape.type_name == "list":
        return inside(shape.member, path + "[]")
    return [path]


def test_every_field_of_a_group_is_carried_over_or_named() -> None:
    model: Any = boto3.client("codedeploy", region_name="eu-central-1").meta.service_model
    shape = model.shape_for("DeploymentGroupInfo")
    assert set(shape.members) == FIELDS
    held = [one for one in inside(shape, "") if "." in one or "[]" in one]
    assert sorted(one for one in held if not one.startswith(APART)) == sorted(INSIDE)
    assert any("brandNew" in note for note in made(brandNew={"a": 1}).notes)


def test_alarms() -> None:
    about = {"enabled": True, "ignorePollAlarmFailure": True, "alarms": [{"name": "cpu"}]}
    found = variables(
        alarmConfiguration=about,
        autoRollbackConfiguration={"enabled": True, "events": ["DEPLOYMENT_STOP_ON_ALARM"]},
    )
    assert found["deploy_alarms"] == ["cpu"]
    assert found["deploy_alarms_ignore_poll_failure"] is True
    assert found["deploy_rollback_on"] == ["DEPLOYMENT_STOP_ON_ALARM"]


def test_hosts_on_premises() -> None:
    tags = [{"Key": "Role", "Value": "web"}]
    found = made(
        on_premises=[
            {"instanceName": "rack-7", "tags": tags},
            {"instanceName": "rack-8", "tags": []},
            {"instanceName": "gone", "tags": tags, "deregisterTime": "2020"},
        ],
        onPremisesInstanceTagFilters=[WEB],
    )
    assert found.hosts == ("rack-7",)


def test_lambda_and_ecs_are_refused() -> None:
    for platform in ("Lambda", "ECS"):
        with pytest.raises(UsageError, match=platform):
            made(computePlatform=platform)


@pytest.mark.parametrize(
    ("revision", "wanted"),
    [
        ({}, ""),
        (
            {"s3Location": {"bucket": "b", "key": "k.tgz", "version": "v", "eTag": "e"}},
            "s3://b/k.tgz?versionId=v&eTag=e",
        ),
        ({"s3Location": {"bucket": "b", "key": "k.zip"}}, "s3://b/k.zip"),
        ({"gitHubLocation": {"repository": "o/r", "commitId": "abc"}}, "github://o/r@abc"),
    ],
)
def test_the_last_revision(revision: dict[str, Any], wanted: str) -> None:
    assert revision_of({"targetRevision": revision}) == wanted


@pytest.mark.parametrize(
    ("name", "wanted"), [("web", "web"), ("prod-web.1", "prod_web_1"), ("7up", "_7up")]
)
def test_names_of_host_groups(name: str, wanted: str) -> None:
    assert host_group(name) == wanted
