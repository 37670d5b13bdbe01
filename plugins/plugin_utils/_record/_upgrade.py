# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which version a record has, and the way to the newest one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ...module_utils._errors import RecordError
from ._location import locate, release, retain, upgrade, version
from ._schema import SCHEMA_VERSION, check_version, is_older


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordVersion:
    """A record's address, the version of its tables, and the version that this Bascule needs.

    ``version`` is None where there is no record yet; the first deployment makes it.
    ``upgraded_from`` is the version it had, if it was migrated just now.
    """

    url: str
    version: int | None
    needed: int = SCHEMA_VERSION
    upgraded_from: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the same as plain data, for JSON."""
        return asdict(self)


def record_version(url: str | None = None) -> RecordVersion:
    """Look which version a record has; nothing is made or changed. ``url`` as in Record.open."""
    location = locate(url)
    retain(location)
    try:
        return RecordVersion(url=location.shown, version=version(location))
    finally:
        release(location)


def upgrade_record(url: str | None = None) -> RecordVersion:
    """Migrate a record to the newest version, in one transaction; one that has it is left alone.

    A SQLite record needs no asking: opening it does the same. ``url`` as in Record.open.

    :raises RecordError: there is no record, it is newer than this Bascule, or Alembic is missing
    """
    location = locate(url)
    retain(location)
    try:
        before = version(location)
        if before is None:
            raise RecordError(
                f"There is no record at {location.shown} to upgrade. Opening one makes it, in the "
                "newest version; see that BASCULE_RECORD or --record names the one you mean."
            )
        if not is_older(before):
            check_version(location.shown, before)
            return RecordVersion(url=location.shown, version=before)
        upgrade(location)
        after = version(location)
        check_version(location.shown, after)
        return RecordVersion(url=location.shown, version=after, upgraded_from=before)
    finally:
        release(location)
