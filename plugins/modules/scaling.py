#!/usr/bin/python
# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The work is done on the controller, by the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: scaling
short_description: Hold Auto Scaling groups still for a deployment
version_added: 0.1.0
description:
  - Suspends processes of Auto Scaling groups for a deployment, and resumes them when it and its
    rollback have ended. What was suspended before stays suspended.
  - The record knows what is held, so that whoever resumes or abandons a deployment lets it go.
extends_documentation_fragment:
  - bascule.deploy.recorded
  - bascule.deploy.recorded.controller
attributes:
  diff_mode:
    description: Returns details on what has changed, or would change.
    support: full
options:
  state:
    description:
      - V(held) suspends. V(released) resumes and answers the hook, as far as nobody needs the
        groups held any more; what goes wrong then is a warning.
    type: str
    choices: [held, released]
    required: true
  deployment:
    description:
      - The deployment, as in the fact C(bascule_deployment) of localhost.
    type: dict
    required: true
  groups:
    description:
      - Names of the Auto Scaling groups.
    type: list
    elements: str
    default: []
  suspend:
    description:
      - The processes to suspend.
    type: list
    elements: str
    default: []
  hook:
    description:
      - Name of the launch hook at which instances of the groups may wait. They are kept waiting
        while the deployment goes on, and answered for with V(released), also those that no
        deployment knows because it failed. The termination hook is in O(deployment).
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Hold the workers still
  bascule.deploy.scaling:
    state: held
    groups: [shop-workers-prod]
    suspend: [Launch, ReplaceUnhealthy]
    deployment: "{{ hostvars.localhost.ansible_facts.bascule_deployment }}"
  run_once: true
  delegate_to: localhost
"""

RETURN = r"""
bascule:
  description: What callbacks and the API read.
  returned: always
  type: dict
  contains:
    groups:
      description: By group, which processes were suspended C(before) and are C(after).
      type: dict
      returned: when O(state=held)
    released:
      description: Names of the groups that were let go.
      type: list
      elements: str
      returned: when O(state=released)
    answered:
      description: What was answered to the hook, instance by instance.
      type: list
      elements: str
      returned: when O(state=released)
"""
