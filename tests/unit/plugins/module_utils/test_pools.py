from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import BasculeError
from ansible_collections.bascule.deploy.plugins.module_utils._pools import (
    PARTS,
    deployment_steps,
    dividing,
    hooks_of_pools,
    live_pool,
    pool_lines,
    pools_of,
    read_test_route,
    routing_for,
    routing_home,
    routing_unmoved,
    unsafe_parts,
    way_back,
    wishes_of,
)
from ansible_collections.bascule.deploy.plugins.module_utils._routing_data import parse_routing
from ansible_collections.bascule.deploy.plugins.module_utils._schedule import parse_schedule
from hypothesis import given
from hypothesis import strategies as st

NAMES = ("blue", "green")
MEMBERS = {"blue": ["b1", "b2"], "green": ["g1"]}
RULE = {"header": "X-Test", "value": "green"}


def weights(blue: float, green: float) -> dict[str, Any]:
    return {"weights": {"blue": blue, "green": green}}


@pytest.mark.parametrize(
    ("routings", "last", "live"),
    [
        ([], None, "blue"),
        ([], "green", "green"),
        ([], "gone", "blue"),
        ([None], "green", "green"),
        ([weights(100, 0)], "green", "blue"),
        ([weights(0, 100)], "blue", "green"),
        ([weights(5, 95)], None, "green"),
        ([weights(0, 0)], "green", "green"),
        ([weights(0, 100), weights(10, 90)], None, "green"),
    ],
)
def test_the_live_pool_is_what_the_load_balancers_show(
    routings: list[Any], last: str | None, live: str
) -> None:
    assert live_pool(NAMES, routings, last) == live


@pytest.mark.parametrize(
    ("routings", "said"),
    [
        ([weights(50, 50)], "The traffic is halved"),
        ([weights(100, 0), weights(0, 100)], "The load balancers do not agree"),
    ],
)
def test_a_live_pool_that_cannot_be_told_is_refused(routings: list[Any], said: str) -> None:
    with pytest.raises(BasculeError, match=said):
        live_pool(NAMES, routings, "blue")


def pools(kind: str = "blue_green", **more: Any) -> dict[str, Any]:
    return pools_of(kind, NAMES, MEMBERS, "blue", **more)


def test_the_idle_pool_gets_the_revision() -> None:
    found = pools()
    assert (found["new"], found["old"], found["home"]) == ("green", "blue", "blue")
    assert found["idle"] == ["g1"]
    assert not found["slots"]
    assert pools_of("blue_green", NAMES, MEMBERS, "green")["idle"] == ["b1", "b2"]


def test_two_slots_on_the_same_hosts_are_two_pools() -> None:
    both = {"blue": ["h1", "h2"], "green": ["h1", "h2"]}
    assert pools_of("blue_green", NAMES, both, "blue")["slots"]


@pytest.mark.parametrize(
    ("kind", "names", "members", "said"),
    [
        ("blue_green", ("blue",), MEMBERS, "moves traffic between two pools"),
        ("blue_green", (), {}, "deploy_traffic_pools has none"),
        ("blue_green", NAMES, {"blue": ["b1"]}, "The pool green has no targets"),
        ("canary", NAMES, {"green": ["b1"]}, "The pool blue has no targets"),
        ("blue_green", NAMES, {"blue": ["a", "b"], "green": ["a"]}, "b is in one"),
        ("canary", NAMES, {"blue": ["a"], "green": ["a"]}, "targets of its own"),
    ],
)
def test_pools_that_cannot_be_are_refused(
    kind: str, names: tuple[str, ...], members: dict[str, list[str]], said: str
) -> None:
    with pytest.raises(BasculeError, match=said):
        pools_of(kind, names, members, "blue")


def told(steps: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(step["part"], step["text"]) for step in steps]


