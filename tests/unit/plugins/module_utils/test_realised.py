from __future__ import annotations

import random
from typing import Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._realised import (
    confirmation,
    has_been_seen,
    judge_all,
    judge_share,
    requests_between,
)

HALF = {"blue": 50.0, "green": 50.0}
FIVE = {"blue": 95.0, "green": 5.0}
ALL = {"blue": 0.0, "green": 100.0}


def look(at: float, **requests: int) -> dict[str, Any]:
    return {"at": at, "pools": {pool: {"requests": n} for pool, n in requests.items()}}


@pytest.mark.parametrize(
    ("blue", "green", "wanted", "verdict"),
    [
        (0, 0, FIVE, "thin"),
        (90, 5, FIVE, "thin"),
        (190, 10, FIVE, "confirmed"),
        (150, 50, FIVE, "refuted"),
        (1000, 0, FIVE, "refuted"),
        (30, 30, HALF, "confirmed"),
        (100, 0, HALF, "refuted"),
        (0, 49, ALL, "thin"),
        (0, 50, ALL, "confirmed"),
        (1, 120, ALL, "confirmed"),
        (60, 60, ALL, "refuted"),
    ],
)
def test_counts_confirm_or_refute_a_share(
    blue: int, green: int, wanted: dict[str, float], verdict: str
) -> None:
    assert judge_share({"blue": blue, "green": green}, wanted)[0] == verdict


def test_a_share_that_is_right_is_hardly_ever_refuted() -> None:
    source = random.Random(20)  # noqa: S311 (nothing secret)
    refuted = 0
    for _run in range(300):
        green = sum(source.random() < 0.05 for _request in range(400))
        refuted += judge_share({"blue": 400 - green, "green": green}, FIVE)[0] == "refuted"
    assert refuted <= 2


def test_requests_are_counted_from_the_look_before() -> None:
    before, after = look(1.0, blue=1000, green=10), look(2.0, blue=1100, green=12, canary=3)
    assert requests_between(before, after) == {"blue": 100, "green": 2, "canary": 3}
    # A proxy that was started again counts from 0.
    restarted = look(3.0, blue=7, green=1)
    assert requests_between(after, restarted) == {"blue": 0, "green": 0}
    alone = {**look(2.0, blue=80, green=2), "since": 1.0}
    assert requests_between(before, alone) == {"blue": 80, "green": 2}


def test_counting_ends_when_the_share_is_confirmed_or_the_time_is_over() -> None:
    before = look(100.0, blue=0, green=0)
    assert has_been_seen([before], [look(101.0, blue=190, green=10)], FIVE, 10.0)
    assert not has_been_seen([before], [look(101.0, blue=10, green=1)], FIVE, 10.0)
    assert has_been_seen([before], [look(110.0, blue=10, green=1)], FIVE, 10.0)
    assert not has_been_seen([before], [look(101.0, blue=10, green=190)], FIVE, 10.0)


def test_all_load_balancers_are_waited_for() -> None:
    before = [look(100.0, blue=0, green=0), look(90.0, blue=0, green=0)]
    shown, few = look(101.0, blue=190, green=10), look(95.0, blue=10, green=1)
    assert not has_been_seen(before, [shown, few], FIVE, 10.0)
    assert has_been_seen(before, [shown, look(95.0, blue=190, green=10)], FIVE, 10.0)
    assert has_been_seen(before, [look(110.0, blue=190, green=10), few], FIVE, 5.0)


@pytest.mark.parametrize(
    ("provider", "kind", "later", "patience"),
    [
        ("envoy", "shift", ["bake", "shift", "retire"], "10s"),
        ("envoy", "shift", [], "10s"),
        ("envoy", "bake", ["shift"], None),
        ("elbv2", "shift", ["bake", "shift", "bake", "retire"], None),
        ("elbv2", "shift", ["bake", "retire"], "5m"),
        ("elbv2", "shift", [], None),
        ("elbv2", "retire", [], None),
        ("lambda_alias", "shift", ["retire"], None),
        ("elb", "shift", ["retire"], None),
    ],
)
def test_counts_that_come_late_are_waited_for_before_the_old_pool_is_gone(
    provider: str, kind: str, later: list[str], patience: str | None
) -> None:
    found = confirmation(provider, {"kind": kind}, [{"kind": one} for one in later])
    assert found.get("patience") == patience


def test_one_load_balancer_that_shares_otherwise_decides() -> None:
    before = [look(0.0), look(0.0)]
    good, bad, few = (look(9.0, blue=b, green=g) for b, g in ((190, 10), (50, 150), (3, 0)))
    assert judge_all(before, [good, bad], FIVE)[0] == "refuted"
    assert judge_all(before, [good, few], FIVE)[0] == "thin"
    assert judge_all(before, [good, good], FIVE)[0] == "confirmed"
