# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The limits of PutLogEvents, and batches that keep to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html
BATCH_EVENTS = 10_000
BATCH_BYTES = 1_048_576
EVENT_OVERHEAD = 26
EVENT_BYTES = 262_144 - EVENT_OVERHEAD
BATCH_SPAN_MS = 24 * 3600 * 1000
_CUT = " … (cut)"


class Line(NamedTuple):
    """A log event: when, in milliseconds since the epoch, and what."""

    at: int
    message: str


def fitting(message: str, limit: int = EVENT_BYTES) -> str:
    """Return a message that is no longer than one log event may be, in UTF-8."""
    data = message.encode("utf-8", "replace")
    if len(data) <= limit:
        return data.decode("utf-8")
    return data[: limit - len(_CUT.encode())].decode("utf-8", "ignore") + _CUT


def batches(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """Split lines into batches that PutLogEvents takes, in their order.

    Within a batch the times may not fall; a line that is told late gets the time of the one
    before it.
    """
    batch: list[Line] = []
    size = 0
    for line in lines:
        at = max(line.at, batch[-1].at) if batch else line.at
        kept = Line(at, fitting(line.message))
        weight = len(kept.message.encode("utf-8")) + EVENT_OVERHEAD
        full = len(batch) == BATCH_EVENTS or size + weight > BATCH_BYTES
        if batch and (full or at - batch[0].at >= BATCH_SPAN_MS):
            yield batch
            batch, size = [], 0
            kept = Line(line.at, kept.message)
        batch.append(kept)
        size += weight
    if batch:
        yield batch
