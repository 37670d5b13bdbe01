# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copy the live pool's Auto Scaling group for the idle pool, and end the old one."""

from __future__ import annotations

import typing as t

from ansible_collections.bascule.deploy.plugins.module_utils._configuration import parse_duration
from ansible_collections.bascule.deploy.plugins.module_utils._routing import pools_of
from ansible_collections.bascule.deploy.plugins.plugin_utils._action import (
    Arguments,
    BasculeAction,
    Result,
    Variables,
    tell,
)


class ActionModule(BasculeAction):
    phase = "green_fleet"
    options: t.ClassVar[dict[str, dict[str, t.Any]]] = {
        "state": {"type": "str", "choices": ["provided", "retired"], "required": True},
        "group": {"type": "str", "required": True},
        "listener": {"type": "str", "required": True},
        "pools": {"type": "dict", "required": True},
        "timeout": {"type": "raw", "default": "15m"},
        "keep": {"type": "bool", "default": False},
    }

    def act(self, arguments: Arguments, _variables: Variables) -> Result:
        from ansible_collections.bascule.deploy.plugins.plugin_utils._green_fleet import (
            provide,
            retire,
        )

        origin = arguments["group"]
        pools = pools_of(arguments["pools"], "elbv2")
        options = {"listener": arguments["listener"], "pools": pools}
        if arguments["state"] == "provided":
            seen = provide(
                origin,
                options,
                timeout=parse_duration(arguments["timeout"], "deploy_green_fleet_timeout"),
                check=self.checking,
                tell=tell,
            )
            shown = seen["group"] or f"a copy of {seen['source']}"
            number = len(seen["instances"]) if seen["group"] else seen["size"]
            message = f"{shown} for the pool {seen['pool']}: {number} instances"
            before, after = "", f"{shown}\n"
        else:
            seen = retire(origin, options, keep=arguments["keep"], check=self.checking)
            message = f"{seen['terminated'] or 'nothing'} terminated; {seen['group']} serves"
            before, after = f"{seen['terminated']}\n" if seen["terminated"] else "", ""
        # Whoever only looks plans for instances that are not there yet.
        facts = (
            {
                "bascule_fleet_foreseen": {}
                if seen["group"]
                else {name: seen[name] for name in ("source", "pool", "size")},
                "bascule_fleet_groups": [one for one in (seen["source"], seen["group"]) if one],
                "bascule_fleet_provided": not self.checking,
            }
            if arguments["state"] == "provided"
            else {}
        )
        return {
            "changed": seen["changed"],
            "msg": message,
            "diff": {
                "before": before,
                "after": after if seen["changed"] else before,
                "before_header": "Auto Scaling groups",
                "after_header": "Auto Scaling groups",
            },
            "bascule": seen,
            "ansible_facts": facts,
        }
