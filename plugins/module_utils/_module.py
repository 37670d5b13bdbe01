# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules stage and lifecycle share: their arguments, and the call of the host program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._errors import HostError
from ._host import _apart, _drift, _entry, _lifecycle, _stage
from ._host_options import HOST_OPTIONS

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

# The door imports an operation by its name, which Ansible cannot see when it packs a module.
SENT_ALONG = (_stage, _lifecycle, _drift)

HOST_PROGRAM_SPEC: dict[str, dict[str, Any]] = {
    "deployment": {"type": "dict"},
    "record": {"type": "str", "default": "", "no_log": True},
    "state_directory": {"type": "str", "default": ""},
    "settings": {"type": "dict", "options": HOST_OPTIONS},
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
