# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A new pool that gets the traffic by a schedule, on a virtual clock.

The plan and its steps are those of a real deployment; so are the steps of the way back.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

from ...module_utils._admission import HEALTH_CONSTRAINTS, IDLE, Counts, conclude
from ...module_utils._configuration import parse_stages
from ...module_utils._plan import PlanTarget, make_plan
from ...module_utils._pools import (
    BLUE_GREEN,
    CANARY,
    deployment_steps,
    pools_of,
)
from . import _draw
from ._asking import Asking
from ._exposure import Exposure
from ._outcome import BACK, GATES, HOSTS, Outcome, Trace
from ._walking import Walking

if TYPE_CHECKING:
    import random

    from ._model import Defect, Scenario

_NEW, _OLD = "n" * 64, "o" * 64


def shift_plan(scenario: Scenario) -> dict[str, Any]:
    """Return the plan of the deployment; raises PlanError if the numbers do not allow one."""
    fleet, canary = scenario.fleet, scenario.strategy == CANARY
    old, new = scenario.names
    sizes = {old: fleet.targets, new: fleet.canaries if canary else fleet.targets}
    members = {
        pool: [f"{pool}-{number + 1:04}" for number in range(size)] for pool, size in sizes.items()
    }
    options: dict[str, Any] = dict(scenario.pools)
    pools = pools_of(
        CANARY if canary else BLUE_GREEN, scenario.names, members, old,
        test_route=options["test_route"], sticky=options["sticky"], retire=options["retire"],
    )  # fmt: skip
    steps = deployment_steps(
        scenario.schedule, pools, bake=0.0 if canary else scenario.bake_time,
        ready_timeout=options["ready_timeout"], ready_on_timeout=options["ready_on_timeout"],
        retire_after=options["retire_after"],
    )  # fmt: skip
    common: dict[str, Any] = {
        "digest": _NEW, "provider": "simulated", "current": _OLD, "pools": pools,
        "schedule": steps,
    }  # fmt: skip
    targets = [PlanTarget(name, "", "Healthy", _OLD, in_service=False) for name in members[new]]
    if not canary:
        return make_plan(
            scenario.strategy, targets, minimum=scenario.minimum.of(fleet.targets),
            stages=[fleet.targets], mode=IDLE, left_out=members[old], total=fleet.targets, **common,
        )  # fmt: skip
    targets += [PlanTarget(name, "", "Healthy", _OLD) for name in members[old]]
    return make_plan(
        scenario.strategy,
        targets,
        # One of the fleet, and no canary may fail.
        minimum=scenario.minimum.of(fleet.targets) + fleet.canaries,
        stages=lambda number: [
            fleet.canaries, *parse_stages(scenario.stages, number - fleet.canaries),
        ],
        total=fleet.targets + fleet.canaries,
        first=members[new],
        **common,
    )  # fmt: skip


class Shifting(Walking):
    """One deployment: how far its schedule is, and the share of the traffic by then."""

    def __init__(
        self, scenario: Scenario, plan: dict[str, Any], defect: Defect, dice: random.Random
    ) -> None:
        self._scenario, self._plan, self._defect, self._dice = scenario, plan, defect, dice
        self._asking = Asking(scenario, defect, dice, self)
        self._exposure = Exposure()
        self.trace = Trace()
        self.now = 0.0
        self._new: list[str] = list(plan["pools"]["idle"])

    def share(self) -> float:
        """Return the part of the traffic that the new revision gets now (0 to 1)."""
        return self.part

    def passes(self, seconds: float) -> None:
        """Let time pass."""
        self._exposure.add(seconds, self.share())
        self.now += seconds

    def run(self) -> Outcome:
        """Go through all steps, and back if one of them fails."""
        failed = self._prepare()
        counts = Counts(total=self._plan["total"], succeeded=len(self._new) - failed, failed=failed)
        if conclude(counts, self._plan["minimum_healthy"]).error_code == HEALTH_CONSTRAINTS:
            why = GATES if self._defect.hosts else HOSTS
            self._halt(HEALTH_CONSTRAINTS)
            self._ended("Failed")
            return self._outcome(why, self.now, 0.0)
        why = self._walk(self._plan["schedule"])
        if why:
            return self._back(why)
        self._ended("Succeeded")
        return self._outcome("")

    def _halted(self) -> None:
        """End the deployment; its rollback follows."""

    def _ended(self, status: str) -> None:
        self.trace.note(self.now, "Finished", status=status)

    def _back(self, why: str) -> Outcome:
        """Go the steps of the rollback; the traffic has come home before."""
        found_at = self.found_at
        self._halted()
        self._ended("Failed")
        self.trace.deployment = BACK
        self.go_back()
        self._ended("Succeeded")
        return self._outcome(why, found_at, self.now - found_at)

    def _outcome(
        self, why: str, found_at: float | None = None, cleared: float | None = None
    ) -> Outcome:
        return Outcome(
            why, self.now, self._exposure, self._scenario.fleet.targets, found_at=found_at,
            cleared=cleared, rolled_back=cleared, trace=self.trace,
        )  # fmt: skip

    def _prepare(self) -> int:
        """Install the new pool, which nobody reaches yet; returns how many targets have failed."""
        fleet = self._scenario.fleet
        chance = 1 - (1 - fleet.failure) * (1 - self._defect.hosts)
        free = [0.0] * min(fleet.forks, len(self._new))
        failed = 0
        done = []
        for name in self._new:
            self.trace.note(free[0], "Admitted", target=name, status="InProgress")
            takes = _draw.lognormal(self._dice, fleet.install, fleet.install_spread)
            ends = free[0] + takes
            heapq.heapreplace(free, ends)
            bad = self._dice.random() < chance
            done.append((ends, name, "Failed" if bad else "Succeeded"))
            failed += bad
        for self.now, name, status in sorted(done):
            self._installed(name, status)
        return failed

    def _installed(self, name: str, status: str) -> None:
        """Settle a target of the new pool."""
        self.trace.note(self.now, "Settled", target=name, status=status)
