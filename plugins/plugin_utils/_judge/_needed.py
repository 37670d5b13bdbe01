# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many requests it takes until the judge has decided, one way or the other."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

from ._metrics import Metric
from ._statistics import Counts
from ._verdict import BAD, GOOD, rate_state

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._metrics import Judge

# In so many of the deployments it takes no more.
CHANCE = 0.9
_MOST = 10**10


class Needed(NamedTuple):
    """Requests of both arms together; None: no number of them is enough.

    :ivar to_fail: until a canary with the effect is called bad
    :ivar to_pass: until one without it is called good
    """

    to_fail: int | None
    to_pass: int | None


def rate_of(judge: Judge) -> tuple[Metric, float]:
    """Return the first rate of a judge, and its part of ``alpha``; the usual one if it has none."""
    usual = Metric(name="errors", kind="rate")
    metric = next((one for one in judge.metrics if one.kind == "rate"), usual)
    return metric, judge.alpha / len(judge.metrics)


def requests_needed(
    metric: Metric, alpha: float, *, rate: float, effect: float, share: float
) -> Needed:
    """Return after how many requests a rate is decided, in nine deployments of ten.

    The rule is the judge's own, asked with the counts that nine of ten are better than. One who
    looks at every interval may be told earlier. An effect within what the metric allows is never
    bad.

    :param alpha: the metric's part of the judge's
    :param rate: the baseline's rate of bad requests, from 0 to 1
    :param effect: the rise that is to be found
    :param share: the canary's share of the requests, between 0 and 1
    """

    def said(total: int, worse: float, lucky: float) -> str:
        return rate_state(metric, [_expected(total, rate, worse, share, lucky)], alpha)[0]

    return Needed(
        _least(lambda total: said(total, effect, -1.0) == BAD),
        _least(lambda total: said(total, 0.0, 1.0) == GOOD),
    )


def _expected(total: int, rate: float, effect: float, share: float, sign: float) -> Counts:
    """Return expected counts, moved so that few have a higher (or lower) difference of rates."""
    canary, baseline = total * share, total * (1 - share)
    bad, other = canary * min(1.0, rate + effect), baseline * rate
    deviation = math.hypot(math.sqrt(bad) / canary, math.sqrt(other) / baseline)
    moved = sign * NormalDist().inv_cdf(CHANCE) / deviation if deviation else 0.0
    return Counts(
        min(canary, max(0.0, bad + moved * bad / canary)),
        canary,
        min(baseline, max(0.0, other - moved * other / baseline)),
        baseline,
    )


def _least(enough: Callable[[int], bool]) -> int | None:
    high = 2
    while not enough(high):
        high *= 2
        if high > _MOST:
            return None
    low = high // 2
    while low < high:
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle + 1
    return high
