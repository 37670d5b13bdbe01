# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the workers of a deployment ask of and order at a remote service together.

A *look* is asked by whoever comes first and answers for all; an *order* waits a moment for others
of its kind, and whoever came first carries all of them out. Claims end by the database's clock and
with the fence, so a worker that dies holds nobody up for long, and what an earlier controller had
ordered is not carried out any more. Which answer is newer than which order is told by numbers, not
by clocks: each look takes the subject's next turn, and an order notes the turn that it ended in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._session import DuplicateError, Query, Row, Session

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ._change import Change
    from ._store import Record

ANSWER, WAIT, ASK = "answer", "wait", "ask"
WAITING, TAKEN, DONE, FAILED = "Waiting", "Taken", "Done", "Failed"

# A worker that has claimed something and is not heard of for so long has died.
CLAIM_SECONDS = 30.0
# An order whose worker has not been seen for so long is not carried out any more.
ORDER_SECONDS = 60.0
# An answer may be good for longer, but a new one may be asked for after this time.
PACE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Look:
    """``verdict`` answer: here it is; wait: look again after so many seconds; ask: it is yours."""

    verdict: str
    answer: str = ""
    turn: int = 0
    wait: float = 0.0


@dataclass(frozen=True, slots=True)
class Order:
    """How an order stands.

    ``collecting``: it is yours to carry out all that wait. ``alone``: nobody collects them.
    """

    status: str
    message: str = ""
    turn: int = 0
    collecting: bool = False
    alone: bool = False


class Sharing:
    """What one worker shares with the others of its deployment; each method is a transaction."""

    def __init__(self, record: Record, deployment: str, fence: int | None) -> None:
        """Keep the place; see ``Record.sharing``."""
        self._record = record
        self._deployment = deployment
        self._fence = fence

    def peek(self, subject: str, *, after: int, interval: float) -> Look:
        """Return how a look stands; nothing is claimed.

        :param after: the answer must be of a later turn than this
        :param interval: the oldest that an answer may be, in seconds
        """
        return self._record.read_shared(
            lambda session: peek(
                session, self._deployment, subject,
                after=after, interval=interval, fence=self._fence,
            )
        )  # fmt: skip

    def claim_look(self, subject: str, who: str, *, after: int, interval: float) -> Look:
        """Return the answer, or claim to ask for it (see ``peek``)."""
        return self._record.change_shared(
            self._deployment,
            lambda change: claim_look(change, subject, who, after=after, interval=interval),
        )

    def answer_look(self, subject: str, who: str, turn: int, answer: str | None) -> None:
        """Write what was seen in a turn that was claimed; None if nothing was."""
        self._record.change_shared(
            self._deployment, lambda change: answer_look(change, subject, who, turn, answer)
        )

    def place(self, who: str, subject: str, kind: str, items: str) -> Order:
        """Add an order."""
        return self._record.change_shared(
            self._deployment, lambda change: place(change, who, subject, kind, items)
        )

    def standing(self, who: str) -> Order:
        """Return how an order stands."""
        return self._record.read_shared(
            lambda session: standing(session, self._deployment, who, fence=self._fence)
        )

    def remind(self, who: str) -> Order:
        """Say that an order is still wanted; it may become one's own to collect."""
        return self._record.change_shared(self._deployment, lambda change: remind(change, who))

    def take(self, who: str, subject: str, kind: str) -> list[tuple[str, str]]:
        """Return (id, items) of all that wait, to the collector."""
        return self._record.change_shared(
            self._deployment, lambda change: take(change, who, subject, kind)
        )

    def complete(self, who: str, subject: str, kind: str, ended: Mapping[str, str | None]) -> None:
        """Write how the orders ended that were taken: None, or why not."""
        self._record.change_shared(
            self._deployment, lambda change: complete(change, who, subject, kind, ended)
        )


