# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the targets of a deployment group stand between two deployments."""

from __future__ import annotations

import typing as t

from ..module_utils._plan import CURRENT, UNKNOWN
from ._pooling import resting

if t.TYPE_CHECKING:
    from ._record import Record


def group_targets(
    record: Record, application: str, group: str, names: t.Collection[str] | None = None
) -> list[dict[str, t.Any]]:
    """Return the targets of a group, those that have to be brought up to date first.

    :param names: the targets of the inventory; without them only the record is asked
    :returns: of each {"target", "health": Healthy, Unhealthy or Unknown, "revision": Current, Old
        or Unknown, "digest": text or None, "outdated": whether a deployment has something to do
        there, "in_inventory": None where no inventory was asked, "idle": whether it is in a pool
        that no user reaches, which keeps what it had for the way back and is not outdated}
    """
    states = record.target_states(application, group)
    idle = resting(record, application, group)
    found = []
    for name in dict.fromkeys([*(names or ()), *states]):
        state = states.get(name)
        listed = None if names is None else name in names
        health = state.health if state else UNKNOWN
        revision = state.revision_state if state else UNKNOWN
        found.append(
            {
                "target": name,
                "health": health,
                "revision": revision,
                "digest": state.digest if state else None,
                "outdated": listed is not False
                and name not in idle
                and (health, revision) != ("Healthy", CURRENT),
                "in_inventory": listed,
                "idle": name in idle,
            }
        )
    return sorted(found, key=lambda one: (not one["outdated"], one["target"]))


def message(found: list[dict[str, t.Any]], group: str) -> str:
    """Return for a person which targets are outdated, one a line."""
    wanting = [one for one in found if one["outdated"]]
    if not wanting:
        idle = sum(one["idle"] for one in found)
        beside = f", beside {idle} of an idle pool" if idle else ""
        return f"all {len(found) - idle} targets of {group} have its revision{beside}"
    lines = [f"{len(wanting)} of {len(found)} targets of {group} are not up to date:"]
    lines += [f"{one['target']}: {one['health']}, revision {one['revision']}" for one in wanting]
    return "\n".join(lines)
