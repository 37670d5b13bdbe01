#!/usr/bin/python
# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The work is done on the controller, by the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: control
short_description: Stop, approve, continue, reject or abandon a deployment
version_added: 0.1.0
description:
  - Tells a deployment that another run carries out, or that was interrupted, what to do.
  - Needs nothing but the record.
extends_documentation_fragment:
  - bascule.deploy.recorded
  - bascule.deploy.recorded.controller
attributes:
  diff_mode:
    description: Returns details on what has changed, or would change.
    support: none
options:
  id:
    description:
      - The deployment, as C(d-ABCDEFGHI).
    type: str
    required: true
  request:
    description:
      - V(stop) begins no further target; those in flight finish, and the deployment ends as
        stopped.
      - V(approve) lets a deployment go on that waits for the approval of a stage, V(reject) lets it
        fail.
      - V(continue) does what V(approve) does, and ends the wait before the old pool is retired.
      - V(abandon) ends an interrupted deployment as it is, and frees its group. Auto Scaling groups
        that it held go on, and instances that wait for it at a lifecycle hook are answered.
    type: str
    required: true
    choices: [stop, approve, continue, reject, abandon]
  why:
    description:
      - A sentence for the record.
    type: str
    default: ""
  rollback:
    description:
      - With V(request=stop), bring the changed targets back to the last good revision, too.
    type: bool
    default: false
  wait:
    description:
      - With V(request=stop), wait until the deployment and its rollback have ended.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Stop a deployment and bring back what it has changed
  bascule.deploy.control:
    id: d-ABCDEFGHI
    request: stop
    rollback: true
    why: Orders are lost
  delegate_to: localhost
  run_once: true
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
      sample: control
    deployment:
      description: The deployment as it is now.
      type: dict
      returned: success
"""
