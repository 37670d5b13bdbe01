#!/usr/bin/python
# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The work is done on the controller, by the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: shift
short_description: Begin and end the steps of a schedule
version_added: 0.1.0
description:
  - Writes to the record that a step of a deployment's schedule begins or has ended, or that it has
    failed, which halts the deployment.
  - A step that has succeeded is not begun again, so a resumed deployment goes on where it stood.
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
  state:
    description:
      - What to write down. V(failed) is about the step that was begun last, if it has not ended.
    type: str
    choices: [started, ended, failed]
    required: true
  step:
    description:
      - The step, as in the C(steps) of the fact C(bascule_fleet) of localhost.
    type: dict
    default: {}
  pool:
    description:
      - The endpoints of the pool that gets the revision. They are returned in two lists.
    type: list
    elements: dict
    default: []
  failure:
    description:
      - The failed task's result, as in C(ansible_failed_result).
    type: dict
    default: {}
  counted:
    description:
      - What the load balancers have counted C(before) and C(after), two lists of the results of
        M(bascule.deploy.traffic) with C(state=measured). The step fails if it is not the share that
        was wanted.
    type: dict
    default: {}
author:
  - Bascule contributors (@bascule)
"""

EXAMPLES = r"""
- name: Begin the step
  bascule.deploy.shift:
    state: started
    step: "{{ shift_step }}"
    deployment: "{{ hostvars.localhost.ansible_facts.bascule_deployment }}"
  delegate_to: localhost
  register: begun
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
      sample: shift
    number:
      description: Number of the step, from 1.
      type: int
      returned: success
    kind:
      description: Kind of the step.
      type: str
      returned: success
      sample: shift
    share:
      description: Percent of the traffic that the new pool gets, where the step says so.
      type: float
      returned: success
    text:
      description: What the step does.
      type: str
      returned: success
    verdict:
      description: What the step may do. V(go), V(passed), V(stopped) or V(paused).
      type: str
      returned: O(state=started)
      sample: go
    serving:
      description: The endpoints of O(pool) that have the revision.
      type: list
      elements: dict
      returned: O(state=started)
    failed:
      description: The endpoints of O(pool) on which the deployment has failed.
      type: list
      elements: dict
      returned: O(state=started)
"""
