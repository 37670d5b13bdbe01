# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The beginning and the end of a deployment, and what is kept about its group between two."""

from __future__ import annotations

import getpass
import json
import secrets
import socket
import string
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ...module_utils._admission import conclude
from ._admit import counts_from, tally_query
from ._change import Change
from ._query import Query, Rows, core_rows
from ._rows import ClaimedError
from ._schema import tables

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

    from ._rows import NewDeployment

_ID_LETTERS = string.ascii_uppercase + string.digits


def new_id() -> str:
    """Make a deployment id in CodeDeploy's form."""
    return "d-" + "".join(secrets.choice(_ID_LETTERS) for _ in range(9))


def create(connection: Connection, new: NewDeployment, now: float) -> str:
    """Write a deployment, its targets and its claim on the group; returns its id.

    The claim is written first: its primary key refuses it while another deployment holds the
    group, which raises ClaimedError. A rollback takes the group over from the deployment that
    it rolls back.
    """
    from sqlalchemy import insert, update
    from sqlalchemy.exc import IntegrityError

    rows = core_rows(connection)
    group = {"application": new.application, "deployment_group": new.group}
    deployment_id = new_id()
    if new.rollback_of is not None:
        failed = Change(connection, new.rollback_of, now)
        finish(failed)
        failed.write()
    claim = {**group, "deployment_id": deployment_id, "since": now}
    try:
        connection.execute(insert(tables().active), [claim])
    except IntegrityError:
        raise ClaimedError from None
    connection.execute(
        insert(tables().deployments), [_deployment_row(rows, new, deployment_id, now)]
    )
    targets = _target_rows(rows, new, deployment_id)
    if targets:
        connection.execute(insert(tables().targets), targets)
    key = {"application": new.application, "digest": new.revision.digest}
    if not rows(Query(table="revisions", equals=key)):
        connection.execute(
            insert(tables().revisions), [{**key, "first_seen_at": now, "bad": False, "why": ""}]
        )
    if new.rollback_of is not None:
        table = tables().deployments
        connection.execute(
            update(table).where(table.c.id == new.rollback_of).values(rolled_back_by=deployment_id)
        )
    change = Change(connection, deployment_id, now)
    change.note("Created", status="Created", message=f"{new.strategy} of {new.revision.digest}")
    change.write()
    return deployment_id


def _deployment_row(
    rows: Rows, new: NewDeployment, deployment_id: str, now: float
) -> dict[str, Any]:
    plan = new.plan
    previous = new.previous_digest
    if previous is None:
        previous = group_digest(rows, new.application, new.group)
    return {
        "id": deployment_id, "application": new.application, "deployment_group": new.group,
        "strategy": new.strategy, "status": "Created", "creator": new.creator,
        "description": new.description,
        "digest": new.revision.digest, "revision": json.dumps(asdict(new.revision)),
        "previous_digest": previous, "rollback_of": new.rollback_of, "rolled_back_by": None,
        "error_code": None, "error_message": "", "halted_at": None, "plan": json.dumps(plan),
        "options": json.dumps(new.options), "mode": plan["mode"], "total": plan["total"],
        "minimum_healthy": plan["minimum_healthy"], "bake_time": plan["bake_time"],
        "last_sequence": 0, "created_at": now, "finished_at": None,
        "started_by": new.started_by or _user(), "started_from": new.started_from or _host(),
    }  # fmt: skip


def _target_rows(rows: Rows, new: NewDeployment, deployment_id: str) -> list[dict[str, Any]]:
    out = _left_out_of_service(rows, new.rollback_of)
    return [
        {
            "deployment_id": deployment_id, "name": entry["name"], "position": position,
            "stage": entry["stage"], "zone": entry.get("zone") or "", "status": "Pending",
            "staged": False, "changed": False,
            "in_service": entry.get("in_service", True) and entry["name"] not in out,
            "from_service": False, "error_code": None, "message": "", "started_at": None,
            "finished_at": None,
        }
        for position, entry in enumerate(new.plan["targets"])
    ]  # fmt: skip


