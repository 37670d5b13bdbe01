# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Watch CloudWatch alarms as long as something is done for a deployment.

Each action that works for a deployment with alarms watches them beside its work. The record says
whose turn it is, so one look in an interval serves all targets in flight, whatever their number.
"""

from __future__ import annotations

import typing as t

from ..module_utils._errors import UsageError
from ._gates._cloudwatch import alarm_states
from ._gates._model import SourceError
from ._watch import Watch

if t.TYPE_CHECKING:
    from collections.abc import Callable

    from ._record import Record

ALARM_ACTIVE = "ALARM_ACTIVE"
ALARM_POLL_FAILED = "ALARM_POLL_FAILED"
# So many looks in a row without an answer mean that nobody watches.
FAILED_LOOKS = 3


class AlarmWatch(Watch):
    """Watch as long as the block lasts; an active alarm halts the deployment."""

    def __init__(
        self, opened: Callable[[], Record], deployment_id: str, alarms: t.Mapping[str, t.Any]
    ) -> None:
        """Keep how to open the record; ``alarms`` is what ``alarms_of`` returns."""
        super().__init__(opened, deployment_id)
        self._names = [str(name) for name in alarms["names"]]
        self._ignore, self._interval = bool(alarms["ignore_poll_failure"]), alarms["interval"]

    def turn(self, record: Record) -> float:
        """Look if it is this one's turn; returns the seconds until it may be again."""
        wait = record.alarm_turn(self._deployment_id, self._interval)
        if wait > 0:
            return wait
        look(record, self._deployment_id, self._names, self._interval, ignore=self._ignore)
        return float(self._interval)


def look(
    record: Record, deployment_id: str, names: t.Sequence[str], interval: float, *, ignore: bool
) -> None:
    """Look at the alarms once, write down what was seen, and halt the deployment if need be.

    :param ignore: go on although the alarms cannot be looked at
    """
    states: dict[str, str] = {}
    error = ""
    try:
        states = alarm_states(names)
        error = missing_text(names, states)
    except SourceError as failure:
        error = str(failure)
    failures = record.note_alarms(deployment_id, states, interval, error=error)
    active = active_text(states)
    if active:
        record.halt(deployment_id, ALARM_ACTIVE, active)
    elif failures >= FAILED_LOOKS and not ignore:
        message = f"{failures} looks at the alarms in a row have failed: {error}"
        record.halt(deployment_id, ALARM_POLL_FAILED, message)


def refuse_active(alarms: t.Mapping[str, t.Any] | None) -> None:
    """Refuse to begin a deployment while one of its alarms is active, or cannot be looked at.

    :raises UsageError: naming the alarms
    """
    if alarms is None:
        return
    try:
        states = alarm_states(alarms["names"])
        error = missing_text(alarms["names"], states)
    except SourceError as failure:
        states, error = {}, str(failure)
    active = active_text(states)
    if active:
        raise UsageError(
            f"{ALARM_ACTIVE}: {active}; a deployment would be stopped at once. Nothing was changed."
        )
    if error and not alarms["ignore_poll_failure"]:
        raise UsageError(
            f"{error} Nothing was changed. deploy_alarms_ignore_poll_failure deploys all the same."
        )


def active_text(states: t.Mapping[str, str]) -> str:
    """Return which alarms are active, as a sentence without its end; empty if none is."""
    active = [name for name, state in states.items() if state == "ALARM"]
    if not active:
        return ""
    return (
        f"the alarm {active[0]} is active"
        if len(active) == 1
        else (f"the alarms {', '.join(active)} are active")
    )


def missing_text(names: t.Sequence[str], states: t.Mapping[str, str]) -> str:
    """Return which alarms there are not; empty if all are there."""
    missing = [name for name in names if name not in states]
    return f"CloudWatch has no alarm {', '.join(missing)}." if missing else ""
