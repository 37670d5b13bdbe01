# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write down how a target ended."""

from __future__ import annotations

import typing as t

from ansible_collections.bascule.deploy.plugins.plugin_utils._action import (
    DEPLOYMENT_OPTIONS,
    Arguments,
    BasculeAction,
    Result,
    Variables,
    failure_of,
    open_record,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._scaling import leave_if_gone


class ActionModule(BasculeAction):
    phase = "settle"
    options: t.ClassVar[dict[str, dict[str, t.Any]]] = {
        **DEPLOYMENT_OPTIONS,
        "status": {"type": "str", "choices": ["Succeeded", "Failed"], "required": True},
        "failure": {"type": "dict", "default": {}},
    }

    def act(self, arguments: Arguments, variables: Variables) -> Result:
        target = variables["inventory_hostname"]
        status = arguments["status"]
        failed = status == "Failed"
        error = (
            failure_of(arguments["failure"]) if failed else {"kind": "", "code": "", "message": ""}
        )
        if not self.checking:
            with open_record(arguments) as record:
                if failed and (
                    left := leave_if_gone(
                        record, arguments["deployment"]["id"], target, error["kind"]
                    )
                ):
                    told = {"target": target, "status": "Skipped", "message": left}
                    return {"changed": False, "msg": left, "bascule": told}
                record.settle(
                    arguments["deployment"]["id"],
                    target,
                    status,
                    error_code=error["code"] or None,
                    message=error["message"],
                )
        told = {"target": target, "status": status, "message": error["message"]}
        return {"changed": False, "msg": error["message"] or status, "bascule": told}
