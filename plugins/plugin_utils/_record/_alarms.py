# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who looks at the alarms of a deployment next, and what was seen: one look serves all."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ._session import Query, Session

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._change import Change

# Whoever has the turn looks and may die: after this time another one does it.
_TURN_SECONDS = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmPoll:
    """The newest look at alarms: the state of each by its name.

    ``failures`` counts looks in a row that got no answer.
    """

    deployment_id: str
    polled_at: float | None
    failures: int
    states: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Return the same as plain data, for JSON."""
        return asdict(self)


def wait_for(session: Session, deployment_id: str, now: float | None) -> float:
    """Return without a lock in how many seconds it is time to look; 0 if it is now."""
    row = _row(session, deployment_id)
    if row is None:
        return 0.0
    return max(0.0, float(row["next_at"]) - (time.time() if now is None else now))


def take_turn(change: Change, interval: float) -> float:
    """Take the turn if nobody has, and put off all others; returns as ``wait_for``."""
    deployment_id = change.deployment["id"]
    if change.is_final or change.deployment["halted_at"] is not None:
        return interval
    row = _row(change.session, deployment_id)
    # Until the look is noted, the others wait a little longer than it may take.
    next_at = change.now + max(interval, _TURN_SECONDS)
    if row is None:
        fresh = {
            "deployment_id": deployment_id, "next_at": next_at, "polled_at": None, "failures": 0,
            "states": "{}",
        }  # fmt: skip
        change.session.insert("alarm_polls", [fresh])
        return 0.0
    if row["next_at"] > change.now:
        return float(row["next_at"] - change.now)
    change.session.update("alarm_polls", {"next_at": next_at}, deployment_id=deployment_id)
    return 0.0


def note(change: Change, states: Mapping[str, str], error: str, interval: float) -> int:
    """Keep what was seen; a change of a state and the first failure are events."""
    deployment_id = change.deployment["id"]
    row = _row(change.session, deployment_id)
    if row is None:
        return 0
    before = json.loads(row["states"])
    values: dict[str, Any] = {"next_at": change.now + interval}
    if error:
        values["failures"] = row["failures"] + 1
        if not row["failures"]:
            change.note("AlarmsUnknown", status="Error", message=error)
    else:
        values |= {"failures": 0, "polled_at": change.now, "states": json.dumps(dict(states))}
        for name, state in states.items():
            if before.get(name) != state:
                change.note("AlarmState", status=state, message=name)
    change.session.update("alarm_polls", values, deployment_id=deployment_id)
    return int(values["failures"])


def newest(session: Session, deployment_id: str) -> AlarmPoll | None:
    """Return what was seen last."""
    row = _row(session, deployment_id)
    if row is None:
        return None
    return AlarmPoll(
        deployment_id=deployment_id,
        polled_at=row["polled_at"],
        failures=row["failures"],
        states=json.loads(row["states"]),
    )


def _row(session: Session, deployment_id: str) -> dict[str, Any] | None:
    query = Query(table="alarm_polls", equals={"deployment_id": deployment_id})
    return next(iter(session.rows(query)), None)
