"""Every flow works with the policy that is printed for it, and not without.

moto enforces the actions of a policy, and the resources of S3; for other services it takes every
resource for ``*``, so that there the resources are opened here, and proved by the unit tests alone.
CloudWatch's actions it asks for by the name in the endpoint, ``monitoring``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._notifications import (
    Told,
    parse_channels,
)
from ansible_collections.bascule.deploy.plugins.module_utils._permissions import NEEDS, policy
from ansible_collections.bascule.deploy.plugins.plugin_utils._aws import client
from ansible_collections.bascule.deploy.plugins.plugin_utils._cloudwatch import Courier
from ansible_collections.bascule.deploy.plugins.plugin_utils._codedeploy import read_group
from ansible_collections.bascule.deploy.plugins.plugin_utils._notify import _send
from ansible_collections.bascule.deploy.plugins.plugin_utils._providers import run_on_controller
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Record
from ansible_collections.bascule.deploy.plugins.plugin_utils._revisions import _s3, resolve
from ansible_collections.bascule.deploy.plugins.plugin_utils._scaling import (
    answer_hooks,
    gone,
    hold,
    release,
)
from support import aws as moto
from support.bundles import files
from support.ec2 import launch, scaling_group
from support.records import create

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
    own = all(one.startswith("s3:") for one in actions)
    return {**statement, "Action": actions, "Resource": statement["Resource"] if own else "*"}


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[moto.Aws]:
    server = moto.running(
        tmp_path, "support.codedeploy_server", {"INITIAL_NO_AUTH_ACTION_COUNT": "1000"}
    )
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

    def log() -> None:
        courier = Courier(
            {"group": "/b", "stream": "d", "namespace": "B", "create": True, "patience": 3}
        )
        courier.line(1_700_000_000_000, "x")
        courier.metric({"MetricName": "m", "Value": 1.0})
        _sent, lost, why = courier.end()
        if lost:
            raise AssertionError(why)

    def traffic() -> None:
        for action in ("drain", "restore"):
            answer = run_on_controller(
                {
                    "action": action, "provider": "elbv2",
                    "provider_options": {"target_groups": [group], "propagation": "0s"},
                    "targets": [
                        {"name": "a", "address": "10.9.0.1", "port": 80, "instance": instance}
                    ],
                    "drain_timeout": 30, "restore_timeout": 30,
                }
            )  # fmt: skip
            if answer.get("failed"):
                raise AssertionError(answer["msg"])

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
        (policy({}, log_group="/b"), log),
        (policy({"deploy_traffic_provider": "elbv2", "deploy_elbv2_target_groups": ["web"]}),
         traffic),
        (policy({}, instances=[instance]), described),
        (importing(), lambda: read_group("shop", "web")),
    ]  # fmt: skip
    for allowed, work in flows:
        name = [one["Sid"] for one in allowed["Statement"]]
        account.allow({"Version": "2012-10-17", "Statement": []})
        refused = ""
        try:
            work()
        except Exception as error:
            refused = str(error)
        assert "AccessDenied" in refused or "403" in refused or "not authorized" in refused, name
        account.allow(allowed)
        try:
            work()
        except Exception as error:
            raise AssertionError(f"{name}: {error}") from error


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
