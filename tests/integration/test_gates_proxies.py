"""The action in a play, with real proxies: the statistics of two pools, and a judge on them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Record
from support import records
from support.pools import Pools, pools

if TYPE_CHECKING:
    from collections.abc import Iterator

BAD = {"X-Bascule-Test": "green"}


# What each proxy counts is proved elsewhere; here it is the way to it that matters.
@pytest.fixture(params=["envoy", "haproxy"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pools]:
    with pools(str(request.param), tmp_path, "blue", "green") as made:
        made.route(
            {
                "weights": {"blue": 50.0, "green": 50.0},
                "match": [{"pool": "green", "header": "X-Bascule-Test", "value": "green"}],
            }
        )
        yield made


def ask(site: Pools, directory: Path, deployment: str, **task: Any) -> dict[str, Any]:
    """Run the action for a deployment, as a playbook does; returns what it says."""
    traffic = {
        "provider": site.provider,
        "options": {
            **{f"{site.provider}_{key}": value for key, value in site.proxy.options.items()
               if key != "pools"},
            "pools": site.proxy.options["pools"],
        },
        # Not the host that the task runs on: the action goes there itself.
        "hosts": ["lb-1"],
        "targets": [
            {"name": name, "address": endpoint.address, "port": endpoint.port}
            for name, endpoint in site.endpoints["green"].items()
        ],
    }  # fmt: skip
    gate = {
        "deployment": {"id": deployment}, "record": f"sqlite:///{directory}/record.db",
        "traffic": traffic, "pools": {"canary": "green", "baseline": "blue", "share": 50}, **task,
    }  # fmt: skip
    tasks = [
        {"bascule.deploy.gate": gate, "register": "asked", "ignore_errors": True},
        {"ansible.builtin.copy": {"content": "{{ asked | to_json }}",
                                  "dest": str(directory / "said.json")}},
    ]  # fmt: skip
    play = [{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]
    (directory / "play.json").write_text(json.dumps(play))
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    inventory = {"all": {"hosts": {"lb-1": local}}}
    (directory / "inventory.json").write_text(json.dumps(inventory))
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), directory / "play.json",
         "-i", directory / "inventory.json"],
        env={**os.environ, "ANSIBLE_LOCALHOST_WARNING": "False"}, cwd=directory,
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    said: dict[str, Any] = json.loads((directory / "said.json").read_text())
    return said


def test_what_a_proxy_counts_lets_a_step_pass_or_fail(site: Pools, tmp_path: Path) -> None:
    with Record.open(f"sqlite:///{tmp_path}/record.db") as record:
        made = records.create(record, ["green-1"])
        gates = [
            {"type": "proxy", "metric": "error_rate", "success": "< 1%", "interval": "1s"},
            {"type": "proxy", "name": "both", "metric": "requests", "success": ">= 0",
             "pool": "old", "interval": "1s"},
            {"type": "load_balancer", "pool": "new", "count": 1},
        ]  # fmt: skip
        load = site.load(100)
        said = ask(site, tmp_path, made.id, step="canary 50 %", seconds=2, gates=gates)
        assert said["verdict"] == "Pass", said
        seen = {one["name"]: one for one in said["bascule"]["gates"]}
        assert seen["proxy"]["seen"] == "0, wanted < 1%"
        assert "targets are in service" in seen["load_balancer"]["seen"]
        counted = [one.data["counters"] for one in record.gate_decisions(made.id, "canary 50 %")
                   if one.gate == "both"]  # fmt: skip
        assert counted[-1]["blue"]["requests"] >= counted[0]["blue"]["requests"]
        assert counted[-1]["blue"]["requests"] > 0

        stop = threading.Event()
        failing = threading.Thread(target=fail_until, args=(site, stop))
        failing.start()
        judge = {
            "metrics": [{"name": "errors", "kind": "rate", "critical": True}],
            "interval": "1s", "assignments": "none",
        }  # fmt: skip
        try:
            said = ask(site, tmp_path, made.id, step="judged", seconds=3600, judge=judge)
        finally:
            stop.set()
            failing.join()
        assert (said["failed"], said["verdict"]) == (True, "Fail"), said
        assert "The critical metric errors is bad" in said["msg"]
        assert record.finish(made.id).error_code == "GATE_FAILED"
        assert load()["failures"] == {}


def fail_until(site: Pools, stop: threading.Event) -> None:
    while not stop.is_set():
        site.ask(20, "/status/500", **BAD)
        stop.wait(0.05)
