# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A record in a database server, through SQLAlchemy.

Each process keeps one connection of its own, because a worker that waits for its turn must not log
in again each time it asks. What a forked process inherits belongs to its parent and is not touched.
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from ...module_utils._errors import RecordAwayError, RecordError
from . import _audit, _statements
from ._schema import SCHEMA_VERSION, check_version, is_older, metadata, unlike_ours
from ._session import DuplicateError, Query
from ._triggers import append_only

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection, Engine, Pool

    from ._location import Location
    from ._session import Row

# How a PostgreSQL server is talked to, unless the URL says otherwise: a network that is cut must
# neither keep us waiting for an answer nor leave the server with a lock of ours (milliseconds).
_SETTINGS = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "options": "-c idle_in_transaction_session_timeout=60000",
}
# Any number that others are unlikely to use: it serialises making and migrating the tables.
_CREATION_LOCK = 0x42415343

# PostgreSQL's codes for a table or a column that is not there.
_UNLIKE_OURS = ("42P01", "42703")
_PASSING = (
    "Connection refused", "timeout", "timed out", "closed the connection", "Connection reset",
    "the database system is", "No route to host", "Network is unreachable", "too many clients",
    "connection slots", "terminating connection", "No such file or directory",
    "Temporary failure in name resolution", "connection is closed", "consuming input failed",
)  # fmt: skip

# How many connections a process keeps; a worker needs one.
_kept = [1]
_engines: dict[str, Engine] = {}
# How many records of this process use the connections to a server.
_users: collections.Counter[str] = collections.Counter()
_counting = threading.Lock()
_of_the_parent: list[Pool] = []
_checked: set[str] = set()


class ServerSession:
    """A transaction on a server (see ``_session.Session``)."""

    def __init__(self, connection: Connection) -> None:
        """Take a connection on which a transaction has begun."""
        self._connection = connection

    def now(self) -> float:
        """Return the time of the server."""
        from sqlalchemy import text

        if self._connection.dialect.name != "postgresql":
            return time.time()
        clock = text("SELECT extract(epoch FROM clock_timestamp())")
        return float(self._connection.execute(clock).scalar_one())

    def rows(self, query: Query) -> list[dict[str, Any]]:
        """Read."""
        statement, values = _statements.select(query)
        return self._all(statement, values)

    def locked(self, query: Query) -> list[dict[str, Any]]:
        """Read rows that nobody else may change until the transaction ends."""
        statement, values = _statements.select(query)
        return self._all(statement + " FOR UPDATE", values)

    def insert(self, table: str, rows: Sequence[Row]) -> None:
        """Add rows, all with the same columns; raises DuplicateError."""
        from sqlalchemy import text
        from sqlalchemy.exc import IntegrityError

        statement = text(_statements.insert(table, rows[0]))
        try:
            self._connection.execute(statement, [dict(row) for row in rows])
        except IntegrityError as error:
            raise DuplicateError(str(error.orig)) from error

    def update(self, table: str, values: Row, **equals: Any) -> int:
        """Change the rows in which these columns have these values; returns how many."""
        from sqlalchemy import text

        statement, given = _statements.update(table, values, equals)
        return self._connection.execute(text(statement), given).rowcount

    def delete(self, table: str, **equals: Any) -> None:
        """Remove the rows in which these columns have these values."""
        from sqlalchemy import text

        statement, given = _statements.delete(table, equals)
        self._connection.execute(text(statement), given)

    def _all(self, statement: str, values: dict[str, Any]) -> list[dict[str, Any]]:
        from sqlalchemy import text

        return [dict(row) for row in self._connection.execute(text(statement), values).mappings()]


@contextlib.contextmanager
def transaction(
    location: Location, *, writes: bool, snapshot: bool = False
) -> Iterator[ServerSession]:
    """Begin a transaction; commit it at the end, or roll it back on an exception.

    With ``snapshot``, all that it reads is of one moment.
    """
    committing = False
    try:
        with engine(location).connect() as connection:
            if snapshot:
                connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin() as begun:
                yield ServerSession(connection)
                committing = writes
                begun.commit()
    except Exception as error:
        told = _readable(location, error, committing=committing)
        if told is None:
            raise
        raise told from error


def prepare(location: Location) -> None:
    """Make sure that the tables are there and that we understand them; looks once a process."""
    if location.url in _checked:
        return
    from sqlalchemy import inspect

    with _readable_errors(location), engine(location).begin() as connection:
        if not inspect(connection).has_table("schema_version"):
            _lock_tables(connection)
            _make_tables(connection)
        version = _version(connection)
    check_version(location.shown, version)
    _checked.add(location.url)


def version(location: Location) -> int | None:
    """Return the version of the record there; None where there is none."""
    from sqlalchemy import inspect

    with _readable_errors(location), engine(location).begin() as connection:
        found = inspect(connection).has_table("schema_version")
        return _version(connection) if found else None


