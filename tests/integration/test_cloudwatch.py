"""Events in CloudWatch: complete, in order, and never in the way of a deployment."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bascule.deploy.plugins.plugin_utils._cloudwatch import Courier
from support import aws as moto
from support.bundles import files
from support.rollout import local_inventory

from bascule._environment import environment

PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
SETTINGS = {
    "group": "bascule", "stream": "d-1", "namespace": "Bascule", "create": True, "patience": 30,
}  # fmt: skip


@pytest.fixture
def aws(moto_servers: moto.Servers, monkeypatch: pytest.MonkeyPatch) -> moto.Aws:
    running = moto_servers.fresh()
    running.use(monkeypatch)
    return running


def messages(aws: moto.Aws, stream: str) -> list[str]:
    """Return what a stream holds, oldest first."""
    found: list[str] = []
    given: dict[str, Any] = {"logGroupName": "bascule", "logStreamName": stream}
    token = None
    while True:
        more = {"nextToken": token} if token else {}
        answer = aws.client("logs").get_log_events(**given, **more, startFromHead=True)
        found += [one["message"] for one in answer["events"]]
        if not answer["events"] or answer["nextForwardToken"] == token:
            return found
        token = answer["nextForwardToken"]


def test_ten_thousand_events_arrive_complete_and_in_order(aws: moto.Aws) -> None:
    courier = Courier({**SETTINGS, "patience": 300})
    now = round(time.time() * 1000)
    told = [f"event {number} " + "x" * (number % 300) for number in range(10_000)]
    for number, message in enumerate(told):
        courier.line(now + number // 100, message)
    assert courier.end() == (10_000, 0, "")
    assert messages(aws, "d-1") == told


def test_a_dead_endpoint_is_waited_for_by_nobody(aws: moto.Aws) -> None:
    aws.kill()
    courier = Courier({**SETTINGS, "patience": 1})
    begun = time.monotonic()
    for number in range(50_000):
        courier.line(number, "x" * 1000)
    # Fifty megabytes were handed over as fast as memory. A hundredth of a second of waiting for
    # each, on however busy a machine, would be more than this.
    assert time.monotonic() - begun < 400
    sent, lost, why = courier.end()
    assert (sent, lost) == (0, 50_000)
    assert why


def test_an_endpoint_that_never_answers_is_waited_for_by_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        given = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{deaf.getsockname()[1]}",
            "AWS_REGION": moto.REGION, "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
        }  # fmt: skip
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        courier = Courier({**SETTINGS, "patience": 3})
        for number in range(1000):
            courier.line(number, "x")
        sent, lost, why = courier.end()
    assert (sent, lost) == (0, 1000)
    # CloudWatch did not, or on a very busy machine the sender did not even get so far.
    assert why.endswith("did not answer in time")


class Fleet:
    """Two local targets, and ansible-playbook with the callback."""

    def __init__(self, folder: Path, aws: moto.Aws, patience: int = 60) -> None:
        self.folder = folder
        sysroots = {name: folder / "hosts" / name for name in ("one", "two")}
        for sysroot in sysroots.values():
            sysroot.mkdir(parents=True)
        self.inventory = local_inventory(folder / "hosts.yml", sysroots)
        self.record = f"sqlite:///{folder / 'record.db'}"
        self.environment = {
            **os.environ,
            **environment(folder=folder, given={}, record=self.record),
            **aws.environment,
            "ANSIBLE_CALLBACKS_ENABLED": "bascule.deploy.cloudwatch",
            "BASCULE_CLOUDWATCH_PATIENCE": str(patience),
            "BASCULE_STATE": str(folder / "state"),
        }

    def start(self, hook: str) -> subprocess.Popen[str]:
        revision = files(self.folder / "v1", {"VERSION": "1\n"}, {"AfterInstall": hook})
        variables = {
            "deploy_application": "shop", "deploy_targets": "web", "deploy_record": self.record,
            "deploy_revision": str(revision),
        }  # fmt: skip
        return subprocess.Popen(
            [
                str(PLAYBOOK), "-i", str(self.inventory), "bascule.deploy.in_place",
                "-e", json.dumps(variables),
            ],
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip


def stream_of(aws: moto.Aws) -> str:
    [stream] = aws.client("logs").describe_log_streams(logGroupName="bascule")["logStreams"]
    return str(stream["logStreamName"])


def test_a_deployment_is_in_the_log_and_in_the_metrics(aws: moto.Aws, tmp_path: Path) -> None:
    run = Fleet(tmp_path, aws).start("echo password=hunter22; echo it is done")
    said, _none = run.communicate(timeout=300)
    assert run.returncode == 0, said
    assert "CloudWatch" not in said, said
    stream = stream_of(aws)
    assert stream.startswith("d-")
    lines = [json.loads(one) for one in messages(aws, stream)]
    assert (lines[0]["kind"], lines[0]["targets"]) == ("opened", 2)
    assert (lines[-1]["kind"], lines[-1]["status"]) == ("closed", "Succeeded")
    hooks = [one for one in lines if one["kind"] == "lifecycle" and one["name"] == "AfterInstall"]
    assert sorted(one["target"] for one in hooks) == ["one", "two"]
    assert all("it is done" in one["log"] for one in hooks)
    assert "hunter22" not in json.dumps(lines)
    metrics = aws.client("cloudwatch").list_metrics(Namespace="Bascule")["Metrics"]
    assert {one["MetricName"] for one in metrics} == {
        "DeploymentDuration", "DeploymentsSucceeded", "TargetsSucceeded",
    }  # fmt: skip


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_an_endpoint_that_dies_midway_costs_the_log_and_nothing_else(
    aws: moto.Aws, tmp_path: Path, end: signal.Signals
) -> None:
    """One that is stopped takes every connection, and answers none."""
    marker = tmp_path / "running"
    go = tmp_path / "go"
    fleet = Fleet(tmp_path, aws, patience=5)
    run = fleet.start(f"touch {marker}; until test -e {go}; do sleep 0.1; done")
    wait_for(marker)
    aws.process.send_signal(end)
    go.touch()
    try:
        said, _none = run.communicate(timeout=300)
    finally:
        aws.process.send_signal(signal.SIGCONT)
    assert run.returncode == 0, said
    assert "events and metrics were not sent" in said


def test_an_interrupted_play_sends_what_it_has_seen(aws: moto.Aws, tmp_path: Path) -> None:
    marker = tmp_path / "running"
    run = Fleet(tmp_path, aws).start(f"touch {marker}; sleep 50")
    wait_for(marker)
    os.killpg(run.pid, signal.SIGINT)
    run.communicate(timeout=300)
    lines = [json.loads(one) for one in messages(aws, stream_of(aws))]
    assert lines[0]["kind"] == "opened"
    assert "staged" in {one["kind"] for one in lines}


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.05)
