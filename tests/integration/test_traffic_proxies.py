"""Real Envoy, HAProxy and nginx under load: what is drained is quiet, and no request is lost."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.cookiejar import CookieJar
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import TrafficError
from ansible_collections.bascule.deploy.plugins.module_utils._host import _traffic
from support import proxies
from support.site import Site, sites

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STICKY = "cookie server insert indirect nocache dynamic\n    dynamic-cookie-key secret"


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    with sites(tmp_path) as make:
        yield make


@pytest.fixture(params=["envoy", "haproxy", "nginx"])
def provider(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["envoy", "haproxy"])
def counting(request: pytest.FixtureRequest) -> str:
    """A provider that counts the open requests of every target."""
    return str(request.param)


@contextlib.contextmanager
def after(seconds: float, work: Callable[..., object], *given: object) -> Iterator[threading.Event]:
    """Do some work beside the block, so many seconds after it has begun; gives when it begins."""
    begun = threading.Event()

    def do() -> None:
        begun.set()
        work(*given)

    timer = threading.Timer(seconds, do)
    timer.start()
    try:
        yield begun
    finally:
        timer.join()


def lost(site: Site) -> None:
    """Drain the first target, kill it, and wait until a proxy that checks it has noticed."""
    site.call("drain", "web-1")
    site.kill("web-1")
    noticed = {"envoy": "fails its health check", "haproxy": "DOWN", "nginx": ""}[site.provider]
    deadline = time.monotonic() + 60
    while noticed not in (seen := site.state("web-1"))["state"]:
        assert time.monotonic() < deadline, seen
        time.sleep(0.05)


def test_no_request_is_lost_while_every_target_is_replaced(
    provider: str, deploy: Callable[..., Site]
) -> None:
    site = deploy(provider, count=3)
    quick, slow = site.load("/", 150), site.load("/slow/0.7", 6)
    time.sleep(0.8)
    for batch in (["web-1", "web-2"], ["web-3"]):
        drained = site.call("drain", *batch)
        assert drained["changed"]
        for name in batch:
            assert drained["targets"][name]["cut"] == 0
            site.kill(name)
        time.sleep(0.3)
        for name in batch:
            site.start(name, "2")
        restored = site.call("restore", *batch)
        assert all(seen["in_service"] for seen in restored["targets"].values())
        time.sleep(0.4)
    for report in (quick(), slow()):
        assert report["failures"] == {}
        # On a busy machine the load may begin when the first version is gone already.
        assert "2" in report["versions"]
        assert set(report["versions"]) <= {"1", "2"}
    assert site.get() == "2"


def test_a_kill_without_a_drain_is_noticed_by_these_tests(deploy: Callable[..., Site]) -> None:
    site = deploy("haproxy")
    load = site.load("/held", 60)
    proxies.wait_under_way(5, *site.ports("web-1"))
    site.kill("web-1")
    proxies.release(*site.ports("web-2"))
    assert load()["failed"] > 0


def test_requests_under_way_are_waited_for(provider: str, deploy: Callable[..., Site]) -> None:
    site = deploy(provider)
    with ThreadPoolExecutor(6) as users:
        answers = [users.submit(site.get, "/held") for _ in range(6)]
        proxies.wait_under_way(6, *site.ports())
        assert proxies.under_way(*site.ports("web-1")) > 0
        if provider != "nginx":
            assert site.state("web-1")["active"] > 0
        with after(2.0, proxies.release, *site.ports()) as begun:
            drained = site.call("drain", "web-1")
            assert begun.is_set(), "it was not waited for"
            site.kill("web-1")
        assert [answer.result() for answer in answers] == ["1"] * 6
    assert drained["targets"]["web-1"]["cut"] == 0
    assert site.state("web-2")["in_service"]


@pytest.mark.parametrize("window", ["0s", "1s"])
def test_a_drained_endpoint_of_envoy_gets_nothing_more(
    window: str, deploy: Callable[..., Site]
) -> None:
    """Envoy's workers may learn of a drain later than its administration: the window is waited for.

    Envoy 1.40 tells them at once, so the window's own effect cannot be seen here.
    """
    site = deploy(
        "envoy", count=3, changes={"update_merge_window: 0s": f"update_merge_window: {window}"}
    )
    load = site.load("/", 150)
    time.sleep(0.5)
    for name in ("web-1", "web-2"):
        # The second change comes within the window of the first.
        drained = site.call("drain", name)
        served = served_by(site)
        time.sleep(1.2 if name == "web-2" else 0.1)
        assert served_by(site)[name] == served[name]
        assert drained["waited"] > 1 or window == "0s"
    assert load()["failed"] == 0


def served_by(site: Site) -> dict[str, int]:
    url = site.proxy.options["admin_url"] + "/clusters?format=json"
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310
        hosts = json.load(answer)["cluster_statuses"][0]["host_statuses"]
    names = {endpoint.port: name for name, endpoint in site.endpoints.items()}
    return {
        names[host["address"]["socket_address"]["port_value"]]: int(stat.get("value", 0))
        for host in hosts
        for stat in host["stats"]
        if stat["name"] == "rq_total"
    }


def test_what_is_as_wanted_is_not_changed(counting: str, deploy: Callable[..., Site]) -> None:
    site = deploy(counting)
    assert not site.call("restore", "web-1", "web-2")["changed"]
    assert site.call("drain", "web-1")["changed"]
    again = site.call("drain", "web-1")
    assert not again["changed"]
    assert again["diff"]["before"] == again["diff"]["after"]
    both = site.call("drain", "web-1", "web-2")
    assert both["changed"]
    assert [name for name, seen in both["targets"].items() if seen["in_service"]] == []
    assert site.call("restore", "web-1", "web-2")["changed"]


def test_requests_and_errors_are_counted_by_target(
    provider: str, deploy: Callable[..., Site]
) -> None:
    site = deploy(provider)
    before = site.call("observe", "web-1", "web-2")["targets"]
    # While the other one is out of service, what is counted is that of the one.
    site.call("drain", "web-2")
    for path in ["/"] * 5 + ["/status/404", "/status/500", "/status/503"]:
        with contextlib.suppress(urllib.error.HTTPError):
            site.get(path)
    after = site.call("observe", "web-1", "web-2")["targets"]
    if provider == "nginx":
        assert [one["answered"] for one in after.values()] == [None, None]
        return
    grown = {
        name: [after[name][key] - before[name][key] for key in ("answered", "errors", "served")]
        for name in after
    }
    assert grown == {"web-1": [8, 2, 8], "web-2": [0, 0, 0]}
    # They take turns, and get as many as each other while both are in service.
    assert [one["weight"] for one in before.values()] == [1.0, 1.0]


def test_a_dead_target_is_still_known_to_be_drained(
    counting: str, deploy: Callable[..., Site]
) -> None:
    site = deploy(counting)
    site.call("drain", "web-1")
    site.kill("web-1")
    time.sleep(1)
    assert not site.call("drain", "web-1")["changed"]
    assert not site.state("web-1")["in_service"]


def test_check_mode_tells_and_changes_nothing(provider: str, deploy: Callable[..., Site]) -> None:
    site = deploy(provider)
    foreseen = site.call("drain", "web-1", "web-2", check=True)
    assert foreseen["changed"]
    assert foreseen["diff"]["before"] != foreseen["diff"]["after"]
    assert "web-1: out of service" in foreseen["diff"]["after"]
    assert site.state("web-1")["in_service"]
    site.call("drain", "web-1")
    assert not site.call("drain", "web-1", check=True)["changed"]
    assert site.call("restore", "web-1", check=True)["changed"]
    assert not site.state("web-1")["in_service"]


def test_a_drain_that_takes_too_long_goes_on_and_counts_what_is_cut(
    counting: str, deploy: Callable[..., Site]
) -> None:
    site = deploy(counting)
    with ThreadPoolExecutor(4) as users:
        answers = [users.submit(site.get, "/held") for _ in range(4)]
        try:
            proxies.wait_under_way(4, *site.ports())
            active = site.state("web-1")["active"]
            drained = site.call("drain", "web-1", drain_timeout=0.5)
        finally:
            proxies.release(*site.ports())
        assert drained["targets"]["web-1"]["cut"] == active > 0
        assert f"{active} requests cut" in drained["msg"]
        assert not drained["targets"]["web-1"]["in_service"]
        assert [answer.result() for answer in answers] == ["1"] * 4


def test_a_drain_that_takes_too_long_may_fail_and_takes_nothing_away(
    counting: str, deploy: Callable[..., Site]
) -> None:
    site = deploy(counting)
    with ThreadPoolExecutor(4) as users:
        answers = [users.submit(site.get, "/held") for _ in range(4)]
        try:
            proxies.wait_under_way(4, *site.ports())
            with pytest.raises(
                TrafficError, match=r"\d requests open on web-1.*put back in service"
            ):
                site.call("drain", "web-1", drain_timeout=0.5, on_drain_timeout="fail")
            assert site.call("restore", "web-1")["targets"]["web-1"]["in_service"]
        finally:
            proxies.release(*site.ports())
        assert [answer.result() for answer in answers] == ["1"] * 4


def test_a_target_that_does_not_come_back_is_named_with_its_state(
    provider: str, deploy: Callable[..., Site]
) -> None:
    site = deploy(provider)
    lost(site)
    state = {
        "envoy": "HEALTHY, fails its health check",
        "haproxy": "DOWN, check L4CON",
        "nginx": r"down, does not answer this host \(Connection refused\)",
    }[provider]
    with pytest.raises(TrafficError, match=rf"take web-1 back .* within 3 s.*{state}"):
        site.call("restore", "web-1", "web-2", restore_timeout=3)


def test_a_target_that_comes_up_late_is_waited_for(
    provider: str, deploy: Callable[..., Site]
) -> None:
    site = deploy(provider)
    lost(site)
    with after(2.0, site.start, "web-1", "2") as begun:
        site.call("restore", "web-1")
        assert begun.is_set(), "it was not waited for"
    assert {site.get() for _ in range(6)} == {"1", "2"}


def test_many_processes_change_one_proxy_at_once(
    provider: str, deploy: Callable[..., Site]
) -> None:
    site = deploy(provider, count=6)
    program = (
        "import json,sys\n"
        "from ansible_collections.bascule.deploy.plugins.module_utils._host import _traffic\n"
        "r=json.load(sys.stdin)\n"
        "for action in ('drain','restore','drain'):\n"
        "    r['action']=action\n"
        "    _traffic.run(r)\n"
    )

    def work(name: str) -> None:
        subprocess.run(
            [sys.executable, "-c", program],
            input=json.dumps(site.request("drain", name)).encode(),
            check=True,
            timeout=300,
        )

    with ThreadPoolExecutor(5) as workers:
        list(workers.map(work, list(site.endpoints)[:5]))
    seen = site.call("observe", *site.endpoints)["targets"]
    assert [name for name, now in seen.items() if now["in_service"]] == ["web-6"]


def test_a_proxy_that_is_away_is_named_and_nothing_is_changed(
    provider: str, deploy: Callable[..., Site]
) -> None:
    site = deploy(provider)
    site.proxy.stop()
    options = site.proxy.options
    message = {
        "envoy": f"{options.get('admin_url', '')[len('http://') :]} does not answer.*Check that",
        "haproxy": f"{options.get('socket')} does not answer.*Check that",
        "nginx": f"{options.get('pid_path')} names no process. Start it, or check",
    }[provider]
    before = {path: path.read_bytes() for path in site.directory.glob("*.json")}
    for action in ("observe", "drain", "restore"):
        with pytest.raises(TrafficError, match=message):
            site.call(action, "web-1")
    assert {path: path.read_bytes() for path in before} == before


def test_a_proxy_that_is_away_for_a_moment_is_waited_for(deploy: Callable[..., Site]) -> None:
    site = deploy("envoy")
    lost(site)
    site.proxy.process.send_signal(signal.SIGSTOP)
    threading.Timer(1.5, site.proxy.process.send_signal, (signal.SIGCONT,)).start()
    site.start("web-1", "2")
    assert site.call("restore", "web-1")["targets"]["web-1"]["in_service"]


@pytest.mark.parametrize(
    ("provider", "options", "message"),
    [
        ("haproxy", {"backend": "nope"}, r"no backend 'nope'; it has shop"),
        ("envoy", {"cluster": "nope"}, r"has no endpoints of 'nope', but of shop"),
        (
            "envoy",
            {"cluster": "nope", "service_name": "shop"},
            r"has no cluster 'nope'; it has shop",
        ),
        ("envoy", {"eds_path": "/nonexistent/eds.json"}, r"cannot be read: No such file"),
    ],
)
def test_a_wrong_name_is_answered_with_what_exists(
    provider: str, options: dict[str, str], message: str, deploy: Callable[..., Site]
) -> None:
    site = deploy(provider)
    wrong = {**site.proxy.options, **options}
    with pytest.raises(TrafficError, match=message):
        site.call("drain", "web-1", provider_options=wrong)


def test_an_unknown_server_of_haproxy_is_answered_with_what_exists(
    deploy: Callable[..., Site],
) -> None:
    site = deploy("haproxy")
    target = {"name": "web-9", "address": "127.0.0.1", "port": 80}
    for action in ("observe", "drain", "restore"):
        with pytest.raises(TrafficError, match=r"does not know web-9; it has web-1, web-2"):
            site.call(action, targets=[target])


def test_a_new_target_is_registered_at_envoy(deploy: Callable[..., Site]) -> None:
    site = deploy("envoy")
    site.endpoints["web-3"] = proxies.Endpoint("web-3", "localhost", proxies.free_port())
    site.start("web-3", "3")
    drained = site.call("drain", "web-3")
    assert not drained["changed"]
    assert "does not know web-3" in drained["warnings"][0]
    restored = site.call("restore", "web-1", "web-3")
    assert restored["changed"]
    assert restored["diff"]["before"] == "web-1: HEALTHY\nweb-3: not registered\n"
    assert {site.get() for _ in range(9)} == {"1", "3"}
    assert not site.call("restore", "web-3")["changed"]


def test_an_order_that_envoy_does_not_see_is_taken_back(
    deploy: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_traffic, "TAKE_UP_SECONDS", 1.0)
    site = deploy("envoy")
    copy = site.directory / "unwatched" / "shop.json"
    copy.parent.mkdir()
    copy.write_bytes(Path(site.proxy.options["eds_path"]).read_bytes())
    options = {**site.proxy.options, "eds_path": str(copy)}
    with pytest.raises(TrafficError, match=r"web-1.*still does: web-1 HEALTHY, DRAINING in the fi"):
        site.call("drain", "web-1", provider_options=options, drain_timeout=0)
    assert "DRAINING" not in copy.read_text()


def test_the_administration_of_envoy_may_be_a_unix_socket(
    deploy: Callable[..., Site], tmp_path: Path
) -> None:
    site = deploy("envoy")
    text = (site.directory / "envoy.yaml").read_text()
    site.proxy.stop()
    path = tmp_path / "admin.sock"
    text, count = re.subn(r"socket_address: \{address: 127.0.0.1, port_value: \d+\}",
                          f"pipe: {{path: {path}}}", text, count=1)  # fmt: skip
    assert count == 1
    (site.directory / "unix.yaml").write_text(text)
    process = subprocess.Popen(
        [proxies.envoy_binary(), "-c", str(site.directory / "unix.yaml"), "--concurrency", "1",
         "--disable-hot-restart", "--log-level", "off"],
    )  # fmt: skip
    try:
        site.proxy.options["admin_url"] = f"unix://{path}"
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert site.call("restore", "web-1")["targets"]["web-1"]["in_service"]
        assert site.call("drain", "web-1")["changed"]
    finally:
        proxies.stop(process)


def test_clients_that_stick_to_a_server_of_haproxy_move_before_it_stops(
    deploy: Callable[..., Site],
) -> None:
    site = deploy(
        "haproxy",
        changes={
            "balance roundrobin": "balance roundrobin\n    " + STICKY,
            "rise 2 fall 2": "rise 3 fall 2",
        },
    )
    user = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))

    def visit(path: str = "/") -> str:
        with user.open(site.proxy.url + path, timeout=60) as answer:
            return str(answer.read().decode())

    site.kill("web-2")
    site.start("web-2", "2")
    site.call("restore", "web-1", "web-2")
    home = visit()
    name = {"1": "web-1", "2": "web-2"}[home]
    assert {visit() for _ in range(5)} == {home}
    with ThreadPoolExecutor(1) as users:
        under_way = users.submit(visit, "/held")
        proxies.wait_under_way(1, *site.ports(name))
        with after(1.0, proxies.release, *site.ports(name)):
            drained = site.call("drain", name)
            assert drained["targets"][name]["state"].startswith("MAINT")
            site.kill(name)
        assert under_way.result() == home
    assert visit() != home
    # HAProxy would call it up at once; we want its checks to have passed three times.
    with after(2.0, site.start, name, "3") as begun:
        restored = site.call("restore", name)
        assert begun.is_set(), "it was not waited for"
    assert restored["targets"][name]["state"] == "UP"


def test_a_sticky_server_of_haproxy_that_cannot_be_drained_goes_on_serving(
    deploy: Callable[..., Site],
) -> None:
    site = deploy("haproxy", changes={"balance roundrobin": "balance roundrobin\n    " + STICKY})
    with ThreadPoolExecutor(4) as users:
        answers = [users.submit(site.get, "/held") for _ in range(4)]
        try:
            proxies.wait_under_way(4, *site.ports())
            with pytest.raises(TrafficError, match="put back in service"):
                site.call("drain", "web-1", drain_timeout=0.3, on_drain_timeout="fail")
            assert site.state("web-1")["state"].startswith("UP")
        finally:
            proxies.release(*site.ports())
        assert [answer.result() for answer in answers] == ["1"] * 4


def test_a_socket_without_rights_is_named(deploy: Callable[..., Site]) -> None:
    site = deploy("haproxy", changes={"level admin": "level operator"})
    with pytest.raises(TrafficError, match=r"Permission denied.*level admin"):
        site.call("drain", "web-1")


def test_the_runtime_api_may_be_a_port(deploy: Callable[..., Site]) -> None:
    port = proxies.free_port()
    site = deploy(
        "haproxy",
        changes={"timeout 1m": f"timeout 1m\n    stats socket 127.0.0.1:{port} level admin"},
    )
    options = {**site.proxy.options, "socket": f"127.0.0.1:{port}"}
    assert site.call("drain", "web-1", provider_options=options)["changed"]
    assert not site.state("web-1")["in_service"]
