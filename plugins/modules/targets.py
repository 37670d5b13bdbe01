#!/usr/bin/python
# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The work is done on the controller, by the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: targets
short_description: Show the targets of an inventory
version_added: 0.1.0
description:
  - Returns how each target is reached and where it comes from. No target is asked.
author:
  - Bascule contributors (@bascule)
extends_documentation_fragment:
  - bascule.deploy.recorded.controller
attributes:
  diff_mode:
    description: Returns details on what has changed, or would change.
    support: none
options:
  targets:
    description:
      - Inventory names of the targets.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Show the targets
  bascule.deploy.targets:
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
        - The targets by name. Each has C(target), C(groups), C(address), C(connection), C(zone),
          C(pool), C(instance) (its id at EC2) and C(from).
      type: list
      elements: dict
      returned: always
"""
