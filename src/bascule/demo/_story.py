"""The demonstration: a fleet under load gets 1.0, then 2.0, then a 3.0 that must not stay."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bascule.demo import _envoy
from bascule.demo._fleet import Fleet
from bascule.demo._processes import MARK, NotStartedError, end, end_marked, free_ports, spawn
from bascule.demo._release import write_release

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bascule.result import Deployment

TARGETS = 4
MINIMUM_HEALTHY = 3
RATE = 150
SETTLE_SECONDS = 1.0
LOAD_PATIENCE = 30.0
APPLICATION = "hello"


class EndedEarlyError(Exception):
    """The story cannot go on."""


class InterruptedStoryError(Exception):
    """Somebody has asked to end."""


class Interrupts:
    """Whether somebody has asked to end, by SIGINT or SIGTERM.

    A signal only notes it, and the story looks between two steps. So nothing that was just started
    is forgotten, and the stopping is never cut short.
    """

    def __init__(self) -> None:
        """Nobody has asked yet."""
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        """Take the signals."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_reason: object) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __call__(self) -> bool:
        """Tell whether somebody has asked."""
        return self.asked

    def _note(self, *_signal: object) -> None:
        self.asked = True

    def look(self) -> None:
        """Raise InterruptedStoryError if somebody has asked."""
        if self.asked:
            raise InterruptedStoryError

    def wait(self, seconds: float) -> None:
        """Wait so long, or until somebody asks, which is raised."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.look()
            time.sleep(min(0.05, left))
        self.look()


@dataclass
class Story:
    """What has happened so far."""

    directory: Path
    fleet: Fleet
    interrupts: Interrupts
    deployments: list[Deployment] = field(default_factory=list)
    load: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def record(self) -> str:
        """Where the record is, as an address."""
        return f"sqlite:///{self.directory / 'state/record.db'}"

    def went_as_told(self) -> list[str]:
        """Return what is not as it should be; nothing if all is."""
        statuses = [one.status for one in self.deployments]
        wrong = []
        if statuses != ["Succeeded", "Succeeded", "Failed", "Succeeded"]:
            wrong.append(f"the deployments ended as {', '.join(statuses)}")
        if set(self.versions.values()) != {"2.0"}:
            wrong.append(f"the targets run {self.versions}, wanted 2.0 on all")
        if self.load.get("failed", 1) or not self.load.get("sent"):
            wrong.append(f"{self.load.get('failed', 'all')} requests failed")
        return wrong


def main() -> int:
    """Tell the story in a new folder, and stop everything that was started.

    :returns: 0 if all went as told, 1 if not, 2 where it cannot begin, 4 when it was interrupted
    """
    with Interrupts() as interrupts:
        return _main(interrupts)


def _main(interrupts: Interrupts) -> int:
    begun = time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix="bascule-demo-"))
    try:
        story = _tell(directory, interrupts)
    except NotStartedError as error:
        say(f"The demonstration cannot begin: {error}")
        return 2
    except EndedEarlyError as error:
        say(f"\nThe demonstration ended early: {error}")
        say(f"Its files are in {directory}")
        return 1
    except InterruptedStoryError:
        say("\nInterrupted; everything that was started is stopped.")
        return 4
    _sum_up(story, time.monotonic() - begun)
    wrong = story.went_as_told()
    for reason in wrong:
        say(f"Not as told: {reason}.")
    return 1 if wrong else 0


def say(text: str = "") -> None:
    """Write a line at once, also into a pipe."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _tell(directory: Path, interrupts: Interrupts) -> Story:
    port, admin_port, *ports = free_ports(TARGETS + 2)
    story = Story(directory, Fleet(directory, ports), interrupts)
    with contextlib.ExitStack() as ending:
        ending.enter_context(_guarded(directory))
        ending.enter_context(_marked(directory))
        envoy = _envoy.start(directory / "envoy", port, admin_port, ports, stop=interrupts)
        ending.callback(envoy.stop)
        interrupts.look()
        story.fleet.write(_variables(directory, envoy))
        say(f"{TARGETS} targets on this machine behind Envoy at {envoy.url}, in {directory}")
        _deploy(story, "in_place", "1.0", "on all targets at once", deploy_minimum_healthy_hosts=0)
        say(f"\nFrom now on {RATE} requests a second go through Envoy.")
        with _load(directory, envoy.url, story):
            interrupts.wait(SETTLE_SECONDS)
            floor = f"{MINIMUM_HEALTHY} of {TARGETS} targets stay in service"
            _deploy(story, "rolling", "2.0", floor)
            for host in story.fleet.hosts[1:]:
                host.break_health("3.0")
            _deploy(story, "rolling", "3.0", "its health check will fail on the second target")
            interrupts.wait(SETTLE_SECONDS)
            story.versions = story.fleet.versions()
    return story


