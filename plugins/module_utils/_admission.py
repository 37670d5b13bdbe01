# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may start next: CodeDeploy's minimum-healthy-hosts rule, and our own rule for the way back.

Pure functions over counts; the record calls them inside a transaction.

Forward, the rule is a closed form that reproduces the examples of the AWS user guide (page
"Instance health")::

    slots = total - failed - in_flight - minimum

and a deployment that has targets left, no slot and nobody in flight has failed.

Targets that no user reaches (an idle pool) may be changed all at once: only failures count, and a
deployment has failed when fewer than ``minimum`` can be had.

A rollback meets a fleet that is damaged already, so it counts what is in service instead of what
has failed. A target that is out of service is brought back at once: that takes nothing away. A
target in service waits for those (they give slots back) and then goes by the floor; where the
floor is broken anyway, one at a time, as long as none that came from service was lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._approval import APPROVAL_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Sequence

FORWARD = "forward"
ROLLBACK = "rollback"
IDLE = "idle"

ADMIT = "admit"
WAIT = "wait"
HALT = "halt"

HEALTH_CONSTRAINTS = "HEALTH_CONSTRAINTS"
HEALTH_CONSTRAINTS_INVALID = "HEALTH_CONSTRAINTS_INVALID"

# An alarm is active, or whether one is cannot be told.
ALARM_CODES = frozenset({"ALARM_ACTIVE", "ALARM_POLL_FAILED"})
# A deployment that was stopped on purpose ends as Stopped, not as Failed.
STOPPING_CODES = frozenset({*ALARM_CODES, "MANUAL_STOP", APPROVAL_TIMEOUT})


@dataclass(frozen=True)
class Counts:
    """How many targets are in which state; all but ``total`` count targets of the deployment.

    ``total`` is the size of the whole group: a rollback may touch fewer. ``current`` is the part
    of ``succeeded`` that had nothing to do. The last four matter to a rollback only: ``out`` are
    not in service now (in flight and failed ones included), ``free_pending`` wait out of service
    for their turn, ``service_failed`` were in service when admitted and have failed since.
    """

    total: int
    pending: int = 0
    in_flight: int = 0
    succeeded: int = 0
    failed: int = 0
    current: int = 0
    out: int = 0
    free_pending: int = 0
    service_failed: int = 0


@dataclass(frozen=True)
class Zone:
    """A zone with a minimum of its own: its ``counts`` are those of its targets alone."""

    name: str
    counts: Counts
    minimum: int

    @property
    def slots(self) -> int:
        """How many more of its targets could be taken."""
        counts = self.counts
        return counts.total - counts.failed - counts.in_flight - self.minimum

    def numbers(self) -> str:
        """Say what the slots follow from."""
        return f"zone {self.name}: {_numbers(self.counts, self.minimum)}"


@dataclass(frozen=True)
class Decision:
    """``verdict`` is admit, wait or halt; a halt carries CodeDeploy's error code."""

    verdict: str
    slots: int
    reason: str
    error_code: str | None = None


@dataclass(frozen=True)
class Outcome:
    """``status`` is Succeeded, Failed or Stopped; a failure carries a code and a message."""

    status: str
    error_code: str | None = None
    message: str = ""


def decide(
    counts: Counts,
    minimum: int,
    mode: str = FORWARD,
    in_service: bool = True,
    zone: Zone | None = None,
) -> Decision:
    """Decide about one pending target; ``in_service`` is whether users reach it now.

    ``zone`` is the target's, if zones have a minimum; a way back goes by that of the fleet alone.
    """
    if mode == ROLLBACK:
        return _decide_rollback(counts, minimum, in_service)
    if mode == IDLE:
        return _decide_idle(counts, minimum)
    return _decide_forward(counts, minimum, zone)


def _numbers(counts: Counts, minimum: int) -> str:
    return (
        f"{counts.total} targets, {counts.failed} failed, {counts.in_flight} in flight, "
        f"{minimum} must stay healthy"
    )


