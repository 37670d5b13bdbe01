"""Instances of EC2 behind an Application Load Balancer: a revision rolls through them under load.

The instances are real hosts, the load balancer moves real requests and hears of everything two
seconds late, as AWS's own do. One story, told once; each test proves one claim of it.
"""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from support import alb
from support.alb.site import Site
from support.bundles import PORT, web
from support.fleet import CONTROLLER, Fleet, interpreter
from support.rollout import BIN, Controller, Run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZE = 8
FLOOR = 4
RATE = 200
SLOW_RATE = 10
FRONT = 8000
API = 5000
PROPAGATION = 2.0
# Longer than a slow request lasts that came while the order was on its way.
DELAY = 5
# Four failures exhaust the budget.
BROKEN = """\
#!/bin/sh
echo "the catalogue of {version} cannot be read" >&2
exit 9
"""
NAMES = [f"h{number}" for number in range(1, SIZE + 1)]


@dataclass
class Story:
    """What every run said, and what was seen from outside meanwhile."""

    fleet: Fleet
    controller: Controller
    service: alb.Alb
    group: str = ""
    runs: dict[str, Run] = field(default_factory=dict)
    versions: dict[str, list[str]] = field(default_factory=dict)
    calls: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    load: dict[str, Any] = field(default_factory=dict)
    slow: dict[str, Any] = field(default_factory=dict)
    loaded: tuple[float, float] = (0.0, 0.0)
    samples: list[tuple[float, int]] = field(default_factory=list)

    def run(self, name: str, playbook: str, *options: str, **variables: Any) -> None:
        self.fleet.inside(self.service.forget_calls)
        self.runs[name] = self.controller.playbook(playbook, *options, **variables)
        self.calls[name] = self.fleet.inside(lambda: self.service.calls("elasticloadbalancing"))
        self.versions[name] = [self.version(host) for host in NAMES]

    def version(self, name: str) -> str:
        """What the application on a host answers, asked past the load balancer."""
        try:
            with self.fleet.connect(self.fleet.host(name).address, PORT) as connection:
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                answer = b"".join(iter(lambda: connection.recv(4096), b"")).decode()
        except OSError:
            return "nothing"
        return answer.rpartition("\r\n\r\n")[2].split()[0]


def set_up(story: Story) -> Path:
    """Make the instances and the load balancer; returns the inventory with the instances' ids."""
    site = Site(story.service)
    story.group = site.group("web", delay=DELAY, Port=PORT)
    site.listen({story.group: 1}, port=FRONT)
    content = json.loads(story.fleet.inventory.read_text())
    for name, variables in content["all"]["children"]["web"]["hosts"].items():
        variables["instance_id"] = site.instance(name, story.fleet.host(name).address)
    path = story.controller.state.parent / "instances.yml"
    path.write_text(json.dumps(content))
    return path


def sample(story: Story, ended: threading.Event) -> None:
    """Write down how many targets are healthy by what describe_target_health says."""
    client = Site(story.service).elbv2
    while not ended.is_set():
        answer = client.describe_target_health(TargetGroupArn=story.group)
        states = [one["TargetHealth"]["State"] for one in answer["TargetHealthDescriptions"]]
        story.samples.append((time.time(), states.count("healthy")))
        time.sleep(0.2)


def loadgen(story: Story, path: str, rate: int, report: Path) -> subprocess.Popen[Any]:
    url = f"http://{CONTROLLER}:{FRONT}{path}"
    return story.fleet.popen(
        [BIN / "python", "-m", "bascule.demo.loadgen", url, "--rate", str(rate), "--json", report],
        stdout=subprocess.DEVNULL,
    )


