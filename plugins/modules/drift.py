#!/usr/bin/python
# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: drift
short_description: Compare a target with what its newest deployment left
version_added: 0.1.0
description:
  - Finds files, links, modes, owners and access lists that were changed since the deployment ended,
    what is gone, processes that an older revision has started, and a revision that is not the one
    the record has for this target.
  - Only looks. A target that differs fails, with all differences in one message.
extends_documentation_fragment:
  - bascule.deploy.recorded
requirements:
  - Python 3.8 or later on the target, and nothing else.
options:
  application:
    description:
      - Name of the application.
    type: str
  group:
    description:
      - Name of the deployment group.
    type: str
  root:
    description:
      - The deployment root of the target.
    type: str
  request:
    description:
      - Filled by the action plugin.
    type: dict
  bundle:
    description:
      - Filled by the action plugin.
    type: path
attributes:
  check_mode:
    description: The module never changes anything.
    support: full
  diff_mode:
    description: The differences are in the message.
    support: none
  action:
    description: Has an action plugin that takes a shorter way where the connection has pipelining.
    support: full
"""

EXAMPLES = r"""
- name: Tell me what was changed by hand
  bascule.deploy.drift:
    application: shop
    group: web
    root: /opt/codedeploy-agent/deployment-root
"""

RETURN = r"""
bascule:
  description: What callbacks and the API read.
  returned: always
  type: dict
  contains:
    status:
      description: InSync or Drifted.
      type: str
      returned: success
    deployment_id:
      description: The newest deployment of the group that installed something on the target.
      type: str
      returned: success
    digest:
      description: The revision that it installed.
      type: str
      returned: success
    checked:
      description: How many installed paths were compared.
      type: int
      returned: success
    unseen:
      description: How many processes could not be looked at for lack of rights.
      type: int
      returned: success
    findings:
      description:
        - The differences. Each has C(kind) (revision, deployment, missing, type, content, link,
          mode, owner, acl or process), C(path), C(pid) and C(message).
      type: list
      elements: dict
      returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bascule.deploy.plugins.module_utils._module import run_module

SPEC = {
    "application": {"type": "str"},
    "group": {"type": "str"},
    "root": {"type": "str"},
    "record": {"type": "str", "default": "", "no_log": True},
    "state_directory": {"type": "str", "default": ""},
    "request": {"type": "dict"},
    "bundle": {"type": "path"},
}


def main() -> None:
    run_module(AnsibleModule(argument_spec=SPEC, supports_check_mode=True), "drift")


if __name__ == "__main__":
    main()
