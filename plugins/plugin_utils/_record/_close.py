# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The beginning and the end of a deployment, and what is kept about its group between two."""

from __future__ import annotations

import json
import string
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ...module_utils._admission import conclude
from ...module_utils._errors import RecordError
from ...module_utils._plan_hash import plan_hash
from . import _sharing, _shifting
from ._admit import counts_from, tally_query, zones_of
from ._change import Change
from ._holder import host, this_controller, user
from ._lease import fence_off, held_by
from ._rows import ClaimedError
from ._session import DuplicateError, Query, Row, Session

if TYPE_CHECKING:
    from ._rows import NewDeployment

_ID_LETTERS = string.ascii_uppercase + string.digits


def new_id() -> str:
    """Make a deployment id in CodeDeploy's form."""
    import secrets  # here and below: not needed to read, and slow to import

    return "d-" + "".join(secrets.choice(_ID_LETTERS) for _place in range(9))


def create(
    session: Session,
    new: NewDeployment,
    deployment_id: str,
    now: float,
    *,
    fence: int | None = None,
) -> None:
    """Write a deployment, its targets and its claim on the group.

    The claim is written first: its primary key refuses it while another deployment holds the
    group, which raises ClaimedError. A rollback takes the group over from the deployment that
    it rolls back, whose ``fence`` it needs.
    """
    group = {"application": new.application, "deployment_group": new.group}
    if new.rollback_of is not None:
        failed = Change(session, new.rollback_of, now, fence=fence)
        finish(failed)
        failed.write()
    held = held_by(this_controller(), session.now())
    claim = {**group, "deployment_id": deployment_id, **held}
    try:
        session.insert("active", [claim])
    except DuplicateError:
        raise ClaimedError from None
    if new.only_after is not None:
        _refuse_unless_newest(session, group, new.only_after)
    session.insert("deployments", [_deployment_row(session, new, deployment_id, now)])
    targets = _target_rows(session, new, deployment_id)
    if targets:
        session.insert("targets", targets)
    _shifting.create(session, deployment_id, new.plan.get("schedule") or ())
    revision = {"application": new.application, "digest": new.revision.digest}
    make_known(session, "applications", {"application": new.application}, {"created_at": now})
    unmarked = {"first_seen_at": now, "bad": False, "why": ""}
    make_known(session, "revisions", revision, unmarked)
    if new.rollback_of is not None:
        session.update("deployments", {"rolled_back_by": deployment_id}, id=new.rollback_of)
    change = Change(session, deployment_id, now)
    change.note("Created", status="Created", message=f"{new.strategy} of {new.revision.digest}")
    about = {
        "strategy": new.strategy, "creator": new.creator, "rollback_of": new.rollback_of,
        "started_by": new.started_by or user(), "started_from": new.started_from or host(),
    }  # fmt: skip
    change.audit_in_main("DeploymentCreated", about)
    change.write()


def make_known(session: Session, table: str, key: dict[str, Any], values: dict[str, Any]) -> None:
    """Add a row unless it is there.

    :raises ClaimedError: another transaction adds it now; it is there when this one is repeated
    """
    if not session.rows(Query(table=table, equals=key)):
        try:
            session.insert(table, [{**key, **values}])
        except DuplicateError:
            raise ClaimedError from None


def _refuse_unless_newest(session: Session, group: dict[str, str], wanted: str) -> None:
    query = Query(table="deployments", columns=("id",), equals=group, order=("-number",), limit=1)
    newest = next((row["id"] for row in session.rows(query)), "")
    if newest != wanted:
        raise RecordError(
            f"The deployment {newest} ran while this one was being opened; wanted was that nothing "
            f"comes after {wanted or 'the beginning'}. Nothing was changed. Plan again."
        )


def _deployment_row(
    session: Session, new: NewDeployment, deployment_id: str, now: float
) -> dict[str, Any]:
    plan = new.plan
    previous = new.previous_digest
    if previous is None:
        previous = group_digest(session, new.application, new.group)
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
        "started_by": new.started_by or user(), "started_from": new.started_from or host(),
        "fence": 1, "plan_hash": plan_hash(plan, new.revision.digest),
        "approval": json.dumps(plan["approval"]) if plan.get("approval") else None,
        "zonal": json.dumps(plan["zonal"]) if plan.get("zonal") else None,
        "gated": bool((plan.get("gates") or {}).get("staged")),
    }  # fmt: skip


