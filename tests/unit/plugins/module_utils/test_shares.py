from __future__ import annotations

import random

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._shares import (
    Share,
    binomial_interval,
    share_confirmed,
)
from scipy.stats import beta


@pytest.mark.parametrize("total", [1, 7, 200, 40_000, 3_000_000])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.05, 0.5, 0.97, 1.0])
@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_the_interval_is_scipy_s(total: int, share: float, alpha: float) -> None:
    count = round(total * share)
    low, high = binomial_interval(count, total, alpha)
    wanted_low = beta.ppf(alpha / 2, count, total - count + 1) if count else 0.0
    wanted_high = beta.ppf(1 - alpha / 2, count + 1, total - count) if count < total else 1.0
    assert low == pytest.approx(wanted_low, abs=1e-9)
    assert high == pytest.approx(wanted_high, abs=1e-9)


@pytest.mark.parametrize(
    ("wanted", "confirmed"), [(0.04, False), (0.05, True), (0.15, True), (0.16, False)]
)
def test_a_share_is_confirmed_from_one_end_of_its_interval_to_the_other(
    wanted: float, confirmed: bool
) -> None:
    assert Share(wanted=wanted, seen=0.1, low=0.05, high=0.15).confirmed is confirmed


def test_nothing_seen_confirms_nothing() -> None:
    assert binomial_interval(0, 0, 0.05) == (0.0, 1.0)
    assert not share_confirmed({}, {"blue": 100.0}).confirmed


@pytest.mark.parametrize(
    ("counts", "weights", "confirmed"),
    [
        ({"blue": 950, "green": 50}, {"blue": 95, "green": 5}, True),
        ({"blue": 900, "green": 100}, {"blue": 95, "green": 5}, False),
        ({"blue": 1000}, {"blue": 100, "green": 0}, True),
        ({"blue": 999, "green": 1}, {"blue": 100, "green": 0}, False),
        ({"blue": 1000}, {"blue": 50, "green": 50}, False),
        ({"blue": 500, "green": 500}, {"blue": 100}, False),
        ({"a": 330, "b": 340, "c": 330}, {"a": 33.3, "b": 33.4, "c": 33.3}, True),
        ({"a": 200, "b": 470, "c": 330}, {"a": 33.3, "b": 33.4, "c": 33.3}, False),
    ],
)
def test_counts_confirm_weights_or_do_not(
    counts: dict[str, int], weights: dict[str, float], confirmed: bool
) -> None:
    shares = share_confirmed(counts, weights)
    assert shares.confirmed is confirmed
    assert str(shares.requests) in shares.describe()


def test_the_intervals_of_several_pools_hold_together() -> None:
    counts = {"a": 330, "b": 340, "c": 330}
    found = share_confirmed(counts, {"a": 33.3, "b": 33.4, "c": 33.3}, alpha=0.02)
    for pool, share in found.pools.items():
        assert (share.low, share.high) == binomial_interval(counts[pool], 1000, 0.01)


def test_right_weights_are_rarely_doubted_and_wrong_ones_are_found() -> None:
    draw = random.Random(7)  # noqa: S311 (a simulation)
    doubted = found = 0
    for _round in range(400):
        green = sum(draw.random() < 0.1 for _request in range(1000))
        counts = {"blue": 1000 - green, "green": green}
        doubted += not share_confirmed(counts, {"blue": 90, "green": 10}, alpha=0.05).confirmed
        found += not share_confirmed(counts, {"blue": 80, "green": 20}, alpha=0.05).confirmed
    assert doubted <= 400 * 0.05
    assert found == 400