def tell(story: Story, revisions: dict[str, Path], folder: Path) -> None:
    """Run the whole story."""
    story.run("first", "rolling", deploy_revision=revisions["1.0"], deploy_minimum_healthy_hosts=0)
    assert story.runs["first"].status == 0, story.runs["first"].said
    ended = threading.Event()
    watcher = threading.Thread(
        target=lambda: story.fleet.inside(lambda: sample(story, ended)), daemon=True
    )
    loads = [
        loadgen(story, "/", RATE, folder / "load.json"),
        loadgen(story, "/slow/2", SLOW_RATE, folder / "slow.json"),
    ]
    started = time.time()
    time.sleep(1)
    story.run("plan", "rolling", "--check", "--diff", deploy_revision=revisions["2.0"])
    # The sampler's own calls are none of the plan's, and come after it.
    watcher.start()
    story.run("update", "rolling", deploy_revision=revisions["2.0"])
    story.run("bad", "rolling", deploy_revision=revisions["3.0"])
    time.sleep(1)
    story.loaded = (started, time.time())
    for load in loads:
        load.send_signal(signal.SIGTERM)
    for load in loads:
        load.wait(timeout=60)
    ended.set()
    watcher.join(60)
    story.load = json.loads((folder / "load.json").read_text())
    story.slow = json.loads((folder / "slow.json").read_text())


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("alb")
    python = interpreter()
    revisions = {v: web(folder / v, v, python=python) for v in ("1.0", "2.0")}
    revisions["3.0"] = web(folder / "3.0", "3.0", python=python, hooks={"validate.sh": BROKEN})
    with (
        Fleet(SIZE) as fleet,
        alb.running(
            folder / "service",
            propagation=PROPAGATION,
            address=CONTROLLER,
            port=API,
            popen=fleet.popen,
            inside=fleet.inside,
        ) as service,
    ):
        variables = {
            "deploy_application": "web",
            "deploy_targets": "web",
            "deploy_minimum_healthy_hosts": FLOOR,
            "deploy_traffic_provider": "elbv2",
            "deploy_elbv2_target_groups": ["web"],
            "deploy_elbv2_propagation": f"{PROPAGATION + 0.5}s",
            "deploy_traffic_target_port": PORT,
            "deploy_traffic_drain_timeout": "60s",
            "deploy_traffic_restore_timeout": "60s",
        }
        controller = Controller(
            fleet.inventory,
            folder / "state",
            variables,
            within=fleet.command,
            environment=service.environment,
        )
        story = Story(fleet, controller, service)
        controller.inventory = fleet.inside(lambda: set_up(story))
        tell(story, revisions, folder)
        yield story


def test_the_first_deployment_registers_every_instance(story: Story) -> None:
    assert story.versions["first"] == ["1.0"] * SIZE


def test_a_plan_makes_no_call_that_changes_anything(story: Story) -> None:
    assert story.runs["plan"].status == 0, story.runs["plan"].said
    assert story.calls["plan"], "the load balancer was asked"
    assert not [one for one in story.calls["plan"] if one["mutating"]]
    assert story.versions["plan"] == ["1.0"] * SIZE
    assert "h1: healthy" in story.runs["plan"].said
    assert "h1: out of service" in story.runs["plan"].said


def test_an_update_reaches_every_instance(story: Story) -> None:
    assert story.runs["update"].status == 0, story.runs["update"].said
    assert story.versions["update"] == ["2.0"] * SIZE


def test_a_bad_revision_is_rolled_back_in_the_same_run(story: Story) -> None:
    run = story.runs["bad"]
    assert run.status != 0
    assert "the catalogue of 3.0 cannot be read" in run.said
    assert story.versions["bad"] == ["2.0"] * SIZE, run.said


def test_no_request_failed(story: Story) -> None:
    seconds = story.loaded[1] - story.loaded[0]
    assert story.load["sent"] >= 0.9 * RATE * (seconds - 2), story.load
    assert story.load["failed"] == 0, story.load
    assert set(story.load["statuses"]) == {"200"}, story.load
    assert set(story.load["versions"]) == {"1.0", "2.0"}, story.load


def test_no_request_in_flight_was_cut(story: Story) -> None:
    assert story.slow["sent"] > 0
    assert story.slow["failed"] == 0, story.slow
    assert set(story.slow["statuses"]) == {"200"}, story.slow


def test_the_floor_was_never_broken(story: Story) -> None:
    assert len(story.samples) > 20
    assert min(count for _at, count in story.samples) == FLOOR
    assert story.samples[-1][1] == SIZE, "at the end all are in service"


def test_targets_share_calls(story: Story) -> None:
    changes = [one for one in story.calls["update"] if one["mutating"]]
    assert {one["action"] for one in changes} == {"DeregisterTargets", "RegisterTargets"}
    assert len(changes) < 2 * SIZE, "what happened at the same moment was one call"
