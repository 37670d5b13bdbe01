"""The action in a play: delegated to a proxy's host, by both ways to a host, with its record."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Record
from support import records
from support.site import Site, sites
from support.twopools import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TASK = {
    "provider": "{{ provider }}",
    "options": "{{ options }}",
    "targets": ["{{ endpoint }}"],
    "deployment": "{{ deployment }}",
    "record": "{{ record_url }}",
}


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    with sites(tmp_path) as make:
        yield make


class Play:
    """A play over a site's targets; the targets themselves cannot be reached, nor need they be."""

    def __init__(self, site: Site, directory: Path) -> None:
        self.directory = directory
        self.url = f"sqlite:///{directory}/record.db"
        self.record = Record.open(self.url)
        self.deployment = records.create(self.record, site.endpoints).id
        for name in site.endpoints:
            self.record.admit(self.deployment, name)
        hosts = {
            name: {
                "ansible_host": "192.0.2.1",
                # HAProxy's name of a server is its own affair; the record has the inventory's.
                "endpoint": {"name": name, "address": endpoint.address, "port": endpoint.port},
            }
            for name, endpoint in site.endpoints.items()
        }
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        options = {f"{site.provider}_{key}": value for key, value in site.proxy.options.items()}
        variables = {
            "provider": site.provider,
            "options": {**options, "drain_timeout": "60s", "restore_timeout": "60s"},
            "deployment": {"id": self.deployment},
            "record_url": self.url,
            "proxies": ["lb-1"],
        }
        inventory = {"all": {"hosts": {**hosts, "lb-1": local}, "vars": variables}}
        (directory / "inventory.json").write_text(json.dumps(inventory))

    def run(
        self, *tasks: dict[str, Any], hosts: str = "web-*", pipelining: bool = True, **more: Any
    ) -> list[dict[str, Any]]:
        """Run the tasks; returns each one's results by host, for the last proxy of the loop."""
        play: list[dict[str, Any]] = []
        for number, task in enumerate(tasks):
            play += [
                {
                    "name": f"Task {number}",
                    "bascule.deploy.traffic": {**TASK, **task},
                    "delegate_to": "{{ item }}",
                    "loop": "{{ proxies }}",
                    "register": f"result_{number}",
                    "ignore_errors": True,
                },
                {
                    "name": "Show the result",
                    "ansible.builtin.debug": {
                        "msg": f"RESULT {number} {{{{ inventory_hostname }}}} "
                        f"{{{{ result_{number}.results[-1] | to_json }}}}"
                    },
                },
            ]
        path = self.directory / "play.json"
        path.write_text(json.dumps([{"hosts": hosts, "gather_facts": False, "tasks": play}]))
        environment = {
            **os.environ,
            "ANSIBLE_PIPELINING": str(pipelining),
            "ANSIBLE_STDOUT_CALLBACK": "default",
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
            "ANSIBLE_LOCALHOST_WARNING": "False",
        }
        done = subprocess.run(
            [str(Path(sys.executable).with_name("ansible-playbook")), str(path),
             "-i", str(self.directory / "inventory.json"), *more.get("arguments", [])],
            env=environment, cwd=self.directory, capture_output=True, text=True, timeout=300,
            check=False,
        )  # fmt: skip
        self.output = done.stdout + done.stderr
        assert done.returncode == 0, self.output
        results: list[dict[str, Any]] = [{} for _ in tasks]
        for line in re.findall(r'"msg": ("RESULT .*")$', self.output, re.MULTILINE):
            _word, number, name, text = json.loads(line).split(" ", 3)
            results[int(number)][name] = json.loads(text)
        return results

    def events(self) -> list[tuple[str, str, str]]:
        """Return (target, event, status) of the traffic's events in the record."""
        return [
            (event.target, event.event, event.status)
            for event in self.record.events(self.deployment)
            if event.event.endswith("Traffic")
        ]


