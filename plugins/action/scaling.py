# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hold Auto Scaling groups still for a deployment, and let them go again."""

from __future__ import annotations

import typing as t

from ansible_collections.bascule.deploy.plugins.plugin_utils._action import (
    DEPLOYMENT_OPTIONS,
    Arguments,
    BasculeAction,
    Result,
    Variables,
    open_record,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._notify import family
from ansible_collections.bascule.deploy.plugins.plugin_utils._parting import part
from ansible_collections.bascule.deploy.plugins.plugin_utils._scaling import hold

if t.TYPE_CHECKING:
    from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Record


class ActionModule(BasculeAction):
    phase = "scaling"
    options: t.ClassVar[dict[str, dict[str, t.Any]]] = {
        **DEPLOYMENT_OPTIONS,
        "state": {"type": "str", "choices": ["held", "released"], "required": True},
        "groups": {"type": "list", "elements": "str", "default": []},
        "suspend": {"type": "list", "elements": "str", "default": []},
        "hook": {"type": "str", "default": ""},
    }

    def act(self, arguments: Arguments, _variables: Variables) -> Result:
        if arguments["state"] == "held":
            with open_record(arguments) as record:
                return self._hold(arguments, record)
        if self.checking or not arguments["deployment"]:
            return {"changed": False, "msg": "nothing to release", "bascule": {}}
        # Holds of other deployments are given up, too: not as the controller of this one.
        with open_record({**arguments, "deployment": {}}) as record:
            return self._release(arguments, record)

    def _hold(self, arguments: Arguments, record: Record) -> Result:
        identifier = arguments["deployment"]["id"]
        if not self.checking and record.deployment(identifier).is_final:
            return {"changed": False, "msg": "nothing is to be done", "bascule": {}}
        seen = hold(
            record,
            identifier,
            arguments["groups"],
            arguments["suspend"],
            hook=arguments["hook"],
            check=self.checking,
        )
        changed = {name: one for name, one in seen.items() if one["before"] != one["after"]}
        lines = [
            f"{name}: suspended {', '.join(one['after']) or 'nothing'}"
            for name, one in seen.items()
        ]
        return {
            "changed": bool(changed),
            "msg": "; ".join(lines) or "no Auto Scaling group",
            "diff": {
                "before": _listing(seen, "before"),
                "after": _listing(seen, "after"),
                "before_header": "suspended processes",
                "after_header": "suspended processes",
            },
            "bascule": {"groups": seen},
        }

    def _release(self, arguments: Arguments, record: Record) -> Result:
        """Let go what nobody needs any more; what goes wrong is a warning, not a failure."""
        done = family(record, arguments["deployment"]["id"])
        parted = part(record, done, hook=arguments["hook"], groups=arguments["groups"])
        return {
            "changed": bool(parted.released or parted.answered),
            "msg": "; ".join([*(f"{name} is let go" for name in parted.released), *parted.answered])
            or "nothing",
            "warnings": parted.warnings,
            "bascule": {"released": parted.released, "answered": parted.answered},
        }


def _listing(seen: dict[str, dict[str, list[str]]], moment: str) -> str:
    return "".join(f"{name}: {', '.join(one[moment])}\n" for name, one in seen.items())
