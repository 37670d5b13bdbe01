# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The deployment that makes a fresh baseline, and the one of the canaries that follows it.

The baseline is a deployment of its own: it takes slots, drains and returns its targets, is resumed
and stopped as any other. It carries the one that follows in its options, and the transaction that
ends it opens that one, so nobody comes between.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ..module_utils._plan import PlanTarget, make_plan
from ._record import NewDeployment, RevisionRow

if t.TYPE_CHECKING:
    from ._record import Deployment, Record

# The option of a baseline under which the deployment that follows it is kept.
THEN = "then"


def is_baseline(deployment: Deployment) -> bool:
    """Tell whether a deployment makes the baseline of one that follows."""
    return THEN in deployment.options


def baseline_before(new: NewDeployment, record: Record) -> NewDeployment | None:
    """Return the deployment that makes the baseline of another; None if that needs none.

    Its failure is no fault of the revision, which has been good before; nothing is rolled back.
    """
    wanted = new.plan.get("baseline")
    good = record.good_deployment(new.application, new.group) if wanted else None
    if not wanted or good is None:
        return None
    known = {target["name"]: target for target in new.plan["targets"]}
    targets = [
        PlanTarget(
            name=name,
            zone=known.get(name, {}).get("zone", ""),
            health="Healthy",
            digest=wanted["digest"],
        )
        for name in wanted["targets"]
    ]
    endpoints = [one["target"] for one in new.options["endpoints"]]
    plan = make_plan(
        new.strategy,
        targets,
        digest=wanted["digest"],
        minimum=new.plan["minimum_healthy"],
        stages=[len(targets)],
        provider=new.plan["provider"],
        current=wanted["digest"],
        left_out=[name for name in endpoints if name not in wanted["targets"]],
        total=new.plan["total"],
    )
    return NewDeployment(
        application=new.application,
        group=new.group,
        strategy=new.strategy,
        revision=good.revision,
        plan={**plan, "warnings": []},
        description=f"Fresh baseline of {new.description or new.revision.digest[:12]}",
        options={
            "rollback_on": [],
            "endpoints": new.options["endpoints"],
            "pool_endpoints": {},
            "pool_of": new.options.get("pool_of") or {},
            "follows": None,
            "mark_bad_on_failure": False,
            "alarms": new.options.get("alarms"),
            "scaling": new.options.get("scaling"),
            THEN: dataclasses.asdict(new),
        },
        started_by=new.started_by,
        started_from=new.started_from,
    )


def deployment_after(baseline: Deployment) -> NewDeployment:
    """Return the deployment that follows a baseline, with the option ``baseline``: its id."""
    kept = dict(baseline.options[THEN])
    kept["revision"] = RevisionRow(**kept["revision"])
    kept["options"] = {**kept["options"], "baseline": baseline.id}
    return NewDeployment(**kept)


def follower_of(baseline: Deployment, record: Record) -> Deployment | None:
    """Return the deployment that was opened when a baseline had succeeded."""
    for one in record.deployments(baseline.application, baseline.group, limit=50):
        if one.options.get("baseline") == baseline.id:
            return one
    return None
