"""Real proxies between pools: shares, rules, sticky users, mirrors, counts; nobody is lost."""

from __future__ import annotations

import bisect
import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._capabilities import CAPABILITIES
from ansible_collections.bascule.deploy.plugins.module_utils._errors import (
    TrafficError,
    UsageError,
)
from ansible_collections.bascule.deploy.plugins.module_utils._host._router import Counters, window
from ansible_collections.bascule.deploy.plugins.module_utils._routing_data import (
    arm_of,
    borders,
    hash_of,
    parse_routing,
)
from ansible_collections.bascule.deploy.plugins.module_utils._shares import share_confirmed
from support.pools import START, Pools, pools
from support.trace import TRACE, trace

if TYPE_CHECKING:
    from collections.abc import Iterator

NOTHING: list[tuple[float, int]] = [(0.0, 0)]
NONE = {"histogram": NOTHING}

# The chance that right shares are doubted, for all comparisons of a run together below 1 in 1000.
ALPHA = 1e-5


@pytest.fixture(scope="module", params=sorted(START))
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pools]:
    """One proxy before the pools blue, green and shadow; each test sets its own routing."""
    directory = tmp_path_factory.mktemp("routing")
    with pools(str(request.param), directory, "blue", "green", "shadow") as made:
        yield made


def counted(site: Pools, blue: int = 0) -> dict[str, Counters]:
    """Measure once every request is counted, and that many by blue.

    Envoy adds its histograms up once a second, and nginx writes its log after it has answered.
    """
    deadline = time.monotonic() + 60
    while True:
        found = {}
        for pool, seen in site.measure().items():
            histogram = [(bound, count) for bound, count in (seen["latency"] or NONE)["histogram"]]
            found[pool] = Counters(seen["requests"], seen["errors"], histogram)
        whole = all((seen.histogram or NOTHING)[-1][1] == seen.requests for seen in found.values())
        if whole and found["blue"].requests >= blue:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


def test_the_routing_that_was_there_is_known(site: Pools) -> None:
    foreseen = site.route({"weights": {"blue": 0, "green": 100}}, check=True)
    assert foreseen["routing"]["before"]["weights"] == {"blue": 100.0}


def test_shares_are_as_ordered_while_they_move_under_load(site: Pools) -> None:
    site.share(blue=100, green=0)
    load = site.load(200)
    for green in (5, 50, 100, 0):
        answer = site.share(blue=100 - green, green=green)
        assert answer["routing"]["after"]["weights"]["green"] == green
        seen = site.ask(400)
        shares = share_confirmed(seen, {"blue": 100 - green, "green": green}, ALPHA)
        assert shares.confirmed, shares.describe()
    report = load()
    assert report["failures"] == {}
    assert report["sent"] > 0
    assert set(report["versions"]) == {"blue", "green"}


def test_what_is_as_wanted_is_not_changed_and_check_mode_changes_nothing(site: Pools) -> None:
    site.share(blue=30, green=70)
    assert not site.share(blue=30, green=70)["changed"]
    foreseen = site.route({"weights": {"blue": 100.0, "green": 0.0}}, check=True)
    assert foreseen["changed"]
    assert "green: 70 %" in foreseen["diff"]["before"]
    assert "green: 0 %" in foreseen["diff"]["after"]
    assert site.share(blue=30, green=70)["changed"] is False


def test_rules_come_first_and_the_first_that_matches_wins(site: Pools) -> None:
    site.route(
        {
            "weights": {"blue": 100.0, "green": 0.0},
            "match": [
                {"pool": "green", "header": "X-Bascule-Test", "value": "green"},
                {"pool": "shadow", "header": "X-Bascule-Test", "value": "shadow"},
                {"pool": "green", "cookie": "pool", "value": "green"},
                {"pool": "shadow", "cookie": "pool", "value": "a.b/c=d"},
            ],
        }
    )
    assert site.ask(20) == {"blue": 20}
    for headers, pool in [
        ({"X-Bascule-Test": "green"}, "green"),
        ({"x-bascule-test": "shadow"}, "shadow"),
        ({"X-Bascule-Test": "greenish"}, "blue"),
        ({"X-Bascule-Test": "shadow", "Cookie": "pool=green"}, "shadow"),
        ({"Cookie": "pool=green"}, "green"),
        ({"Cookie": "a=1; pool=green; b=2"}, "green"),
        ({"Cookie": "xpool=green; pool=greenish"}, "blue"),
        ({"Cookie": "pool=a.b/c=d"}, "shadow"),
        ({"Cookie": "pool=aXb/c=d"}, "blue"),
    ]:
        assert site.ask(1, **headers) == {pool: 1}, headers


SALT = "d-7GHZ0ABCD"
SHARES = (0.5, 20, 60, 100)


def sticky_at(green: float) -> dict[str, Any]:
    """A routing in which users stay with their pool."""
    weights = {"blue": 100 - green, "green": green}
    return {"weights": weights, "sticky": {"salt": SALT, "header": "X-User"}}


def users_at_the_borders(number: int = 20_000, each: int = 12) -> list[str]:
    """Of many users those whose hashes lie next to a border of the shares, where a proxy that
    counts or rounds another way would send them elsewhere."""
    hashed = sorted((hash_of(SALT, f"user-{one}"), f"user-{one}") for one in range(number))
    found: list[str] = []
    for green in SHARES[:-1]:
        _pool, border = borders(parse_routing(sticky_at(green)))[0]
        place = bisect.bisect(hashed, (border, ""))
        found += [user for _value, user in hashed[place - each : place + each]]
    return found


