# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Open a deployment: from variables and targets to a plan in the record."""

from __future__ import annotations

import dataclasses
import getpass
import socket
import typing as t

from ..module_utils._configuration import parse_duration, parse_minimum_healthy, parse_stages
from ..module_utils._errors import ArchiveError, UsageError
from ..module_utils._host._links import leaving, refusal
from ..module_utils._plan import NO_PROVIDER, PlanTarget, make_plan, render_plan
from ._history import rollback_revision
from ._record import NewDeployment, RevisionRow, group_id
from ._revisions import Revision, load_revision, resolve
from ._settings import require

if t.TYPE_CHECKING:
    from pathlib import Path

    from ._record import Deployment, Record
    from ._revisions import Revision

# In check mode nothing is written, but the plays still need a name for the deployment.
CHECK_ID = "d-CHECKONLY"

Settings = dict[str, t.Any]
Plan = dict[str, t.Any]


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A target as the inventory and the load balancer know it."""

    target: str
    name: str
    address: str
    port: int
    zone: str

    def at_load_balancer(self) -> dict[str, t.Any]:
        """Return the endpoint as the action ``traffic`` takes it."""
        return {
            "target": self.target,
            "name": self.name,
            "address": self.address,
            "port": self.port,
        }


@dataclasses.dataclass(frozen=True)
class Opened:
    """What the plays after the opening need to know."""

    deployment: dict[str, t.Any]
    fleet: dict[str, t.Any]
    plan: Plan
    plan_text: str


def open_deployment(
    strategy: str,
    settings: Settings,
    endpoints: t.Sequence[Endpoint],
    *,
    record: Record,
    cache: Path,
    base: Path,
    check: bool,
) -> Opened:
    """Resolve the revision, make the plan and, unless checking, write both to the record.

    :param settings: the public variables with their defaults
    :param endpoints: the targets in inventory order
    :param base: folder from which a relative revision path is looked up
    :raises BasculeError: nothing has been changed then
    """
    group = settings["deploy_group"]
    if not endpoints:
        raise UsageError(
            f"The deployment group {group} has no targets: no host of the inventory matches "
            f"{settings['deploy_targets']!r}. Set deploy_targets to a group or pattern of the "
            "inventory, and check --limit."
        )
    revision = find_revision(strategy, settings, record=record, cache=cache, base=base)
    plan = plan_deployment(strategy, settings, endpoints, revision.digest, record=record)
    text = render_plan(plan)
    new = new_deployment(strategy, settings, plan, revision, endpoints)
    fact = planned_fact(new) if check else deployment_fact(record.create_deployment(new))
    return Opened(fact, fleet(plan, endpoints), plan, text)


def resume_deployment(deployment_id: str, settings: Settings, *, record: Record) -> Opened:
    """Take up a deployment that was interrupted; its plan stays as it was made.

    :raises UsageError: it has ended, or belongs to another deployment group
    """
    found = record.deployment(deployment_id)
    if found.is_final:
        raise UsageError(
            f"The deployment {found.id} has ended as {found.status}; there is nothing to resume."
        )
    asked = settings["deploy_application"], settings["deploy_group"]
    if asked != (found.application, found.group):
        raise UsageError(
            f"The deployment {found.id} belongs to {found.application}/{found.group}, but the "
            f"variables name {asked[0]}/{asked[1]}. Resume it with the variables it had."
        )
    endpoints = [Endpoint(**endpoint) for endpoint in found.options["endpoints"]]
    fact = {**deployment_fact(found), "resumed": True}
    return Opened(fact, fleet(found.plan, endpoints), found.plan, render_plan(found.plan))


def deployment_fact(deployment: Deployment) -> dict[str, t.Any]:
    """Return a deployment as the plays and the callbacks know it."""
    return {
        "id": deployment.id,
        "status": deployment.status,
        "creator": deployment.creator,
        "application": deployment.application,
        "group": deployment.group,
        "group_id": deployment.group_id,
        "strategy": deployment.strategy,
        "digest": deployment.revision.digest,
        "revision": deployment.revision.source,
        "description": deployment.revision.description,
        "rollback_of": deployment.rollback_of,
        "error_code": deployment.error_code,
        "error_message": deployment.error_message,
    }


def planned_fact(new: NewDeployment) -> dict[str, t.Any]:
    """Return the same for a deployment that is only checked and in no record."""
    return {
        "id": CHECK_ID,
        "status": "Created",
        "creator": new.creator,
        "application": new.application,
        "group": new.group,
        "group_id": group_id(new.application, new.group),
        "strategy": new.strategy,
        "digest": new.revision.digest,
        "revision": new.revision.source,
        "description": new.revision.description,
        "rollback_of": None,
        "error_code": None,
        "error_message": "",
    }


def find_revision(
    strategy: str, settings: Settings, *, record: Record, cache: Path, base: Path
) -> RevisionRow:
    """Return the revision to deploy: the one that was named, or the one to go back to.

    :raises UsageError: none was named, or there is none to go back to
    """
    if strategy != "rollback":
        source = require(settings, "deploy_revision", "./my-bundle")
        revision = resolve(
            source,
            cache=cache,
            checksum=settings["deploy_revision_checksum"] or None,
            subdirectory=settings["deploy_revision_subdirectory"] or None,
            base=base,
        )
        if not settings["deploy_allow_outside_links"]:
            refuse_outside_links(revision)
        return as_row(revision)
    application, group = settings["deploy_application"], settings["deploy_group"]
    deployments = record.deployments(application, group, limit=1000)
    found = rollback_revision(deployments, to=settings["deploy_rollback_to"])
    cached = load_revision(found.digest, cache=cache)
    return as_row(cached) if cached else found


def refuse_outside_links(revision: Revision) -> None:
    """Refuse a revision with links that lead out of it, before any host has to.

    :raises ArchiveError: naming the first one
    """
    links = {entry["path"]: entry["target"] for entry in revision.manifest if entry["target"]}
    names = leaving(links)
    if names:
        raise ArchiveError(refusal(names, links))


def as_row(revision: Revision) -> RevisionRow:
    """Return a revision as the record keeps it: without its list of files."""
    return RevisionRow(
        digest=revision.digest,
        source=revision.source,
        description=revision.description,
        bundle_sha256=revision.bundle_sha256,
        bundle_size=revision.bundle_size,
        bundle_type=revision.bundle_type,
        bundle_path=revision.bundle_path,
        appspec=revision.appspec,
        environment=revision.environment,
    )


def plan_deployment(
    strategy: str,
    settings: Settings,
    endpoints: t.Sequence[Endpoint],
    digest: str,
    *,
    record: Record,
) -> Plan:
    """Return the plan for the targets as the record last saw them."""
    application, group = settings["deploy_application"], settings["deploy_group"]
    states = record.target_states(application, group)
    total = len(endpoints)
    good = record.last_known_good(application, group)
    if settings["deploy_minimum_healthy_hosts"] in ("", None):
        minimum = parse_minimum_healthy(settings["deploy_configuration"], "deploy_configuration")
    else:
        minimum = parse_minimum_healthy(
            settings["deploy_minimum_healthy_hosts"], "deploy_minimum_healthy_hosts"
        )
    return make_plan(
        strategy=strategy,
        targets=[
            PlanTarget(
                name=endpoint.target,
                zone=endpoint.zone,
                health=states[endpoint.target].health if endpoint.target in states else "Unknown",
                digest=states[endpoint.target].digest if endpoint.target in states else None,
            )
            for endpoint in endpoints
        ],
        digest=digest,
        minimum=minimum.of(total),
        stages=parse_stages(settings["deploy_stages"], total),
        bake_time=parse_duration(settings["deploy_bake_time"], "deploy_bake_time"),
        provider=settings["deploy_traffic_provider"],
        rollback_digest=good.digest if good else None,
    )


def new_deployment(
    strategy: str,
    settings: Settings,
    plan: Plan,
    revision: RevisionRow,
    endpoints: t.Sequence[Endpoint],
) -> NewDeployment:
    """Return the deployment as it is written to the record."""
    return NewDeployment(
        application=settings["deploy_application"],
        group=settings["deploy_group"],
        strategy=strategy,
        creator="user",
        revision=revision,
        plan=plan,
        options={
            "rollback_on": [] if strategy == "rollback" else settings["deploy_rollback_on"],
            "endpoints": [dataclasses.asdict(endpoint) for endpoint in endpoints],
        },
        description=settings["deploy_description"],
        rollback_of=None,
        started_by=getpass.getuser(),
        started_from=socket.gethostname(),
    )


def fleet(plan: Plan, endpoints: t.Sequence[Endpoint]) -> dict[str, t.Any]:
    """Return the facts the plays are built from: targets in plan order, batches, endpoints."""
    known = {endpoint.target: endpoint for endpoint in endpoints}
    order = [name for stage in plan["stages"] for name in stage]
    balanced = plan["provider"] not in NO_PROVIDER
    return {
        "targets": order,
        # A task that is skipped costs as much as one that runs: each way has its own tasks.
        "direct": [] if balanced else order,
        "balanced": order if balanced else [],
        # Their host may say that all is done, but they never came back into service.
        "unhealthy": [one["name"] for one in plan["targets"] if one["health"] == "Unhealthy"],
        "serial": [len(stage) for stage in plan["stages"]] or [1],
        "endpoints": [known[name].at_load_balancer() for name in order],
    }
