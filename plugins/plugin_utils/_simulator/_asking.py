# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gates of a step and its judge, asked on a virtual clock by the rules of a real deployment.

What the load balancer counts of the two revisions is modelled, so the judge and the gates that ask
for it see it. What other gates answer is an assumption of the scenario.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Protocol

from ...module_utils._gate_rules import (
    ERROR,
    FAIL,
    FAILED,
    INCONCLUSIVE,
    NO_DATA,
    PASS,
    PENDING,
    RUNNING,
    SUCCESSFUL,
    State,
    assess,
    judge_values,
    next_at,
    verdict_of,
)
from .._gates._run import ASK, EXTEND, FAIL_RULE
from ._arms import Arms
from ._outcome import APPROVAL, EVIDENCE, GATES, JUDGE

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from ...module_utils._gate_rules import Rule
    from ...module_utils._gate_spec import Gate
    from ._model import Defect, Scenario

# What is modelled of a pool. The others of its statistics are answered as other gates are.
_COUNTED = ("error_rate", "errors", "requests", "p95")
# Floating time: what is due now may be a hair later.
_NOW = 1e-9


class Clock(Protocol):
    """Who lets time pass and knows who gets the traffic meanwhile."""

    def share(self) -> float:
        """Return the part of the compared traffic that the new revision gets now (0 to 1)."""

    def passes(self, seconds: float) -> None:
        """Let time pass."""


class _Asked:
    """One gate of a step; ``fails`` is what it answers if it asks for something not modelled."""

    def __init__(self, gate: Gate, rule: Rule, *, fails: bool) -> None:
        self.gate, self.rule, self.fails = gate, rule, fails
        self.state, self.phase = State(), RUNNING
        self.begun: dict[str, tuple[int, int]] | None = None


class Asking:
    """The gates of one deployment."""

    def __init__(
        self, scenario: Scenario, defect: Defect, dice: random.Random, clock: Clock
    ) -> None:
        self._scenario, self._defect, self._dice, self._clock = scenario, defect, dice, clock

    def happens(self, chance: float) -> bool:
        """Tell whether something happens now."""
        return chance > 0 and self._dice.random() < chance

    def ask(self, seconds: float, gates: Sequence[Gate]) -> str:
        """Bake for ``seconds`` and ask; returns who has stopped the deployment, or nothing.

        Without a bake time each gate that has no count is asked once.
        """
        if not gates:
            self._clock.passes(seconds)
            return ""
        assumed = self._scenario.asked
        finds = 0.0 if self._defect.is_none else assumed.gate_finds
        chance = 1 - (1 - assumed.gate_fails) * (1 - finds)
        asked = [_Asked(gate, _rule(gate, seconds), fails=self.happens(chance)) for gate in gates]
        return _Step(self, asked, seconds).run()

    def person(self) -> bool:
        """Let a person answer; returns whether it is a yes."""
        self._clock.passes(self._scenario.asked.approval)
        return not self.happens(self._scenario.asked.approval_rejects)


def _rule(gate: Gate, seconds: float) -> Rule:
    if seconds <= 0 and not gate.rule.ends_by_itself:
        return dataclasses.replace(gate.rule, count=1)
    return gate.rule


