"""Every flow works with the policy that is printed for it, and with no statement less."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import RevisionError
from ansible_collections.bascule.deploy.plugins.module_utils._gate_spec import parse_gates
from ansible_collections.bascule.deploy.plugins.module_utils._notifications import (
    Told,
    parse_channels,
)
from ansible_collections.bascule.deploy.plugins.module_utils._permissions import NEEDS, policy
from ansible_collections.bascule.deploy.plugins.plugin_utils._aws import client
from ansible_collections.bascule.deploy.plugins.plugin_utils._cloudwatch import Courier
from ansible_collections.bascule.deploy.plugins.plugin_utils._codedeploy import read_group
from ansible_collections.bascule.deploy.plugins.plugin_utils._gates._cloudwatch import (
    alarm_states,
    metric_values,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._notify import _send
from ansible_collections.bascule.deploy.plugins.plugin_utils._revisions import _s3, resolve
from ansible_collections.bascule.deploy.plugins.plugin_utils._scaling import gone
from support.bundles import files
from support.ec2 import launch
from support.permitted import Account, Flow, moved, prove

if TYPE_CHECKING:
    from pathlib import Path

    from support import aws as moto

ABOUT = {
    "id": "d-ABCDEFGHI", "application": "shop", "group": "web", "group_id": "1",
    "strategy": "rolling", "created_at": 1.0, "finished_at": None, "overview": {},
}  # fmt: skip
METRIC: dict[str, Any] = {
    "name": "errors", "type": "cloudwatch", "success": "< 1",
    "queries": [{"namespace": "shop", "metric": "Errors"}],
}  # fmt: skip


def test_each_flow_with_its_policy_and_without(
    permitted_aws: moto.Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws = permitted_aws
    account = Account(aws, monkeypatch)
    aws.client("s3").create_bucket(
        Bucket="releases", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    topic = aws.client("sns").create_topic(Name="t")["TopicArn"]
    [instance] = launch(aws, 1, Role="web")
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

    def notify(kind: str) -> None:
        [channel] = parse_channels([{"type": kind, "topic": topic}])
        why = _send.send(channel, Told(trigger="DeploymentStart", at=1.0, deployment=ABOUT))
        if why:
            raise AssertionError(why)

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
        Flow(policy({}, log_group="/b"), log),
        Flow(policy({"deploy_alarms": ["cpu"]}), lambda: alarm_states(["cpu"])),
        Flow(policy({"deploy_gates": [METRIC]}), ask_gate),
        Flow(policy({"deploy_traffic_provider": "elbv2", "deploy_elbv2_target_groups": ["web"]}),
         lambda: moved("elbv2", instance, target_groups=[group])),
        Flow(policy({}, instances=[instance]), described),
        Flow(importing(), lambda: read_group("shop", "web")),
    ]  # fmt: skip
    prove(account, flows)


def importing() -> dict[str, Any]:
    [need] = [one for one in NEEDS if one.flow == "import"]
    statement = {
        "Sid": "Import", "Effect": "Allow", "Action": list(need.actions), "Resource": "*"
    }  # fmt: skip
    return {"Version": "2012-10-17", "Statement": [statement]}


def test_a_policy_for_one_object_opens_no_other(
    permitted_aws: moto.Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws = permitted_aws
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
