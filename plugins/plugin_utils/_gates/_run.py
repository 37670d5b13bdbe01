# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask the gates of one step until they have decided and its bake time has passed."""

from __future__ import annotations

import dataclasses
import math
import queue
import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...module_utils import _approval
from ...module_utils._errors import BasculeError
from ...module_utils._gate_rules import (
    ERROR,
    FAIL,
    GATE_FAILED,
    INCONCLUSIVE,
    PASS,
    RUNNING,
    SUCCESSFUL,
    Rule,
    State,
    assess,
    next_at,
    verdict_of,
)
from ...module_utils._gate_spec import Gate, describe_gate
from ._model import Measurement, Moment, Pools, Traffic
from ._sources import measure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .._record import GateDecision, GateLook, GateRun, Record

PAUSE, EXTEND, ASK, FAIL_RULE = "pause", "extend", "ask", "fail"
ON_INCONCLUSIVE = (PAUSE, EXTEND, ASK, FAIL_RULE)
# How often the record is asked whether the deployment is to go on.
_LOOK_SECONDS = 0.5
# How often the claim is renewed.
_KEEP_SECONDS = 10.0
# The record is used by one thread.
_IN_THIS_THREAD = frozenset({"approval"})


@dataclass(frozen=True)
class Rules:
    """What follows when evidence was not enough: pause, extend, ask a person, or fail.

    ``extensions`` is how often a step is extended before it pauses; times are seconds.
    """

    on_inconclusive: str = PAUSE
    extensions: int = 3
    approval_timeout: float = 86400.0
    approval_on_timeout: str = _approval.STOP


@dataclass(frozen=True)
class StepOutcome:
    """How a step ended.

    ``verdict`` is Pass, Fail or Inconclusive; ``halted`` says that the deployment is ending,
    for whatever reason, ``paused`` that it waits for somebody who resumes it. Without ``decided``
    that came before the gates had answered.
    """

    verdict: str
    message: str
    halted: bool = False
    paused: bool = False
    round: int = 1
    gates: list[dict[str, Any]] = field(default_factory=list)
    decided: bool = True


class _Gate:
    """One gate while it is asked; ``asked``: an answer is under way."""

    def __init__(self, gate: Gate, rule: Rule) -> None:
        self.gate, self.rule = gate, rule
        self.state = State()
        self.phase = RUNNING
        self.seen = "not asked yet"
        self.earlier: list[Mapping[str, Any]] = []
        self.asked = False

    def as_dict(self) -> dict[str, Any]:
        state = self.state
        return {
            "name": self.gate.name, "type": self.gate.type, "phase": self.phase,
            "seen": self.seen, "dry_run": self.gate.dry_run, "successful": state.successful,
            "failed": state.failed, "inconclusive": state.inconclusive, "errors": state.errors,
        }  # fmt: skip


def run_step(
    record: Record,
    deployment: Mapping[str, Any],
    step: str,
    gates: Sequence[Gate],
    *,
    seconds: float = 0.0,
    rules: Rules | None = None,
    pools: Pools | None = None,
    traffic: Traffic | None = None,
    tell: Callable[[str], None] = lambda _text: None,
    pause_wanted: Callable[[], str | None] = lambda: None,
    clock: Callable[[], float] = time.time,
    may_end: bool = False,
) -> StepOutcome:
    """Bake for ``seconds``, ask all gates at their intervals, and write down what they say.

    One asks, whoever comes beside waits for the verdict. A failure halts the deployment. Gates
    without count and bake time are asked once.

    :param deployment: at least ``id``; what webhooks and commands are told of it
    :param step: the name of the step; a run that is resumed goes on with the step of this name
    :param pause_wanted: why the run is to pause, if it is
    :param may_end: whether a person may end the bake time before it has passed, and is told so
    :raises BasculeError: the record cannot be used, or another controller has the deployment
    """
    asking = _Step(
        record, deployment, step, gates, seconds, rules or Rules(), pools or Pools(), traffic,
        tell, pause_wanted, clock, may_end,
    )  # fmt: skip
    return asking.run()


