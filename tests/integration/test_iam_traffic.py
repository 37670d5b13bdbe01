"""Load balancers and their rules with the policy that is printed for them, and without."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._permissions import policy
from ansible_collections.bascule.deploy.plugins.plugin_utils import _green_fleet
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Record
from ansible_collections.bascule.deploy.plugins.plugin_utils._scaling import hold, release
from support.ec2 import launch, scaling_group
from support.permitted import Account, Flow, carried_out, moved, prove
from support.records import create

if TYPE_CHECKING:
    from pathlib import Path

    from support import aws as moto

MOVING = {"elasticloadbalancing:DeregisterTargets", "elasticloadbalancing:RegisterTargets"}
COUNTING = {"cloudwatch:GetMetricData", "elasticloadbalancing:DescribeTags"}
RULES = {f"elasticloadbalancing:{name}" for name in ("AddTags", "CreateRule", "DeleteRule")}


def test_load_balancers_and_their_rules_with_the_policy_and_without(
    permitted_aws: moto.Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws = permitted_aws
    account = Account(aws, monkeypatch)
    [instance] = launch(aws, 1, Role="web")
    classic, elb = aws.client("elb"), aws.client("elbv2")
    classic.create_load_balancer(
        LoadBalancerName="old",
        Listeners=[{"Protocol": "HTTP", "LoadBalancerPort": 80, "InstancePort": 80}],
        AvailabilityZones=["eu-central-1a"],
    )
    classic.register_instances_with_load_balancer(
        LoadBalancerName="old", Instances=[{"InstanceId": instance}]
    )
    subnets = aws.client("ec2").describe_subnets()["Subnets"][:2]
    pools = {}
    for pool in ("blue", "green"):
        pools[pool] = elb.create_target_group(
            Name=pool, Protocol="HTTP", Port=80, VpcId=subnets[0]["VpcId"]
        )["TargetGroups"][0]["TargetGroupArn"]
        elb.register_targets(TargetGroupArn=pools[pool], Targets=[{"Id": instance, "Port": 80}])
    balancer = elb.create_load_balancer(Name="web", Subnets=[one["SubnetId"] for one in subnets])[
        "LoadBalancers"
    ][0]["LoadBalancerArn"]
    blue = [{"Type": "forward", "TargetGroupArn": pools["blue"]}]
    listener = elb.create_listener(
        LoadBalancerArn=balancer, Protocol="HTTP", Port=80, DefaultActions=blue
    )["Listeners"][0]["ListenerArn"]
    rule = elb.create_rule(
        ListenerArn=listener, Priority=100, Actions=blue,
        Conditions=[{"Field": "path-pattern", "Values": ["/shop/*"]}],
    )["Rules"][0]["RuleArn"]  # fmt: skip
    named = {pool: {"target_group": pool} for pool in pools}

    def share(arn: str) -> None:
        """Share with a rule for a header, measure, and share without it."""
        match = {"pool": "green", "header": "X-Bascule-Test", "value": "green"}
        about = {
            "operation": "traffic", "provider": "elbv2",
            "provider_options": {"listener": arn, "pools": named, "propagation": "0s"},
        }  # fmt: skip
        for wanted in ([match], []):
            routing = {"weights": {"blue": 95.0, "green": 5.0}, "match": wanted}
            answer = carried_out({**about, "action": "route", "routing": routing})
            assert answer["changed"]
            assert answer["routing"]["after"]["match"] == wanted
        carried_out({**about, "action": "measure"})

    scaling_group(aws, "workers", 1, **{"bascule:pool": "blue"})
    weights = [{"TargetGroupArn": pools["blue"], "Weight": 1}]
    weights += [{"TargetGroupArn": pools["green"], "Weight": 0}]
    swapped = elb.create_listener(
        LoadBalancerArn=balancer, Protocol="HTTP", Port=81,
        DefaultActions=[{"Type": "forward", "ForwardConfig": {"TargetGroups": weights}}],
    )["Listeners"][0]["ListenerArn"]  # fmt: skip

    def begin_again() -> None:
        """End what an attempt before has copied, and give blue all traffic."""
        aws.enforce_permissions(unasked=1000)
        elb.modify_listener(
            ListenerArn=swapped,
            DefaultActions=[{"Type": "forward", "ForwardConfig": {"TargetGroups": weights}}],
        )
        scaling = aws.client("autoscaling")
        for one in scaling.describe_auto_scaling_groups()["AutoScalingGroups"]:
            name = one["AutoScalingGroupName"]
            if name != "workers":
                scaling.delete_auto_scaling_group(AutoScalingGroupName=name, ForceDelete=True)
        aws.enforce_permissions()

    record = Record.open(f"sqlite:///{tmp_path}/record.db")

    def swap() -> None:
        """Copy the live group, hold both, give the copy all traffic, and delete the old one."""
        options = {"listener": swapped, "pools": named}
        begin_again()
        copied = _green_fleet.provide("workers", options, timeout=60.0)
        assert copied["changed"]
        for one in record.deployments(limit=100):
            # An attempt before, which lacked a permission, has ended there.
            if not one.is_final:
                record.finish(one.id)
        deployment = create(record, ["a"], group="swap")
        hold(record, deployment.id, ["workers", copied["group"]], ["Launch"])
        carried_out(
            {
                "operation": "traffic", "action": "route", "provider": "elbv2",
                "provider_options": {**options, "propagation": "0s"},
                "routing": {"weights": {"blue": 0.0, "green": 100.0}},
            }
        )  # fmt: skip
        told = _green_fleet.retire("workers", options)
        assert told == {"changed": True, "group": copied["group"], "terminated": "workers"}
        record.finish(deployment.id)
        assert sorted(release(record, [deployment.id])) == sorted(["workers", copied["group"]])

    settings = {"deploy_traffic_provider": "elbv2", "deploy_traffic_pools": named}
    copies = {
        "deploy_elbv2_listener": swapped, "deploy_green_fleet": "copy_auto_scaling_group",
        "deploy_green_fleet_group": "workers", "deploy_auto_scaling_suspend": ["Launch"],
    }  # fmt: skip
    flows: list[Flow] = [
        Flow(policy({"deploy_traffic_provider": "elb", "deploy_elb_names": ["old"]}),
         lambda: moved("elb", instance, names=["old"])),
        Flow(policy({**settings, "deploy_elbv2_listener": listener}), lambda: share(listener),
             spare={"Elbv2Targets"}, unused=MOVING),
        Flow(policy({**settings, "deploy_elbv2_listener": rule}), lambda: share(rule),
             spare={"Elbv2Targets"},
             unused=MOVING | {"elasticloadbalancing:DescribeListeners"}),
        Flow(policy({**settings, **copies}), swap, spare={"Elbv2Targets", "Elbv2Rules"},
             unused=MOVING | RULES | COUNTING),
    ]  # fmt: skip
    prove(account, flows)
    # The policy of the one is not enough for the other.
    account.allow(policy({**settings, "deploy_elbv2_listener": listener}))
    with pytest.raises(AssertionError, match="not authorized"):
        share(rule)
