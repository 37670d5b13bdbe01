"""Every flow works with the policy that is printed for it, and not without.

moto enforces the actions of a policy, and the resources of S3; for other services it takes every
resource for ``*``, so that there the resources are opened here, and proved by the unit tests alone.
CloudWatch's actions it asks for by the name in the endpoint, ``monitoring``, and InvokeFunction by
that of the operation. Provisioned concurrency it has none of.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._aliases import Alias
from ansible_collections.bascule.deploy.plugins.module_utils._functions import FunctionSettings
from ansible_collections.bascule.deploy.plugins.module_utils._notifications import (
    Told,
    parse_channels,
)
from ansible_collections.bascule.deploy.plugins.module_utils._permissions import NEEDS, policy
from ansible_collections.bascule.deploy.plugins.plugin_utils import _green_fleet
from ansible_collections.bascule.deploy.plugins.plugin_utils._aws import client
from ansible_collections.bascule.deploy.plugins.plugin_utils._cloudwatch import Courier
from ansible_collections.bascule.deploy.plugins.plugin_utils._codedeploy import read_group
from ansible_collections.bascule.deploy.plugins.plugin_utils._gates._cloudwatch import alarm_states
from ansible_collections.bascule.deploy.plugins.plugin_utils._lambda import (
    _hooks,
    _metrics,
    _publish,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._lambda._listing import list_functions
from ansible_collections.bascule.deploy.plugins.plugin_utils._lambda._revision import (
    functions_of,
    resolve_functions,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._lambda._service import Service
from ansible_collections.bascule.deploy.plugins.plugin_utils._lambda._tidy import (
    delete_old_versions,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._notify import _send
from ansible_collections.bascule.deploy.plugins.plugin_utils._providers import run_on_controller
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Record
from ansible_collections.bascule.deploy.plugins.plugin_utils._record._functions import (
    FunctionVersion,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._revisions import _s3, resolve
from ansible_collections.bascule.deploy.plugins.plugin_utils._scaling import (
    answer_hooks,
    gone,
    hold,
    release,
)
from support import aws as moto
from support.bundles import files
from support.ec2 import launch, members, scaling_group
from support.lambda_plane import HANDLER, package, packed
from support.records import create, roll_target

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ABOUT = {
    "id": "d-ABCDEFGHI", "application": "shop", "group": "web", "group_id": "1",
    "strategy": "rolling", "created_at": 1.0, "finished_at": None, "overview": {},
}  # fmt: skip


class Account:
    """A server that lets nobody do anything, and the one user that there is."""

    def __init__(self, aws: moto.Aws, monkeypatch: pytest.MonkeyPatch) -> None:
        self.aws = aws
        self.monkeypatch = monkeypatch
        iam = aws.client("iam")
        iam.create_user(UserName="ci")
        key = iam.create_access_key(UserName="ci")["AccessKey"]
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])

    def allow(self, made: dict[str, Any]) -> None:
        """Give the user this policy, and nothing else, from now on."""
        self.aws.enforce_permissions(unasked=1000)
        statements = [opened(one) for one in made["Statement"]] or [NOTHING]
        document = json.dumps({**made, "Statement": statements})
        iam = self.aws.client("iam")
        iam.put_user_policy(UserName="ci", PolicyName="bascule", PolicyDocument=document)
        _send._client.cache_clear()
        self.aws.enforce_permissions()


NOTHING = {"Effect": "Allow", "Action": "none:None", "Resource": "*"}


def opened(statement: dict[str, Any]) -> dict[str, Any]:
    actions = [*statement["Action"]]
    actions += [
        one.replace("cloudwatch:", "monitoring:") for one in actions if one.startswith("cloudw")
    ]
    actions += ["lambda:Invoke" for one in actions if one == "lambda:InvokeFunction"]
    own = all(one.startswith("s3:") for one in actions)
    return {**statement, "Action": actions, "Resource": statement["Resource"] if own else "*"}


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[moto.Aws]:
    server = moto.running(tmp_path, "support.iam_server", {"INITIAL_NO_AUTH_ACTION_COUNT": "1000"})
    with server as running:
        running.use(monkeypatch)
        yield running


def test_each_flow_with_its_policy_and_without(
    aws: moto.Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = Account(aws, monkeypatch)
    aws.client("s3").create_bucket(
        Bucket="releases", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    topic = aws.client("sns").create_topic(Name="t")["TopicArn"]
    [instance] = launch(aws, 1, Role="web")
    scaling_group(aws, "workers", 1)
    aws.client("codedeploy").create_application(applicationName="shop", computePlatform="Server")
    role = "arn:aws:iam::1:role/x"
    aws.client("codedeploy").create_deployment_group(
        applicationName="shop", deploymentGroupName="web", serviceRoleArn=role
    )
    network = aws.client("ec2").create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    elb = aws.client("elbv2")
    group = elb.create_target_group(Name="web", Protocol="HTTP", Port=80, VpcId=network)[
        "TargetGroups"
    ][0]["TargetGroupArn"]
    elb.register_targets(TargetGroupArn=group, Targets=[{"Id": instance, "Port": 80}])
    revision = resolve(str(files(tmp_path / "v1", {"VERSION": "1\n"})), cache=tmp_path / "cache")
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
    endpoints = [{"target": "new", "instance": newcomer}]
    waiting = create(record, ["new"], group="launched", options={"endpoints": endpoints})
    roll_target(record, waiting.id, "new", fails=False)

    def notify(kind: str) -> None:
        [channel] = parse_channels([{"type": kind, "topic": topic}])
        why = _send.send(channel, Told(trigger="DeploymentStart", at=1.0, deployment=ABOUT))
        if why:
            raise AssertionError(why)

    def hold_and_release() -> None:
        hold(record, deployment.id, ["workers"], ["Launch"])
        record.finish(deployment.id)
        release(record, [deployment.id])
        answer_hooks(record, [deployment], "bascule")

    def answer() -> None:
        assert answer_hooks(record, [waiting], "bascule") == [f"{newcomer} of launched: CONTINUE"]

    def log() -> None:
        courier = Courier(
            {"group": "/b", "stream": "d", "namespace": "B", "create": True, "patience": 3}
        )
        courier.line(1_700_000_000_000, "x")
        courier.metric({"MetricName": "m", "Value": 1.0})
        _sent, lost, why = courier.end()
        if lost:
            raise AssertionError(why)

    def described() -> None:
        client("ec2").describe_instances(InstanceIds=[instance])
        assert gone(instance) == ""

    flows: list[tuple[dict[str, Any], Any]] = [
        (policy({}, push="s3://releases/shop/"),
         lambda: _s3.upload(revision, "releases", "shop/x.tgz")),
        (policy({"deploy_revision": "s3://releases/shop/x.tgz"}),
         lambda: resolve("s3://releases/shop/x.tgz", cache=tmp_path / "other")),
        (policy({"deploy_notifications": [{"type": "sns", "topic": topic}]}),
         lambda: notify("sns")),
        (policy({"deploy_notifications": [{"type": "eventbridge"}]}),
         lambda: notify("eventbridge")),
        (policy({"deploy_auto_scaling_groups": ["workers"],
                 "deploy_auto_scaling_suspend": ["Launch"]}), hold_and_release),
        (policy({"deploy_auto_scaling_groups": ["launched"],
                 "deploy_auto_scaling_hook": "bascule"}), answer),
        (policy({}, log_group="/b"), log),
        (policy({"deploy_alarms": ["cpu"]}), lambda: alarm_states(["cpu"])),
        (policy({"deploy_traffic_provider": "elbv2", "deploy_elbv2_target_groups": ["web"]}),
         lambda: moved("elbv2", instance, target_groups=[group])),
        (policy({}, instances=[instance]), described),
        (importing(), lambda: read_group("shop", "web")),
    ]  # fmt: skip
    prove(account, flows)


def prove(account: Account, flows: list[tuple[dict[str, Any], Any]]) -> None:
    """Run each with nothing allowed, which must be refused, and with its policy."""
    for allowed, work in flows:
        name = [one["Sid"] for one in allowed["Statement"]]
        account.allow({"Version": "2012-10-17", "Statement": []})
        refused = ""
        try:
            work()
        except Exception as error:
            refused = str(error)
        assert "AccessDenied" in refused or "403" in refused or "not authorized" in refused, name
        assert "Signature" not in refused, refused
        account.allow(allowed)
        try:
            work()
        except Exception as error:
            raise AssertionError(f"{name}: {error}") from error


def moved(provider: str, instance: str, **options: Any) -> None:
    """Take an instance out of its load balancer, and put it back."""
    target = {"name": "a", "address": "10.9.0.1", "port": 80, "instance": instance}
    for action in ("drain", "restore"):
        carried_out(
            {
                "action": action, "provider": provider,
                "provider_options": {"propagation": "0s", **options},
                "targets": [target], "drain_timeout": 30, "restore_timeout": 30,
            }
        )  # fmt: skip


def carried_out(request: dict[str, Any]) -> dict[str, Any]:
    answer = run_on_controller(request)
    if answer.get("failed"):
        raise AssertionError(answer["msg"])
    return answer


def test_load_balancers_and_their_rules_with_the_policy_and_without(
    aws: moto.Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
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

    def swap() -> None:
        """Copy the live group, give the copy all traffic, and delete the old one."""
        options = {"listener": swapped, "pools": named}
        copied = _green_fleet.provide("workers", options, timeout=60.0)
        assert copied["changed"]
        carried_out(
            {
                "operation": "traffic", "action": "route", "provider": "elbv2",
                "provider_options": {**options, "propagation": "0s"},
                "routing": {"weights": {"blue": 0.0, "green": 100.0}},
            }
        )  # fmt: skip
        told = _green_fleet.retire("workers", options)
        assert told == {"changed": True, "group": copied["group"], "terminated": "workers"}

    settings = {"deploy_traffic_provider": "elbv2", "deploy_traffic_pools": named}
    copies = {
        "deploy_elbv2_listener": swapped, "deploy_green_fleet": "copy_auto_scaling_group",
        "deploy_green_fleet_group": "workers",
    }  # fmt: skip
    flows: list[tuple[dict[str, Any], Any]] = [
        (policy({"deploy_traffic_provider": "elb", "deploy_elb_names": ["old"]}),
         lambda: moved("elb", instance, names=["old"])),
        (policy({**settings, "deploy_elbv2_listener": listener}), lambda: share(listener)),
        (policy({**settings, "deploy_elbv2_listener": rule}), lambda: share(rule)),
        (policy({**settings, **copies}), swap),
    ]  # fmt: skip
    prove(account, flows)
    # The policy of the one is not enough for the other.
    account.allow(policy({**settings, "deploy_elbv2_listener": listener}))
    with pytest.raises(AssertionError, match="not authorized"):
        share(rule)


CHECK = """
def handler(event, context):
    return {"status": "Succeeded" if event["DeploymentId"] == "d-ABCDEFGHI" else "Failed"}
