"""Gates that are really asked, by HTTP, TCP and commands, and what the record has of it."""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._gate_spec import parse_gates
from ansible_collections.bascule.deploy.plugins.plugin_utils._gates import (
    Rules,
    StepOutcome,
    run_step,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Record
from support.ports import free_port
from support.records import create

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

STEP = "stage 1"


class Site:
    """An HTTP server whose answers a test decides; ``asked`` are the requests it got."""

    def __init__(self) -> None:
        self.status = 200
        self.body: Any = {}
        self.asked: list[dict[str, Any]] = []
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                text = self.rfile.read(length).decode()
                site.asked.append(
                    {"method": self.command, "path": self.path, "headers": dict(self.headers),
                     "body": json.loads(text) if text else None}
                )  # fmt: skip
                body = site.body(len(site.asked)) if callable(site.body) else site.body
                data = json.dumps(body).encode()
                self.send_response(site.status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_GET

            def log_message(self, *_arguments: object) -> None:
                """Say nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def site() -> Iterator[Site]:
    running = Site()
    thread = threading.Thread(target=running.server.serve_forever, daemon=True)
    thread.start()
    yield running
    running.server.shutdown()
    running.server.server_close()
    thread.join()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'record.db'}"


@contextmanager
def opened(url: str) -> Iterator[tuple[Record, dict[str, Any]]]:
    with Record.open(url) as record:
        made = create(record, ["a", "b"])
        yield record, {"id": made.id, "application": "shop", "group": "web", "digest": "d" * 64}


def ask(record: Record, about: dict[str, Any], *gates: dict[str, Any], **more: Any) -> StepOutcome:
    quick = [{"interval": "100ms", "error_retry": "100ms", **gate} for gate in gates]
    return run_step(record, about, STEP, parse_gates(quick), **more)


def test_all_gates_are_asked_while_a_step_bakes(url: str, site: Site, tmp_path: Path) -> None:
    site.body = {"data": {"rate": 0.002}}
    counter = tmp_path / "runs"
    with opened(url) as (record, about), socket.create_server(("127.0.0.1", 0)) as listener:
        outcome = ask(
            record, about,
            {"type": "http", "url": f"{site.url}/health?token=hidden",
             "headers": {"Authorization": "Bearer hidden"}},
            {"type": "http", "name": "rate", "url": site.url, "json_path": "data.rate",
             "success": "< 1%"},
            {"type": "tcp", "port": listener.getsockname()[1]},
            {"type": "command", "command": f"echo $BASCULE_STEP >> {counter}"},
            {"type": "command", "name": "number", "command": ["echo", "7"], "success": "5..9",
             "count": 2},
            seconds=3.0,
        )  # fmt: skip
        assert outcome.verdict == "Pass", outcome
        assert {one["phase"] for one in outcome.gates} == {"Successful"}
        assert counter.read_text().splitlines()[0] == STEP
        run = record.gate_runs(about["id"])[0]
        assert (run.verdict, run.round, run.until - run.started_at) == ("Pass", 1, 3.0)
        decisions = record.gate_decisions(about["id"], STEP)
        assert {one.gate for one in decisions} == {
            "http", "rate", "tcp", "command", "number", "",
        }  # fmt: skip
        health = next(one for one in site.asked if one["path"].startswith("/health"))
        assert health["headers"]["Authorization"] == "Bearer hidden"
        rate = [one for one in decisions if one.gate == "rate"]
        assert rate[0].data["values"] == [0.002]
        assert len(rate) >= 2
        assert len([one for one in decisions if one.gate == "number"]) == 2
        assert decisions[-1].verdict == "Pass"
        events = [event.event for event in record.events(about["id"])]
        assert events.count("GateDecided") == 5
        assert events[-1] == "GatesDecided"
    assert "hidden" not in (tmp_path / "record.db").read_bytes().decode("latin-1")


def test_a_gate_that_fails_halts_the_deployment_at_once(url: str, site: Site) -> None:
    site.body = lambda number: {"rate": 0.5 if number > 2 else 0.0}
    with opened(url) as (record, about):
        outcome = ask(
            record, about,
            {"type": "http", "url": site.url, "json_path": "rate", "success": "< 1%"},
            seconds=600,
        )  # fmt: skip
        assert (outcome.verdict, outcome.halted) == ("Fail", True)
        assert "0.5, wanted < 1%" in outcome.message
        assert record.admit(about["id"], "a").verdict == "refused"
        ended = record.finish(about["id"])
        assert (ended.status, ended.error_code) == ("Failed", "GATE_FAILED")


def test_a_dry_run_is_written_down_and_decides_nothing(url: str, site: Site) -> None:
    site.status = 500
    with opened(url) as (record, about):
        dry = {"type": "http", "url": site.url, "dry_run": True}
        outcome = ask(record, about, dry, {"type": "command", "command": "true"}, seconds=0.3)
        assert outcome.verdict == "Pass"
        assert {one["name"]: one["phase"] for one in outcome.gates} == {
            "http": "Failed", "command": "Successful",
        }  # fmt: skip
        said = {one.gate: one.message for one in record.gate_decisions(about["id"])}
        assert said["http"] == "HTTP 500, wanted 200 to 399 (dry run)"


def test_the_first_answer_of_a_dry_run_is_waited_for(url: str, site: Site, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    with opened(url) as (record, about):
        # The other gate has decided as soon as this one is asked.
        slow = {
            "type": "command", "name": "slow", "command": f"touch {asked}; sleep 1; exit 1",
            "dry_run": True,
        }  # fmt: skip
        outcome = ask(record, about, slow, {"type": "http", "url": site.url})
        assert asked.exists()
        assert outcome.verdict == "Pass"
        assert {one["name"]: one["phase"] for one in outcome.gates} == {
            "slow": "Failed", "http": "Successful",
        }  # fmt: skip


def test_errors_are_tried_again_and_then_fail(url: str) -> None:
    gate = {
        "type": "http", "url": f"http://127.0.0.1:{free_port()}", "consecutive_error_limit": 2,
    }  # fmt: skip
    with opened(url) as (record, about):
        outcome = ask(record, about, gate)
        assert outcome.verdict == "Fail"
        assert "Connection refused" in outcome.message
        decisions = [one.verdict for one in record.gate_decisions(about["id"])]
        assert decisions == ["Error", "Error", "Error", "Fail"]


def test_a_command_that_hangs_is_ended_with_its_children(url: str, tmp_path: Path) -> None:
    mark = tmp_path / "child"
    command = f"(echo $BASHPID >/dev/null; sh -c 'echo $$ > {mark}; exec sleep 1000') & wait"
    gate = {
        "type": "command", "command": command, "timeout": "3s", "consecutive_error_limit": 0,
    }  # fmt: skip
    with opened(url) as (record, about):
        outcome = ask(record, about, gate)
    assert "did not end within 3 s" in outcome.message
    child = int(mark.read_text())
    wait_for(lambda: not os.path.exists(f"/proc/{child}"))  # noqa: PTH110 - a process


def test_a_webhook_is_asked_and_may_take_its_time(url: str, site: Site) -> None:
    answers = [{"verdict": "Continue"}, {"verdict": "Pass", "reason": "looks good"}]
    site.body = lambda number: answers[min(number, 2) - 1]
    gate = {"type": "webhook", "url": site.url, "parameters": {"team": "shop"}}
    with opened(url) as (record, about):
        outcome = ask(record, about, gate)
        assert outcome.verdict == "Pass", outcome
        assert "looks good" in outcome.message
    posted = site.asked[0]
    assert (posted["method"], len(site.asked)) == ("POST", 2)
    assert posted["body"]["deployment"] == about["id"]
    assert (posted["body"]["step"], posted["body"]["parameters"]) == (STEP, {"team": "shop"})


def test_a_webhook_that_says_no(url: str, site: Site) -> None:
    site.status = 412
    with opened(url) as (record, about):
        assert ask(record, about, {"type": "webhook", "url": site.url}).verdict == "Fail"


def prometheus(value: str | None) -> dict[str, Any]:
    found = [] if value is None else [{"metric": {}, "value": [1.0, value]}]
    return {"status": "success", "data": {"resultType": "vector", "result": found}}


@pytest.mark.parametrize(
    ("value", "verdict"), [("0.001", "Pass"), ("0.2", "Fail"), ("NaN", "Inconclusive")]
)
def test_answers_in_the_form_of_prometheus(url: str, site: Site, value: str, verdict: str) -> None:
    site.body = prometheus(value)
    gate = {
        "type": "prometheus", "url": site.url, "query": "rate(errors[1m]) > 0",
        "success": "< 0.01", "failure": ">= 0.1",
    }  # fmt: skip
    with opened(url) as (record, about):
        assert ask(record, about, gate).verdict == verdict
    assert site.asked[0]["path"] == "/api/v1/query?query=rate%28errors%5B1m%5D%29+%3E+0"


def test_without_a_value_nothing_is_known(url: str, site: Site) -> None:
    site.body = prometheus(None)
    gate = {"type": "prometheus", "url": site.url, "query": "up", "success": "1"}
    with opened(url) as (record, about):
        outcome = ask(record, about, gate, seconds=0.3)
        assert (outcome.verdict, outcome.paused) == ("Inconclusive", True)
        found = record.deployment(about["id"])
        assert found.paused_step == STEP
        assert "no value yet" in str(found.pause_reason)
        # Whoever resumes it asks anew.
        record.take_over(about["id"])
        site.body = prometheus("1")
        again = ask(record, about, gate, seconds=0.3)
        assert (again.verdict, again.round) == ("Pass", 2)


@pytest.mark.parametrize("answer", ["approve", "reject", "nobody"])
def test_a_person_is_asked_when_the_evidence_is_not_enough(
    url: str, site: Site, answer: str
) -> None:
    site.body = prometheus(None)
    gate = {"type": "prometheus", "url": site.url, "query": "up", "success": "1"}
    timeout = 0.5 if answer == "nobody" else 3600.0
    rules = Rules(on_inconclusive="ask", approval_timeout=timeout)
    with opened(url) as (record, about):
        answering = threading.Thread(target=answer_when_asked, args=(url, about["id"], answer))
        answering.start()
        outcome = ask(record, about, gate, seconds=0.2, rules=rules)
        answering.join()
        expected = {"approve": "Pass", "reject": "Fail", "nobody": "Fail"}[answer]
        assert outcome.verdict == expected, outcome
        if answer != "approve":
            code = {"reject": "APPROVAL_REJECTED", "nobody": "APPROVAL_TIMEOUT"}[answer]
            assert record.finish(about["id"]).error_code == code


def answer_when_asked(url: str, deployment_id: str, answer: str) -> None:
    if answer == "nobody":
        return
    with Record.open(url) as record:
        wait_for(lambda: bool(record.approvals(deployment_id)))
        record.decide_approval(deployment_id, approve=answer == "approve", why="looked at it")


def test_a_step_is_extended_and_then_pauses(url: str, site: Site) -> None:
    site.body = prometheus(None)
    gate = {"type": "prometheus", "url": site.url, "query": "up", "success": "1"}
    with opened(url) as (record, about):
        rules = Rules(on_inconclusive="extend", extensions=2)
        outcome = ask(record, about, gate, seconds=0.2, rules=rules)
        assert (outcome.verdict, outcome.paused, outcome.round) == ("Inconclusive", True, 3)
        assert {one.round for one in record.gate_decisions(about["id"], STEP)} == {1, 2, 3}


def test_a_gate_of_a_person(url: str) -> None:
    with opened(url) as (record, about):
        answering = threading.Thread(target=answer_when_asked, args=(url, about["id"], "approve"))
        answering.start()
        outcome = ask(record, about, {"type": "approval", "timeout": "1h"})
        answering.join()
        assert outcome.verdict == "Pass"
        assert record.approvals(about["id"])[0].what == STEP


def test_an_interrupt_pauses_the_step_and_it_goes_on_where_it_was(url: str) -> None:
    gate = {"type": "command", "command": "true"}
    with opened(url) as (record, about):
        outcome = ask(record, about, gate, seconds=600, pause_wanted=lambda: "interrupted")
        assert (outcome.verdict, outcome.paused) == ("Inconclusive", True)
        found = record.deployment(about["id"])
        assert (found.pause_reason, found.paused_step) == ("interrupted", STEP)
        run = record.gate_runs(about["id"])[0]
        record.take_over(about["id"])
        again = ask(record, about, gate, seconds=600, clock=lambda: run.until + 1)
        assert (again.verdict, again.round) == ("Pass", 1)


def test_a_stop_ends_the_bake_time(url: str) -> None:
    with opened(url) as (record, about):
        timer = threading.Timer(0.3, stop, (url, about["id"]))
        timer.start()
        outcome = ask(record, about, {"type": "command", "command": "true"}, seconds=600)
        timer.join()
        assert (outcome.verdict, outcome.halted) == ("Fail", True)
        assert "MANUAL_STOP" in outcome.message


def stop(url: str, deployment_id: str) -> None:
    with Record.open(url) as record:
        record.request_stop(deployment_id, "enough")


PROGRAM = """
import sys
from ansible_collections.bascule.deploy.plugins.module_utils._gate_spec import parse_gates
from ansible_collections.bascule.deploy.plugins.plugin_utils._gates import run_step
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Record
url, deployment, command, seconds = sys.argv[1:]
gates = parse_gates([{"type": "command", "command": command, "interval": "100ms"}])
with Record.open(url) as record:
    print(run_step(record, {"id": deployment}, "stage 1", gates, seconds=float(seconds)).verdict)
"""


def start(url: str, deployment_id: str, command: str, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, url, deployment_id, command, str(seconds)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_one_of_many_asks_and_all_get_its_verdict(url: str, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    with opened(url) as (record, about):
        command = f"echo $PPID >> {asked}"
        started = [start(url, about["id"], command, 1.0) for _number in range(4)]
        said = [process.communicate(timeout=120)[0].strip() for process in started]
        assert said == ["Pass"] * 4
        assert len(set(asked.read_text().split())) == 1
        assert [run.verdict for run in record.gate_runs(about["id"])] == ["Pass"]


def test_a_run_that_is_killed_goes_on_where_it_was(url: str, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    with opened(url) as (record, about):
        first = start(url, about["id"], f"echo x >> {asked}", 3600)
        wait_for(lambda: len(record.gate_decisions(about["id"])) >= 2)
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert first.stdout is not None
        first.stdout.close()
        until = record.gate_runs(about["id"])[0].until
        # Another controller goes on with it, when the bake time has passed.
        record.take_over(about["id"])
        late = until + 1.0
        answered = len(record.gate_decisions(about["id"]))
        outcome = ask(
            record, about, {"type": "command", "command": "true"}, seconds=3600,
            clock=lambda: late,
        )  # fmt: skip
        assert outcome.verdict == "Pass"
        run = record.gate_runs(about["id"])[0]
        assert (run.until, run.round) == (until, 1)
        assert outcome.gates[0]["successful"] >= answered


def wait_for(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)
