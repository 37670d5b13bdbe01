# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Repeating what failed because the record was away for a moment."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from ...module_utils._errors import RecordAwayError
from ._notice import tell

if TYPE_CHECKING:
    from collections.abc import Callable

Answer = TypeVar("Answer")

# How long a controller waits for its record, and how often it asks.
PATIENCE_SECONDS = 60.0
_SHORTEST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0


def repeated(attempt: Callable[[bool], Answer], patience: float, shown: str) -> Answer:
    """Call ``attempt`` until the record answers, for at most ``patience`` seconds.

    It is called with True once a change may have been written although its commit was not
    confirmed: it has to look, and must not make that change twice. ``shown`` names the record.

    :raises RecordAwayError: it did not come back
    """
    begun: float | None = None
    unsure = False
    pause = _SHORTEST_PAUSE
    while True:
        try:
            answer = attempt(unsure)
        except RecordAwayError as error:
            unsure = unsure or error.unsure
            now = time.monotonic()
            if begun is None:
                begun = now
                if patience:
                    tell(
                        f"The record {shown} does not answer; trying again for up to "
                        f"{patience:.0f} seconds. {error}"
                    )
            if now + pause > begun + patience:
                raise _given_up(error, patience, unsure=unsure) from error
            time.sleep(pause)
            pause = min(_LONGEST_PAUSE, pause * 1.5)
        else:
            if begun is not None:
                tell(f"The record {shown} answers again.")
            return answer


def _given_up(error: RecordAwayError, patience: float, *, unsure: bool) -> RecordAwayError:
    text = str(error)
    if patience:
        text += f" It was tried again for {patience:.0f} seconds."
    if unsure:
        text += (
            " Whether the last change was written is not known: `bascule status` shows it when the "
            "record is back."
        )
    return RecordAwayError(text, unsure=unsure)
