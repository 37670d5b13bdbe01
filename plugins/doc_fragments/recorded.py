# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation that all modules which write to the record have in common."""

from __future__ import annotations


class ModuleDocFragment:
    """Where the record is, and which deployment is meant."""

    DOCUMENTATION = r"""
author:
  - Bascule contributors (@bascule)
options:
  record:
    description:
      - SQLAlchemy URL of the record. The default is an SQLite database in the state folder.
    type: str
    default: ""
  state_directory:
    description:
      - Folder of the record and of the cache. The default is in the user's state folder.
    type: str
    default: ""
"""

    CONTROLLER = r"""
options: {}
attributes:
  check_mode:
    description: Can run in check_mode and return what would be done without changing anything.
    support: full
  action:
    description: Indicates this has a corresponding action plugin that runs on the controller.
    support: full
"""
