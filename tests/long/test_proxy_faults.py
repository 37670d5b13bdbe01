"""Faults at each proxy: every one gives one clear message, and no user loses a request."""

from __future__ import annotations

import contextlib
import http.client
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import TrafficError
from ansible_collections.bascule.deploy.plugins.module_utils._host import _traffic
from support import proxies
from support.pools import START, Pools, pools
from support.site import sites
from support.twopools import until

if TYPE_CHECKING:
    from collections.abc import Iterator

# What each proxy is reached by, and what is said where that is away.
AWAY = {
    "envoy": ("admin_url", "http://127.0.0.1:9", r"127\.0\.0\.1:9"),
    "haproxy": ("socket", "/nowhere/admin.sock", r"/nowhere/admin\.sock.*level admin"),
    "nginx": ("pid_path", "/nowhere/nginx.pid", r"nginx does not run: /nowhere/nginx\.pid"),
}
# The file that holds the routing.
FILES = {"envoy": "routes_path", "haproxy": "map_path"}


@pytest.fixture(scope="module", params=sorted(START))
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pools]:
    """One proxy whose files are on a small disk of their own."""
    folder = tmp_path_factory.mktemp("faults")
    disk = folder / str(request.param)
    disk.mkdir()
    _mount("mount", "-t", "tmpfs", "-o", "size=4m", "bascule", str(disk))
    try:
        with pools(str(request.param), folder) as made:
            made.share(blue=50, green=50)
            yield made
    finally:
        _mount("umount", "--lazy", str(disk))


def _mount(command: str, *words: str) -> None:
    subprocess.run([f"/bin/{command}", *words], check=True)  # noqa: S603 (the words are ours)


def routing_file(site: Pools) -> Path:
    options = site.proxy.options
    if site.provider == "nginx":
        return Path(options["directory"]) / "routing.conf"
    return Path(options[FILES[site.provider]])


@contextlib.contextmanager
def full_disk(site: Pools) -> Iterator[None]:
    filler = routing_file(site).parent / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (1 << 16, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * size)
    try:
        yield
    finally:
        filler.unlink()


def test_what_a_proxy_is_reached_by_is_away(site: Pools) -> None:
    name, elsewhere, message = AWAY[site.provider]
    load = site.load(50)
    kept = site.proxy.options[name]
    site.proxy.options[name] = elsewhere
    try:
        with pytest.raises(TrafficError, match=message):
            site.share(blue=10, green=90)
    finally:
        site.proxy.options[name] = kept
    assert set(site.ask(60)) == {"blue", "green"}
    assert load()["failures"] == {}


def test_a_full_disk_leaves_what_was_and_users_are_served(site: Pools) -> None:
    site.share(blue=50, green=50)
    before = routing_file(site).read_text()
    load = site.load(50)
    with full_disk(site):
        with pytest.raises(TrafficError, match="No space left on device"):
            site.share(blue=10, green=90)
        assert routing_file(site).read_text() == before
        assert set(site.ask(60)) == {"blue", "green"}
    assert site.share(blue=10, green=90)["changed"]
    assert load()["failures"] == {}


def test_the_way_back_on_a_full_disk(site: Pools) -> None:
    site.share(blue=50, green=50)
    load = site.load(50)
    with full_disk(site):
        (warning,) = site.share(blue=100, green=0)["warnings"]
        assert "No space left on device" in warning
        assert site.ask(60) == {"blue": 60}
        if site.provider == "envoy":
            # Its file is the routing; and what took its place has left room for the next time.
            assert not site.share(blue=100, green=0)["changed"]
            (warning,) = site.share(blue=0, green=100)["warnings"]
            assert "No space left on device" in warning
            assert site.ask(60) == {"green": 60}
            with pytest.raises(TrafficError, match="No space left on device"):
                site.share(blue=50, green=50)
            site.share(blue=100, green=0)
    assert site.share(blue=100, green=0)["changed"] == (site.provider != "envoy"), "a file follows"
    assert not site.share(blue=100, green=0)["changed"]
    assert site.ask(60) == {"blue": 60}
    assert load()["failures"] == {}