def test_what_stands_before_the_first_shift_is_asked_before_users_come() -> None:
    schedule = parse_schedule([{"gate": {"name": "smoke"}}, {"shift": 5}, {"bake": "10m"}])
    steps = deployment_steps(
        schedule,
        pools(test_route=RULE, retire="drain"),
        bake=60,
        ready_timeout=3600,
        ready_on_timeout="stop",
        retire_after=7200,
        fleet=True,
    )
    assert told(steps) == [
        ("test", "see the targets of green in service"),
        ("test", "open the test route to green"),
        ("ready", "ask the gate smoke"),
        ("ready", "wait for an approval, at most 1h, then it stops"),
        ("shift", "shift 5% of the traffic to green, 95% stays on blue"),
        ("shift", "bake for 10m"),
        ("shift", "shift 100% of the traffic to green"),
        ("shift", "bake for 1m"),
        ("kept", "bake for 2h"),
        ("retire", "retire blue (drain)"),
        ("retire", "let the Auto Scaling group of green keep it filled"),
    ]
    assert [step["number"] for step in steps] == list(range(1, 12))
    ending = deployment_steps(schedule, pools(retire="terminate"), fleet=True)
    assert told(ending)[-1][1] == (
        "let the Auto Scaling group of green keep it filled, delete that of blue"
    )
    assert all(step["part"] in PARTS for step in steps)


def test_a_canary_brings_the_traffic_home_when_the_fleet_has_the_revision() -> None:
    schedule = parse_schedule([{"shift": 5}, {"bake": 1}], complete=False)
    assert told(deployment_steps(schedule, pools("canary")))[-1] == (
        "home",
        "bring all traffic back to blue",
    )


def test_canaries_among_the_targets_shift_nothing() -> None:
    steps = deployment_steps(parse_schedule([{"bake": 5}], complete=False), None)
    assert told(steps) == [("shift", "bake for 5s")]
    with pytest.raises(BasculeError, match="there are no pools to shift it between"):
        deployment_steps(parse_schedule([{"shift": 5}]), None)


@given(share=st.floats(0, 100).map(lambda share: round(share, 2)), live=st.sampled_from(NAMES))
def test_every_routing_of_a_deployment_is_one_that_providers_read(share: float, live: str) -> None:
    found = pools_of(
        "blue_green", NAMES, MEMBERS, live, test_route=RULE, sticky={"cookie": "u", "ttl": 60.0}
    )
    routing = routing_for(found, share, "salt")
    assert parse_routing(routing, NAMES).as_data()["weights"][found["new"]] == pytest.approx(share)
    assert bool(routing["match"]) == (share < 100)
    assert bool(routing["sticky"]) == (0 < share < 100)
    home = parse_routing(routing_home(found), NAMES).as_data()
    assert home["weights"] == {live: 100.0, found["new"]: 0.0}
    assert home["match"] == []


ALL_HOOKS = {
    event: [{}] for event in ("AfterAllowTestTraffic", "BeforeAllowTraffic", "AfterAllowTraffic")
}
BLOCK = ["BeforeBlockTraffic", "AfterBlockTraffic"]


@pytest.mark.parametrize(
    ("more", "back", "touched", "wanted"),
    [
        # Nothing at a load balancer between the two: one run.
        ({"leaving": BLOCK}, False, ["g1"], {"leaving": ["b1", "b2"], "leaving_span": "leave"}),
        (
            {"leaving": BLOCK, "retire": "drain"},
            False,
            ["g1"],
            {"leaving": ["b1", "b2"], "left": ["b1", "b2"], "leaving_span": "leaving"},
        ),
        ({"leaving": BLOCK[1:], "retire": "drain"}, False, [], {"left": ["b1", "b2"]}),
        ({"test_route": RULE}, False, ["g1", "g2"], {"after_test": ["g1", "g2"]}),
        ({}, False, ["g1", "g2"], {}),
        ({"leaving": BLOCK}, True, [], {"leaving": ["b1", "b2"], "returned": ["g1"]}),
        # The targets are changed: their own lifecycle has these events.
        ({}, True, ["g1", "g2"], {}),
    ],
)
def test_hooks_of_pools_as_a_whole(
    more: dict[str, Any], back: bool, touched: list[str], wanted: dict[str, Any]
) -> None:
    found = hooks_of_pools(pools(**more), ALL_HOOKS, back=back, touched=touched)
    spans = {name: value for name, value in found.items() if value and name != "leaving_span"}
    assert spans == {name: value for name, value in wanted.items() if name != "leaving_span"}
    if "leaving_span" in wanted:
        assert found["leaving_span"] == wanted["leaving_span"]


