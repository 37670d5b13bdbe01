# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A canary beside its baseline: good, bad, or not yet to be told.

The same data and the same judge give the same verdict, bit by bit.
"""

from __future__ import annotations

import math
from statistics import median
from typing import TYPE_CHECKING, Any

from ...module_utils._errors import UsageError
from ._metrics import BURN_IN, DISCOVERIES
from ._statistics import (
    Counts,
    Interval,
    location_shift,
    mean_sequence,
    rate_difference,
    sample_ratio_evidence,
    spread_evidence,
    spread_test,
    without_outliers,
    worse_rate_evidence,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ._metrics import Judge, Metric

# The part of a rate's error that the ratio to the baseline has; the difference has the rest. The
# ratio finds what is rare, which is what canaries mostly are about.
OF_RATIO = 0.75

GOOD, BAD, UNDECIDED, NO_DATA = "Good", "Bad", "Undecided", "NoData"
PASS, MARGINAL, FAIL, INCONCLUSIVE, CONTINUE = (
    "Pass", "Marginal", "Fail", "Inconclusive", "Continue",
)  # fmt: skip


def decide(judge: Judge, data: Mapping[str, Any], *, final: bool = False) -> dict[str, Any]:
    """Return the verdict on what was measured so far.

    :param data: ``{"assignments": [{"canary": number, "baseline": number, "share": the canary's}],
        "metrics": {name: {"steps": [{"canary": {"bad", "total"}, "baseline": {"bad", "total"}}]}
        for a rate, {"canary": [number or None], "baseline": [number or None]} for a series}}``
    :param final: no more can be measured: what is not told is Inconclusive, not Continue
    :returns: ``{"verdict": Pass | Marginal | Fail | Inconclusive | Continue, "score": 0 to 100,
        "reason", "sample_ratio": {"evidence", "alarm"}, "metrics": [{"name", "state", "reason",
        "critical", "group", "low", "estimate", "high", "evidence"}]}``
    :raises UsageError: the data do not have this shape
    """
    found = _judged(judge, data)
    ratio = _sample_ratio(judge, _listed(data, "assignments"))
    verdict, score, reason = _conclude(judge, found, final=final)
    if ratio["alarm"]:
        verdict = INCONCLUSIVE
        reason = (
            "The canary and the baseline did not get the shares of the traffic they should have "
            "(sample ratio mismatch): nothing that was measured can be compared."
        )
    return {
        "verdict": verdict,
        "score": _rounded(score),
        "reason": reason,
        "sample_ratio": ratio,
        "metrics": found,
    }


def _judged(judge: Judge, data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what is found of each metric.

    Each metric has its part of ``alpha``. Where false discoveries are controlled, ``k`` metrics are
    bad as soon as so many are at ``k`` parts of it (the step-up of Benjamini and Hochberg, on what
    is valid at every look); a revision without any bad metric is still called bad by the chance
    ``alpha`` alone. What is good is good by the metric's own part.
    """
    number = len(judge.metrics)
    parts = [(metric, _data_of(metric, data)) for metric in judge.metrics]
    found = [_metric(metric, seen, judge.alpha / number) for metric, seen in parts]
    for many in range(number, 1, -1) if judge.control == DISCOVERIES else ():
        wider = [_metric(metric, seen, judge.alpha * many / number) for metric, seen in parts]
        if sum(one["state"] == BAD for one in wider) >= many:
            return [
                own if own["state"] == BAD or other["state"] != BAD else other
                for own, other in zip(found, wider, strict=True)
            ]
    return found


def _conclude(
    judge: Judge, found: Sequence[dict[str, Any]], *, final: bool
) -> tuple[str, float, str]:
    """Return verdict, score and reason; what is undecided counts for the best and for the worst."""
    for one in found:
        if one["critical"] and one["state"] == BAD:
            return FAIL, 0.0, f"The critical metric {one['name']} is bad: {one['reason']}."
    worst = _score(judge, found, undecided=BAD)
    best = _score(judge, found, undecided=GOOD)
    bad = [one["name"] for one in found if one["state"] == BAD]
    told = f"Bad: {', '.join(bad)}." if bad else "No metric is bad."
    if best < judge.marginal:
        return FAIL, best, f"The score is at most {best:.0f}, below {judge.marginal:g}. {told}"
    open_ones = [one for one in found if one["state"] in (UNDECIDED, NO_DATA)]
    held = [one for one in open_ones if one["critical"]]
    if worst >= judge.passing and not held:
        return PASS, worst, f"The score is at least {worst:.0f}. {told}"
    if open_ones:
        names = "; ".join(f"{one['name']}: {one['reason']}" for one in open_ones)
        return (
            INCONCLUSIVE if final else CONTINUE,
            worst,
            f"Not enough evidence yet. {names}.",
        )
    verdict = PASS if best >= judge.passing else MARGINAL
    return verdict, best, f"The score is {best:.0f}. {told}"


def _score(judge: Judge, found: Sequence[dict[str, Any]], *, undecided: str) -> float:
    """Return the weighted mean of the groups' parts of good metrics, out of 100."""
    score = 0.0
    for group, weight in judge.weights().items():
        states = [one["state"] for one in found if one["group"] == group]
        good = sum(
            state == GOOD or (state in (UNDECIDED, NO_DATA) and undecided == GOOD)
            for state in states
        )
        score += 100.0 * weight * good / len(states)
    return score


def _sample_ratio(judge: Judge, assignments: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    evidence = 0.0
    for step in assignments:
        try:
            share = float(step["share"])
            seen = [int(step["canary"]), int(step["baseline"])]
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(
                f"An assignment has canary, baseline and share, this one has not: {step!r}."
            ) from error
        if 0 < share < 1:
            evidence += sample_ratio_evidence(seen, [share, 1 - share])
    return {
        "evidence": _rounded(evidence),
        "alarm": evidence >= math.log(1 / judge.sample_ratio_alpha),
    }


def _data_of(metric: Metric, data: Mapping[str, Any]) -> Mapping[str, Any]:
    metrics = data.get("metrics") or {}
    if not isinstance(metrics, dict):
        raise UsageError(
            f"What was measured has 'metrics', a mapping of names to data, not {metrics!r}."
        )
    found = metrics.get(metric.name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise UsageError(f"The data of the metric {metric.name} are no mapping: {found!r}.")
    return found


def _listed(data: Mapping[str, Any], key: str) -> Sequence[Any]:
    found = data.get(key) or ()
    if not isinstance(found, (list, tuple)):
        raise UsageError(f"What was measured has a list as {key!r}, not {found!r}.")
    return found


def _metric(metric: Metric, data: Mapping[str, Any], alpha: float) -> dict[str, Any]:
    decide_it = _rate if metric.kind == "rate" else _series
    state, reason, interval, evidence = decide_it(metric, data, alpha)
    return {
        "name": metric.name,
        "state": state,
        "reason": reason,
        "critical": metric.critical,
        "group": metric.group,
        "low": _rounded(interval.low),
        "estimate": _rounded(interval.estimate),
        "high": _rounded(interval.high),
        "evidence": _rounded(evidence),
    }


_Found = tuple[str, str, Interval, float]


def _rate(metric: Metric, data: Mapping[str, Any], alpha: float) -> _Found:
    steps = [_counts(metric, step) for step in _listed(data, "steps")]
    canary, baseline = sum(one.canary for one in steps), sum(one.baseline for one in steps)
    nothing = Interval(-1.0, 0.0, 1.0)
    if not canary or not baseline:
        side = "canary" if not canary else "baseline"
        return NO_DATA, f"no request reached the {side}", nothing, 0.0
    state, interval, evidence = rate_state(metric, steps, alpha)
    bad_canary = sum(one.bad_canary for one in steps)
    bad_baseline = sum(one.bad_baseline for one in steps)
    told = (
        f"{bad_canary} of {canary} requests against {bad_baseline} of {baseline}"
        f" ({100 * bad_canary / canary:.2f} % against {100 * bad_baseline / baseline:.2f} %)"
    )
    if state == UNDECIDED and min(canary, baseline) < metric.minimum:
        told += f"; needs {metric.minimum} on each side"
    return state, told, interval, evidence


def rate_state(
    metric: Metric, steps: Sequence[Counts], alpha: float
) -> tuple[str, Interval, float]:
    """Return what counts with requests on both sides say of a rate.

    :returns: Good, Bad or Undecided; the difference of the rates; the evidence for a worse ratio
    """
    canary, baseline = sum(one.canary for one in steps), sum(one.baseline for one in steps)
    # Two ways to be found bad share the error; what is good has its own.
    evidence = worse_rate_evidence(steps, metric.ratio)
    tolerance = metric.tolerance or 1.0 / (canary + baseline)
    interval = rate_difference(steps, alpha * (1 - OF_RATIO), alpha)
    enough = min(canary, baseline) >= metric.minimum
    proved = evidence >= -math.log(alpha * OF_RATIO)
    if proved or (enough and interval.low > metric.tolerance):
        return BAD, interval, evidence
    return GOOD if enough and interval.high < tolerance else UNDECIDED, interval, evidence


def _counts(metric: Metric, step: Any) -> Counts:
    try:
        counts = Counts(
            int(step["canary"]["bad"]),
            int(step["canary"]["total"]),
            int(step["baseline"]["bad"]),
            int(step["baseline"]["total"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"A step of the rate {metric.name} has bad and total for canary and baseline, "
            f"this one has not: {step!r}."
        ) from error
    if not (0 <= counts[0] <= counts[1] and 0 <= counts[2] <= counts[3]):
        raise UsageError(f"A step of the rate {metric.name} has impossible counts: {step!r}.")
    return counts


def _series(metric: Metric, data: Mapping[str, Any], alpha: float) -> _Found:
    canary = [_value(metric, one) for one in _listed(data, "canary")]
    baseline = [_value(metric, one) for one in _listed(data, "baseline")]
    if metric.spread is not None:
        # Two ways to be found bad share the error.
        alpha /= 2
    if metric.test == "rank":
        return _ranked(
            metric,
            [one for one in canary if one is not None],
            [one for one in baseline if one is not None],
            alpha,
        )
    pairs = [
        (first, second)
        for first, second in zip(canary, baseline, strict=False)
        if first is not None and second is not None
    ]
    nothing = Interval(-1.0, 0.0, 1.0)
    if not pairs:
        return NO_DATA, "no interval has a value on both sides", nothing, 0.0
    level = median(second for _first, second in pairs)
    if all(first > 0 and second > 0 for first, second in pairs):
        # Of the same interval, so that what moves both arms (the hour, the load) falls out.
        values = [math.log(first / second) for first, second in pairs]
        limit, shown = math.log(metric.ratio), _as_percent
    elif level > 0 and metric.absolute is None:
        values = [(first - second) / level for first, second in pairs]
        limit, shown = metric.ratio - 1, _as_part
    elif metric.absolute is not None:
        values = [first - second for first, second in pairs]
        limit, shown = metric.absolute, _as_number
    else:
        return UNDECIDED, "the baseline is 0; set absolute to judge differences", nothing, 0.0
    if len(pairs) < metric.minimum:
        return UNDECIDED, f"{len(pairs)} of {metric.minimum} intervals", nothing, 0.0
    error = alpha / 2 if metric.direction == "either" else alpha
    interval = mean_sequence(values, error)
    if metric.spread is not None:
        scatter = spread_evidence(*_scattered(pairs), metric.spread, BURN_IN)
        if scatter >= math.log(1 / alpha):
            told = f"its values scatter more than {metric.spread:g} times as much as the baseline's"
            return BAD, told, interval, scatter
    return _compare(metric, interval, limit, f"{shown(interval)} in {len(pairs)} intervals")


def _scattered(pairs: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Return both sides on a scale on which scatter does not grow with the level, if there is one.

    :param pairs: canary and baseline of the same intervals
    """
    positive = all(first > 0 and second > 0 for first, second in pairs)
    scale = math.log if positive else float
    return [scale(first) for first, _second in pairs], [scale(second) for _first, second in pairs]


def _ranked(metric: Metric, canary: list[float], baseline: list[float], alpha: float) -> _Found:
    nothing = Interval(-1.0, 0.0, 1.0)
    if metric.outliers == "remove":
        canary, baseline = without_outliers(canary), without_outliers(baseline)
    fewest = min(len(canary), len(baseline))
    if not fewest:
        return NO_DATA, "no value on one side", nothing, 0.0
    if fewest < metric.minimum:
        return UNDECIDED, f"{fewest} of {metric.minimum} values a side", nothing, 0.0
    error = alpha if metric.direction == "either" else 2 * alpha
    shift = location_shift(canary, baseline, confidence=1 - error)
    level = median(baseline)
    if metric.spread is not None and spread_test(canary, baseline, metric.spread) < alpha:
        told = f"its values scatter more than {metric.spread:g} times as much as the baseline's"
        return BAD, told, shift, 0.0
    if metric.absolute is not None:
        return _compare(metric, shift, metric.absolute, _as_number(shift))
    if level <= 0:
        return UNDECIDED, "the baseline is 0; set absolute to judge differences", nothing, 0.0
    relative = Interval(*(one / level for one in shift))
    return _compare(metric, relative, metric.ratio - 1, _as_part(relative))


def _compare(metric: Metric, interval: Interval, limit: float, told: str) -> _Found:
    up, down = metric.direction != "decrease", metric.direction != "increase"
    if (up and interval.low > limit) or (down and interval.high < -limit):
        return BAD, told, interval, 0.0
    if (not up or interval.high < limit) and (not down or interval.low > -limit):
        return GOOD, told, interval, 0.0
    return UNDECIDED, told, interval, 0.0


def _value(metric: Metric, value: Any) -> float | None:
    if value is None:
        return 0.0 if metric.missing == "zero" else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UsageError(f"The series {metric.name} holds something that is no number: {value!r}.")
    return float(value) if math.isfinite(value) else _value(metric, None)


def _as_percent(interval: Interval) -> str:
    low, estimate, high = (100 * math.expm1(one) for one in interval)
    return f"{estimate:+.1f} % ({low:+.1f} to {high:+.1f})"


def _as_part(interval: Interval) -> str:
    low, estimate, high = (100 * one for one in interval)
    return f"{estimate:+.1f} % ({low:+.1f} to {high:+.1f})"


def _as_number(interval: Interval) -> str:
    return f"{interval.estimate:+.4g} ({interval.low:+.4g} to {interval.high:+.4g})"


def _rounded(value: float) -> float | None:
    """Return a number that JSON can hold and that survives it unchanged."""
    return float(f"{value:.10g}") if math.isfinite(value) else None
