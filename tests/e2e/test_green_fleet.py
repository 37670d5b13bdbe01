"""Blue/green with a copied Auto Scaling group: its instances take over, the old ones end."""

from __future__ import annotations

import collections
import json
import sys
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from support import alb, proxies
from support.alb.plane import ADDRESS_TAG
from support.alb.site import Site
from support.bundles import files
from support.rollout import ROOT, Controller

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZE = 2
TAGS = {"bascule:pool": "blue", "Application": "shop", ADDRESS_TAG: "127.0.0.1"}


class Shop:
    """An Auto Scaling group behind a load balancer, and the inventory that finds its instances.

    The instances are targets on this machine. What answers for a pool is an application of its
    own, so that requests tell which pool they reach.
    """

    def __init__(self, service: alb.Alb, folder: Path) -> None:
        self.service, self.folder = service, folder
        self.site = Site(service)
        for pool in ("blue", "green"):
            self.site.start(pool)
        self.groups = {
            pool: self.site.group(pool, delay=1, Port=self.site.ports[pool])
            for pool in ("blue", "green")
        }
        self.url = self.site.listen({self.groups["blue"]: 1})
        self.scaling = self.site.client("autoscaling")
        self.site.ec2.create_launch_template(
            LaunchTemplateName="shop", LaunchTemplateData={"ImageId": "ami-12c6146b"}
        )
        self.scaling.create_auto_scaling_group(
            AutoScalingGroupName="shop",
            LaunchTemplate={"LaunchTemplateName": "shop", "Version": "$Latest"},
            MinSize=1,
            MaxSize=4,
            DesiredCapacity=SIZE,
            VPCZoneIdentifier=",".join(self.site.subnets),
            TargetGroupARNs=[self.groups["blue"]],
            Tags=[
                {"Key": key, "Value": value, "PropagateAtLaunch": True}
                for key, value in TAGS.items()
            ],
        )
        self.controller = Controller(
            self._inventory(),
            folder / "state",
            {"deploy_targets": "shop"},
            environment=service.environment,
        )

    def _inventory(self) -> Path:
        place = self.folder / "inventory"
        (place / "group_vars").mkdir(parents=True)
        plugin = {
            "plugin": "amazon.aws.aws_ec2",
            "regions": ["eu-central-1"],
            "filters": {"tag:Application": "shop", "instance-state-name": "running"},
            "hostnames": ["instance-id"],
            "hostvars_prefix": "ec2_",
            "groups": {"shop": "true"},
        }
        (place / "aws_ec2.yml").write_text(json.dumps(plugin))
        variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "deploy_application": "shop",
            "deploy_instance_id": "{{ ec2_instance_id }}",
            "deploy_pool": "{{ ec2_tags['bascule:pool'] }}",
            "deploy_sysroot": f"{self.folder}/targets/{{{{ ec2_instance_id }}}}",
            "deploy_traffic_provider": "elbv2",
            "deploy_traffic_pools": {
                pool: {"target_group": arn} for pool, arn in self.groups.items()
            },
            "deploy_elbv2_listener": self.site.listener,
            "deploy_elbv2_propagation": "1s",
            "deploy_share_timeout": "0s",
            "deploy_green_fleet": "copy_auto_scaling_group",
            "deploy_green_fleet_group": "shop",
            "deploy_retire": "terminate",
        }
        (place / "group_vars" / "shop.yml").write_text(json.dumps(variables))
        return place

    def instances(self) -> dict[str, list[str]]:
        """Return the ids of each pool's instances that run."""
        found: dict[str, list[str]] = collections.defaultdict(list)
        told = self.site.ec2.describe_instances(
            Filters=[
                {"Name": "instance-state-name", "Values": ["running"]},
                {"Name": "tag:Application", "Values": ["shop"]},
            ]
        )
        for one in [i for r in told["Reservations"] for i in r["Instances"]]:
            tags = {tag["Key"]: tag["Value"] for tag in one["Tags"]}
            found[tags["bascule:pool"]].append(one["InstanceId"])
        return dict(found)

    def text(self, instance: str) -> str:
        """Return what the revision brought to an instance."""
        return (self.folder / "targets" / instance / "opt/files/text").read_text()

    def answering(self) -> set[str]:
        """Return which pools answer."""
        seen = set()
        for _ in range(20):
            with urllib.request.urlopen(self.url, timeout=10) as answer:  # noqa: S310
                seen.add(str(answer.headers["X-Version"]))
        return seen


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    collection = ROOT / "collections" / "ansible_collections" / "amazon" / "aws"
    assert collection.is_dir(), "run: python tools/fetch_collections.py"
    with alb.running(tmp_path / "service", hooks=["support.scaling_server:patch"]) as service:
        made = Shop(service, tmp_path)
        try:
            yield made
        finally:
            for process in made.site.processes.values():
                proxies.stop(process)


