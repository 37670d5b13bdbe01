# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is no longer needed after a deployment: old versions, provisioned concurrency."""

from __future__ import annotations

import datetime
import time
from typing import TYPE_CHECKING

from ...module_utils._aliases import versions_to_delete

if TYPE_CHECKING:
    from collections.abc import Collection

    from ._service import Service


def delete_old_versions(
    service: Service, function: str, *, keep: int, age: float, needed: Collection[str]
) -> list[str]:
    """Delete the versions beyond number and age, and return them.

    :param keep: how many stay besides those in use; below 0 all
    :param age: seconds; younger ones stay
    :param needed: versions that a rollback would bring back
    :raises FunctionError: Lambda refuses
    """
    if keep < 0:
        return []
    used = {name for alias in service.aliases(function).values() for name in alias.shares}
    published = {
        name: published_at(str(told.get("LastModified") or ""))
        for name, told in service.versions(function).items()
    }
    going = versions_to_delete(
        published, keep=keep, age=age, now=time.time(), protected={*used, *needed}
    )
    for version in going:
        service.delete_version(function, version)
    return going


def published_at(text: str) -> float:
    """Read a time as Lambda tells it, 2026-01-31T12:00:00.000+0000; a text that is none is now."""
    for form in ("%Y-%m-%dT%H:%M:%S.%f%z", "%Y-%m-%dT%H:%M:%S%z"):
        try:
            return datetime.datetime.strptime(text, form).timestamp()
        except ValueError:
            continue
    return time.time()
