# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kinds of columns that the tables of the record are made of, here and in the migrations.

A kind is never changed, because the migrations of the past are written with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Column, Text


def _key_text() -> Text:
    from sqlalchemy import String, Text

    # MySQL has no keys of unlimited length.
    return Text().with_variant(String(190), "mysql", "mariadb")


def text(name: str) -> Column[str]:
    """Return a text that is always there."""
    from sqlalchemy import Column, Text

    return Column(name, Text, nullable=False)


def maybe_text(name: str) -> Column[str]:
    """Return a text that may be missing."""
    from sqlalchemy import Column, Text

    return Column(name, Text)


def key(name: str) -> Column[str]:
    """Return a text of the primary key."""
    from sqlalchemy import Column

    return Column(name, _key_text(), primary_key=True)


def number_key(name: str) -> Column[int]:
    """Return a number of the primary key, which the record itself gives."""
    from sqlalchemy import Column, Integer

    return Column(name, Integer, primary_key=True, autoincrement=False)


def counted_key(name: str) -> Column[int]:
    """Return the primary key that the database counts."""
    from sqlalchemy import Column, Integer

    return Column(name, Integer, primary_key=True, autoincrement=True)


def indexed(name: str) -> Column[str]:
    """Return a text that an index or a constraint is made with."""
    from sqlalchemy import Column

    return Column(name, _key_text(), nullable=False)


def integer(name: str, default: int | None = None) -> Column[int]:
    """Return a number; ``default`` is what rows have from before the column."""
    from sqlalchemy import Column, Integer

    given = None if default is None else str(default)
    return Column(name, Integer, nullable=False, server_default=given)


def maybe_integer(name: str) -> Column[int]:
    """Return a number that may be missing."""
    from sqlalchemy import Column, Integer

    return Column(name, Integer)


def flag(name: str) -> Column[bool]:
    """Return a yes or no."""
    from sqlalchemy import Boolean, Column

    return Column(name, Boolean, nullable=False)


def new_flag(name: str) -> Column[bool]:
    """Return a yes or no that rows from before the column have as no."""
    from sqlalchemy import Boolean, Column, false

    return Column(name, Boolean, nullable=False, server_default=false())


def moment(name: str) -> Column[float]:
    """Return a time in seconds since the epoch, or a number of seconds."""
    from sqlalchemy import Column, Double

    return Column(name, Double, nullable=False)


def maybe_moment(name: str) -> Column[float]:
    """Return a time that may be missing."""
    from sqlalchemy import Column, Double

    return Column(name, Double)