def _target_rows(session: Session, new: NewDeployment, deployment_id: str) -> list[dict[str, Any]]:
    out = _left_out_of_service(session, new.rollback_of)
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


def _left_out_of_service(session: Session, rollback_of: str | None) -> set[str]:
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
        for row in session.rows(query)
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
    groups = change.session.rows(tally_query(deployment["id"]))
    counts = counts_from(groups, deployment["total"])
    outcome = conclude(
        counts,
        deployment["minimum_healthy"],
        deployment["error_code"],
        zones_of(deployment, groups),
    )
    message = deployment["error_message"] or outcome.message
    status, code = outcome.status, outcome.error_code
    left = _shifting.undone(change.session, deployment["id"])
    if status == "Succeeded" and left is not None:
        status, code = "Failed", "INTERNAL_ERROR"
        message = f"It ended before step {left.number}: {left.told}."
    _end(change, status, code, message, "Finished")


def abandon(change: Change, why: str) -> None:
    """End the deployment as Stopped, whatever its targets are doing; its workers are fenced off."""
    fence_off(change)
    _end(change, "Stopped", "MANUAL_STOP", f"Abandoned: {why}" if why else "Abandoned", "Abandoned")


def _end(change: Change, status: str, code: str | None, message: str, event: str) -> None:
    session, deployment_id = change.session, change.deployment["id"]
    skipped = {"status": "Skipped", "finished_at": change.now}
    session.update("targets", skipped, deployment_id=deployment_id, status="Pending")
    # What was begun may have changed the target: a rollback has to bring it back.
    unknown = {"status": "Unknown", "finished_at": change.now, "changed": True}
    session.update("targets", unknown, deployment_id=deployment_id, status="InProgress")
    _shifting.skip_rest(change)
    _keep_states(change, succeeded=status == "Succeeded")
    session.delete("active", deployment_id=deployment_id)
    _sharing.forget(session, str(deployment_id))
    change.set_deployment(
        status=status, error_code=code, error_message=message, finished_at=change.now
    )
    change.note(event, status=status, error_code=code, message=message)
    change.audit_in_main("DeploymentEnded", {"status": status, "error_code": code})


def _keep_states(change: Change, *, succeeded: bool) -> None:
    """Write down how the targets were left (codedeploy: instance health and revision state).

    A target that failed before it was begun still runs what it ran; of one that was begun and
    did not succeed, the revision is unknown. Skipped targets stay as they were.
    """
    session, deployment = change.session, change.deployment
    group = {key: deployment[key] for key in ("application", "deployment_group")}
    states = {
        row["target"]: row for row in session.rows(Query(table="target_states", equals=group))
    }
    targets = Query(
        table="targets",
        columns=("name", "status", "started_at"),
        equals={"deployment_id": deployment["id"]},
    )
    for target in session.rows(targets):
        name, status = target["name"], target["status"]
        if status == "Skipped":
            continue
        digest = None
        if status == "Succeeded":
            digest = deployment["digest"]
        elif target["started_at"] is None and name in states:
            digest = states[name]["digest"]
        states[name] = {
            **group,
            "target": name,
            "digest": digest,
            "health": "Healthy" if status == "Succeeded" else "Unhealthy",
            "deployment_id": deployment["id"],
            "updated_at": change.now,
        }
    if succeeded:
        for name in _brought_back(session, deployment):
            states[name] = {
                **group, "target": name, "digest": deployment["digest"], "health": "Healthy",
                "deployment_id": deployment["id"], "updated_at": change.now,
            }  # fmt: skip
    session.delete("target_states", **group)
    if states:
        session.insert("target_states", list(states.values()))
    if succeeded:
        session.delete("groups", **group)
        row = {"digest": deployment["digest"], "deployment_id": deployment["id"]}
        session.insert("groups", [{**group, **row, "updated_at": change.now}])


def _brought_back(session: Session, deployment: Row) -> list[str]:
    """Return the functions whose alias a rollback has moved back: the traffic alone, no target."""
    failed = deployment["rollback_of"]
    if failed is None:
        return []
    query = Query(table="function_versions", columns=("target",), equals={"deployment_id": failed})
    return [row["target"] for row in session.rows(query)]


def group_digest(session: Session, application: str, group: str) -> str | None:
    """Return the digest of the group's revision: that of its newest successful deployment."""
    key = {"application": application, "deployment_group": group}
    found = session.rows(Query(table="groups", columns=("digest",), equals=key))
    return found[0]["digest"] if found else None
