# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Publish a version of a Lambda function, ask the functions that check it, and tidy up."""

from __future__ import annotations

import time
import typing as t

from ansible_collections.bascule.deploy.plugins.module_utils._appspec_lambda import EVENTS
from ansible_collections.bascule.deploy.plugins.module_utils._configuration import parse_duration
from ansible_collections.bascule.deploy.plugins.plugin_utils._action import (
    DEPLOYMENT_OPTIONS,
    Arguments,
    BasculeAction,
    Result,
    Variables,
    open_record,
    state_directory,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._lambda._request import (
    FUNCTION_OPTIONS,
    function_settings,
    hook_limit,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._lambda._work import (
    ask_hook,
    bring,
    settle,
    tidy,
)

if t.TYPE_CHECKING:
    from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Record


class ActionModule(BasculeAction):
    phase = "stage"
    options: t.ClassVar[dict[str, dict[str, t.Any]]] = {
        **DEPLOYMENT_OPTIONS,
        "state": {"type": "str", "choices": ["published", "checked", "tidied"], "required": True},
        "event": {"type": "str", "choices": list(EVENTS)},
        "target": {"type": "str", "default": ""},
        "settles": {"type": "bool", "default": False},
        "settings": {"type": "dict", "required": True, "options": FUNCTION_OPTIONS},
    }

    def act(self, arguments: Arguments, variables: Variables) -> Result:
        target = arguments["target"] or str(variables["inventory_hostname"])
        if self.checking:
            text = f"check mode: {arguments['settings']['function']} is left as it is"
            changed = arguments["state"] == "published"
            return {"changed": changed, "msg": text, "bascule": {"target": target}}
        with open_record(arguments) as record:
            if arguments["state"] == "published":
                return self._publish(arguments, target, record)
            if arguments["state"] == "checked":
                return self._check(arguments, target, record)
            return self._tidy(arguments, target, record)

    def _publish(self, arguments: Arguments, target: str, record: Record) -> Result:
        begun = time.monotonic()
        one = function_settings(target, arguments["settings"])
        deployment = record.deployment(arguments["deployment"]["id"])
        cache = state_directory(arguments["state_directory"]) / "cache"
        brought = bring(record, deployment, one, cache=cache)
        told = {
            "target": target,
            "status": "Staged" if brought.made else "Current",
            "seconds": round(time.monotonic() - begun, 3),
            "bytes_sent": brought.sent,
            "version": brought.row.version,
            "old_version": brought.row.old_version,
        }
        text = f"version {brought.row.version} of {one.function} is ready"
        return {"changed": brought.made, "msg": text, "bascule": told}

    def _check(self, arguments: Arguments, target: str, record: Record) -> Result:
        settings, event = arguments["settings"], arguments["event"]
        events = ask_hook(
            record,
            record.deployment(arguments["deployment"]["id"]),
            target,
            event,
            listen=settings["hook_listen"],
            limit=hook_limit(settings["hook_timeout"]),
            begun=bool(arguments["target"]),
        )
        told: dict[str, t.Any] = {
            "phase": "lifecycle",
            "target": target,
            "span": event,
            "events": events,
            "error": None,
        }
        failed = [one for one in events if one["status"] == "Failed"]
        if not failed and arguments["settles"]:
            record.settle(arguments["deployment"]["id"], target, "Succeeded")
            told["status"] = "Succeeded"
        if not failed:
            return {"changed": False, "msg": f"{event} of {target} passed", "bascule": told}
        message = f"{event} of {target}: {failed[0]['message']}"
        told["error"] = {"kind": "hook", "code": failed[0]["error_code"], "message": message}
        return {"failed": True, "changed": False, "msg": message, "bascule": told}

    def _tidy(self, arguments: Arguments, target: str, record: Record) -> Result:
        settings = arguments["settings"]
        deployment = record.deployment(arguments["deployment"]["id"])
        status = settle(record, deployment, target)
        done = tidy(
            record,
            deployment,
            target,
            keep=settings["versions_to_keep"],
            age=parse_duration(settings["versions_min_age"], "deploy_lambda_versions_min_age"),
        )
        text = "; ".join(done) or "nothing to tidy up"
        told = {"phase": "tidy", "target": target}
        if status:
            message = deployment.error_message if status == "Failed" else ""
            told = {"phase": "settle", "target": target, "status": status, "message": message or ""}
        return {"changed": bool(done), "msg": text, "bascule": told}