def test_no_hook_runs_on_pools_that_are_none() -> None:
    for other in (None, {**pools(), "platform": "lambda"}):
        found = hooks_of_pools(other, ALL_HOOKS, back=True, touched=[])
        assert not any(value for name, value in found.items() if name != "leaving_span")
    canary = hooks_of_pools(pools("canary"), ALL_HOOKS, back=False, touched=["g1"])
    assert not canary["leaving"]


def test_the_way_back_is_the_traffic_before_all_else() -> None:
    back, steps = way_back(pools(test_route=RULE))
    assert told(steps) == [("back", "shift 100% of the traffic to blue")]
    assert (back["new"], back["old"], back["home"]) == ("blue", "green", "blue")
    assert routing_for(back, 100.0, "salt") == routing_home(back)
    assert unsafe_parts(steps) == []


def test_users_come_back_to_a_pool_that_was_retired_when_it_is_in_service() -> None:
    back, steps = way_back(pools(retire="drain"), retired=True)
    assert told(steps) == [
        ("back", "see the targets of blue in service"),
        ("back", "shift 100% of the traffic to blue"),
    ]
    assert routing_unmoved(back)["weights"] == {"blue": 0.0, "green": 100.0}
    assert unsafe_parts(steps) == ["back"]
    forward = deployment_steps([{"kind": "shift", "share": 100.0}], pools(retire="drain"))
    assert unsafe_parts(forward) == ["retire"]
    assert routing_unmoved(pools(test_route=RULE)) == routing_home(pools())


def test_capabilities_follow_from_what_is_wanted() -> None:
    assert wishes_of(None) == []
    assert wishes_of(pools()) == ["weights"]
    more = pools(test_route=RULE, sticky={"header": "X-User"})
    assert wishes_of(more) == ["weights", "match", "sticky", "identity"]
    assert wishes_of(pools(sticky={"cookie": "AWSALBTG", "ttl": 60})) == ["weights", "sticky"]
    listener = pools(test_route={"listener": "arn"})
    assert wishes_of(listener) == ["weights", "listener"]
    assert routing_for(listener, 0.0, "salt")["match"] == [{"pool": "green", "listener": "arn"}]
    assert "  Test route: listener arn leads to green." in pool_lines(listener, [])


@pytest.mark.parametrize(
    ("given_", "read"),
    [
        ({}, None),
        (None, None),
        ({"header": "X", "value": "1"}, {"header": "X", "value": "1"}),
        ({"cookie": "c", "value": "1"}, {"cookie": "c", "value": "1"}),
        ({"listener": "arn"}, {"listener": "arn"}),
    ],
)
def test_a_test_route_is_read(given_: Any, read: Any) -> None:
    assert read_test_route(given_) == read


@pytest.mark.parametrize(
    "given_",
    [
        {"value": "1"},
        {"header": "X", "cookie": "c"},
        "X",
        {"header": ""},
        {"path": "/"},
        {"listener": ""},
        {"listener": "arn", "value": "1"},
    ],
)
def test_another_test_route_is_refused(given_: Any) -> None:
    with pytest.raises(BasculeError, match="deploy_test_route is"):
        read_test_route(given_)


def test_targets_that_failed_get_no_users() -> None:
    endpoints = [{"target": name} for name in ("a", "b", "c")]
    may, must_not = dividing(endpoints, {"a": "Succeeded", "b": "Failed"})
    assert [one["target"] for one in may] == ["a", "c"]
    assert [one["target"] for one in must_not] == ["b"]


def test_the_plan_tells_pools_and_schedule() -> None:
    found = pools(
        before={"blue": 100.0, "green": 0.0}, test_route=RULE, sticky={"cookie": "visitor"}
    )
    steps = deployment_steps(parse_schedule("all_at_once"), found)
    assert pool_lines(found, steps) == [
        "Pools: green gets the revision, blue serves now.",
        "  Traffic before: blue 100%, green 0%.",
        "  Traffic after: blue 0%, green 100%.",
        "  Test route: header X-Test: green leads to green.",
        "  Users stay with their pool, known by the cookie visitor.",
        "Schedule:",
        "  1. see the targets of green in service (after about 0s)",
        "  2. open the test route to green (after about 5s)",
        "  3. shift 100% of the traffic to green (after about 10s)",
    ]
