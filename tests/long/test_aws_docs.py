"""The examples of the pages on AWS, taken out of them and pasted: into a shell, into variables."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import yaml
from support import aws as moto
from support import codecommit, github
from support.bundles import files
from support.copied_group import SIZE, shopping
from support.ec2 import launch, members, scaling_group
from support.receiver import receiving
from support.rollout import BIN, ROOT

from bascule import schemas

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGES = ("aws", "notifications", "inventories")
INDENTED = re.compile(r"(?:^(?: {4}.*|\s*)$\n?)+", re.M)


def text(page: str) -> str:
    return (ROOT / "docs" / f"{page}.md").read_text()


def blocks(*pages: str) -> list[str]:
    """Return what is set apart in these pages, without its indent."""
    found = []
    for page in pages or PAGES:
        found += [textwrap.dedent(one).strip("\n") for one in INDENTED.findall(text(page))]
    return [one for one in found if one.strip()]


def block(begins: str, page: str = "aws") -> str:
    """Return the one block that is or begins so."""
    seen = blocks(page)
    [found] = [one for one in seen if one == begins] or [
        one for one in seen if one.startswith(begins)
    ]
    return found


def settings(begins: str, page: str = "aws") -> dict[str, Any]:
    """Return the variables of the one block that begins so."""
    found: dict[str, Any] = yaml.safe_load(block(begins, page))
    return found


def commands(text: str) -> list[str]:
    """Return the commands of a block, without what they say."""
    return [line.partition("  #")[0].strip() for line in text.replace("$ ", "").splitlines()
            if line.replace("$ ", "").startswith("bascule ")]  # fmt: skip


class Desk:
    """A folder in which somebody works, with the inventories of the checkout."""

    def __init__(self, folder: Path, aws: moto.Aws) -> None:
        self.folder, self.aws = folder, aws
        shutil.copytree(ROOT / "inventories", folder / "inventories")
        # The hosts are on this machine, there are few, and nobody has five minutes.
        self.local = {
            "ansible_connection": "local", "ansible_become": False,
            "ansible_python_interpreter": sys.executable, "deploy_bake_time": "0s",
            "deploy_minimum_healthy_hosts": 0,
            "deploy_sysroot": f"{folder}/hosts/{{{{ inventory_hostname }}}}",
        }  # fmt: skip

    def type(self, line: str, *more: str) -> str:
        """Type a command and return what it says."""
        words = [str(BIN / "bascule"), *shlex.split(line)[1:], *more]
        if words[1] == "deploy":
            words += ["-e", json.dumps(self.local)]
        done = subprocess.run(  # noqa: S603 - the words of our own pages
            words, cwd=self.folder, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=300, check=False,
            env={
                **os.environ, **self.aws.environment, "BASCULE_STATE": str(self.folder / "state"),
                "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"), "ANSIBLE_NOCOLOR": "1",
            },
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}"
        return done.stdout

    def installed(self, target: str, text: str) -> bool:
        return (self.folder / "hosts" / target / "opt/files/VERSION").read_text() == text


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    folder = tmp_path / "desk"
    folder.mkdir()
    with moto.running(tmp_path, "support.iam_server") as running:
        yield Desk(folder, running)


def test_every_block_of_variables_is_valid() -> None:
    seen = [one for one in blocks() if one.startswith("deploy_")]
    assert len(seen) >= 7
    schema = jsonschema.Draft7Validator(json.loads(schemas.text("group-variables")))
    for text in seen:
        # A block may show two ways to say the same.
        for line in [text] if text.count("deploy_revision:") < 2 else text.splitlines():
            assert [one.message for one in schema.iter_errors(yaml.safe_load(line))] == [], line


def test_from_a_folder_to_s3_to_the_instances(desk: Desk) -> None:
    aws, s3 = desk.aws, desk.aws.client("s3")
    s3.create_bucket(
        Bucket="my-releases", CreateBucketConfiguration={"LocationConstraint": moto.REGION}
    )
    s3.put_bucket_versioning(
        Bucket="my-releases", VersioningConfiguration={"Status": "Enabled"}
    )  # fmt: skip
    [instance] = launch(aws, 1, Environment="prod", Application="shop", Role="web")
    files(desk.folder / "dist", {"VERSION": "1\n"})
    push, deploy = commands(block("$ bascule push"))
    address = re.findall(r"s3://my-releases/shop/\S+versionId=[\w.-]+", desk.type(push))[0]
    [sample] = re.findall(r"'(s3://[^']+)'", deploy)
    deploy = deploy.replace(sample, address)
    look = next(one for one in commands(block("pip install", "inventories")))
    assert instance in desk.type(look)
    desk.type(deploy)
    assert desk.installed(instance, "1\n")

    # The log of everything, and what it takes to write it.
    (desk.folder / "ansible.cfg").write_text(block("# ansible.cfg"))
    desk.type(deploy, "-e", "deploy_redeploy=true")
    [stream] = aws.client("logs").describe_log_streams(logGroupName="/bascule/prod")["logStreams"]
    assert stream["logStreamName"].startswith("d-")
    [permissions] = commands(block("$ bascule iam-policy"))
    made = json.loads(desk.type(permissions))
    resources = {one["Sid"]: one["Resource"] for one in made["Statement"]}
    assert resources["S3"] == ["arn:aws:s3:::my-releases/shop/*"]
    assert any("/bascule/prod" in one for one in resources["Logs"])
    assert resources["Inventory"] == "*"

    # What CodeDeploy has of it becomes an inventory of its own.
    code = aws.client("codedeploy")
    code.create_application(applicationName="shop", computePlatform="Server")
    role = {"Key": "Role", "Value": "web", "Type": "KEY_AND_VALUE"}
    code.create_deployment_group(
        applicationName="shop", deploymentGroupName="prod-web",
        serviceRoleArn="arn:aws:iam::123456789012:role/deploy", ec2TagFilters=[role],
    )  # fmt: skip
    bring, show, go = commands(block("$ bascule import"))
    assert "aws_ec2.yml, group_vars/aws_ec2.yml, group_vars/prod_web.yml, hosts.yml" in (
        desk.type(bring)
    )
    assert instance in desk.type(show)
    # The files of the deployment before are foreign to this group.
    desk.type(go.replace(sample, address), "-e", "deploy_file_exists_behavior=OVERWRITE")


def test_who_is_told(desk: Desk) -> None:
    aws = desk.aws
    [instance] = launch(aws, 1, Environment="prod", Application="shop", Role="web")
    channels = settings("deploy_notifications:", "notifications")
    topic = aws.client("sns").create_topic(Name="releases")["TopicArn"]
    assert channels["deploy_notifications"][0]["topic"] == topic
    sqs = aws.client("sqs")

    def queue(name: str) -> tuple[str, str]:
        url = sqs.create_queue(QueueName=name)["QueueUrl"]
        told = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        return url, told["Attributes"]["QueueArn"]

    def received(url: str) -> list[dict[str, Any]]:
        told = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
        return [json.loads(one["Body"]) for one in told]

    heard, arn = queue("heard")
    aws.client("sns").subscribe(
        TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes={"RawMessageDelivery": "true"}
    )
    seen, arn = queue("seen")
    pattern = json.dumps({"source": ["bascule.deploy"]})
    aws.client("events").put_rule(Name="all", EventPattern=pattern)
    aws.client("events").put_targets(Rule="all", Targets=[{"Id": "queue", "Arn": arn}])
    page = desk.folder / "page"
    page.write_text(f'#!/bin/sh\necho "$BASCULE_EVENT $@" >>{desk.folder}/paged\n')
    page.chmod(0o755)
    [command] = [one for one in channels["deploy_notifications"] if one["type"] == "command"]
    # The only word that is not pasted: nobody has this program.
    assert command["command"][0] == "/usr/local/bin/page"
    command["command"][0] = str(page)
    good = files(desk.folder / "v1", {"VERSION": "1\n"})
    bad = files(desk.folder / "v2", {"VERSION": "2\n"}, {"ValidateService": "exit 1"})
    with receiving() as receiver:
        given = {**channels, "vault_slack_webhook": f"{receiver.url}/services/T0/B0"}
        (desk.folder / "told.yml").write_text(json.dumps(given))
        line = "bascule deploy rolling -i inventories/prod --targets web -e @told.yml --revision "
        desk.type(line + str(good))
        with pytest.raises(AssertionError):
            desk.type(line + str(bad))
    assert [one["status"] for one in received(heard) if "status" in one][:2] == [
        "Created", "Succeeded",
    ]  # fmt: skip
    kinds = {(one["detail-type"], one["detail"]["state"]) for one in received(seen)}
    deployment = "CodeDeploy Deployment State-change Notification"
    assert {(deployment, "START"), (deployment, "SUCCESS"), (deployment, "FAILURE")} <= kinds
    assert any("succeeded" in one["text"] for one in receiver.bodies)
    assert "DeploymentFailure --team shop\n" in (desk.folder / "paged").read_text()
    assert instance


def states(aws: moto.Aws) -> dict[str, str]:
    described = aws.client("autoscaling").describe_auto_scaling_instances()
    return {one["InstanceId"]: one["LifecycleState"] for one in described["AutoScalingInstances"]}


def test_auto_scaling(desk: Desk) -> None:
    aws = desk.aws
    still, hooked, leaving = (
        settings(begins)
        for begins in (
            "deploy_auto_scaling_groups: [shop-workers-prod]",
            "deploy_auto_scaling_groups: [shop-workers-prod]\ndeploy_auto_scaling_suspend",
            "deploy_auto_scaling_termination_hook",
        )
    )
    [name] = still["deploy_auto_scaling_groups"]
    scaling = aws.client("autoscaling")
    scaling_group(aws, name, 1, Environment="prod", Application="shop")
    for hook, transition in (
        (hooked["deploy_auto_scaling_hook"], "LAUNCHING"),
        (leaving["deploy_auto_scaling_termination_hook"], "TERMINATING"),
    ):
        scaling.put_lifecycle_hook(
            AutoScalingGroupName=name, LifecycleHookName=hook,
            LifecycleTransition=f"autoscaling:EC2_INSTANCE_{transition}",
        )  # fmt: skip
    line = "bascule deploy rolling -i inventories/prod --targets workers --revision "
    revision = files(desk.folder / "v1", {"VERSION": "1\n"})
    desk.type(line + str(revision), "-e", json.dumps(still))
    [first] = members(aws, name)
    scaling.set_desired_capacity(AutoScalingGroupName=name, DesiredCapacity=2)
    [second] = set(members(aws, name)) - {first}
    scaling.terminate_instance_in_auto_scaling_group(
        InstanceId=first, ShouldDecrementDesiredCapacity=True
    )
    revision = files(desk.folder / "v2", {"VERSION": "2\n"})
    desk.type(line + str(revision), "-e", json.dumps({**hooked, **leaving}))
    assert desk.installed(second, "2\n")
    assert states(aws) == {second: "InService"}

    # One that leaves between deployments is let go by the scheduled run, which has no target left.
    scaling.set_desired_capacity(AutoScalingGroupName=name, DesiredCapacity=2)
    [third] = set(members(aws, name)) - {second}
    scaling.terminate_instance_in_auto_scaling_group(
        InstanceId=second, ShouldDecrementDesiredCapacity=True
    )
    assert states(aws) == {second: "Terminating:Wait", third: "Pending:Wait"}
    [scheduled] = re.findall(r"`(bascule deploy rolling [^`]*--only-outdated)`", text("aws"))
    scheduled += " -i inventories/prod --targets workers"
    both = json.dumps({**hooked, **leaving})
    desk.type(scheduled, "-e", both)
    assert desk.installed(third, "2\n")
    assert states(aws) == {third: "InService"}
    scaling.terminate_instance_in_auto_scaling_group(
        InstanceId=third, ShouldDecrementDesiredCapacity=True
    )
    assert states(aws) == {third: "Terminating:Wait"}
    said = desk.type(scheduled, "-e", both)
    assert states(aws) == {}, said
    [group] = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])[
        "AutoScalingGroups"
    ]
    assert group["SuspendedProcesses"] == []


def test_a_copied_group(tmp_path: Path) -> None:
    given = settings("deploy_traffic_provider: elbv2\ndeploy_elbv2_listener")
    pools = {pool: one["target_group"] for pool, one in given["deploy_traffic_pools"].items()}
    assert pools == {"blue": "shop-blue", "green": "shop-green"}
    with shopping(tmp_path, given["deploy_green_fleet_group"], "shop-") as shop:
        # What nobody can know before is the id of a listener, and nobody has an hour.
        given |= {"deploy_elbv2_listener": shop.site.listener, "deploy_retire_after": "0s"}
        run = shop.controller.deploy(
            "blue_green", deploy_revision=str(files(tmp_path / "v1", {"text": "1\n"})), **given
        )
        assert run.status == 0, run.said
        after = shop.instances()
        assert {pool: len(ids) for pool, ids in after.items()} == {"green": SIZE}
        assert [shop.text(one) for one in after["green"]] == ["1\n"] * SIZE
        assert shop.answering() == {"green"}
        assert shop.suspended() == []


def test_an_imported_pair_of_target_groups(tmp_path: Path) -> None:
    """A blue/green group of CodeDeploy deploys as it is imported: with its pair and its copies."""
    with shopping(tmp_path, hooks=["support.codedeploy_server:patch"]) as shop:
        code = shop.service.client("codedeploy")
        code.create_application(applicationName="shop", computePlatform="Server")
        route = {"listenerArns": [shop.site.listener]}
        names = [{"name": "blue"}, {"name": "green"}]
        code.create_deployment_group(
            applicationName="shop", deploymentGroupName="prod",
            serviceRoleArn="arn:aws:iam::123456789012:role/deploy", autoScalingGroups=["shop"],
            deploymentStyle={
                "deploymentType": "BLUE_GREEN", "deploymentOption": "WITH_TRAFFIC_CONTROL"
            },
            loadBalancerInfo={
                "targetGroupPairInfoList": [{"targetGroups": names, "prodTrafficRoute": route}]
            },
            blueGreenDeploymentConfiguration={
                "terminateBlueInstancesOnDeploymentSuccess": {
                    "action": "TERMINATE", "terminationWaitTimeInMinutes": 0
                },
                "deploymentReadyOption": {"actionOnTimeout": "CONTINUE_DEPLOYMENT"},
                "greenFleetProvisioningOption": {"action": "COPY_AUTO_SCALING_GROUP"},
            },
        )  # fmt: skip
        place = tmp_path / "imported"
        run = shop.controller.command("import", "codedeploy", "shop", "prod", "-o", str(place))
        assert run.status == 0, run.said
        assert f"bascule deploy blue_green -i {place}" in run.said
        # Where the hosts really are, and that nobody has minutes.
        shop.controller.inventory, shop.controller.variables = place, {
            "ansible_connection": "local", "ansible_become": False,
            "ansible_python_interpreter": sys.executable,
            "deploy_sysroot": f"{tmp_path}/targets/{{{{ inventory_hostname }}}}",
            "deploy_elbv2_propagation": "1s", "deploy_share_timeout": "0s", "deploy_bake_time": 0,
        }  # fmt: skip
        revision = files(tmp_path / "v1", {"text": "1\n"})
        run = shop.controller.deploy("blue_green", deploy_revision=str(revision))
        assert run.status == 0, run.said
        after = shop.instances()
        assert {pool: len(ids) for pool, ids in after.items()} == {"green": SIZE}
        assert [shop.text(one) for one in after["green"]] == ["1\n"] * SIZE
        assert shop.answering() == {"green"}


def repository(folder: Path, root: Path) -> None:
    """Make a bare repository ``shop`` under a root, of a bundle with a tag."""
    work = files(folder / "work", {"VERSION": "git\n"})
    person = ["-c", "user.name=T", "-c", "user.email=t@example.com"]
    root.mkdir()
    for words in (
        ["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "First"],
        ["tag", "v2.0"], ["clone", "-q", "--bare", ".", str(root / "shop")],
    ):  # fmt: skip
        subprocess.run(["git", *person, *words], cwd=work, check=True)  # noqa: S603, S607


def test_revisions_on_github_and_in_codecommit(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    [instance] = launch(desk.aws, 1, Environment="prod", Application="shop", Role="web")
    line = "bascule deploy rolling -i inventories/prod --targets web"

    def deployed(given: dict[str, Any], version: str) -> None:
        desk.type(line, "-e", json.dumps({**given, "deploy_redeploy": True}))
        assert desk.installed(instance, version)

    on_github = settings("deploy_revision: github://")
    commit = on_github["deploy_revision"].partition("@")[2]
    bundle = files(desk.folder / "hub", {"VERSION": "hub\n"})
    packed = {
        str(one.relative_to(bundle)): one.read_text() for one in bundle.rglob("*") if one.is_file()
    }
    with github.serving(commit, packed) as server:
        vault = {"vault_github_token": github.TOKEN, "deploy_github_url": server.url}
        deployed({**on_github, **vault}, "hub\n")
        assert (f"/repos/shop/web/tarball/{commit}", f"Bearer {github.TOKEN}") in server.asked

    root = desk.folder / "codecommit"
    repository(desk.folder, root)
    here, there = block("deploy_revision: codecommit://").splitlines()
    [plain] = re.findall(r"`(git\+https://git-codecommit[^`]*)`", text("aws"))
    for revision, region in (
        (yaml.safe_load(here)["deploy_revision"], moto.REGION),
        (yaml.safe_load(there)["deploy_revision"], "us-east-1"),
        (plain, "us-east-1"),
    ):
        with codecommit.serving(root, {"testing": "testing"}, region) as server, \
             monkeypatch.context() as patched:  # fmt: skip
            for name, value in server.environment.items():
                patched.setenv(name, value)
            deployed({"deploy_revision": revision}, "git\n")
            assert server.served
        shutil.rmtree(desk.folder / "hosts")
        shutil.rmtree(desk.folder / "state/cache")
