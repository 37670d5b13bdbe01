# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Begin and end the steps of a deployment's schedule in the record."""

from __future__ import annotations

import typing as t

from ansible_collections.bascule.deploy.plugins.module_utils._errors import GateError
from ansible_collections.bascule.deploy.plugins.module_utils._pools import dividing
from ansible_collections.bascule.deploy.plugins.module_utils._realised import REFUTED, judge_all
from ansible_collections.bascule.deploy.plugins.plugin_utils._action import (
    DEPLOYMENT_OPTIONS,
    Arguments,
    BasculeAction,
    Result,
    Variables,
    failure_of,
    open_record,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._pausing import pause_wanted

if t.TYPE_CHECKING:
    from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Record


class ActionModule(BasculeAction):
    phase = "shift"
    options: t.ClassVar[dict[str, dict[str, t.Any]]] = {
        **DEPLOYMENT_OPTIONS,
        "state": {"type": "str", "choices": ["started", "ended", "failed"], "required": True},
        "step": {"type": "dict", "default": {}},
        "pool": {"type": "list", "elements": "dict", "default": []},
        "failure": {"type": "dict", "default": {}},
        "counted": {"type": "dict", "default": {}},
    }

    def act(self, arguments: Arguments, _variables: Variables) -> Result:
        step, state = arguments["step"], arguments["state"]
        told: dict[str, t.Any] = {
            key: step.get(key) for key in ("number", "part", "kind", "text", "share")
        }
        told |= {"state": state, "verdict": "go", "serving": arguments["pool"], "failed": []}
        if self.checking:
            told["foreseen"] = True
            text = f"check mode: {step.get('text', state)}"
            return {"changed": False, "msg": text, "bascule": told}
        deployment = arguments["deployment"]["id"]
        with open_record(arguments) as record:
            if state == "started":
                return self._start(record, deployment, arguments, told)
            if state == "ended":
                told["message"] = realised(arguments["counted"], step)
                record.end_step(deployment, step["number"], told["message"])
                return {"changed": False, "msg": step["text"], "bascule": told}
            error = failure_of(arguments["failure"])
            record.fail_steps(deployment, error["code"], error["message"])
        told["message"] = error["message"]
        return {"changed": False, "msg": error["message"], "bascule": told}

    def _start(
        self, record: Record, deployment: str, arguments: Arguments, told: dict[str, t.Any]
    ) -> Result:
        """Begin a step, and tell which targets of the pool may get users."""
        wanted = pause_wanted()
        if wanted is not None:
            record.pause(deployment, wanted)
        told["verdict"] = record.begin_step(deployment, arguments["step"]["number"])
        if arguments["pool"]:
            status = {one.name: one.status for one in record.targets(deployment)}
            told["serving"], told["failed"] = dividing(arguments["pool"], status)
        text = f"{arguments['step']['text']}: {told['verdict']}"
        return {"changed": False, "msg": text, "bascule": told}


def realised(counted: dict[str, t.Any], step: dict[str, t.Any]) -> str:
    """Return a sentence about the share that requests have shown; empty if none were counted.

    :raises GateError: they show another share than the one that was ordered
    """
    if not counted:
        return ""
    routing = step["routing"]
    verdict, told = judge_all(counted["before"], counted["after"], routing["weights"])
    # A few users that stay where they are do not show the share of the many.
    if verdict == REFUTED and not routing.get("sticky"):
        raise GateError(
            f"The load balancer does not share the traffic as it was told to: {told}. Nothing "
            "more is shifted. Look at what else changes its routing, and at retries."
        )
    return told
