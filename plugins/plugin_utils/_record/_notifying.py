# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who has been told what: a claim before each message, its outcome afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._session import Query, Session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._change import Change

# The event of the record, the trigger event that it stands for, and the label of the channel.
NotificationKey = tuple[int, str, str]

SENDING, SENT, FAILED = "Sending", "Sent", "Failed"
# The event of the record that tells of a message which could not be sent.
EVENT = "NotificationFailed"


def notified(session: Session, deployment_id: str) -> set[NotificationKey]:
    """Return the messages that have an outcome."""
    return {_key(row) for row in _rows(session, deployment_id) if row["status"] in (SENT, FAILED)}


def claim(
    change: Change, keys: Sequence[NotificationKey], claimant: str, stale_after: float
) -> tuple[list[NotificationKey], list[NotificationKey]]:
    """Take what nobody has told or is telling; return that, and what another is telling now."""
    deployment_id = str(change.deployment["id"])
    known = {_key(row): row for row in _rows(change.session, deployment_id)}
    mine: list[NotificationKey] = []
    busy: list[NotificationKey] = []
    for key in keys:
        row = known.get(key)
        if row is None:
            values = {"status": SENDING, "at": change.now, "claimant": claimant, "message": ""}
            change.session.insert("notifications", [{**_columns(deployment_id, key), **values}])
            mine.append(key)
        elif row["status"] == SENDING and row["claimant"] == claimant:
            mine.append(key)
        elif row["status"] == SENDING and change.now - row["at"] > stale_after:
            taken = {"at": change.now, "claimant": claimant}
            change.session.update("notifications", taken, **_columns(deployment_id, key))
            mine.append(key)
        elif row["status"] == SENDING:
            busy.append(key)
    return mine, busy


def settle(change: Change, outcomes: Sequence[tuple[NotificationKey, str]]) -> None:
    """Write down which messages went, and why others did not."""
    for key, why in outcomes:
        values = {"status": FAILED if why else SENT, "at": change.now, "message": why}
        columns = _columns(str(change.deployment["id"]), key)
        change.session.update("notifications", values, **columns)
        if why:
            message = f"{key[1]} was not told to {key[2]}: {why}"
            change.add({"kind": "record", "target": "", "event": EVENT, "status": FAILED,
                        "message": message})  # fmt: skip


def _columns(deployment_id: str, key: NotificationKey) -> dict[str, str | int]:
    sequence, trigger, channel = key
    return {
        "deployment_id": deployment_id, "sequence": sequence, "event": trigger, "channel": channel,
    }  # fmt: skip


def _key(row: dict[str, Any]) -> NotificationKey:
    return row["sequence"], row["event"], row["channel"]


def _rows(session: Session, deployment_id: str) -> list[dict[str, Any]]:
    return session.rows(Query(table="notifications", equals={"deployment_id": deployment_id}))
