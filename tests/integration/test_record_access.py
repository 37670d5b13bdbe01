"""Where the record is, who may read it, and what is said when it cannot be used."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import RecordError
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import (
    Record,
    group_id,
    state_folder,
)
from support.postgresql import PASSWORD, server
from support.records import create

TESTS = Path(__file__).resolve().parents[1]


def run(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(TESTS), **environment},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_default_is_a_file_in_the_state_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("BASCULE_RECORD", "BASCULE_STATE", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert state_folder() == tmp_path / ".local/state/bascule"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert state_folder() == tmp_path / "xdg/bascule"
    monkeypatch.setenv("BASCULE_STATE", str(tmp_path / "own"))
    record = Record.open()
    assert record.url == f"sqlite:///{tmp_path}/own/record.db"
    monkeypatch.setenv("BASCULE_RECORD", f"sqlite:///{tmp_path}/elsewhere.db")
    assert Record.open().url == f"sqlite:///{tmp_path}/elsewhere.db"


def test_only_the_user_can_read_it(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        record = Record.open(f"sqlite+pysqlite:///{tmp_path}/state/record.db")
        create(record, ["a"])
    finally:
        os.umask(previous)
    assert mode(tmp_path / "state") == 0o700
    for file in (tmp_path / "state").iterdir():
        assert mode(file) == 0o600


def test_any_path_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BASCULE_RECORD", raising=False)
    monkeypatch.setenv("BASCULE_STATE", str(tmp_path / "with ? and # and %20 in it"))
    create(Record.open(), ["a"])
    assert (state_folder() / "record.db").is_file()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite://", "does not name a file"),
        ("sqlite:///:memory:", "does not name a file"),
        ("sqlite:////tmp/x.db?mode=ro", "does not name a file"),
        ("/var/lib/record.db", "cannot be understood"),
        ("nosuchdatabase://host/x", "driver that is not there"),
        ("sqlite:////proc/none/record.db", "cannot be opened or created"),
    ],
)
def test_addresses_that_cannot_be_used(url: str, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        Record.open(url)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a database" * 100, "it is damaged: move it away"),
        (b"SQLite format 3\0" + b"\xff" * 5000, "cannot be used"),
    ],
)
def test_a_damaged_file_is_said_to_be_one(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "record.db"
    path.write_bytes(content)
    with pytest.raises(RecordError, match=message):
        Record.open(f"sqlite:///{path}")
    assert path.read_bytes() == content


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE customers (name TEXT)")
    connection.close()
    with pytest.raises(RecordError, match="not a record of Bascule"):
        Record.open(f"sqlite:///{path}")


def test_a_record_of_another_version_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/record.db"
    Record.open(url)
    with sqlite3.connect(tmp_path / "record.db") as connection:
        connection.execute("UPDATE schema_version SET version = 99")
    connection.close()
    with pytest.raises(RecordError, match=r"has version 99, this Bascule works with version 2"):
        Record.open(url)


@pytest.mark.parametrize(
    ("folder_mode", "file_mode", "message"),
    [
        (0o700, 0o600, "cannot be opened or created: Permission denied"),
        (0o755, 0o600, "make the file and its folder readable and writable"),
    ],
)
def test_a_record_of_somebody_else_is_refused_in_words(
    folder_mode: int, file_mode: int, message: str
) -> None:
    root = os.geteuid() == 0
    # Not below tmp_path, which is closed to other users.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "record.db"
        Record.open(f"sqlite:///{path}")
        Path(folder).chmod(folder_mode if root or folder_mode == 0o755 else 0)
        path.chmod(file_mode if root else 0)
        told = run(
            "import os, sys\n"
            "from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Record\n"
            "if os.geteuid() == 0: os.seteuid(65534)\n"
            "try: Record.open('sqlite:///' + sys.argv[1])\n"
            "except Exception as error: print(type(error).__name__, error)",
            str(path),
        )
        Path(folder).chmod(0o700)
    assert told.stdout.startswith("RecordError The record sqlite:///"), told
    assert message in told.stdout


def test_a_read_needs_no_sqlalchemy(tmp_path: Path) -> None:
    """A status has to come within 0.3 s, of which importing SQLAlchemy would take 0.2 s."""
    url = f"sqlite:///{tmp_path}/record.db"
    deployment = create(Record.open(url), ["a"])
    code = (
        "import sys\n"
        "from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Record, warm\n"
        "warm(); record = Record.open(sys.argv[1]); record.deployments()\n"
        "record.targets(sys.argv[2]); record.events(sys.argv[2]); record.admit(sys.argv[2], 'a')\n"
        "record.settle(sys.argv[2], 'a', 'Succeeded'); record.finish(sys.argv[2])\n"
        "print(any(name.startswith('sqlalchemy') for name in sys.modules))"
    )
    told = run(code, url, deployment.id)
    assert told.stdout == "False\n", told.stderr


def test_a_server_that_is_away_is_told_without_the_password() -> None:
    with server() as running:
        url = running.create("away")
        record = Record.open(url)
        assert record.url == url.replace(PASSWORD, "***").replace("://", "+psycopg://")
        deployment = create(record, ["a"])
        wrong = url.replace(PASSWORD, "wrong-" + PASSWORD)
        with pytest.raises(RecordError, match="password authentication failed") as refusal:
            Record.open(wrong)
        assert PASSWORD not in str(refusal.value)
        with pytest.raises(RecordError, match='database "other" does not exist'):
            Record.open(running.url("other"))
    with pytest.raises(RecordError, match="see that the server runs") as refusal:
        record.targets(deployment.id)
    assert PASSWORD not in str(refusal.value)
    record.close()


def test_a_connection_that_was_lost_is_made_again() -> None:
    with server() as running:
        url = running.create("lost")
        with Record.open(url) as record:
            deployment = create(record, ["a"])
            with Record.open(running.url("lost")) as same:
                assert same.deployment(deployment.id) == deployment
            running.end_connections("lost")
            assert record.deployment(deployment.id) == deployment


def test_a_group_keeps_its_identity() -> None:
    """Hosts have folders of this name: it may never change."""
    assert group_id("shop", "web") == "1a718b54-5d9f-57b0-a65d-536b4638ad0c"
    assert group_id("a/b", "c") != group_id("a", "b/c")
