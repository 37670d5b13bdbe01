"""Real nginx: a configuration that it refuses, a reload that may lose requests, old workers."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import TrafficError
from ansible_collections.bascule.deploy.plugins.module_utils._host import _traffic
from support import proxies
from support.pools import Pools, pools
from support.site import Site, sites
from support.twopools import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ASK = "if (-f /etc/nginx/bascule/closing) { return 418; }"


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    with sites(tmp_path) as make:
        yield make


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pools]:
    with pools("nginx", tmp_path_factory.mktemp("nginx")) as made:
        yield made


def test_a_new_target_is_registered_and_comments_stay(deploy: Callable[..., Site]) -> None:
    site = deploy("nginx")
    path = Path(site.proxy.options["directory"]) / "shop.conf"
    path.write_text("# ours\n" + path.read_text())
    site.endpoints["web-3"] = proxies.Endpoint("web-3", "localhost", proxies.free_port())
    site.start("web-3", "3")
    assert any("does not know web-3" in told for told in site.call("drain", "web-3")["warnings"])
    restored = site.call("restore", "web-1", "web-3")
    assert restored["changed"]
    assert {site.get() for _ in range(9)} == {"1", "3"}
    assert path.read_text().startswith("# ours\n")
    assert not site.call("restore", "web-3")["changed"]


def test_a_reload_that_may_lose_requests_is_warned_of(deploy: Callable[..., Site]) -> None:
    site = deploy("nginx", changes={ASK: ""})
    foreseen = site.call("drain", "web-1", check=True)
    assert "neither the location that" in foreseen["warnings"][0]
    assert "keepalive_min_timeout" in foreseen["warnings"][0]


def test_all_requests_go_to_one_pool_before_nginx_is_reloaded(site: Pools) -> None:
    directory = Path(site.proxy.options["directory"])
    site.share(blue=50, green=50)
    assert set(site.ask(60)) == {"blue", "green"}
    with Path(site.proxy.options["pid_path"]).open() as pid, ThreadPoolExecutor(1) as one:
        # Whoever reloads has this lock.
        fcntl.flock(pid, fcntl.LOCK_EX)
        with contextlib.closing(site.connection()) as kept:
            site.ask_on(kept)
            order = one.submit(site.share, blue=100, green=0)
            until((directory / "only-shop-blue").exists)
            assert {site.ask_on(kept)[0] for _ in range(60)} == {"blue"}
        assert site.ask(60) == {"blue": 60}
        assert not order.done()
        # Now it is the other way round, with the file there already.
        other = one.submit(site.share, blue=0, green=100)
        fcntl.flock(pid, fcntl.LOCK_UN)
        assert order.result()["changed"]
        assert other.result()["routing"]["before"]["weights"] == {"blue": 100.0, "green": 0.0}
    assert site.ask(60) == {"green": 60}
    assert not list(directory.glob("only-*"))


def test_the_way_back_needs_no_configuration_that_nginx_accepts(site: Pools) -> None:
    directory = Path(site.proxy.options["directory"])
    site.share(blue=50, green=50)
    other = directory / "other.conf"
    other.write_text("server { bad; }\n")
    try:
        answer = site.share(blue=100, green=0)
        (warning,) = answer["warnings"]
        assert "All requests go to shop-blue by the file only-shop-blue" in warning
        assert 'unknown directive "bad"' in warning
        assert site.ask(60) == {"blue": 60}
        with pytest.raises(TrafficError, match="as it is now"):
            site.share(blue=50, green=50)
        assert site.ask(60) == {"blue": 60}
    finally:
        other.unlink()
    # What was left over is ended, and does not stand in the way of the next order.
    assert site.share(blue=100, green=0)["changed"]
    assert not site.share(blue=100, green=0)["changed"]
    site.share(blue=50, green=50)
    assert set(site.ask(60)) == {"blue", "green"}
    assert not list(directory.glob("only-*"))


def test_a_reload_waits_until_no_connection_rests(site: Pools) -> None:
    site.share(blue=50, green=50)
    with contextlib.closing(site.connection()) as kept:
        site.ask_on(kept)
        told = site.share(blue=40, green=60)["warnings"]
        assert "rest for up to 5 s (keepalive_timeout)" in told[0]
        assert "waits for it for 0.5 s" in told[0]
        assert "1 connections of clients rested for longer than 0.5 s" in told[1]
    with contextlib.closing(site.connection()) as kept:
        site.ask_on(kept)
        # nginx itself closes it after 5 s, which is what the reload waits for by default.
        quick = site.proxy.options.pop("reload_wait")
        assert site.share(blue=30, green=70)["warnings"] == []
        site.proxy.options["reload_wait"] = quick


def test_what_nginx_refuses_is_put_back_and_told_in_its_words(site: Pools) -> None:
    directory = Path(site.proxy.options["directory"])
    site.share(blue=100, green=0)
    before = (directory / "routing.conf").read_text()
    other = directory / "other.conf"
    other.write_text("server { bad; }\n")
    try:
        with pytest.raises(TrafficError, match=r'as it is now: .*unknown directive "bad"'):
            site.share(blue=50, green=50)
    finally:
        other.unlink()
    # nginx reads no parameter of more than 4,096 characters.
    rule = {"pool": "green", "cookie": "c" * 5000, "value": "1"}
    with pytest.raises(TrafficError, match=r"with the new .*routing.conf.*too long parameter"):
        site.route({"weights": {"blue": 50, "green": 50}, "match": [rule]})
    assert (directory / "routing.conf").read_text() == before
    assert site.ask(20) == {"blue": 20}


def test_a_routing_that_the_configuration_has_no_place_for_is_refused(
    tmp_path: Path,
) -> None:
    endpoint = proxies.Endpoint("blue-1", "127.0.0.1", proxies.free_port())
    changes = {
        "add_header Set-Cookie $bascule_cookie;": "",
        "http://$bascule_mirror$": "http://x$",
        "{ set $bascule_only shop-blue; }": "{ return 503; }",
    }
    proxy = proxies.start_nginx_pools(tmp_path, {"blue": [endpoint]}, changes=changes)
    try:
        request = {
            "operation": "traffic",
            "action": "route",
            "provider": "nginx",
            "provider_options": proxy.options,
        }
        sticky = {"salt": "d-1", "cookie": "who", "ttl": 60}
        for more, message in [
            ({"sticky": sticky}, r"has no 'add_header Set-Cookie \$bascule_cookie;'"),
            ({"mirror": {"pool": "blue", "share": 1}}, r"has no a mirror to \$bascule_mirror"),
        ]:
            with pytest.raises(TrafficError, match=message):
                _traffic.run({**request, "routing": {"weights": {"blue": 100}, **more}})
        foreseen = _traffic.run({**request, "check": True, "routing": {"weights": {"blue": 100}}})
        assert "bascule/only-shop-blue: bringing all traffic to one" in foreseen["warnings"][-1]
    finally:
        proxy.stop()


def test_requests_under_way_are_answered_by_old_workers_and_hold_nothing_up(site: Pools) -> None:
    site.share(blue=100, green=0)
    [blue] = site.endpoints["blue"].values()
    with ThreadPoolExecutor(4) as users:
        answers = [users.submit(site.ask, 1, "/held") for _ in range(4)]
        try:
            proxies.wait_under_way(4, blue.port)
            assert site.share(blue=0, green=100)["changed"]
            assert site.ask(20) == {"green": 20}
            assert not any(answer.done() for answer in answers)
        finally:
            proxies.release(blue.port)
        assert [answer.result() for answer in answers] == [{"blue": 1}] * 4


def test_an_order_that_was_cut_short_is_given_again(site: Pools) -> None:
    directory = Path(site.proxy.options["directory"])
    site.share(blue=100, green=0)
    shop = directory / "shop-green.conf"
    port = next(iter(site.endpoints["green"].values())).port
    # As if we had been killed between the file and the reload.
    shop.write_text(shop.read_text().replace(f":{port};", f":{port} down;"))
    time.sleep(0.1)
    seen = site.targets("observe", "green")["targets"]["green-1"]
    assert seen["state"] == "down, nginx was not reloaded since"
    closing = directory / "closing"
    closing.touch()
    os.utime(closing, (0, 0))
    warnings = site.targets("observe", "green")["warnings"]
    assert any("a reload was cut short" in told for told in warnings)
    assert site.targets("drain", "green")["changed"]
    assert site.targets("observe", "green")["targets"]["green-1"]["state"] == "down"
    assert not closing.exists()
    assert site.targets("restore", "green")["targets"]["green-1"]["in_service"]


def test_a_server_that_is_named_and_not_numbered_is_drained_of_its_requests(
    deploy: Callable[..., Site],
) -> None:
    site = deploy("nginx")
    path = Path(site.proxy.options["directory"]) / "shop.conf"
    path.write_text(path.read_text().replace("127.0.0.1:", "localhost:"))
    site.endpoints = {
        name: proxies.Endpoint(name, "localhost", endpoint.port)
        for name, endpoint in site.endpoints.items()
    }
    site.call("restore", *site.endpoints)
    with ThreadPoolExecutor(6) as users:
        answers = [users.submit(site.get, "/held") for _ in range(6)]
        proxies.wait_under_way(6, *site.ports())
        released = threading.Event()

        def release() -> None:
            released.set()
            proxies.release(*site.ports())

        later = threading.Timer(2.0, release)
        later.start()
        site.call("drain", *site.endpoints)
        assert released.is_set(), "they were not waited for"
        # Now nobody would be answered any more.
        for name in site.endpoints:
            site.kill(name)
        later.join()
        assert [answer.result() for answer in answers] == ["1"] * 6
    assert "server localhost:" in path.read_text()


def test_no_request_is_lost_from_the_counts_while_the_log_is_rotated(site: Pools) -> None:
    log = Path(site.proxy.options["log_path"])
    master = int(Path(site.proxy.options["pid_path"]).read_text())

    def counted() -> int:
        return sum(seen["requests"] for seen in site.measure().values())

    def rest() -> int:
        # nginx writes a request's line after its answer.
        until(lambda: counted() - before >= sent)
        return counted() - before

    before, sent = counted(), 0
    for number in range(1, 4):
        assert sum(site.ask(7).values()) == 7
        log.rename(f"{log}.{number}")
        # Nobody has told nginx yet, and the log has no name of its own.
        assert sum(site.ask(5).values()) == 5
        sent += 12
        assert rest() == sent
        os.kill(master, signal.SIGUSR1)
        until(log.exists)
        assert sum(site.ask(9).values()) == 9
        sent += 9
        assert rest() == sent
