# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which processes of which Auto Scaling groups are suspended for which deployment.

A hold is written before AWS is asked, and given up after AWS has been asked again: whoever comes
after a controller that was killed knows what may be suspended.
"""

from __future__ import annotations

import dataclasses
import json
import time
from typing import TYPE_CHECKING, Any

from ._rows import FINAL_STATUSES
from ._session import Query, Session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._change import Change

# A look of somebody who has not come back after so long is not waited for: longer than all tries of
# a call that AWS throttles.
LOOK_SECONDS = 120.0
# Databases may round a time.
SAME_SECONDS = 0.001


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Processes of an Auto Scaling group that are suspended for a deployment.

    ``ended`` says that the deployment has ended, and the one that rolls it back, too.
    """

    deployment_id: str
    scaling_group: str
    region: str
    processes: tuple[str, ...]
    at: float
    ended: bool


def holds(session: Session, scaling_group: str, region: str) -> list[Hold]:
    """Return who holds an Auto Scaling group."""
    equals = {"scaling_group": scaling_group, "region": region}
    return [_hold(session, row) for row in session.rows(Query(table="scaling", equals=equals))]


def holds_of(session: Session, deployment_ids: Sequence[str]) -> list[Hold]:
    """Return what these deployments hold."""
    among = ("deployment_id", tuple(deployment_ids))
    return [_hold(session, row) for row in session.rows(Query(table="scaling", among=among))]


def hold(
    change: Change,
    scaling_group: str,
    region: str,
    processes: Sequence[str],
    *,
    hook: str | None = None,
) -> None:
    """Write down what is going to be suspended; a hold that is there already grows.

    :param hook: the launch hook, where that is all there is to be told of
    """
    key = {
        "deployment_id": change.deployment["id"], "scaling_group": scaling_group, "region": region,
    }  # fmt: skip
    known = change.session.rows(Query(table="scaling", equals=key))
    before = set(json.loads(known[0]["processes"])) if known else set()
    text = json.dumps(sorted(before | set(processes)))
    if known:
        # Whoever takes the deployment over does not wait for the look of one that was killed.
        change.session.update("scaling", {"processes": text, "at": change.now}, **key)
        return
    change.session.insert("scaling", [{**key, "processes": text, "at": change.now}])
    names = ", ".join(sorted(processes)) or "nothing that was not"
    said = f"{names} suspended" if hook is None else f"who waits at the hook {hook} is kept waiting"
    change.add(
        {
            "kind": "record", "target": "", "event": "ScalingHeld", "status": "",
            "message": f"Auto Scaling group {scaling_group}: {said}",
        }
    )  # fmt: skip


def wait_for(
    session: Session, deployment_ids: Sequence[str], scaling_group: str, interval: float
) -> float | None:
    """Return without a lock in how many seconds it is time for a heartbeat; 0 if it is now.

    ``at`` of a hold is when it was written or when somebody has begun to look last; while somebody
    looks it lies ahead (see ``take_turn``). None means that these deployments do not hold the
    group.
    """
    rows = _turns(session, deployment_ids, scaling_group)
    return max(0.0, float(rows[0]["at"]) + interval - time.time()) if rows else None


def take_turn(
    change: Change, deployment_ids: Sequence[str], scaling_group: str, interval: float
) -> str:
    """Take the turn to look at a group's hooks; return its region, empty for who has it not.

    Until it is given back (``end_turn``) nobody else gets it, for LOOK_SECONDS at most: whoever has
    it may be killed.
    """
    for row in _turns(change.session, deployment_ids, scaling_group):
        if float(row["at"]) + interval > change.now:
            return ""
        _set_turn(change, row, change.now + LOOK_SECONDS)
        return str(row["region"])
    return ""


def end_turn(
    change: Change, deployment_ids: Sequence[str], scaling_group: str, began: float
) -> None:
    """Give a turn back that was taken at ``began`` (epoch seconds), unless another has it now."""
    for row in _turns(change.session, deployment_ids, scaling_group)[:1]:
        if abs(float(row["at"]) - LOOK_SECONDS - began) < SAME_SECONDS:
            _set_turn(change, row, began)


def _set_turn(change: Change, row: dict[str, Any], at: float) -> None:
    key = {name: row[name] for name in ("deployment_id", "scaling_group", "region")}
    change.session.update("scaling", {"at": at}, **key)


def _turns(
    session: Session, deployment_ids: Sequence[str], scaling_group: str
) -> list[dict[str, Any]]:
    return session.rows(
        Query(
            table="scaling",
            equals={"scaling_group": scaling_group},
            among=("deployment_id", tuple(deployment_ids)),
            order=("deployment_id", "region"),
        )
    )


def release(change: Change, held: Hold) -> None:
    """Write down that a hold is given up."""
    change.session.delete(
        "scaling",
        deployment_id=held.deployment_id,
        scaling_group=held.scaling_group,
        region=held.region,
    )
    change.add(
        {
            "kind": "record", "target": "", "event": "ScalingReleased", "status": "",
            "message": f"Auto Scaling group {held.scaling_group}: as before",
        }
    )  # fmt: skip


def leave(change: Change, name: str, message: str) -> None:
    """Write down that a target is no part of the fleet any more; that is no failure of anything."""
    before = change.target(name)
    if before["status"] in ("Succeeded", "Skipped"):
        return
    change.begin_work()
    change.set_target(
        name, status="Skipped", error_code="INSTANCE_TERMINATED", message=message,
        in_service=False, finished_at=change.now,
    )  # fmt: skip
    change.note("Left", name, status="Skipped", error_code="INSTANCE_TERMINATED", message=message)


def see_off(change: Change, name: str, message: str) -> bool:
    """Write down that a target is being taken away; False while it is worked on.

    How one has ended that was begun stays; it is no healthy one any more.
    """
    before = change.target(name)
    if before["status"] == "InProgress":
        return False
    if before["status"] == "Pending":
        leave(change, name, message)
    elif before["in_service"]:
        change.set_target(name, in_service=False)
        change.note("OutOfService", name, message=message)
    return True


def _hold(session: Session, row: dict[str, object]) -> Hold:
    query = Query(
        table="deployments",
        columns=("status", "rolled_back_by"),
        equals={"id": row["deployment_id"]},
    )
    found = session.rows(query)
    statuses = [one["status"] for one in found]
    for one in found:
        if one["rolled_back_by"]:
            following = Query(
                table="deployments", columns=("status",), equals={"id": one["rolled_back_by"]}
            )
            statuses += [later["status"] for later in session.rows(following)]
    return Hold(
        deployment_id=str(row["deployment_id"]),
        scaling_group=str(row["scaling_group"]),
        region=str(row["region"]),
        processes=tuple(json.loads(str(row["processes"]))),
        at=float(str(row["at"])),
        ended=all(status in FINAL_STATUSES for status in statuses),
    )
