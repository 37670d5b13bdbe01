"""The providers elbv2 and elb: who a target is, what is refused, what is only foreseen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.bascule.deploy.plugins.plugin_utils._providers import run_on_controller

if TYPE_CHECKING:
    from support import aws


class Site:
    """Two instances in a VPC, and what may stand before them."""

    def __init__(self, server: aws.Aws) -> None:
        self.ec2, self.elbv2, self.elb = (server.client(n) for n in ("ec2", "elbv2", "elb"))
        self.subnets = [one["SubnetId"] for one in self.ec2.describe_subnets()["Subnets"][:2]]
        self.vpc = self.ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
        made = self.ec2.run_instances(ImageId="ami-12c6146b", MinCount=2, MaxCount=2)
        self.instances = [one["InstanceId"] for one in made["Instances"]]

    def group(self, name: str, kind: str = "instance", **more: Any) -> str:
        made = self.elbv2.create_target_group(
            Name=name, TargetType=kind, Protocol="HTTP", Port=8080, VpcId=self.vpc, **more
        )
        return str(made["TargetGroups"][0]["TargetGroupArn"])

    def listen(self, arn: str, kind: str = "application") -> None:
        balancer = self.elbv2.create_load_balancer(
            Name=f"lb-{arn[-4:]}", Subnets=self.subnets, Type=kind
        )["LoadBalancers"][0]["LoadBalancerArn"]
        self.elbv2.create_listener(
            LoadBalancerArn=balancer,
            Protocol="HTTP",
            Port=80,
            DefaultActions=[{"Type": "forward", "TargetGroupArn": arn}],
        )

    def registered(self, arn: str) -> set[tuple[str, int]]:
        answer = self.elbv2.describe_target_health(TargetGroupArn=arn)
        return {
            (one["Target"]["Id"], one["Target"]["Port"])
            for one in answer["TargetHealthDescriptions"]
            if one["TargetHealth"].get("Reason") != "Target.NotRegistered"
        }


@pytest.fixture
def site(moto_servers: aws.Servers, monkeypatch: pytest.MonkeyPatch) -> Site:
    server = moto_servers.fresh()
    server.use(monkeypatch)
    return Site(server)


def ask(action: str, targets: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return run_on_controller(
        {
            "operation": "traffic",
            "action": action,
            "provider": "elbv2",
            "targets": targets,
            "drain_timeout": 60.0,
            "restore_timeout": 60.0,
            "interval": 0.1,
            **more,
        }
    )


def target(name: str = "web-1", address: str = "10.0.0.1", **more: Any) -> dict[str, Any]:
    return {"name": name, "address": address, "port": 80, **more}


def test_targets_leave_all_their_groups_and_come_back_with_the_group_s_port(site: Site) -> None:
    groups = [site.group("shop"), site.group("shop-internal")]
    for group in groups:
        site.listen(group)
        site.elbv2.register_targets(
            TargetGroupArn=group, Targets=[{"Id": one} for one in site.instances]
        )
    first, second = site.instances
    options = {"target_groups": ["shop", groups[1]], "propagation": "0s"}
    targets = [target(instance=first), target(second)]
    drained = ask("drain", targets, provider_options=options)
    assert drained["changed"]
    assert drained["msg"] == (
        "target groups shop, shop-internal: "
        "web-1 shop not registered, shop-internal not registered, "
        f"{second} shop not registered, shop-internal not registered"
    )
    assert [site.registered(group) for group in groups] == [set(), set()]
    restored = ask("restore", targets, provider_options=options)
    assert all(one["in_service"] for one in restored["targets"].values())
    assert [site.registered(group) for group in groups] == [
        {(first, 8080), (second, 8080)},
        {(first, 8080), (second, 8080)},
    ]
    again = ask("restore", targets, provider_options=options)
    assert not again["changed"]


def test_targets_by_address_have_the_port_that_is_wanted(site: Site) -> None:
    group = site.group("addresses", "ip")
    site.listen(group)
    options = {"target_groups": ["addresses"], "target_port": 9000, "propagation": "0s"}
    answer = ask("restore", [target(address="10.0.0.7")], provider_options=options)
    assert answer["targets"]["web-1"]["state"] == "healthy"
    assert site.registered(group) == {("10.0.0.7", 9000)}
    named = ask("restore", [target(address="web-1.example")], provider_options=options)
    assert "set deploy_traffic_target_address" in named["msg"]


def test_a_function_leaves_its_target_group_and_returns(site: Site) -> None:
    made = site.elbv2.create_target_group(Name="greet", TargetType="lambda")["TargetGroups"]
    group = made[0]["TargetGroupArn"]
    site.listen(group)
    arn = "arn:aws:lambda:eu-central-1:123456789012:function:greet:live"
    options = {"target_groups": ["greet"], "propagation": "0s"}

    def members() -> list[str]:
        answer = site.elbv2.describe_target_health(TargetGroupArn=group)
        return [
            one["Target"]["Id"]
            for one in answer["TargetHealthDescriptions"]
            if one["TargetHealth"].get("Reason") != "Target.NotRegistered"
        ]

    for action, wanted in (("restore", [arn]), ("drain", []), ("restore", [arn])):
        answer = ask(action, [target(arn)], provider_options=options)
        assert not answer.get("failed"), answer
        assert members() == wanted
    refused = ask("drain", [target("greet")], provider_options=options)
    assert "takes functions, by their ARN" in refused["msg"]


def test_instances_of_a_classic_load_balancer_leave_and_return(site: Site) -> None:
    site.elb.create_load_balancer(
        LoadBalancerName="old",
        Listeners=[{"Protocol": "HTTP", "LoadBalancerPort": 80, "InstancePort": 80}],
        AvailabilityZones=["eu-central-1a"],
    )
    identity = site.instances[0]
    site.elb.register_instances_with_load_balancer(
        LoadBalancerName="old", Instances=[{"InstanceId": identity}]
    )
    options = {"names": ["old"], "propagation": "0s"}
    drained = ask("drain", [target(identity)], provider="elb", provider_options=options)
    assert drained["changed"]
    balancer = site.elb.describe_load_balancers()["LoadBalancerDescriptions"][0]
    assert balancer["Instances"] == []
    restored = ask("restore", [target(identity)], provider="elb", provider_options=options)
    assert restored["targets"][identity]["state"] == "InService"


def test_check_mode_foresees_and_orders_nothing(site: Site) -> None:
    group = site.group("shop")
    site.listen(group)
    site.elbv2.register_targets(TargetGroupArn=group, Targets=[{"Id": site.instances[0]}])
    options = {"target_groups": ["shop"]}
    before = site.registered(group)
    answer = ask(
        "drain", [target(instance=site.instances[0])], provider_options=options, check=True
    )
    assert answer["changed"]
    assert answer["diff"]["before"] == "web-1: healthy\n"
    assert answer["diff"]["after"] == "web-1: out of service\n"
    assert site.registered(group) == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"provider_options": {"target_groups": ["nope"]}}, "Check the names of target groups"),
        ({"provider_options": {}}, "set deploy_elbv2_target_groups"),
        ({"provider_options": {"target_groups": ["shop"]}}, "sets instance_id"),
        ({"provider": "elb", "provider_options": {"names": ["nope"]}}, "Check deploy_elb_names"),
    ],
)
def test_what_cannot_be_is_one_clear_message(
    site: Site, change: dict[str, Any], words: str
) -> None:
    site.group("shop")
    answer = ask("observe", [target()], **change)
    assert answer["failed"]
    assert words in answer["msg"]