@pytest.mark.parametrize(
    ("provider", "pipelining"), [("envoy", True), ("haproxy", True), ("haproxy", False)]
)
def test_targets_leave_and_come_back_and_it_is_written_down(
    provider: str, pipelining: bool, deploy: Callable[..., Site], tmp_path: Path
) -> None:
    site = deploy(provider)
    play = Play(site, tmp_path)
    observed, drained, again = play.run(
        {"state": "observed"}, {"state": "drained"}, {"state": "drained"}, pipelining=pipelining
    )
    assert {name for name, seen in observed.items() if not seen["changed"]} == {"web-1", "web-2"}
    assert observed["web-1"]["targets"]["web-1"]["in_service"]
    assert observed["web-1"]["bascule"]["events"] == []
    for name in site.endpoints:
        told = drained[name]["bascule"]
        assert drained[name]["changed"]
        assert not again[name]["changed"]
        assert (told["phase"], told["target"], told["state"]) == ("traffic", name, "drained")
        assert [event["event"] for event in told["events"]] == ["BlockTraffic"]
        assert told["waited"] == drained[name]["waited"] > 0
        assert not site.state(name)["in_service"]
    assert {t.in_service for t in play.record.targets(play.deployment)} == {False}
    (restored,) = play.run({"state": "in_service"}, hosts="web-1", pipelining=pipelining)
    assert restored["web-1"]["changed"]
    # Another load balancer may not have it back yet; the end of its lifecycle is what counts.
    assert {t.in_service for t in play.record.targets(play.deployment)} == {False}
    assert site.state("web-1")["in_service"]
    assert not site.state("web-2")["in_service"]
    assert [event for event in play.events() if event[0] == "web-1"] == [
        ("web-1", "BlockTraffic", "Succeeded"),
        ("web-1", "BlockTraffic", "Succeeded"),
        ("web-1", "AllowTraffic", "Succeeded"),
    ]


def test_check_mode_shows_the_change_and_writes_nothing(
    deploy: Callable[..., Site], tmp_path: Path
) -> None:
    site = deploy("haproxy")
    play = Play(site, tmp_path)
    (drained,) = play.run({"state": "drained"}, arguments=["--check", "--diff"])
    assert drained["web-1"]["changed"]
    assert "-web-1: UP\n+web-1: out of service" in play.output
    assert site.state("web-1")["in_service"]
    assert play.events() == []


def test_a_proxy_that_is_away_fails_the_target_with_one_message(
    deploy: Callable[..., Site], tmp_path: Path
) -> None:
    site = deploy("haproxy")
    play = Play(site, tmp_path)
    site.proxy.stop()
    (drained,) = play.run({"state": "drained"}, hosts="web-1")
    assert drained["web-1"]["failed"]
    assert "does not answer" in drained["web-1"]["msg"]
    assert drained["web-1"]["bascule"]["error"]["kind"] == "traffic"
    assert play.events() == [("web-1", "BlockTraffic", "Failed")]


def test_a_target_that_stays_away_fails_with_what_the_proxy_saw(
    deploy: Callable[..., Site], tmp_path: Path
) -> None:
    site = deploy("haproxy")
    play = Play(site, tmp_path)
    site.call("drain", "web-1")
    site.kill("web-1")
    until(lambda: "DOWN" in site.state("web-1")["state"])
    soon = "{{ options | combine({'restore_timeout': '1s'}) }}"
    (restored,) = play.run({"state": "in_service", "options": soon}, hosts="web-1")
    assert restored["web-1"]["failed"]
    assert "web-1 DOWN" in restored["web-1"]["msg"]
    assert not restored["web-1"]["changed"]


def test_one_order_for_several_targets_with_names_of_their_own(
    deploy: Callable[..., Site], tmp_path: Path
) -> None:
    site = deploy("envoy")
    play = Play(site, tmp_path)
    targets = [
        {"target": name, "name": f"server-{name}", "address": e.address, "port": e.port}
        for name, e in site.endpoints.items()
    ]
    (drained,) = play.run({"state": "drained", "targets": targets}, hosts="web-1")
    assert set(drained["web-1"]["targets"]) == {"server-web-1", "server-web-2"}
    assert drained["web-1"]["bascule"]["targets"] == ["web-1", "web-2"]
    assert {t.in_service for t in play.record.targets(play.deployment)} == {False}
    assert [event[0] for event in play.events()] == ["web-1", "web-2"]


def test_a_wrong_option_is_named(deploy: Callable[..., Site], tmp_path: Path) -> None:
    play = Play(deploy("haproxy"), tmp_path)
    wrong = [
        {"state": "gone"},
        {"state": "drained", "options": {"drain_timeout": "soon", "haproxy_backend": "shop"}},
        {"state": "drained", "options": {"haproxy_bakend": "shop"}},
        {"state": "drained", "options": {}},
    ]
    messages = [result["web-1"]["msg"] for result in play.run(*wrong, hosts="web-1")]
    for message, part in zip(
        messages,
        ["in_service", "deploy_traffic_drain_timeout", "haproxy_bakend", "deploy_haproxy_backend"],
        strict=True,
    ):
        assert part in message
