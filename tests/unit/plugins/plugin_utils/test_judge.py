"""The judge's verdicts: what it calls good and bad, and what it leaves open."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError
from ansible_collections.bascule.deploy.plugins.plugin_utils._judge import decide, parse_judge

ERRORS = {"name": "errors", "kind": "rate"}
LATENCY = {"name": "p95", "kind": "series"}


def counts(bad: int, total: int, bad_baseline: int, baseline: int) -> dict[str, Any]:
    step = {
        "canary": {"bad": bad, "total": total},
        "baseline": {"bad": bad_baseline, "total": baseline},
    }
    return {"metrics": {"errors": {"steps": [step]}}}


def verdict(metric: dict[str, Any], data: dict[str, Any], **more: Any) -> str:
    judge = parse_judge({"metrics": [{**metric, "critical": True}]})
    return str(decide(judge, data, **more)["verdict"])


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ((0, 2000, 0, 18000), "Pass"),
        ((20, 2000, 180, 18000), "Continue"),
        ((100, 10000, 900, 90000), "Pass"),
        ((60, 2000, 180, 18000), "Fail"),
        ((8, 1000, 0, 9000), "Fail"),
        # Few requests prove a break, but never that all is well.
        ((5, 5, 0, 45), "Fail"),
        ((0, 50, 0, 450), "Continue"),
        ((0, 0, 0, 450), "Continue"),
        ((5, 10, 0, 10), "Continue"),
        # Better than the baseline is good, too.
        ((0, 2000, 600, 18000), "Pass"),
    ],
)
def test_rates(seen: tuple[int, int, int, int], expected: str) -> None:
    assert verdict(ERRORS, counts(*seen)) == expected


def test_before_the_least_number_of_requests_nothing_is_good() -> None:
    seen = counts(0, 2000, 0, 18000)
    assert verdict({**ERRORS, "minimum": 2000}, seen) == "Pass"
    assert verdict({**ERRORS, "minimum": 2001}, seen) == "Continue"


def test_what_is_open_at_the_end_is_inconclusive_and_no_failure() -> None:
    assert verdict(ERRORS, counts(5, 10, 0, 10), final=True) == "Inconclusive"


def series(shift: float, spread: float, count: int = 60, seed: int = 1) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    # The load moves both arms alike.
    load = 100 + 30 * np.sin(np.arange(count) / 5)
    return {
        "metrics": {
            "p95": {
                "canary": (load * shift * random.lognormal(0, spread, count)).tolist(),
                "baseline": (load * random.lognormal(0, spread, count)).tolist(),
            }
        }
    }


@pytest.mark.parametrize("test", ["sequential", "rank"])
@pytest.mark.parametrize(
    ("shift", "expected"),
    [(1.0, "Pass"), (1.005, "Pass"), (1.4, "Fail"), (0.5, "Pass")],
)
def test_series(shift: float, expected: str, test: str) -> None:
    # A harmless half of a percent is no failure, however surely it is seen.
    spread = 0.002 if shift == 1.005 else 0.03
    metric = {**LATENCY, "test": test, "ratio": 1.25}
    assert verdict(metric, series(shift, spread, count=120)) == expected


def test_a_fall_is_bad_only_where_it_was_asked_for() -> None:
    fallen = series(0.7, 0.03)
    assert verdict(LATENCY, fallen) == "Pass"
    assert verdict({**LATENCY, "direction": "decrease"}, fallen) == "Fail"
    assert verdict({**LATENCY, "direction": "either"}, fallen) == "Fail"
    assert verdict({**LATENCY, "direction": "either"}, series(1.4, 0.03)) == "Fail"
    assert verdict({**LATENCY, "direction": "either"}, series(1.0, 0.03)) == "Pass"


def test_missing_values_are_left_out_in_pairs() -> None:
    data = series(1.0, 0.03, count=40)
    data["metrics"]["p95"]["canary"][3] = None
    data["metrics"]["p95"]["baseline"][7] = float("nan")
    assert verdict(LATENCY, data) == "Pass"


def test_too_few_intervals_prove_nothing() -> None:
    found = decide(parse_judge({"metrics": [LATENCY]}), series(3.0, 0.03, count=9))
    assert found["verdict"] == "Continue"
    assert "9 of 10 intervals" in found["reason"]


def test_a_baseline_of_zero_needs_an_absolute_limit() -> None:
    data = {"metrics": {"p95": {"canary": [0.0, 4.0] * 20, "baseline": [0.0] * 40}}}
    judge = parse_judge({"metrics": [LATENCY]})
    assert "set absolute" in decide(judge, data)["metrics"][0]["reason"]
    assert verdict({**LATENCY, "absolute": 0.5}, data) == "Fail"
    assert verdict({**LATENCY, "absolute": 50}, data) == "Pass"


def test_a_sample_ratio_mismatch_blocks_every_verdict() -> None:
    data = counts(900, 1000, 0, 9000)
    judge = parse_judge({"metrics": [{**ERRORS, "critical": True}]})
    data["assignments"] = [{"canary": 1000, "baseline": 9000, "share": 0.1}]
    assert decide(judge, data)["verdict"] == "Fail"
    data["assignments"] = [{"canary": 600, "baseline": 9000, "share": 0.1}]
    found = decide(judge, data)
    assert found["verdict"] == "Inconclusive"
    assert found["sample_ratio"]["alarm"]


JUDGE: dict[str, Any] = {
    "metrics": [
        {"name": "a", "kind": "rate", "group": "errors"},
        {"name": "b", "kind": "rate", "group": "errors"},
        {"name": "c", "kind": "rate", "group": "other"},
    ],
    "groups": {"errors": 80},
    "pass": 90,
    "marginal": 60,
}
GOOD, BAD, OPEN = (0, 9000, 0, 9000), (900, 9000, 0, 9000), (0, 3, 0, 3)


@pytest.mark.parametrize(("critical", "expected"), [(False, "Pass"), (True, "Continue")])
def test_no_score_is_good_enough_while_what_is_critical_is_open(
    critical: bool, expected: str
) -> None:
    metrics = [{**metric, "critical": metric["name"] == "c" and critical}
               for metric in JUDGE["metrics"]]  # fmt: skip
    data = {
        name: counts(*state)["metrics"]["errors"]
        for name, state in zip("abc", (GOOD, GOOD, OPEN), strict=True)
    }
    judge = parse_judge({**JUDGE, "metrics": metrics, "pass": 80})
    assert decide(judge, {"metrics": data})["verdict"] == expected


@pytest.mark.parametrize(
    ("states", "expected", "score"),
    [
        ((GOOD, GOOD, GOOD), "Pass", 100),
        ((GOOD, GOOD, BAD), "Marginal", 80),
        ((GOOD, BAD, GOOD), "Marginal", 60),
        ((GOOD, BAD, BAD), "Fail", 40),
        ((BAD, BAD, OPEN), "Fail", 20),
        ((GOOD, OPEN, GOOD), "Continue", 60),
    ],
)
def test_scores(states: tuple[Any, ...], expected: str, score: float) -> None:
    data = {
        name: counts(*state)["metrics"]["errors"] for name, state in zip("abc", states, strict=True)
    }
    found = decide(parse_judge(JUDGE), {"metrics": data})
    assert (found["verdict"], found["score"]) == (expected, score)


def test_a_verdict_can_be_replayed_bit_by_bit() -> None:
    judge = parse_judge({"metrics": [{**ERRORS}, LATENCY]})
    data = {"metrics": {**counts(9, 1000, 70, 9000)["metrics"], **series(1.07, 0.05)["metrics"]}}
    first = json.dumps(decide(judge, data), sort_keys=True)
    again = json.dumps(decide(judge, json.loads(json.dumps(data))), sort_keys=True)
    assert first == again
    # Another judge says something else of the same data.
    strict = parse_judge({"metrics": [{**ERRORS, "tolerance": 0.0001}, {**LATENCY, "ratio": 1.0}]})
    assert json.dumps(decide(strict, data), sort_keys=True) != first


def test_two_equal_revisions_rarely_fail_though_one_looks_at_every_interval() -> None:
    random = np.random.default_rng(5)
    judge = parse_judge(
        {"metrics": [{**ERRORS, "critical": True}, {**LATENCY, "critical": True}], "alpha": 0.05}
    )
    # Two thousand runs: make benchmark-judge.
    runs, looks, failed = 400, 16, 0
    for _run in range(runs):
        canary = random.binomial(400, 0.1, looks)
        bad = random.binomial(canary, 0.02).cumsum()
        worse = random.binomial(400 - canary, 0.02).cumsum()
        total = canary.cumsum()
        times = random.lognormal(0, 0.2, (2, looks)).tolist()
        for look in range(looks):
            data = counts(
                int(bad[look]), int(total[look]), int(worse[look]),
                400 * (look + 1) - int(total[look]),
            )  # fmt: skip
            data["metrics"]["p95"] = {
                "canary": times[0][: look + 1], "baseline": times[1][: look + 1],
            }  # fmt: skip
            answer = decide(judge, data)["verdict"]
            if answer != "Continue":
                failed += answer == "Fail"
                break
    assert failed / runs <= 0.05


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "mapping with metrics"),
        ({}, "needs metrics"),
        ({"metrics": [{"kind": "rate"}]}, "Metric 1 of the judge is no mapping with a name"),
        ({"metrics": [{"name": "a", "kind": "mean"}]}, "kind is one of rate, series"),
        ({"metrics": [{"name": "a", "kind": "rate", "ration": 1}]}, "unknown key ration"),
        ({"metrics": [{**ERRORS, "ratio": 0.5}]}, "ratio is a number from 1"),
        ({"metrics": [{**ERRORS, "tolerance": True}]}, "tolerance is a number from 0 to 1"),
        ({"metrics": [{**LATENCY, "minimum": 3}]}, "the least is 10"),
        ({"metrics": [{**ERRORS, "critical": "yes"}]}, "critical is true or false"),
        ({"metrics": [ERRORS, ERRORS]}, "two metrics errors"),
        ({"metrics": [ERRORS], "groups": {"b": 10}}, "No metric of the judge is in the group b"),
        ({"metrics": [ERRORS], "groups": {"metrics": 120}}, "number from 0 to 100"),
        ({"metrics": [ERRORS], "pass": 50, "marginal": 60}, "marginal score lies above"),
        ({"metrics": [ERRORS], "alphas": 1}, "unknown key alphas"),
    ],
)
def test_a_judge_that_does_not_fit_is_refused(given: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_judge(given)


@pytest.mark.parametrize(
    ("metric", "data"),
    [
        (ERRORS, {"metrics": {"errors": []}}),
        (ERRORS, {"metrics": {"errors": {"steps": [{"canary": {}}]}}}),
        (ERRORS, counts(5, 3, 0, 0)),
        (LATENCY, {"metrics": {"p95": {"canary": ["1"], "baseline": [1]}}}),
        (ERRORS, {"assignments": [{"canary": 1}]}),
        (ERRORS, {"assignments": {"canary": 1}}),
        (ERRORS, {"metrics": [{"name": "errors", "kind": "rate"}]}),
        (ERRORS, {"metrics": {"errors": {"steps": 3}}}),
        (LATENCY, {"metrics": {"p95": {"canary": 1, "baseline": [1]}}}),
    ],
)
def test_data_of_another_shape_are_refused(metric: dict[str, Any], data: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"."):
        verdict(metric, data)
