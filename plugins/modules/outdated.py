#!/usr/bin/python
# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The work is done on the controller, by the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: outdated
short_description: Name the targets that are not up to date
version_added: 0.1.0
description:
  - Compares the targets of the inventory with the record. A target is outdated if it has no
    revision or an old one of the deployment group, or if the last deployment to it has failed.
  - Fails if there are such targets, and names them. No target is asked.
extends_documentation_fragment:
  - bascule.deploy.recorded
  - bascule.deploy.recorded.controller
attributes:
  diff_mode:
    description: Returns details on what has changed, or would change.
    support: none
options:
  application:
    description:
      - Name of the application.
    type: str
    required: true
  group:
    description:
      - Name of the deployment group.
    type: str
    required: true
  targets:
    description:
      - Inventory names of the targets.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Tell me who has missed a deployment
  bascule.deploy.outdated:
    application: shop
    group: web
    targets: "{{ groups['web'] }}"
  run_once: true
  delegate_to: localhost
"""

RETURN = r"""
bascule:
  description: What callbacks and the API read.
  returned: always
  type: dict
  contains:
    targets:
      description:
        - The targets, the outdated ones first. Each has C(target), C(health) (Healthy, Unhealthy,
          Unknown), C(revision) (Current, Old, Unknown), C(digest), C(outdated), C(in_inventory) and
          C(idle) (in a pool that no user reaches, which is not outdated).
      type: list
      elements: dict
      returned: always
"""
