# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a span of lifecycle events on a target."""

from __future__ import annotations

import time
import typing as t

from ansible_collections.bascule.deploy.plugins.module_utils._pools import TEST_EVENT
from ansible_collections.bascule.deploy.plugins.module_utils._spans import (
    ASIDE,
    SPANS,
    is_final,
    later,
    needs_host,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._action import (
    Arguments,
    Result,
    Variables,
    open_record,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._target import (
    TARGET_OPTIONS,
    TargetAction,
)


class ActionModule(TargetAction):
    phase = "lifecycle"
    options: t.ClassVar[dict[str, dict[str, t.Any]]] = {
        **TARGET_OPTIONS,
        "span": {
            "type": "str",
            "choices": [*SPANS],
            "default": "all",
        },
        "staged": {"type": "dict", "default": {}},
        "settle": {"type": "bool", "default": False},
        "going": {"type": "bool", "default": False},
    }

    def act(self, arguments: Arguments, variables: Variables) -> Result:
        span = arguments["span"]
        target = variables["inventory_hostname"]
        told: dict[str, t.Any] = {"target": target, "span": span, "events": [], "error": None}
        if self.checking:
            return {"changed": True, "msg": "check mode: no hook is run", "bascule": told}
        with open_record(arguments) as record:
            deployment = self.recorded(arguments, record)
            if arguments["going"] and not deployment.goes_on:
                return {"changed": False, "msg": "the deployment does not go on", "bascule": told}
            hooks = dict(deployment.revision.appspec.get("hooks") or {})
            if not (deployment.plan.get("pools") or {}).get("test_route"):
                hooks.pop(TEST_EVENT, None)
            previous = (arguments["staged"].get("previous") or {}).get("hooks") or {}
            if needs_host(span, hooks=hooks, previous_hooks=previous):
                more = {
                    "events": list(SPANS[span]),
                    "later": later(span),
                    "final": is_final(span, hooks=hooks),
                    "aside": span in ASIDE,
                }
                answer = self.ask(arguments, variables, deployment.revision, more=more)
            else:
                answer = {"changed": False, "events": [_passed(event) for event in SPANS[span]]}
            told["events"] = answer.pop("events", [])
            told["error"] = answer.pop("error", None)
            record.add_events(deployment.id, target, told["events"], aside=span in ASIDE)
            if arguments["settle"] and not answer.get("failed"):
                record.settle(deployment.id, target, "Succeeded")
                told["status"] = "Succeeded"
        answer["bascule"] = told
        return answer


def _passed(event: str) -> dict[str, t.Any]:
    """Return an event without a hook: as in CodeDeploy it succeeds, and takes no time."""
    now = time.time()
    return {"event": event, "status": "Succeeded", "started": now, "ended": now, "message": ""}