def peek(
    session: Session,
    deployment: str,
    subject: str,
    *,
    after: int,
    interval: float,
    fence: int | None,
) -> Look:
    """Return how a subject stands, without claiming anything."""
    row = _subject(session, deployment, subject)
    return _judge(row, session.now(), after, interval, fence) if row else Look(ASK)


def claim_look(change: Change, subject: str, who: str, *, after: int, interval: float) -> Look:
    """Return the answer, or claim to ask for it."""
    session, deployment = change.session, str(change.deployment["id"])
    fence, now = int(change.deployment["fence"]), session.now()
    row = _subject(session, deployment, subject) or _begin(session, deployment, subject)
    if row["claimed_by"] != who:
        seen = _judge(row, now, after, interval, fence)
        if seen.verdict != ASK:
            return seen
    turn = int(row["turn"]) + 1
    values = {"turn": turn, "asked_at": now, **_claim(who, now, fence)}
    session.update("shared_looks", values, deployment_id=deployment, subject=subject)
    return Look(ASK, turn=turn)


def answer_look(change: Change, subject: str, who: str, turn: int, answer: str | None) -> None:
    """Write what was seen in this turn (None: it could not be seen) and give the claim back."""
    session, deployment = change.session, str(change.deployment["id"])
    row = _subject(session, deployment, subject)
    if row is None:
        return
    values: dict[str, Any] = {}
    if answer is not None and turn > int(row["answered"]):
        values.update(answered=turn, answer=answer, answered_at=session.now())
    if row["claimed_by"] == who:
        values["claimed_by"] = None
    if values:
        session.update("shared_looks", values, deployment_id=deployment, subject=subject)


def place(change: Change, who: str, subject: str, kind: str, items: str) -> Order:
    """Add an order, and claim to collect its kind if nobody does."""
    row = {
        "deployment_id": change.deployment["id"], "id": who, "subject": subject, "kind": kind,
        "items": items, "status": WAITING, "message": "", "turn": 0,
        "fence": change.deployment["fence"],
        "valid_until": change.session.now() + ORDER_SECONDS,
    }  # fmt: skip
    try:
        change.session.insert("shared_orders", [row])
    except DuplicateError:
        return remind(change, who)
    return _collect(change, who, row)


def standing(session: Session, deployment: str, who: str, *, fence: int | None) -> Order:
    """Return how an order stands."""
    row = _order(session, deployment, who)
    alone = False
    if row["status"] == WAITING:
        desk = _subject(session, deployment, _desk(row["kind"], row["subject"]))
        alone = desk is None or not _is_claimed(desk, session.now(), fence)
    return Order(row["status"], row["message"], int(row["turn"]), alone=alone)


def remind(change: Change, who: str) -> Order:
    """Say that an order is still wanted, and claim to collect if nobody does any more."""
    session, deployment = change.session, str(change.deployment["id"])
    row = _order(session, deployment, who)
    if row["status"] in (DONE, FAILED):
        return Order(row["status"], row["message"], int(row["turn"]))
    until = {"valid_until": session.now() + ORDER_SECONDS}
    session.update("shared_orders", until, deployment_id=deployment, id=who)
    return _collect(change, who, row)


def take(change: Change, who: str, subject: str, kind: str) -> list[tuple[str, str]]:
    """Return (id, items) of all orders that wait, to the worker that collects them."""
    session, deployment = change.session, str(change.deployment["id"])
    now, fence = session.now(), change.deployment["fence"]
    claim = _claim(who, now, int(fence))
    session.update("shared_looks", claim, deployment_id=deployment, subject=_desk(kind, subject))
    # What is taken already was taken by a collector that has died, or this would not be its claim.
    equals = {"deployment_id": deployment, "subject": subject, "kind": kind, "fence": fence}
    query = Query(
        table="shared_orders", columns=("id", "items", "valid_until"), equals=equals,
        among=("status", (WAITING, TAKEN)), order=("id",),
    )  # fmt: skip
    wanted = [row for row in session.rows(query) if row["valid_until"] > now]
    for row in wanted:
        session.update("shared_orders", {"status": TAKEN}, deployment_id=deployment, id=row["id"])
    return [(row["id"], row["items"]) for row in wanted]


