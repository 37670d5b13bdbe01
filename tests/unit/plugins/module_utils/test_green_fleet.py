from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils import _green_fleet as fleet
from ansible_collections.bascule.deploy.plugins.module_utils._errors import PlanError

POOLS = ("blue", "green")


def group(name: str, pool: str, origin: str = "", **more: Any) -> dict[str, Any]:
    tags = [
        {"Key": "bascule:pool", "Value": pool, "PropagateAtLaunch": True},
        {"Key": "Application", "Value": "shop", "PropagateAtLaunch": True},
        {"Key": "aws:cloudformation:stack-name", "Value": "s", "PropagateAtLaunch": True},
    ]
    if origin:
        tags.append({"Key": "bascule:origin", "Value": origin, "PropagateAtLaunch": False})
    return {
        "AutoScalingGroupName": name,
        "LaunchTemplate": {"LaunchTemplateId": "lt-1", "LaunchTemplateName": "t", "Version": "3"},
        "MinSize": 2,
        "MaxSize": 6,
        "DesiredCapacity": 4,
        "VPCZoneIdentifier": "subnet-1,subnet-2",
        "AvailabilityZones": ["a", "b"],
        "HealthCheckType": "ELB",
        "TargetGroupARNs": ["arn:blue"],
        "Tags": tags,
        "Instances": [],
        **more,
    }


def test_a_copy_is_the_same_group_for_another_pool_behind_no_load_balancer() -> None:
    assert fleet.copy_of(group("workers", "blue"), "workers", "green", "1a") == {
        "AutoScalingGroupName": "workers-green-1a",
        "LaunchTemplate": {"LaunchTemplateId": "lt-1", "Version": "3"},
        "MinSize": 2,
        "MaxSize": 6,
        "DesiredCapacity": 4,
        "VPCZoneIdentifier": "subnet-1,subnet-2",
        "HealthCheckType": "ELB",
        "Tags": [
            {"Key": "Application", "Value": "shop", "PropagateAtLaunch": True},
            {"Key": "bascule:pool", "Value": "green", "PropagateAtLaunch": True},
            {"Key": "bascule:origin", "Value": "workers", "PropagateAtLaunch": True},
        ],
    }


def test_a_group_without_a_template_is_copied_with_what_it_has() -> None:
    old = group("workers", "blue", LaunchTemplate=None, LaunchConfigurationName="c")
    old["VPCZoneIdentifier"] = ""
    copy = fleet.copy_of(old, "workers", "green", "1a")
    assert copy["LaunchConfigurationName"] == "c"
    assert copy["AvailabilityZones"] == ["a", "b"]
    mixed = group("workers", "blue", MixedInstancesPolicy={"LaunchTemplate": {}})
    assert "LaunchTemplate" not in fleet.copy_of(mixed, "workers", "green", "1a")


def test_a_long_name_is_cut_so_that_aws_takes_it() -> None:
    copy = fleet.copy_of(group("w" * 255, "blue"), "w" * 255, "green", "1a")
    assert len(copy["AutoScalingGroupName"]) == 255
    assert copy["AutoScalingGroupName"].endswith("-green-1a")


def test_the_group_and_its_copies_are_found_by_pool() -> None:
    copy = group("workers-green-1a", "green", "workers")
    others = [group("other", "blue"), group("gone", "blue", "workers", Status="Delete in progress")]
    found = fleet.by_pool([group("workers", "blue"), copy, *others], "workers", POOLS)
    assert {pool: one["AutoScalingGroupName"] for pool, one in found.items()} == {
        "blue": "workers",
        "green": "workers-green-1a",
    }


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ([group("workers", "")], "belongs to the pool \\(none\\)"),
        ([group("workers", "red")], "belongs to the pool red"),
        ([group("workers", "blue"), group("copy", "blue", "workers")], "workers and copy"),
    ],
)
def test_groups_that_do_not_fit_the_pools_are_refused(
    groups: list[dict[str, Any]], words: str
) -> None:
    with pytest.raises(PlanError, match=words):
        fleet.by_pool(groups, "workers", POOLS)


@pytest.mark.parametrize(
    ("states", "words"),
    [
        (["InService"] * 4, ""),
        ([], "0 of 4 instances are in service"),
        (
            ["InService", "Pending", "Pending:Wait"],
            "1 of 4 instances are in service, others are Pending, Pending:Wait",
        ),
    ],
)
def test_a_group_is_complete_when_all_its_instances_are_in_service(
    states: list[str], words: str
) -> None:
    one = group("workers", "blue", Instances=[{"LifecycleState": state} for state in states])
    assert fleet.missing(one) == words
