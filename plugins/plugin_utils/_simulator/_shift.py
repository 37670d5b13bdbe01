# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A new pool that gets the traffic by a schedule, on a virtual clock."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from ...module_utils._admission import Counts, conclude
from . import _draw
from ._arms import Arms
from ._exposure import Exposure
from ._outcome import FAIL, GATES, HOSTS, JUDGE, Outcome

if TYPE_CHECKING:
    import random

    from ._model import Defect, Scenario


def run_shift(scenario: Scenario, defect: Defect, dice: random.Random) -> Outcome:
    """Make the new pool ready, and move the traffic to it step by step."""
    exposure, total = Exposure(), scenario.fleet.targets
    now, failed = _prepare(scenario, defect, dice)
    counts = Counts(total=total, succeeded=total - failed, failed=failed)
    if conclude(counts, scenario.minimum.of(total)).status != "Succeeded":
        why = GATES if defect.hosts else HOSTS
        return Outcome(why, now, exposure, total, found_at=now, cleared=0.0, rolled_back=0.0)
    arms, share = Arms(dice, scenario.traffic, defect), 0.0
    for step in scenario.schedule:
        if step["kind"] == "shift":
            now += scenario.shift
            exposure.add(scenario.shift, share)
            share = step["share"] / 100
        elif step["kind"] == "bake":
            passed, bad = _bake(scenario, arms, share, step["seconds"])
            now += passed
            exposure.add(passed, share)
            if bad:
                exposure.add(scenario.back, share)
                return Outcome(
                    JUDGE, now + scenario.back, exposure, total, found_at=now,
                    cleared=scenario.back, rolled_back=scenario.back,
                )  # fmt: skip
    return Outcome("", now, exposure, total)


def _prepare(scenario: Scenario, defect: Defect, dice: random.Random) -> tuple[float, int]:
    """Install the new pool, which nobody reaches yet; returns the seconds and who has failed."""
    fleet = scenario.fleet
    chance = 1 - (1 - fleet.failure) * (1 - defect.hosts)
    free = [0.0] * min(fleet.forks, fleet.targets)
    failed = 0
    for _target in range(fleet.targets):
        takes = _draw.lognormal(dice, fleet.install, fleet.install_spread)
        heapq.heapreplace(free, free[0] + takes)
        failed += dice.random() < chance
    return max(free), failed


def _bake(scenario: Scenario, arms: Arms, share: float, seconds: float) -> tuple[float, bool]:
    """Let time pass and look; returns how much has, and whether the judge has said no."""
    passed = 0.0
    while passed < seconds:
        step = min(scenario.interval, seconds - passed)
        passed += step
        if scenario.judge is not None and 0 < share < 1:
            arms.measure(step, share)
            if arms.verdict(scenario.judge) == FAIL:
                return passed, True
    return seconds, False
