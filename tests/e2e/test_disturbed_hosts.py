"""What breaks in the middle of a deployment: connections, hosts, disks and the record's database.

One story on one fleet under load. In each of its runs something breaks on purpose; each test proves
one claim of it: the fleet ends as if nothing had happened, and no request failed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support import postgresql
from support.bundles import HOME, PORT, START, STOP, web
from support.fleet import CONTROLLER, Fleet, interpreter
from support.proxies import Endpoint, start_haproxy
from support.rollout import BIN, Controller, Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Deployment

SIZE = 6
NAMES = [f"h{number}" for number in range(1, SIZE + 1)]
# Who meets what; h5 is reached by the modules, through a terminal, and h6 is left alone.
DROPPED, REBOOTED, FULL, DARK, BY_MODULE = NAMES[:5]
RATE = 100
FRONT = 8000
BEGUN = "opt/begun"
STARTS = "opt/starts"
FILL = "opt/fill"
DISK = 24 * 1024 * 1024

# It tells of every time that it runs, and takes its time the first time.
SLOW_START = (
    START.replace(
        "#!/bin/sh\n",
        "#!/bin/sh\n"
        f"echo {{version}} $HOOK_ATTEMPT >>/{STARTS}\n"
        f"touch /{BEGUN}-{{version}}\n"
        "[ $HOOK_ATTEMPT = 1 ] && sleep {pause}\n",
    )
    + "echo started {version}\n"
)
# The disk of the application fills up in the middle, whoever it is that fills it.
FILLING_STOP = STOP.replace(
    "pid=$(cat",
    f"[ -e /{FILL} ] && dd if=/dev/zero of={{home}}/ballast bs=64k 2>/dev/null\npid=$(cat",
)


@dataclass
class Story:
    """What every run said, and what was seen of the hosts after it."""

    fleet: Fleet
    controller: Controller
    runs: dict[str, Run] = field(default_factory=dict)
    seen: dict[str, dict[str, str]] = field(default_factory=dict)
    load: dict[str, Any] = field(default_factory=dict)
    happened: list[str] = field(default_factory=list)
    kept: str = ""
    left: list[str] = field(default_factory=list)

    def run(self, name: str, make: Callable[[], Run], *disturbances: threading.Thread) -> Run:
        for thread in disturbances:
            thread.start()
        self.runs[name] = run = make()
        for thread in disturbances:
            thread.join()
        self.seen[name] = {host: self.version(host) for host in NAMES}
        return run

    def deploy(
        self, name: str, revision: Path, *disturbances: threading.Thread, **variables: Any
    ) -> Run:
        return self.run(
            name,
            lambda: self.controller.playbook("rolling", deploy_revision=revision, **variables),
            *disturbances,
        )

    def version(self, host: str) -> str:
        """What the application on a host answers, asked past the load balancer; empty if down."""
        try:
            address = self.fleet.host(host).address
            with self.fleet.connect(address, PORT, timeout=60.0) as connection:
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                answer = b"".join(iter(lambda: connection.recv(4096), b"")).decode()
        except OSError:
            return ""
        return answer.rpartition("\r\n\r\n")[2].split()[0]

    def path(self, host: str, name: str) -> Path:
        """A file on a host's disk, whether the host runs or not."""
        return self.fleet.host(host).folder / "upper" / name

    def deployment(self, version: str, *, newest: bool = True) -> Deployment:
        """A deployment of a version in the record that is a file: the newest or the oldest."""
        found = [
            one for one in self.controller.deployments() if one.revision.source.endswith(version)
        ]
        return found[0 if newest else -1]

    def programs(self) -> list[str]:
        """The command lines on the hosts, but those of sshd and the application."""
        found = []
        for host in self.fleet.hosts:
            for pid in pids(host.namespace):
                with contextlib.suppress(OSError):
                    command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
                    # One that is just ending has none any more.
                    if command:
                        found.append(f"{host.name}: {command.decode()}")
        known = ("sshd", "server.py", "unshare")
        return [one for one in found if not any(word in one for word in known)]

    def staying(self) -> list[str]:
        """What still runs on the hosts when all that comes to its end has had its time."""
        deadline = time.monotonic() + 60
        while (left := self.programs()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return left

    def starts(self, host: str, version: str) -> list[str]:
        """The attempts of the start script of a version on a host."""
        lines = self.path(host, STARTS).read_text().splitlines()
        return [line.split()[1] for line in lines if line.split()[0] == version]

    def when_begun(self, host: str, version: str, work: Callable[[], object]) -> threading.Thread:
        """Return a thread that does something once a version's start script has begun."""
        mark = self.path(host, f"{BEGUN}-{version}")

        def wait() -> None:
            deadline = time.monotonic() + 200
            while not mark.exists():
                if time.monotonic() > deadline:
                    return
                time.sleep(0.02)
            self.happened.append(host)
            work()

        return threading.Thread(target=wait)

    # --- What breaks ----------------------------------------------------------------------

    def drop(self, host: str) -> None:
        """End the host's side of every ssh connection, as a firewall that forgets does."""
        for pid in pids(self.fleet.host(host).namespace):
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                if command.startswith(b"sshd: ") and b"listener" not in command:
                    os.kill(pid, signal.SIGKILL)

    def reboot(self, host: str) -> None:
        """End everything on a host; it is back after a few seconds."""
        self.fleet.kill(host)
        time.sleep(3)
        self.fleet.restart(host)

    def cut(self, host: str) -> None:
        """Unplug a host for longer than ssh waits for it."""
        self.fleet.dark(host)
        time.sleep(8)
        self.fleet.light(host)

    def until_written(self, host: str, version: str) -> None:
        """Wait until a host's scripts have done their work, and ten seconds to write that down."""
        deadline = time.monotonic() + 30
        while self.version(host) != version and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(10)

    def fill(self, host: str, version: str) -> None:
        """Let the controller's disk be full when a host has something to tell."""
        ballast = self.controller.state / "ballast"
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(65_536))
        self.until_written(host, version)
        ballast.unlink()

    def stop_database(self, server: postgresql.Server, host: str, version: str) -> None:
        """Let the record's database be away when a host has something to tell."""
        server.stop()
        self.until_written(host, version)
        server.start()

    def mount(self, host: str) -> None:
        """Give the application a small disk of its own."""
        inside = ["nsenter", f"--target={self.fleet.first_process(host)}", "--mount"]
        subprocess.run([*inside, "mkdir", "-p", HOME], check=True)
        subprocess.run(
            [*inside, "mount", "-t", "tmpfs", "-o", f"size={DISK}", "app", HOME], check=True
        )