def _decide_forward(counts: Counts, minimum: int, zone: Zone | None) -> Decision:
    slots = counts.total - counts.failed - counts.in_flight - minimum
    numbers = _numbers(counts, minimum)
    if zone is not None and zone.slots < slots:
        slots, numbers = zone.slots, zone.numbers()
    if slots > 0:
        return Decision(ADMIT, slots, numbers)
    if counts.in_flight:
        return Decision(WAIT, slots, "no free slot: " + numbers)
    if counts.failed or counts.succeeded > counts.current:
        return Decision(
            HALT,
            slots,
            "no further target can be taken without breaking the minimum: " + numbers,
            HEALTH_CONSTRAINTS,
        )
    return Decision(
        HALT,
        slots,
        "the minimum leaves no target to start with: " + numbers,
        HEALTH_CONSTRAINTS_INVALID,
    )


def _decide_idle(counts: Counts, minimum: int) -> Decision:
    slots = counts.total - counts.failed - minimum
    numbers = f"{counts.total} targets, {counts.failed} failed, {minimum} must succeed"
    if slots >= 0:
        return Decision(ADMIT, slots, "no user reaches it: " + numbers)
    return Decision(HALT, slots, "too few targets are left: " + numbers, HEALTH_CONSTRAINTS)


def _decide_rollback(counts: Counts, minimum: int, in_service: bool) -> Decision:
    slots = counts.total - counts.out - minimum
    numbers = f"{counts.total} targets, {counts.out} out of service, {minimum} must stay healthy"
    if not in_service:
        return Decision(ADMIT, slots, "out of service already, so nothing is taken away")
    if slots > 0:
        return Decision(ADMIT, slots, numbers)
    if counts.in_flight:
        return Decision(WAIT, slots, "no free slot: " + numbers)
    if counts.free_pending:
        return Decision(WAIT, slots, "targets that are out of service go first: " + numbers)
    if counts.service_failed:
        return Decision(
            HALT,
            slots,
            "the rollback has taken targets out of service and not brought them back: " + numbers,
            HEALTH_CONSTRAINTS,
        )
    return Decision(ADMIT, slots, "the floor is broken already, one at a time: " + numbers)


def conclude(
    counts: Counts, minimum: int, halted_code: str | None = None, zones: Sequence[Zone] = ()
) -> Outcome:
    """Conclude the final status of a deployment; ``zones`` are those with a minimum of their own.

    Succeeded needs that all targets were decided, that the minimum still holds and that at least
    one target succeeded (also with a minimum of 0). Targets still in flight count as failed: the
    deployment ends without knowing them. A deployment that had nothing to do has succeeded.
    """
    lost = counts.failed + counts.in_flight
    numbers = (
        f"{counts.succeeded} succeeded, {lost} failed, {counts.pending} were not started; "
        f"{minimum} of {counts.total} must stay healthy"
    )
    if halted_code in STOPPING_CODES:
        return Outcome("Stopped", halted_code, numbers)
    if halted_code:
        return Outcome("Failed", halted_code, numbers)
    if not lost and not counts.pending:
        return Outcome("Succeeded")
    if counts.total - lost < minimum:
        return Outcome("Failed", HEALTH_CONSTRAINTS, "Too few targets are healthy: " + numbers)
    for zone in zones:
        if zone.counts.total - zone.counts.failed - zone.counts.in_flight < zone.minimum:
            told = f"Too few targets are healthy in {zone.numbers()}"
            return Outcome("Failed", HEALTH_CONSTRAINTS, told)
    if not counts.succeeded:
        return Outcome("Failed", HEALTH_CONSTRAINTS, "No target succeeded: " + numbers)
    if counts.pending and counts.total - lost == minimum:
        return Outcome("Failed", HEALTH_CONSTRAINTS, "No target may be taken any more: " + numbers)
    if counts.pending:
        return Outcome("Failed", "INTERNAL_ERROR", "Ended before all were decided: " + numbers)
    return Outcome("Succeeded")
