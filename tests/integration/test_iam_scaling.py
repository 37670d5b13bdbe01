"""Auto Scaling groups and their hooks with the policy that is printed for them, and without."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ansible_collections.bascule.deploy.plugins.module_utils._permissions import policy
from ansible_collections.bascule.deploy.plugins.plugin_utils._hook_watch import see_off
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Record
from ansible_collections.bascule.deploy.plugins.plugin_utils._scaling import (
    answer_hooks,
    heartbeat,
    hold,
    leaving,
    release,
)
from support.ec2 import members, scaling_group
from support.permitted import Account, Flow, part, prove
from support.records import create, roll_target

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from support import aws as moto


def test_auto_scaling_with_the_policy_and_without(
    permitted_aws: moto.Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws = permitted_aws
    account = Account(aws, monkeypatch)
    [veteran] = scaling_group(aws, "workers", 1)
    record = Record.open(f"sqlite:///{tmp_path}/record.db")
    deployment = create(record, ["a"])
    scaling = aws.client("autoscaling")
    scaling_group(aws, "launched", 0)
    scaling.put_lifecycle_hook(
        AutoScalingGroupName="launched", LifecycleHookName="bascule",
        LifecycleTransition="autoscaling:EC2_INSTANCE_LAUNCHING",
    )  # fmt: skip
    scaling.set_desired_capacity(AutoScalingGroupName="launched", DesiredCapacity=1)
    [newcomer] = members(aws, "launched")
    # One has waited for its revision, the other has been in service all the time.
    endpoints = [{"target": "new", "instance": newcomer}, {"target": "old", "instance": veteran}]
    waiting = create(record, ["new", "old"], group="launched", options={"endpoints": endpoints})
    for target in ("new", "old"):
        roll_target(record, waiting.id, target, fails=False)
    [leaver] = scaling_group(aws, "shrinking", 1)
    scaling.put_lifecycle_hook(
        AutoScalingGroupName="shrinking", LifecycleHookName="goodbye",
        LifecycleTransition="autoscaling:EC2_INSTANCE_TERMINATING",
    )  # fmt: skip
    scaling.terminate_instance_in_auto_scaling_group(
        InstanceId=leaver, ShouldDecrementDesiredCapacity=True
    )
    endpoints = [{"target": "old", "instance": leaver}]
    rolling = create(record, ["old"], 0, group="shrinking", options={"endpoints": endpoints})
    assert record.admit(rolling.id, "old").verdict == "admitted"

    def hold_and_release() -> None:
        hold(record, deployment.id, ["workers"], ["Launch"])
        if not record.deployment(deployment.id).is_final:
            record.finish(deployment.id)
        release(record, [deployment.id])

    def answer() -> None:
        assert heartbeat("launched", "bascule", "eu-central-1") == [newcomer]
        told, left = answer_hooks(record, [waiting], "bascule", ["launched"])
        if left:
            raise AssertionError(left[0])
        assert told == [f"{newcomer} of launched: CONTINUE"]

    def farewell() -> None:
        """Keep one waiting that is worked on, and let it go when that is over."""
        told = {"termination_hook": "goodbye"}
        answered, troubles = see_off(record, [rolling], told, ["shrinking"])
        if troubles:
            raise AssertionError(troubles[0])
        assert answered == []
        record.settle(rolling.id, "old", "Succeeded")
        answered, troubles = see_off(record, [rolling], told, ["shrinking"])
        assert (answered, troubles) == ([f"{leaver} of shrinking: CONTINUE at goodbye"], [])

    shrinking = policy(
        {
            "deploy_auto_scaling_groups": ["shrinking"],
            "deploy_auto_scaling_termination_hook": "goodbye",
        }
    )
    # Without it a target that fails because its instance is taken away is not told from others.
    names = {one["Sid"] for one in shrinking["Statement"]}
    account.allow(part(shrinking, *(names - {"ScalingInstances"})))
    assert leaving(leaver) == ""
    account.allow(part(shrinking, "ScalingInstances"))
    assert "is being terminated" in leaving(leaver)

    flows: list[Flow] = [
        Flow(policy({"deploy_auto_scaling_groups": ["workers"],
                 "deploy_auto_scaling_suspend": ["Launch"]}), hold_and_release),
        Flow(policy({"deploy_auto_scaling_groups": ["launched"],
                 "deploy_auto_scaling_hook": "bascule"}), answer),
        Flow(shrinking, farewell, spare={"ScalingInstances"},
             unused={"autoscaling:DescribeAutoScalingInstances"}),
    ]  # fmt: skip
    prove(account, flows)
