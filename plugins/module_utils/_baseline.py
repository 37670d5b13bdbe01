# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fresh baseline: targets that get the revision they have once more, to compare canaries with.

Pure. A canary has just left the traffic, been installed, begun with cold caches and come back;
targets that have run for a month are no fair comparison. So as many others go the same way with
the old revision, shortly before. A plan keeps them as ``plan["baseline"]``: {"targets": [name],
"digest", "description"}, or None.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

REST, FRESH = "rest", "fresh"
CHOICES = (REST, FRESH)


def choose_baseline(
    canaries: Sequence[tuple[str, str]],
    others: Sequence[tuple[str, str]],
    *,
    fewer: bool = False,
) -> list[str]:
    """Return as many of the others as there are canaries, in the canaries' zones where possible.

    :param canaries: (name, zone) of each
    :param others: the same of the targets that are healthy with the old revision, in their order
    :param fewer: all of the others will do where there are fewer of them: how many requests each
        side gets does not depend on their number
    :raises PlanError: there are too few
    """
    left = list(others)
    if not left or (len(left) < len(canaries) and not fewer):
        raise PlanError(
            f"deploy_canary_baseline is fresh: {_targets(len(canaries))} of canaries need as many "
            f"others that are healthy with the last good revision, and there are {len(left)}. Make "
            "fewer targets canaries, or set deploy_canary_baseline to rest."
        )
    chosen: list[tuple[str, str]] = []
    waiting = 0
    for _name, zone in canaries:
        near = next((one for one in left if one[1] == zone), None)
        if near is None:
            waiting += 1
            continue
        left.remove(near)
        chosen.append(near)
    # A zone that has none left is made up for by any other.
    chosen += left[:waiting]
    return [name for name, _zone in others if name in {one for one, _place in chosen}]


def baseline_lines(baseline: Mapping[str, Any] | None) -> list[str]:
    """Tell the baseline of a plan to a person."""
    if not baseline:
        return []
    label = baseline["description"]
    revision = f"{baseline['digest'][:12]}" + (f" ({label})" if label else "")
    return [
        f"Fresh baseline, before anything else: {_targets(len(baseline['targets']))} "
        "in the same way, out of the traffic and back:",
        f"  {', '.join(baseline['targets'])}: the revision that is there, {revision}, once more;",
        "  the canaries are compared with these alone. They get the new revision with the others.",
    ]


def _targets(number: int) -> str:
    return "1 target" if number == 1 else f"{number} targets"
