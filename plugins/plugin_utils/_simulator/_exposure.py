# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is met by a new revision while its share of the traffic changes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._model import Defect, Traffic


@dataclass
class Exposure:
    """The share of the traffic that a new revision has had, piece by piece: (seconds, share)."""

    pieces: list[tuple[float, float]] = field(default_factory=list)

    def add(self, seconds: float, share: float) -> None:
        """Go on with a share (0 to 1) for some time."""
        if seconds > 0:
            self.pieces.append((seconds, share))

    def requests(self, traffic: Traffic) -> float:
        """Return how many requests the new revision is expected to have answered."""
        return traffic.requests * math.fsum(seconds * share for seconds, share in self.pieces)

    def bad(self, traffic: Traffic, defect: Defect) -> float:
        """Return how many requests are expected to have failed that the old one had answered."""
        added = min(1.0, traffic.error_rate + defect.errors) - min(1.0, traffic.error_rate)
        hurt = [
            seconds * share for seconds, share in self.pieces if shows(defect, share)
        ]  # fmt: skip
        return traffic.requests * added * math.fsum(hurt)

    def users(self, traffic: Traffic) -> float:
        """Return how many users are expected to have met the new revision at least once.

        Each user sends requests at times of a Poisson process. Without stickiness each of them
        is drawn anew; with it, those whose place in the order of users lies below the share are
        met as soon as they come.
        """
        each = traffic.requests / traffic.users
        if not traffic.sticky:
            met = -math.expm1(-each * math.fsum(s * share for s, share in self.pieces))
            return traffic.users * met
        levels = sorted({share for _seconds, share in self.pieces if share > 0})
        users, below = 0.0, 0.0
        for level in levels:
            seconds = math.fsum(s for s, share in self.pieces if share >= level)
            users += (level - below) * -math.expm1(-each * seconds)
            below = level
        return traffic.users * users


def shows(defect: Defect, share: float) -> bool:
    """Tell whether a defect can be seen at a share of the traffic."""
    return share > 0 and share >= defect.from_share
