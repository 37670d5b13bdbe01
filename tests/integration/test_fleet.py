"""The fleet of namespaces is what the end-to-end tests take it for."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.fleet import (
    CONTROLLER,
    NAMESPACES,
    RUN,
    Fleet,
    FleetError,
    leftovers,
    remove_leftovers,
    require,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with Fleet(3) as fleet:
        yield fleet


def test_every_host_answers_by_its_own_name_and_address(fleet: Fleet) -> None:
    for number, host in enumerate(fleet.hosts, 1):
        said = fleet.ssh(host.name, "hostname; ip -brief address show eth0; id -u")
        name, address, user = said.stdout.splitlines()
        assert (name, user) == (f"h{number}", "0")
        assert f"{host.address}/24" in address


def test_what_a_host_writes_stays_on_that_host(fleet: Fleet) -> None:
    path = "/opt/bascule-fleet-was-here"
    fleet.ssh("h1", f"echo here > {path}")
    assert (fleet.root("h1") / path.lstrip("/")).read_text() == "here\n"
    assert fleet.ssh("h2", f"cat {path}").returncode != 0
    assert not Path(path).exists()


def test_a_host_has_its_own_processes(fleet: Fleet) -> None:
    fleet.ssh("h1", "setsid sleep 98.7 >/dev/null 2>&1 </dev/null &")
    assert "sleep 98.7" in fleet.ssh("h1", "ps -eo args").stdout
    assert "sleep 98.7" not in fleet.ssh("h2", "ps -eo args").stdout


def test_nothing_leaves_the_machine(fleet: Fleet) -> None:
    routes = fleet.run(["ip", "-json", "route", "show", "default"]).stdout.strip()
    assert routes == "[]"
    assert fleet.ssh("h1", "ip -json route show default").stdout.strip() == "[]"


def test_hosts_reach_the_controller(fleet: Fleet) -> None:
    server = fleet.popen(
        [sys.executable, "-m", "http.server", "--bind", CONTROLLER, "8099"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/run/netns",
    )
    code = f"import urllib.request as u; print(u.urlopen('http://{CONTROLLER}:8099/').status)"
    deadline = time.monotonic() + 60
    while (said := fleet.ssh("h2", f'python3 -c "{code}"')).returncode:
        assert time.monotonic() < deadline, said.stderr
    server.kill()
    server.wait()
    assert said.stdout.strip() == "200"


def test_a_dark_host_refuses_nothing_and_answers_nothing(fleet: Fleet) -> None:
    fleet.dark("h3")
    with pytest.raises(OSError, match=r"timed out|No route"):
        fleet.connect(fleet.host("h3").address, 22, timeout=0.5).close()
    fleet.light("h3")
    fleet.wait([fleet.host("h3")])
    assert fleet.ssh("h3", "hostname").stdout == "h3\n"


def test_a_killed_host_loses_its_processes_and_keeps_its_disk(fleet: Fleet) -> None:
    fleet.ssh("h2", "echo kept > /srv/kept; setsid sleep 98.6 >/dev/null 2>&1 </dev/null &")
    fleet.kill("h2")
    assert fleet.ssh("h2", "true").returncode == 255
    fleet.restart("h2")
    assert fleet.ssh("h2", "cat /srv/kept").stdout == "kept\n"
    assert "sleep 98.6" not in fleet.ssh("h2", "ps -eo args").stdout


def test_ansible_reaches_every_host(fleet: Fleet, tmp_path: Path) -> None:
    ansible = Path(sys.executable).with_name("ansible")
    said = fleet.run(
        [ansible, "-i", fleet.inventory, "web", "-m", "ansible.builtin.raw", "-a", "hostname"],
        cwd=tmp_path,
        env={**os.environ, "ANSIBLE_HOST_KEY_CHECKING": "True"},
    )
    assert said.returncode == 0, said.stdout + said.stderr
    assert {"h1", "h2", "h3"} <= set(said.stdout.split())


def test_a_fleet_whose_owner_was_killed_is_removed_by_the_next(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Under names of its own: other tests make fleets meanwhile, and would remove it first.
    monkeypatch.setattr("support.fleet.PREFIX", "bascule-lost-")
    code = (
        "import os, signal\nimport support.fleet\nsupport.fleet.PREFIX = 'bascule-lost-'\n"
        "fleet = support.fleet.Fleet(2).__enter__()\n"
        "print(fleet.name, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code], cwd=TESTS, capture_output=True, text=True, check=False
    )
    name = killed.stdout.strip()
    assert name in leftovers(), killed.stderr
    assert list(NAMESPACES.glob(f"{name}-*"))
    remove_leftovers()
    assert fleet.ssh("h1", "hostname").stdout == "h1\n", "a living fleet is left alone"
    assert not list(NAMESPACES.glob(f"{name}-*"))
    assert not list(RUN.glob(f"{name}*"))
    assert name not in Path("/proc/mounts").read_text()


def test_closing_leaves_nothing() -> None:
    with Fleet(1) as fleet:
        sleeper = fleet.popen(["sleep", "97"])
    assert sleeper.poll() is not None
    assert not list(NAMESPACES.glob(f"{fleet.name}-*"))
    assert not list(RUN.glob(f"{fleet.name}*"))
    assert fleet.name not in Path("/proc/mounts").read_text()


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("support.fleet.PROGRAMS", {"no-such-program": "no-such-package"})
    with pytest.raises(FleetError, match="needs the Debian package no-such-package"):
        require()


def test_a_user_who_is_not_root_is_told() -> None:
    code = "import os; from support.fleet import require; os.seteuid(65534); require()"
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=TESTS, capture_output=True, text=True, check=False
    )
    assert "needs root" in said.stderr
