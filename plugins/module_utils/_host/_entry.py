# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host program's one door: a request as data goes in, a result as data comes out."""

from __future__ import annotations

import importlib
from typing import Any, BinaryIO

from .._errors import BasculeError, UsageError

OPERATIONS = ("stage", "lifecycle", "traffic", "drift")


def run(request: dict[str, Any], bundle: BinaryIO | None = None) -> dict[str, Any]:
    """Run one operation and return its result; an expected failure is a result, too.

    :param request: ``{"operation": one of OPERATIONS, ...}``, plain JSON data
    :param bundle: the revision's archive where the request carries one
    :returns: the operation's result, or ``{"failed": True, "msg": ..., "error": {"kind": ...}}``
    """
    try:
        operation = request["operation"]
        if operation not in OPERATIONS:
            raise UsageError(f"Unknown operation {operation!r}, wanted one of {OPERATIONS}.")
        module = importlib.import_module("._" + operation, __package__)
        result: dict[str, Any] = module.run(request, bundle)
    except BasculeError as error:
        return {"failed": True, "changed": False, "msg": str(error), "error": {"kind": error.kind}}
    return result
