"""Who is told of a deployment: in order, in CodeDeploy's shapes, and in nobody's way."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._notifications import (
    EVENTS,
    parse_channels,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._notify import (
    _delivery,
    catch_up,
    deliver,
    notification_failures,
    undelivered,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Record
from support.bundles import files
from support.receiver import Receiver, receiving
from support.records import create
from support.rollout import Controller, local_inventory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support import aws as moto


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


@pytest.fixture
def aws(moto_servers: moto.Servers, monkeypatch: pytest.MonkeyPatch) -> moto.Aws:
    running = moto_servers.fresh()
    running.use(monkeypatch)
    return running


def queue(aws: moto.Aws, name: str) -> tuple[str, str]:
    sqs = aws.client("sqs")
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
    return url, arn["QueueArn"]


def received(aws: moto.Aws, url: str) -> list[dict[str, Any]]:
    """Take everything out of a queue, oldest first."""
    found: list[dict[str, Any]] = []
    while True:
        answer = aws.client("sqs").receive_message(QueueUrl=url, MaxNumberOfMessages=10)
        if not answer.get("Messages"):
            return found
        for one in answer["Messages"]:
            found.append(json.loads(one["Body"]))
            aws.client("sqs").delete_message(QueueUrl=url, ReceiptHandle=one["ReceiptHandle"])


def wires(aws: moto.Aws) -> tuple[dict[str, str], dict[str, str], str]:
    """A topic and a bus, each with a queue behind; and the topic's ARN."""
    topic = aws.client("sns").create_topic(Name="releases")["TopicArn"]
    heard, arn = queue(aws, "heard")
    aws.client("sns").subscribe(
        TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes={"RawMessageDelivery": "true"}
    )
    seen, arn = queue(aws, "seen")
    events = aws.client("events")
    events.put_rule(Name="all", EventPattern=json.dumps({"source": ["bascule.deploy"]}))
    events.put_targets(Rule="all", Targets=[{"Id": "queue", "Arn": arn}])
    return {"url": heard}, {"url": seen}, topic


def test_a_deployment_and_its_rollback_are_told_everywhere(
    aws: moto.Aws, receiver: Receiver, tmp_path: Path
) -> None:
    # A receiver that takes what it is told and never answers.
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        tell_everywhere(aws, receiver, tmp_path, f"http://127.0.0.1:{deaf.getsockname()[1]}/x")


def tell_everywhere(aws: moto.Aws, receiver: Receiver, tmp_path: Path, hanging: str) -> None:
    heard, seen, topic = wires(aws)
    sysroots = {name: tmp_path / "hosts" / name for name in ("one", "two")}
    for sysroot in sysroots.values():
        sysroot.mkdir(parents=True)
    note = tmp_path / "note.jsonl"
    secret = "T0SECRET"  # noqa: S105 - invented, looked for in everything that was said
    everything = {"events": list(EVENTS)}
    controller = Controller(
        local_inventory(tmp_path / "hosts.yml", sysroots),
        tmp_path / "state",
        {
            "deploy_application": "shop", "deploy_targets": "web",
            "deploy_minimum_healthy_hosts": 1,
            "deploy_notifications": [
                {"type": "sns", "topic": topic, "name": "all", **everything},
                {"type": "eventbridge", **everything},
                {"type": "webhook", "url": f"{receiver.url}/services/{secret}"},
                {"type": "webhook", "name": "dead", "url": f"http://127.0.0.1:9/{secret}"},
                {
                    "type": "webhook", "name": "hanging", "url": hanging, "timeout": "1s",
                    "events": ["DeploymentSuccess"],
                },
                {"type": "command", "command": ["/bin/sh", "-c", f"cat >>{note}; echo >>{note}"]},
            ],
        },
        environment=aws.environment,
    )  # fmt: skip
    good = files(tmp_path / "v1", {"VERSION": "1\n"}, {"AfterInstall": "true"})
    bad = files(tmp_path / "v2", {"VERSION": "2\n"}, {"ValidateService": "exit 1"})
    first = controller.playbook("rolling", deploy_revision=str(good))
    assert first.status == 0, first.said
    second = controller.playbook("rolling", deploy_revision=str(bad))
    assert second.status != 0
    for run in (first, second):
        assert secret not in run.said
        assert "dead" in run.said
    rollback, failed, succeeded = controller.deployments()
    assert (rollback.rollback_of, failed.status) == (failed.id, "Failed"), second.said

    assert no_teller_lives(tmp_path / "state")
    messages = received(aws, heard["url"])
    of_deployments = [
        (one["deploymentId"], one["status"]) for one in messages if "applicationName" in one
    ]
    assert of_deployments == [
        (succeeded.id, "Created"), (succeeded.id, "Succeeded"),
        (failed.id, "Created"), (failed.id, "Failed"),
        (rollback.id, "Created"), (rollback.id, "Created"), (rollback.id, "Succeeded"),
    ]  # fmt: skip
    of_targets = [
        (one["instanceId"].rpartition("/")[2], one["instanceStatus"])
        for one in messages
        if one.get("instanceId") and one["deploymentId"] == succeeded.id
    ]
    assert sorted(of_targets) == [
        ("one", "InProgress"), ("one", "Succeeded"), ("two", "InProgress"), ("two", "Succeeded"),
    ]  # fmt: skip
    done = next(one for one in messages if one.get("instanceStatus") == "Succeeded")
    assert "AfterInstall" in [one["LifecycleEvent"] for one in done["lifecycleEvents"]]
    assert {one["accountId"] for one in messages} == {"123456789012"}

    on_bus = received(aws, seen["url"])
    # CodeDeploy's events have no state of their own for a rollback: it begins once.
    assert len(on_bus) == len(messages) - 1
    assert {one["detail-type"] for one in on_bus} == {
        "CodeDeploy Deployment State-change Notification",
        "CodeDeploy Instance State-change Notification",
    }
    states = [one["detail"]["state"] for one in on_bus if "instanceId" not in one["detail"]]
    assert states == ["START", "SUCCESS", "START", "FAILURE", "START", "SUCCESS"]

    texts = [one["text"] for one in receiver.bodies]
    assert len(texts) == 7
    assert "failed" in texts[3]
    told = [json.loads(line)["event"] for line in note.read_text().splitlines()]
    assert told == [
        "DeploymentStart", "DeploymentSuccess", "DeploymentStart", "DeploymentFailure",
        "DeploymentRollback", "DeploymentStart", "DeploymentSuccess",
    ]  # fmt: skip

    with controller.record() as record:
        for one, number in ((succeeded, 3), (failed, 6)):
            assert len(notification_failures(record, one.id)) == number
        kept = json.dumps([event.as_dict() for event in record.events(failed.id)])
        kept_of_rollback = json.dumps([one.as_dict() for one in record.events(rollback.id)])
    assert "was not told to dead" in kept
    assert "was not told to hanging: " in kept_of_rollback
    assert secret not in kept
    assert secret not in (tmp_path / "state" / "record.db").read_bytes().decode("latin-1")


