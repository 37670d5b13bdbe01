# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A new pool that gets the traffic by a schedule, on a virtual clock.

The plan and its steps are those of a real deployment; so are the steps of the way back.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

from ...module_utils._admission import IDLE, Counts, conclude
from ...module_utils._plan import PlanTarget, make_plan
from ...module_utils._pools import BLUE_GREEN, deployment_steps, pools_of, way_back
from . import _draw
from ._arms import Arms
from ._exposure import Exposure
from ._outcome import APPROVAL, FAIL, GATES, HOSTS, JUDGE, Outcome

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    from ._model import Defect, Scenario

_NEW, _OLD = "n" * 64, "o" * 64
_POOLS = ("old", "new")


def shift_plan(scenario: Scenario) -> dict[str, Any]:
    """Return the plan of the deployment; raises PlanError if the numbers do not allow one."""
    names = {
        pool: [f"{pool}-{number + 1:04}" for number in range(scenario.fleet.targets)]
        for pool in _POOLS
    }
    pools = pools_of(BLUE_GREEN, _POOLS, names, "old")
    return make_plan(
        scenario.strategy,
        [PlanTarget(name, "", "Healthy", _OLD, in_service=False) for name in names["new"]],
        digest=_NEW,
        minimum=scenario.minimum.of(scenario.fleet.targets),
        stages=[scenario.fleet.targets],
        provider="simulated",
        current=_OLD,
        mode=IDLE,
        pools=pools,
        schedule=deployment_steps(scenario.schedule, pools, bake=scenario.bake_time),
        left_out=names["old"],
        total=scenario.fleet.targets,
    )


class Shifting:
    """One deployment: how far its schedule is, and the share of the traffic by then."""

    def __init__(
        self, scenario: Scenario, plan: dict[str, Any], defect: Defect, dice: random.Random
    ) -> None:
        self._scenario, self._plan, self._defect, self._dice = scenario, plan, defect, dice
        self._arms = Arms(dice, scenario.traffic, defect)
        self._exposure = Exposure()
        self._share = 0.0
        self.now = 0.0

    def run(self) -> Outcome:
        """Go through all steps, and back if one of them fails."""
        total = self._scenario.fleet.targets
        failed = self._prepare()
        counts = Counts(total=total, succeeded=total - failed, failed=failed)
        if conclude(counts, self._plan["minimum_healthy"]).status != "Succeeded":
            why = GATES if self._defect.hosts else HOSTS
            return self._outcome(why, self.now, 0.0)
        for step in self._plan["schedule"]:
            self._begin(step)
            why = self._carry_out(step)
            self._end(step, why)
            if why:
                return self._back(why)
        return self._outcome("")

    def _begin(self, step: Mapping[str, Any]) -> None:
        """Begin a step; nothing is written down here."""

    def _end(self, step: Mapping[str, Any], why: str) -> None:
        """End a step; ``why`` is who has stopped it, empty if it succeeded."""

    def _halted(self) -> None:
        """End the deployment; its rollback follows."""

    def _carry_out(self, step: Mapping[str, Any]) -> str:
        """Let the time of a step pass; returns who has stopped it, empty if nobody has."""
        kind, asked = step["kind"], self._scenario.asked
        if kind == "shift":
            self._pass(self._scenario.shift)
            self._share = step["share"] / 100
        elif kind == "bake":
            return self._bake(step["seconds"])
        elif kind == "gate":
            self._pass(asked.gate)
            finds = 0.0 if self._defect.is_none else asked.gate_finds
            return GATES if self._happens(1 - (1 - asked.gate_fails) * (1 - finds)) else ""
        elif kind == "approval":
            if asked.approval > step["timeout"]:
                self._pass(step["timeout"])
                return APPROVAL if step["on_timeout"] == "stop" else ""
            self._pass(asked.approval)
            return APPROVAL if self._happens(asked.approval_rejects) else ""
        return ""

    def _happens(self, chance: float) -> bool:
        return chance > 0 and self._dice.random() < chance

    def _back(self, why: str) -> Outcome:
        """Bring the traffic home before anything else; then come the steps of the rollback."""
        found_at = self.now
        moved = self._share > 0
        if moved:
            self._pass(self._scenario.back)
            self._share = 0.0
        self._halted()
        # The rollback finds the traffic where it belongs.
        for step in way_back(self._plan["pools"])[1] if moved else ():
            self._begin(step)
            self._end(step, "")
        return self._outcome(why, found_at, self.now - found_at)

    def _outcome(
        self, why: str, found_at: float | None = None, cleared: float | None = None
    ) -> Outcome:
        return Outcome(
            why, self.now, self._exposure, self._scenario.fleet.targets, found_at=found_at,
            cleared=cleared, rolled_back=cleared,
        )  # fmt: skip

    def _pass(self, seconds: float) -> None:
        self._exposure.add(seconds, self._share)
        self.now += seconds

    def _prepare(self) -> int:
        """Install the new pool, which nobody reaches yet; returns how many targets have failed."""
        fleet = self._scenario.fleet
        chance = 1 - (1 - fleet.failure) * (1 - self._defect.hosts)
        free = [0.0] * min(fleet.forks, fleet.targets)
        failed = 0
        for target in self._plan["targets"]:
            takes = _draw.lognormal(self._dice, fleet.install, fleet.install_spread)
            heapq.heapreplace(free, free[0] + takes)
            bad = self._dice.random() < chance
            self._installed(target["name"], "Failed" if bad else "Succeeded")
            failed += bad
        self.now = max(free)
        return failed

    def _installed(self, name: str, status: str) -> None:
        """Settle a target of the new pool."""

    def _bake(self, seconds: float) -> str:
        """Let time pass and look; returns who has stopped it."""
        scenario, passed = self._scenario, 0.0
        while passed < seconds:
            step = min(scenario.interval, seconds - passed)
            passed += step
            if scenario.judge is not None and 0 < self._share < 1:
                self._arms.measure(step, self._share)
                if self._arms.verdict(scenario.judge) == FAIL:
                    self._pass(passed)
                    return JUDGE
        self._pass(seconds)
        return ""
