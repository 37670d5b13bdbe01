"""What the judge decides right where Kayenta's is known to be wrong, or does not look."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError
from ansible_collections.bascule.deploy.plugins.plugin_utils._judge import decide, parse_judge
from ansible_collections.bascule.deploy.plugins.plugin_utils._judge._statistics import (
    location_shift,
    spread_evidence,
    spread_test,
    without_outliers,
)
from scipy import stats

SERIES = {"name": "p95", "kind": "series", "critical": True}
RATE = {"name": "errors", "kind": "rate", "critical": True}


def state(metric: dict[str, Any], data: dict[str, Any], **judge: Any) -> str:
    found = decide(parse_judge({"metrics": [metric], **judge}), {"metrics": {metric["name"]: data}})
    return str(found["metrics"][0]["state"])


def counted(bad: int, total: int, other_bad: int, other: int) -> dict[str, Any]:
    canary, baseline = {"bad": bad, "total": total}, {"bad": other_bad, "total": other}
    return {"steps": [{"canary": canary, "baseline": baseline}]}


def drawn(spread: float, seed: int, number: int = 120) -> dict[str, list[float]]:
    """Return a canary whose values scatter ``spread`` times as much, around the same level."""
    random = np.random.default_rng(seed)
    return {
        "canary": (100 * random.lognormal(0, 0.05 * spread, number)).tolist(),
        "baseline": (100 * random.lognormal(0, 0.05, number)).tolist(),
    }


def test_a_few_errors_against_none_are_bad_where_ranks_let_them_pass() -> None:
    # The series of a known report on Kayenta: zeros against five intervals with an error.
    canary, baseline = [0.0, 1.0] * 5, [0.0] * 10
    shift = location_shift(canary, baseline)
    assert stats.mannwhitneyu(canary, baseline).pvalue < 0.02
    assert not shift.low > 0.25 * shift.estimate + 1e-3, "Kayenta passes it"
    assert state(RATE, counted(5, 100, 0, 900)) == "Bad"
    assert state(RATE, counted(0, 1000, 0, 9000)) == "Good"


@pytest.mark.parametrize("test", ["sequential", "rank"])
def test_a_harmless_half_of_a_percent_is_good_however_surely_it_is_seen(test: str) -> None:
    random = np.random.default_rng(3)
    canary = (100.5 + 0.2 * random.standard_normal(60)).tolist()
    baseline = (100 + 0.2 * random.standard_normal(60)).tolist()
    shift = location_shift(canary, baseline)
    assert shift.low > 0.25 * shift.estimate, "Kayenta calls it High"
    assert state({**SERIES, "test": test}, {"canary": canary, "baseline": baseline}) == "Good"


@pytest.mark.parametrize("test", ["sequential", "rank"])
def test_the_same_level_with_more_scatter_is_bad_where_that_is_asked_for(test: str) -> None:
    wild, calm = drawn(6.0, 4), drawn(1.0, 5)
    metric = {**SERIES, "test": test, "ratio": 1.5}
    assert state(metric, wild) == "Good"
    assert state({**metric, "spread": 1.5}, wild) == "Bad"
    assert state({**metric, "spread": 1.5}, calm) == "Good"


def test_equal_scatter_is_rarely_bad_though_one_looks_at_every_interval() -> None:
    random = np.random.default_rng(6)
    runs, looks, alpha, alarms = 300, 40, 0.05, 0
    for _run in range(runs):
        canary, baseline = random.standard_t(4, (2, looks)).tolist()
        alarms += any(
            spread_evidence(canary[:look], baseline[:look], 1.0, 10) >= math.log(1 / alpha)
            for look in range(12, looks, 4)
        )
    assert alarms / runs <= alpha


def test_the_test_of_scatter_is_that_of_brown_and_forsythe() -> None:
    canary, baseline = drawn(2.0, 7).values()
    expected = stats.levene(canary, baseline, center="median").pvalue / 2
    assert spread_test(canary, baseline, 1.0) == pytest.approx(expected)
    assert spread_test(baseline, canary, 1.0) == 1.0
    assert spread_test(canary, baseline, 3.0) == 1.0
    assert spread_test([1.0, 2.0] * 30, [5.0] * 60, 1.0) == 0.0
    assert spread_test([5.0] * 60, [5.0] * 60, 1.0) == 1.0


def test_outliers_are_those_beyond_kayentas_fences() -> None:
    values = [*map(float, range(100)), 1e6]
    assert without_outliers(values) == values[:-1]
    assert without_outliers([]) == []
    metric = {**SERIES, "test": "rank", "minimum": 50}
    noisy = drawn(1.0, 8)
    noisy["canary"][0] = 1e9
    assert state({**metric, "spread": 1.5, "outliers": "remove"}, noisy) == "Good"


def test_an_interval_without_a_value_may_count_as_none() -> None:
    data: dict[str, Any] = {"canary": [None, 3.0] * 20, "baseline": [None, 1.0] * 20}
    absolute = {**SERIES, "absolute": 1.0}
    assert state(absolute, data) == "Bad"
    # Where every second interval is 0, the rise is half of it.
    assert state({**absolute, "missing": "zero", "absolute": 2.0}, data) == "Good"


def three(first: tuple[int, ...], *rest: tuple[int, ...], control: str) -> list[str]:
    names = "abc"[: len(rest) + 1]
    judge = {"metrics": [{"name": one, "kind": "rate"} for one in names], "control": control}
    data = {name: counted(*one) for name, one in zip(names, (first, *rest), strict=True)}
    found = decide(parse_judge(judge), {"metrics": data})
    return [one["state"] for one in found["metrics"]]


def test_many_that_are_nearly_bad_are_bad_together_where_discoveries_are_controlled() -> None:
    near, good = (4, 100, 2, 900), (0, 10_000, 0, 90_000)
    alone = three(near, near, near, control="family")
    assert alone == ["Undecided"] * 3
    assert three(near, near, near, control="discoveries") == ["Bad"] * 3
    assert three(near, good, good, control="discoveries") == ["Undecided", "Good", "Good"]
    bad = (50, 100, 0, 900)
    assert three(bad, good, good, control="discoveries") == ["Bad", "Good", "Good"]


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        ({"metrics": [{**SERIES, "spread": 0.5}]}, "spread is a number from 1"),
        ({"metrics": [{**SERIES, "missing": "mean"}]}, "missing is one of remove, zero"),
        ({"metrics": [{**SERIES, "outliers": "remove"}]}, "with the test rank alone"),
        ({"metrics": [{**RATE, "outliers": "remove"}]}, "with the test rank alone"),
        ({"metrics": [RATE], "control": "none"}, "control is one of family, discoveries"),
    ],
)
def test_what_does_not_fit_is_refused(judge: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_judge(judge)
