#!/usr/bin/python
# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The work is done on the controller, by the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: gate
short_description: Ask the gates of a step while it bakes
version_added: 0.1.0
description:
  - Waits until the bake time of a step has passed and all of its gates have decided, asks each gate
    at its interval, and writes every answer to the record with the data that it was made from.
  - Fails as soon as a gate has failed; the deployment is halted then. It fails as well when the
    deployment is stopped meanwhile.
  - The end of the bake time is kept in the record, so a run that is resumed does not begin anew. If
    several ask for the same step, one of them asks its gates and all get the same verdict.
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
  step:
    description:
      - Name of the step. A run that is resumed goes on with the step of this name.
    type: str
    required: true
  gates:
    description:
      - The gates, as in the variable C(deploy_gates), which documents their keys.
    type: list
    elements: dict
    default: []
  named:
    description:
      - Gates that O(gates) may name by C(name) alone, so that what is secret in them is in no plan.
    type: list
    elements: dict
    default: []
  alarms:
    description:
      - CloudWatch alarms that must not be active during the step.
    type: list
    elements: str
    default: []
  judge:
    description:
      - The judge of this step, as in the variable C(deploy_judge).
    type: dict
    default: {}
  ab_test:
    description:
      - The A/B test that this step is, as in the variable C(deploy_ab_test). The step ends as soon
        as the test is decided.
    type: dict
  seconds:
    description:
      - How long the step bakes, in seconds or as C(90s), C(10m) or C(1h). With V(0) the gates are
        asked until they have decided.
    type: raw
    default: 0
  last:
    description:
      - Whether it is the last step of a deployment by stages. Nothing is asked then if the
        deployment has changed nothing, is ending, or is to fail anyway.
    type: bool
    default: false
  may_end:
    description:
      - Whether C(bascule continue) ends the bake time before it has passed.
    type: bool
    default: false
  home:
    description:
      - The routing that brings all traffic back. Load balancers on hosts of their own get it as
        soon as the gates have failed.
    type: dict
    default: {}
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
      arms:
        description:
          - The targets of C(canary) and C(baseline) where canaries are targets among the others.
            What is compared are these then.
        type: dict
        default: {}
  traffic:
    description:
      - The load balancers that gates of the types C(proxy) and C(load_balancer) and the judge ask.
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
      - What to do when the evidence is not enough. V(pause) pauses the deployment until somebody
        resumes it, and asks anew then; V(extend) bakes once more, O(extensions) times, and pauses
        then; V(ask) asks a person; V(fail) counts it as a failure.
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
"""

EXAMPLES = r"""
- name: Watch the canary for ten minutes
  bascule.deploy.gate:
    deployment: "{{ hostvars.localhost.ansible_facts.bascule_deployment }}"
    step: canary 5 %
    seconds: 10m
    gates:
      - type: http
        url: https://shop.example/health
        interval: 10s
        failure_limit: 2
      - type: prometheus
        name: errors
        url: http://prometheus:9090
        query: sum(rate(errors_total[1m])) / sum(rate(requests_total[1m]))
        success: "< 1%"
"""

RETURN = r"""
verdict:
  description: Pass, Fail or Inconclusive.
  returned: always
  type: str
  sample: Pass
bascule:
  description: What callbacks and the API read.
  returned: always
  type: dict
  contains:
    phase:
      description: The action's name.
      type: str
      returned: always
      sample: gate
    step:
      description: Name of the step.
      type: str
      returned: always
    verdict:
      description: One of Pass, Fail and Inconclusive.
      type: str
      returned: always
    message:
      description: What the verdict was made from.
      type: str
      returned: always
    paused:
      description: Whether the deployment is paused now and waits for somebody to resume it.
      type: bool
      returned: always
    decided:
      description: Whether the gates have answered before the deployment was paused or began to end.
      type: bool
      returned: always
      sample: true
    halted:
      description: Whether the deployment is ending.
      type: bool
      returned: always
    gates:
      description: How each gate stands.
      type: list
      elements: dict
      returned: always
    waited:
      description: Seconds until the verdict.
      type: float
      returned: always
"""
