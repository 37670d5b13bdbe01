# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a target is expected to have, and how it is told that it has something else."""

from __future__ import annotations

import typing as t

from ..module_utils._errors import UsageError
from ._record import group_id

if t.TYPE_CHECKING:
    from ._record import Record

IN_SYNC, DRIFTED = "InSync", "Drifted"


def drift_request(
    record: Record, application: str, group: str, target: str, root: str
) -> dict[str, t.Any]:
    """Return what the host is asked (``module_utils/_host/_drift.run``).

    :raises UsageError: the group was never deployed to, or is being deployed to
    """
    newest = record.deployments(application, group, limit=1)
    if not newest:
        raise UsageError(
            f"Nothing was ever deployed to {application}/{group}: there is nothing to compare "
            "its targets with. `bascule history` lists the groups of the record."
        )
    if not newest[0].is_final:
        raise UsageError(
            f"The deployment {newest[0].id} of {application}/{group} is {newest[0].status}: what "
            "it changes would be taken for drift. Look again when it has ended."
        )
    state = record.target_states(application, group).get(target)
    return {
        "operation": "drift",
        "root": root,
        "group_id": group_id(application, group),
        "expected": state.digest if state else None,
    }


def told(target: str, answer: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return what callbacks and the API read of a host's answer."""
    findings = answer.get("findings") or []
    return {
        "target": target,
        "status": DRIFTED if findings else IN_SYNC,
        "deployment_id": answer.get("deployment_id"),
        "digest": answer.get("digest"),
        "checked": answer.get("checked", 0),
        "unseen": answer.get("unseen", 0),
        "findings": findings,
    }


def message(seen: dict[str, t.Any]) -> str:
    """Return the findings for a person, one a line."""
    if not seen["findings"]:
        return f"as {seen['deployment_id'] or 'before any deployment'} left it"
    number = len(seen["findings"])
    lines = [f"{number} difference{'' if number == 1 else 's'}:"]
    for one in seen["findings"]:
        where = one["path"] or (f"process {one['pid']}" if one["pid"] else "")
        lines.append(f"{one['kind']}: {where} {one['message']}".replace("  ", " "))
    if seen["unseen"]:
        lines.append(
            f"Processes of other users that could not be looked at: {seen['unseen']}; run with "
            "become."
        )
    return "\n".join(lines)
