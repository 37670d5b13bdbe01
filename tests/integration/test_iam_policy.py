"""Every flow works with the policy that is printed for it, and with no statement less.

Two ask for permission: moto, and the guard before it (``support.guard``). moto asks for the actions
of a policy, and for the resources of S3; for other services it takes every resource for ``*``, so
that for moto the resources are opened here. CloudWatch's actions it asks for by the name in the
endpoint, ``monitoring``, and InvokeFunction by that of the operation. The guard gets each policy as
it is printed, and asks for every action of every call on its resource.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._aliases import Alias
from ansible_collections.bascule.deploy.plugins.module_utils._errors import RevisionError
from ansible_collections.bascule.deploy.plugins.module_utils._functions import FunctionSettings
from ansible_collections.bascule.deploy.plugins.module_utils._gate_spec import parse_gates
from ansible_collections.bascule.deploy.plugins.module_utils._notifications import (
    Told,
    parse_channels,
)
from ansible_collections.bascule.deploy.plugins.module_utils._permissions import NEEDS, policy
from ansible_collections.bascule.deploy.plugins.plugin_utils import _green_fleet
from ansible_collections.bascule.deploy.plugins.plugin_utils._aws import client
from ansible_collections.bascule.deploy.plugins.plugin_utils._cloudwatch import Courier
from ansible_collections.bascule.deploy.plugins.plugin_utils._codedeploy import read_group
from ansible_collections.bascule.deploy.plugins.plugin_utils._gates._cloudwatch import (
    alarm_states,
    metric_values,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._hook_watch import see_off
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
    heartbeat,
    hold,
    leaving,
    release,
)
from support import aws as moto
from support import lambda_plane
from support.bundles import files
from support.ec2 import launch, members, scaling_group
from support.lambda_plane import HANDLER, package, packed
from support.records import create, roll_target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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
        self.iam = iam = aws.client("iam")
        iam.create_user(UserName="ci")
        key = iam.create_access_key(UserName="ci")["AccessKey"]
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])

    def allow(self, made: dict[str, Any]) -> None:
        """Give the user this policy, and nothing else, from now on."""
        self.aws.guard(made, os.environ["AWS_ACCESS_KEY_ID"])
        self.aws.enforce_permissions(unasked=1000)
        statements = [opened(one) for one in made["Statement"]] or [NOTHING]
        document = json.dumps({**made, "Statement": statements})
        self.iam.put_user_policy(UserName="ci", PolicyName="bascule", PolicyDocument=document)
        _send._client.cache_clear()
        self.aws.enforce_permissions()

    def used(self) -> set[str]:
        """Return the actions that were asked for with the last policy."""
        return {one["action"] for one in self.aws.asked_for()}


@dataclasses.dataclass(frozen=True)
class Flow:
    """What is done with a policy.

    ``spare`` names statements that it does without, ``unused`` actions that it does not take: they
    are those of another course of the same flow.
    """

    allowed: dict[str, Any]
    work: Callable[[], Any]
    spare: set[str] = dataclasses.field(default_factory=set)
    unused: set[str] = dataclasses.field(default_factory=set)


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
    deploy = aws.client("codedeploy")
    deploy.create_application(applicationName="shop", computePlatform="Server")
    deploy.create_deployment_config(
        deploymentConfigName="careful", computePlatform="Server",
        minimumHealthyHosts={"type": "FLEET_PERCENT", "value": 50},
    )  # fmt: skip
    deploy.register_on_premises_instance(instanceName="rack-7")
    deploy.create_deployment_group(
        applicationName="shop", deploymentGroupName="web", deploymentConfigName="careful",
        serviceRoleArn="arn:aws:iam::1:role/x",
        onPremisesInstanceTagFilters=[{"Key": "Role", "Value": "web", "Type": "KEY_AND_VALUE"}],
    )  # fmt: skip
    network = aws.client("ec2").create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    elb = aws.client("elbv2")
    group = elb.create_target_group(Name="web", Protocol="HTTP", Port=80, VpcId=network)[
        "TargetGroups"
    ][0]["TargetGroupArn"]
    elb.register_targets(TargetGroupArn=group, Targets=[{"Id": instance, "Port": 80}])
    aws.client("s3").put_bucket_versioning(
        Bucket="releases", VersioningConfiguration={"Status": "Enabled"}
    )
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

    def notify(kind: str) -> None:
        [channel] = parse_channels([{"type": kind, "topic": topic}])
        why = _send.send(channel, Told(trigger="DeploymentStart", at=1.0, deployment=ABOUT))
        if why:
            raise AssertionError(why)

    def hold_and_release() -> None:
        hold(record, deployment.id, ["workers"], ["Launch"])
        if not record.deployment(deployment.id).is_final:
            record.finish(deployment.id)
        release(record, [deployment.id])

    def answer() -> None:
        assert heartbeat("launched", "bascule", "eu-central-1") == [newcomer]
        told, left = answer_hooks(record, [waiting], "bascule")
        assert (told, left) == ([f"{newcomer} of launched: CONTINUE"], [])

    def farewell() -> None:
        """Keep one waiting that is worked on, and let it go when that is over."""
        assert "is being terminated" in leaving(leaver)
        told = {"termination_hook": "goodbye"}
        answered, troubles = see_off(record, [rolling], told, ["shrinking"])
        if troubles:
            raise AssertionError(troubles[0])
        assert answered == []
        record.settle(rolling.id, "old", "Succeeded")
        answered, troubles = see_off(record, [rolling], told, ["shrinking"])
        assert (answered, troubles) == ([f"{leaver} of shrinking: CONTINUE at goodbye"], [])

    def log() -> None:
        courier = Courier(
            {"group": "/b", "stream": "d", "namespace": "B", "create": True, "patience": 3}
        )
        courier.line(1_700_000_000_000, "x")
        courier.metric({"MetricName": "m", "Value": 1.0})
        _sent, lost, why = courier.end()
        if lost:
            raise AssertionError(why)

    def ask_gate() -> None:
        [gate] = parse_gates([METRIC])
        assert metric_values(gate, METRIC["queries"], time.time()) == []

    def described() -> None:
        client("ec2").describe_instances(InstanceIds=[instance])
        assert gone(instance) == ""

    def absent() -> None:
        with pytest.raises(RevisionError) as caught:
            resolve("s3://releases/shop/absent.tgz", cache=tmp_path / "other")
        if "There is no such object" not in str(caught.value):
            raise caught.value

    def fetch() -> None:
        """Fetch it as it is, and by its version."""
        shutil.rmtree(tmp_path / "other", ignore_errors=True)
        resolve("s3://releases/shop/x.tgz", cache=tmp_path / "other")

    flows: list[Flow] = [
        Flow(policy({}, push="s3://releases/shop/"),
             lambda: _s3.upload(revision, "releases", "shop/x.tgz")),
        Flow(policy({"deploy_revision": "s3://releases/shop/x.tgz"}), fetch, spare={"S3List"},
             unused={"s3:ListBucket"}),
        Flow(policy({"deploy_revision": "s3://releases/shop/absent.tgz"}), absent,
             unused={"s3:GetObjectVersion"}),
        Flow(policy({"deploy_notifications": [{"type": "sns", "topic": topic}]}),
         lambda: notify("sns")),
        Flow(policy({"deploy_notifications": [{"type": "eventbridge"}]}),
         lambda: notify("eventbridge")),
        Flow(policy({"deploy_auto_scaling_groups": ["workers"],
                 "deploy_auto_scaling_suspend": ["Launch"]}), hold_and_release),
        Flow(policy({"deploy_auto_scaling_groups": ["launched"],
                 "deploy_auto_scaling_hook": "bascule"}), answer),
        # Without it nobody tells that the instance of a target that failed is going.
        Flow(policy({"deploy_auto_scaling_groups": ["shrinking"],
                 "deploy_auto_scaling_termination_hook": "goodbye"}), farewell,
             spare={"ScalingInstances"}),
        Flow(policy({}, log_group="/b"), log),
        Flow(policy({"deploy_alarms": ["cpu"]}), lambda: alarm_states(["cpu"])),
        Flow(policy({"deploy_gates": [METRIC]}), ask_gate),
        Flow(policy({"deploy_traffic_provider": "elbv2", "deploy_elbv2_target_groups": ["web"]}),
         lambda: moved("elbv2", instance, target_groups=[group])),
        Flow(policy({}, instances=[instance]), described),
        Flow(importing(), lambda: read_group("shop", "web")),
    ]  # fmt: skip
    prove(account, flows)


def prove(account: Account, flows: list[Flow]) -> None:
    """Run each with every statement left out once, which must be told, and with its policy."""
    for flow in flows:
        for left_out in flow.allowed["Statement"]:
            if left_out["Sid"] in flow.spare:
                continue
            rest = [one for one in flow.allowed["Statement"] if one is not left_out]
            account.allow({**flow.allowed, "Statement": rest})
            refused = failure(flow)
            wanted = {action for action in left_out["Action"] if action in refused}
            assert wanted, f"without {left_out['Sid']}: {refused or 'it works'}"
            assert "Signature" not in refused, refused
        account.allow(flow.allowed)
        refused = failure(flow)
        assert not refused, f"{[one['Sid'] for one in flow.allowed['Statement']]}: {refused}"
        printed = {action for one in flow.allowed["Statement"] for action in one["Action"]}
        # No permission is printed that the flow does not use.
        assert printed - account.used() == flow.unused


def failure(flow: Flow) -> str:
    try:
        flow.work()
    except Exception as error:
        return str(error)
    return ""


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
    aws: moto.Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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


METRIC: dict[str, Any] = {
    "name": "errors", "type": "cloudwatch", "success": "< 1",
    "queries": [{"namespace": "shop", "metric": "Errors"}],
}  # fmt: skip
MOVING = {"elasticloadbalancing:DeregisterTargets", "elasticloadbalancing:RegisterTargets"}
COUNTING = {"cloudwatch:GetMetricData", "elasticloadbalancing:DescribeTags"}
RULES = {f"elasticloadbalancing:{name}" for name in ("AddTags", "CreateRule", "DeleteRule")}
PROVISIONED = {f"lambda:{verb}ProvisionedConcurrencyConfig" for verb in ("Delete", "Get", "Put")}
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
    flows: list[Flow] = [
        Flow(policy({}, functions=["greet"]), deploy, unused=PROVISIONED),
        Flow(part(policy(hooks, functions=["greet"]), "LambdaHooks"), check),
        Flow(part(policy(gates, functions=["greet"]), "LambdaMetrics"), measure),
        Flow(
            part(policy({}, functions=[arn]), "LambdaInventory"),
            lambda: list_functions(["eu-central-1"]),
        ),
    ]
    prove(account, flows)


def test_provisioned_layers_and_images_with_the_policy_and_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What moto does not ask for: the guard before the Lambda service does."""
    with lambda_plane.running(tmp_path) as plane:
        plane.use(monkeypatch)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ci")
        digest = "b" * 64
        registry = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
        plane.create("greet", package("1"))
        plane.create(
            "paint", b"", Code={"ImageUri": f"{registry}/paint@sha256:{'a' * 64}"},
            PackageType="Image",
        )  # fmt: skip
        layer = plane.client("lambda").publish_layer_version(
            LayerName="base", Content={"ZipFile": package("0")}
        )["LayerVersionArn"]
        ecr = plane.client("ecr")
        ecr.create_repository(repositoryName="paint")
        manifest = {"schemaVersion": 2, "config": {"digest": f"sha256:{digest}"}, "layers": []}
        put = ecr.put_image(
            repositoryName="paint", imageManifest=json.dumps(manifest), imageTag="2",
            imageManifestMediaType="application/vnd.oci.image.manifest.v1+json",
        )["image"]  # fmt: skip
        plane.image(f"{registry}/paint@{put['imageId']['imageDigest']}", package("2"))
        (tmp_path / "code").mkdir()
        (tmp_path / "code" / "app.py").write_text(HANDLER.format(build="2", errors=0.0))

        def publish(one: FunctionSettings, source: str) -> None:
            service = Service()
            settings = {
                "deploy_revision": source, "deploy_revision_checksum": "",
                "deploy_revision_subdirectory": "",
            }  # fmt: skip
            revision = resolve_functions(
                settings, [one], cache=tmp_path / "cache", base=tmp_path, service=service
            )
            wanted = functions_of(revision)[one.target]
            made = _publish.publish(
                service, one, wanted, (), cache=tmp_path / "cache", description="by a test"
            )
            if one.provisioned_concurrency:
                service.release(wanted["function"], made.version)

        greet = FunctionSettings(
            "greet", "greet", configuration={"layers": [layer]}, provisioned_concurrency=1
        )
        paint = FunctionSettings("paint", "paint")
        image = f"{registry}/paint:2"
        layers = {"deploy_lambda_configuration": {"layers": [layer]}}
        for made, work, lacking in (
            (policy(layers, functions=["greet"]), lambda: publish(greet, str(tmp_path / "code")),
             ["lambda:GetLayerVersion", *sorted(PROVISIONED, reverse=True)]),
            (policy({"deploy_revision": image}, functions=["paint"]),
             lambda: publish(paint, image),
             ["ecr:DescribeImages", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]),
        ):  # fmt: skip
            for action in lacking:
                plane.guard(without(made, action), "ci")
                refused = failure(Flow(made, work))
                assert f"not authorized to perform: {action}" in refused, refused
            plane.guard(made, "ci")
            assert failure(Flow(made, work)) == ""


def without(made: dict[str, Any], action: str) -> dict[str, Any]:
    """Return a policy that does not have one action."""
    statements = [
        {**one, "Action": [name for name in one["Action"] if name != action]}
        for one in made["Statement"]
    ]
    return {**made, "Statement": statements}


def part(made: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return those statements of a policy."""
    return {**made, "Statement": [one for one in made["Statement"] if one["Sid"] in names]}


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
    with pytest.raises(Exception, match=r"s3:GetObject on arn:aws:s3:::releases/blog/a\.tgz"):
        resolve("s3://releases/blog/a.tgz", cache=tmp_path / "other")