"""


def test_functions_with_the_policy_and_without(
    aws: moto.Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = Account(aws, monkeypatch)
    iam, functions = aws.client("iam"), aws.client("lambda")
    role = iam.create_role(RoleName="runs", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    for name, code in (("greet", package("1")), ("check", packed({"app.py": CHECK}))):
        functions.create_function(
            FunctionName=name, Role=role, Runtime="python3.12", Handler="app.handler",
            Code={"ZipFile": code},
        )  # fmt: skip
    functions.publish_version(FunctionName="greet")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "app.py").write_text(HANDLER.format(build="2", errors=0.0))
    one = FunctionSettings("greet", "greet", configuration={"memory": 256})
    settings = {
        "deploy_revision": str(tmp_path / "code"),
        "deploy_revision_checksum": "",
        "deploy_revision_subdirectory": "",
    }

    def deploy() -> None:
        """Publish, move an alias by steps and away again, and delete what nobody needs."""
        service = Service()
        revision = resolve_functions(
            settings, [one], cache=tmp_path / "cache", base=tmp_path, service=service
        )
        wanted = functions_of(revision)["greet"]
        made = _publish.publish(
            service, one, wanted, (), cache=tmp_path / "cache", description="by a test"
        )
        assert made == _publish.Published("2", made=True)
        function = wanted["function"]
        alias = service.alias(function, "live")
        for step in (Alias("1"), Alias("1", {"2": 0.1}), Alias("2")):
            alias = service.move_alias(function, "live", step, alias)
        assert delete_old_versions(service, function, keep=0, age=0.0, needed=()) == ["1"]
        assert service.move_alias(function, "live", None, alias) is None

    def check() -> None:
        ended = _hooks.run_hook("check", "d-ABCDEFGHI", _hooks.Answers(), offered=False)
        if ended.status != "Succeeded":
            raise AssertionError(ended.message)

    def measure() -> None:
        version = FunctionVersion(
            deployment_id="d-ABCDEFGHI", target="greet", alias="live", old_version="1",
            version="2", code_sha256="", digest="", at=time.time(),
            function="arn:aws:lambda:eu-central-1:123456789012:function:greet",
        )  # fmt: skip
        assert _metrics.counted(version)["new"].requests == 0

    hooks = {"deploy_lambda_hooks": {"BeforeAllowTraffic": "check"}}
    gates = {"deploy_gates": [{"name": "errors", "type": "traffic"}]}
    arn = "arn:aws:lambda:eu-central-1:123456789012:function:greet"
    flows: list[tuple[dict[str, Any], Any]] = [
        (policy({}, functions=["greet"]), deploy),
        (policy(hooks, functions=["greet"]), check),
        (policy(gates, functions=["greet"]), measure),
        (policy({}, functions=[arn]), lambda: list_functions(["eu-central-1"])),
    ]
    prove(account, flows)


def importing() -> dict[str, Any]:
    [need] = [one for one in NEEDS if one.flow == "import"]
    statement = {
        "Sid": "Import", "Effect": "Allow", "Action": list(need.actions), "Resource": "*"
    }  # fmt: skip
    return {"Version": "2012-10-17", "Statement": [statement]}


def test_a_policy_for_one_object_opens_no_other(
    aws: moto.Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = Account(aws, monkeypatch)
    aws.client("s3").create_bucket(
        Bucket="releases", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    revision = resolve(str(files(tmp_path / "v1", {"A": "1\n"})), cache=tmp_path / "cache")
    for key in ("shop/a.tgz", "blog/a.tgz"):
        with open(revision.bundle_path, "rb") as body:  # noqa: PTH123 - S3 reads it
            aws.client("s3").put_object(Bucket="releases", Key=key, Body=body)
    account.allow(policy({"deploy_revision": "s3://releases/shop/a.tgz"}))
    assert resolve("s3://releases/shop/a.tgz", cache=tmp_path / "other")
    with pytest.raises(Exception, match="403"):
        resolve("s3://releases/blog/a.tgz", cache=tmp_path / "other")
