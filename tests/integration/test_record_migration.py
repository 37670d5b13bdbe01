"""A record of an older version becomes one of this version, with all that is in it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sqlite3
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from ansible_collections.bascule.deploy.plugins.module_utils._errors import RecordError
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import (
    Record,
    record_version,
    upgrade_record,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._record._migrations import (
    migrate,
    revision_0001,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._record._schema import (
    SCHEMA_VERSION,
    metadata,
)
from support.record_version_1 import ROWS, make
from support.records import create

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.postgresql import Server


@pytest.fixture(params=["sqlite", "postgresql"])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a record of version 1."""
    if request.param == "sqlite":
        return old_file(tmp_path / "record.db")
    running: Server = request.getfixturevalue("postgresql")
    url = running.create(f"old_{secrets.token_hex(6)}")
    with psycopg.connect(url) as connection:
        make(connection.execute, server=True, mark="%s")
    return url


def old_file(path: Path) -> str:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode=WAL")
        make(connection.execute, server=False, mark="?")
    return f"sqlite:///{path}"


def new(old_url: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty record in the same kind of database."""
    if old_url.startswith("sqlite"):
        return f"sqlite:///{tmp_path}/new.db"
    running: Server = request.getfixturevalue("postgresql")
    return running.create(f"new_{secrets.token_hex(6)}")


@contextlib.contextmanager
def connected(url: str) -> Iterator[sqlalchemy.Connection]:
    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def described(url: str) -> dict[str, Any]:
    """All that the database says about its tables, columns in their order."""
    with connected(url) as connection:
        seen = sqlalchemy.inspect(connection)
        return {
            table: {
                "columns": [
                    {**column, "type": str(column["type"])} for column in seen.get_columns(table)
                ],
                "key": seen.get_pk_constraint(table),
                "unique": seen.get_unique_constraints(table),
                "indexes": seen.get_indexes(table),
            }
            for table in sorted(seen.get_table_names())
        }


def triggers(url: str) -> list[str]:
    with connected(url) as connection:
        if connection.dialect.name == "sqlite":
            wanted = "SELECT sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name"
        else:
            wanted = "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal"
        return sorted(str(row[0]) for row in connection.exec_driver_sql(wanted))


def differences(url: str) -> list[Any]:
    with connected(url) as connection:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        return list(compare_metadata(context, metadata()))


def rows(url: str, table: str) -> list[dict[str, Any]]:
    with connected(url) as connection:
        found = connection.exec_driver_sql(f"SELECT * FROM {table}").mappings()  # noqa: S608
        return [dict(row) for row in found]


def test_a_migrated_record_is_as_a_new_one(
    old: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    fresh = new(old, request, tmp_path)
    Record.open(fresh).close()
    before = record_version(old)
    assert (before.version, before.needed) == (1, SCHEMA_VERSION)
    done = upgrade_record(old)
    assert (done.version, done.upgraded_from) == (SCHEMA_VERSION, 1)
    assert described(old) == described(fresh)
    assert triggers(old) == triggers(fresh)
    assert differences(old) == differences(fresh) == []
    # Once more changes nothing.
    assert upgrade_record(old).upgraded_from is None


def test_what_is_in_it_stays_and_can_be_gone_on_with(old: str) -> None:
    upgrade_record(old)
    for table, expected in ROWS.items():
        found = rows(old, table)
        kept = [{name: row[name] for name in expected[0]} for row in found]
        assert kept == expected, table
    assert rows(old, "applications") == [{"application": "shop", "created_at": 50.0}]
    with Record.open(old) as record:
        assert [one.id for one in record.deployments()] == ["d-INTERRUPT", "d-SUCCEEDED"]
        interrupted = record.deployment("d-INTERRUPT")
        assert (interrupted.status, interrupted.fence) == ("InProgress", 1)
        assert record.admit("d-INTERRUPT", "a").resumed
        assert record.admit("d-INTERRUPT", "b").verdict == "admitted"
        for name in ("a", "b"):
            record.settle("d-INTERRUPT", name, "Succeeded")
        assert record.finish("d-INTERRUPT").status == "Succeeded"


def test_the_first_migration_makes_version_1(old: str, tmp_path: Path) -> None:
    if not old.startswith("sqlite"):
        return_to = old  # the schema is emptied, and made again by the migrations
        with psycopg.connect(return_to) as connection:
            expected = described(old)
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
        again = old
    else:
        expected = described(old)
        again = f"sqlite:///{tmp_path}/again.db"
    with connected(again) as connection:
        revision_0001.upgrade(Operations(MigrationContext.configure(connection)))
        connection.commit()
    assert described(again) == expected
    assert rows(again, "schema_version") == [{"version": 1}]


def test_a_file_is_migrated_by_opening_it_and_a_copy_stays(tmp_path: Path) -> None:
    path = tmp_path / "record.db"
    url = old_file(path)
    Record.open(url)
    assert record_version(url).version == SCHEMA_VERSION
    copy = tmp_path / "record.db.version-1"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert record_version(f"sqlite:///{copy}").version == 1
    assert len(rows(f"sqlite:///{copy}", "deployments")) == 2
    assert sorted(one.name for one in tmp_path.iterdir()) == [path.name, copy.name]


def test_many_processes_may_open_an_old_file_at_once(tmp_path: Path) -> None:
    url = old_file(tmp_path / "record.db")
    code = (
        "import sys\n"
        "from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Record\n"
        "sys.stdin.read(1)\n"
        "print(len(Record.open(sys.argv[1]).deployments()))"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, url],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(6)
    ]  # fmt: skip
    for process in started:
        assert process.stdin is not None
        process.stdin.write(".")
        process.stdin.flush()
    told = [process.communicate(timeout=300) for process in started]
    assert [out for out, _err in told] == ["2\n"] * 6, told
    assert record_version(url).version == SCHEMA_VERSION


def test_a_migration_that_breaks_off_leaves_the_record_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = old_file(tmp_path / "record.db")

    def broken(connection: sqlalchemy.Connection, version: int) -> None:
        migrate(connection, version)
        raise RecordError("broken off")

    home = "ansible_collections.bascule.deploy.plugins.plugin_utils._record._migrations"
    before = described(url)
    with monkeypatch.context() as patch:
        patch.setattr(f"{home}.migrate", broken)
        with pytest.raises(RecordError, match="broken off"):
            Record.open(url)
    assert described(url) == before
    assert len(Record.open(url).deployments()) == 2


def test_an_old_server_is_refused_and_the_command_named(postgresql: Server) -> None:
    url = postgresql.create("refused")
    with psycopg.connect(url) as connection:
        make(connection.execute, server=True, mark="%s")
    with pytest.raises(RecordError, match=r"has version 1, .*`bascule record upgrade`"):
        Record.open(url)
    assert record_version(url).version == 1


@pytest.mark.parametrize("version", [0, SCHEMA_VERSION + 1])
def test_a_newer_record_is_refused(tmp_path: Path, version: int) -> None:
    url = f"sqlite:///{tmp_path}/record.db"
    Record.open(url)
    with contextlib.closing(sqlite3.connect(tmp_path / "record.db")) as connection, connection:
        connection.execute("UPDATE schema_version SET version = ?", (version,))
    for refused in (Record.open, upgrade_record):
        with pytest.raises(RecordError, match=f"has version {version}, .*the Bascule that wrote"):
            refused(url)


@pytest.mark.parametrize(
    "lacks", ["ALTER TABLE deployments DROP COLUMN zonal", "DROP TABLE applications"]
)
def test_a_record_from_between_two_releases_is_refused_with_a_way_out(
    old: str, request: pytest.FixtureRequest, tmp_path: Path, lacks: str
) -> None:
    url = new(old, request, tmp_path)
    with Record.open(url) as record:
        with connected(url) as connection:
            connection.exec_driver_sql(lacks)
            connection.commit()
        with pytest.raises(RecordError, match=r"between two releases.*Move it away") as refused:
            create(record, ["a", "b"], 1)
        assert lacks.rpartition(" ")[2] in str(refused.value)
        assert record.deployments() == []


def test_the_command_shows_and_upgrades(postgresql: Server) -> None:
    url = postgresql.create("command")
    with psycopg.connect(url) as connection:
        make(connection.execute, server=True, mark="%s")

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "bascule", "record", *words],
            env={**os.environ, "BASCULE_RECORD": url},
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip

    shown = json.loads(command("show", "--format", "json").stdout)
    assert (shown["version"], shown["needed"]) == (1, SCHEMA_VERSION)
    assert "bascule record upgrade" in command("show").stdout
    done = command("upgrade")
    assert done.returncode == 0, done
    assert f"from version 1 to version {SCHEMA_VERSION}" in done.stdout
    assert "has version" in command("upgrade").stdout
    missing = command("upgrade", "--record", postgresql.create("missing"))
    assert (missing.returncode, "There is no record at" in missing.stderr) == (2, True)
