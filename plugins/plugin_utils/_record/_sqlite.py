# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A record in a SQLite file, used by many processes at once.

The file is opened for each transaction and no process is forked meanwhile: a child that inherits
an open file of SQLite believes in locks that it does not have. It is in WAL mode:
readers never wait and see one state. A transaction that writes begins with ``BEGIN IMMEDIATE``, so
that it never has to be upgraded half way, and waits its turn there.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import urllib.parse
from typing import TYPE_CHECKING, Any

from ...module_utils._errors import RecordAwayError, RecordError
from . import _audit, _statements
from ._notice import tell
from ._schema import SCHEMA_VERSION, check_version, is_older, sqlite_schema, unlike_ours
from ._session import DuplicateError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ._session import Query, Row

BUSY_SECONDS = 60.0
# A lock that is held longer than this is told.
_PATIENT_SECONDS = 5.0
_LOOK_MILLISECONDS = 4

# What SQLite says, and what a person can do about it.
_ADVICE = (
    ("locked", f"another process has held it for {BUSY_SECONDS:.0f} seconds; look for it"),
    ("unable to open", "make the file and its folder readable and writable"),
    ("readonly", "make the file and its folder writable"),
    ("full", "make room on its file system"),
    ("disk I/O", "make room on its file system, and see that the disk is well"),
    ("not a database", "it is damaged: move it away or bring back a copy"),
    ("malformed", "it is damaged: move it away or bring back a copy"),
)
# What SQLite says of a table or a column that is not there.
_UNLIKE_OURS = ("no such table", "no such column", "has no column named")
# What may pass. A failed commit is rolled back, so that it may be repeated; for a lock that
# somebody holds, ``_begin`` has waited long enough.
_PASSING = ("disk is full", "disk I/O error", "unable to open")

# Held while a thread of this process has the file open, and while the process forks.
_nothing_open = threading.RLock()
os.register_at_fork(
    before=_nothing_open.acquire,
    after_in_parent=_nothing_open.release,
    after_in_child=_nothing_open.release,
)


class SqliteSession:
    """A transaction on a SQLite file (see ``_session.Session``)."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Take a connection on which a transaction has begun."""
        self._connection = connection

    def now(self) -> float:
        """Return the time of this machine, which all users of the file share."""
        return time.time()

    def rows(self, query: Query) -> list[dict[str, Any]]:
        """Read."""
        text, values = _statements.select(query)
        return [dict(row) for row in self._connection.execute(text, values)]

    def locked(self, query: Query) -> list[dict[str, Any]]:
        """Read; the transaction has the whole file, if it writes."""
        return self.rows(query)

    def insert(self, table: str, rows: Sequence[Row]) -> None:
        """Add rows, all with the same columns; raises DuplicateError."""
        try:
            self._connection.executemany(_statements.insert(table, rows[0]), rows)
        except sqlite3.IntegrityError as error:
            raise DuplicateError(str(error)) from error

    def update(self, table: str, values: Row, **equals: Any) -> int:
        """Change the rows in which these columns have these values; returns how many."""
        return self._connection.execute(*_statements.update(table, values, equals)).rowcount

    def delete(self, table: str, **equals: Any) -> None:
        """Remove the rows in which these columns have these values."""
        self._connection.execute(*_statements.delete(table, equals))


@contextlib.contextmanager
def transaction(path: Path, *, writes: bool, synced: bool) -> Iterator[SqliteSession]:
    """Begin a transaction; commit it at the end, or roll it back on an exception.

    What was committed outlives every process. The crash of the machine itself may undo the last
    commits, except one that is ``synced`` and all before it; it never leaves half of one.
    """
    with _readable_errors(path), _connection(path) as connection:
        connection.execute("PRAGMA synchronous = " + ("FULL" if synced else "NORMAL"))
        _begin(path, connection, writes=writes)
        try:
            yield SqliteSession(connection)
            connection.execute("COMMIT")
        finally:
            # After an exception; SQLite itself has rolled back after a full disk, for instance.
            if connection.in_transaction:
                connection.execute("ROLLBACK")


def _begin(path: Path, connection: sqlite3.Connection, *, writes: bool) -> None:
    """Begin as soon as the lock is free.

    SQLite's own way to wait sleeps up to 0.1 s between two looks, so that of many processes some
    never get their turn: it is asked to wait a moment only, again and again.
    """
    begun = time.monotonic()
    told = False
    connection.execute(f"PRAGMA busy_timeout = {_LOOK_MILLISECONDS}")
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
            if not writes:
                # A transaction that reads begins with its first read.
                connection.execute("SELECT version FROM schema_version").fetchone()
        except sqlite3.OperationalError as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            waited = time.monotonic() - begun
            if "locked" not in str(error) or waited > BUSY_SECONDS:
                raise
            if waited > _PATIENT_SECONDS and not told:
                told = True
                tell(
                    f"The record {path} is locked by another process; waiting for up to "
                    f"{BUSY_SECONDS:.0f} seconds."
                )
        else:
            break
    connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000:.0f}")


