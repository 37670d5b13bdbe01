"""The judge's statistics against oracles: SciPy, brute force, published numbers, simulation."""

from __future__ import annotations

import itertools
import math
from statistics import median

import numpy as np
import pytest
from ansible_collections.bascule.deploy.plugins.plugin_utils._judge import (
    Metric,
    requests_needed,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._judge._statistics import (
    Counts,
    location_shift,
    mean_sequence,
    rate_difference,
    sample_ratio_evidence,
    share_interval,
    worse_rate_evidence,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._judge._verdict import rate_state
from scipy import integrate, stats


@pytest.mark.parametrize(
    ("step", "ratio"),
    [
        (Counts(5, 10, 0, 10), 1.0),
        (Counts(3, 100, 1, 900), 1.25),
        (Counts(0, 50, 4, 50), 1.0),
        (Counts(12, 1000, 80, 9000), 1.0),
    ],
)
def test_the_evidence_is_the_likelihood_ratio_that_it_claims_to_be(
    step: Counts, ratio: float
) -> None:
    null = ratio * step.canary / (ratio * step.canary + step.baseline)
    bad, other = step.bad_canary, step.bad_baseline
    expected = 0.0
    for prior in (stats.uniform(), stats.beta(1, (1 - null) / null)):
        mixture, _error = integrate.quad(
            lambda p, prior=prior: p**bad * (1 - p) ** other * prior.pdf(p), null, 1, epsabs=0
        )
        expected += mixture / prior.sf(null) / (null**bad * (1 - null) ** other) / 2
    assert worse_rate_evidence([step], ratio) == pytest.approx(math.log(expected), rel=1e-6)


def test_a_canary_that_is_far_better_has_nothing_against_it() -> None:
    better = Counts(0, 200_000, 60_000, 1_800_000)
    assert worse_rate_evidence([better]) == -math.inf
    assert rate_state(RATE, [better], 0.025)[0] == "Good"


def test_evidence_of_steps_with_other_shares_is_added() -> None:
    steps = [Counts(2, 50, 1, 950), Counts(4, 500, 2, 500)]
    alone = [worse_rate_evidence([step]) for step in steps]
    assert worse_rate_evidence(steps) == pytest.approx(sum(alone))


def test_a_step_without_bad_requests_or_without_an_arm_says_nothing() -> None:
    assert worse_rate_evidence([Counts(0, 10, 0, 10), Counts(1, 1, 0, 0)]) == 0.0


def test_few_errors_against_none_are_seen_where_ranks_do_not_see_them() -> None:
    # Half of the intervals with errors, a baseline with none: the ranks' limit stays at 0.
    shift = location_shift([0.0] * 5 + [1.0] * 5, [0.0] * 10)
    assert shift.low == pytest.approx(0.0, abs=1e-6)
    assert worse_rate_evidence([Counts(7, 100, 0, 100)]) > math.log(1 / 0.05)
    # The smaller the canary's share, the fewer of its errors it takes.
    assert worse_rate_evidence([Counts(3, 100, 0, 900)]) > math.log(1 / 0.05)


def test_looking_at_rates_often_raises_no_false_alarms() -> None:
    random = np.random.default_rng(7)
    runs, looks = 400, 30
    share, alpha = 0.1, 0.05
    canary = random.binomial(500, share, (runs, looks))
    bad_canary = random.binomial(canary, 0.01).cumsum(1)
    bad_baseline = random.binomial(500 - canary, 0.01).cumsum(1)
    canary = canary.cumsum(1)
    baseline = 500 * np.arange(1, looks + 1) - canary
    alarms = naive = 0
    for run in range(runs):
        steps = [
            Counts(*map(int, one))
            for one in zip(
                bad_canary[run], canary[run], bad_baseline[run], baseline[run], strict=True
            )
        ]
        alarms += any(worse_rate_evidence([one]) >= math.log(1 / alpha) for one in steps)
        naive += any(
            stats.binom.sf(one[0] - 1, one[0] + one[2], one[1] / (one[1] + one[3])) <= alpha
            for one in steps
            if one[0]
        )
    assert alarms / runs <= alpha
    assert naive / runs > 2 * alpha, "a test that is not made for it raises many"


def test_the_rate_difference_covers_the_truth_at_every_look() -> None:
    random = np.random.default_rng(8)
    runs, looks, alpha = 400, 30, 0.025
    missed = 0
    for _run in range(runs):
        canary = np.cumsum(random.binomial(100, 0.03, looks))
        baseline = np.cumsum(random.binomial(900, 0.01, looks))
        for look in range(looks):
            step = Counts(
                int(canary[look]), 100 * (look + 1), int(baseline[look]), 900 * (look + 1)
            )
            found = rate_difference([step], alpha)
            if not found.low <= 0.02 <= found.high:
                missed += 1
                break
    assert missed / runs <= 2 * alpha


def test_the_mean_sequence_covers_the_truth_at_every_look() -> None:
    random = np.random.default_rng(9)
    runs, looks, alpha = 2000, 100, 0.025
    missed = 0
    for row in random.standard_t(5, (runs, looks)):
        values = row.tolist()
        for count in range(10, looks + 1, 3):
            found = mean_sequence(values[:count], alpha)
            if not found.low <= 0 <= found.high:
                missed += 1
                break
    assert missed / runs <= 2 * alpha


def test_the_shift_is_that_of_hodges_and_lehmann() -> None:
    random = np.random.default_rng(10)
    canary, baseline = random.normal(3, 1, 41).tolist(), random.normal(0, 1, 60).tolist()
    found = location_shift(canary, baseline)
    pairs = [one - other for one, other in itertools.product(canary, baseline)]
    assert found.estimate == pytest.approx(median(pairs), abs=0.02)
    assert found.low < found.estimate < found.high


@pytest.mark.parametrize("confidence", [0.9, 0.98])
def test_the_limits_of_the_shift_are_those_at_which_the_rank_test_turns(confidence: float) -> None:
    random = np.random.default_rng(11)
    canary = random.normal(1, 1, 30).round(1).tolist()
    baseline = random.normal(0, 1, 35).round(1).tolist()
    found = location_shift(canary, baseline, confidence)
    for limit, outside in ((found.low, -0.1), (found.high, 0.1)):
        # With ties the statistic jumps at the limit: beside it, the test must have turned.
        inside = np.asarray(canary) - limit + outside
        beyond = np.asarray(canary) - limit - outside
        assert _p_value(inside, baseline) >= 1 - confidence
        assert _p_value(beyond, baseline) <= 1 - confidence


def _p_value(canary: np.ndarray, baseline: list[float]) -> float:
    return float(stats.mannwhitneyu(canary, baseline, method="asymptotic").pvalue)


def test_equal_constants_do_not_differ() -> None:
    assert location_shift([5.0] * 4, [5.0] * 9) == (0.0, 0.0, 0.0)


def test_a_wrong_share_is_found_and_a_right_one_is_not() -> None:
    random = np.random.default_rng(12)
    alarm = math.log(1 / 0.001)
    right = wrong = 0
    for _run in range(300):
        for share in (0.5, 0.52):
            seen = random.random(20_000) < share
            counts = seen.cumsum()
            looks = range(500, 20_001, 500)
            found = any(
                sample_ratio_evidence([int(counts[n - 1]), n - int(counts[n - 1])], [0.5, 0.5])
                >= alarm
                for n in looks
            )
            right += found and share == 0.5
            wrong += found and share != 0.5
    assert right <= 2
    assert wrong >= 0.85 * 300


def test_an_arm_without_a_share_is_left_out() -> None:
    assert sample_ratio_evidence([50, 50, 3], [0.5, 0.5, 0.0]) == sample_ratio_evidence(
        [50, 50], [0.5, 0.5]
    )


def test_shares_have_exact_limits() -> None:
    found = share_interval(10, 100, 0.95)
    assert (found.low, found.high) == pytest.approx((0.0490, 0.1762), abs=1e-4)
    assert share_interval(0, 0) == (0.0, 0.0, 1.0)


RATE = Metric(name="errors", kind="rate")


@pytest.mark.parametrize(
    ("rate", "effect", "share"), [(0.01, 0.02, 0.1), (0.0, 0.01, 0.5), (0.2, 0.1, 0.05)]
)
def test_after_the_requests_that_are_needed_nine_of_ten_are_decided(
    rate: float, effect: float, share: float
) -> None:
    random = np.random.default_rng(13)
    needed = requests_needed(RATE, 0.025, rate=rate, effect=effect, share=share)
    assert needed.to_fail is not None
    assert needed.to_pass is not None
    runs = 400
    for total, worse, wanted in (
        (needed.to_fail, effect, "Bad"), (needed.to_pass, 0.0, "Good"),
    ):  # fmt: skip
        canary = round(total * share)
        bad = random.binomial(canary, rate + worse, runs)
        other = random.binomial(total - canary, rate, runs)
        said = [
            rate_state(RATE, [Counts(int(b), canary, int(o), total - canary)], 0.025)[0]
            for b, o in zip(bad, other, strict=True)
        ]
        # Not much more than needed, either.
        assert 0.85 <= said.count(wanted) / runs <= 0.97 or (worse, rate) == (0.0, 0.0)


def test_what_is_needed_grows_as_there_is_less_to_see() -> None:
    usual = {"rate": 0.01, "effect": 0.02, "share": 0.1}

    def needed(**more: float) -> tuple[int, int]:
        found = requests_needed(RATE, 0.025, **{**usual, **more})
        assert found.to_fail is not None
        assert found.to_pass is not None
        return found.to_fail, found.to_pass

    assert needed(effect=0.015)[0] > needed()[0] > needed(share=0.5)[0]
    assert needed(rate=0.05)[1] > needed()[1] > needed(share=0.5)[1]
    # What the metric allows is never found.
    assert requests_needed(RATE, 0.025, rate=0.1, effect=0.009, share=0.5).to_fail is None
