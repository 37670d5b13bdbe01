"""Who wins an A/B test: found in both directions, and seldom where there is nothing to be found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ansible_collections.bascule.deploy.plugins.plugin_utils._judge import parse_judge, winner

# As ``deploy_ab_test`` sets them.
RATE = parse_judge({"metrics": [{"name": "x", "kind": "rate", "ratio": 1.0, "tolerance": 0.0}]})
SERIES = parse_judge({"metrics": [{"name": "x", "kind": "series", "ratio": 1.0}]})
ALPHA = 0.05


def counts(new: tuple[int, int], old: tuple[int, int]) -> dict[str, Any]:
    step = {
        arm: {"bad": bad, "total": total}
        for arm, (bad, total) in (("canary", new), ("baseline", old))
    }
    return {"metrics": {"x": {"steps": [step]}}}


@pytest.mark.parametrize(
    ("new", "old", "more", "wanted"),
    [
        ((60, 1000), (10, 1000), False, "baseline"),
        ((60, 1000), (10, 1000), True, "canary"),
        ((10, 1000), (60, 1000), False, "canary"),
        ((10, 1000), (60, 1000), True, "baseline"),
        # The same rate, and another split.
        ((10, 1000), (30, 3000), False, None),
        ((0, 0), (60, 1000), False, None),
    ],
)
def test_a_rate(new: tuple[int, int], old: tuple[int, int], more: bool, wanted: str | None) -> None:
    found = winner(RATE, counts(new, old), more_is_better=more)
    assert found["winner"] == wanted
    assert found["arms"]["baseline"].startswith(f"{old[0]} of {old[1]} ")


@pytest.mark.parametrize(("factor", "wanted"), [(0.8, "canary"), (1.25, "baseline")])
def test_a_series(factor: float, wanted: str) -> None:
    draw = np.random.default_rng(7)
    old = list(draw.normal(100, 3, 60))
    data = {"metrics": {"x": {"canary": [factor * one for one in old], "baseline": old}}}
    assert winner(SERIES, data, more_is_better=False)["winner"] == wanted


def test_nobody_wins_who_did_not_get_the_share_that_was_meant() -> None:
    data = counts((60, 1000), (10, 1000))
    data["assignments"] = [{"canary": 700, "baseline": 1300, "share": 0.5}]
    found = winner(RATE, data, more_is_better=False)
    assert (found["winner"], found["alarm"]) == (None, True)


def test_equal_variants_seldom_have_a_winner_however_often_one_looks() -> None:
    draw, runs, won = np.random.default_rng(11), 60, 0
    for _run in range(runs):
        new, old = (np.cumsum(draw.binomial(200, 0.05, 25)) for _arm in range(2))
        looks = (
            counts((int(new[at]), 200 * (at + 1)), (int(old[at]), 200 * (at + 1)))
            for at in range(25)
        )
        won += any(winner(RATE, one, more_is_better=False)["winner"] for one in looks)
    # Binomial with 0.05 at most: 10 or more of 60 come once in 1,600 times.
    assert won < 10
