# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deployment does with one function, and what of it is written down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...module_utils._errors import BasculeError
from . import _hooks
from ._publish import publish, refuse_latest, refuse_other_role
from ._revision import function_in
from ._service import Service
from ._tidy import delete_old_versions

if TYPE_CHECKING:
    from pathlib import Path

    from ...module_utils._functions import FunctionSettings
    from .._record import Deployment, FunctionVersion, Record

# As CodeDeploy names a hook of Lambda that has failed.
HOOK_FAILED = "HOOK_EXECUTION_FAILURE"


@dataclass(frozen=True)
class Brought:
    """The version that a function has got; ``sent`` are bytes of its package."""

    row: FunctionVersion
    made: bool
    sent: int


def bring(record: Record, deployment: Deployment, one: FunctionSettings, *, cache: Path) -> Brought:
    """Publish the deployment's revision as a version of a function; no traffic reaches it yet.

    Its target has succeeded when the traffic is there (see ``settle``). Where the deployment is
    ending already, what was published before is only told.

    :raises BasculeError: it cannot be done; the target has failed then, no traffic was touched
    """
    known = record.functions(deployment.id).get(one.target)
    if known is not None and deployment.error_code is not None:
        return Brought(known, made=False, sent=0)
    try:
        return _bring(record, deployment, one, cache=cache)
    except BasculeError as error:
        record.settle(
            deployment.id, one.target, "Failed", error_code=error.kind, message=str(error)
        )
        raise


def _bring(
    record: Record, deployment: Deployment, one: FunctionSettings, *, cache: Path
) -> Brought:
    service = Service()
    wanted = function_in(deployment.revision, one.target)
    function, name = wanted["function"], wanted["alias"]
    alias = service.alias(function, name)
    refuse_latest(function, name, alias)
    history = record.function_history(function, name, deployment.revision.digest)
    description = f"{deployment.revision.description} ({deployment.id})"[:256]
    found = publish(service, one, wanted, history, cache=cache, description=description)
    old = alias.version if alias is not None else None
    if any(0 < step.get("share", 0) < 100 for step in deployment.plan.get("schedule") or ()):
        refuse_other_role(service, function, old, found.version)
    row = record.note_function(
        deployment.id,
        one.target,
        function=function,
        alias=name,
        old_version=old,
        version=found.version,
        code_sha256=wanted["code_sha256"],
    )
    record.note_staged(deployment.id, one.target, digest_present=True)
    sent = deployment.revision.bundle_size if found.made and not wanted["place"] else 0
    return Brought(row, found.made, sent)


def ask_hook(
    record: Record,
    deployment: Deployment,
    target: str,
    event: str,
    *,
    listen: str,
    limit: float,
    begun: bool = False,
) -> list[dict[str, Any]]:
    """Ask the hook of an event and write down how it ended; one that has passed is not asked again.

    :param listen: where functions may answer, ``ADDRESS:PORT``; empty where they cannot
    :param limit: seconds that it has
    :param begun: a step of the schedule asks, which is begun only where it is to be asked
    :returns: the event as the record keeps it; none where there is no hook
    """
    hook = function_in(deployment.revision, target)["hooks"].get(event)
    waits = deployment.error_code is not None or deployment.paused_at is not None
    if not hook or (waits and not begun):
        return []
    for known in record.events(deployment.id, target):
        if (known.kind, known.event, known.status) == ("lifecycle", event, "Succeeded"):
            return []
    answers = _hooks.Answers()
    with _hooks.endpoint(listen, answers):
        outcome = _hooks.run_hook(hook, deployment.id, answers, offered=bool(listen), limit=limit)
    told = {
        "event": event,
        "status": outcome.status,
        "started": outcome.started,
        "ended": outcome.ended,
        "error_code": None if outcome.status == _hooks.SUCCEEDED else HOOK_FAILED,
        "script": hook,
        "message": outcome.message,
        "log": "",
    }
    record.add_events(deployment.id, target, [told])
    return [told]


def settle(record: Record, deployment: Deployment, target: str) -> str:
    """Write down how a function ended, when nothing more is done for it in this deployment.

    It has succeeded when all steps have and so all of its traffic is at the new version; it has
    failed with the deployment. Nothing is written while the deployment waits to be resumed.

    :returns: Succeeded, Failed, or an empty text where it was settled before or is not yet
    """
    undecided = any(
        one.name == target and one.status == "InProgress" for one in record.targets(deployment.id)
    )
    if not undecided or target not in record.functions(deployment.id):
        return ""
    if deployment.error_code is not None:
        record.settle(
            deployment.id,
            target,
            "Failed",
            error_code=deployment.error_code,
            message=deployment.error_message or "",
        )
        return "Failed"
    if any(step.status != "Succeeded" for step in record.steps(deployment.id)):
        return ""
    record.settle(deployment.id, target, "Succeeded")
    return "Succeeded"


def tidy(
    record: Record, deployment: Deployment, target: str, *, keep: int, age: float
) -> list[str]:
    """Give back what the versions that lost do not need, and delete old ones after a success.

    What cannot be done is told, and no reason to fail: the deployment has done its work.

    :returns: what was done, in words
    """
    row = record.functions(deployment.id).get(target)
    if row is None:
        return []
    service = Service()
    halted = deployment.error_code is not None
    if not halted and any(step.status != "Succeeded" for step in record.steps(deployment.id)):
        return []
    done: list[str] = []
    try:
        loser = row.version if halted else row.old_version
        moved = loser is not None and row.old_version != row.version
        if moved and service.release(row.function, str(loser)):
            done.append(f"version {loser} has no provisioned concurrency any more")
        if not halted:
            needed = {one for one in (row.old_version, row.version) if one is not None}
            gone = delete_old_versions(service, row.function, keep=keep, age=age, needed=needed)
            if gone:
                done.append(f"deleted the old versions {', '.join(gone)}")
    except BasculeError as error:
        done.append(str(error))
    return done
