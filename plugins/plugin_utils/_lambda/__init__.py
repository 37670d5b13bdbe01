# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""AWS Lambda: packages, versions, aliases and the functions that check a deployment.

Import from the files beside this one; nothing here asks AWS when it is imported.
"""

from __future__ import annotations
