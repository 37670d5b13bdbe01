# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where those who want the same from a remote service at the same moment share a call.

Ansible's forks are processes, and there may be several controllers: they meet in the record.
"""

from __future__ import annotations

import json
import random
import secrets
import time
from typing import TYPE_CHECKING, Any

from ...module_utils._errors import TrafficError
from .._record._sharing import ANSWER, ASK, DONE, FAILED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .._record import Record
    from .._record._sharing import Order, Sharing

    CarryOut = Callable[[list[str]], Mapping[str, str]]

# How long the first who orders waits for others to join.
WINDOW_SECONDS = 0.5
# How often the record is asked whether there is an answer.
POLL_SECONDS = 0.4
# How often a worker whose order is not carried out yet looks whether its collector still lives.
REMIND_SECONDS = 10.0


class Desk:
    """Looks and orders, shared by all workers of one deployment if there is a record."""

    def __init__(self, record: Record | None = None, deployment: str = "") -> None:
        """Keep where to share; nothing is asked yet."""
        self._shared: Sharing | None = record.sharing(deployment) if record else None
        self._turns: dict[str, int] = {}

    def look(self, subject: str, ask: Callable[[], Any], *, interval: float) -> Any:
        """Return what ``ask`` says of a subject (plain JSON data), at most ``interval`` s old.

        It is newer than all orders on the subject that this desk has seen carried out. Nobody asks
        sooner than ``interval`` after the one before, however many want to know.
        """
        if self._shared is None:
            return ask()
        who = secrets.token_hex(8)
        after = self._turns.get(subject, 0)
        while True:
            seen = self._shared.peek(subject, after=after, interval=interval)
            if seen.verdict == ASK:
                seen = self._shared.claim_look(subject, who, after=after, interval=interval)
            if seen.verdict == ANSWER:
                return json.loads(seen.answer)
            if seen.verdict == ASK:
                break
            time.sleep(min(seen.wait, POLL_SECONDS) + random.uniform(0.0, 0.1))  # noqa: S311
        answer: str | None = None
        try:
            found = ask()
            answer = json.dumps(found, separators=(",", ":"))
        finally:
            self._shared.answer_look(subject, who, seen.turn, answer)
        return found

    def order(self, subject: str, kind: str, items: Sequence[str], carry_out: CarryOut) -> None:
        """See these items carried out, in one call with what others order of the same kind.

        :param carry_out: returns the items that were refused, and why; whatever it raises is true
            of all items
        :raises TrafficError: what ``carry_out`` says of these items
        """
        if self._shared is None:
            why = _refusals(items, carry_out(list(items)))
            if why:
                raise TrafficError(why)
            return
        # Orders are carried out in the order of their names.
        who = f"{time.time():017.6f}-{secrets.token_hex(6)}"
        order = self._shared.place(who, subject, kind, json.dumps(list(items)))
        reminded = time.monotonic()
        while order.status not in (DONE, FAILED):
            if order.collecting:
                time.sleep(WINDOW_SECONDS)
                self._collect(self._shared, who, subject, kind, carry_out)
            else:
                time.sleep(POLL_SECONDS + random.uniform(0.0, 0.1))  # noqa: S311
            order, reminded = self._standing(self._shared, who, reminded)
        if order.status == FAILED:
            raise TrafficError(order.message)
        self._turns[subject] = max(self._turns.get(subject, 0), order.turn)

    def _standing(self, shared: Sharing, who: str, reminded: float) -> tuple[Order, float]:
        order = shared.standing(who)
        quiet = time.monotonic() - reminded < REMIND_SECONDS and not order.alone
        if order.status in (DONE, FAILED) or quiet:
            return order, reminded
        return shared.remind(who), time.monotonic()

    def _collect(
        self, shared: Sharing, who: str, subject: str, kind: str, carry_out: CarryOut
    ) -> None:
        """Carry out all that wait, and write down how each ended."""
        taken = {name: json.loads(items) for name, items in shared.take(who, subject, kind)}
        ended: dict[str, str | None] = dict.fromkeys(taken, "The worker that did it was ended.")
        try:
            refused = carry_out(list(dict.fromkeys(one for some in taken.values() for one in some)))
            ended = {name: _refusals(items, refused) for name, items in taken.items()}
        except TrafficError as error:
            ended = dict.fromkeys(taken, str(error))
        finally:
            shared.complete(who, subject, kind, ended)


def _refusals(items: Sequence[str], refused: Mapping[str, str]) -> str | None:
    """Return why some of these items were refused; None if none was."""
    return " ".join(dict.fromkeys(refused[item] for item in items if item in refused)) or None
