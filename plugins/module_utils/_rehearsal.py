# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a deployment that fails could be rolled back, told before it begins. Pure."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

_NAMES = 5


@dataclass(frozen=True)
class GoodRevision:
    """The revision that a rollback would bring back, and where its bundle is.

    ``succeeded_at`` is in epoch seconds, None if not known. ``cached``: the controller has the
    bundle; ``holders`` are the targets that got it before.
    """

    digest: str
    description: str = ""
    deployment_id: str = ""
    succeeded_at: float | None = None
    cached: bool = True
    holders: frozenset[str] = frozenset()


def rehearse(
    digest: str,
    good: GoodRevision | None,
    targets: Iterable[str],
    *,
    automatic: bool = True,
    marked_bad: bool = False,
) -> dict[str, Any]:
    """Say whether a failed deployment of ``digest`` could be rolled back now.

    ``targets`` are those that the deployment would change; ``automatic`` whether the group's rules
    ask for a rollback; ``marked_bad`` whether revisions have succeeded that are marked bad.

    Returns {"possible", "why", "digest", "description", "deployment_id", "succeeded_at",
    "cached", "holders": number, "targets": number, "automatic"}; digest and what follows from it
    are empty where no revision is good.
    """
    names = list(targets)
    told: dict[str, Any] = {
        "possible": False,
        "why": "",
        "digest": good.digest if good else None,
        "description": good.description if good else "",
        "deployment_id": good.deployment_id if good else "",
        "succeeded_at": good.succeeded_at if good else None,
        "cached": bool(good and good.cached),
        "holders": len([name for name in names if good and name in good.holders]),
        "targets": len(names),
        "automatic": automatic,
    }
    if good is None:
        told["why"] = (
            "every revision that has succeeded in this deployment group is marked bad"
            if marked_bad
            else "no revision has succeeded in this deployment group before"
        )
        return told
    lacking = [name for name in names if name not in good.holders]
    if not good.cached and lacking:
        told["why"] = (
            f"the bundle of the last good revision {good.digest[:12]} is neither in this "
            f"controller's cache nor on {_few(lacking)}"
        )
        return told
    told["possible"] = True
    told["why"] = (
        "it is the revision being deployed" if good.digest == digest else "it succeeded before"
    )
    return told


def rehearsal_lines(rehearsal: dict[str, Any]) -> list[str]:
    """Tell a rehearsal to a person; nothing of a plan that is a rollback itself."""
    if not rehearsal["possible"]:
        return [f"Rollback: not possible, {rehearsal['why']}."]
    revision = rehearsal["digest"][:12]
    if rehearsal.get("description"):
        revision += f" ({rehearsal['description']})"
    lines = [f"Rollback: to revision {revision}, {rehearsal['why']}{_when(rehearsal)}."]
    place = "in this controller's cache" if rehearsal["cached"] else "on the targets"
    how = "automatic" if rehearsal["automatic"] else "only by hand"
    number = rehearsal["targets"]
    lines.append(
        f"  Its bundle is {place}; at most {number} target{'' if number == 1 else 's'} would be "
        f"changed; {how}."
    )
    return lines


def _when(rehearsal: dict[str, Any]) -> str:
    if rehearsal["succeeded_at"] is None:
        return ""
    at = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(rehearsal["succeeded_at"]))
    by = f" ({rehearsal['deployment_id']})" if rehearsal["deployment_id"] else ""
    return f", last on {at}{by}"


def _few(names: list[str]) -> str:
    more = len(names) - _NAMES
    return ", ".join(names[:_NAMES]) + (f" and {more} more" if more > 0 else "")
