# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Name the targets that have no revision, an old one, or failed to get theirs."""

from __future__ import annotations

import typing as t

from ansible_collections.bascule.deploy.plugins.plugin_utils._action import (
    Arguments,
    BasculeAction,
    Result,
    Variables,
    open_record,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._outdated import (
    group_targets,
    message,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._settings import require


class ActionModule(BasculeAction):
    phase = "outdated"
    options: t.ClassVar[dict[str, dict[str, t.Any]]] = {
        "application": {"type": "str", "required": True},
        "group": {"type": "str", "required": True},
        "targets": {"type": "list", "elements": "str", "required": True},
        "record": {"type": "str", "default": "", "no_log": True},
        "state_directory": {"type": "str", "default": ""},
    }

    def act(self, arguments: Arguments, _variables: Variables) -> Result:
        application = require(
            {"deploy_application": arguments["application"]}, "deploy_application", "shop"
        )
        group = arguments["group"]
        with open_record(arguments) as record:
            found = group_targets(record, application, group, arguments["targets"])
        return {
            "changed": False,
            "failed": any(one["outdated"] for one in found),
            "msg": message(found, f"{application}/{group}"),
            "bascule": {"targets": found},
        }
