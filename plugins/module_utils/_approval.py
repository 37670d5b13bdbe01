# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a stage may begin, or a person has to approve the one before it.

Pure functions; the record calls them inside a transaction, so that any number of controllers
agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

NONE = "none"
FIRST_STAGE = "first_stage"
EVERY_STAGE = "every_stage"
MODES = (NONE, FIRST_STAGE, EVERY_STAGE)

STOP = "stop"
CONTINUE = "continue"

WAITING = "Waiting"
APPROVED = "Approved"
REJECTED = "Rejected"
TIMED_OUT = "TimedOut"

# Error codes of a deployment that was not approved.
APPROVAL_REJECTED = "APPROVAL_REJECTED"
APPROVAL_TIMEOUT = "APPROVAL_TIMEOUT"

# What a stage does about the approval of one before it.
GO, ASK, WAIT, TIME_OUT = "go", "ask", "wait", "time_out"


@dataclass(frozen=True)
class Asked:
    """An approval that was asked for: its status and until when it may be given."""

    status: str
    until: float | None


def approval_rule(mode: str, timeout: float, on_timeout: str) -> dict[str, Any] | None:
    """Return the rule as a plan keeps it, None for a deployment that asks nobody.

    :param timeout: seconds
    :raises UsageError: nobody could answer in no time
    """
    if mode == NONE:
        return None
    if timeout <= 0:
        raise UsageError(
            f"deploy_approval_timeout is {timeout:g} s; wanted is a time that a person has to "
            'answer, such as "1h".'
        )
    return {"mode": mode, "timeout": float(timeout), "on_timeout": on_timeout}


def to_approve(mode: str, worked: Iterable[int]) -> int | None:
    """Return the stage that must be approved before a later one begins; None if none has to be.

    :param worked: those of the stages before in which a target was changed or has failed; there
        is nothing to approve in the others
    """
    stages = sorted(set(worked))
    if mode == NONE or not stages:
        return None
    return stages[0] if mode == FIRST_STAGE else stages[-1]


def judge(asked: Asked | None, on_timeout: str, now: float) -> str:
    """Return what to do: go on, ask for the approval, wait for it, or note that time is up."""
    if asked is None:
        return ASK
    if asked.status == APPROVED or (asked.status == TIMED_OUT and on_timeout == CONTINUE):
        return GO
    if asked.status == WAITING and asked.until is not None and now >= asked.until:
        return TIME_OUT
    return WAIT


def approval_text(rule: dict[str, Any], number: int, stages: int, time: str) -> str:
    """Return what the plan says about the end of stage ``number``, counted from 1; may be empty.

    :param time: how long the deployment waits, as people write it
    """
    if number >= stages or (rule["mode"] == FIRST_STAGE and number > 1):
        return ""
    then = "goes on" if rule["on_timeout"] == CONTINUE else "stops"
    return f"a person approves it within {time} (else the deployment {then})"
