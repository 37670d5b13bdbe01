# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many simulated deployments of some strategies, and their numbers side by side."""

from __future__ import annotations

import collections
import dataclasses
import random
import statistics
from typing import TYPE_CHECKING, Any

from ...module_utils._pools import CANARY
from ...module_utils._schedule import schedule_seconds, schedule_times
from ._hosts import plan_of, run_hosts
from ._model import BY_HOSTS, Defect
from ._shift import Shifting, shift_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ._model import Scenario
    from ._outcome import Outcome


def simulate(
    scenarios: Sequence[tuple[str, Scenario]], *, runs: int = 100, seed: int = 0
) -> dict[str, Any]:
    """Simulate each scenario ``runs`` times with its defect, and as often without.

    :param scenarios: each with the name that it is shown by
    :returns: ``{"runs", "seed", "strategies": [{"name", "strategy", "plan", "good": numbers of a
        revision as good as the one before, "bad": numbers of the one with the defect, or None}]}``;
        docs/simulator.md tells the numbers
    :raises PlanError: a plan is impossible
    """
    found = []
    for name, scenario in scenarios:
        run, plan = _runner(scenario)
        bad = None if scenario.defect.is_none else scenario.defect
        found.append(
            {
                "name": name,
                "strategy": scenario.strategy,
                "ignored": list(scenario.ignored),
                "plan": plan,
                "good": _numbers(scenario, Defect(), run, runs, f"{seed} good"),
                "bad": _numbers(scenario, bad, run, runs, f"{seed} bad") if bad else None,
            }
        )
    return {"runs": runs, "seed": seed, "strategies": found}


def _runner(
    scenario: Scenario,
) -> tuple[Callable[[Defect, random.Random], Outcome], dict[str, Any]]:
    """Return what carries the deployment out once, and what its plan says."""
    total = scenario.fleet.targets
    if scenario.strategy in BY_HOSTS or scenario.first:
        plan = plan_of(scenario)
        shown = {
            "targets": total,
            "minimum_healthy": plan["minimum_healthy"],
            "stages": [len(stage) for stage in plan["stages"]],
            "zonal": plan["zonal"],
            "schedule": plan["schedule"],
            "estimated_seconds": plan["estimated_seconds"],
        }
        return lambda defect, dice: run_hosts(scenario, plan, defect, dice), shown
    plan = shift_plan(scenario)
    timed = schedule_times(plan["schedule"], scenario.shift)
    pool, install = len(plan["pools"]["idle"]), scenario.fleet.install
    canary = scenario.strategy == CANARY
    # Canaries, and the fleet behind them, go as many at a time as the minimum allows.
    at_once = min(plan["slots"] if canary else pool, scenario.fleet.forks)
    fleet = -(-(len(plan["targets"]) - pool) // at_once) * (scenario.fleet.drain + install)
    shown = {
        "targets": total,
        "minimum_healthy": plan["minimum_healthy"],
        "stages": [],
        "zonal": None,
        "schedule": timed,
        "estimated_seconds": -(-pool // at_once) * install + schedule_seconds(timed) + fleet,
    }
    if canary:
        return lambda defect, dice: run_hosts(scenario, plan, defect, dice), shown
    return lambda defect, dice: Shifting(scenario, plan, defect, dice).run(), shown


def _numbers(
    scenario: Scenario,
    defect: Defect,
    run: Callable[[Defect, random.Random], Outcome],
    runs: int,
    seed: str,
) -> dict[str, Any]:
    # A text as seed is hashed by the standard library, the same on every machine.
    ended = [run(defect, random.Random(f"{seed} {number}")) for number in range(runs)]  # noqa: S311 - a simulation
    traffic = scenario.traffic
    for one in ended:
        if not one.found_by and not defect.is_none:
            one.exposure.add(scenario.noticed, 1.0)
    stopped = [one for one in ended if one.found_by]
    by = collections.Counter(one.found_by for one in stopped)
    return {
        "defect": dataclasses.asdict(defect),
        "succeeded": 1 - len(stopped) / runs,
        "stopped": len(stopped) / runs,
        "stopped_by": {name: number / runs for name, number in sorted(by.items())},
        "seconds": _spread([one.seconds for one in ended]),
        "stopped_after": _spread([one.found_at for one in stopped]),
        "cleared_after": _spread([one.cleared for one in stopped]),
        "rolled_back_after": _spread([one.rolled_back for one in stopped]),
        "requests_exposed": _spread([one.exposure.requests(traffic) for one in ended]),
        "users_exposed": _spread([one.exposure.users(traffic) for one in ended]),
        "bad_requests": _spread([one.exposure.bad(traffic, defect) for one in ended]),
        "lowest_in_service": min(one.lowest for one in ended),
        # The logical events of the first run.
        "trace": ended[0].trace.events,
    }


def _spread(values: Sequence[float | None]) -> dict[str, float] | None:
    """Return mean, median and 95th percentile; None of nothing."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    return {
        "mean": round(statistics.fmean(known), 6),
        "median": round(statistics.median(known), 6),
        "p95": round(known[min(len(known) - 1, int(0.95 * len(known)))], 6),
    }
