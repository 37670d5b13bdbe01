# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How one simulated deployment ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._exposure import Exposure

# The verdict of the judge that stops a deployment.
FAIL = "Fail"
# Who has found that something is wrong.
JUDGE, GATES, HOSTS, APPROVAL = "judge", "gates", "hosts", "approval"


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
