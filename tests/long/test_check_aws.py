"""``--check --diff`` of every strategy asks AWS and changes nothing there: counted at its API."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from support import alb, lambda_plane, proxies
from support.alb.site import Site
from support.bundles import files
from support.ec2 import members, scaling_group
from support.function_site import FunctionSite
from support.rollout import Controller, local_inventory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

POOLS = {"blue": ["b1", "b2"], "green": ["g1", "g2"]}
LAUNCHING, TERMINATING = (f"autoscaling:EC2_INSTANCE_{name}ING" for name in ("LAUNCH", "TERMINAT"))


class Account:
    """Instances in two pools behind each kind of load balancer, and all who hear of deployments."""

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
        self.scaling_groups()
        topic = service.client("sns").create_topic(Name="told")["TopicArn"]
        service.client("cloudwatch").put_metric_alarm(
            AlarmName="errors", MetricName="m", Namespace="n", Period=60, EvaluationPeriods=1,
            Threshold=1, ComparisonOperator="GreaterThanThreshold", Statistic="Sum",
        )  # fmt: skip
        service.client("s3").create_bucket(
            Bucket="releases", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
        )
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
                "deploy_auto_scaling_hook": "hello",
                "deploy_auto_scaling_termination_hook": "goodbye",
                "deploy_notifications": [{"type": "sns", "topic": topic}, {"type": "eventbridge"}],
                "deploy_share_timeout": "0s",
            },
            environment={
                **service.environment,
                "ANSIBLE_CALLBACKS_ENABLED": "bascule.deploy.cloudwatch",
            },
            timeout=900,
        )
        self.pools = {
            "deploy_traffic_provider": "elbv2",
            "deploy_elbv2_listener": self.site.listener,
            "deploy_elbv2_propagation": "500ms",
            "deploy_traffic_pools": {
                pool: {"target_group": arn} for pool, arn in self.groups.items()
            },
        }

    def scaling_groups(self) -> None:
        """Make a group with hooks, and one that could be copied."""
        scaling = self.service.client("autoscaling")
        scaling_group(self.service, "workers", 1, **{"bascule:pool": "blue"})
        for name, transition in (("hello", LAUNCHING), ("goodbye", TERMINATING)):
            scaling.put_lifecycle_hook(
                AutoScalingGroupName="workers", LifecycleHookName=name,
                LifecycleTransition=transition,
            )  # fmt: skip
        self.at_hooks()
        scaling_group(self.service, "shop", 2, **{"bascule:pool": "blue"})

    def at_hooks(self) -> None:
        """Let an instance wait at each hook of the group."""
        scaling = self.service.client("autoscaling")
        serving = members(self.service, "workers")
        scaling.set_desired_capacity(
            AutoScalingGroupName="workers", DesiredCapacity=len(serving) + 1
        )
        scaling.terminate_instance_in_auto_scaling_group(
            InstanceId=serving[0], ShouldDecrementDesiredCapacity=True
        )

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


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """An account in which two deployments have taken the pools in turn."""
    folder = tmp_path_factory.mktemp("account")
    hooks = ["support.scaling_server:patch"]
    with alb.running(folder / "service", propagation=0.2, hooks=hooks) as service:
        made = Account(service, folder)
        try:
            seen = set()
            for name, more in (("one", {"deploy_retire": "drain"}), ("two", {})):
                revision = files(folder / name, {"text": f"{name}\n"})
                seen |= made.run("blue_green", deploy_revision=revision, **more, **made.pools)[1]
            # What is counted would be seen.
            assert seen >= {
                "CompleteLifecycleAction", "DeregisterTargets", "ModifyListener", "PutEvents",
                "PutLogEvents", "PutMetricData", "Publish", "RegisterTargets", "ResumeProcesses",
                "SuspendProcesses",
            }  # fmt: skip
            made.at_hooks()
            files(folder / "three", {"text": "three\n"})
            pushed = made.controller.command("push", f"{folder}/three", "--to", "s3://releases/x/")
            assert pushed.status == 0, pushed.said
            yield made
        finally:
            proxies.stop(made.site.processes["blue"])


SHARES: dict[str, Any] = {
    "deploy_schedule": [{"shift": "10%"}, {"bake": "1m"}],
    "deploy_test_route": {"header": "X-Test", "value": "new"},
    "deploy_sticky": {"cookie": "AWSALBTG", "ttl": 60},
    "deploy_retire": "drain",
}
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "in_place": (
        "in_place", "DescribeTargetHealth",
        {"deploy_traffic_provider": "elbv2", "deploy_elbv2_target_groups": ["blue"]},
    ),
    "rolling": (
        "rolling", "DescribeInstanceHealth",
        {"deploy_traffic_provider": "elb", "deploy_elb_names": ["old"]},
    ),
    "rolling from S3": (
        "rolling", "Get/releases/x/",
        {"deploy_traffic_provider": "elb", "deploy_elb_names": ["old"]},
    ),
    "blue_green": ("blue_green", "DescribeListeners", SHARES),
    "blue_green with a copy": (
        "blue_green", "DescribeAutoScalingGroups",
        {
            "deploy_targets": "b1:b2", "deploy_green_fleet": "copy_auto_scaling_group",
            "deploy_green_fleet_group": "shop", "deploy_retire": "terminate",
            "deploy_auto_scaling_groups": [], "deploy_auto_scaling_hook": "",
            "deploy_auto_scaling_termination_hook": "",
        },
    ),
    "canary": ("canary", "DescribeListeners", SHARES),
    "rollback": ("rollback", "DescribeListeners", {}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_check_asks_and_changes_nothing(account: Account, case: str) -> None:
    strategy, asked, given = CASES[case]
    pooled = "deploy_traffic_provider" not in given
    source = account.folder / "three"
    if "S3" in case:
        [one] = account.service.client("s3").list_objects_v2(Bucket="releases")["Contents"]
        source = f"s3://releases/{one['Key']}"
    revision = {} if strategy == "rollback" else {"deploy_revision": source}
    variables = {**revision, **(account.pools if pooled else {}), **given}
    read, changed = account.run(strategy, "--check", "--diff", **variables)
    print(f"{case}: {', '.join(sorted(read))}")
    assert [action for action in read if action.startswith(asked)], read
    assert changed == set()


def test_a_plan_for_a_group_that_is_not_there_yet_cannot_be_saved(account: Account) -> None:
    strategy, _asked, given = CASES["blue_green with a copy"]
    plan = account.folder / "plan.json"
    account.service.forget_calls()
    run = account.controller.playbook(
        strategy, "--check", deploy_revision=account.folder / "three",
        deploy_plan_output=plan, **account.pools, **given,
    )  # fmt: skip
    assert run.status != 0
    assert "A plan cannot be saved for a copy of the Auto Scaling group shop" in run.said
    assert "its instances get their names when they are launched" in run.said
    assert not plan.exists()
    assert not [one for one in account.service.calls() if one["mutating"]]


EVERYTHING = {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
READING = ("Describe", "Get", "List")


def test_a_check_of_functions_asks_and_changes_nothing(tmp_path: Path) -> None:
    with lambda_plane.running(tmp_path) as plane:
        site = FunctionSite(plane, tmp_path / "site", ["greet"])
        site.controller.environment = {**plane.environment, "AWS_ACCESS_KEY_ID": "ci"}

        def run(strategy: str, *options: str, **variables: Any) -> tuple[set[str], set[str]]:
            plane.guard(EVERYTHING, "ci")
            done = site.controller.playbook(strategy, *options, **variables)
            assert done.status == 0, done.said
            actions = {one["action"] for one in plane.asked_for()}
            read = {one for one in actions if one.partition(":")[2].startswith(READING)}
            return read, actions - read

        _read, changed = run("in_place", deploy_revision=site.revision("2"))
        # What is counted would be seen.
        assert changed >= {
            "lambda:PublishVersion", "lambda:UpdateAlias", "lambda:UpdateFunctionCode",
        }  # fmt: skip
        before = plane.log()["aliases"]
        goal = {"name": "errors", "kind": "rate", "better": "less"}
        three = site.revision("3")
        for strategy, variables in (
            ("in_place", {"deploy_revision": three}),
            ("canary", {"deploy_revision": three, "deploy_schedule": [{"shift": "10%"}]}),
            ("blue_green", {"deploy_revision": three}),
            ("ab_test", {
                "deploy_revision": three,
                "deploy_ab_test": {"split": "40%", "duration": "1h", "goal": goal},
            }),
            ("rollback", {}),
        ):  # fmt: skip
            read, changed = run(strategy, "--check", "--diff", **variables)
            print(f"{strategy}: {', '.join(sorted(read))}")
            assert "lambda:GetAlias" in read, strategy
            assert changed == set(), strategy
        assert plane.log()["aliases"] == before
