"""A copied Auto Scaling group takes over from the one before, behind a load balancer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import PlanError
from ansible_collections.bascule.deploy.plugins.plugin_utils import _green_fleet
from ansible_collections.bascule.deploy.plugins.plugin_utils._scaling import ScalingError
from support import alb
from support.alb.plane import ADDRESS_TAG
from support.alb.site import Site

if TYPE_CHECKING:
    from collections.abc import Iterator

TAGS = {"bascule:pool": "blue", "Application": "shop", ADDRESS_TAG: "127.0.0.1"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[alb.Alb]:
    folder = tmp_path_factory.mktemp("alb")
    with alb.running(folder, hooks=["support.scaling_server:patch"]) as running:
        yield running


class Workers:
    """The group ``workers`` of two instances behind the target group of blue."""

    def __init__(self, service: alb.Alb) -> None:
        service.reset()
        self.service = service
        self.site = Site(service)
        self.scaling = self.site.client("autoscaling")
        self.blue, self.green = self.site.group("blue"), self.site.group("green")
        self.site.listen({self.blue: 1, self.green: 0})
        self.site.ec2.create_launch_template(
            LaunchTemplateName="workers", LaunchTemplateData={"ImageId": "ami-12c6146b"}
        )
        self.scaling.create_auto_scaling_group(
            AutoScalingGroupName="workers",
            LaunchTemplate={"LaunchTemplateName": "workers", "Version": "$Latest"},
            MinSize=1,
            MaxSize=4,
            DesiredCapacity=2,
            VPCZoneIdentifier=",".join(self.site.subnets),
            TargetGroupARNs=[self.blue],
            Tags=[
                {"Key": key, "Value": value, "PropagateAtLaunch": True}
                for key, value in TAGS.items()
            ],
        )
        self.options = {
            "listener": self.site.listener,
            "pools": {
                "blue": {"target_group": "blue"},
                "green": {"target_group": self.green},
            },
        }

    def provide(self, **more: Any) -> dict[str, Any]:
        return _green_fleet.provide("workers", self.options, **{"timeout": 60.0, **more})

    def groups(self) -> dict[str, dict[str, Any]]:
        found = self.scaling.describe_auto_scaling_groups()["AutoScalingGroups"]
        return {one["AutoScalingGroupName"]: one for one in found}

    def running(self) -> set[str]:
        pages = self.site.ec2.describe_instances(
            Filters=[{"Name": "instance-state-name", "Values": ["running"]}]
        )
        return {one["InstanceId"] for r in pages["Reservations"] for one in r["Instances"]}

    def mutating(self) -> list[str]:
        return [one["action"] for one in self.service.calls() if one["mutating"]]


@pytest.fixture
def workers(service: alb.Alb, monkeypatch: pytest.MonkeyPatch) -> Workers:
    service.use(monkeypatch)
    return Workers(service)


def test_the_live_group_is_copied_for_the_idle_pool(workers: Workers) -> None:
    seen = workers.provide()
    assert (seen["changed"], seen["source"], seen["pool"]) == (True, "workers", "green")
    assert len(seen["instances"]) == 2
    copy = workers.groups()[seen["group"]]
    assert copy["TargetGroupARNs"] == []
    assert (copy["MinSize"], copy["MaxSize"], copy["DesiredCapacity"]) == (1, 4, 2)
    made = workers.site.ec2.describe_instances(InstanceIds=seen["instances"])
    for one in [i for r in made["Reservations"] for i in r["Instances"]]:
        tags = {tag["Key"]: tag["Value"] for tag in one["Tags"]}
        assert tags["bascule:pool"] == "green"
        assert tags["Application"] == "shop"
    again = workers.provide()
    assert (again["changed"], again["group"]) == (False, seen["group"])
    assert again["instances"] == seen["instances"]


def test_the_groups_take_turns_and_the_old_one_is_terminated(workers: Workers) -> None:
    first = workers.groups()["workers"]["Instances"]
    green = workers.provide()
    workers.site.forward({workers.blue: 0, workers.green: 1})
    told = _green_fleet.retire("workers", workers.options)
    assert told == {"changed": True, "group": green["group"], "terminated": "workers"}
    assert set(workers.groups()) == {green["group"]}
    assert workers.groups()[green["group"]]["TargetGroupARNs"] == [workers.green]
    assert workers.running() == set(green["instances"])
    assert not workers.running() & {one["InstanceId"] for one in first}
    assert not _green_fleet.retire("workers", workers.options)["changed"]
    blue = workers.provide()
    assert (blue["source"], blue["pool"]) == (green["group"], "blue")
    workers.site.forward({workers.blue: 1, workers.green: 0})
    assert _green_fleet.retire("workers", workers.options)["terminated"] == green["group"]
    assert workers.running() == set(blue["instances"])


def test_check_mode_makes_no_call_that_changes_anything(workers: Workers) -> None:
    workers.service.forget_calls()
    seen = workers.provide(check=True)
    assert (seen["changed"], seen["group"], seen["instances"]) == (True, "", [])
    targets = _green_fleet.foreseen_targets(seen)
    assert [one.target for one in targets] == ["copy-of-workers-1", "copy-of-workers-2"]
    assert {one.pool for one in targets} == {"green"}
    assert _green_fleet.retire("workers", workers.options, check=True)["changed"] is False
    assert workers.mutating() == []


def test_instances_that_do_not_come_up_are_told_and_kept(workers: Workers) -> None:
    workers.scaling.put_lifecycle_hook(
        AutoScalingGroupName="workers",
        LifecycleHookName="slow",
        LifecycleTransition="autoscaling:EC2_INSTANCE_LAUNCHING",
    )
    green = workers.provide()["group"]
    workers.scaling.put_lifecycle_hook(
        AutoScalingGroupName=green,
        LifecycleHookName="slow",
        LifecycleTransition="autoscaling:EC2_INSTANCE_LAUNCHING",
    )
    workers.scaling.set_desired_capacity(AutoScalingGroupName=green, DesiredCapacity=3)
    with pytest.raises(ScalingError, match=r"2 of 3 instances are in service.*Pending:Wait"):
        workers.provide(timeout=0.5)
    assert green in workers.groups()


def test_a_shared_traffic_or_a_foreign_group_is_refused(workers: Workers) -> None:
    workers.site.forward({workers.blue: 1, workers.green: 1})
    with pytest.raises(PlanError, match="one pool must have all of it"):
        workers.provide()
    workers.site.forward({workers.blue: 1, workers.green: 0})
    with pytest.raises(PlanError, match="there is no group others"):
        _green_fleet.provide("others", workers.options, timeout=1.0)
