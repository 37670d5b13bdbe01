# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lease of a group's active deployment: who holds it, until when, and who may take it over.

A lease lasts ``LEASE_SECONDS`` from its last heartbeat, by the clock of the database. Whoever takes
a deployment over raises its fence; what an earlier controller still wants to write is refused by
that (see ``_change.Change``), however late it comes.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ...module_utils._errors import LeaseHeldError, RecordError
from ._holder import Holder, is_gone, this_controller
from ._session import Query, Row, Session

if TYPE_CHECKING:
    from ._change import Change

LEASE_SECONDS = 30.0
BEAT_SECONDS = 5.0

# What is known of a holder.
ALIVE, DEAD, EXPIRED, NOBODY = "Alive", "Dead", "Expired", "Nobody"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Who carries a deployment out.

    ``state`` is Alive (the lease has not run out), Dead (the process has ended), Expired (there was
    no heartbeat for as long as the lease lasts) or Nobody (it was given back, or the record is
    from before there were leases). ``here``: the holder is a process of this machine that can be
    seen. ``own``: it is this process, or the one that it works for. All times are seconds since
    the epoch, ``now`` is that of the database.
    """

    deployment_id: str
    state: str
    holder: str
    host: str
    pid: int | None
    since: float
    heartbeat_at: float | None
    expires_at: float | None
    here: bool
    own: bool
    now: float

    @property
    def is_free(self) -> bool:
        """Whether this process may take the deployment."""
        return self.own or self.state != ALIVE

    def as_dict(self) -> dict[str, Any]:
        """Return the same as plain data, for JSON."""
        return asdict(self)

    def text(self) -> str:
        """Say in one sentence who carries the deployment out, and whether that lives."""
        if self.state == NOBODY:
            return "No controller carries it out."
        beat = ""
        if self.heartbeat_at is not None:
            beat = f", last heartbeat {max(0.0, self.now - self.heartbeat_at):.0f} s ago"
        who = f"{self.holder}, since {clock(self.since)}{beat}"
        if self.state == DEAD:
            return f"Its controller is dead ({who}): the process has ended."
        if self.state == EXPIRED:
            return f"Its controller is dead or cut off ({who}): the lease has run out."
        return f"Its controller is alive ({who})."


def lease_of(session: Session, deployment_id: str) -> Lease | None:
    """Return who holds a deployment; None if that has ended."""
    found = session.rows(Query(table="active", equals={"deployment_id": deployment_id}))
    return lease_from(found[0], session.now()) if found else None


def lease_from(row: Row, now: float) -> Lease:
    """Understand a row of the table ``active``."""
    pid, host, expires = row["holder_pid"], row["holder_host"] or "", row["expires_at"]
    own = here = False
    state = NOBODY
    if pid is not None and expires is not None:
        gone = is_gone(host, row["holder_boot"] or "", pid, row["holder_started"])
        here = gone is not None
        own = _is_own(row)
        state = DEAD if gone else ALIVE if expires > now else EXPIRED
    return Lease(
        deployment_id=row["deployment_id"], state=state, holder=row["holder"] or "", host=host,
        pid=pid, since=row["since"], heartbeat_at=row["heartbeat_at"], expires_at=expires,
        here=here, own=own, now=now,
    )  # fmt: skip


def _is_own(row: Row) -> bool:
    own = this_controller()
    return (row["holder_host"], row["holder_boot"], row["holder_pid"], row["holder_started"]) == (
        own.host,
        own.boot,
        own.pid,
        own.started,
    )


def held_by(holder: Holder, now: float) -> dict[str, Any]:
    """Return the columns of ``active`` for a holder that takes the deployment now."""
    return {
        "since": now, "holder": holder.shown, "holder_host": holder.host,
        "holder_boot": holder.boot, "holder_pid": holder.pid, "holder_started": holder.started,
        **_until(now),
    }  # fmt: skip


def take(change: Change) -> None:
    """Make this process's controller the holder.

    :raises LeaseHeldError: another one lives
    :raises RecordError: the deployment has ended
    """
    if change.is_final:
        raise RecordError(
            f"Deployment {change.deployment['id']} has ended as {change.deployment['status']}; "
            "there is nothing to resume."
        )
    before = refuse_others(change, "Only one controller may carry it out.")
    holder = this_controller()
    values = held_by(holder, change.session.now())
    change.session.update("active", values, deployment_id=change.deployment["id"])
    fence_off(change)
    change.set_deployment(paused_at=None, pause_reason=None, paused_step=None)
    change.note("TakenOver", message=f"{holder.shown} goes on with it. {before.text()}")


def refuse_others(change: Change, why: str) -> Lease:
    """Return the lease if nobody else holds the deployment.

    :raises LeaseHeldError: another controller lives; ``why`` is a sentence for the message
    """
    deployment_id = change.deployment["id"]
    lease = lease_of(change.session, deployment_id)
    if lease is None:
        raise RecordError(
            f"The record does not hold the group of {deployment_id} for it, although that has not "
            "ended: it was changed by something else than Bascule. Bring back a copy of it."
        )
    if not lease.is_free:
        raise held_error(lease, why)
    return lease


def fence_off(change: Change) -> None:
    """Refuse what earlier controllers and their workers still want to write."""
    change.set_deployment(fence=int(change.deployment["fence"]) + 1)


def give_back(change: Change) -> None:
    """Let anybody take the deployment at once."""
    values = {name: None for name in held_by(this_controller(), 0.0) if name != "since"}
    change.session.update("active", values, deployment_id=change.deployment["id"])
    change.audit("Released")


def is_due(lease: Lease) -> bool:
    """Tell whether it is time for a heartbeat."""
    return lease.heartbeat_at is None or lease.now - lease.heartbeat_at > 0.8 * BEAT_SECONDS


def beat(change: Change) -> None:
    """Let the lease last from now on."""
    values = _until(change.session.now())
    change.session.update("active", values, deployment_id=change.deployment["id"])


def held_error(lease: Lease, why: str) -> LeaseHeldError:
    """Return the refusal of somebody who is not the holder."""
    until = lease.expires_at or lease.now
    return LeaseHeldError(
        f"Deployment {lease.deployment_id} is held until {clock(until)}. {lease.text()} {why} "
        f"`bascule status {lease.deployment_id}` shows how far it is; `bascule stop "
        f"{lease.deployment_id}` stops it.",
        holder=lease.holder,
        host=lease.host,
        since=lease.since,
        until=until,
        certain=lease.here,
    )


def _until(now: float) -> dict[str, Any]:
    return {"heartbeat_at": now, "expires_at": now + LEASE_SECONDS}


def clock(moment: float) -> str:
    """Write a time for a person."""
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(moment))
