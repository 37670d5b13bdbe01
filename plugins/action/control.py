# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell a deployment that another run carries out what to do."""

from __future__ import annotations

import typing as t

from ansible_collections.bascule.deploy.plugins.module_utils._advice import ways_on
from ansible_collections.bascule.deploy.plugins.module_utils._errors import RecordError
from ansible_collections.bascule.deploy.plugins.plugin_utils._action import (
    Arguments,
    BasculeAction,
    Result,
    Variables,
    open_record,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._parting import give_up
from ansible_collections.bascule.deploy.plugins.plugin_utils._play_facts import deployment_fact
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import tell
from ansible_collections.bascule.deploy.plugins.plugin_utils._stopping import stop

if t.TYPE_CHECKING:
    from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Record


class ActionModule(BasculeAction):
    phase = "control"
    options: t.ClassVar[dict[str, dict[str, t.Any]]] = {
        "id": {"type": "str", "required": True},
        "request": {
            "type": "str",
            "required": True,
            "choices": ["stop", "approve", "continue", "reject", "abandon"],
        },
        "why": {"type": "str", "default": ""},
        "rollback": {"type": "bool", "default": False},
        "wait": {"type": "bool", "default": True},
        "record": {"type": "str", "default": "", "no_log": True},
        "state_directory": {"type": "str", "default": ""},
    }

    def act(self, arguments: Arguments, _variables: Variables) -> Result:
        identifier = arguments["id"]
        warnings: list[str] = []
        with open_record(arguments) as record:
            if self.checking:
                record.deployment(identifier)
            else:
                warnings = self._ask(record, arguments)
            found = record.deployment(identifier)
        message = f"{found.id} is {found.status}."
        if found.error_message:
            message += f" {found.error_code}: {found.error_message}"
        told = {"deployment": deployment_fact(found)}
        return {"changed": not self.checking, "msg": message, "warnings": warnings, "bascule": told}

    def _ask(self, record: Record, arguments: Arguments) -> list[str]:
        """Ask, and return warnings."""
        identifier, request, why = arguments["id"], arguments["request"], arguments["why"]
        if request == "abandon":
            return give_up(record, identifier, why)[1]
        if request == "stop":
            self._stop(record, arguments)
        elif request == "continue":
            record.go_on(identifier, why)
        else:
            record.decide_approval(identifier, approve=request == "approve", why=why)
        return []

    def _stop(self, record: Record, arguments: Arguments) -> None:
        left = stop(
            record,
            arguments["id"],
            why=arguments["why"],
            rollback=arguments["rollback"],
            wait=arguments["wait"],
            tell=tell,
        )
        if left is not None:
            raise RecordError(
                f"{left.id} is to stop, but no controller carries it out. To end it, and to roll "
                f"it back: `ansible-playbook bascule.deploy.{left.strategy} -e deployment_id="
                f"{left.id}` with the inventory and the variables it had. {ways_on(left.id)}"
            )
