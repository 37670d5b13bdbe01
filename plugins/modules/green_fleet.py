#!/usr/bin/python
# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The work is done on the controller, by the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: green_fleet
short_description: Copy an Auto Scaling group for the idle pool of a blue/green deployment
version_added: 0.1.0
author:
  - Bascule contributors (@bascule)
description:
  - Two pools of an Application Load Balancer take turns. The Auto Scaling group of the pool that
    has the traffic is copied for the other one, with its launch template, subnets, tags and
    capacity, and all instances of the copy are waited for.
  - Each group, and by its tags each instance, has the tag C(bascule:pool) with the name of its
    pool; the inventory makes O(ignore:deploy_pool) of it. A copy has C(bascule:origin), too.
  - A copy is attached to its target group when its deployment has succeeded; before, its instances
    are registered as they get the revision.
options:
  state:
    description:
      - V(provided) sees that the idle pool has a group whose instances are all in service; one
        that is there already is used.
      - V(retired) attaches the group of the pool that has the traffic to its target group, and
        deletes the group of the other pool with its instances.
    type: str
    choices: [provided, retired]
    required: true
  group:
    description:
      - Name of the Auto Scaling group that the first deployment finds. Its copies are found by
        their tags.
    type: str
    required: true
  listener:
    description:
      - ARN of the listener, or of one of its rules, that shares the traffic between the pools.
    type: str
    required: true
  pools:
    description:
      - The C(target_group) of each of the two pools, by the pool's name.
    type: dict
    required: true
  timeout:
    description:
      - How long the instances of a copy may take to come into service.
    type: raw
    default: 15m
  keep:
    description:
      - Leave the group of the other pool as it is (O(state=retired)); the next deployment uses it.
    type: bool
    default: false
attributes:
  check_mode:
    description: Says which group would be copied or deleted, and does neither.
    support: full
  diff_mode:
    description: Shows the group that comes or goes.
    support: full
seealso:
  - module: bascule.deploy.traffic
"""

EXAMPLES = r"""
- name: Copy the group that serves users for the other pool
  bascule.deploy.green_fleet:
    state: provided
    group: shop-workers
    listener: "{{ deploy_elbv2_listener }}"
    pools:
      blue: {target_group: shop-blue}
      green: {target_group: shop-green}
  delegate_to: localhost
"""

RETURN = r"""
bascule:
  description: What callbacks and the API read.
  returned: success
  type: dict
  contains:
    group:
      description: The group of the idle pool (O(state=provided)) or of the live one.
      type: str
      sample: shop-workers-green-5f1c9a02
    source:
      description: The group that has the traffic.
      returned: when O(state=provided)
      type: str
    pool:
      description: The idle pool.
      returned: when O(state=provided)
      type: str
    instances:
      description: Ids of the group's instances.
      returned: when O(state=provided)
      type: list
      elements: str
    terminated:
      description: The group that was deleted, or nothing.
      returned: when O(state=retired)
      type: str
"""
