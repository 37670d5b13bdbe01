# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known between deployments: revisions, where they are, how targets were left."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from ...module_utils._audit import MAIN
from ...module_utils._errors import RecordError
from ...module_utils._gate_rules import GATE_FAILED
from . import _audit
from ._close import group_digest, make_known
from ._known import fault_of_revision
from ._rows import BundleHolder, TargetState
from ._session import Query

if TYPE_CHECKING:
    from ._change import Change
    from ._rows import Deployment
    from ._session import Session


def mark_revision(session: Session, application: str, digest: str, *, bad: bool, why: str) -> None:
    """Mark a revision of an application as bad, or take the mark back."""
    values = {"bad": bad, "why": why}
    if not session.update("revisions", values, application=application, digest=digest):
        raise RecordError(
            f"The record has no revision {digest} of {application}: it was neither registered nor "
            "deployed. `bascule revisions list` tells what was."
        )
    action = "RevisionMarkedBad" if bad else "RevisionUnmarked"
    link = _audit.entry(action, time.time(), why=why, application=application, digest=digest)
    _audit.append(session, MAIN, [link])


def register_revision(
    session: Session, application: str, digest: str, *, source: str, description: str
) -> None:
    """Make a revision known that nobody has deployed yet; one that is known gets this place."""
    now = time.time()
    make_known(session, "applications", {"application": application}, {"created_at": now})
    name = {"application": application, "digest": digest}
    make_known(session, "revisions", name, {"first_seen_at": now, "bad": False, "why": ""})
    about = {"source": source, "description": description}
    session.update("revisions", {"registered": json.dumps(about)}, **name)
    _audit.append(session, MAIN, [_audit.entry("RevisionRegistered", now, detail=about, **name)])


def mark_at_fault(session: Session, failed: Deployment) -> None:
    """Mark the revision of a failed deployment bad, if one of its hooks or gates has failed."""
    why = fault_of_revision(session, failed.id)
    if not why and failed.error_code == GATE_FAILED:
        why = f"A gate failed in {failed.id}: {failed.error_message}"
    if why:
        digest = failed.revision.digest
        mark_revision(session, failed.application, digest, bad=True, why=why)


def target_states(session: Session, application: str, group: str) -> dict[str, TargetState]:
    """Return how the targets of a group were left, compared with the group's revision."""
    key = {"application": application, "deployment_group": group}
    current = group_digest(session, application, group)
    return {
        row["target"]: TargetState(
            health=row["health"],
            revision_state=_revision_state(row["digest"], current),
            digest=row["digest"],
        )
        for row in session.rows(Query(table="target_states", equals=key, order=("target",)))
    }


def _revision_state(digest: str | None, current: str | None) -> str:
    if digest is None:
        return "Unknown"
    return "Current" if digest == current else "Old"


def note_bundle(change: Change, target: str) -> None:
    """Write down that the deployment's bundle was delivered to a target."""
    deployment = change.deployment
    key = {
        "application": deployment["application"],
        "deployment_group": deployment["deployment_group"],
        "target": target,
        "digest": deployment["digest"],
    }
    if not change.session.rows(Query(table="bundles", equals=key)):
        row = {**key, "delivered_at": change.now}
        change.session.insert("bundles", [row])


def has_bundle(session: Session, application: str, group: str, target: str, digest: str) -> bool:
    """Whether a bundle was delivered to a target before."""
    key = {
        "application": application,
        "deployment_group": group,
        "target": target,
        "digest": digest,
    }
    return bool(session.rows(Query(table="bundles", equals=key)))


def revision_holders(session: Session, digest: str) -> list[BundleHolder]:
    """Return the targets that a bundle was delivered to."""
    query = Query(
        table="bundles",
        equals={"digest": digest},
        order=("application", "deployment_group", "target"),
    )
    return [
        BundleHolder(
            application=row["application"],
            group=row["deployment_group"],
            target=row["target"],
            delivered_at=row["delivered_at"],
        )
        for row in session.rows(query)
    ]
