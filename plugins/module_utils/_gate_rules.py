# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the answers of a gate mean: conditions on values, limits on answers, the verdict of all.

Pure. The rules are those of an analysis run of Argo Rollouts: a measurement is Successful, Failed,
Inconclusive or an Error, limits turn measurements into the phase of a gate, and the worst phase of
the gates that are no dry run is that of the step. Two phases of a measurement are our own. NoData:
the source answers, but has no value yet. Pending: the gate decides by itself and has not decided.
Neither counts for any limit but that of gates that never get a value.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SUCCESSFUL, FAILED, INCONCLUSIVE, ERROR = "Successful", "Failed", "Inconclusive", "Error"
NO_DATA, PENDING = "NoData", "Pending"
RUNNING = "Running"

# Error code of a deployment that a gate has ended.
GATE_FAILED = "GATE_FAILED"

# The verdict of a step.
PASS, FAIL = "Pass", "Fail"

_NUMBER = r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
_COMPARISON = re.compile(rf"(<=|>=|==|!=|<|>)?\s*({_NUMBER})\s*(%?)\Z")
_RANGE = re.compile(rf"({_NUMBER}) ?(%?)\s*(?:\.\.|\bto\b)\s*({_NUMBER}) ?(%?)\Z")


@dataclass(frozen=True)
class Condition:
    """A condition on a number: alternatives of comparisons that must all hold."""

    text: str
    alternatives: tuple[tuple[tuple[str, float], ...], ...]

    def holds(self, value: float) -> bool:
        """Tell whether the condition holds for a value; never for NaN."""
        if math.isnan(value):
            return False
        return any(
            all(_compare(value, operator, limit) for operator, limit in comparisons)
            for comparisons in self.alternatives
        )