def no_teller_lives(state: Path) -> bool:
    """Wait for the processes that this test's deployments have begun to end by themselves."""
    deadline = time.monotonic() + 120
    while any(is_teller(folder, state) for folder in Path("/proc").glob("[0-9]*")):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def is_teller(folder: Path, state: Path) -> bool:
    """Whether a process tells of deployments whose state is there; others' tests have theirs."""
    try:
        line = (folder / "cmdline").read_bytes()
        settings = (folder / "environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"_notify._process" in line and f"BASCULE_STATE={state}".encode() in settings


def finished(url: str) -> str:
    """Write a deployment that has ended to a record, and return its id."""
    with Record.open(url) as record:
        deployment = create(record, ["a"])
        record.admit(deployment.id, "a")
        record.settle(deployment.id, "a", "Succeeded")
        record.finish(deployment.id)
    return deployment.id


def test_what_was_told_is_not_told_again(tmp_path: Path, receiver: Receiver) -> None:
    url = f"sqlite:///{tmp_path}/record.db"
    deployment = finished(url)
    channels = parse_channels([{"type": "webhook", "url": receiver.url, "events": list(EVENTS)}])
    receiver.answers = [503, 429]
    with Record.open(url) as record:
        assert undelivered(record, deployment, channels) == 4
        for _time in range(2):
            deliver(record, deployment, channels[0], lambda: False)
        assert undelivered(record, deployment, channels) == 0
        assert notification_failures(record, deployment) == []
    texts = [one["text"].partition(": ")[2] for one in receiver.bodies]
    assert [text.split(" ", 2)[2] for text in texts] == [
        f"{deployment} began, revision 0123456789ab", f"{deployment} start on a",
        f"{deployment} success on a", f"{deployment} succeeded, revision 0123456789ab",
    ]  # fmt: skip


def test_what_a_killed_sender_has_claimed_is_told_by_the_next(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/record.db"
    deployment = finished(url)
    channels = parse_channels([{"type": "webhook", "url": receiver.url}])
    with Record.open(url) as record:
        events = record.events(deployment)
        key = (events[0].sequence, "DeploymentStart", channels[0].label)
        mine, _busy = record.claim_notifications(
            deployment, [key], claimant="killed", stale_after=1000
        )
        assert mine == [key]
        deliver(record, deployment, channels[0], lambda: False)
        assert len(receiver.bodies) == 1
        assert undelivered(record, deployment, channels) == 1
        monkeypatch.setattr(_delivery, "STALE_SECONDS", 0.0)
        deliver(record, deployment, channels[0], lambda: False)
        assert undelivered(record, deployment, channels) == 0
    assert len(receiver.bodies) == 2


def test_what_was_abandoned_is_told_by_the_next_run(tmp_path: Path, receiver: Receiver) -> None:
    with Record.open(f"sqlite:///{tmp_path}/record.db") as record:
        silent = create(record, ["a"])
        record.finish(silent.id)
        channels = parse_channels([{"type": "webhook", "url": receiver.url}])
        left = create(record, ["a"])
        catch_up(record, left.id, channels[0])
        assert receiver.bodies == [], "of the one before nobody was told anything"
        deliver(record, left.id, channels[0], lambda: False)
        record.abandon(left.id)
        following = create(record, ["a"])
        catch_up(record, following.id, channels[0])
    texts = [one["text"] for one in receiver.bodies]
    assert len(texts) == 2
    assert f"{left.id} was stopped: Abandoned" in texts[1]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"type": "command", "command": ["/bin/sh", "-c", "echo no paper; exit 3"]}, "no paper"),
        ({"type": "command", "command": ["/bin/sleep", "60"], "timeout": "1s"}, "within 1 s"),
        ({"type": "command", "command": ["/nowhere/page"]}, "No such file"),
        ({"type": "webhook", "url": "http://127.0.0.1:9/T0SECRET", "timeout": 1}, "no answer"),
    ],
)
def test_why_it_was_not_told_is_in_the_record(
    tmp_path: Path, entry: dict[str, Any], said: str
) -> None:
    url = f"sqlite:///{tmp_path}/record.db"
    deployment = finished(url)
    [channel] = parse_channels([{**entry, "events": ["DeploymentSuccess"]}])
    with Record.open(url) as record:
        deliver(record, deployment, channel, lambda: False)
        [failure] = notification_failures(record, deployment)
    assert failure.startswith(f"DeploymentSuccess was not told to {channel.label}: ")
    assert said in failure
    assert "T0SECRET" not in failure
