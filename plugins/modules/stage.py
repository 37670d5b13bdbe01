#!/usr/bin/python
# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: stage
short_description: Bring a revision to a target and find out whether it can be installed
version_added: 0.1.0
description:
  - Sends the bundle of a revision to the target where the target does not have it, verifies its
    digest, and unpacks it beside the revisions that are there.
  - Refuses a revision that could not be installed, with one message for the reason. It looks at the
    operating system, the room on disk, the scripts of the hooks, conflicts of the files section,
    files that exist, owners and groups.
  - Nothing live is touched. A target that has the revision already is left as it is.
extends_documentation_fragment:
  - bascule.deploy.host_program
  - bascule.deploy.recorded
options:
  delivery:
    description:
      - How the bundle comes to the target. With V(pull) the target fetches a revision that is in S3
        itself, by an address that is signed for it. With V(push) it comes over the connection. With
        V(auto) it is pulled where it can be, and sent where it cannot.
    type: str
    choices: [auto, push, pull]
    default: auto
attributes:
  check_mode:
    description: Says what would be installed without sending the bundle or writing anything.
    support: full
  diff_mode:
    description: Shows the files that the installation would add, change and remove.
    support: full
  action:
    description: Has an action plugin that takes a shorter way where the connection has pipelining.
    support: full
seealso:
  - module: bascule.deploy.lifecycle
"""

EXAMPLES = r"""
- name: Stage the revision on all targets before any of them is touched
  bascule.deploy.stage:
    deployment: "{{ hostvars.localhost.ansible_facts.bascule_deployment }}"
    settings:
      root: /opt/codedeploy-agent/deployment-root
"""

RETURN = r"""
staged:
  description: Whether the revision is ready on the target.
  returned: success
  type: bool
  sample: true
current:
  description:
    - Whether the target had this very revision from its newest deployment, which ended well, and
      answers its health gates.
  returned: success
  type: bool
  sample: false
needs_bundle:
  description: Whether the target has no copy of the bundle and none came with the request.
  returned: success
  type: bool
  sample: false
events:
  description:
    - If the target is current because this very deployment, which was interrupted, had come to its
      end there, what came of its lifecycle events.
  returned: when the target is current
  type: list
  elements: dict
  sample: []
previous:
  description:
    - The last successful deployment on the target, C(null) for none. C(hooks) counts the scripts of
      its events.
  returned: success
  type: dict
  sample:
    deployment_id: d-A1B2C3D4E
    digest: 0a1b2c
    hooks:
      ApplicationStop: 1
release:
  description:
    - The release that is made, or (C(again)) the one that is there and that a rollback goes back
      to without copying anything. C(null) for the layout of copies.
  returned: success
  type: dict
  sample:
    path: /srv/app/releases/d-A1B2C3D4E-0a1b2c3d4e5f
    again: false
free_bytes:
  description: Bytes left where the deployment root is.
  returned: success
  type: int
  sample: 82877180000
seconds:
  description: How long it took on the target.
  returned: success
  type: float
  sample: 0.084
warnings:
  description: What does not stop the deployment, but may be meant differently.
  returned: success
  type: list
  elements: str
  sample: []
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bascule.deploy.plugins.module_utils._module import (
    HOST_PROGRAM_SPEC,
    run_module,
)

SPEC = {
    **HOST_PROGRAM_SPEC,
    "delivery": {"type": "str", "choices": ["auto", "push", "pull"], "default": "auto"},
}


def main() -> None:
    run_module(AnsibleModule(argument_spec=SPEC, supports_check_mode=True), "stage")


if __name__ == "__main__":
    main()
