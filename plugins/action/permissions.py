# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say which permissions at AWS a deployment group needs."""

from __future__ import annotations

import typing as t

from ansible_collections.bascule.deploy.plugins.module_utils._functions import PLATFORM
from ansible_collections.bascule.deploy.plugins.module_utils._permissions import policy
from ansible_collections.bascule.deploy.plugins.plugin_utils._action import (
    Arguments,
    BasculeAction,
    Result,
    Variables,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._settings import (
    PREFIX,
    public_variables,
)


class ActionModule(BasculeAction):
    phase = "permissions"
    options: t.ClassVar[dict[str, dict[str, t.Any]]] = {
        "targets": {"type": "list", "elements": "str", "required": True},
        "push": {"type": "str", "default": ""},
        "log_group": {"type": "str", "default": ""},
    }

    def act(self, arguments: Arguments, variables: Variables) -> Result:
        hosts = variables["hostvars"]
        settings: dict[str, t.Any] = {}
        instances = []
        functions = []
        for target in arguments["targets"]:
            own = hosts[target]
            instances.append(str(own.get(f"{PREFIX}instance_id", own.get("instance_id", ""))))
            if own.get(f"{PREFIX}compute_platform") == PLATFORM:
                functions.append(str(own.get(f"{PREFIX}lambda_function", target)))
            for name, spec in public_variables().items():
                if name in settings or (name not in own and "default" not in spec):
                    continue
                settings[name] = own.get(name, spec.get("default"))
        made = policy(
            settings,
            instances=instances,
            functions=functions,
            push=arguments["push"],
            log_group=arguments["log_group"],
        )
        number = len(made["Statement"])
        return {
            "changed": False,
            "msg": f"{number} statement{'' if number == 1 else 's'}",
            "bascule": {"policy": made},
        }
