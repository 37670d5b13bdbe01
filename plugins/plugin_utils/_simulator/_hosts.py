# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Targets one after the other, on a virtual clock: the rule of admission is the record's own.

Times are seconds since the deployment began, those of its rollback, too.
"""

from __future__ import annotations

import collections
import heapq
import json
from typing import TYPE_CHECKING, Any

from ...module_utils._admission import (
    ADMIT,
    HALT,
    HEALTH_CONSTRAINTS,
    ROLLBACK,
    conclude,
    decide,
)
from ...module_utils._configuration import parse_stages
from ...module_utils._gate_rules import FAIL, GATE_FAILED, PASS
from ...module_utils._plan import PlanTarget, make_plan
from ...module_utils._pools import CANARY, HOME_PART, deployment_steps
from .._closing import spare_targets
from .._record._admit import counts_from, held_by_stage, zones_of
from . import _draw
from ._asking import Asking
from ._exposure import Exposure
from ._outcome import BACK, GATES, HOSTS, Outcome, Trace
from ._walking import Walking

if TYPE_CHECKING:
    import random

    from ._model import Defect, Scenario

_NEW, _OLD = "n" * 64, "o" * 64


def plan_of(scenario: Scenario) -> dict[str, Any]:
    """Return the plan of the deployment; raises PlanError if the numbers do not allow one."""
    fleet = scenario.fleet
    targets = [
        PlanTarget(f"target-{number + 1:04}", f"zone-{number % fleet.zones + 1}", "Healthy", _OLD)
        for number in range(fleet.targets)
    ]
    canaries = [one.name for one in targets[: scenario.first]]
    return make_plan(
        scenario.strategy,
        targets,
        digest=_NEW,
        minimum=scenario.minimum.of(fleet.targets),
        stages=lambda number: [
            *([len(canaries)] if canaries else []),
            *parse_stages(scenario.stages, number - len(canaries)),
        ],
        bake_time=scenario.bake_time,
        provider="simulated",
        current=_OLD,
        durations=[fleet.drain + fleet.install],
        zonal=None if canaries else scenario.zonal,
        schedule=deployment_steps(scenario.schedule, None) if canaries else (),
        first=canaries,
    )


def run_hosts(
    scenario: Scenario, plan: dict[str, Any], defect: Defect, dice: random.Random
) -> Outcome:
    """Carry a deployment out once, and its rollback if it fails."""
    kind = Canaries if scenario.strategy == CANARY else Rollout
    there = kind(scenario, plan, defect, dice, Exposure(), Trace())
    ended = there.run()
    there.trace.note(there.now, "Finished", status=ended.status)
    if ended.status == "Succeeded":
        return Outcome("", there.now, there.exposure, there.lowest, trace=there.trace)
    found_at = there.now if there.halted_at is None else there.halted_at
    why = there.stopped_by or (GATES if defect.hosts else HOSTS)
    there.trace.deployment = BACK
    if isinstance(there, Canaries):
        there.go_back()
    back = Rollout.back(there)
    done = back.run()
    back.trace.note(back.now, "Finished", status=done.status)
    return Outcome(
        why, back.now, there.exposure, min(there.lowest, back.lowest), found_at=found_at,
        cleared=None if back.cleared_at < 0 else back.cleared_at - found_at,
        rolled_back=back.now - found_at, trace=there.trace,
    )  # fmt: skip


class Rollout:
    """One deployment: who is in service, with which revision, and who is worked on."""

    def __init__(
        self,
        scenario: Scenario,
        plan: dict[str, Any],
        defect: Defect,
        dice: random.Random,
        exposure: Exposure,
        trace: Trace,
        now: float = 0.0,
    ) -> None:
        self._scenario, self._plan, self._defect, self._dice = scenario, plan, defect, dice
        self.exposure, self.trace = exposure, trace
        self._asking = Asking(scenario, defect, dice, self)
        self._mode, self._minimum = plan["mode"], plan["minimum_healthy"]
        zonal = json.dumps(plan["zonal"]) if plan["zonal"] else None
        self._deployment = {"zonal": zonal, "bake_time": plan["bake_time"]}
        self._stage = {one["name"]: one["stage"] for one in plan["targets"]}
        self._waiting = collections.deque(self._stage)
        # Canaries of a pool of their own get users by the schedule, and are not of the fleet.
        self._pool = frozenset(plan["pools"]["idle"] if plan["pools"] else ())
        self._in_service = {name: name not in self._pool for name in self._stage}
        self._from_service: dict[str, bool] = {}
        self._new: set[str] = set()
        self._changed: set[str] = set()
        self._untouched = plan["total"] - len(self._stage)
        self._tally: dict[tuple[Any, ...], list[Any]] = {}
        self._working: list[tuple[float, int, str]] = []
        self._begun = 0
        self._asked: set[int] = set()
        self.now = now
        self.lowest = plan["total"] - len(self._pool)
        self.code: str | None = None
        self.halted_at: float | None = None
        self.stopped_by = ""
        self.cleared_at = now
        for name in self._stage:
            self._count(name, "Pending", 1)

    @classmethod
    def back(cls, failed: Rollout) -> Rollout:
        """Return the rollback of a deployment: traffic first, then what changed."""
        plan, changed = failed._plan, failed._changed
        known = {name: failed._in_service[name] for name in failed._stage if name in changed}
        targets = [
            PlanTarget(name, "", "Unknown", None, in_service=up) for name, up in known.items()
        ]
        spare = spare_targets(
            plan["total"], sum(not up for up in known.values()), plan["minimum_healthy"]
        )
        gone = [name for name, up in known.items() if up][:spare]
        made = make_plan(
            "rollback", targets, digest=_OLD, minimum=plan["minimum_healthy"],
            stages=[len(targets)] if targets else [], total=plan["total"], mode=ROLLBACK,
            left_out=["the others"],
        )  # fmt: skip
        rollout = Rollout(
            failed._scenario, made, failed._defect, failed._dice, failed.exposure, failed.trace,
            now=failed.now,
        )  # fmt: skip
        rollout.lowest = failed._serving()
        rollout._new = {name for name in known if name in failed._new}
        for name, up in known.items():
            rollout._count(name, "Pending", -1)
            rollout._in_service[name] = up and name not in gone
            rollout._count(name, "Pending", 1)
        rollout._watch()
        return rollout

    def run(self) -> Any:
        """Go on until nobody is left who may begin; returns what the rule concludes."""
        while True:
            self._ask()
            wake = self._admit()
            if not self._working and (self.code is not None or not self._waiting):
                break
            moments = [self._working[0][0]] if self._working else []
            moments += [] if wake is None else [wake]
            self._advance(min(moments))
            while self._working and self._working[0][0] <= self.now:
                self._end(heapq.heappop(self._working)[2])
        groups = self._groups()
        zones = zones_of(self._deployment, groups)
        counts = counts_from(groups, self._plan["total"])
        return conclude(counts, self._minimum, self.code, zones)

    def _admit(self) -> float | None:
        """Begin whoever may begin; returns until when the next one waits, if that is known."""
        while self._waiting and self.code is None:
            name = self._waiting[0]
            groups, stage = self._groups(), self._stage[name]
            zones = zones_of(self._deployment, groups)
            own = zones[self._plan["zonal"]["stages"][stage]] if zones else None
            decision = decide(
                counts_from(groups, self._plan["total"], stage), self._minimum, self._mode,
                self._in_service[name], own,
            )  # fmt: skip
            if decision.verdict == HALT:
                self._halt(str(decision.error_code))
                return None
            if decision.verdict != ADMIT or len(self._working) >= self._scenario.fleet.forks:
                return None
            held = held_by_stage(groups, stage, self._deployment, self.now)
            if held is not None:
                return held[1]
            self._begin(self._waiting.popleft())
        return None

    def _begin(self, name: str) -> None:
        self._count(name, "Pending", -1)
        self._from_service[name] = self._in_service[name]
        drain = self._scenario.fleet.drain if self._in_service[name] else 0.0
        self._in_service[name] = False
        self._count(name, "InProgress", 1)
        self._watch()
        fleet = self._scenario.fleet
        takes = drain + _draw.lognormal(self._dice, fleet.install, fleet.install_spread)
        self._begun += 1
        self.trace.note(self.now, "Admitted", target=name, status="InProgress")
        heapq.heappush(self._working, (self.now + takes, self._begun, name))

    def _end(self, name: str) -> None:
        self._count(name, "InProgress", -1)
        chance = self._scenario.fleet.failure
        if self._mode != ROLLBACK:
            chance = 1 - (1 - chance) * (1 - self._defect.hosts)
        failed = self._dice.random() < chance
        self._changed.add(name)
        self._in_service[name] = not failed and name not in self._pool
        if not failed and name not in self._pool:
            (self._new.discard if self._mode == ROLLBACK else self._new.add)(name)
        status = "Failed" if failed else "Succeeded"
        self._count(name, status, 1, self.now)
        self.trace.note(self.now, "Settled", target=name, status=status)
        self._watch()

    def _ask(self) -> None:
        """Ask what is asked when all targets of a stage are decided, once for each stage."""
        if self._working or self.code is not None or self._mode == ROLLBACK:
            return
        following = self._stage[self._waiting[0]] if self._waiting else len(self._plan["stages"])
        done = following - 1
        if done < 0 or done in self._asked or not self._changed:
            return
        self._asked.add(done)
        self.stopped_by = self._between(done)
        if self.stopped_by:
            self._halt(GATE_FAILED)

    def _between(self, done: int) -> str:
        """Ask the gates after a stage; returns who has stopped the deployment."""
        if not self._scenario.gates:
            return ""
        why = self._asking.ask(self._scenario.bake_time, self._scenario.gates)
        if why:
            self._halt(GATE_FAILED)
        self.trace.note(
            self.now, "GatesDecided", status=FAIL if why else PASS, text=f"stage {done + 1}"
        )
        return why

    def passes(self, seconds: float) -> None:
        """Let time pass, in which nobody is worked on."""
        self._advance(self.now + seconds)

    def share(self) -> float:
        """Return the part of the traffic that the new revision gets now."""
        return self._share()

    def _halt(self, code: str) -> None:
        if self.code is None:
            self.code, self.halted_at = code, self.now
            self.trace.note(self.now, "Halted", status="", text=code)

    def _advance(self, moment: float) -> None:
        self.exposure.add(moment - self.now, self._share())
        self.now = max(self.now, moment)

    def _share(self) -> float:
        """Return the part of the traffic that the new revision gets now."""
        new = sum(self._in_service[name] for name in self._new)
        return new / max(1, self._serving())

    def _serving(self) -> int:
        return int(self._untouched + sum(self._in_service.values()))

    def _watch(self) -> None:
        self.lowest = min(self.lowest, self._serving())
        if self._share() > 0:
            self.cleared_at = -1.0
        elif self.cleared_at < 0:
            self.cleared_at = self.now

    def _count(self, name: str, status: str, number: int, finished: float | None = None) -> None:
        """Keep the tally that the record makes of its rows."""
        key = (
            self._stage[name], status, self._in_service[name],
            self._from_service.get(name, False), name in self._changed,
        )  # fmt: skip
        entry = self._tally.setdefault(key, [0, None])
        entry[0] += number
        if finished is not None:
            entry[1] = finished if entry[1] is None else max(entry[1], finished)

    def _groups(self) -> list[dict[str, Any]]:
        return [
            {
                "stage": stage, "status": status, "in_service": up, "from_service": was_up,
                "changed": changed, "n": number, "latest": latest,
            }
            for (stage, status, up, was_up, changed), (number, latest) in self._tally.items()
            if number
        ]  # fmt: skip


class Canaries(Rollout, Walking):
    """Canaries, in a pool or among the targets: the schedule watches them, then the others follow.

    What follows has no gates of its own, as in a real deployment.
    """

    def run(self) -> Any:
        ended = super().run()
        if ended.status == "Succeeded":
            self._walk([one for one in self._plan["schedule"] if one["part"] == HOME_PART])
        elif self.part > 0:
            # The fleet has failed behind its canaries: users leave these first.
            self._home()
        return ended

    def _between(self, done: int) -> str:
        if done:
            return ""
        counts = counts_from(self._groups(), self._plan["total"])
        code = conclude(counts, self._minimum).error_code
        if code == HEALTH_CONSTRAINTS:
            self._halt(code)
            return ""
        return self._walk([one for one in self._plan["schedule"] if one["part"] != HOME_PART])

    def _share(self) -> float:
        return self.part + (1 - self.part) * super()._share()
