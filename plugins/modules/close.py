#!/usr/bin/python
# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The work is done on the controller, by the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: close
short_description: Close a deployment
version_added: 0.1.0
description:
  - Decides by CodeDeploy's rule how a deployment ended, and frees its deployment group.
  - If it failed or was stopped, and the group's rules or whoever stopped it ask for it, the
    deployment that rolls back is opened.
  - A deployment that is paused is not closed; whoever resumes it goes on.
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
  refusal:
    description:
      - Result of the task that made it impossible to begin. The deployment is closed and the play
        fails with its message.
    type: dict
    default: {}
  joined:
    description:
      - Whether what could not begin is the deployment of targets that joined.
    type: bool
    default: false
  release:
    description:
      - Whether Auto Scaling groups are let go that were held for what could not begin.
    type: bool
    default: false
  notifications:
    description:
      - Who is told, as in C(deploy_notifications). What is still to be told when the
        verdict is given is waited for, for some seconds.
    type: list
    elements: dict
    default: []
  verdict:
    description:
      - Only fail if the deployment has failed.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Close the deployment
  bascule.deploy.close:
    deployment: "{{ hostvars.localhost.ansible_facts.bascule_deployment }}"
  run_once: true
  delegate_to: localhost
  delegate_facts: true
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
      sample: close
    deployment:
      description: The deployment with its final status.
      type: dict
      returned: success
    rollback:
      description: The deployment that rolls back, if one was opened.
      type: dict
      returned: success
    paused:
      description: The id of the deployment, if it is paused instead of closed.
      type: str
      returned: success
    summary:
      description: How it ended, as a person reads it.
      type: str
      returned: success
"""
