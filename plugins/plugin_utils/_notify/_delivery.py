# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell a channel, in order, what the record has and nobody has told it yet.

What is told is claimed in the record first and its outcome written there afterwards. So several
processes may work for one channel, and one that was killed leaves its claim to the next after
``STALE_SECONDS``: a message can come twice then, it is never left out in silence.
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

from ...module_utils._functions import PLATFORM
from ...module_utils._notifications import (
    DEPLOYMENT_EVENTS,
    INSTANCE_EVENTS,
    Channel,
    Told,
    state_of,
    triggers_of,
)
from ._send import send

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._record import Deployment, Event, NotificationKey, Record

STALE_SECONDS = 120.0
PAUSE_SECONDS = 0.5
# How many messages are claimed at once: what a killed process may repeat.
BATCH = 10
# A receiver that is away is not worn out with all that has come up meanwhile.
_LONGEST_PAUSE = 5.0


def family(record: Record, deployment_id: str) -> list[Deployment]:
    """Return a deployment, its rollback, and that of the targets that joined afterwards."""
    root = record.deployment(deployment_id)
    found = [root]
    if root.rolled_back_by:
        found.append(record.deployment(root.rolled_back_by))
    if root.is_final:
        newest = record.deployments(root.application, root.group, limit=1)
        found += [one for one in newest if one.options.get("follows") == root.id]
    return found


def keys_of(deployment: Deployment, events: list[Event], channel: Channel) -> list[NotificationKey]:
    """Return what a channel is to be told of a deployment's events, in their order."""
    found = []
    for event in events:
        if event.kind != "record":
            continue
        triggers = triggers_of(
            event.event,
            event.status,
            rolls_back=deployment.rollback_of is not None,
            shifts=bool(deployment.plan.get("schedule"))
            and (deployment.plan.get("pools") or {}).get("platform") != PLATFORM,
        )
        wanted = [trigger for trigger in triggers if trigger in channel.events]
        if channel.kind == "eventbridge" and len({state_of(one) for one in wanted}) < len(wanted):
            # On a bus a rollback begins as any deployment does: one change of state, one event.
            wanted = [one for one in wanted if one != "DeploymentRollback"]
        found += [(event.sequence, trigger, channel.label) for trigger in wanted]
    return found


def undelivered(record: Record, deployment_id: str, channels: list[Channel]) -> int:
    """Return how many messages about a deployment and what followed it have no outcome yet."""
    left = 0
    for one in family(record, deployment_id):
        wanted = {
            key for channel in channels for key in keys_of(one, record.events(one.id), channel)
        }
        left += len(wanted - record.notified(one.id))
    return left


def notification_failures(record: Record, deployment_id: str) -> list[str]:
    """Return what could not be told about a deployment and what followed it."""
    return [
        event.message
        for one in family(record, deployment_id)
        for event in record.events(one.id)
        if event.event == "NotificationFailed"
    ]


def catch_up(record: Record, deployment_id: str, channel: Channel) -> None:
    """Tell what was left of the deployment before: it may have been abandoned, or ended by a stop.

    One of which nobody has been told anything is not told of now.
    """
    root = record.deployment(deployment_id)
    newest = record.deployments(root.application, root.group, limit=2)
    before = [one for one in newest if one.id != root.id and one.is_final]
    if before and record.notified(before[-1].id):
        deliver(record, before[-1].id, channel, lambda: False)


def deliver(
    record: Record, deployment_id: str, channel: Channel, go_on: Callable[[], bool]
) -> None:
    """Tell the channel everything about a deployment and what follows it.

    :param go_on: asked between two looks; False ends this when there is nothing left to tell
    """
    seen: dict[str, int] = {}
    claimant = secrets.token_hex(8)
    pause = PAUSE_SECONDS
    while True:
        last = not go_on()
        told = failed = 0
        for deployment in family(record, deployment_id):
            events = record.events(deployment.id, after=seen.get(deployment.id, 0))
            keys = keys_of(deployment, events, channel)
            others = 0
            for first in range(0, len(keys), BATCH):
                batch = keys[first : first + BATCH]
                good, bad, busy = _tell(record, deployment, channel, batch, events, claimant)
                told, failed, others = told + good, failed + bad, others + busy
            if events and not others:
                seen[deployment.id] = events[-1].sequence
        if last and not told + failed:
            return
        pause = min(_LONGEST_PAUSE, pause * 2) if failed and not told else PAUSE_SECONDS
        if not last:
            time.sleep(pause)


def _tell(
    record: Record,
    deployment: Deployment,
    channel: Channel,
    keys: list[NotificationKey],
    events: list[Event],
    claimant: str,
) -> tuple[int, int, int]:
    """Claim and send; return how many went, how many did not, and how many another sends."""
    by_sequence = {event.sequence: event for event in events}
    claimed, busy = record.claim_notifications(
        deployment.id, keys, claimant=claimant, stale_after=STALE_SECONDS
    )
    outcomes = []
    for key in claimed:
        told = told_of(record, deployment, key[1], by_sequence[key[0]])
        outcomes.append((key, send(channel, told)))
    if outcomes:
        record.settle_notifications(deployment.id, outcomes)
    good = sum(1 for _key, why in outcomes if not why)
    return good, len(outcomes) - good, len(busy)


# Where the event of the record has another status, or none.
_STATUS = {
    "DeploymentReady": "Ready",
    "DeploymentRollback": "Created",
    "InstanceStart": "InProgress",
    "InstanceReady": "Ready",
}


def told_of(record: Record, deployment: Deployment, trigger: str, event: Event) -> Told:
    """Return what is told for an event, with the deployment as it is now."""
    endpoints = deployment.options.get("endpoints") or []
    lifecycle: list[dict[str, object]] = []
    if trigger in INSTANCE_EVENTS:
        lifecycle = [
            {"event": one.event, "status": one.status, "started": one.started, "ended": one.ended}
            for one in record.events(deployment.id, event.target)
            if one.kind == "lifecycle" and one.sequence < event.sequence
        ]
    status = _STATUS.get(trigger) or event.status
    about = record.deployment(deployment.id).as_dict()
    about["digest"] = deployment.revision.digest
    if trigger in DEPLOYMENT_EVENTS and event.event not in ("Finished", "Abandoned"):
        # It may have ended since; the event tells how it was.
        about |= {"finished_at": None, "error_code": None, "error_message": ""}
    return Told(
        trigger=trigger,
        at=event.at,
        deployment=about,
        target=event.target,
        status=status or "Failed",
        message=event.message,
        lifecycle=lifecycle,
        instances={one["target"]: str(one.get("instance") or "") for one in endpoints},
    )
