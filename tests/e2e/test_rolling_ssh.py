"""The main job: revisions roll through eight real hosts behind a real load balancer, under load.

One story a load balancer, told once, in the order of its runs; each test proves one claim of it.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from support import floor
from support.bundles import HOME, PORT, web
from support.fleet import CONTROLLER, Fleet, interpreter
from support.proxies import Endpoint, start_envoy, start_haproxy
from support.rollout import BIN, Controller, Run, differences, snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.proxies import Proxy

SIZE = 8
FLOOR = 6
RATE = 220
FRONT = 8000
# Two failures exhaust the budget, whichever two of the three come first.
BAD = ("h3", "h5", "h6")
BROKEN = f"""\
#!/bin/sh
case "$(hostname)" in {"|".join(BAD)})
  echo "the catalogue of {{version}} cannot be read" >&2
  exit 9;;
esac
"""
SECOND = {"envoy": "default", "haproxy": "bascule.deploy.progress"}
NAMES = [f"h{number}" for number in range(1, SIZE + 1)]


@dataclass
class Story:
    """What every run said, and what was seen from outside meanwhile."""

    fleet: Fleet
    controller: Controller
    provider: str
    runs: dict[str, Run] = field(default_factory=dict)
    seen: dict[str, dict[str, str]] = field(default_factory=dict)
    disks: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    samples: floor.Samples = field(default_factory=lambda: floor.Samples((), ()))
    load: dict[str, Any] = field(default_factory=dict)
    loaded: tuple[float, float] = (0.0, 0.0)

    def run(self, name: str, playbook: str, *options: str, **variables: Any) -> None:
        self.runs[name] = self.controller.playbook(playbook, *options, **variables)
        self.seen[name] = {host: self.version(host) for host in NAMES}

    def version(self, host: str) -> str:
        """What the application on a host answers, asked past the load balancer."""
        address = self.fleet.host(host).address
        with self.fleet.connect(address, PORT, timeout=60.0) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b"".join(iter(lambda: connection.recv(4096), b"")).decode()
        version, name = answer.rpartition("\r\n\r\n")[2].split()
        assert name == host
        return version

    def look(self, name: str) -> None:
        """Remember what every host has on its disk."""
        self.disks[name] = {h.name: snapshot(h.folder / "upper") for h in self.fleet.hosts}

    def changes(self, before: str, after: str) -> dict[str, list[str]]:
        """What changed on whose disk between two looks."""
        found = {
            name: differences(self.disks[before][name], self.disks[after][name]) for name in NAMES
        }
        return {name: seen for name, seen in found.items() if seen}


def start(provider: str, fleet: Fleet, folder: Path) -> Proxy:
    endpoints = [Endpoint(host.name, host.address, PORT) for host in fleet.hosts]
    starter = {"envoy": start_envoy, "haproxy": start_haproxy}[provider]
    proxy = starter(folder, endpoints, listen=CONTROLLER, port=FRONT, command=fleet.command([]))
    deadline = time.monotonic() + 90
    while True:
        try:
            fleet.connect(CONTROLLER, FRONT).close()
        except OSError:
            assert time.monotonic() < deadline, f"{provider} does not listen"
            time.sleep(0.05)
        else:
            return proxy


def balancer(proxy: Proxy) -> dict[str, Any]:
    """The variables that name the load balancer; it runs where Ansible runs."""
    names = {
        "envoy": {
            "eds_path": "deploy_envoy_eds_path",
            "cluster": "deploy_envoy_cluster",
            "admin_url": "deploy_envoy_admin_url",
        },
        "haproxy": {"socket": "deploy_haproxy_socket", "backend": "deploy_haproxy_backend"},
    }[proxy.provider]
    return {names[key]: value for key, value in proxy.options.items() if key in names}


def sampler(proxy: Proxy, fleet: Fleet, log: Path) -> subprocess.Popen[Any]:
    options = proxy.options
    what = {
        "envoy": ("admin_url", "cluster"),
        "haproxy": ("socket", "backend"),
    }[proxy.provider]
    arguments = [proxy.provider, *(options[key] for key in what), str(log)]
    # Before everybody else, so that it sees every moment of a machine that is busy.
    return fleet.popen(["nice", "-n", "-15", sys.executable, floor.__file__, *arguments])


def tell(story: Story, revisions: dict[str, Path], proxy: Proxy, folder: Path) -> None:
    """Run the whole story."""
    log, report = folder / "floor.jsonl", folder / "load.json"
    story.run("first", "rolling", deploy_revision=revisions["1.0"])
    assert story.runs["first"].status == 0, story.runs["first"].said
    watcher = sampler(proxy, story.fleet, log)
    url = f"http://{CONTROLLER}:{FRONT}/"
    load = story.fleet.popen(
        [BIN / "python", "-m", "bascule.demo.loadgen", url, "--rate", str(RATE), "--json", report],
        stdout=subprocess.DEVNULL,
    )
    started = time.time()
    time.sleep(1)
    story.look("before the plan")
    story.run(
        "plan",
        "rolling",
        "--check",
        "--diff",
        callback="bascule.deploy.progress",
        deploy_revision=revisions["2.0"],
    )
    story.look("after the plan")
    story.run("update", "rolling", deploy_revision=revisions["2.0"])
    story.look("before the second run")
    # Ansible's own callback counts changes; Bascule's says that there is nothing to do.
    story.run("again", "rolling", callback=SECOND[story.provider], deploy_revision=revisions["2.0"])
    story.look("after the second run")
    # The first stage is good: what it brought to users must be taken back.
    story.run("bad", "rolling", deploy_revision=revisions["3.0"], deploy_stages=[2, "100%"])
    story.run("back", "rollback")
    time.sleep(1)
    story.loaded = (started, time.time())
    load.send_signal(signal.SIGTERM)
    load.wait(timeout=60)
    watcher.kill()
    watcher.wait()
    story.samples = floor.read(log).between(*story.loaded)
    story.load = json.loads(report.read_text())


@pytest.fixture(scope="module", params=["envoy", "haproxy"])
def story(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp(request.param)
    python = interpreter()
    revisions = {v: web(folder / v, v, python=python) for v in ("1.0", "2.0")}
    revisions["3.0"] = web(folder / "3.0", "3.0", python=python, hooks={"validate.sh": BROKEN})
    with Fleet(SIZE) as fleet:
        proxy = start(request.param, fleet, folder / "proxy")
        variables = {
            "deploy_application": "web",
            "deploy_targets": "web",
            "deploy_minimum_healthy_hosts": FLOOR,
            "deploy_health_gates": [{"type": "http", "port": PORT, "path": "/health"}],
            "deploy_traffic_provider": request.param,
            "deploy_traffic_target_port": PORT,
            "deploy_traffic_drain_timeout": "20s",
            "deploy_traffic_restore_timeout": "20s",
            **balancer(proxy),
        }
        controller = Controller(fleet.inventory, folder / "state", variables, within=fleet.command)
        story = Story(fleet, controller, request.param)
        try:
            tell(story, revisions, proxy, folder)
            yield story
        finally:
            proxy.stop()


def everyone(version: str) -> dict[str, str]:
    return dict.fromkeys(NAMES, version)


def test_the_first_deployment_reaches_every_host(story: Story) -> None:
    assert story.runs["first"].status == 0, story.runs["first"].said
    assert story.seen["first"] == everyone("1.0")


def test_a_plan_is_shown_and_nothing_is_changed(story: Story) -> None:
    run = story.runs["plan"]
    assert run.status == 0, run.said
    assert not story.changes("before the plan", "after the plan")
    assert story.seen["plan"] == everyone("1.0")
    changes = [line for line in run.said.splitlines() if line.startswith("+/")]
    assert changes == [line for line in changes if f"{HOME}/app/VERSION" in line], "and no other"
    assert len(changes) == SIZE, run.said
    for word in (*NAMES, f"{FLOOR} must stay healthy", f"at most {SIZE - FLOOR} at a time"):
        assert word in run.said, f"{word!r} in\n{run.said}"


def test_an_update_reaches_every_host(story: Story) -> None:
    assert story.runs["update"].status == 0, story.runs["update"].said
    assert story.seen["update"] == everyone("2.0")


def test_the_second_run_changes_nothing_and_says_so(story: Story) -> None:
    run = story.runs["again"]
    assert run.status == 0, run.said
    assert run.changed == 0, run.said
    said = {"default": "changed=0", "bascule.deploy.progress": "nothing to do"}
    assert said[SECOND[story.provider]] in run.said
    assert not story.changes("before the second run", "after the second run")


def test_a_bad_revision_is_halted_and_rolled_back_in_the_same_run(story: Story) -> None:
    run = story.runs["bad"]
    assert run.status != 0
    assert "the catalogue of 3.0 cannot be read" in run.said
    assert story.seen["bad"] == everyone("2.0"), run.said


def test_the_way_back_reaches_every_host(story: Story) -> None:
    assert story.runs["back"].status == 0, story.runs["back"].said
    assert story.seen["back"] == everyone("1.0")


def test_no_request_failed(story: Story) -> None:
    seconds = story.loaded[1] - story.loaded[0]
    assert story.load["sent"] >= 200 * (seconds - 2), story.load
    assert story.load["failed"] == 0, story.load
    assert set(story.load["statuses"]) == {"200"}, story.load
    assert set(story.load["versions"]) == {"1.0", "2.0", "3.0"}, story.load


def test_the_floor_was_never_broken(story: Story) -> None:
    assert not story.samples.errors
    assert story.samples.longest_gap < 30.0
    # A target is away for longer than what lies between two looks.
    assert len(story.samples.seen) > story.loaded[1] - story.loaded[0]
    assert story.samples.minimum == FLOOR, "never below, and the whole budget was used"
    assert len(story.samples.seen[-1][1]) == SIZE, "at the end all are in service"


def test_the_record_tells_the_same_story(story: Story) -> None:
    deployments = list(reversed(story.controller.deployments()))
    told = [(d.strategy, d.creator, d.status) for d in deployments]
    assert told == [
        *[("rolling", "user", "Succeeded")] * 3,
        ("rolling", "user", "Failed"),
        ("rollback", "codeDeployRollback", "Succeeded"),
        ("rollback", "user", "Succeeded"),
    ]
    first, update, again, bad, rolled_back, back = deployments
    assert update.revision.digest == again.revision.digest == rolled_back.revision.digest
    assert back.revision.digest == first.revision.digest
    assert (bad.error_code, bad.rolled_back_by) == ("HEALTH_CONSTRAINTS", rolled_back.id)
    assert rolled_back.rollback_of == bad.id
    for deployment in deployments:
        for target in story.controller.targets(deployment.id).values():
            assert target.status in ("Succeeded", "Failed", "Skipped"), target
            if deployment.status == "Succeeded":
                assert target.status == "Succeeded", target
            if target.started_at and target.finished_at:
                assert deployment.created_at <= target.started_at <= target.finished_at
    assert {name: t.changed for name, t in story.controller.targets(again.id).items()} == (
        dict.fromkeys(NAMES, False)
    )


def test_the_record_tells_what_the_bad_revision_met(story: Story) -> None:
    deployments = list(reversed(story.controller.deployments()))
    bad, rolled_back = deployments[3:5]
    ended = {name: t.status for name, t in story.controller.targets(bad.id).items()}
    lost = {name for name in NAMES if ended[name] == "Failed"}
    assert len(lost) == SIZE - FLOOR
    assert lost < set(BAD)
    assert set(ended.values()) == {"Failed", "Skipped", "Succeeded"}
    changed = {name for name, status in ended.items() if status != "Skipped"}
    assert set(story.controller.targets(rolled_back.id)) == changed
    failed = [e for e in story.controller.events(bad.id) if e.target and e.log]
    failed = [e for e in failed if e.status == "Failed"]
    assert {e.target for e in failed} == lost
    assert {e.event for e in failed} == {"ValidateService"}
    assert all("catalogue" in e.log for e in failed), failed


def test_every_target_went_through_the_events_in_codedeploys_order(story: Story) -> None:
    update = list(reversed(story.controller.deployments()))[1]
    order: dict[str, list[str]] = {}
    expected = [
        "BeforeBlockTraffic",
        "BlockTraffic",
        "AfterBlockTraffic",
        "ApplicationStop",
        "DownloadBundle",
        "BeforeInstall",
        "Install",
        "AfterInstall",
        "ApplicationStart",
        "ValidateService",
        "BeforeAllowTraffic",
        "AllowTraffic",
        "AfterAllowTraffic",
    ]
    for event in story.controller.events(update.id):
        if event.event in expected:
            order.setdefault(event.target, []).append(event.event)
    for name in NAMES:
        # Events without a hook may be left out; those that do something may not.
        seen = order[name]
        assert seen == [event for event in expected if event in seen]
        needed = {"BlockTraffic", "ApplicationStop", "Install", "ApplicationStart"}
        assert needed | {"ValidateService", "AllowTraffic"} <= set(seen)