def pids(namespace: str) -> list[int]:
    said = subprocess.run(
        ["ip", "netns", "pids", namespace], capture_output=True, text=True, check=True
    )
    return [int(pid) for pid in said.stdout.split()]


def revision(folder: Path, version: str, pause: int) -> Path:
    start = SLOW_START.replace("{pause}", str(pause))
    hooks = {"start.sh": start, "stop.sh": FILLING_STOP}
    return web(folder / version, version, python=interpreter(), hooks=hooks)


def tell(story: Story, folder: Path) -> None:
    """Run the whole story."""
    fleet = story.fleet
    story.mount(FULL)
    story.deploy("first", revision(folder, "1.0", 0))
    assert story.runs["first"].status == 0, story.runs["first"].said
    report = folder / "load.json"
    url = f"http://{CONTROLLER}:{FRONT}/"
    load = fleet.popen(
        [BIN / "python", "-m", "bascule.demo.loadgen", url, "--rate", str(RATE), "--json", report],
        stdout=subprocess.DEVNULL,
    )
    (fleet.root(FULL) / FILL).touch()
    second = revision(folder, "2.0", 8)
    story.deploy(
        "disturbed",
        second,
        story.when_begun(DROPPED, "2.0", lambda: story.drop(DROPPED)),
        story.when_begun(REBOOTED, "2.0", lambda: story.reboot(REBOOTED)),
        story.when_begun(DARK, "2.0", lambda: story.cut(DARK)),
        story.when_begun(BY_MODULE, "2.0", lambda: story.drop(BY_MODULE)),
    )
    home = fleet.root(FULL) / HOME.lstrip("/")
    story.kept = (home / "app/VERSION").read_text()
    (fleet.root(FULL) / FILL).unlink()
    (home / "ballast").unlink()
    story.deploy("room again", second)
    story.deploy(
        "full controller",
        revision(folder, "3.0", 1),
        story.when_begun("h1", "3.0", lambda: story.fill("h1", "3.0")),
    )
    with postgresql.server() as server:
        server.create("bascule")
        story.deploy(
            "database away",
            revision(folder, "4.0", 1),
            story.when_begun("h1", "4.0", lambda: story.stop_database(server, "h1", "4.0")),
            deploy_record=server.socket_url("bascule"),
        )
    story.left = story.staying()
    load.send_signal(signal.SIGTERM)
    load.wait(timeout=60)
    story.load = json.loads(report.read_text())


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("disturbed")
    with Fleet(SIZE) as fleet:
        inventory = json.loads(fleet.inventory.read_text())
        hosts = inventory["all"]["children"]["web"]["hosts"]
        hosts[BY_MODULE]["ansible_pipelining"] = False
        quickly = "-o ControlMaster=auto -o ControlPersist=60s -o ServerAliveInterval=1"
        hosts[DARK]["ansible_ssh_args"] = f"{quickly} -o ServerAliveCountMax=2"
        fleet.inventory.write_text(json.dumps(inventory))
        endpoints = [Endpoint(host.name, host.address, PORT) for host in fleet.hosts]
        proxy = start_haproxy(
            folder / "proxy", endpoints, listen=CONTROLLER, port=FRONT, command=fleet.command([])
        )
        variables = {
            "deploy_application": "web",
            "deploy_targets": "web",
            "deploy_minimum_healthy_hosts": 1,
            "deploy_health_gates": [{"type": "http", "port": PORT, "path": "/health"}],
            "deploy_traffic_provider": "haproxy",
            "deploy_traffic_target_port": PORT,
            "deploy_haproxy_socket": proxy.options["socket"],
            "deploy_haproxy_backend": proxy.options["backend"],
        }
        state = folder / "state"
        state.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "state", state], check=True)
        controller = Controller(fleet.inventory, state, variables, within=fleet.command)
        story = Story(fleet, controller)
        try:
            tell(story, folder)
            yield story
        finally:
            proxy.stop()
            subprocess.run(["umount", "--lazy", state], check=True)


