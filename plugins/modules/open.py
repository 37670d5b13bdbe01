#!/usr/bin/python
# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The work is done on the controller, by the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: open
short_description: Open a deployment
version_added: 0.1.0
description:
  - Validates the public variables, resolves the revision to a digest, makes the plan and writes
    both to the record.
  - In check mode nothing is written; the plan is returned as the difference.
extends_documentation_fragment:
  - bascule.deploy.recorded.controller
attributes:
  diff_mode:
    description: Returns details on what has changed, or would change.
    support: full
options:
  strategy:
    description:
      - Name of the strategy.
    type: str
    required: true
  targets:
    description:
      - Inventory names of the targets.
    type: list
    elements: str
    required: true
  listing:
    description:
      - Only return the endpoints of the targets at the load balancer.
    type: bool
    default: false
  follows:
    description:
      - Id of a deployment that has succeeded. Opened is then one that brings its revision to the
        targets that have joined since it was planned, if there are any.
    type: str
    default: ""
  routing:
    description:
      - What the load balancers have answered to M(bascule.deploy.traffic) with C(state=observed).
        Needed by a plan that is saved or applied.
    type: list
    elements: dict
    default: []
  pool_routing:
    description:
      - What the load balancers have answered to M(bascule.deploy.traffic) with C(state=routed) in
        check mode. It tells which pool is the live one.
    type: list
    elements: dict
    default: []
  foreseen:
    description:
      - In check mode, the Auto Scaling group that would be copied (C(source)), for which C(pool),
        and its C(size). The plan has its instances by number, and nothing is done with them.
    type: dict
    default: {}
author:
  - Bascule contributors (@bascule)
"""

EXAMPLES = r"""
- name: Open a rolling deployment
  bascule.deploy.open:
    strategy: rolling
    targets: "{{ groups['web'] }}"
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
      sample: open
    deployment:
      description: The deployment that was opened.
      type: dict
      returned: success
    plan:
      description: The plan.
      type: dict
      returned: success
    endpoints:
      description: The targets as the load balancer knows them.
      type: list
      elements: dict
      returned: with O(listing)
    plan_text:
      description: The plan as a person reads it.
      type: str
      returned: success
"""