def prepare(path: Path) -> None:
    """Make sure that the file is there and is a record that we understand."""
    _make_file(path)
    with _readable_errors(path), _connection(path) as connection:
        found = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        if not found:
            _switch_to_wal(connection)
            _make_tables(connection)
        elif "schema_version" not in found:
            raise RecordError(
                f"{path} is a SQLite database, but not a record of Bascule. "
                "Name another file with BASCULE_RECORD."
            )
        version = _version(connection)
        if is_older(version):
            _upgrade(path, connection)
            version = _version(connection)
        check_version(f"sqlite:///{path}", version)


def version(path: Path) -> int | None:
    """Return the version of the record; None where there is no record."""
    if not path.exists():
        return None
    with _readable_errors(path), _connection(path) as connection:
        found = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        return _version(connection) if "schema_version" in found else None


def _version(connection: sqlite3.Connection) -> int | None:
    row = connection.execute("SELECT version FROM schema_version").fetchone()
    return None if row is None else int(row[0])


def _make_file(path: Path) -> None:
    try:
        if path.exists():
            return
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            # SQLite gives its -wal and -shm files the mode of the database.
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except OSError as error:
        raise RecordError(
            f"The record sqlite:///{path} cannot be opened or created: {error.strerror or error}. "
            "Make its folder writable, or name another record with BASCULE_RECORD."
        ) from error


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


def _make_tables(connection: sqlite3.Connection) -> None:
    statements = sqlite_schema()
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have been faster.
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            for statement in statements:
                connection.execute(statement)
            connection.execute("INSERT INTO schema_version VALUES (?)", [SCHEMA_VERSION])
            session = SqliteSession(connection)
            _audit.begin(session, "RecordCreated", time.time(), {"version": SCHEMA_VERSION})
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _upgrade(path: Path, connection: sqlite3.Connection) -> None:
    """Migrate the record in one transaction; a copy of it as it was stays beside it."""
    from sqlalchemy import create_engine
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import StaticPool

    from ._migrations import migrate

    engine = create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool)
    try:
        # Connecting rolls back what was begun before.
        with engine.connect() as wrapped:
            connection.execute("BEGIN IMMEDIATE")
            # Another process may have been faster.
            version = _version(connection)
            if version is not None and is_older(version):
                _keep_copy(path, version)
                migrate(wrapped, version)
                connection.execute("COMMIT")
    except DBAPIError as error:
        if isinstance(error.orig, sqlite3.Error):
            raise error.orig from error
        raise
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _keep_copy(path: Path, version: int) -> None:
    copy = path.with_name(f"{path.name}.version-{version}")
    fresh = path.with_name(f"{copy.name}.{os.getpid()}")
    try:
        os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        # A connection of its own, which sees what was committed.
        with (
            contextlib.closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as source,
            contextlib.closing(sqlite3.connect(fresh)) as target,
        ):
            source.backup(target)
        fresh.replace(copy)
    except (OSError, sqlite3.Error) as error:
        raise RecordError(
            f"The record sqlite:///{path} must be brought to version {SCHEMA_VERSION}, but no copy "
            f"of it could be made as {copy}: {error}. Make room and its folder writable."
        ) from error
    finally:
        fresh.unlink(missing_ok=True)


@contextlib.contextmanager
def _connection(path: Path) -> Iterator[sqlite3.Connection]:
    uri = f"file:{urllib.parse.quote(str(path))}?mode=rw"
    with _nothing_open:
        connection = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            connection.row_factory = sqlite3.Row
            yield connection
        finally:
            connection.close()


@contextlib.contextmanager
def _readable_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        text = str(error)
        if any(part in text for part in _UNLIKE_OURS):
            raise unlike_ours(f"sqlite:///{path}", text) from error
        advice = next(
            (advice for part, advice in _ADVICE if part in text),
            "see that the file is whole and writable",
        )
        passing = any(part in text for part in _PASSING) and _is_ours(path)
        kind = RecordAwayError if passing else RecordError
        raise kind(f"The record sqlite:///{path} cannot be used: {text}; {advice}.") from error


def _is_ours(path: Path) -> bool:
    effective = os.access in os.supports_effective_ids
    return os.access(path, os.R_OK | os.W_OK, effective_ids=effective)
