# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait for the end of a deployment that somebody wants to stop, or end it."""

from __future__ import annotations

import time
import typing as t

from ._closing import has_moved
from ._planning import STOP_EVENT

if t.TYPE_CHECKING:
    from collections.abc import Callable

    from ._record import Deployment, Record

PAUSE_SECONDS = 0.5
MANUAL_STOP = "MANUAL_STOP"
NAMES = 3


def stop(
    record: Record,
    deployment_id: str,
    *,
    why: str = "",
    rollback: bool = False,
    wait: bool = True,
    defer: bool = False,
    tell: Callable[[str], None] = lambda _text: None,
) -> Deployment | None:
    """Let a deployment end as Stopped, and wait until it has ended and so has its rollback.

    A controller that lives ends it, and rolls it back in the same run. Where none lives it is ended
    here, unless it has to be rolled back or has failed on its own account: a playbook does that.

    :param defer: where no controller lives and a playbook has to end it, write nothing down yet:
        the playbook may be refused, and whoever resumes it asks for the stop (``deployment_stop``)
    :param tell: is told what is waited for
    :returns: the deployment that somebody has to resume for it to end, None if nobody has to
    :raises RecordError: it has ended already
    """
    if defer and wait:
        found = record.deployment(deployment_id)
        lease = record.lease(deployment_id)
        free = not found.is_final and lease is not None and lease.is_free
        if free and _needs_a_playbook(found, record, rollback=rollback):
            return found
    record.request_stop(deployment_id, why, rollback=rollback)
    if not wait:
        return None
    left = wait_for_end(record, deployment_id, tell)
    if left is None or left.id != deployment_id or _needs_a_playbook(left, record):
        return left
    record.take_over(left.id)
    record.finish(left.id)
    return None


def wait_for_end(
    record: Record, deployment_id: str, tell: Callable[[str], None]
) -> Deployment | None:
    """Wait until a deployment and the one that rolls it back have ended.

    :returns: None, or that of the two which has not ended and which no controller carries out
    """
    told = ""
    while True:
        found = record.deployment(deployment_id)
        if found.is_final:
            if found.rolled_back_by is None:
                return None
            tell(f"{found.id} ended as {found.status}; {found.rolled_back_by} rolls it back.")
            deployment_id = found.rolled_back_by
            continue
        lease = record.lease(deployment_id)
        # Between the two questions it may have ended.
        if lease is not None:
            if lease.is_free:
                return found
            text = waiting_text(record, found, lease.holder)
            if text != told:
                tell(text)
                told = text
        time.sleep(PAUSE_SECONDS)


def waiting_text(record: Record, deployment: Deployment, holder: str) -> str:
    """Say what the end of a deployment waits for."""
    flying = [one.name for one in record.targets(deployment.id) if one.status == "InProgress"]
    what = "its controller"
    if flying:
        names = ", ".join(flying[:NAMES]) + (", …" if len(flying) > NAMES else "")
        what = f"{len(flying)} in flight ({names})"
    return f"{deployment.id} waits for {what}; carried out by {holder}."


def _needs_a_playbook(deployment: Deployment, record: Record, *, rollback: bool = False) -> bool:
    """Tell whether more than the record is to be changed when a deployment that stops ends.

    :param rollback: whether a stop that is not written down yet asks for one
    """
    if has_moved(deployment, record.steps(deployment.id)):
        # Users have come to the new pool: they are brought back first.
        return True
    by_rule = STOP_EVENT in deployment.options.get("rollback_on", [])
    asked = rollback or deployment.rollback_on_stop or by_rule
    return asked or (deployment.error_code or MANUAL_STOP) != MANUAL_STOP
