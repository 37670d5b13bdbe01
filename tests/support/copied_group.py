"""An Auto Scaling group behind a load balancer that is copied for every blue/green deployment."""

from __future__ import annotations

import collections
import json
import os
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

from support import alb, proxies
from support.alb.plane import ADDRESS_TAG
from support.alb.site import Site
from support.rollout import BIN, ROOT, Controller, kill_controller

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

SIZE = 2
TAGS = {"bascule:pool": "blue", "Application": "shop", ADDRESS_TAG: "127.0.0.1"}


class Shop:
    """An Auto Scaling group behind a load balancer, and the inventory that finds its instances.

    The instances are targets on this machine. What answers for a pool is an application of its
    own, so that requests tell which pool they reach.
    """

    def __init__(self, service: alb.Alb, folder: Path, name: str, prefix: str) -> None:
        self.service, self.folder, self.name = service, folder, name
        self.site = Site(service)
        for pool in ("blue", "green"):
            self.site.start(pool)
        self.groups = {
            pool: self.site.group(f"{prefix}{pool}", delay=1, Port=self.site.ports[pool])
            for pool in ("blue", "green")
        }
        self.url = self.site.listen({self.groups["blue"]: 1})
        self.scaling = self.site.client("autoscaling")
        self.site.ec2.create_launch_template(
            LaunchTemplateName="shop", LaunchTemplateData={"ImageId": "ami-12c6146b"}
        )
        self.scaling.create_auto_scaling_group(
            AutoScalingGroupName=name,
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
            "deploy_green_fleet_group": self.name,
            "deploy_retire": "terminate",
        }
        (place / "group_vars" / "shop.yml").write_text(json.dumps(variables))
        return place

    def start(self, revision: Path, log: Path) -> subprocess.Popen[bytes]:
        """Start a deployment in a session of its own, which can be killed as a whole."""
        said = json.dumps({**self.controller.variables, "deploy_revision": str(revision)})
        with log.open("wb") as output:
            return subprocess.Popen(
                [BIN / "ansible-playbook", "-i", self.controller.inventory,
                 "bascule.deploy.blue_green", "-e", said],
                cwd=ROOT, start_new_session=True, stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT,
                env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                     "BASCULE_STATE": str(self.controller.state), **self.controller.environment},
            )  # fmt: skip

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill a controller with its workers."""
        kill_controller(process, self.controller.state)

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

    def suspended(self) -> list[str]:
        """Return the processes of all groups that are suspended."""
        return [
            process["ProcessName"]
            for group in self.scaling.describe_auto_scaling_groups()["AutoScalingGroups"]
            for process in group["SuspendedProcesses"]
        ]


@contextmanager
def shopping(
    folder: Path, name: str = "shop", prefix: str = "", hooks: Sequence[str] = ()
) -> Iterator[Shop]:
    """Run the service, with such a group in it, until the block ends.

    :param name: that of the Auto Scaling group
    :param prefix: what the names of the target groups begin with, before that of the pool
    :param hooks: more of them for the service (see ``alb.running``)
    """
    collection = ROOT / "collections" / "ansible_collections" / "amazon" / "aws"
    assert collection.is_dir(), "run: python tools/fetch_collections.py"
    every = ["support.scaling_server:patch", *hooks]
    with alb.running(folder / "service", hooks=every) as service:
        made = Shop(service, folder, name, prefix)
        try:
            yield made
        finally:
            for process in made.site.processes.values():
                proxies.stop(process)
