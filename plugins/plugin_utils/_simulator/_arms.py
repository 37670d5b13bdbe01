# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What canary and baseline measure in an interval, and what the judge says of it so far."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from .._judge import decide
from . import _draw
from ._exposure import shows

if TYPE_CHECKING:
    import random

    from .._judge import Judge
    from ._model import Defect, Traffic

_P95 = NormalDist().inv_cdf(0.95)


class Arms:
    """The measurements of one deployment; a step of the counts is one share of the traffic."""

    def __init__(self, dice: random.Random, traffic: Traffic, defect: Defect) -> None:
        """Begin with nothing measured."""
        self._dice, self._traffic, self._defect = dice, traffic, defect
        self._share: float | None = None
        self._steps: list[dict[str, dict[str, int]]] = []
        self._assigned: list[dict[str, Any]] = []
        self.p95: dict[str, list[float | None]] = {"canary": [], "baseline": []}
        self.last: dict[str, dict[str, float]] = {}

    def measure(self, seconds: float, share: float) -> None:
        """Let some time pass, in which the canary has a share of the traffic (0 to 1)."""
        if share != self._share:
            self._share = share
            nothing = {"bad": 0, "total": 0}
            self._steps.append({"canary": dict(nothing), "baseline": dict(nothing)})
            self._assigned.append({"canary": 0, "baseline": 0, "share": share})
        traffic, defect = self._traffic, self._defect
        hit = shows(defect, share)
        weather = math.exp(traffic.weather * self._dice.gauss(0.0, 1.0))
        median = traffic.p95 * math.exp(-_P95 * traffic.latency_spread) * weather
        for arm, part, bad in (("canary", share, hit), ("baseline", 1.0 - share, False)):
            number = _draw.poisson(self._dice, traffic.requests * seconds * part)
            rate = traffic.error_rate * weather + (defect.errors if bad else 0.0)
            failed = _draw.binomial(self._dice, number, min(1.0, rate))
            slower = median * (defect.latency if bad else 1.0)
            value = _draw.quantile(self._dice, number, 0.95, slower, traffic.latency_spread)
            self._steps[-1][arm]["total"] += number
            self._steps[-1][arm]["bad"] += failed
            self._assigned[-1][arm] += number
            self.p95[arm].append(value)
            self.last[arm] = {"rate": failed / number if number else 0.0, "p95": value or 0.0}

    def verdict(self, judge: Judge, *, final: bool = False) -> str:
        """Return what the judge says of all that was measured."""
        data = {
            "assignments": [one for one in self._assigned if 0 < one["share"] < 1],
            # A rate is that of the bad requests, a series the latency.
            "metrics": {
                one.name: {"steps": self._steps} if one.kind == "rate" else self.p95
                for one in judge.metrics
            },
        }
        return str(decide(judge, data, final=final)["verdict"])
