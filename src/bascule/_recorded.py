"""What the record knows, in the types of the API."""

from __future__ import annotations

import difflib
import typing as t
from contextlib import contextmanager
from dataclasses import replace

from ansible_collections.bascule.deploy.plugins.module_utils._errors import RecordError, UsageError

from bascule.result import Deployment, Failure, Revision, Target

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ansible_collections.bascule.deploy.plugins.plugin_utils import _record

# How far back to look for an id or a name that is like the one that was not found.
LOOK_BACK = 500


@contextmanager
def opened(url: str | None = None, *, patient: bool = False) -> Iterator[_record.Record]:
    """Open the record at ``url``, or the one the environment names.

    :param patient: wait for a minute where it is away later
    :raises RecordError: it cannot be opened
    """
    from ansible_collections.bascule.deploy.plugins.plugin_utils._record import (
        PATIENCE_SECONDS,
        Record,
    )

    with Record.open(url, patience=PATIENCE_SECONDS if patient else 0.0) as record:
        yield record


def find(record: _record.Record, deployment_id: str) -> _record.Deployment:
    """Return a deployment.

    :raises UsageError: there is none of this id; the message names the nearest known ones
    """
    try:
        return record.deployment(deployment_id)
    except RecordError:
        known = [deployment.id for deployment in record.deployments(limit=LOOK_BACK)]
        where = f"the record {record.url}"
        raise UsageError(unknown("deployment", deployment_id, known, where)) from None


def check_target(record: _record.Record, found: _record.Deployment, target: str) -> None:
    """Refuse a target that a deployment does not have.

    :raises UsageError: the message names the nearest known ones
    """
    known = [one.name for one in record.targets(found.id)]
    if target not in known:
        raise UsageError(unknown("target", target, known, found.id))


def standing_of(record: _record.Record, found: _record.Deployment) -> Deployment:
    """Return a deployment with its targets, who carries it out, and whose answers it had."""
    lease = record.lease(found.id)
    return replace(
        deployment_of(found, record.targets(found.id)),
        lease={**lease.as_dict(), "text": lease.text()} if lease else None,
        approvals=tuple({**one.as_dict(), "what": one.what} for one in record.approvals(found.id)),
        gates=tuple(one.as_dict() for one in record.gate_runs(found.id)),
        steps=tuple(one.as_dict() for one in record.steps(found.id)),
        routing=tuple(one.as_dict() for one in record.routing_changes(found.id)),
        alarms=alarms.as_dict() if (alarms := record.alarms(found.id)) else None,
    )


def newest_of(record: _record.Record, name: str) -> list[_record.Deployment]:
    """Return the deployments of ``GROUP`` or ``APPLICATION/GROUP``, newest first.

    :raises UsageError: nothing of that name was ever deployed, or several applications have it
    """
    application, _, group = name.rpartition("/")
    found = record.deployments(application=application or None, group=group, limit=LOOK_BACK)
    owners = sorted({deployment.application for deployment in found})
    if len(owners) > 1:
        names = ", ".join(f"{owner}/{group}" for owner in owners)
        raise UsageError(f"Several applications have a deployment group {group}: say {names}.")
    if not found:
        every = record.deployments(limit=LOOK_BACK)
        known = [f"{one.application}/{one.group}" for one in every] + [one.group for one in every]
        raise UsageError(unknown("deployment group", name, known, f"the record {record.url}"))
    return found


def unknown(what: str, name: str, known: Sequence[str], where: str) -> str:
    """Return the message for a name that is not ``where`` it was looked for."""
    distinct = list(dict.fromkeys(known))
    near = difflib.get_close_matches(name, distinct, n=3, cutoff=0.4) or distinct[:3]
    hint = f"The nearest known: {', '.join(near)}." if near else "The record is empty."
    return f"There is no {what} {name} in {where}. {hint}"


def deployment_of(found: _record.Deployment, targets: Sequence[_record.Target] = ()) -> Deployment:
    """Return a deployment of the record as the API gives it."""
    error = None
    if found.error_code or found.error_message:
        error = Failure(kind=found.error_code or "failed", message=found.error_message)
    return Deployment(
        id=found.id,
        status=found.status,
        strategy=found.strategy,
        application=found.application,
        group=found.group,
        revision=Revision(
            digest=found.revision.digest,
            source=found.revision.source,
            description=found.revision.description,
        ),
        previous_digest=found.previous_digest,
        targets=tuple(_target_of(target) for target in targets),
        overview=dict(found.overview),
        plan=found.plan,
        plan_hash=found.plan_hash or "",
        creator=found.creator,
        rollback_of=found.rollback_of,
        follows=found.options.get("follows"),
        rolled_back_by=found.rolled_back_by,
        error=error,
        created_at=found.created_at,
        finished_at=found.finished_at,
        started_by=found.started_by,
        started_from=found.started_from,
        paused_at=found.paused_at,
        pause_reason=found.pause_reason,
        stop_requested_by=found.stop_requested_by,
    )


def _target_of(target: _record.Target) -> Target:
    return Target(
        name=target.name,
        status=target.status,
        changed=target.changed,
        in_service=target.in_service,
        error_code=target.error_code,
        message=target.message,
        started_at=target.started_at,
        finished_at=target.finished_at,
    )
