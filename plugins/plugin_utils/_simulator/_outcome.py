# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How one simulated deployment ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._exposure import Exposure

# Who has found that something is wrong; ``evidence``: nobody could tell, and it did not go on.
JUDGE, GATES, HOSTS, APPROVAL, EVIDENCE = "judge", "gates", "hosts", "approval", "evidence"

# Of which deployment an event is.
FORWARD, BACK = "deployment", "rollback"


class Trace:
    """The logical events of one deployment and its way back, in the record's own words."""

    def __init__(self) -> None:
        """Begin with none."""
        self.events: list[dict[str, str | float]] = []
        self.deployment = FORWARD

    def note(self, at: float, event: str, *, target: str = "", status: str, text: str = "") -> None:
        """Add an event; ``at`` in seconds since the deployment began."""
        self.events.append(
            {
                "at": round(at, 3), "deployment": self.deployment, "event": event,
                "target": target, "status": status, "message": text,
            }
        )  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """``found_by`` is empty if the deployment succeeded, else who stopped it.

    ``seconds`` is all that it took, the rollback included; ``lowest`` the fewest targets in
    service. ``found_at`` is when it was stopped; ``cleared`` how long after that nobody met the
    revision any more (None: somebody still does), and ``rolled_back`` how long until all was as
    before (seconds).
    """

    found_by: str
    seconds: float
    exposure: Exposure
    lowest: int
    found_at: float | None = None
    cleared: float | None = None
    rolled_back: float | None = None
    trace: Trace = field(default_factory=Trace)
