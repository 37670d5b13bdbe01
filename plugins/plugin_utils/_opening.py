# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Open a deployment: from variables and targets to a plan in the record."""

from __future__ import annotations

import dataclasses
import getpass
import socket
import time
import typing as t
from pathlib import Path

from ..module_utils._errors import PlanError, UsageError
from ..module_utils._plan import NO_PROVIDER, render_plan
from ..module_utils._plan_hash import plan_hash
from ..module_utils._saved_plan import Saved, first_difference, plan_difference
from ._alarms import refuse_active
from ._choosing import find_revision
from ._gates import alarms_of
from ._history import left_open
from ._planning import Endpoint, Plan, Settings, plan_deployment
from ._record import NewDeployment, group_id
from ._revisions import note_use, prune
from ._saving import load_saved, save, write_saved

if t.TYPE_CHECKING:
    from ._record import Deployment, Record, RevisionRow
    from ._saving import Situation

# In check mode nothing is written, but the plays still need a name for the deployment.
CHECK_ID = "d-CHECKONLY"


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
    situation: Situation | None = None,
) -> Opened:
    """Resolve the revision, make the plan and, unless checking, write both to the record.

    A deployment that has nothing to do has ended when this returns.

    :param settings: the public variables with their defaults
    :param endpoints: the targets in inventory order
    :param base: folder from which a relative path is looked up
    :param situation: what a saved plan is made of; needed for ``deploy_plan`` and
        ``deploy_plan_output``
    :raises BasculeError: nothing has been changed then
    """
    group = settings["deploy_group"]
    if not endpoints:
        raise UsageError(
            f"The deployment group {group} has no targets: no host of the inventory matches "
            f"{settings['deploy_targets']!r}. Set deploy_targets to a group or pattern of the "
            "inventory, and check --limit."
        )
    saved = None
    if settings["deploy_plan"]:
        saved = load_saved(base / Path(settings["deploy_plan"]).expanduser())
    revision = find_revision(
        strategy,
        settings,
        record=record,
        cache=cache,
        base=Path(saved["run"]["base"]) if saved else base,
        expected=saved["revision"]["digest"] if saved else None,
    )

    def saving(plan: Plan) -> Saved:
        if situation is None:
            raise UsageError("A plan can be saved and applied only by a run of a strategy.")
        salt = saved["salt"] if saved else None
        return save(
            strategy, settings, endpoints, revision, plan, situation, record=record, salt=salt
        )

    only_after = None
    if saved:
        now = saving({})
        _refuse_changes(saved, first_difference(saved, now))
        only_after = now["record"]["newest"] or ""
    plan = plan_deployment(
        strategy, settings, endpoints, revision.digest, record=record, cache=cache
    )
    if saved:
        _refuse_changes(saved, plan_difference(saved, plan))
    if settings["deploy_plan_output"]:
        if not check:
            raise UsageError(
                "deploy_plan_output saves a plan, and nothing must be deployed then: add --check."
            )
        write_saved(base / Path(settings["deploy_plan_output"]).expanduser(), saving(plan))
    text = render_plan(plan)
    new = new_deployment(strategy, settings, plan, revision, endpoints)
    if plan["targets"]:
        refuse_active(new.options.get("alarms"))
    if check:
        return Opened(planned_fact(new), fleet(plan, endpoints), plan, text)
    note_use(revision.digest, cache=cache)
    prune(cache, settings["deploy_cached_revisions"], record.needed_digests)
    created = record.create_deployment(dataclasses.replace(new, only_after=only_after))
    if not plan["targets"]:
        created = record.finish(created.id)
    return Opened(deployment_fact(created), fleet(plan, endpoints), plan, text)


def _refuse_changes(saved: Saved, difference: str) -> None:
    if difference:
        made = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(saved["made"]["at"]))
        raise PlanError(
            f"The plan that {saved['made']['by']} made at {made} does not hold any more: "
            f"{difference}. Nothing was changed. If that is meant to be, make the plan again."
        )


def resume_deployment(
    deployment_id: str, settings: Settings, *, record: Record, check: bool = False
) -> Opened:
    """Take up a deployment that was interrupted; its plan stays as it was made.

    Unless checking, it is taken over from the controller that carried it out; if only the lease
    tells whether that one is dead, this waits until the lease has run out.

    :raises UsageError: it has ended, or belongs to another deployment group
    :raises LeaseHeldError: its controller is alive
    """
    found = left_open(record.deployment(deployment_id), record)
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
    if not check:
        found = record.take_over(found.id, wait=True)
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
        "plan_hash": deployment.plan_hash,
        "revision": deployment.revision.source,
        "description": deployment.revision.description,
        "rollback_of": deployment.rollback_of,
        "follows": deployment.options.get("follows"),
        "error_code": deployment.error_code,
        "error_message": deployment.error_message,
        "fence": deployment.fence,
        **gated_facts(deployment.plan, deployment.options),
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
        "plan_hash": plan_hash(new.plan, new.revision.digest),
        "revision": new.revision.source,
        "description": new.revision.description,
        "rollback_of": None,
        "follows": None,
        "error_code": None,
        "error_message": "",
        "fence": None,
        **gated_facts(new.plan, new.options),
    }


def gated_facts(plan: Plan, options: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return what the plays have to know of gates and alarms.

    ``last_step`` is the name of the step in which the gates of the last stage are asked, empty if
    none are.
    """
    gates = plan.get("gates") or {}
    last = f"stage {len(plan['stages'])}" if gates.get("staged") and plan["stages"] else ""
    return {"last_step": last, "alarms": options.get("alarms")}


def new_deployment(
    strategy: str,
    settings: Settings,
    plan: Plan,
    revision: RevisionRow,
    endpoints: t.Sequence[Endpoint],
    *,
    creator: str = "user",
    follows: str | None = None,
) -> NewDeployment:
    """Return the deployment as it is written to the record.

    :param endpoints: the whole group, also what the plan leaves out
    :param follows: id of the deployment after which targets have joined
    """
    return NewDeployment(
        application=settings["deploy_application"],
        group=settings["deploy_group"],
        strategy=strategy,
        creator=creator,
        revision=revision,
        plan=plan,
        options={
            "rollback_on": [] if strategy == "rollback" else settings["deploy_rollback_on"],
            "endpoints": [dataclasses.asdict(endpoint) for endpoint in endpoints],
            "follows": follows,
            "mark_bad_on_failure": bool(settings["deploy_mark_bad_on_failure"]),
            "alarms": None if strategy == "rollback" else alarms_of(settings),
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
