# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the record knows of groups and revisions, for those who plan and those who ask."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ._rows import RevisionRow
from ._session import Query

if TYPE_CHECKING:
    from ._session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupState:
    """The group's revision: that of its newest successful deployment, ``deployment_id``."""

    digest: str
    deployment_id: str
    updated_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GoodDeployment:
    """A deployment that a rollback would go back to."""

    id: str
    finished_at: float
    revision: RevisionRow


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownRevision:
    """A revision of an application as its deployments know it.

    ``groups`` are the deployment groups whose revision it is; ``deployments`` counts its
    deployments by their status; ``source`` and ``description`` are those of the newest one, or of
    what was registered where there is none.
    """

    application: str
    digest: str
    source: str
    description: str
    first_seen_at: float
    bad: bool
    why: str
    groups: tuple[str, ...]
    deployments: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Return the same as plain data, for JSON."""
        return asdict(self)


def group_state(session: Session, application: str, group: str) -> GroupState | None:
    """Return the group's revision, None where nothing has succeeded yet."""
    key = {"application": application, "deployment_group": group}
    found = session.rows(Query(table="groups", equals=key))
    if not found or found[0]["digest"] is None:
        return None
    return GroupState(
        digest=found[0]["digest"],
        deployment_id=found[0]["deployment_id"],
        updated_at=found[0]["updated_at"],
    )


def bad_revisions(session: Session, application: str) -> dict[str, str]:
    """Return the digests that are marked bad, each with the reason."""
    query = Query(
        table="revisions",
        columns=("digest", "why"),
        equals={"application": application, "bad": True},
    )
    return {row["digest"]: row["why"] for row in session.rows(query)}


def good_deployment(session: Session, application: str, group: str) -> GoodDeployment | None:
    """Return the newest successful deployment whose revision is not marked bad."""
    bad = bad_revisions(session, application)
    key = {"application": application, "deployment_group": group, "status": "Succeeded"}
    succeeded = Query(
        table="deployments", columns=("digest",), equals=key, tally=True, latest="number"
    )
    good = [row["latest"] for row in session.rows(succeeded) if row["digest"] not in bad]
    if not good:
        return None
    wanted = Query(
        table="deployments",
        columns=("id", "finished_at", "revision"),
        equals={"number": max(good)},
    )
    row = session.rows(wanted)[0]
    return GoodDeployment(
        id=row["id"],
        finished_at=row["finished_at"],
        revision=RevisionRow(**json.loads(row["revision"])),
    )


def needed_digests(session: Session, newest: int) -> set[str]:
    """Return the revisions that a run may still need the bundles of.

    Those of the deployments that have not ended, and of each group its own, the one that a rollback
    leads to and those of its ``newest`` successful deployments.
    """
    needed: set[str] = set()
    for row in session.rows(Query(table="active", columns=("deployment_id",))):
        query = Query(table="deployments", columns=("digest",), equals={"id": row["deployment_id"]})
        needed |= {one["digest"] for one in session.rows(query)}
    for row in session.rows(Query(table="groups")):
        application, group = row["application"], row["deployment_group"]
        good = good_deployment(session, application, group)
        needed |= {row["digest"]} | ({good.revision.digest} if good else set())
        key = {"application": application, "deployment_group": group, "status": "Succeeded"}
        query = Query(
            table="deployments", columns=("digest",), equals=key, order=("-number",), limit=newest
        )
        needed |= {one["digest"] for one in session.rows(query)}
    return needed - {None}


def fault_of_revision(session: Session, deployment_id: str) -> str:
    """Return which hook or health gate of the deployed revision has failed first; empty if none.

    A script of the revision before, and a host that was lost, say nothing about this revision.
    """
    from ...module_utils._host._events import GATE, OF_PREVIOUS

    query = Query(
        table="events",
        columns=("target", "event", "error_code", "message"),
        equals={"deployment_id": deployment_id, "kind": "lifecycle", "status": "Failed"},
        order=("sequence",),
    )
    for row in session.rows(query):
        if row["event"] in OF_PREVIOUS:
            continue
        if row["event"] == GATE or str(row["error_code"]).startswith("Script"):
            return f"{row['event']} failed on {row['target']} in {deployment_id}: {row['message']}"
    return ""


def revisions(session: Session, application: str | None) -> list[KnownRevision]:
    """Return the revisions of an application (or of all), the newest first.

    Those that were only registered come before those that were deployed.
    """
    key = {} if application is None else {"application": application}
    newest: dict[tuple[str, str], int] = {}
    counted: dict[tuple[str, str], dict[str, int]] = {}
    tally = Query(
        table="deployments",
        columns=("application", "digest", "status"),
        equals=key,
        tally=True,
        latest="number",
    )
    for row in session.rows(tally):
        name = (row["application"], row["digest"])
        newest[name] = max(newest.get(name, 0), row["latest"])
        counted.setdefault(name, {})[row["status"]] = row["n"]
    groups: dict[tuple[str, str], list[str]] = {}
    for row in session.rows(Query(table="groups", equals=key, order=("deployment_group",))):
        groups.setdefault((row["application"], row["digest"]), []).append(row["deployment_group"])
    found = []
    for row in session.rows(Query(table="revisions", equals=key)):
        name = (row["application"], row["digest"])
        about = _about(session, newest.get(name)) or json.loads(row["registered"] or "{}")
        found.append(
            KnownRevision(
                application=row["application"],
                digest=row["digest"],
                source=about.get("source", ""),
                description=about.get("description", ""),
                first_seen_at=row["first_seen_at"],
                bad=bool(row["bad"]),
                why=row["why"],
                groups=tuple(groups.get(name, ())),
                deployments=counted.get(name, {}),
            )
        )

    def age(one: KnownRevision) -> tuple[float, float]:
        return newest.get((one.application, one.digest), math.inf), one.first_seen_at

    return sorted(found, key=age, reverse=True)


def _about(session: Session, number: int | None) -> dict[str, Any]:
    if number is None:
        return {}
    query = Query(table="deployments", columns=("revision",), equals={"number": number})
    about: dict[str, Any] = json.loads(session.rows(query)[0]["revision"])
    return about