def test_two_orders_at_once_are_one_after_the_other(site: Pools) -> None:
    site.share(blue=50, green=50)
    load = site.load(50)
    shares = (10, 30, 70, 90)

    def order(green: int) -> dict[str, Any] | TrafficError:
        try:
            return site.share(blue=100 - green, green=green)
        except TrafficError as error:
            return error

    with ThreadPoolExecutor(len(shares)) as all_at_once:
        answers = list(all_at_once.map(order, shares))
    shown = site.share(blue=100, green=0)["routing"]["before"]["weights"]["green"]
    assert shown in shares
    # Who was overtaken says so, and has taken nothing back that is another's.
    done = [answer for answer in answers if not isinstance(answer, TrafficError)]
    assert done
    assert any(answer["routing"]["after"]["weights"]["green"] == shown for answer in done)
    assert load()["failures"] == {}


def test_a_program_that_was_killed_between_file_and_proxy_is_caught_up_with(site: Pools) -> None:
    site.share(blue=50, green=50)
    path = routing_file(site)
    old = path.read_text()
    site.share(blue=0, green=100)
    new = path.read_text()
    # HAProxy is told first and nginx last; Envoy reads the file by itself.
    temporary = path.with_name("put")
    temporary.write_text(old if site.provider == "haproxy" else new)
    temporary.replace(path)
    site.share(blue=0, green=100)
    assert path.read_text() == new
    assert site.ask(60) == {"green": 60}


# The documented configuration, with connections passed on instead of requests.
ENVOY = proxies.example("yaml", "static_resources")
HTTP_FILTERS = ENVOY[ENVOY.index("- filters:") : ENVOY.index("  clusters:")]
TCP_FILTERS = """\
- filters:
            - name: envoy.filters.network.tcp_proxy
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
                stat_prefix: tcp
                cluster: shop
"""
TCP = {
    "haproxy": {"mode http": "mode tcp"},
    "envoy": {HTTP_FILTERS: TCP_FILTERS},
}


@pytest.mark.parametrize("provider", sorted(TCP))
def test_in_the_mode_tcp_a_drain_waits_until_connections_end(provider: str, tmp_path: Path) -> None:
    with sites(tmp_path) as make:
        site = make(provider, changes=TCP[provider])
        port = int(site.proxy.url.rpartition(":")[2])
        connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=60) for _ in range(4)]
        for connection in connections:
            connection.request("GET", "/")
            connection.getresponse().read()
        active = {name: site.state(name)["active"] for name in site.endpoints}
        assert sum(active.values()) == 4
        busy = max(active, key=lambda name: active[name])
        with ThreadPoolExecutor(1) as one:
            drain = one.submit(site.call, "drain", busy, drain_timeout=120)
            until(lambda: not site.state(busy)["in_service"])
            # It gets no new connection, and those that it has still answer.
            before = site.state(busy)["active"]
            for _ in range(6):
                site.get()
            assert site.state(busy)["active"] == before
            for connection in connections:
                connection.request("GET", "/")
                assert connection.getresponse().read()
            assert not drain.done()
            for connection in connections:
                connection.close()
            assert drain.result()["targets"][busy]["cut"] == 0
        assert site.call("restore", busy)["targets"][busy]["in_service"]


def test_in_the_mode_tcp_nothing_is_shared_between_pools(tmp_path: Path) -> None:
    socket, table = tmp_path / "admin.sock", tmp_path / "bascule.map"
    table.write_text("routing a,shop-blue,10000\n")
    configuration = tmp_path / "haproxy.cfg"
    configuration.write_text(
        f"global\n  stats socket {socket} mode 600 level admin\n"
        f"  setenv BASCULE_MAP {table}\n  lua-load-per-thread {proxies.LUA}\n"
        "defaults\n  mode tcp\n  timeout connect 1s\n  timeout client 9s\n  timeout server 9s\n"
        "backend shop-blue\n  server b 127.0.0.1:1\nbackend shop-green\n  server g 127.0.0.1:1\n"
    )
    process = subprocess.Popen(  # noqa: S603 (the words are ours)
        [proxies.haproxy_binary(), "-f", str(configuration), "-db"]
    )
    try:
        until(socket.exists)
        with pytest.raises(TrafficError, match="shop-blue, shop-green is of mode tcp"):
            _traffic.run(
                {
                    "operation": "traffic",
                    "action": "route",
                    "provider": "haproxy",
                    "provider_options": {
                        "socket": str(socket),
                        "map_path": str(table),
                        "pools": {
                            "blue": {"backend": "shop-blue"},
                            "green": {"backend": "shop-green"},
                        },
                    },
                    "routing": {"weights": {"blue": 50, "green": 50}},
                }
            )
    finally:
        proxies.stop(process)
