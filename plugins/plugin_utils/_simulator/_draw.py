# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Random numbers of the distributions that the simulator needs, exact and from one seed.

The standard library has none of these before Python 3.12; those of NumPy may change with it.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

_NORMAL = NormalDist()
# Below this one draws one by one.
_FEW = 16


def binomial(dice: random.Random, number: int, chance: float) -> int:
    """Return how many of ``number`` succeed, each by ``chance``.

    The median of the uniform numbers that decide is drawn first, which halves the rest (Devroye,
    Non-Uniform Random Variate Generation, X.4.3).
    """
    found = 0
    while number > _FEW and 0.0 < chance < 1.0:
        middle = 1 + number // 2
        point = dice.betavariate(middle, number + 1 - middle)
        if point >= chance:
            number, chance = middle - 1, chance / point
        else:
            found += middle
            number, chance = number - middle, (chance - point) / (1.0 - point)
    return found + sum(dice.random() < chance for _throw in range(number))


def poisson(dice: random.Random, mean: float) -> int:
    """Return how many events happen of which ``mean`` are expected (Ahrens and Dieter 1974)."""
    found = 0
    while mean > _FEW:
        ahead = int(mean * 7 / 8)
        arrives = dice.gammavariate(ahead, 1.0)
        if arrives > mean:
            return found + binomial(dice, ahead - 1, mean / arrives)
        found, mean = found + ahead, mean - arrives
    limit, product = math.exp(-mean), dice.random()
    while product > limit:
        found += 1
        product *= dice.random()
    return found


def lognormal(dice: random.Random, median: float, spread: float) -> float:
    """Return a value with this median; ``spread`` is the deviation of its logarithm."""
    return median * math.exp(spread * dice.gauss(0.0, 1.0)) if median else 0.0


def quantile(
    dice: random.Random, number: int, part: float, median: float, spread: float
) -> float | None:
    """Return the quantile ``part`` of so many lognormal values, None of none.

    The values are not drawn: that of rank k is beta distributed in probability.
    """
    if not number:
        return None
    rank = min(number, max(1, math.ceil(part * number)))
    at = min(1 - 1e-12, max(1e-12, dice.betavariate(rank, number - rank + 1)))
    return median * math.exp(spread * _NORMAL.inv_cdf(at))
