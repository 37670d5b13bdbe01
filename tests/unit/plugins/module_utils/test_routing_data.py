from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils import _capabilities, _routing_data
from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError
from ansible_collections.bascule.deploy.plugins.module_utils._routing_data import parse_routing
from hypothesis import given
from hypothesis import strategies as st

WHOLE = {
    "weights": {"blue": 95.0, "green": 5.0},
    "match": [
        {"pool": "green", "header": "X-Bascule-Test", "value": "green"},
        {"pool": "green", "cookie": "pool", "value": "green"},
    ],
    "sticky": {"salt": "d-ABC", "cookie": "visitor", "ttl": 60.0},
    "mirror": {"pool": "shadow", "share": 50.0},
}


def test_a_routing_is_read_and_written_alike() -> None:
    routing = parse_routing(WHOLE, ["blue", "green", "shadow"], provider="envoy")
    assert routing.points == {"blue": 9500, "green": 500}
    assert parse_routing(routing.as_data()) == routing
    assert {key: value for key, value in routing.as_data().items() if key != "match"} == {
        key: value for key, value in WHOLE.items() if key != "match"
    }
    assert _routing_data.describe(routing) == (
        "blue: 95 %\n"
        "green: 5 %\n"
        "header X-Bascule-Test=green: green\n"
        "cookie pool=green: green\n"
        "sticky by cookie visitor, salt d-ABC, given for 60 s\n"
        "mirrored to shadow: 50 %\n"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": {"blue": 95, "green": 4}}, "together 99"),
        ({"weights": {"blue": 101, "green": -1}}, "weights: blue is 101, wanted percent, 0 to 100"),
        ({"weights": {"blue": True, "green": 99}}, "blue is True"),
        ({"weights": {"blue": "nan"}}, "blue is 'nan'"),
        ({"weights": {}}, "weights is {}, wanted a mapping"),
        ({"weights": {"bl ue": 100}}, "'bl ue' cannot be a pool's name"),
        ({"weights": {"red": 100}}, "no pool red; deploy_traffic_pools has blue, green, shadow"),
        ({"colour": 1}, "unknown colour"),
        ({"match": "green"}, "match is 'green', wanted a list"),
        ({"match": [{"pool": "green", "value": "x"}]}, "match 1: wanted is the name of either"),
        ({"match": [{"pool": "green", "header": "a b", "value": "x"}]}, "cannot be the name"),
        ({"match": [{"pool": "green", "header": "A", "value": 'x"'}]}, "value is 'x\"'"),
        ({"match": [{"header": "A", "value": "x"}]}, "pool is None"),
        ({"sticky": {"cookie": "a"}}, "salt is '', wanted a text that differs"),
        ({"sticky": {"salt": "s", "cookie": "a", "ttl": 0}}, "ttl is 0"),
        ({"sticky": {"salt": "s", "header": "a", "ttl": 60}}, "a header has none"),
        ({"sticky": {"salt": "s", "header": "a", "rest": "red"}}, "rest is 'red'"),
        ({"mirror": {"pool": "shadow", "share": 101}}, "mirror: share is 101"),
        ({"mirror": {"pool": "dark"}}, "no pool dark"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_routing({**WHOLE, **change}, ["blue", "green", "shadow"])
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("provider", "message"),
    [
        (
            "haproxy",
            r"haproxy cannot send a copy of requests to a pool \(mirror\)\. .*envoy, nginx",
        ),
        ("elbv2", r"elbv2 cannot know a user by .* \(identity\), nor send a copy .*: envoy, nginx"),
        ("elb", r"elb cannot share the traffic .*, nor choose a pool .*, nor keep .*, nor send"),
        ("iptables", r"deploy_traffic_provider is 'iptables', wanted one of elb, elbv2, envoy"),
    ],
)
def test_a_provider_that_cannot_is_refused_with_those_that_can(provider: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_routing(WHOLE, provider=provider)


def test_wishes_that_nobody_fulfils_together_are_told_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = {"here": frozenset(("weights",)), "there": frozenset(("drain",))}
    monkeypatch.setattr(_capabilities, "CAPABILITIES", table)
    with pytest.raises(UsageError, match=r"No provider can do all .*weights: here; drain: there"):
        _capabilities.require("here", ["weights", "drain"])
    with pytest.raises(UsageError, match="'walk' is not one of observe"):
        _capabilities.lacking("here", ["walk"])


def test_every_word_of_the_table_is_explained() -> None:
    assert set().union(*_capabilities.CAPABILITIES.values()) == set(_capabilities.MEANINGS)
    assert set(_capabilities.CAPABILITIES) >= _capabilities.ON_HOST


@pytest.mark.parametrize(
    ("data", "value"),
    # The integration tests compare with nginx itself.
    [(b"", 0), (b"a", 0x92685F5E), (b"hello world", 0x44A81419)],
)
def test_the_hash_is_murmur_hash_2(data: bytes, value: int) -> None:
    assert _routing_data.murmur_hash2(data) == value


@given(st.text(max_size=40), st.integers(0, 100), st.integers(0, 100))
def test_a_user_stays_while_the_share_grows(identity: str, one: int, other: int) -> None:
    low, high = sorted((one, other))
    sticky = {"salt": "s", "header": "X-User"}

    def arm(share: int) -> str:
        weights = {"blue": 100 - share, "green": share}
        return _routing_data.arm_of(parse_routing({"weights": weights, "sticky": sticky}), identity)

    assert (arm(low), arm(high)) in {("blue", "blue"), ("blue", "green"), ("green", "green")}


@given(st.text(max_size=20), st.integers(0, 50), st.integers(0, 50))
def test_two_growing_pools_take_only_from_the_rest(identity: str, one: int, other: int) -> None:
    low, high = sorted((one, other))
    sticky = {"salt": "s", "header": "X-User", "rest": "stable"}

    def arm(share: int) -> str:
        weights = {"baseline": share, "canary": share, "stable": 100 - 2 * share}
        return _routing_data.arm_of(parse_routing({"weights": weights, "sticky": sticky}), identity)

    before, after = arm(low), arm(high)
    assert before in ("stable", after)


def test_a_share_of_users_is_the_share_asked_for_and_salts_are_independent() -> None:
    def arms(salt: str) -> list[bool]:
        sticky = {"salt": salt, "header": "X-User"}
        routing = parse_routing({"weights": {"blue": 80, "green": 20}, "sticky": sticky})
        return [_routing_data.arm_of(routing, f"user-{n}") == "green" for n in range(20000)]

    one, other = arms("d-1"), arms("d-2")
    both = sum(a and b for a, b in zip(one, other, strict=True))
    # Four standard deviations of 20,000 draws at 20 % and at 4 %.
    assert abs(sum(one) - 4000) < 226
    assert abs(both - 800) < 111