def upgrade(location: Location) -> None:
    """Migrate the record there, if it is older than this version of Bascule."""
    from ._migrations import migrate

    with _readable_errors(location), engine(location).begin() as connection:
        _lock_tables(connection)
        version = _version(connection)
        if version is not None and is_older(version):
            migrate(connection, version)


def _version(connection: Connection) -> int | None:
    found = ServerSession(connection).rows(Query(table="schema_version"))
    return int(found[0]["version"]) if found else None


def _lock_tables(connection: Connection) -> None:
    """Let nobody else make or migrate the tables until the transaction ends."""
    if connection.dialect.name == "postgresql":
        from sqlalchemy import text

        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CREATION_LOCK})


def _make_tables(connection: Connection) -> None:
    from sqlalchemy import inspect

    # Another process may have been faster; the inspector from before has kept its answer.
    if not inspect(connection).has_table("schema_version"):
        metadata().create_all(connection)
        for statement in append_only(connection.dialect.name):
            connection.exec_driver_sql(statement)
        session = ServerSession(connection)
        session.insert("schema_version", [{"version": SCHEMA_VERSION}])
        _audit.begin(session, "RecordCreated", time.time(), {"version": SCHEMA_VERSION})


def engine(location: Location) -> Engine:
    """Return the engine of this process for a server."""
    if location.url not in _engines:
        _engines[location.url] = _new_engine(location)
    return _engines[location.url]


def _new_engine(location: Location) -> Engine:
    from sqlalchemy import create_engine
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    settings: dict[str, Any] = {}
    if location.url.startswith("postgresql+psycopg:"):
        settings = {key: value for key, value in _SETTINGS.items() if key not in location.url}
    try:
        return create_engine(
            location.url,
            pool_size=_kept[0],
            max_overflow=20,
            pool_pre_ping=True,
            connect_args=settings,
        )
    except (ImportError, ArgumentError, NoSuchModuleError) as error:
        raise RecordError(
            f"The record {location.shown} needs a database driver that is not there: {error}. "
            "For PostgreSQL: pip install 'bascule[postgresql]'."
        ) from error


def keep_sessions(number: int) -> None:
    """Let this process keep so many connections to a server from now on."""
    _kept[0] = number


def retain(location: Location) -> None:
    """Keep the connections to the record until ``release``."""
    with _counting:
        _users[location.url] += 1


def release(location: Location) -> None:
    """Close the connections to the record that this process has, if nobody has retained them.

    A thread that beats is done in the middle of what another one does.
    """
    with _counting:
        _users[location.url] = max(0, _users[location.url] - 1)
        if location.url in _engines and not _users[location.url]:
            _engines[location.url].dispose()


def _release_all() -> None:
    for each in _engines.values():
        each.dispose()


def _forget_connections() -> None:
    _counting.release()
    _users.clear()
    for each in _engines.values():
        # Kept, so that nothing is collected, and with it closed, that the parent is using.
        _of_the_parent.append(each.pool)
        each.dispose(close=False)


os.register_at_fork(
    before=_counting.acquire,
    after_in_parent=_counting.release,
    after_in_child=_forget_connections,
)
atexit.register(_release_all)


@contextlib.contextmanager
def _readable_errors(location: Location) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        told = _readable(location, error, committing=False)
        if told is None:
            raise
        raise told from error


def _readable(location: Location, error: Exception, *, committing: bool) -> RecordError | None:
    """Return the error for a person; ``committing``: it came when the change was sent off.

    None if the error is not one of the database.
    """
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError

    if not isinstance(error, SQLAlchemyError):
        return None
    cause = (error.orig if isinstance(error, DBAPIError) else None) or error
    text = " ".join(str(cause).split()) or type(cause).__name__
    if location.password:
        text = text.replace(location.password, "***")
    if str(getattr(cause, "sqlstate", None)) in _UNLIKE_OURS:
        # The first sentence is enough; the statement follows it.
        return unlike_ours(location.shown, text.partition(" LINE ")[0])
    message = (
        f"The record {location.shown} cannot be used: {text}; see that the server runs and "
        "that host, user, password and database of the URL are right."
    )
    if not _is_passing(error, cause):
        return RecordError(message)
    return RecordAwayError(message, unsure=committing)


def _is_passing(error: Exception, cause: object) -> bool:
    """Tell whether the same may work a moment later."""
    if getattr(error, "connection_invalidated", False):
        return True
    # Deadlock or conflict of transactions; server ends or begins; too many connections.
    state = str(getattr(cause, "sqlstate", None) or "")
    if state in ("40001", "40P01") or state[:2] in ("08", "53") or state[:3] == "57P":
        return True
    # A connection that cannot be made has no state, only words.
    return type(cause).__name__ == "OperationalError" and any(
        words in str(cause) for words in _PASSING
    )
