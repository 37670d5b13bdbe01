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

_ARMS = ("canary", "baseline")
_P95 = NormalDist().inv_cdf(0.95)


class Arms:
    """The measurements of one step; within it a new share begins new counts."""

    def __init__(self, dice: random.Random, traffic: Traffic, defect: Defect) -> None:
        """Begin with nothing measured."""
        self._dice, self._traffic, self._defect = dice, traffic, defect
        self._share: float | None = None
        self._steps: list[dict[str, dict[str, int]]] = []
        self._assigned: list[dict[str, Any]] = []
        self._since = {"canary": (0, 0), "baseline": (0, 0)}
        self._median = dict.fromkeys(_ARMS, traffic.p95)
        self.p95: dict[str, list[float | None]] = {arm: [] for arm in _ARMS}
        self.last: dict[str, dict[str, float]] = {}

    def measure(self, seconds: float, share: float) -> None:
        """Let some time pass, in which the canary has a share of the traffic (0 to 1)."""
        if share != self._share:
            self._share = share
            self._steps.append({arm: {"bad": 0, "total": 0} for arm in _ARMS})
            self._assigned.append({**dict.fromkeys(_ARMS, 0), "share": share})
        traffic, defect = self._traffic, self._defect
        hit = shows(defect, share)
        weather = math.exp(traffic.weather * self._dice.gauss(0.0, 1.0))
        median = traffic.p95 * math.exp(-_P95 * traffic.latency_spread) * weather
        for arm, part, bad in (("canary", share, hit), ("baseline", 1.0 - share, False)):
            number = _draw.poisson(self._dice, traffic.requests * seconds * part)
            rate = traffic.error_rate * weather + (defect.errors if bad else 0.0)
            failed = _draw.binomial(self._dice, number, min(1.0, rate))
            self._median[arm] = median * (defect.latency if bad else 1.0)
            self._steps[-1][arm]["total"] += number
            self._steps[-1][arm]["bad"] += failed
            self._assigned[-1][arm] += number

    def look(self) -> None:
        """Take the latency of what was measured since the look before."""
        for arm in _ARMS:
            bad, total = self.counted(arm)
            known_bad, known = self._since[arm]
            self._since[arm] = bad, total
            bad, number = bad - known_bad, total - known
            value = self._quantile(arm, number)
            self.p95[arm].append(value)
            self.last[arm] = {"rate": bad / number if number else 0.0, "p95": value or 0.0}

    def counted(self, arm: str) -> tuple[int, int]:
        """Return bad requests and all requests of an arm."""
        bad = sum(step[arm]["bad"] for step in self._steps)
        return bad, sum(step[arm]["total"] for step in self._steps)

    def slowness(self, arm: str) -> float | None:
        """Return the p95 of all that was measured of an arm, in seconds."""
        return self._quantile(arm, self.counted(arm)[1])

    def _quantile(self, arm: str, number: int) -> float | None:
        spread = self._traffic.latency_spread
        return _draw.quantile(self._dice, number, 0.95, self._median[arm], spread)

    def verdict(self, judge: Judge, *, final: bool = False) -> str:
        """Return what the judge says of all looks."""
        data = {
            "assignments": [one for one in self._assigned if 0 < one["share"] < 1],
            # A rate is that of the bad requests, a series the latency.
            "metrics": {
                one.name: {"steps": self._steps} if one.kind == "rate" else self.p95
                for one in judge.metrics
                # A rank test allows one look only.
                if one.kind == "rate" or one.test == "sequential" or final
            },
        }
        return str(decide(judge, data, final=final)["verdict"])
