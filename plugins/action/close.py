# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Close a deployment; on failure open its rollback, and in the end say how it went."""

from __future__ import annotations

import time
import typing as t

from ansible_collections.bascule.deploy.plugins.module_utils._advice import paused_text
from ansible_collections.bascule.deploy.plugins.module_utils._notifications import parse_channels
from ansible_collections.bascule.deploy.plugins.plugin_utils._action import (
    DEPLOYMENT_OPTIONS,
    Arguments,
    BasculeAction,
    Result,
    Variables,
    failure_of,
    open_record,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._closing import (
    close_deployment,
    is_paused,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._fresh_baseline import is_baseline
from ansible_collections.bascule.deploy.plugins.plugin_utils._notify import (
    notification_failures,
    undelivered,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._play_facts import deployment_fact
from ansible_collections.bascule.deploy.plugins.plugin_utils._scaling import let_go

if t.TYPE_CHECKING:
    from ansible_collections.bascule.deploy.plugins.module_utils._notifications import Channel
    from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Deployment, Record

# How long the end of a run waits for what is still to be told.
PATIENCE_SECONDS = 10.0


class ActionModule(BasculeAction):
    phase = "close"
    options: t.ClassVar[dict[str, dict[str, t.Any]]] = {
        **DEPLOYMENT_OPTIONS,
        "refusal": {"type": "dict", "default": {}},
        "verdict": {"type": "bool", "default": False},
        "joined": {"type": "bool", "default": False},
        "release": {"type": "bool", "default": False},
        "notifications": {"type": "list", "elements": "dict", "default": [], "no_log": True},
    }

    def act(self, arguments: Arguments, _variables: Variables) -> Result:
        if arguments["refusal"]:
            return self._refusal(arguments)
        deployment = arguments["deployment"]
        if self.checking or not deployment:
            return {"changed": False, "msg": "nothing to close", "bascule": {}}
        with open_record(arguments) as record:
            if arguments["verdict"]:
                answer = self._verdict(record.deployment(deployment["id"]), record)
                channels = parse_channels(arguments["notifications"])
                warning = await_notifications(record, deployment["id"], channels)
                return {**answer, "warnings": [warning]} if warning else answer
            paused = record.deployment(deployment["id"])
            if is_paused(paused, record.steps(paused.id)):
                record.release(paused.id)
                return self._paused(paused)
            closed = close_deployment(record, deployment["id"])
        facts = joinable(closed.deployment, arguments)
        rollback, following = closed.rollback, closed.following
        if following:
            facts["bascule_deployment"] = deployment_fact(following)
            facts["bascule_fleet"] = closed.following_fleet
        if rollback:
            facts["bascule_rollback"] = deployment_fact(rollback)
            facts["bascule_rollback_fleet"] = closed.rollback_fleet
        return {
            "changed": False,
            "msg": closed.summary,
            "ansible_facts": facts,
            "bascule": {
                "deployment": deployment_fact(closed.deployment),
                "rollback": deployment_fact(rollback) if rollback else None,
                "rollback_plan": rollback.plan if rollback else None,
                "following": deployment_fact(following) if following else None,
                "following_plan": following.plan if following else None,
                "note": closed.note,
                "summary": closed.summary,
            },
        }

    def _paused(self, deployment: Deployment) -> Result:
        """Leave a deployment to whoever resumes it."""
        message = paused_text(deployment.id, deployment.pause_reason or "")
        told = {"paused": deployment.id, "summary": message}
        return {"changed": False, "msg": message, "bascule": told}

    def _refusal(self, arguments: Arguments) -> Result:
        """End a deployment that could not begin, and fail with the reason."""
        error = failure_of(arguments["refusal"])
        told: dict[str, t.Any] = {"error": error}
        warnings: list[str] = []
        nobody: dict[str, t.Any] = {"bascule_joined_fleet": {"targets": []}}
        if arguments["deployment"] and not self.checking:
            with open_record(arguments) as record:
                identifier = arguments["deployment"]["id"]
                record.halt(identifier, error["code"], error["message"])
                told["deployment"] = deployment_fact(record.finish(identifier))
                if arguments["release"]:
                    warnings = let_go(record, [identifier])
        return {
            "failed": True,
            "changed": False,
            "msg": error["message"],
            "ansible_facts": nobody if arguments["joined"] else {},
            "warnings": warnings,
            "bascule": told,
        }

    def _verdict(self, deployment: Deployment, record: Record) -> Result:
        """Fail the play if the deployment failed, after everything else has been done."""
        following = record.deployment(deployment.rolled_back_by or deployment.id)
        if is_paused(following, record.steps(following.id)):
            message = paused_text(following.id, following.pause_reason or "")
            error = {"kind": "paused", "message": message}
            return {"failed": True, "changed": False, "msg": message, "bascule": {"error": error}}
        told = {"deployment": deployment_fact(deployment), "rollback": None, "summary": ""}
        if deployment.status == "Succeeded":
            return {"changed": False, "msg": f"{deployment.id} Succeeded", "bascule": told}
        message = f"{deployment.id} {deployment.status}: {deployment.error_message or ''}".rstrip(
            ": "
        )
        if deployment.rolled_back_by:
            rollback = record.deployment(deployment.rolled_back_by)
            told["rollback"] = deployment_fact(rollback)
            message += f" The rollback {rollback.id} {rollback.status}."
        told["error"] = {"kind": "failed", "message": message}
        return {"failed": True, "changed": False, "msg": message, "bascule": told}


def await_notifications(record: Record, deployment_id: str, channels: list[Channel]) -> str:
    """Wait a little for what is still to be told; return a warning about what is not told then."""
    if not channels:
        return ""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (left := undelivered(record, deployment_id, channels)) and time.monotonic() < deadline:
        time.sleep(0.2)
    if left:
        return f"{left} notifications are still to be sent; the sender goes on for a minute."
    failed = notification_failures(record, deployment_id)
    return f"Not everybody was told of {deployment_id}: {failed[0]}" if failed else ""


def joinable(deployment: Deployment, arguments: Arguments) -> dict[str, t.Any]:
    """Return the fact that says whether late joiners may get the revision.

    They may after a success, and after a rollback that brought a good one back.
    """
    # Where pools take turns, who joins one gets its revision when that pool has its turn.
    plain = not deployment.plan.get("pools")
    final = deployment.status == "Succeeded" and not is_baseline(deployment)
    may = final and (deployment.creator == "user" or deployment.rollback_of is not None) and plain
    return {"bascule_joinable": may and deployment.id == arguments["deployment"]["id"]}
