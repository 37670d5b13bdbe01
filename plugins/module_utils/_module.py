# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules stage and lifecycle share: their arguments, and the call of the host program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._errors import HostError
from ._host import _apart, _drift, _entry, _lifecycle, _stage

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

# The door imports an operation by its name, which Ansible cannot see when it packs a module.
SENT_ALONG = (_stage, _lifecycle, _drift)

HOST_PROGRAM_SPEC: dict[str, dict[str, Any]] = {
    "deployment": {"type": "dict"},
    "record": {"type": "str", "default": "", "no_log": True},
    "state_directory": {"type": "str", "default": ""},
    "settings": {
        "type": "dict",
        "options": {
            "root": {"type": "str", "required": True},
            "sysroot": {"type": "str", "default": ""},
            "file_exists_behavior": {"type": "str", "default": "DISALLOW"},
            "ignore_application_stop_failures": {"type": "bool", "default": False},
            "start_again": {
                "type": "str",
                "choices": ["refused", "unchanged", "never"],
                "default": "refused",
            },
            "retained_revisions": {"type": "int", "default": 5},
            "hook_environment": {"type": "dict", "default": {}, "no_log": True},
            "layout": {"type": "str", "choices": ["copy", "release"], "default": "copy"},
            "release_directory": {"type": "str", "default": ""},
            "release_link": {"type": "str", "default": ""},
            "shared_paths": {"type": "list", "elements": "str", "default": []},
            "releases_to_keep": {"type": "int", "default": 5},
            "pool": {"type": "str", "default": ""},
            "outside_links": {"type": "bool", "default": False},
            "redeploy": {"type": "bool", "default": False},
            "gates": {"type": "list", "elements": "dict", "default": []},
            "reconnect_timeout": {"type": "raw", "default": "60s"},
        },
    },
    # It holds the hook environment: no system log may have it.
    "request": {"type": "dict", "no_log": True},
    "bundle": {"type": "path"},
}


def run_module(module: AnsibleModule, operation: str) -> None:
    """Run the request of a module and leave with its result."""
    request = module.params["request"]
    if not request:
        module.fail_json(
            msg=f"bascule.deploy.{operation} is asked by its action plugin, which makes the"
            " request. Use it as a task of a playbook."
        )
    # Ansible would now strike every word of the request, "1" and "web" among them, out of the
    # result. The result holds none of its secrets; the arguments that are echoed with it did.
    module.no_log_values.clear()
    module.params["request"] = None
    path = module.params["bundle"]

    def work() -> dict[str, Any]:
        if not path:
            return _entry.run(request, None)
        with open(path, "rb") as bundle:  # noqa: PTH123 - a module of a host, as its program
            return _entry.run(request, bundle)

    try:
        answer = _apart.run(work)
    except HostError as error:
        module.fail_json(msg=str(error), error={"kind": error.kind})
    for warning in answer.pop("warnings", ()):
        module.warn(warning)
    if answer.get("failed"):
        module.fail_json(**answer)
    module.exit_json(**answer)