def _left_out_of_service(rows: Rows, rollback_of: str | None) -> set[str]:
    """Targets that the deployment to roll back has taken out, or broken after it began them."""
    if rollback_of is None:
        return set()
    query = Query(
        table="targets",
        columns=("name", "status", "in_service", "started_at"),
        equals={"deployment_id": rollback_of},
    )
    return {
        row["name"]
        for row in rows(query)
        if not row["in_service"]
        or (row["status"] in ("Failed", "Unknown") and row["started_at"] is not None)
    }


def finish(change: Change) -> None:
    """Give the deployment its final status by the rule, and the group its new state.

    A deployment that has ended is left as it is.
    """
    if change.is_final:
        return
    deployment = change.deployment
    counts = counts_from(change.rows(tally_query(deployment["id"])), deployment["total"])
    outcome = conclude(counts, deployment["minimum_healthy"], deployment["error_code"])
    message = deployment["error_message"] or outcome.message
    _end(change, outcome.status, outcome.error_code, message, "Finished")


def abandon(change: Change, why: str) -> None:
    """End the deployment as Stopped, whatever its targets are doing."""
    _end(change, "Stopped", "MANUAL_STOP", f"Abandoned: {why}" if why else "Abandoned", "Abandoned")


def _end(change: Change, status: str, code: str | None, message: str, event: str) -> None:
    from sqlalchemy import delete, update

    deployment = change.deployment
    table = tables().targets
    for before, after in (("Pending", "Skipped"), ("InProgress", "Unknown")):
        change.connection.execute(
            update(table)
            .where(table.c.deployment_id == deployment["id"], table.c.status == before)
            .values(status=after, finished_at=change.now)
        )
    _keep_states(change, succeeded=status == "Succeeded")
    active = tables().active
    change.connection.execute(delete(active).where(active.c.deployment_id == deployment["id"]))
    change.set_deployment(
        status=status, error_code=code, error_message=message, finished_at=change.now
    )
    change.note(event, status=status, error_code=code, message=message)


def _keep_states(change: Change, *, succeeded: bool) -> None:
    """Write down how the targets were left (codedeploy: instance health and revision state).

    A target that failed before it was begun still runs what it ran; of one that was begun and
    did not succeed, the revision is unknown. Skipped targets stay as they were.
    """
    from sqlalchemy import delete, insert

    deployment = change.deployment
    group = {key: deployment[key] for key in ("application", "deployment_group")}
    known = {row["target"]: row for row in change.rows(Query(table="target_states", equals=group))}
    targets = change.rows(
        Query(
            table="targets",
            columns=("name", "status", "started_at"),
            equals={"deployment_id": deployment["id"]},
        )
    )
    states = []
    for target in targets:
        name, status = target["name"], target["status"]
        if status == "Skipped":
            continue
        digest = None
        if status == "Succeeded":
            digest = deployment["digest"]
        elif target["started_at"] is None and name in known:
            digest = known[name]["digest"]
        states.append(
            {
                **group, "target": name, "digest": digest, "updated_at": change.now,
                "health": "Healthy" if status == "Succeeded" else "Unhealthy",
                "deployment_id": deployment["id"],
            }
        )  # fmt: skip
    table = tables().target_states
    replaced = [name for name in (state["target"] for state in states) if name in known]
    if replaced:
        _delete_named(change.connection, table, group, replaced)
    if states:
        change.connection.execute(insert(table), states)
    if succeeded:
        groups = tables().groups
        change.connection.execute(delete(groups).where(*(groups.c[k] == group[k] for k in group)))
        row = {**group, "digest": deployment["digest"], "deployment_id": deployment["id"],
               "updated_at": change.now}  # fmt: skip
        change.connection.execute(insert(groups), [row])


def _delete_named(
    connection: Connection, table: Table, group: dict[str, str], names: list[str]
) -> None:
    from sqlalchemy import bindparam, delete

    statement = delete(table).where(
        *(table.c[key] == value for key, value in group.items()), table.c.target == bindparam("n")
    )
    connection.execute(statement, [{"n": name} for name in names])


def group_digest(rows: Rows, application: str, group: str) -> str | None:
    """Return the digest of the group's revision: that of its newest successful deployment."""
    key = {"application": application, "deployment_group": group}
    found = rows(Query(table="groups", columns=("digest",), equals=key))
    return found[0]["digest"] if found else None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _host() -> str:
    return socket.gethostname()