def test_a_sticky_user_has_the_arm_that_the_hash_says_and_keeps_it(site: Pools) -> None:
    users = [f"user-{number}" for number in range(60)] + ["ü", "a" * 101, "x=y.z"]
    users += users_at_the_borders()
    before: dict[str, str] = {}
    for green in SHARES:
        routing = sticky_at(green)
        site.route(routing)
        parsed = parse_routing(routing)
        with contextlib.closing(site.connection()) as connection:
            arms = {
                user: site.ask_on(connection, "/", {"X-User": user.encode().decode("latin-1")})[0]
                for user in users
            }
        assert arms == {user: arm_of(parsed, user) for user in users}
        assert all(arms[user] == "green" for user, arm in before.items() if arm == "green")
        before = arms
    # Without the header nobody is known; and no header of ours can be sent to choose an arm.
    site.route({**routing, "weights": {"blue": 50, "green": 50}})
    shares = share_confirmed(site.ask(300), {"blue": 50, "green": 50}, ALPHA)
    assert shares.confirmed, shares.describe()
    chosen = site.ask(60, **{"x-bascule-arm": "green", "X-User": users[0]})
    assert len(chosen) == 1


def test_a_user_without_a_cookie_is_given_one_and_stays(site: Pools) -> None:
    routing = {
        "weights": {"blue": 50, "green": 50},
        "sticky": {"salt": "d-7GHZ0ABCD", "cookie": "visitor", "ttl": 600},
    }
    site.route(routing)
    parsed = parse_routing(routing)
    arms = []
    with contextlib.closing(site.connection()) as connection:
        for _user in range(30):
            arm, cookies = site.ask_on(connection)
            assert len(cookies) == 1
            pair, *attributes = cookies[0].split("; ")
            name, _equals, value = pair.partition("=")
            assert name == "visitor"
            assert "Max-Age=600" in attributes
            assert arm == arm_of(parsed, value)
            again, more = site.ask_on(connection, "/", {"Cookie": f"a=1; visitor={value}"})
            assert (again, more) == (arm, [])
            arms.append(arm)
    assert set(arms) == {"blue", "green"}


def test_a_mirror_gets_its_share_of_copies_and_users_see_none(site: Pools) -> None:
    routing = {
        "weights": {"blue": 100.0, "green": 0.0},
        "mirror": {"pool": "shadow", "share": 50.0},
    }
    if "mirror" not in CAPABILITIES[site.provider]:
        with pytest.raises(UsageError, match=r"cannot send a copy of requests .*envoy, nginx"):
            site.route(routing)
        return
    site.route(routing)
    before = site.measure()
    assert site.ask(400) == {"blue": 400}
    site.share(blue=100, green=0)
    copies = 0
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        now = site.measure()
        copies = now["shadow"]["requests"] - before["shadow"]["requests"]
        told = {"copied": copies, "not": 400 - copies}
        shares = share_confirmed(told, {"copied": 50, "not": 50}, ALPHA)
        users = now["blue"]["requests"] - before["blue"]["requests"]
        if shares.confirmed and users >= 400:
            break
        time.sleep(0.1)
    assert shares.confirmed, shares.describe()
    assert users == 400


def test_requests_errors_and_latency_are_measured_by_pool(site: Pools) -> None:
    site.share(blue=100, green=0)
    before = counted(site)
    site.ask(30)
    assert site.ask(7, "/status/503") == {"status 503": 7}
    site.ask(12, "/slow/0.2")
    after = counted(site, before["blue"].requests + 49)
    blue = window(before["blue"], after["blue"])
    assert (blue.requests, blue.errors) == (49, 7)
    assert window(before["green"], after["green"])[:2] == (0, 0)
    latency = blue.as_data()["latency"]
    assert latency["p50"] < 0.2 <= latency["p95"] < 2


def test_a_target_of_a_pool_leaves_and_comes_back(site: Pools) -> None:
    site.share(blue=50, green=50)
    drained = site.targets("drain", "shadow")
    assert drained["changed"]
    assert not drained["targets"]["shadow-1"]["in_service"]
    assert site.targets("observe", "green")["targets"]["green-1"]["in_service"]
    assert set(site.ask(40)) == {"blue", "green"}
    assert site.targets("restore", "shadow")["targets"]["shadow-1"]["in_service"]


def test_a_routing_outlives_the_proxy(site: Pools) -> None:
    site.share(blue=0, green=100)
    site.proxy.restart()
    for pool in site.endpoints:
        site.targets("restore", pool)
    assert site.ask(20) == {"green": 20}
    assert not site.share(blue=0, green=100)["changed"]


def test_a_pool_that_the_proxy_does_not_have_is_named(site: Pools) -> None:
    options = site.proxy.options
    key = next(iter(options["pools"]["blue"]))
    red = {**options["pools"]["blue"], key: "shop-red"}
    wrong = {**options, "pools": {**options["pools"], "red": red}}
    try:
        site.proxy.options = wrong
        with pytest.raises(TrafficError, match=r"has no .*shop-red.*shop-blue"):
            site.route({"weights": {"red": 100}})
    finally:
        site.proxy.options = options
    assert set(site.ask(5)) <= {"blue", "green"}


def test_the_same_orders_have_the_same_answers_everywhere(site: Pools) -> None:
    site.share(blue=0, green=100)
    assert trace(site.route) == TRACE


def test_sticky_orders_have_the_same_answers_at_every_proxy_that_hashes(site: Pools) -> None:
    sticky = {"salt": "d-1", "header": "X-User"}
    site.share(blue=100, green=0)
    site.route({"weights": {"blue": 95.0, "green": 5.0}, "sticky": sticky})
    answer = site.route({"weights": {"blue": 50.0, "green": 50.0}, "sticky": sticky})
    assert answer["diff"]["before"] == (
        "blue: 95 %\ngreen: 5 %\nsticky by header X-User, salt d-1\n"
    )
    assert answer["routing"]["after"]["sticky"] == sticky
