# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look at something again and again in a thread, as long as an action works for a deployment."""

from __future__ import annotations

import abc
import threading
import typing as t

from ..module_utils._errors import LeaseLostError, RecordError

if t.TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from ._record import Record

# The longest that a worker sleeps before it asks again whose turn it is.
LONGEST_PAUSE = 5.0


class Watch(abc.ABC):
    """Take turns as long as the block lasts; the record says whose turn it is."""

    def __init__(self, opened: Callable[[], Record], deployment_id: str) -> None:
        """Keep how to open the record."""
        self._opened, self._deployment_id = opened, deployment_id
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._go_on, daemon=True)

    def __enter__(self) -> t.Self:
        """Begin to watch, in a thread."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop; a look that has begun is written down first."""
        self._ended.set()
        self._thread.join()

    def _go_on(self) -> None:
        pause = 0.0
        while not self._ended.wait(pause):
            try:
                with self._opened() as record:
                    pause = min(self.turn(record), LONGEST_PAUSE)
            except LeaseLostError:
                return
            except RecordError:
                # The record is away; whoever needs it says so.
                pause = LONGEST_PAUSE

    @abc.abstractmethod
    def turn(self, record: Record) -> float:
        """Look if it is this one's turn; return the seconds until it may be again."""
