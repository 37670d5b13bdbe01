"""Rolling deployments that gates and alarms let go on, pause, or bring back; by real commands."""

from __future__ import annotations

import http.server
import json
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from support.aws import running
from support.bundles import files
from support.rollout import Controller, local_inventory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.aws import Aws

HOSTS = ("one", "two", "three")


class Fleet:
    """Local targets with the first revision, and a page that tells of them.

    ``sees`` makes the page's status out of the versions that the targets have.
    """

    def __init__(self, folder: Path) -> None:
        self.sysroots = {name: folder / "hosts" / name for name in HOSTS}
        for sysroot in self.sysroots.values():
            sysroot.mkdir(parents=True)
        inventory = local_inventory(folder / "hosts.yml", self.sysroots)
        given = {"deploy_application": "shop", "deploy_group": "web", "deploy_targets": "web"}
        self.controller = Controller(inventory, folder / "state", given)
        self.old = files(folder / "1.0", {"VERSION": "1.0\n"})
        self.new = files(folder / "2.0", {"VERSION": "2.0\n"})
        self.sees: Callable[[list[str]], int] = lambda _versions: 200
        self.asked = 0
        fleet = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                fleet.asked += 1
                self.send_response(fleet.sees(fleet.versions()))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                """Say nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def versions(self) -> list[str]:
        return [version(root / "opt/files/VERSION") for root in self.sysroots.values()]

    def deploy(self, revision: Path, *options: str, **more: Any) -> Any:
        return self.controller.deploy("rolling", *options, deploy_revision=str(revision), **more)

    def newest(self) -> Any:
        return self.controller.deployments()[0]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def version(path: Path) -> str:
    """Return what is installed; nothing while it is being replaced."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path)
    assert made.deploy(made.old).status == 0
    yield made
    made.close()


STAGES = {"deploy_stages": [1, "100%"], "deploy_minimum_healthy_hosts": 0}


def test_gates_between_stages_bring_a_bad_revision_back(fleet: Fleet) -> None:
    gate = {"type": "http", "name": "page", "url": fleet.url, "interval": "200ms"}
    given = {**STAGES, "deploy_gates": [gate], "deploy_bake_time": "2s"}
    fleet.sees = lambda versions: 500 if "2.0" in versions else 200
    judge = {
        "metrics": [{"name": "errors", "kind": "rate", "source": "command", "command": "counts"}],
        "share": 10,
        "evidence": {"effect": 0.02, "rate": 0.01, "traffic": 200},
    }  # fmt: skip
    shown = fleet.deploy(fleet.new, "--check", **given, deploy_judge=judge)
    assert fleet.asked == 0
    assert "Gates after each stage:" in shown.said
    assert "page (http) http://127.0.0.1:" in shown.said
    assert "to tell errors 2 points above 1 % from none, at 200 requests/s" in shown.said
    assert "a step at 10 % has to bake" in shown.said
    run = fleet.deploy(fleet.new, **given)
    assert run.status == 1, run.said
    rollback, failed = fleet.controller.deployments()[:2]
    assert (failed.status, failed.error_code) == ("Failed", "GATE_FAILED")
    assert "page (http)" in failed.error_message
    assert "HTTP 500, wanted 200 to 399" in failed.error_message
    assert failed.overview == {"Succeeded": 1, "Skipped": 2}
    assert (rollback.status, rollback.rollback_of) == ("Succeeded", failed.id)
    assert fleet.versions() == ["1.0"] * 3

    fleet.sees = lambda _versions: 200
    run = fleet.deploy(fleet.new, **given)
    assert run.status == 0, run.said
    good = fleet.newest()
    assert fleet.versions() == ["2.0"] * 3
    with fleet.controller.record() as record:
        runs = record.gate_runs(good.id)
        assert [(one.step, one.verdict) for one in runs] == [
            ("stage 1", "Pass"), ("stage 2", "Pass"),
        ]  # fmt: skip
        asked = record.gate_decisions(good.id, "stage 1")
        assert {one.verdict for one in asked} == {"Successful", "Pass"}
        # One of the two targets that waited has asked, and no second was asked twice.
        moments = [one.at for one in asked if one.gate == "page"]
        assert len(moments) == len(set(moments)) >= 2
        events = [event.event for event in record.events(good.id)]
        assert events.count("GatesAsked") == events.count("GatesDecided") == 2


