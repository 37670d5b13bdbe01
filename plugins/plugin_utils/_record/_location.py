# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the record is, and transactions on it."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...module_utils._errors import RecordError
from . import _sqlite

if TYPE_CHECKING:
    from ._session import Session

_SQLITE = ("sqlite://", "sqlite+pysqlite://")


@dataclass(frozen=True, slots=True)
class Location:
    """A record's address: ``path`` is set for SQLite; only ``url`` may hold a password."""

    url: str
    shown: str
    path: Path | None
    password: str = ""


def state_folder() -> Path:
    """Where Bascule keeps what must survive: $BASCULE_STATE or the XDG state folder."""
    named = os.environ.get("BASCULE_STATE")
    if named:
        return Path(named).expanduser().absolute()
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path("~/.local/state").expanduser()).absolute() / "bascule"


def locate(url: str | None) -> Location:
    """Understand a record's URL; None means $BASCULE_RECORD, else SQLite in the state folder."""
    given = url or os.environ.get("BASCULE_RECORD")
    if not given:
        return _sqlite_location(state_folder() / "record.db")
    for scheme in _SQLITE:
        if given.startswith(scheme):
            rest = given[len(scheme) :]
            if not rest.startswith("/") or rest in ("/", "/:memory:") or "?" in rest:
                raise RecordError(
                    f"The record's URL {given} does not name a file. Wanted is for instance "
                    "sqlite:////var/lib/bascule/record.db (an absolute path has four slashes); "
                    "a database in memory cannot be shared by processes."
                )
            return _sqlite_location(Path(rest[1:]).expanduser().absolute())
    return _server_location(given)


def _sqlite_location(path: Path) -> Location:
    shown = f"sqlite:///{path}"
    return Location(shown, shown, path)


def _server_location(given: str) -> Location:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(given)
    except (ArgumentError, ValueError):
        # The text is not repeated: it may hold a password in a place that cannot be told.
        raise RecordError(
            "The record's URL cannot be understood. Wanted is for instance "
            "sqlite:////var/lib/bascule/record.db or postgresql://USER:PASSWORD@HOST/DATABASE, "
            "in BASCULE_RECORD or the option that names the record."
        ) from None
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    hidden = url
    if "password" in url.query:
        hidden = url.update_query_dict({"password": "***"})
    password = str(url.password or url.query.get("password") or "")
    shown = hidden.render_as_string(hide_password=True)
    return Location(url.render_as_string(hide_password=False), shown, None, password)


def reading(location: Location) -> contextlib.AbstractContextManager[Session]:
    """Begin to read (a SQLite record: one state of it)."""
    if location.path is not None:
        return _sqlite.transaction(location.path, writes=False, synced=False)
    from . import _server

    return _server.transaction(location, writes=False)


def snapshot(location: Location) -> contextlib.AbstractContextManager[Session]:
    """Begin to read one state of the record, however long that takes."""
    if location.path is not None:
        return _sqlite.transaction(location.path, writes=False, synced=False)
    from . import _server

    return _server.transaction(location, writes=False, snapshot=True)


def writing(
    location: Location, *, synced: bool = True
) -> contextlib.AbstractContextManager[Session]:
    """Begin to write: committed at the end, rolled back on an exception.

    Unless ``synced``, the commit to a SQLite record does not wait for the disk. That is for what a
    target's own journal knows as well; while 64 processes waited for the disk after each other,
    an admission took seconds.
    """
    if location.path is not None:
        return _sqlite.transaction(location.path, writes=True, synced=synced)
    from . import _server

    return _server.transaction(location, writes=True)


def prepare(location: Location) -> None:
    """Make sure that the record exists and that this version of Bascule can work with it."""
    if location.path is not None:
        _sqlite.prepare(location.path)
    else:
        from . import _server

        _server.prepare(location)


def version(location: Location) -> int | None:
    """Return the version of the record, without making or changing it; None where there is none."""
    if location.path is not None:
        return _sqlite.version(location.path)
    from . import _server

    return _server.version(location)


def upgrade(location: Location) -> None:
    """Migrate an older record to this version, if it is older."""
    if location.path is not None:
        _sqlite.prepare(location.path)
    else:
        from . import _server

        _server.upgrade(location)


def retain(location: Location) -> None:
    """Keep what is open of the record in this process until it is released as often."""
    if location.path is None:
        from . import _server

        _server.retain(location)


def release(location: Location) -> None:
    """Close what is open of the record in this process."""
    if location.path is None:
        from . import _server

        _server.release(location)


def warm(url: str | None = None) -> None:
    """Do once, in the process that forks the workers, what each of them would do again.

    For a server that is importing SQLAlchemy and the driver; a SQLite record needs nothing. Nothing
    is created or connected to, and nothing fails: a wrong URL is told when the record is opened.
    """
    with contextlib.suppress(RecordError):
        location = locate(url)
        if location.path is None:
            from . import _server

            _server.engine(location)
