"""Every kind of gate by the same rules: how often it is asked, from when on, and what decides."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._gate_spec import TYPES, parse_gates
from ansible_collections.bascule.deploy.plugins.module_utils._host._router import Counters
from ansible_collections.bascule.deploy.plugins.plugin_utils._gates import Pools, run_step
from ansible_collections.bascule.deploy.plugins.plugin_utils._gates._proxy import plain_counters
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Record
from support.records import create

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.aws import Aws, Servers

DELAY = 0.3


class Answers(http.server.BaseHTTPRequestHandler):
    """Says yes at /yes and no at /no, in the words of each kind of source."""

    def do_GET(self) -> None:
        number = "0.5" if self.path.startswith("/no") else "0.001"
        vector = [{"metric": {}, "value": [0, number]}]
        told = {"status": "success", "data": {"resultType": "vector", "result": vector}}
        self._answer(500 if self.path == "/no" else 200, told)

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        query = self.rfile.read(length)
        if self.path.endswith("/hook"):
            self._answer(200, {"verdict": "Fail" if self.path.startswith("/no") else "Pass"})
        else:
            del query
            self.do_GET()

    def _answer(self, status: int, told: Any) -> None:
        body = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


class Balancer:
    """A load balancer with a good and a bad pool."""

    def __init__(self) -> None:
        self.looks = 7

    def measured(self) -> dict[str, Any]:
        self.looks += 1
        counted = {
            "good": Counters(1000 * self.looks, 0, None),
            "bad": Counters(1000 * self.looks, 500 * self.looks, None),
        }
        return {"at": 0.0, "pools": plain_counters(counted)}

    def observed(self, pool: str = "") -> dict[str, Any]:
        return {"targets": {"a": {"in_service": pool != "bad", "state": "as it is"}}}


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def region(moto_servers: Servers) -> Aws:
    """Return a region with an alarm that is active, one that is not, and two metrics."""
    aws = moto_servers.fresh()
    cloudwatch = aws.client("cloudwatch")
    for name, state in (("good", "OK"), ("bad", "ALARM")):
        cloudwatch.put_metric_alarm(
            AlarmName=name, Namespace="shop", MetricName=name, Statistic="Sum", Period=60,
            EvaluationPeriods=1, Threshold=1.0, ComparisonOperator="GreaterThanThreshold",
        )  # fmt: skip
        cloudwatch.set_alarm_state(AlarmName=name, StateValue=state, StateReason="a test")
        value = 0.5 if name == "bad" else 0.001
        cloudwatch.put_metric_data(
            Namespace="shop", MetricData=[{"MetricName": name, "Value": value}]
        )
    return aws


def asked_with(kind: str, site: str, port: int, *, good: bool) -> dict[str, Any]:
    """Return a gate of a kind that says yes, or one that says no."""
    word, name = ("yes", "good") if good else ("no", "bad")
    metric = {"namespace": "shop", "metric": name}
    return {
        "http": {"url": f"{site}/{word}"},
        "tcp": {"host": "127.0.0.1", "port": port if good else 1},
        "command": {"command": "true" if good else "false"},
        "webhook": {"url": f"{site}/{word}/hook"},
        "prometheus": {"url": f"{site}/{word}x", "query": "up", "success": "< 0.01"},
        "cloudwatch": {"queries": [metric], "success": "< 0.01"},
        "cloudwatch_alarm": {"alarm": name},
        "proxy": {"metric": "error_rate", "pool": name, "success": "< 0.01"},
        "load_balancer": {"pool": name},
        "judge": {
            "judge": {"metrics": [{"name": "errors", "kind": "rate", "critical": True}],
                      "assignments": "none", "canary": name, "baseline": "good", "share": 50},
        },
    }[kind]  # fmt: skip


# What a person answers, and who wins a test, is tested elsewhere.
KINDS = sorted({*TYPES} - {"approval", "ab_test"})


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_gate_goes_by_the_same_rules(
    kind: str, site: str, region: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    region.use(monkeypatch)
    with (
        Record.open(f"sqlite:///{tmp_path / 'record.db'}") as record,
        contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener,
    ):
        port = listener.getsockname()[1]
        often = {"type": kind, "interval": "50ms", "error_retry": "50ms"}
        yes = {**often, **asked_with(kind, site, port, good=True)}
        no = {**often, **asked_with(kind, site, port, good=False)}
        made = create(record, ["a"], group="good")
        outcome = run_step(
            record, {"id": made.id}, "step 1",
            parse_gates([
                {**yes, "name": "yes", "count": 2, "initial_delay": f"{DELAY}s"},
                {**no, "name": "dry", "count": 1, "dry_run": True},
                {**no, "name": "allowed", "count": 2, "failure_limit": 2},
            ]),
            pools=Pools("bad", "good", 0.5), traffic=Balancer(),
        )  # fmt: skip
        phases = {one["name"]: one["phase"] for one in outcome.gates}
        assert phases == {"yes": "Successful", "dry": "Failed", "allowed": "Successful"}, outcome
        assert outcome.verdict == "Pass"
        begun = record.gate_runs(made.id)[0].started_at
        decided = [one for one in record.gate_decisions(made.id) if one.gate]
        count = {name: [one.verdict for one in decided if one.gate == name] for name in phases}
        times = 1 if kind == "judge" else 2
        assert count["yes"].count("Successful") == times
        assert count["allowed"].count("Failed") == times
        assert min(one.at for one in decided if one.gate == "yes") >= begun + DELAY

        made = create(record, ["a"], group="bad")
        limited = {**no, "failure_limit": times - 1, "count": times}
        outcome = run_step(
            record, {"id": made.id}, "step 1", parse_gates([limited]),
            seconds=3600, pools=Pools("bad", "good", 0.5), traffic=Balancer(),
        )  # fmt: skip
        assert (outcome.verdict, outcome.halted) == ("Fail", True)
        decided = record.gate_decisions(made.id)
        assert [one.verdict for one in decided if one.gate].count("Failed") == times
        assert record.finish(made.id).error_code == "GATE_FAILED"
