# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One description of a read, and the two ways to run it.

A status must be shown faster than SQLAlchemy can be imported (0.2 s), so a SQLite record is read
with the standard library alone; everything else goes through SQLAlchemy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Connection, Select

    from ._schema import Tables

Row = Mapping[str, Any]
Rows = Callable[["Query"], list[dict[str, Any]]]


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


def sqlite_text(query: Query) -> tuple[str, list[Any]]:
    """Return the statement and its parameters for the ``sqlite3`` module."""
    columns = list(query.columns) or ["*"]
    if query.tally:
        columns.append("count(*) AS n")
    if query.latest:
        columns.append("max(" + query.latest + ") AS latest")
    parts = ["SELECT", ", ".join(columns), "FROM", query.table]
    conditions, values = _conditions(query)
    if conditions:
        parts += ["WHERE", " AND ".join(conditions)]
    if query.tally:
        parts += ["GROUP BY", ", ".join(query.columns)]
    if query.order:
        by = [name[1:] + " DESC" if name.startswith("-") else name for name in query.order]
        parts += ["ORDER BY", ", ".join(by)]
    if query.limit is not None:
        parts.append("LIMIT ?")
        values.append(query.limit)
    return " ".join(parts), values


def _conditions(query: Query) -> tuple[list[str], list[Any]]:
    conditions = [name + " = ?" for name in query.equals]
    values = list(query.equals.values())
    if query.among is not None:
        name, wanted = query.among
        conditions.append(name + " IN (" + ", ".join("?" * len(wanted)) + ")")
        values += wanted
    if query.above is not None:
        conditions.append(query.above[0] + " > ?")
        values.append(query.above[1])
    return conditions, values


def core_select(query: Query, tables: Tables) -> Select[Any]:
    """Return the same read as a statement of SQLAlchemy Core."""
    from sqlalchemy import func, select

    column = getattr(tables, query.table).c
    columns = [column[name] for name in query.columns] or list(column)
    extra: list[Any] = [func.count().label("n")] if query.tally else []
    if query.latest:
        extra.append(func.max(column[query.latest]).label("latest"))
    statement = select(*columns, *extra)
    for name, value in query.equals.items():
        statement = statement.where(column[name] == value)
    if query.among is not None:
        statement = statement.where(column[query.among[0]].in_(query.among[1]))
    if query.above is not None:
        statement = statement.where(column[query.above[0]] > query.above[1])
    if query.tally:
        statement = statement.group_by(*columns)
    for name in query.order:
        statement = statement.order_by(
            column[name[1:]].desc() if name.startswith("-") else column[name]
        )
    return statement if query.limit is None else statement.limit(query.limit)


def core_rows(connection: Connection) -> Rows:
    """Run reads on a connection of SQLAlchemy."""
    from ._schema import tables

    def rows(query: Query) -> list[dict[str, Any]]:
        found = connection.execute(core_select(query, tables()))
        return [dict(row) for row in found.mappings()]

    return rows