class _Step:
    """The loop of ``_gates._run``; times are seconds since the step began."""

    def __init__(self, asking: Asking, asked: list[_Asked], seconds: float) -> None:
        self._asking, self._asked, self._seconds = asking, asked, seconds
        self._scenario, self._clock = asking._scenario, asking._clock
        self._arms = Arms(asking._dice, self._scenario.traffic, asking._defect)
        self._now, self._begun, self._until, self._round = 0.0, 0.0, seconds, 1

    def run(self) -> str:
        while True:
            over = self._now >= self._until - _NOW
            for one in self._asked:
                one.phase = self._phase(one, over=over)
            deciding = [one for one in self._asked if not one.gate.dry_run]
            verdict = verdict_of(one.phase for one in deciding)
            if verdict == PASS and (over or self._seconds <= 0):
                return ""
            if verdict == FAIL:
                bad = [one for one in deciding if one.phase in (FAILED, ERROR)]
                return JUDGE if any(one.gate.type == "judge" for one in bad) else GATES
            if verdict == INCONCLUSIVE:
                stopped = self._inconclusive()
                if stopped is not None:
                    return stopped
            elif not self._ask_due(over=over):
                self._wait()

    def _phase(self, one: _Asked, *, over: bool) -> str:
        if one.phase != RUNNING:
            return one.phase
        last = -1.0 if one.state.last_at is None else one.state.last_at
        over = over and (one.state.measured > 0 or last >= self._until - _NOW)
        late = min(self._now, last) >= self._late_at(one)
        return assess(one.rule, one.state, over=over, late=late)

    def _late_at(self, one: _Asked) -> float:
        deadline = one.rule.deadline
        return math.inf if deadline is None else max(self._begun + deadline, self._until)

    def _ask_due(self, *, over: bool) -> bool:
        """Ask all that are due at this moment; returns whether there were any."""
        any_due = False
        for one in self._asked:
            if one.phase != RUNNING:
                continue
            late_at = self._late_at(one)
            last = -1.0 if one.state.last_at is None else one.state.last_at
            closing = over and self._seconds > 0 and last < self._until - _NOW
            closing = closing or last < late_at <= self._now
            due = next_at(one.rule, one.state, self._begun) <= self._now + _NOW
            if due or closing:
                any_due = True
                phase = self._answer(
                    one, final=(over and self._seconds > 0) or self._now >= late_at
                )
                one.state = one.state.after(phase, self._now)
        return any_due

    def _wait(self) -> None:
        moments = [
            next_at(one.rule, one.state, self._begun) for one in self._asked if one.phase == RUNNING
        ]
        if self._now < self._until - _NOW:
            moments.append(self._until)
        moments += [self._late_at(one) for one in self._asked if one.phase == RUNNING]
        wake = min(moment for moment in moments if moment > self._now + _NOW)
        self._pass(wake - self._now)

    def _pass(self, seconds: float) -> None:
        share = self._clock.share()
        self._clock.passes(seconds)
        if share > 0:
            self._arms.measure(seconds, share)
        self._now += seconds

    def _answer(self, one: _Asked, *, final: bool) -> str:
        if one.gate.type == "judge":
            return self._judged(one, final=final)
        if one.gate.type == "proxy" and one.gate.options["metric"] in _COUNTED:
            return self._counted(one)
        return FAILED if one.fails else SUCCESSFUL

    def _judged(self, one: _Asked, *, final: bool) -> str:
        """Answer as ``_gates._judging.measure_judge`` does."""
        judge = self._scenario.judge
        if judge is None or not 0 < self._clock.share() < 1:
            # One revision has all the traffic: there is nothing to compare.
            return SUCCESSFUL
        first = one.begun is None
        if first:
            # What was counted before the step began says nothing.
            one.begun = {}
            return PENDING
        self._arms.look()
        verdict = self._arms.verdict(judge, final=final)
        if verdict in ("Fail", "Inconclusive"):
            return FAILED if verdict == "Fail" else INCONCLUSIVE
        if verdict == "Continue" or (self._seconds > 0 and not final):
            return PENDING
        return SUCCESSFUL

    def _counted(self, one: _Asked) -> str:
        """Answer as ``_gates._proxy.measure_proxy`` does, of what came since the step began."""
        if one.begun is None:
            one.begun = {arm: self._arms.counted(arm) for arm in ("canary", "baseline")}
            return NO_DATA
        options = one.gate.options
        old = {"baseline", "old", self._scenario.names[0]}
        arm = "baseline" if options.get("pool") in old else "canary"
        value = self._value(one, arm)
        if options.get("baseline"):
            other = self._value(one, "baseline")
            value = value / other if value is not None and other else None
        values = [] if value is None else [value]
        return judge_values(values, one.gate.success, one.gate.failure)

    def _value(self, one: _Asked, arm: str) -> float | None:
        bad, total = self._arms.counted(arm)
        before_bad, before = (one.begun or {})[arm]
        bad, total = bad - before_bad, total - before
        metric = one.gate.options["metric"]
        if metric == "p95":
            return self._arms.slowness(arm)
        if metric == "error_rate":
            return bad / total if total else None
        return float(bad if metric == "errors" else total)

    def _inconclusive(self) -> str | None:
        """Do what the rule says; returns who has stopped the deployment, None if it goes on."""
        rules = self._scenario.rules
        if rules.on_inconclusive == FAIL_RULE:
            return EVIDENCE
        if rules.on_inconclusive == ASK:
            return "" if self._asking.person() else APPROVAL
        if self._round > rules.extensions:
            return EVIDENCE
        if rules.on_inconclusive != EXTEND and not self._asking.person():
            # Whoever finds it paused may end it instead of resuming it.
            return APPROVAL
        self._round += 1
        more = self._seconds or max(one.rule.interval for one in self._asked)
        self._begun, self._until = self._now, self._now + more
        for one in self._asked:
            one.phase, one.state = RUNNING, State()
        return None
