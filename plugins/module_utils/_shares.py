# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is the traffic shared as it was ordered? Counts of real requests against weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

_STEPS = 300
_TINY = 1e-300


class Share(NamedTuple):
    """One pool's share of the requests, all as fractions of 1.

    :ivar low, high: the Clopper-Pearson interval of the share that was seen
    """

    wanted: float
    seen: float
    low: float
    high: float

    @property
    def confirmed(self) -> bool:
        """The wanted share is one that these counts allow."""
        return self.low <= self.wanted <= self.high


class Shares(NamedTuple):
    """What counts say of a routing's weights."""

    requests: int
    pools: dict[str, Share]

    @property
    def confirmed(self) -> bool:
        """Every pool's wanted share is within the interval of what was seen; of none it is not."""
        return self.requests > 0 and all(share.confirmed for share in self.pools.values())

    def describe(self) -> str:
        """Return a sentence for people."""
        return f"{self.requests} requests: " + ", ".join(
            f"{pool} {share.seen:.2%} (wanted {share.wanted:.2%}, "
            f"interval {share.low:.2%} to {share.high:.2%})"
            for pool, share in self.pools.items()
        )


def share_confirmed(
    counts: Mapping[str, int], weights: Mapping[str, float], alpha: float = 0.01
) -> Shares:
    """Compare how many requests each pool got with the weights it should have.

    The intervals hold together with probability 1 - alpha (Bonferroni), so of right weights at most
    ``alpha`` of the samples are not confirmed. A pool at 0 must have got nothing.

    :param counts: requests by pool since the weights were changed; a pool without an entry got none
    :param weights: percent by pool
    """
    pools = list(dict.fromkeys([*weights, *counts]))
    total = sum(counts.values())
    # With two pools the second's interval is the mirror image of the first's: one statement.
    level = alpha / max(1, len(pools) - 1)
    found = {}
    for pool in pools:
        count = counts.get(pool, 0)
        low, high = binomial_interval(count, total, level)
        found[pool] = Share(
            weights.get(pool, 0.0) / 100, count / total if total else 0.0, low, high
        )
    return Shares(total, found)


def binomial_interval(count: int, total: int, alpha: float) -> tuple[float, float]:
    """Return the exact interval of a probability (Clopper and Pearson, 1934).

    ``low`` is the alpha/2 quantile of Beta(k, n-k+1), ``high`` the 1-alpha/2 quantile of
    Beta(k+1, n-k).

    :param count: k successes of ``total``, n
    """
    if total <= 0:
        return 0.0, 1.0
    low = beta_quantile(alpha / 2, count, total - count + 1) if count else 0.0
    high = beta_quantile(1 - alpha / 2, count + 1, total - count) if count < total else 1.0
    return low, high


def beta_quantile(probability: float, a: float, b: float) -> float:
    """Return x with I_x(a, b) = probability, by bisection: I is monotone in x."""
    low, high = 0.0, 1.0
    for _step in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if incomplete_beta(middle, a, b) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def incomplete_beta(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b).

    Continued fraction DLMF 8.17.22, which converges fast for x < (a+1)/(a+b+2); beyond that by the
    symmetry I_x(a, b) = 1 - I_(1-x)(b, a). Evaluated by Lentz's method.
    """
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1.0 - incomplete_beta(1 - x, b, a)
    front = math.exp(
        a * math.log(x)
        + b * math.log1p(-x)
        + math.lgamma(a + b)
        - math.lgamma(a)
        - math.lgamma(b)
        - math.log(a)
    )
    fraction, numerator, denominator = 1.0, 1.0, 0.0
    for step in range(_STEPS + int(math.sqrt(a + b)) * 4):
        half = step // 2
        if step == 0:
            term = 1.0
        elif step % 2 == 0:
            term = half * (b - half) * x / ((a + 2 * half - 1) * (a + 2 * half))
        else:
            term = -(a + half) * (a + b + half) * x / ((a + 2 * half) * (a + 2 * half + 1))
        denominator = 1.0 / _away_from_zero(1.0 + term * denominator)
        numerator = _away_from_zero(1.0 + term / numerator)
        fraction *= numerator * denominator
        if abs(numerator * denominator - 1.0) < 1e-14:
            break
    return front * (fraction - 1.0)


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
