# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the record is, and how to get at it.

Nothing is held open between two transactions: processes are forked at any moment, and many
controllers use one record at once. A SQLite record is in WAL mode, so readers never wait; every
write begins with ``BEGIN IMMEDIATE``, so that it never has to be upgraded half way.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...module_utils._errors import RecordError
from ._query import Query, Rows, core_rows, sqlite_text
from ._schema import SCHEMA_VERSION, tables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

BUSY_SECONDS = 60.0
_SQLITE = ("sqlite://", "sqlite+pysqlite://")
# Any number that others are unlikely to use: it serialises the creation of the tables.
_CREATION_LOCK = 0x42415343

_engines: dict[str, Engine] = {}
_checked_servers: set[str] = set()


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
    return Location(url.render_as_string(hide_password=False), str(hidden), None, password=password)


@contextlib.contextmanager
def reading(location: Location) -> Iterator[Rows]:
    """Read from one consistent state of a SQLite record (of a server: each read its own)."""
    if location.path is None:
        with _translated(location), _engine(location).connect() as server:
            yield core_rows(server)
        return
    with _translated_sqlite(location), _sqlite_connection(location.path) as connection:
        connection.execute("BEGIN")

        def rows(query: Query) -> list[dict[str, Any]]:
            text, values = sqlite_text(query)
            return [dict(row) for row in connection.execute(text, values)]

        yield rows


@contextlib.contextmanager
def writing(location: Location) -> Iterator[Connection]:
    """One transaction: committed at the end, rolled back by an exception."""
    with _translated(location), _engine(location).begin() as connection:
        yield connection


def prepare(location: Location) -> None:
    """Make sure that the record exists and that this version of Bascule can work with it."""
    if location.path is not None:
        _prepare_sqlite(location, location.path)
    elif location.url not in _checked_servers:
        _prepare_server(location)
        _checked_servers.add(location.url)


def _prepare_sqlite(location: Location, path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            # SQLite gives its -wal and -shm files the mode of the database.
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except OSError as error:
        raise RecordError(
            f"The record {location.shown} cannot be created: {error.strerror or error}. "
            "Make the folder writable, or name another record with BASCULE_RECORD."
        ) from error
    with _translated_sqlite(location), _sqlite_connection(path) as connection:
        found = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        if "schema_version" in found:
            row = connection.execute("SELECT version FROM schema_version").fetchone()
            _check_version(location, None if row is None else row[0])
            return
        if found:
            raise RecordError(
                f"{location.shown} is a SQLite database, but not a record of Bascule. "
                "Name another file with BASCULE_RECORD."
            )
        _switch_to_wal(connection)
    with writing(location) as core:
        _create_tables(core)


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    # The switch needs the file for itself and does not wait for it as other statements do.
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").fetchone()
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def _prepare_server(location: Location) -> None:
    from sqlalchemy import inspect, select, text

    with writing(location) as connection:
        if not inspect(connection).has_table("schema_version"):
            if connection.dialect.name == "postgresql":
                connection.execute(
                    text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CREATION_LOCK}
                )
            _create_tables(connection)
        version = connection.execute(select(tables().schema_version.c.version)).scalar()
    _check_version(location, version)


def _create_tables(connection: Connection) -> None:
    """Create the tables unless another process was faster; the caller holds a lock."""
    from sqlalchemy import insert, inspect

    if inspect(connection).has_table("schema_version"):
        return
    tables().metadata.create_all(connection)
    connection.execute(insert(tables().schema_version).values(version=SCHEMA_VERSION))


def _check_version(location: Location, version: int | None) -> None:
    if version != SCHEMA_VERSION:
        raise RecordError(
            f"The record {location.shown} has version {version}, this Bascule works with version "
            f"{SCHEMA_VERSION}. Use the Bascule that wrote it, or name another record with "
            "BASCULE_RECORD."
        )


@contextlib.contextmanager
def _sqlite_connection(path: Path) -> Iterator[sqlite3.Connection]:
    uri = f"file:{urllib.parse.quote(str(path))}?mode=rw"
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        connection.row_factory = sqlite3.Row
        yield connection
    finally:
        connection.close()


def warm(url: str | None = None) -> None:
    """Do once, in the process that forks the workers, what each of them would do again.

    Imports SQLAlchemy, builds the tables and, if the record exists already, runs the statements
    of an admission (in a transaction that is rolled back), so that they are compiled. Nothing is
    created, nothing fails and no connection stays open.
    """
    from sqlalchemy.exc import SQLAlchemyError

    tables()
    with contextlib.suppress(RecordError, SQLAlchemyError, OSError):
        location = locate(url)
        if location.path is not None and location.path.is_file():
            with _engine(location).connect():
                pass


def _engine(location: Location) -> Engine:
    """Return this process's engine; it holds no connection, so forked children may inherit it."""
    engine = _engines.get(location.url)
    if engine is None:
        engine = _engines[location.url] = _new_engine(location)
    return engine


def _new_engine(location: Location) -> Engine:
    from sqlalchemy import URL, create_engine, event
    from sqlalchemy.exc import NoSuchModuleError
    from sqlalchemy.pool import NullPool

    if location.path is None:
        try:
            return create_engine(location.url, poolclass=NullPool)
        except (ImportError, NoSuchModuleError) as error:
            raise RecordError(
                f"The record {location.shown} needs a database driver that is not installed: "
                f"{error}. For PostgreSQL: pip install 'bascule[postgresql]'."
            ) from error
    engine = create_engine(
        URL.create("sqlite+pysqlite", database=str(location.path)),
        poolclass=NullPool,
        connect_args={"timeout": BUSY_SECONDS, "isolation_level": None},
    )

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


@contextlib.contextmanager
def _translated(location: Location) -> Iterator[None]:
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError

    try:
        yield
    except DBAPIError as error:
        raise _readable(location, error.orig or error) from error
    except SQLAlchemyError as error:
        raise _readable(location, error) from error


@contextlib.contextmanager
def _translated_sqlite(location: Location) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _readable(location, error) from error


# What SQLite says, and what it means to a person.
_SQLITE_ADVICE = (
    ("locked", f"another process has held it for {BUSY_SECONDS:.0f} seconds; look for it"),
    ("unable to open", "make the file and its folder readable and writable"),
    ("readonly", "make the file and its folder writable"),
    ("not a database", "it is damaged: move it away or bring back a copy"),
    ("malformed", "it is damaged: move it away or bring back a copy"),
    ("full", "make room on its file system"),
    ("no such", "it is damaged: move it away or bring back a copy"),
)


def _readable(location: Location, error: BaseException) -> RecordError:
    text = " ".join(str(error).split()) or type(error).__name__
    if location.password:
        text = text.replace(location.password, "***")
    if location.path is None:
        advice = "see that the server runs and that host, user and password of the URL are right"
    else:
        advice = next(
            (meaning for part, meaning in _SQLITE_ADVICE if part in text),
            "see that the file is whole and writable",
        )
    return RecordError(f"The record {location.shown} cannot be used: {text}; {advice}.")
