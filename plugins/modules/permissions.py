#!/usr/bin/python
# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The work is done on the controller, by the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: permissions
short_description: Say which permissions at AWS a deployment group needs
version_added: 0.1.0
description:
  - Returns an IAM policy with what the variables of the targets need, and nothing more. Nothing is
    asked, neither a target nor AWS.
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
  push:
    description:
      - Where C(bascule push) puts revisions, as C(s3://BUCKET/FOLDER/).
    type: str
    default: ""
  log_group:
    description:
      - Log group of the callback C(bascule.deploy.cloudwatch), if it is used.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Say what the group needs
  bascule.deploy.permissions:
    targets: "{{ groups['web'] }}"
    push: s3://my-releases/shop/
  run_once: true
  delegate_to: localhost
"""

RETURN = r"""
bascule:
  description: What callbacks and the API read.
  returned: always
  type: dict
  contains:
    policy:
      description: The policy, as IAM takes it.
      type: dict
      returned: always
"""
