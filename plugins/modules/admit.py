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
  gating:
    description:
      - What is asked between two stages, with the options of M(bascule.deploy.gate). One target of
        the next stage asks, the others wait.
    type: dict
    default: {}
    suboptions:
      gates:
        description:
          - The gates, as in the variable C(deploy_gates).
        type: list
        elements: dict
        default: []
      named:
        description:
          - Gates that O(gating.gates) may name by C(name) alone.
        type: list
        elements: dict
        default: []
      judge:
        description:
          - The judge, as in the variable C(deploy_judge).
        type: dict
        default: {}
      traffic:
        description:
          - The load balancers that gates of the types C(proxy) and C(load_balancer) and the judge
            ask.
        type: dict
        default: {}
        suboptions:
          provider:
            description:
              - The load balancer, as in M(bascule.deploy.traffic).
            type: str
            default: none
          options:
            description:
              - Its options, as in M(bascule.deploy.traffic).
            type: dict
            default: {}
          hosts:
            description:
              - Inventory names of the hosts on which it runs; all of them are asked.
            type: list
            elements: str
            default: [localhost]
          targets:
            description:
              - The targets that a gate of the type C(load_balancer) asks about.
            type: list
            elements: dict
            default: []
      on_inconclusive:
        description:
          - What to do when the evidence is not enough.
        type: str
        choices: [pause, extend, ask, fail]
        default: pause
      extensions:
        description:
          - How often a step is extended.
        type: int
        default: 3
      approval_timeout:
        description:
          - How long a person has who is asked because the evidence is not enough.
        type: raw
        default: 24h
      approval_on_timeout:
        description:
          - What happens when nobody has answered in time.
        type: str
        choices: [stop, continue]
        default: stop
      pools:
        description:
          - The pools that gates and the judge compare.
        type: dict
        default: {}
        suboptions:
          canary:
            description:
              - Pool of the new revision.
            type: str
            default: ""
          baseline:
            description:
              - Pool that it is compared with.
            type: str
            default: ""
          share:
            description:
              - The canary's share of the traffic, in percent.
            type: float
          sticky:
            description:
              - Whether users stay with their pool, so that requests do not stand for themselves.
            type: bool
            default: false
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
