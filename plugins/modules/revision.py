#!/usr/bin/python
# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The work is done on the controller, by the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: revision
short_description: Mark a revision bad, or take the mark back
version_added: 0.1.0
description:
  - A revision that is marked bad is not deployed, and no rollback goes to it.
extends_documentation_fragment:
  - bascule.deploy.recorded
  - bascule.deploy.recorded.controller
attributes:
  diff_mode:
    description: Returns details on what has changed, or would change.
    support: none
options:
  revision:
    description:
      - Digest of the revision, at least the first 6 characters, or the id of a deployment of it.
    type: str
    required: true
  application:
    description:
      - Name of the application. Needed only where several have a revision of that name.
    type: str
    default: ""
  state:
    description:
      - What the revision is to be.
    type: str
    choices: [bad, good]
    required: true
  why:
    description:
      - A sentence for the record.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Let nobody deploy this revision again
  bascule.deploy.revision:
    revision: 1397b3e61412
    state: bad
    why: It loses orders
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
bascule:
  description: What callbacks and the API read.
  returned: always
  type: dict
  contains:
    application:
      description: The application.
      type: str
      returned: success
    digest:
      description: The whole digest of the revision.
      type: str
      returned: success
    bad:
      description: Whether the revision is marked bad now.
      type: bool
      returned: success
    why:
      description: The reason that was given.
      type: str
      returned: success
"""