def mutating(shop: Shop) -> list[dict[str, Any]]:
    return [one for one in shop.service.calls() if one["mutating"]]


def test_a_copied_group_takes_over_and_the_old_one_ends(shop: Shop, tmp_path: Path) -> None:
    revision = files(tmp_path / "one", {"text": "one\n"})
    first = shop.instances()
    assert {pool: len(found) for pool, found in first.items()} == {"blue": SIZE}
    shop.service.forget_calls()
    foreseen = shop.controller.playbook("blue_green", "--check", "--diff", deploy_revision=revision)
    assert foreseen.status == 0, foreseen.said
    assert "+a copy of shop" in foreseen.said
    # Those that are not there yet are planned for by number, with all steps to the end.
    assert "would be copied for the pool green, with 2 instances" in foreseen.said
    for told in (
        "copy-of-shop-1, copy-of-shop-2",
        "2. shift 100% of the traffic to green",
        "4. let the Auto Scaling group of green keep it filled, delete that of blue",
    ):
        assert told in foreseen.said, foreseen.said
    assert shop.controller.deployments() == []
    assert mutating(shop) == []

    # With what the group's policy allows, and no more.
    printed = shop.controller.command("iam-policy", "shop", "-i", str(shop.controller.inventory))
    assert printed.status == 0, printed.said
    shop.service.guard(json.loads(printed.said), "ci")
    shop.controller.environment = {**shop.service.environment, "AWS_ACCESS_KEY_ID": "ci"}
    run = shop.controller.playbook("blue_green", deploy_revision=revision)
    refused = [one for one in shop.service.asked_for() if not one["allowed"]]
    assert (run.status, refused) == (0, []), run.said
    second = shop.instances()
    assert {pool: len(found) for pool, found in second.items()} == {"green": SIZE}, run.said
    assert [shop.text(one) for one in second["green"]] == ["one\n"] * SIZE
    assert shop.answering() == {"green"}
    [group] = shop.scaling.describe_auto_scaling_groups()["AutoScalingGroups"]
    assert group["TargetGroupARNs"] == [shop.groups["green"]]
    assert suspended(shop) == []
    [deployment] = shop.controller.deployments()
    with shop.controller.record() as record:
        steps = {step.kind: step.status for step in record.steps(deployment.id)}
        held = [one.message for one in record.events(deployment.id) if one.event == "ScalingHeld"]
    # A deployment with a step left is resumed: the fleets are settled before it has succeeded.
    assert (steps["retire"], steps["fleet"]) == ("Succeeded", "Succeeded")
    assert len(held) == 2, "the group that serves and its copy stand still meanwhile"

    # The old group can be kept; it is what the next deployment goes on with.
    revision = files(tmp_path / "two", {"text": "two\n"})
    run = shop.controller.playbook("blue_green", deploy_revision=revision, deploy_retire="keep")
    refused = [one for one in shop.service.asked_for() if not one["allowed"]]
    assert (run.status, refused) == (0, []), run.said
    third = shop.instances()
    assert {pool: len(found) for pool, found in third.items()} == {"green": SIZE, "blue": SIZE}
    assert third["green"] == second["green"]
    assert [shop.text(one) for one in third["blue"]] == ["two\n"] * SIZE
    assert shop.answering() == {"blue"}
    attached = {
        group["TargetGroupARNs"][0]
        for group in shop.scaling.describe_auto_scaling_groups()["AutoScalingGroups"]
    }
    assert attached == set(shop.groups.values())
    assert suspended(shop) == []


def suspended(shop: Shop) -> list[str]:
    return [
        process["ProcessName"]
        for group in shop.scaling.describe_auto_scaling_groups()["AutoScalingGroups"]
        for process in group["SuspendedProcesses"]
    ]
