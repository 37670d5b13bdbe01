from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils import _alb_routing as alb
from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError
from ansible_collections.bascule.deploy.plugins.module_utils._routing_data import (
    Match,
    parse_routing,
)
from hypothesis import given
from hypothesis import strategies as st

GROUPS = {"blue": "arn:blue", "green": "arn:green"}


@pytest.mark.parametrize(
    ("points", "weights"),
    [
        ({"blue": 10000, "green": 0}, {"blue": 1, "green": 0}),
        ({"blue": 9500, "green": 500}, {"blue": 19, "green": 1}),
        ({"blue": 9900, "green": 100}, {"blue": 99, "green": 1}),
        ({"blue": 9975, "green": 25}, {"blue": 399, "green": 1}),
        ({"blue": 3334, "green": 3333, "red": 3333}, {"blue": 1, "green": 1, "red": 1}),
    ],
)
def test_shares_become_the_smallest_weights(
    points: dict[str, int], weights: dict[str, int]
) -> None:
    assert alb.weights_of(points) == weights


def test_a_share_finer_than_the_weights_is_refused() -> None:
    with pytest.raises(UsageError, match=r"cannot share blue 99.99 %, green 0.01 %"):
        alb.weights_of({"blue": 9999, "green": 1})


@given(st.integers(0, 1000).map(lambda tenths: tenths * 10))
def test_whole_tenths_of_a_percent_always_fit(green: int) -> None:
    points = {"blue": 10000 - green, "green": green}
    assert alb.points_of(alb.weights_of(points)) == points


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(0, 999), min_size=1))
def test_the_shares_of_any_weights_sum_up(weights: dict[str, int]) -> None:
    points = alb.points_of(weights)
    assert sum(points.values()) == (10000 if any(weights.values()) else 0)


def test_an_action_keeps_pools_attached_and_users_with_their_pool() -> None:
    routing = parse_routing(
        {
            "weights": {"blue": 100.0},
            "sticky": {"salt": "d-1", "cookie": "AWSALBTG", "ttl": 60},
        }
    )
    action = alb.forward(routing, GROUPS, ["green"])
    assert action["ForwardConfig"] == {
        "TargetGroups": [
            {"TargetGroupArn": "arn:green", "Weight": 0},
            {"TargetGroupArn": "arn:blue", "Weight": 1},
        ],
        "TargetGroupStickinessConfig": {"Enabled": True, "DurationSeconds": 60},
    }
    assert alb.shares(action) == {"arn:green": 0, "arn:blue": 1}
    shown = alb.stickiness(action)
    assert shown is not None
    assert shown.ttl == 60.0


@pytest.mark.parametrize(
    ("sticky", "words"),
    [
        ({"salt": "s", "cookie": "visitor"}, "by the cookie visitor"),
        ({"salt": "s", "header": "X-User"}, "by the header X-User"),
        ({"salt": "s", "cookie": "AWSALBTG", "ttl": 604801}, "at most 604800 s"),
    ],
)
def test_a_stickiness_that_an_alb_has_not_is_refused(sticky: dict[str, Any], words: str) -> None:
    routing = parse_routing({"weights": {"blue": 50, "green": 50}, "sticky": sticky})
    with pytest.raises(UsageError, match=words):
        alb.forward(routing, GROUPS)


@pytest.mark.parametrize(
    "rule",
    [
        Match("green", "yes", header="X-Test"),
        Match("green", "green", cookie="pool"),
        Match("green", "a=b", cookie="pool"),
    ],
)
def test_a_rule_is_read_as_it_was_written(rule: Match) -> None:
    assert alb.match_of(alb.condition(rule), "green") == rule


@pytest.mark.parametrize(
    "condition",
    [
        {"Field": "path-pattern", "Values": ["/x"]},
        {"Field": "http-header", "HttpHeaderConfig": {"HttpHeaderName": "X", "Values": ["a", "b"]}},
        {"Field": "http-header", "HttpHeaderConfig": {"HttpHeaderName": "Cookie", "Values": ["*"]}},
    ],
)
def test_somebody_else_s_condition_is_none_of_ours(condition: dict[str, Any]) -> None:
    assert alb.match_of(condition, "green") is None


def test_two_routings_are_the_same_whatever_the_salt() -> None:
    one, other = (
        parse_routing(
            {
                "weights": weights,
                "sticky": {"salt": salt, "cookie": "AWSALBTG", "ttl": 60},
                "match": [{"pool": "green", "header": header, "value": "Yes"}],
            }
        )
        for salt, header, weights in (
            ("a", "X-Test", {"blue": 100, "green": 0}),
            ("b", "x-test", {"blue": 100}),
        )
    )
    assert alb.same(one, other)
