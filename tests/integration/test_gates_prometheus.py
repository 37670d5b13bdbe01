"""Gates and a judge on a real Prometheus, which scrapes two small applications."""

from __future__ import annotations

import contextlib
import http.server
import json
import shutil
import subprocess
import threading
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._gate_spec import parse_gates
from ansible_collections.bascule.deploy.plugins.plugin_utils._gates import run_step
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Record
from support.ports import free_port
from support.proxies import stop
from support.records import create

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BY_POOL = 'sum({name}{{pool="{pool}"}})'


class Application:
    """A page of metrics whose counters grow at each scrape: by pool, requests and errors."""

    def __init__(self) -> None:
        self.grows = {"blue": (900, 9), "green": (100, 1)}
        self.counted = {"blue": [0, 0], "green": [0, 0]}
        application = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = application.scrape().encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments: object) -> None:
                """Say nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def scrape(self) -> str:
        lines = []
        for pool, (requests, errors) in self.grows.items():
            self.counted[pool][0] += requests
            self.counted[pool][1] += errors
            lines.append(f'requests_total{{pool="{pool}"}} {self.counted[pool][0]}')
            lines.append(f'errors_total{{pool="{pool}"}} {self.counted[pool][1]}')
        return "\n".join(lines) + "\n"


@pytest.fixture
def application() -> Iterator[Application]:
    running = Application()
    yield running
    running.server.shutdown()
    running.server.server_close()


@pytest.fixture
def prometheus(application: Application, tmp_path: Path) -> Iterator[str]:
    program = shutil.which("prometheus")
    assert program, "Prometheus is missing: make packages"
    port = free_port()
    target = f"127.0.0.1:{application.server.server_address[1]}"
    config = {
        # A scrape that comes too late says that the application is down.
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": [{"job_name": "shop", "static_configs": [{"targets": [target]}]}],
    }
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))
    with (tmp_path / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [program, f"--config.file={tmp_path / 'prometheus.yml'}",
             f"--storage.tsdb.path={tmp_path / 'data'}", "--log.level=warn",
             f"--web.listen-address=127.0.0.1:{port}"],
            stdout=log, stderr=log,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: bool(result(url, "requests_total")))
        yield url
    finally:
        stop(process)


def result(url: str, query: str) -> list[Any]:
    with (
        contextlib.suppress(OSError),
        urllib.request.urlopen(  # noqa: S310
            f"{url}/api/v1/query?query={query}", timeout=5
        ) as answer,
    ):
        found: list[Any] = json.load(answer)["data"]["result"]
        return found
    return []


def asked(record: Record, *gates: dict[str, Any], **more: Any) -> Any:
    made = create(record, ["a"], group=f"g{len(record.deployments())}")
    quick = [{"interval": "300ms", "error_retry": "100ms", **gate} for gate in gates]
    return run_step(record, {"id": made.id}, "stage 1", parse_gates(quick), **more)


def test_queries_of_a_real_prometheus(prometheus: str, tmp_path: Path) -> None:
    common = {"type": "prometheus", "url": prometheus}
    with Record.open(f"sqlite:///{tmp_path / 'record.db'}") as record:
        outcome = asked(
            record,
            {**common, "name": "each", "query": "errors_total / requests_total",
             "success": "0.005..0.015"},
            {**common, "name": "all", "query": "scalar(sum(errors_total) / sum(requests_total))",
             "success": "< 2%"},
            {**common, "name": "up", "query": "up", "success": "1"},
            {**common, "name": "none", "query": "nothing_like_this", "success": "1",
             "dry_run": True},
        )  # fmt: skip
        assert outcome.verdict == "Pass", outcome
        seen = {one["name"]: one["seen"] for one in outcome.gates}
        assert seen["each"] == "0.01, 0.01, wanted 0.005..0.015"
        assert seen["up"] == "1, wanted 1"
        outcome = asked(
            record,
            {**common, "query": "sum(", "success": "1", "consecutive_error_limit": 0},
        )
        assert outcome.verdict == "Fail"
        assert "answered HTTP 400: invalid parameter" in outcome.message
        outcome = asked(
            record,
            {**common, "query": "up[1m]", "success": "1", "consecutive_error_limit": 0},
        )
        assert "The query gives a matrix" in outcome.message


def judge_on(url: str) -> dict[str, Any]:
    arms = {
        arm: {
            key: BY_POOL.format(name=name, pool=pool)
            for key, name in (("bad", "errors_total"), ("total", "requests_total"))
        }
        for arm, pool in (("canary", "green"), ("baseline", "blue"))
    }
    metric = {"name": "errors", "kind": "rate", "critical": True, "source": "prometheus",
              "url": url, **arms}  # fmt: skip
    return {"metrics": [metric]}


def test_a_judge_on_counters_of_a_real_prometheus(
    prometheus: str, application: Application, tmp_path: Path
) -> None:
    gate = {"type": "judge", "judge": judge_on(prometheus)}
    with Record.open(f"sqlite:///{tmp_path / 'record.db'}") as record:
        application.grows["green"] = (100, 20)
        outcome = asked(record, gate, seconds=3600)
        assert outcome.verdict == "Fail", outcome
        application.grows = {"blue": (90000, 90), "green": (10000, 10)}
        assert asked(record, gate).verdict == "Pass"


def wait_for(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.1)
