# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The few kinds of statements that the record needs, as SQL that every database understands.

They are text, and not expressions of SQLAlchemy, because of time: a status must be shown sooner
than SQLAlchemy can be imported, and a forked worker would compile every expression anew, the
writes even while it holds the lock that all others wait for.

Names of tables and columns are written into a statement, and come from this package alone; values
never are: a statement names them ``:v0``, ``:v1`` and so on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ._session import Query

Statement = tuple[str, dict[str, Any]]

# No statement can be made that changes or removes what is in these.
_ONLY_ADDED = ("audit",)
_NEVER_REMOVED = (*_ONLY_ADDED, "audit_heads")


def select(query: Query) -> Statement:
    """Return the statement of a read."""
    values = _Values()
    columns = list(query.columns) or ["*"]
    if query.tally:
        columns.append("count(*) AS n")
    if query.latest:
        columns.append("max(" + query.latest + ") AS latest")
    parts = ["SELECT", ", ".join(columns), "FROM", query.table]
    conditions = values.pairs(query.equals)
    if query.among is not None:
        name, wanted = query.among
        conditions.append(name + " IN (" + ", ".join(values.add(one) for one in wanted) + ")")
    if query.above is not None:
        conditions.append(query.above[0] + " > " + values.add(query.above[1]))
    if conditions:
        parts += ["WHERE", " AND ".join(conditions)]
    if query.tally:
        parts += ["GROUP BY", ", ".join(query.columns)]
    if query.order:
        by = [name[1:] + " DESC" if name.startswith("-") else name for name in query.order]
        parts += ["ORDER BY", ", ".join(by)]
    if query.limit is not None:
        parts += ["LIMIT", values.add(query.limit)]
    return " ".join(parts), values.given


def insert(table: str, columns: Iterable[str]) -> str:
    """Return the statement that adds a row, whose values it names as the columns."""
    names = list(columns)
    parts = ["INSERT INTO", table, "(" + ", ".join(names) + ")"]
    return " ".join([*parts, "VALUES", "(" + ", ".join(":" + name for name in names) + ")"])


def update(table: str, changes: Mapping[str, Any], equals: Mapping[str, Any]) -> Statement:
    """Return the statement that changes the rows with these values."""
    if table in _ONLY_ADDED:
        raise ValueError(f"rows of {table} are never changed")
    values = _Values()
    parts = ["UPDATE", table, "SET", ", ".join(values.pairs(changes))]
    parts += ["WHERE", " AND ".join(values.pairs(equals))]
    return " ".join(parts), values.given


def delete(table: str, equals: Mapping[str, Any]) -> Statement:
    """Return the statement that removes the rows with these values."""
    if table in _NEVER_REMOVED:
        raise ValueError(f"rows of {table} are never removed")
    values = _Values()
    parts = ["DELETE", "FROM", table, "WHERE", " AND ".join(values.pairs(equals))]
    return " ".join(parts), values.given


class _Values:
    """The values of a statement by the names that it has for them."""

    def __init__(self) -> None:
        self.given: dict[str, Any] = {}

    def add(self, value: Any) -> str:
        name = f"v{len(self.given)}"
        self.given[name] = value
        return ":" + name

    def pairs(self, values: Mapping[str, Any]) -> list[str]:
        return [name + " = " + self.add(value) for name, value in values.items()]