def parse_condition(value: Any, name: str) -> Condition:
    """Read ``"< 0.01"``, ``">= 5"``, ``"0.1..0.5"``, ``">= 1 and < 5"``, ``"< 1 or > 9"``, ``3``.

    A percent sign divides by 100; a number alone means that it is equal; both ends of a range
    belong to it.

    :raises UsageError: naming the setting ``name``
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise UsageError(_unreadable(name, value))
    text = str(value).strip()
    alternatives = []
    for alternative in re.split(r"\s+or\s+", text):
        comparisons: list[tuple[str, float]] = []
        for part in re.split(r"\s+and\s+", alternative):
            comparisons += _comparisons(part.strip(), name, value)
        alternatives.append(tuple(comparisons))
    return Condition(text, tuple(alternatives))


def _comparisons(part: str, name: str, given: Any) -> list[tuple[str, float]]:
    found = _COMPARISON.match(part)
    if found:
        number = float(found.group(2))
        return [(found.group(1) or "==", number / 100 if found.group(3) else number)]
    ends = _RANGE.match(part)
    if ends is None:
        raise UsageError(_unreadable(name, given))
    low = float(ends.group(1)) / (100 if ends.group(2) else 1)
    high = float(ends.group(3)) / (100 if ends.group(4) else 1)
    if low > high:
        raise UsageError(f"{name} is {given!r}: the range begins above its end.")
    return [(">=", low), ("<=", high)]


def _unreadable(name: str, value: Any) -> str:
    return (
        f'{name} is {value!r}; wanted is a condition such as "< 0.01", ">= 5", "0.1..0.5", '
        '"< 1%" or ">= 1 and < 5".'
    )


def _compare(value: float, operator: str, limit: float) -> bool:
    return {
        "<": value < limit, "<=": value <= limit, ">": value > limit, ">=": value >= limit,
        "==": value == limit, "!=": value != limit,
    }[operator]  # fmt: skip


def judge_values(
    values: Sequence[float], success: Condition | None, failure: Condition | None
) -> str:
    """Return the phase of a measurement of one or more values (series of a query).

    Success needs all of them, one is enough for a failure. With only one of the conditions the
    other phase is its contrary; with both, what neither holds for is Inconclusive.
    """
    if not values:
        return NO_DATA
    failed = failure is not None and any(failure.holds(value) for value in values)
    good = success is not None and all(success.holds(value) for value in values)
    if failed:
        return FAILED
    if any(math.isnan(value) for value in values):
        return INCONCLUSIVE
    if good or success is None:
        return SUCCESSFUL
    return INCONCLUSIVE if failure is not None else FAILED


@dataclass(frozen=True)
class Rule:
    """How often a gate is asked, and how many answers of a kind decide it; times in seconds.

    ``count`` is the number of measurements after which it has decided, None for as long as the
    bake time lasts. A limit of -1 is off, and so is 0 for ``consecutive_success_limit``.
    ``deadline`` is when a gate that decides by itself is given up, None for never.
    """

    interval: float = 10.0
    initial_delay: float = 0.0
    error_retry: float = 10.0
    count: int | None = None
    failure_limit: int = 0
    inconclusive_limit: int = 0
    consecutive_error_limit: int = 4
    consecutive_success_limit: int = 0
    deadline: float | None = None

    @property
    def ends_by_itself(self) -> bool:
        """Whether its measurements decide it, and not the end of the bake time."""
        return self.count is not None or self.consecutive_success_limit > 0


@dataclass(frozen=True)
class State:
    """What a gate has answered so far; ``last_at`` is when it was asked last (epoch seconds)."""

    successful: int = 0
    failed: int = 0
    inconclusive: int = 0
    errors: int = 0
    no_data: int = 0
    pending: int = 0
    consecutive_success: int = 0
    consecutive_errors: int = 0
    consecutive_no_data: int = 0
    last_phase: str = ""
    last_at: float | None = None

    @property
    def measured(self) -> int:
        """The measurements that count: errors and missing values do not."""
        return self.successful + self.failed + self.inconclusive

    def after(self, phase: str, at: float) -> State:
        """Return the state after one more measurement."""
        field = {
            SUCCESSFUL: "successful", FAILED: "failed", INCONCLUSIVE: "inconclusive",
            ERROR: "errors", NO_DATA: "no_data", PENDING: "pending",
        }[phase]  # fmt: skip
        changes: dict[str, Any] = {field: getattr(self, field) + 1}
        return dataclasses.replace(
            self,
            consecutive_success=self.consecutive_success + 1 if phase == SUCCESSFUL else 0,
            consecutive_errors=self.consecutive_errors + 1 if phase == ERROR else 0,
            consecutive_no_data=self.consecutive_no_data + 1 if phase == NO_DATA else 0,
            last_phase=phase,
            last_at=at,
            **changes,
        )


def next_at(rule: Rule, state: State, started: float) -> float:
    """Return when a gate is to be asked next."""
    if state.last_at is None:
        return started + rule.initial_delay
    return state.last_at + (rule.error_retry if state.last_phase == ERROR else rule.interval)


def assess(rule: Rule, state: State, *, over: bool, late: bool = False) -> str:
    """Return the phase of a gate: Running, Successful, Failed, Inconclusive or Error.

    :param over: the bake time has passed
    :param late: its own deadline has passed
    """
    phase = RUNNING
    if 0 <= rule.failure_limit < state.failed:
        phase = FAILED
    if 0 <= rule.inconclusive_limit < state.inconclusive:
        phase = INCONCLUSIVE
    if 0 <= rule.consecutive_error_limit < state.consecutive_errors:
        phase = ERROR
    if 0 < rule.consecutive_success_limit <= state.consecutive_success:
        phase = SUCCESSFUL
    if phase == RUNNING and rule.count is not None and state.measured >= rule.count:
        phase = _counted(rule)
    if phase == RUNNING and over:
        phase = _over(rule, state)
    if phase == RUNNING and late:
        phase = INCONCLUSIVE
    return phase


def _counted(rule: Rule) -> str:
    """Return the phase of a gate whose count is reached without that a limit was."""
    if rule.consecutive_success_limit <= 0:
        return SUCCESSFUL
    return INCONCLUSIVE if rule.failure_limit >= 0 else FAILED


def _over(rule: Rule, state: State) -> str:
    starved = 0 <= rule.consecutive_error_limit < state.consecutive_no_data
    if rule.ends_by_itself:
        return INCONCLUSIVE if starved else RUNNING
    if state.consecutive_errors:
        # Whether it holds is not known now; it is asked until that is known or it fails.
        return RUNNING
    if state.measured:
        return SUCCESSFUL
    return INCONCLUSIVE if state.no_data else RUNNING


def verdict_of(phases: Iterable[str]) -> str:
    """Return the verdict of a step from the phases of its gates without dry runs.

    Fail as soon as one has failed, Inconclusive as soon as one is; Running while one is; else Pass.
    """
    known = set(phases)
    if known & {FAILED, ERROR}:
        return FAIL
    if INCONCLUSIVE in known:
        return INCONCLUSIVE
    return RUNNING if RUNNING in known else PASS
