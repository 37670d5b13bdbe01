# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The identity of a plan. Pure, and quick to import for those who only read the record."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def plan_hash(plan: Mapping[str, Any], digest: str) -> str:
    """Return the identity of a plan for the revision ``digest``: 64 hexadecimal digits.

    It is the SHA-256 of ``[digest, plan]`` as JSON with sorted keys, without spaces, in ASCII.
    """
    import hashlib

    text = json.dumps([digest, plan], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()
