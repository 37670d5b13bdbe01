# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show the targets of an inventory: how each is reached, and where it comes from."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleError
from ansible_collections.bascule.deploy.plugins.module_utils._tags import origin
from ansible_collections.bascule.deploy.plugins.plugin_utils._action import (
    Arguments,
    BasculeAction,
    Result,
    Variables,
)

# Groups that every inventory has.
_COMMON = frozenset({"all", "ungrouped"})


class ActionModule(BasculeAction):
    phase = "targets"
    options: t.ClassVar[dict[str, dict[str, t.Any]]] = {
        "targets": {"type": "list", "elements": "str", "required": True}
    }

    def act(self, arguments: Arguments, variables: Variables) -> Result:
        found = [
            described(name, variables["hostvars"][name]) for name in sorted(arguments["targets"])
        ]
        number = len(found)
        return {
            "changed": False,
            "msg": f"{number} target{'' if number == 1 else 's'}",
            "bascule": {"targets": found},
        }


def described(name: str, own: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return what a person wants to know of a target; its variables are templated."""
    seen = {key: _text(own, key) for key in _SHOWN}
    instance = seen["deploy_instance_id"] or seen["instance_id"]
    tags = own.get("ec2_tags") or own.get("tags")
    return {
        "target": name,
        "groups": sorted(set(own.get("group_names") or ()) - _COMMON),
        "address": seen["ansible_host"] or name,
        "connection": (seen["ansible_connection"] or "ssh").rpartition(".")[2],
        "zone": seen["deploy_zone"],
        "pool": seen["deploy_pool"],
        "instance": instance,
        "from": origin(own.get("inventory_file"), own.get("inventory_dir"), instance, tags),
    }


_SHOWN = (
    "ansible_host", "ansible_connection", "deploy_zone", "deploy_pool", "deploy_instance_id",
    "instance_id",
)  # fmt: skip


def _text(own: t.Mapping[str, t.Any], key: str) -> str:
    """Return a variable as text; what cannot be templated here says so itself."""
    try:
        return str(own.get(key) or "")
    except AnsibleError as error:
        return f"({key}: {str(error).splitlines()[0]})"
