# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What people ask of a running deployment: stop, pause, approve, reject."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ...module_utils import _approval
from ...module_utils._errors import RecordError
from ._holder import host, user
from ._lease import clock
from ._rows import Approval, approval_from
from ._session import Query, Session

if TYPE_CHECKING:
    from ._change import Change

MANUAL_STOP = "MANUAL_STOP"


def halt(change: Change, error_code: str, message: str) -> None:
    """Admit nobody any more; the first halt is the one that is told."""
    if change.is_final or change.deployment["halted_at"] is not None:
        return
    change.set_deployment(error_code=error_code, error_message=message, halted_at=change.now)
    change.note("Halted", error_code=error_code, message=message)


def request_stop(change: Change, why: str, *, rollback: bool) -> None:
    """Admit nobody any more, and write down who wants it and whether to roll back.

    :raises RecordError: the deployment has ended
    """
    deployment = change.deployment
    _refuse_ended(change, "stop")
    who = f"{user()}@{host()}"
    if rollback:
        change.set_deployment(rollback_on_stop=True)
    if deployment["halted_at"] is None:
        change.set_deployment(stop_requested_by=who)
        halt(change, MANUAL_STOP, f"stopped by {who}" + (f": {why}" if why else ""))
    elif rollback or why:
        also = ", and to roll back" if rollback else ""
        change.note("StopRequested", message=f"{who} wants it to stop{also}. {why}".strip())


def pause(change: Change, why: str, step: str | None = None) -> None:
    """Admit nobody until somebody resumes the deployment; it does not end.

    ``step`` is that whose gates have paused it: then it also waits if all targets are decided.
    """
    deployment = change.deployment
    if change.is_final or deployment["paused_at"] is not None:
        return
    change.set_deployment(paused_at=change.now, pause_reason=why, paused_step=step)
    change.note("Paused", message=why)


def ask(change: Change, stage: int, rule: dict[str, Any]) -> None:
    """Ask for the approval of a stage (counted from 0)."""
    until = change.now + rule["timeout"]
    number = 1 + len(_rows(change.session, change.deployment["id"]))
    change.session.insert(
        "approvals",
        [
            {
                "deployment_id": change.deployment["id"], "number": number, "stage": stage,
                "asked_at": change.now, "until": until, "status": _approval.WAITING,
                "decided_at": None, "decided_by": None, "decided_from": None, "why": "",
                "step": None,
            }
        ],
    )  # fmt: skip
    change.note("ApprovalAsked", status=_approval.WAITING, message=f"Stage {stage + 1} is done.")


def time_out(change: Change, rule: dict[str, Any]) -> None:
    """Note that nobody has answered in time; the rule says whether that stops the deployment."""
    waiting = _waiting(change)
    if waiting is None:
        return
    _decide(change, waiting, _approval.TIMED_OUT, who=None, origin=None, why="")
    if rule["on_timeout"] == _approval.STOP:
        message = f"nobody approved {waiting.what} until {clock(waiting.until or change.now)}"
        halt(change, _approval.APPROVAL_TIMEOUT, message)


def decide(change: Change, why: str, *, approve: bool) -> None:
    """Write down a person's answer; a rejection halts the deployment.

    :raises RecordError: the deployment waits for no approval
    """
    deployment = change.deployment
    word = "approve" if approve else "reject"
    _refuse_ended(change, word)
    if deployment["halted_at"] is not None:
        raise RecordError(
            f"Deployment {deployment['id']} is ending already ({deployment['error_code']}: "
            f"{deployment['error_message']}); there is nothing to {word}."
        )
    waiting = _waiting(change)
    if waiting is None:
        hint = "`bascule status` shows what it does."
        if deployment["paused_at"] is not None:
            hint = f"It is paused; `bascule resume {deployment['id']}` goes on with it."
        raise RecordError(f"Deployment {deployment['id']} does not wait for an approval. {hint}")
    status = _approval.APPROVED if approve else _approval.REJECTED
    who = user()
    _decide(change, waiting, status, who=who, origin=host(), why=why)
    if not approve:
        message = f"{who}@{host()} rejected {waiting.what}" + (f": {why}" if why else "")
        halt(change, _approval.APPROVAL_REJECTED, message)


def waiting_text(deployment_id: str, what: str, until: float, on_timeout: str) -> str:
    """Say that a deployment waits for a person, until when, and what that person types."""
    then = "goes on" if on_timeout == _approval.CONTINUE else "stops"
    return (
        f"waits for the approval of {what} until {clock(until)}, when "
        f"it {then} by itself: `bascule approve {deployment_id}` or `bascule reject "
        f"{deployment_id}`"
    )


def approvals(session: Session, deployment_id: str) -> list[Approval]:
    """Return the approvals that a deployment has asked for, in order."""
    return [approval_from(row) for row in _rows(session, deployment_id)]


def rule_of(deployment: Any) -> dict[str, Any] | None:
    """Return the approval rule in a deployment's row."""
    return json.loads(deployment["approval"]) if deployment["approval"] else None


def _decide(
    change: Change, asked: Approval, status: str, *, who: str | None, origin: str | None, why: str
) -> None:
    values = {
        "status": status, "decided_at": change.now, "decided_by": who, "decided_from": origin,
        "why": why,
    }  # fmt: skip
    key = {"deployment_id": change.deployment["id"], "number": asked.number}
    change.session.update("approvals", values, **key)
    by = f" by {who}@{origin}" if who else ""
    what = asked.what[0].upper() + asked.what[1:]
    message = f"{what}{by}" + (f": {why}" if why else "")
    change.note("ApprovalDecided", status=status, message=message)


def _waiting(change: Change) -> Approval | None:
    found = approvals(change.session, change.deployment["id"])
    return next((one for one in found if one.status == _approval.WAITING), None)


def _rows(session: Session, deployment_id: str) -> list[dict[str, Any]]:
    key = {"deployment_id": deployment_id}
    return session.rows(Query(table="approvals", equals=key, order=("number",)))


def _refuse_ended(change: Change, word: str) -> None:
    if not change.is_final:
        return
    deployment = change.deployment
    message = (
        f"Deployment {deployment['id']} has ended already ({deployment['status']}); there is "
        f"nothing to {word}."
    )
    held = change.session.rows(
        Query(
            table="active",
            equals={
                "application": deployment["application"],
                "deployment_group": deployment["deployment_group"],
            },
        )
    )
    if held:
        message += f" Its deployment group is held by {held[0]['deployment_id']} now."
    raise RecordError(message)
