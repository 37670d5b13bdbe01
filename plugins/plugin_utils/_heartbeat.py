# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep the lease of a deployment while something is done for it."""

from __future__ import annotations

import threading
import typing as t

from ..module_utils._errors import LeaseLostError, RecordError

if t.TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from ._record import Record


class Heartbeat:
    """Beat as long as the block lasts.

    Entering raises LeaseLostError if the deployment was taken over. While the block runs nothing is
    raised: what it writes is refused then.
    """

    def __init__(
        self, opened: Callable[[], Record], deployment_id: str, *, seconds: float | None = None
    ) -> None:
        """Keep how to open the record; ``seconds`` is the time between two beats."""
        self._opened, self._deployment_id, self._seconds = opened, deployment_id, seconds
        self._ended = threading.Event()

    def __enter__(self) -> Heartbeat:
        """Beat once, and go on in a thread."""
        from ._record import BEAT_SECONDS

        with self._opened() as record:
            record.beat(self._deployment_id)
        pause = BEAT_SECONDS if self._seconds is None else self._seconds
        threading.Thread(target=self._go_on, args=(pause,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop beating."""
        self._ended.set()

    def _go_on(self, pause: float) -> None:
        while not self._ended.wait(pause):
            try:
                with self._opened() as record:
                    record.beat(self._deployment_id)
            except LeaseLostError:
                return
            except RecordError:
                # The record is away; whoever needs it says so. The next beat may reach it.
                continue
