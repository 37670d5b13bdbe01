# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare a target with what its newest deployment left."""

from __future__ import annotations

import typing as t

from ansible_collections.bascule.deploy.plugins.plugin_utils._action import (
    Arguments,
    BasculeAction,
    Result,
    Variables,
    open_record,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._direct import run_on_host
from ansible_collections.bascule.deploy.plugins.plugin_utils._drift import (
    DRIFTED,
    drift_request,
    message,
    told,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._settings import require


class ActionModule(BasculeAction):
    phase = "drift"
    options: t.ClassVar[dict[str, dict[str, t.Any]]] = {
        "application": {"type": "str", "required": True},
        "group": {"type": "str", "required": True},
        "root": {"type": "str", "required": True},
        "record": {"type": "str", "default": "", "no_log": True},
        "state_directory": {"type": "str", "default": ""},
    }

    def act(self, arguments: Arguments, variables: Variables) -> Result:
        target = variables["inventory_hostname"]
        application = require(
            {"deploy_application": arguments["application"]}, "deploy_application", "shop"
        )
        with open_record(arguments) as record:
            request = drift_request(
                record, application, arguments["group"], target, arguments["root"]
            )
        answer = run_on_host(self, variables, request)
        if answer.get("failed"):
            return answer
        seen = told(target, answer)
        failed = seen["status"] == DRIFTED
        return {"changed": False, "failed": failed, "msg": message(seen), "bascule": seen}