class _Step:
    def __init__(
        self,
        record: Record,
        deployment: Mapping[str, Any],
        step: str,
        gates: Sequence[Gate],
        seconds: float,
        rules: Rules,
        pools: Pools,
        traffic: Traffic | None,
        tell: Callable[[str], None],
        pause_wanted: Callable[[], str | None],
        clock: Callable[[], float],
        may_end: bool,
    ) -> None:
        self._record, self._deployment, self._step = record, deployment, step
        self._id = str(deployment["id"])
        self._seconds, self._rules, self._pools = seconds, rules, pools
        self._traffic, self._tell, self._clock = traffic, tell, clock
        self._pause_wanted = pause_wanted
        self._holder = secrets.token_hex(8)
        self._gates = [_Gate(gate, self._rule(gate.rule)) for gate in gates]
        self._answers: queue.SimpleQueue[tuple[_Gate, float, Measurement | BasculeError]] = (
            queue.SimpleQueue()
        )
        self._kept = 0.0
        self._may_end = may_end
        # A person has ended the wait before its time.
        self._cut = False

    def _rule(self, rule: Rule) -> Rule:
        if self._seconds <= 0 and not rule.ends_by_itself:
            return dataclasses.replace(rule, count=1)
        return rule

    def run(self) -> StepOutcome:
        while True:
            run = self._record.claim_gates(self._id, self._step, self._seconds, self._holder)
            if run.verdict:
                return self._known(run)
            outcome = self._lead(run) if run.claimed else self._follow()
            if outcome is not None:
                return outcome

    def _known(self, run: GateRun) -> StepOutcome:
        """Return the verdict that another one, or an earlier run, has come to."""
        return StepOutcome(run.verdict, run.message, run.verdict == FAIL, False, run.round)

    def _follow(self) -> StepOutcome | None:
        """Wait while another one asks; None if its claim has run out."""
        self._tell(f"{self._step}: waits for its gates, which another worker asks")
        while True:
            stopped = self._stopped(self._look())
            if stopped is not None:
                return stopped
            found = self._record.gate_look(self._id, self._step).run
            if found is None or found.verdict:
                return None
            if found.claimed_until is None or found.claimed_until <= self._clock():
                return None
            time.sleep(_LOOK_SECONDS)

    def _lead(self, run: GateRun) -> StepOutcome | None:
        """Ask; None if the claim was lost."""
        self._take_up(run)
        self._announce(run)
        while True:
            look = self._look()
            stopped = self._stopped(look)
            if stopped is not None:
                return stopped
            if look.run is not None and look.run.until < run.until:
                run = dataclasses.replace(run, until=look.run.until)
                self._cut = True
            if not self._keep(run):
                return None
            now = self._clock()
            over = now >= run.until
            self._collect(run)
            for one in self._gates:
                one.phase = self._phase(one, run, now, over)
            verdict = verdict_of(one.phase for one in self._gates if not one.gate.dry_run)
            if verdict == PASS and (over or self._seconds <= 0) and not self._first_due():
                return self._end(PASS, self._summary(), run)
            if verdict == FAIL:
                return self._fail(run)
            if self._seconds > 0 and any(
                one.gate.ends_bake and one.phase == SUCCESSFUL for one in self._gates
            ):
                return self._end(PASS, self._summary(), run)
            if verdict == INCONCLUSIVE:
                found = self._inconclusive(run)
                if isinstance(found, StepOutcome):
                    return found
                run = found
                continue
            self._ask_due(run, now, over)
            self._wait(run, now)

    def _first_due(self) -> bool:
        """Whether the first answer of a dry run is under way; it decides nothing, but is told."""
        return any(one.gate.dry_run and one.asked and not one.earlier for one in self._gates)

    def _take_up(self, run: GateRun) -> None:
        """Go on from what was measured before; limits count anew in each round."""
        for one in self._gates:
            one.state, one.phase, one.earlier = State(), RUNNING, []
        by_name = {one.gate.name: one for one in self._gates}
        for decision in self._record.gate_decisions(self._id, self._step):
            known = by_name.get(decision.gate)
            if known is None or "phase" not in decision.data:
                continue
            known.earlier.append(decision.data)
            if decision.round == run.round:
                _count(known, decision)

    def _phase(self, one: _Gate, run: GateRun, now: float, over: bool) -> str:
        if one.phase != RUNNING:
            return one.phase
        # A gate that has no value yet is asked once more when its time is up.
        last = one.state.last_at or 0.0
        over = over and (one.state.measured > 0 or last >= run.until)
        late = min(now, last) >= self._late_at(one, run)
        return assess(one.rule, one.state, over=over, late=late)

    def _late_at(self, one: _Gate, run: GateRun) -> float:
        """Return when a gate that decides by itself is given up."""
        deadline = one.rule.deadline
        return math.inf if deadline is None else max(run.started_at + deadline, run.until)

    def _ask_due(self, run: GateRun, now: float, over: bool) -> None:
        for one in self._gates:
            if one.phase != RUNNING or one.asked:
                continue
            due = next_at(one.rule, one.state, run.started_at)
            late_at, last = self._late_at(one, run), one.state.last_at or 0.0
            # What is not told when the bake time ends is asked for once more then.
            bakes = run.until > run.started_at
            closing = (bakes and over and last < run.until) or last < late_at <= now
            if now < due and not closing:
                continue
            moment = Moment(
                record=self._record, deployment=self._deployment, step=self._step,
                round=run.round, started=run.started_at, until=run.until, now=now, over=over,
                late=now >= late_at, pools=self._pools, traffic=self._traffic,
                earlier=tuple(one.earlier),
            )  # fmt: skip
            one.asked = True
            if one.gate.type in _IN_THIS_THREAD:
                self._answer(one, moment)
            else:
                threading.Thread(target=self._answer, args=(one, moment), daemon=True).start()

    def _answer(self, one: _Gate, moment: Moment) -> None:
        answer: Measurement | BasculeError
        try:
            answer = measure(one.gate, moment)
        except BasculeError as error:
            answer = error
        except Exception as error:
            answer = BasculeError(f"{type(error).__name__}: {error}")
        self._answers.put((one, moment.now, answer))

    def _collect(self, run: GateRun) -> None:
        """Take the answers that have come, and write them down."""
        while True:
            try:
                one, at, answer = self._answers.get_nowait()
            except queue.Empty:
                return
            if isinstance(answer, BasculeError):
                answer = Measurement(ERROR, str(answer))
            one.asked = False
            before = one.state.last_phase
            one.state = one.state.after(answer.phase, at)
            one.seen = answer.seen
            data = {"phase": answer.phase, "number": sum_of(one.state), **answer.data}
            one.earlier.append(data)
            changed = answer.phase != before
            dry = " (dry run)" if one.gate.dry_run else ""
            self._record.decide_gate(
                self._id, self._step, run.round, one.gate.name, answer.phase, data,
                f"{answer.seen}{dry}", told=changed, now=at,
            )  # fmt: skip
            if changed and (before or answer.phase in ("Failed", "Error", "Inconclusive")):
                self._tell(
                    f"{self._step}: gate {one.gate.name}{dry}: {answer.phase}: {answer.seen}"
                )

    def _wait(self, run: GateRun, now: float) -> None:
        """Sleep until something is due, at most as long as the record may go unasked."""
        wake = now + _LOOK_SECONDS
        if now < run.until:
            wake = min(wake, run.until)
        for one in self._gates:
            if one.phase == RUNNING and not one.asked:
                wake = min(wake, next_at(one.rule, one.state, run.started_at))
        pause = max(0.02, wake - now)
        if any(one.asked for one in self._gates):
            pause = min(pause, 0.05)
        time.sleep(pause)

    def _look(self) -> GateLook:
        wanted = self._pause_wanted()
        if wanted is not None:
            # By its step it is told apart from one that has no target left, and so has ended.
            self._record.pause(self._id, wanted, step=self._step)
        return self._record.gate_look(self._id, self._step)

    def _stopped(self, look: GateLook) -> StepOutcome | None:
        """Return how the step ends if the deployment is not to go on."""
        if look.ended is not None:
            text = f"not decided, the deployment has ended as {look.ended}"
            return StepOutcome(FAIL, text, halted=True, decided=False, gates=self._told())
        if look.halted is not None:
            text = f"not decided, the deployment is ending ({look.halted})"
            return StepOutcome(FAIL, text, halted=True, decided=False, gates=self._told())
        if look.paused is not None:
            text = f"not decided, the deployment is paused ({look.paused})"
            return StepOutcome(INCONCLUSIVE, text, paused=True, decided=False, gates=self._told())
        return None

    def _keep(self, run: GateRun) -> bool:
        now = self._clock()
        if now - self._kept < _KEEP_SECONDS:
            return True
        self._kept = now
        return self._record.keep_gates(self._id, self._step, self._holder, self._waits_for(run))

    def _waits_for(self, run: GateRun) -> str:
        waiting = [describe_gate(one.gate) for one in self._gates if one.phase == RUNNING]
        end = f" (`bascule continue {self._id}` ends that)" if self._may_end else ""
        parts = [f"bakes until {_time(run.until)}{end}"] if self._clock() < run.until else []
        parts += [f"asks {'; '.join(waiting)}"] if waiting else []
        return ", ".join(parts) or "its verdict"

    def _announce(self, run: GateRun) -> None:
        self._kept = 0.0
        asks = any(one.gate.type == "approval" for one in self._gates if one.phase == RUNNING)
        ways = f": `bascule approve {self._id}` or `bascule reject {self._id}`" if asks else ""
        self._tell(f"{self._step}: {self._waits_for(run)}{ways}")

    def _inconclusive(self, run: GateRun) -> StepOutcome | GateRun:
        """Do what the rule says when the evidence is not enough."""
        rule = self._rules.on_inconclusive
        open_ones = [
            f"{one.gate.name}: {one.seen}" for one in self._gates if one.phase == INCONCLUSIVE
        ]
        why = f"not enough evidence ({'; '.join(open_ones)})"
        if rule == FAIL_RULE:
            return self._fail(run, why)
        if rule == EXTEND and run.round <= self._rules.extensions:
            seconds = self._seconds or max(one.rule.interval for one in self._gates)
            self._tell(f"{self._step}: {why}; {seconds:g} s more until it is asked again")
            extended = self._record.extend_gates(self._id, self._step, seconds, why)
            for one in self._gates:
                one.phase, one.state = RUNNING, State()
            return extended
        if rule == ASK:
            return self._ask_person(run, why)
        # In this order whoever waits for the verdict sees the pause first, and begins no round.
        self._record.pause(self._id, f"{self._step}: {why}", step=self._step)
        self._record.end_gates(self._id, self._step, INCONCLUSIVE, why)
        return StepOutcome(INCONCLUSIVE, why, paused=True, round=run.round, gates=self._told())

    def _ask_person(self, run: GateRun, why: str) -> StepOutcome:
        rules = self._rules
        asked = self._record.ask_person(self._id, self._step, rules.approval_timeout)
        then = "goes on" if rules.approval_on_timeout == _approval.CONTINUE else "stops"
        self._tell(
            f"{self._step}: {why}. A person decides until {_time(asked.until or 0.0)}, when it "
            f"{then} by itself: `bascule approve {self._id}` or `bascule reject {self._id}`"
        )
        while True:
            stopped = self._stopped(self._look())
            if stopped is not None:
                return stopped
            self._keep(run)
            asked = self._record.ask_person(self._id, self._step, rules.approval_timeout)
            if asked.status == _approval.APPROVED:
                by = f"{asked.decided_by}@{asked.decided_from}"
                return self._end(PASS, f"{why}, approved by {by}", run)
            if asked.until is not None and self._clock() >= asked.until:
                self._record.time_out_approval(self._id, rules.approval_on_timeout)
                if rules.approval_on_timeout == _approval.CONTINUE:
                    return self._end(PASS, f"{why}, and nobody answered in time", run)
            time.sleep(3 * _LOOK_SECONDS)

    def _fail(self, run: GateRun, why: str = "") -> StepOutcome:
        bad = [
            f"{describe_gate(one.gate)}: {one.phase}, {one.seen} "
            f"({one.state.failed} of {one.state.measured} measurements failed, "
            f"{one.state.errors} errors)"
            for one in self._gates
            if one.phase in ("Failed", "Error") and not one.gate.dry_run
        ]
        message = f"{self._step}: " + (why or "; ".join(bad))
        # In this order a verdict without its consequence can never be left behind.
        self._record.halt(self._id, GATE_FAILED, message)
        outcome = self._end(FAIL, why or "; ".join(bad), run)
        return dataclasses.replace(outcome, halted=True)

    def _end(self, verdict: str, message: str, run: GateRun) -> StepOutcome:
        self._record.decide_gate(
            self._id, self._step, run.round, "", verdict, {"gates": self._told()}, message
        )
        self._record.end_gates(self._id, self._step, verdict, message)
        return StepOutcome(verdict, message, round=run.round, gates=self._told())

    def _summary(self) -> str:
        told = [f"{one.gate.name}: {one.phase}, {one.seen}" for one in self._gates]
        passed = "the wait was ended" if self._cut else "the bake time has passed"
        return "; ".join(told) if told else passed

    def _told(self) -> list[dict[str, Any]]:
        return [one.as_dict() for one in self._gates]


def _count(one: _Gate, decision: GateDecision) -> None:
    one.state = one.state.after(str(decision.data["phase"]), decision.at)
    one.seen = decision.message


def sum_of(state: State) -> int:
    """Return how often a gate was asked."""
    return state.measured + state.errors + state.no_data + state.pending


def _time(moment: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(moment))