def test_what_is_not_known_pauses_and_is_asked_again_when_resumed(
    fleet: Fleet, tmp_path: Path
) -> None:
    number = tmp_path / "number"
    number.write_text("")
    gate = {
        "type": "command", "name": "errors", "command": f"cat {number}", "success": "< 0.01",
        "interval": "200ms",
    }  # fmt: skip
    given = {"deploy_gates": [gate], "deploy_bake_time": "500ms"}
    run = fleet.deploy(fleet.new, **given)
    assert run.status == 4, run.said
    paused = fleet.newest()
    assert (paused.status, paused.paused_step) == ("InProgress", "stage 1")
    assert "not enough evidence (errors: no value yet)" in str(paused.pause_reason)
    number.write_text("0.001\n")
    options = [part for name, value in {**fleet.controller.variables, **given}.items()
               for part in ("-e", json.dumps({name: value}))]  # fmt: skip
    inventory = str(fleet.controller.inventory)
    run = fleet.controller.command("resume", paused.id, "-i", inventory, *options)
    assert run.status == 0, run.said
    assert fleet.newest().status == "Succeeded"
    with fleet.controller.record() as record:
        runs = record.gate_runs(paused.id)
        assert [(one.step, one.verdict, one.round) for one in runs] == [("stage 1", "Pass", 2)]
    shown = fleet.controller.command("status", paused.id)
    assert "stage 1: Pass" in shown.said


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[Aws]:
    with running(tmp_path) as server:
        yield server


def test_an_alarm_refuses_stops_and_brings_back(fleet: Fleet, aws: Aws) -> None:
    fleet.controller.environment = aws.environment
    cloudwatch = aws.client("cloudwatch")
    names = ["High5xx", "HighLatency"]
    for name in names:
        cloudwatch.put_metric_alarm(
            AlarmName=name, Namespace="shop", MetricName=name, Statistic="Sum", Period=60,
            EvaluationPeriods=1, Threshold=1.0, ComparisonOperator="GreaterThanThreshold",
        )  # fmt: skip

    def be(state: str) -> None:
        cloudwatch.set_alarm_state(AlarmName="High5xx", StateValue=state, StateReason="a test")

    given = {
        **STAGES, "deploy_alarms": names, "deploy_alarms_interval": "1s",
        "deploy_bake_time": "1h",
        "deploy_rollback_on": ["DEPLOYMENT_FAILURE", "DEPLOYMENT_STOP_ON_ALARM"],
    }  # fmt: skip
    before = len(fleet.controller.deployments())
    be("ALARM")
    run = fleet.deploy(fleet.new, **given)
    assert run.status == 2, run.said
    assert "ALARM_ACTIVE: the alarm High5xx is active" in run.said
    assert "Nothing was changed" in run.said
    run = fleet.deploy(fleet.new, **{**given, "deploy_alarms": ["Nothing"]})
    assert run.status == 2, run.said
    assert "CloudWatch has no alarm Nothing" in run.said
    run = fleet.deploy(fleet.new, **{**given, "deploy_alarms": [f"a{n}" for n in range(11)]})
    assert "there may be 10" in run.said
    assert len(fleet.controller.deployments()) == before

    be("OK")
    found: list[Any] = []
    deploying = threading.Thread(target=lambda: found.append(fleet.deploy(fleet.new, **given)))
    deploying.start()
    wait_for(lambda: "2.0" in fleet.versions())
    with fleet.controller.record() as record:
        name = record.deployments()[0].id
        wait_for(lambda: bool((seen := record.alarms(name)) and seen.states))
        assert record.alarms(name).states["High5xx"] == "OK"  # type: ignore[union-attr]
        be("ALARM")
        deploying.join(timeout=300)
        assert not deploying.is_alive()
        stopped = record.deployment(name)
        assert (stopped.status, stopped.error_code) == ("Stopped", "ALARM_ACTIVE")
        assert stopped.overview == {"Succeeded": 1, "Skipped": 2}
        back = record.deployment(str(stopped.rolled_back_by))
        assert back.status == "Succeeded"
    assert fleet.versions() == ["1.0"] * 3
    assert found[0].status == 1, found[0].said


def wait_for(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)