def test_no_request_failed(story: Story) -> None:
    assert story.load["failed"] == 0, story.load
    assert set(story.load["statuses"]) == {"200"}, story.load


def test_every_disturbance_met_a_script_in_the_middle(story: Story) -> None:
    assert sorted(story.happened) == sorted((DROPPED, REBOOTED, DARK, BY_MODULE, "h1", "h1"))


def test_a_lost_connection_and_a_reboot_change_nothing_in_the_end(story: Story) -> None:
    run = story.runs["disturbed"]
    assert run.status == 0, run.said
    assert {name for name in NAMES if story.seen["disturbed"][name] != "2.0"} == {FULL}, run.said
    for name in (DROPPED, REBOOTED, DARK, BY_MODULE):
        assert run.said.count(f"{name}: the connection was lost") == 1, run.said


def test_a_script_goes_on_without_its_connection(story: Story) -> None:
    for name in (DROPPED, DARK, BY_MODULE):
        assert story.starts(name, "2.0") == ["1"], name


def test_a_script_that_a_reboot_ended_runs_again_and_knows_it(story: Story) -> None:
    assert story.starts(REBOOTED, "2.0") == ["1", "2"]


def test_the_record_tells_of_every_script_once(story: Story) -> None:
    deployment = story.deployment("2.0", newest=False)
    for name in (DROPPED, REBOOTED, DARK, BY_MODULE):
        events = [e for e in story.controller.events(deployment.id) if e.target == name]
        starts = [event for event in events if event.event == "ApplicationStart"]
        assert [event.status for event in starts] == ["Succeeded"], name
        assert "started 2.0" in starts[0].log, "what it said after the connection was lost"


def test_a_full_disk_of_a_host_leaves_the_earlier_revision(story: Story) -> None:
    assert story.kept == "1.0\n"
    target = story.controller.targets(story.deployment("2.0", newest=False).id)[FULL]
    assert target.status == "Failed"
    for words in ("Not enough space", f"{HOME}/app", "0 are free", "nothing was replaced"):
        assert words in target.message


def test_with_room_again_only_the_host_that_had_none_is_deployed(story: Story) -> None:
    run = story.runs["room again"]
    assert run.status == 0, run.said
    assert story.seen["room again"] == dict.fromkeys(NAMES, "2.0")
    targets = story.controller.targets(story.deployment("2.0").id)
    assert {name for name in NAMES if targets[name].changed} == {FULL}


def test_a_full_disk_of_the_controller_is_waited_for(story: Story) -> None:
    run = story.runs["full controller"]
    assert run.status == 0, run.said
    told = [line for line in run.said.splitlines() if line.startswith("bascule: The record")]
    assert any("make room on its file system" in line for line in told), told
    assert any("answers again" in line for line in told), told
    assert story.seen["full controller"] == dict.fromkeys(NAMES, "3.0")
    assert {name: story.starts(name, "3.0") for name in NAMES} == {name: ["1"] for name in NAMES}


def test_a_database_that_is_away_is_waited_for(story: Story) -> None:
    run = story.runs["database away"]
    assert run.status == 0, run.said
    assert "answers again" in run.said
    assert story.seen["database away"] == dict.fromkeys(NAMES, "4.0")
    assert {name: story.starts(name, "4.0") for name in NAMES} == {name: ["1"] for name in NAMES}


def test_nothing_of_bascule_stays_running_on_a_host(story: Story) -> None:
    assert story.left == []
