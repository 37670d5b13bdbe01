#!/usr/bin/python
# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The work is done on the controller, by the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: admit
short_description: Wait for a free slot of a deployment
version_added: 0.1.0
description:
  - Waits in the record until the minimum of healthy hosts allows one more target to be out of
    service, the stage before has baked, and a person has approved it where the plan wants that.
  - Says no once the deployment is halted or paused, and leaves alone a target that has the revision
    already.
extends_documentation_fragment:
  - bascule.deploy.recorded
  - bascule.deploy.recorded.controller
attributes:
  diff_mode:
    description: Returns details on what has changed, or would change.
    support: none
options:
  deployment:
    description:
      - The deployment, as in the fact C(bascule_deployment) of localhost.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Wait for a free slot
  bascule.deploy.admit:
    deployment: "{{ hostvars.localhost.ansible_facts.bascule_deployment }}"
"""

RETURN = r"""
bascule:
  description: What callbacks and the API read.
  returned: always
  type: dict
  contains:
    phase:
      description: The action's name.
      type: str
      returned: always
      sample: admit
    verdict:
      description: One of admitted, current and refused.
      type: str
      returned: success
    reason:
      description: The numbers behind the verdict.
      type: str
      returned: success
    waited:
      description: Seconds until the verdict.
      type: float
      returned: success
"""
