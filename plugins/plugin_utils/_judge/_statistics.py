# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The statistics of the judge. All functions are pure; times and units are the caller's.

Sequential tests may be looked at after every measurement: the chance that a good revision is ever
called bad stays below ``alpha`` however often one looks.
"""

from __future__ import annotations

import math
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

# The number of measurements at which a confidence sequence is tightest.
TIGHTEST = 100


class Counts(NamedTuple):
    """What one step saw: bad requests of all requests, canary and baseline.

    Expected numbers need not be whole.
    """

    bad_canary: float
    canary: float
    bad_baseline: float
    baseline: float


class Interval(NamedTuple):
    """An estimate with its limits."""

    low: float
    estimate: float
    high: float


def worse_rate_evidence(steps: Sequence[Counts], ratio: float = 1.0) -> float:
    """Return the logarithm of the evidence that the canary fails more often than it may.

    The hypothesis that it stands against: the canary's rate is at most ``ratio`` times the
    baseline's. Given the number of bad requests, those of the canary are then binomial with
    ``p0 = ratio * n_e / (ratio * n_e + n_c)``. The evidence is a likelihood ratio mixed over
    ``p > p0`` (a test martingale, so it may be looked at any time; Ville's inequality); that of
    several steps with different shares is multiplied. Rare errors need no approximation.

    Half of the prior is uniform: it finds a canary soon that fails where the baseline never does.
    The other half is Beta(1, (1 - p0) / p0) above p0: it expects about twice as many bad requests
    as are allowed, which a uniform one hardly does where the canary's share is small.
    """
    from scipy.special import betainc, betaln

    total = 0.0
    for step in steps:
        bad = step.bad_canary + step.bad_baseline
        if not bad or not step.canary or not step.baseline:
            continue
        weight = ratio * step.canary
        null = weight / (weight + step.baseline)
        halves = []
        for odds in (1.0, (1 - null) / null):
            first, second = step.bad_canary + 1, step.bad_baseline + odds
            above = float(betainc(second, first, 1 - null))
            halves.append(
                float(betaln(first, second)) + math.log(odds) - odds * math.log1p(-null)
                + (math.log(above) if above > 0 else -math.inf)
            )  # fmt: skip
        most = max(halves)
        if most == -math.inf:
            # It fails so much less often that no number holds how little speaks against it.
            return most
        total += (
            most
            + math.log(math.fsum(math.exp(one - most) for one in halves) / 2)
            - step.bad_canary * math.log(null)
            - step.bad_baseline * math.log1p(-null)
        )
    return total


def rate_difference(
    steps: Sequence[Counts], alpha: float, alpha_above: float | None = None
) -> Interval:
    """Return the canary's rate of bad requests minus the baseline's, valid at every look.

    Each limit has the error ``alpha``, or the upper one an error of its own. It is made of one
    exact confidence sequence an arm, which share the error: rare bad requests need no
    approximation.
    """
    canary, baseline = sum(one.canary for one in steps), sum(one.baseline for one in steps)
    if not canary or not baseline:
        return Interval(-1.0, 0.0, 1.0)
    first = sum(one.bad_canary for one in steps), canary
    second = sum(one.bad_baseline for one in steps), baseline
    above = alpha if alpha_above is None else alpha_above
    return Interval(
        rate_limit(*first, alpha / 2, -1) - rate_limit(*second, alpha / 2, 1),
        first[0] / canary - second[0] / baseline,
        rate_limit(*first, above / 2, 1) - rate_limit(*second, above / 2, -1),
    )


def rate_limit(bad: float, total: float, alpha: float, side: int) -> float:
    """Return the lower (``side`` -1) or upper (1) limit of a rate, valid at every look.

    It ends the rates at which the binomial likelihood, mixed over Jeffreys' prior, is less than
    ``1 / alpha`` times the rate's own (Robbins 1970).
    """
    from scipy.optimize import brentq
    from scipy.special import betaln, xlog1py, xlogy

    rate = bad / total
    mixture = float(betaln(bad + 0.5, total - bad + 0.5) - betaln(0.5, 0.5))

    def evidence(point: float) -> float:
        own = float(xlogy(bad, point) + xlog1py(total - bad, -point))
        return mixture - own - math.log(1 / alpha)

    edge = 1e-12
    if side < 0:
        if bad and evidence(edge) > 0:
            return float(brentq(evidence, edge, rate, xtol=1e-10))
        return 0.0
    if bad < total and evidence(1 - edge) > 0:
        return float(brentq(evidence, rate, 1 - edge, xtol=1e-10))
    return 1.0


def mean_sequence(values: Sequence[float], alpha: float, tightest: int = TIGHTEST) -> Interval:
    """Return the mean of measurements, valid at every look; each limit has the error ``alpha``.

    The asymptotic confidence sequence of Waudby-Smith et al. (2103.06476, equation 9). It needs
    a first number of measurements (see ``_metrics.BURN_IN``) before it is looked at.
    """
    count = len(values)
    if count < 2:
        return Interval(-math.inf, values[0] if values else 0.0, math.inf)
    mean = math.fsum(values) / count
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    # As for one side of a two-sided sequence, which has twice the error.
    error = 2 * alpha
    scale = (-2 * math.log(error) + math.log(-2 * math.log(error) + 1)) / tightest
    grown = count * scale + 1
    width = math.sqrt(
        variance * 2 * grown / (count * count * scale) * math.log(math.sqrt(grown) / error)
    )
    return Interval(mean - width, mean, mean + width)


def location_shift(
    canary: Sequence[float], baseline: Sequence[float], confidence: float = 0.98
) -> Interval:
    """Return by how much the canary's values lie above the baseline's (Hodges and Lehmann).

    The limits are the roots of the Mann-Whitney statistic with correction for ties and
    continuity, as R's ``wilcox.test(conf.int = TRUE)``. For one look only.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    low = min(canary) - max(baseline)
    high = max(canary) - min(baseline)
    if low == high:
        return Interval(low, low, high)
    quantile = float(norm.ppf(1 - (1 - confidence) / 2))

    def root(target: float) -> float:
        def above(shift: float) -> float:
            return _rank_statistic(canary, baseline, shift, corrected=target != 0) - target

        # The statistic falls as the shift grows; at an end it may not reach the target.
        if above(low) <= 0:
            return low
        if above(high) >= 0:
            return high
        return float(brentq(above, low, high, xtol=1e-4 * (high - low) + 1e-12))

    return Interval(root(quantile), root(0.0), root(-quantile))


def spread_evidence(
    canary: Sequence[float], baseline: Sequence[float], limit: float, first: int
) -> float:
    """Return the logarithm of the evidence that the canary scatters more than it may.

    The hypothesis that it stands against: in its distance from its own level the canary is at most
    ``limit`` times as far as the baseline, in half of the intervals or more. The level is the
    median of the intervals before, so each comparison is a fair coin at worst, and the evidence of
    all of them is that of a coin against one with a uniform prior above one half (a test
    martingale, valid at every look). Equal distances tell nothing.

    :param canary: values of the same intervals as ``baseline``
    :param first: from this interval on the level is known well enough
    """
    further = nearer = 0
    for place in range(first, len(canary)):
        away = abs(canary[place] - median(canary[:place])) / limit
        other = abs(baseline[place] - median(baseline[:place]))
        further, nearer = further + (away > other), nearer + (away < other)
    return worse_rate_evidence([Counts(further, 1, nearer, 1)])


def spread_test(canary: Sequence[float], baseline: Sequence[float], limit: float) -> float:
    """Return the p value of the canary scattering at most ``limit`` times as much.

    The test of Brown and Forsythe, one-sided, after what is allowed was taken away. One look only.
    """
    from scipy.stats import levene

    middle, level = median(canary), median(baseline)
    scaled = [(one - middle) / limit for one in canary]
    centred = [one - level for one in baseline]
    if math.fsum(map(abs, scaled)) / len(scaled) <= math.fsum(map(abs, centred)) / len(centred):
        return 1.0
    if not any(centred):
        # Nothing scatters here, and something does there.
        return 0.0
    return float(levene(scaled, centred, center="median").pvalue) / 2


def without_outliers(values: Sequence[float], factor: float = 3.0) -> list[float]:
    """Return the values between Kayenta's fences.

    These are min(P1, Q1 - factor * IQR) and max(P99, Q3 + factor * IQR).
    """
    import numpy

    if not values:
        return []
    p1, q1, q3, p99 = (float(one) for one in numpy.percentile(values, [1, 25, 75, 99]))
    low, high = min(p1, q1 - factor * (q3 - q1)), max(p99, q3 + factor * (q3 - q1))
    return [one for one in values if low <= one <= high]


def _rank_statistic(
    canary: Sequence[float], baseline: Sequence[float], shift: float, *, corrected: bool
) -> float:
    import numpy
    from scipy.stats import rankdata

    first, second = len(canary), len(baseline)
    pooled = numpy.concatenate([numpy.asarray(canary) - shift, numpy.asarray(baseline)])
    ranks = rankdata(pooled)
    ties = numpy.unique(ranks, return_counts=True)[1].astype(float)
    total = first + second
    variance = (
        first * second / 12 * (total + 1 - float((ties**3 - ties).sum()) / (total * (total - 1)))
    )
    if variance <= 0:
        return 0.0
    statistic = float(ranks[:first].sum()) - first * (first + 1) / 2 - first * second / 2
    if corrected:
        statistic -= 0.5 * (statistic > 0) - 0.5 * (statistic < 0)
    return float(statistic / math.sqrt(variance))


def sample_ratio_evidence(
    observed: Sequence[int], shares: Sequence[float], prior: float = 100.0
) -> float:
    """Return the logarithm of the evidence that arms did not get the shares they should have.

    A Dirichlet-multinomial mixture against the multinomial of the shares (Lindon and Malek 2022),
    valid at every look. Arms with a share of 0 are left out.

    :param observed: unique assignments (users, or requests that stand for themselves) by arm
    """
    arms = [(count, share) for count, share in zip(observed, shares, strict=True) if share > 0]
    scale = math.fsum(share for _count, share in arms)
    total = sum(count for count, _share in arms)
    sum_of_weights = prior * len(arms)
    evidence = math.lgamma(sum_of_weights) - math.lgamma(sum_of_weights + total)
    for count, share in arms:
        weight = sum_of_weights * share / scale
        evidence += math.lgamma(weight + count) - math.lgamma(weight)
        evidence -= count * math.log(share / scale)
    return evidence


def share_interval(seen: int, total: int, confidence: float = 0.99) -> Interval:
    """Return a share with its exact binomial limits (Clopper and Pearson)."""
    from scipy.stats import binomtest

    if not total:
        return Interval(0.0, 0.0, 1.0)
    limits = binomtest(seen, total).proportion_ci(confidence_level=confidence, method="exact")
    return Interval(float(limits.low), seen / total, float(limits.high))
