"""``--check --diff`` of every strategy asks AWS and changes nothing there: counted at its API."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from support import alb, proxies
from support.alb.site import Site
from support.bundles import files
from support.ec2 import scaling_group
from support.lambda_plane import HANDLER, package
from support.rollout import Controller, local_inventory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

POOLS = {"blue": ["b1", "b2"], "green": ["g1", "g2"]}


class Account:
    """Instances in two pools behind each kind of load balancer, a function, and who is told."""

    def __init__(self, service: alb.Alb, folder: Path) -> None:
        self.service = service
        self.folder = folder
        self.site = Site(service)
        self.site.start("blue")
        port = self.site.ports["blue"]
        self.groups = {pool: self.site.group(pool, delay=1, Port=port) for pool in POOLS}
        self.site.listen({self.groups["blue"]: 1})
        self.site.classic("old", delay=1)
        names = {name: pool for pool, names in POOLS.items() for name in names}
        ids = {name: self.site.instance(name) for name in names}
        for name in POOLS["blue"]:
            self.site.elbv2.register_targets(
                TargetGroupArn=self.groups["blue"], Targets=[{"Id": ids[name]}]
            )
            self.site.elb.register_instances_with_load_balancer(
                LoadBalancerName="old", Instances=[{"InstanceId": ids[name]}]
            )
        scaling_group(service, "workers", 1)
        topic = service.client("sns").create_topic(Name="told")["TopicArn"]
        service.client("cloudwatch").put_metric_alarm(
            AlarmName="errors", MetricName="m", Namespace="n", Period=60, EvaluationPeriods=1,
            Threshold=1, ComparisonOperator="GreaterThanThreshold", Statistic="Sum",
        )  # fmt: skip
        self.function()
        inventory = local_inventory(folder / "hosts.json", {n: folder / "hosts" / n for n in names})
        content = json.loads(inventory.read_text())
        hosts = content["all"]["children"]["web"]["hosts"]
        for name, variables in hosts.items():
            variables |= {"instance_id": ids[name], "deploy_pool": names[name]}
        inventory.write_text(json.dumps(content))
        self.controller = Controller(
            inventory,
            folder / "state",
            {
                "deploy_application": "shop",
                "deploy_targets": "web",
                "deploy_alarms": ["errors"],
                "deploy_auto_scaling_groups": ["workers"],
                "deploy_auto_scaling_suspend": ["Launch"],
                "deploy_notifications": [{"type": "sns", "topic": topic}, {"type": "eventbridge"}],
                "deploy_share_timeout": "0s",
            },
            environment={
                **service.environment,
                "ANSIBLE_CALLBACKS_ENABLED": "bascule.deploy.cloudwatch",
            },
        )
        self.pools = {
            "deploy_traffic_provider": "elbv2",
            "deploy_elbv2_listener": self.site.listener,
            "deploy_elbv2_propagation": "500ms",
            "deploy_traffic_pools": {
                pool: {"target_group": arn} for pool, arn in self.groups.items()
            },
        }

    def function(self) -> None:
        """Make a function with a version and an alias that leads to it."""
        iam, functions = self.service.client("iam"), self.service.client("lambda")
        role = iam.create_role(RoleName="runs", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
        functions.create_function(
            FunctionName="greet", Role=role, Runtime="python3.12", Handler="app.handler",
            Code={"ZipFile": package("1")},
        )  # fmt: skip
        functions.publish_version(FunctionName="greet")
        functions.create_alias(FunctionName="greet", Name="live", FunctionVersion="1")
        (self.folder / "code").mkdir()
        code = HANDLER.format(build="2", errors=0.0)
        (self.folder / "code" / "app.py").write_text(code)

    def run(self, strategy: str, *options: str, **variables: Any) -> tuple[set[str], set[str]]:
        """Run a playbook; return the calls that it made, those that change something apart."""
        self.service.forget_calls()
        run = self.controller.playbook(strategy, *options, **variables)
        assert run.status == 0, run.said
        calls = self.service.calls()
        return (
            {one["action"] for one in calls if not one["mutating"]},
            {one["action"] for one in calls if one["mutating"]},
        )


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Account]:
    with alb.running(tmp_path / "service", propagation=0.2) as service:
        made = Account(service, tmp_path)
        try:
            yield made
        finally:
            proxies.stop(made.site.processes["blue"])


def test_a_check_asks_and_changes_nothing(account: Account, tmp_path: Path) -> None:
    one, two = (files(tmp_path / name, {"text": f"{name}\n"}) for name in ("one", "two"))
    done = account.run("blue_green", deploy_revision=one, deploy_retire="drain", **account.pools)
    account.run("blue_green", deploy_revision=two, **account.pools)
    three = files(tmp_path / "three", {"text": "three\n"})
    # What is counted would be seen.
    assert done[1] >= {
        "DeregisterTargets", "ModifyListener", "PutEvents", "PutLogEvents", "PutMetricData",
        "Publish", "RegisterTargets", "ResumeProcesses", "SuspendProcesses",
    }  # fmt: skip
    group = {"deploy_traffic_provider": "elbv2", "deploy_elbv2_target_groups": ["blue"]}
    classic = {"deploy_traffic_provider": "elb", "deploy_elb_names": ["old"]}
    shares = {
        **account.pools,
        "deploy_schedule": [{"shift": "10%"}, {"bake": "1m"}],
        "deploy_test_route": {"header": "X-Test", "value": "new"},
        "deploy_sticky": {"cookie": "AWSALBTG", "ttl": 60},
        "deploy_retire": "drain",
    }
    functions = {
        "deploy_compute_platform": "Lambda",
        "deploy_targets": "greet",
        "deploy_application": "functions",
        "deploy_lambda_function": "greet",
        "deploy_lambda_alias": "live",
        "deploy_revision": tmp_path / "code",
    }
    for strategy, asked, variables in (
        ("in_place", "DescribeTargetHealth", {"deploy_revision": three, **group}),
        ("rolling", "DescribeInstanceHealth", {"deploy_revision": three, **classic}),
        ("blue_green", "DescribeListeners", {"deploy_revision": three, **shares}),
        ("canary", "DescribeListeners", {"deploy_revision": three, **shares}),
        ("rollback", "DescribeListeners", {"deploy_rollback_to": "", **account.pools}),
        ("canary", "Get", functions),
    ):
        read, changed = account.run(strategy, "--check", "--diff", **variables)
        assert [action for action in read if action.startswith(asked)], (strategy, read)
        assert changed == set(), (strategy, variables)
