# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From an older version of the record to this one, step by step, with Alembic.

A migration is a module ``revision_NNNN`` with a function ``upgrade`` that leads from version N-1 to
version N; it is never changed once it was released. The version of a record is in its table
``schema_version``, also for Bascules that know nothing of Alembic. All steps run in the caller's
transaction.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ....module_utils._errors import RecordError
from .._schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from sqlalchemy import Connection


def migrate(connection: Connection, version: int) -> None:
    """Bring the record from ``version`` (0: there are no tables yet) to the newest.

    :raises RecordError: Alembic is missing
    """
    try:
        from alembic.migration import MigrationContext
        from alembic.operations import Operations
    except ImportError as error:
        raise RecordError(
            f"The record has version {version} and must be brought to version {SCHEMA_VERSION}, "
            "which needs the Python package alembic: pip install alembic."
        ) from error
    from sqlalchemy import text

    operations = Operations(MigrationContext.configure(connection))
    for number in range(version + 1, SCHEMA_VERSION + 1):
        step = importlib.import_module(f"{__name__}.revision_{number:04}")
        step.upgrade(operations)
    connection.execute(text("UPDATE schema_version SET version = :new"), {"new": SCHEMA_VERSION})
