"""Applications, instances and target groups for a test, with few words."""

from __future__ import annotations

import contextlib
import datetime
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from support import proxies
from support.alb.plane import ADDRESS_TAG
from support.aws import REGION

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from support.alb import Alb


class Site:
    """The applications ``blue`` and ``green`` on loopback, each an instance of EC2."""

    def __init__(self, service: Alb) -> None:
        self.service = service
        self.elbv2, self.elb = self.client("elbv2"), self.client("elb")
        self.ec2, self.cloudwatch = self.client("ec2"), self.client("cloudwatch")
        self.vpc = self.ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
        self.subnets = [one["SubnetId"] for one in self.ec2.describe_subnets()["Subnets"][:2]]
        self.instances: dict[str, str] = {}
        self.ports: dict[str, int] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.balancer = ""
        self.listener = ""
        self.free = proxies.free_port()

    def client(self, name: str, max_attempts: int = 3) -> Any:
        """Return a client of the service."""
        return boto3.client(
            name,  # type: ignore[call-overload]
            endpoint_url=self.service.url,
            region_name=REGION,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",  # noqa: S106 - moto takes any
            config=Config(retries={"mode": "standard", "max_attempts": max_attempts}),
        )

    def start(self, version: str) -> None:
        """Start an application and make it an instance."""
        self.ports[version] = proxies.free_port()
        self.processes[version] = proxies.start_backend(self.ports[version], version)
        self.instances[version] = self.instance(version)

    def instance(self, name: str, address: str = "127.0.0.1") -> str:
        """Make an instance whose real address is given; returns its id."""
        tags = [{"Key": "Name", "Value": name}, {"Key": ADDRESS_TAG, "Value": address}]
        made = self.ec2.run_instances(
            ImageId="ami-12c6146b",
            MinCount=1,
            MaxCount=1,
            TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
        )
        return str(made["Instances"][0]["InstanceId"])

    def group(self, name: str, delay: int = 2, kind: str = "instance", **more: Any) -> str:
        """Make a target group with quick checks; returns its ARN."""
        given = {
            "Protocol": "HTTP",
            "Port": 80,
            "HealthCheckPath": "/health",
            "HealthCheckIntervalSeconds": 5,
            "HealthCheckTimeoutSeconds": 2,
            "HealthyThresholdCount": 2,
            "UnhealthyThresholdCount": 2,
            **more,
        }
        made = self.elbv2.create_target_group(Name=name, TargetType=kind, VpcId=self.vpc, **given)
        arn = str(made["TargetGroups"][0]["TargetGroupArn"])
        attribute = {"Key": "deregistration_delay.timeout_seconds", "Value": str(delay)}
        self.elbv2.modify_target_group_attributes(TargetGroupArn=arn, Attributes=[attribute])
        return arn

    def register(self, group: str, version: str) -> None:
        """Register an application."""
        target = {"Id": self.instances[version], "Port": self.ports[version]}
        self.elbv2.register_targets(TargetGroupArn=group, Targets=[target])

    def deregister(self, group: str, version: str) -> None:
        """Deregister an application."""
        target = {"Id": self.instances[version], "Port": self.ports[version]}
        self.elbv2.deregister_targets(TargetGroupArn=group, Targets=[target])

    def health(self, group: str) -> list[dict[str, Any]]:
        """Describe the health of a group."""
        answer = self.elbv2.describe_target_health(TargetGroupArn=group)
        return [one["TargetHealth"] for one in answer["TargetHealthDescriptions"]]

    def states(self, group: str) -> list[str]:
        """Return the states of a group's targets."""
        return [one["State"] for one in self.health(group)]

    def reasons(self, group: str) -> list[str]:
        """Return why the targets are in their states."""
        return [one.get("Reason", "") for one in self.health(group)]

    def listen(
        self, weights: dict[str, int], kind: str = "application", port: int | None = None
    ) -> str:
        """Make a load balancer with one listener; returns its URL."""
        port = port or proxies.free_port()
        self.balancer = self.elbv2.create_load_balancer(
            Name=f"lb-{port}", Subnets=self.subnets, Type=kind
        )["LoadBalancers"][0]["LoadBalancerArn"]
        self.listener = self.elbv2.create_listener(
            LoadBalancerArn=self.balancer,
            Protocol="HTTP" if kind == "application" else "TCP",
            Port=port,
            DefaultActions=[forward(weights)],
        )["Listeners"][0]["ListenerArn"]
        return f"http://{self.service.address}:{port}/"

    def forward(self, weights: dict[str, int], sticky: int | None = None) -> None:
        """Change what the listener does."""
        self.elbv2.modify_listener(
            ListenerArn=self.listener, DefaultActions=[forward(weights, sticky)]
        )

    def rule(self, weights: dict[str, int], header: tuple[str, str], priority: int = 10) -> None:
        """Add a rule for a header."""
        name, value = header
        condition = {
            "Field": "http-header",
            "HttpHeaderConfig": {"HttpHeaderName": name, "Values": [value]},
        }
        self.elbv2.create_rule(
            ListenerArn=self.listener,
            Conditions=[condition],
            Priority=priority,
            Actions=[forward(weights)],
        )

    def classic(self, name: str, delay: int, application: int = 0, port: int | None = None) -> str:
        """Make a classic load balancer before a port of the instances; returns its URL.

        :param application: the port, that of the application blue if none is given
        """
        port, application = port or proxies.free_port(), application or self.ports["blue"]
        listener = {"Protocol": "HTTP", "LoadBalancerPort": port, "InstancePort": application}
        self.elb.create_load_balancer(
            LoadBalancerName=name, Listeners=[listener], Subnets=self.subnets
        )
        self.elb.configure_health_check(
            LoadBalancerName=name,
            HealthCheck={
                "Target": f"HTTP:{application}/health",
                "Interval": 5,
                "Timeout": 2,
                "UnhealthyThreshold": 2,
                "HealthyThreshold": 2,
            },
        )
        draining = {"ConnectionDraining": {"Enabled": True, "Timeout": delay}}
        self.elb.modify_load_balancer_attributes(
            LoadBalancerName=name, LoadBalancerAttributes=draining
        )
        return f"http://{self.service.address}:{port}/"

    def sum(self, metric: str, group: str) -> float:
        """Return the sum of a group's metric over the last minutes."""
        now = datetime.datetime.now(datetime.UTC)
        dimensions = [
            {"Name": "TargetGroup", "Value": group.split(":")[-1]},
            {"Name": "LoadBalancer", "Value": self.balancer.split(":loadbalancer/")[-1]},
        ]
        answer = self.cloudwatch.get_metric_statistics(
            Namespace="AWS/ApplicationELB",
            MetricName=metric,
            Dimensions=dimensions,
            StartTime=now - datetime.timedelta(minutes=10),
            EndTime=now + datetime.timedelta(minutes=1),
            Period=60,
            Statistics=["Sum"],
        )
        return float(sum(one["Sum"] for one in answer["Datapoints"]))


@contextmanager
def sites(service: Alb) -> Iterator[Site]:
    """Give a site on a service that has forgotten everything."""
    service.reset()
    made = Site(service)
    with contextlib.ExitStack() as stack:
        for version in ("blue", "green"):
            made.start(version)
            stack.callback(proxies.stop, made.processes[version])
        yield made


def forward(weights: dict[str, int], sticky: int | None = None) -> dict[str, Any]:
    """Return the action that shares requests between groups."""
    config: dict[str, Any] = {
        "TargetGroups": [{"TargetGroupArn": arn, "Weight": w} for arn, w in weights.items()]
    }
    if sticky:
        config["TargetGroupStickinessConfig"] = {"Enabled": True, "DurationSeconds": sticky}
    return {"Type": "forward", "ForwardConfig": config}
