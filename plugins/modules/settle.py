#!/usr/bin/python
# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The work is done on the controller, by the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: settle
short_description: Write down how a target ended
version_added: 0.1.0
description:
  - Writes the outcome of a target to the record, which frees its slot.
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
  status:
    description:
      - How the target ended.
    type: str
    choices: [Succeeded, Failed]
    required: true
  failure:
    description:
      - The failed task's result, as in C(ansible_failed_result).
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Write down that the target succeeded
  bascule.deploy.settle:
    status: Succeeded
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
      sample: settle
    status:
      description: How the target ended.
      type: str
      returned: success
    message:
      description: Why it failed.
      type: str
      returned: success
"""