@contextlib.contextmanager
def _marked(directory: Path) -> Iterator[None]:
    """Mark all that is started in the block, by whomever, and stop it at the end."""
    os.environ[MARK] = str(directory)
    try:
        yield
    finally:
        del os.environ[MARK]
        end_marked(directory)


@contextlib.contextmanager
def _guarded(directory: Path) -> Iterator[None]:
    """Have everything stopped if we are killed."""
    command = [sys.executable, "-m", "bascule.demo._guard", str(directory)]
    with (directory / "guard.log").open("ab") as log:
        guard = subprocess.Popen(  # noqa: S603 - our own module
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
            text=True,
        )

    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            guard.communicate("done\n")
        guard.wait()


def _variables(directory: Path, envoy: _envoy.Envoy) -> dict[str, Any]:
    return {
        "deploy_application": APPLICATION,
        "deploy_group": "demo",
        "deploy_state_directory": str(directory / "state"),
        "deploy_minimum_healthy_hosts": MINIMUM_HEALTHY,
        # One target first, alone: so it is known which one is the second.
        "deploy_stages": [1, "100%"],
        "deploy_health_gates": [
            {
                "type": "http",
                "port": "{{ deploy_traffic_target_port }}",
                "path": "/health",
                "interval": "200ms",
                "hold": "1s",
                "deadline": "4s",
            }
        ],
        "deploy_traffic_provider": "envoy",
        "deploy_traffic_hosts": ["localhost"],
        "deploy_envoy_eds_path": str(envoy.eds_path),
        "deploy_envoy_cluster": _envoy.CLUSTER,
        "deploy_envoy_admin_url": envoy.admin_url,
    }


def _deploy(story: Story, strategy: str, version: str, about: str, **variables: object) -> None:
    import bascule

    say(f"\nDeploying {version}, {strategy}: {about}")
    revision = write_release(story.directory / "releases" / version, version)
    show = _renderer()
    interrupted: list[str] = []
    story.interrupts.look()

    def notice(text: str) -> None:
        interrupted.append(text)
        say(text)

    deployment = bascule.deploy(
        strategy,
        inventory=story.fleet.inventory,
        revision=revision,
        variables=variables,
        record=story.record,
        on_event=show.event,
        cancel=story.interrupts,
        notice=notice,
    )
    show.close()
    story.interrupts.look()
    # A deployment whose targets were all in flight ends well; the story must not go on.
    if interrupted or deployment.interrupted:
        raise InterruptedStoryError
    if deployment.id is None:
        reason = deployment.error.message if deployment.error else deployment.status
        raise EndedEarlyError(f"{version} could not be deployed: {reason}")
    story.deployments.append(deployment)
    if deployment.rolled_back_by:
        story.deployments.append(bascule.status(deployment.rolled_back_by, record=story.record))


def _renderer() -> Any:
    from ansible_collections.bascule.deploy.plugins.plugin_utils._progress import (
        LiveRenderer,
        PlainRenderer,
        live_console,
    )

    console = live_console(sys.stdout) if sys.stdout.isatty() else None
    return LiveRenderer(console) if console is not None else PlainRenderer(say)


@contextlib.contextmanager
def _load(directory: Path, url: str, story: Story) -> Iterator[None]:
    """Send requests while in the block; how they fared is in the story afterwards."""
    report = directory / "load.json"
    process = spawn(
        [sys.executable, "-m", "bascule.demo.loadgen", url, "--rate", str(RATE),
         "--json", str(report)],
        directory / "load.log",
    )  # fmt: skip
    try:
        yield
    finally:
        # It waits for the answers to all its requests.
        end(process, patience=LOAD_PATIENCE)
        with contextlib.suppress(OSError, ValueError):
            story.load = json.loads(report.read_text(encoding="utf-8"))


def _sum_up(story: Story, seconds: float) -> None:
    from bascule.cli._output import columns, overview, revision_text, took

    say(f"\nWhat happened, in {seconds:.0f} s:")
    rows = [
        (
            one.id or "",
            one.status,
            took(one),
            revision_text(one) + (f", rollback of {one.rollback_of}" if one.rollback_of else ""),
            overview(one),
        )
        for one in story.deployments
    ]
    for line in columns(rows, ("id", "status", "took", "revision", "targets")):
        say(f"  {line}")
    load = story.load
    if load:
        versions = ", ".join(f"{name}: {count}" for name, count in sorted(load["versions"].items()))
        say(
            f"\n{load['sent']} requests in {load['seconds']:.0f} s, {load['failed']} failed "
            f"({versions}; slowest {load['latency_ms']['max']:.0f} ms)"
        )
    say("The targets run " + ", ".join(f"{n} {v or '?'}" for n, v in story.versions.items()))
    path = story.directory / "state/record.db"
    say(f"The record is {path}")
    say(f"  bascule history --record sqlite:///{path}")
    say(f"Everything that was started is stopped. Remove the rest with: rm -r {story.directory}")
