# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the record asks of a database: a few kinds of statements, inside a transaction.

There are two ways to a database, with one meaning. A SQLite file is used with the standard library
alone (``_sqlite``), because importing SQLAlchemy takes longer than a status may take. Every other
database is reached through SQLAlchemy (``_server``). The statements are those of ``_statements``,
the tables are described once, in ``_schema``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Row = Mapping[str, Any]


class DuplicateError(Exception):
    """A row with this key is there already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which rows are wanted: names come from our code, values from anywhere.

    ``columns`` empty means all. ``order`` names columns, a leading ``-`` turns the order round.
    ``tally`` groups by ``columns``, counts the rows as ``n`` and, with ``latest``, adds the
    largest value of that column as ``latest``.
    """

    table: str
    columns: tuple[str, ...] = ()
    equals: Mapping[str, Any] = field(default_factory=dict)
    among: tuple[str, tuple[Any, ...]] | None = None
    above: tuple[str, Any] | None = None
    order: tuple[str, ...] = ()
    limit: int | None = None
    tally: bool = False
    latest: str | None = None


class Adder(Protocol):
    """What rows can be added with."""

    def insert(self, table: str, rows: Sequence[Row]) -> None:
        """Add rows, all with the same columns; raises DuplicateError."""


class Session(Adder, Protocol):
    """An open transaction; it ends where the ``with`` that gave it ends."""

    def now(self) -> float:
        """Return the time by the clock that all users of the record share, in epoch seconds."""

    def rows(self, query: Query) -> list[dict[str, Any]]:
        """Read."""

    def locked(self, query: Query) -> list[dict[str, Any]]:
        """Read rows that nobody else may change until the transaction ends."""

    def update(self, table: str, values: Row, **equals: Any) -> int:
        """Change the rows in which these columns have these values; returns how many."""

    def delete(self, table: str, **equals: Any) -> None:
        """Remove the rows in which these columns have these values."""