def complete(
    change: Change, who: str, subject: str, kind: str, ended: Mapping[str, str | None]
) -> None:
    """Write how orders ended (None: done, a text: why not), and give the claim back."""
    session, deployment = change.session, str(change.deployment["id"])
    looked = _subject(session, deployment, subject)
    turn = int(looked["turn"]) if looked else 0
    for order, failure in ended.items():
        values = {
            "status": DONE if failure is None else FAILED,
            "message": failure or "",
            "turn": turn,
        }
        session.update("shared_orders", values, deployment_id=deployment, id=order)
    desk = _subject(session, deployment, _desk(kind, subject))
    if desk and desk["claimed_by"] == who:
        values = {"claimed_by": None}
        session.update("shared_looks", values, deployment_id=deployment, subject=desk["subject"])


def forget(session: Session, deployment: str) -> None:
    """Remove all that a deployment shared; it has ended."""
    session.delete("shared_looks", deployment_id=deployment)
    session.delete("shared_orders", deployment_id=deployment)


def _judge(row: Row, now: float, after: int, interval: float, fence: int | None) -> Look:
    if int(row["answered"]) > after and now - row["answered_at"] <= interval:
        return Look(ANSWER, row["answer"], int(row["answered"]))
    if _is_claimed(row, now, fence):
        return Look(WAIT, wait=max(0.0, row["claimed_until"] - now))
    # Who has just ordered something waits for its turn, too: the pace is the same for all.
    soonest = row["asked_at"] + min(interval, PACE_SECONDS)
    if now < soonest:
        return Look(WAIT, wait=soonest - now)
    return Look(ASK)


def _collect(change: Change, who: str, order: Row) -> Order:
    session, deployment = change.session, str(change.deployment["id"])
    fence, now = int(change.deployment["fence"]), session.now()
    subject = _desk(order["kind"], order["subject"])
    desk = _subject(session, deployment, subject)
    if desk is None:
        _begin(session, deployment, subject)
    elif desk["claimed_by"] != who and _is_claimed(desk, now, fence):
        return Order(order["status"])
    session.update(
        "shared_looks", _claim(who, now, fence), deployment_id=deployment, subject=subject
    )
    return Order(order["status"], collecting=True)


def _is_claimed(row: Row, now: float, fence: int | None) -> bool:
    if not row["claimed_by"] or row["claimed_until"] <= now:
        return False
    return fence is None or int(row["claimed_fence"]) == fence


def _claim(who: str, now: float, fence: int) -> dict[str, Any]:
    return {"claimed_by": who, "claimed_until": now + CLAIM_SECONDS, "claimed_fence": fence}


def _desk(kind: str, subject: str) -> str:
    """Name the row whose claim is the right to collect orders."""
    return f"{kind} at {subject}"


def _begin(session: Session, deployment: str, subject: str) -> Row:
    row = {
        "deployment_id": deployment, "subject": subject, "turn": 0, "answered": 0, "answer": "",
        "asked_at": 0.0, "answered_at": 0.0, "claimed_by": None, "claimed_until": 0.0,
        "claimed_fence": 0,
    }  # fmt: skip
    session.insert("shared_looks", [row])
    return row


def _subject(session: Session, deployment: str, subject: str) -> Row | None:
    equals = {"deployment_id": deployment, "subject": subject}
    found: Sequence[Row] = session.rows(Query(table="shared_looks", equals=equals))
    return found[0] if found else None


def _order(session: Session, deployment: str, who: str) -> Row:
    equals = {"deployment_id": deployment, "id": who}
    found: Sequence[Row] = session.rows(Query(table="shared_orders", equals=equals))
    # An ended deployment's orders are removed; whoever still waits for one is told so.
    return (
        found[0] if found else {"status": FAILED, "message": "the deployment has ended", "turn": 0}
    )
