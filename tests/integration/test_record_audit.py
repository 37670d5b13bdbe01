# ruff: noqa: S608 - a forger writes statements from names and ids
"""The audit in a real record: what is written, what the database refuses, what is found."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy
from ansible_collections.bascule.deploy.plugins.module_utils._audit import COLUMNS
from ansible_collections.bascule.deploy.plugins.module_utils._errors import RecordError
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Record, _statements
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.records import DIGEST, create, new_deployment

import bascule
from bascule.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.postgresql import Server


@contextlib.contextmanager
def forger(url: str, *, free: bool = True) -> Iterator[sqlalchemy.Connection]:
    """The way into the database around Bascule; ``free``: of whoever may remove the triggers."""
    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    try:
        with engine.begin() as connection:
            if free and connection.dialect.name == "postgresql":
                for table in ("audit", "audit_heads"):
                    connection.exec_driver_sql(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
            elif free:
                wanted = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
                for (name,) in connection.exec_driver_sql(wanted).all():
                    connection.exec_driver_sql(f"DROP TRIGGER {name}")
            yield connection
    finally:
        engine.dispose()


def story(url: str) -> tuple[str, str]:
    """A record with a failed deployment and its rollback, and a revision that is marked."""
    with Record.open(url) as record:
        failed = create(record, ["a", "b"], 1)
        record.note_staged(failed.id, "a", digest_present=True)
        record.admit(failed.id, "a")
        event = {"event": "Install", "status": "Failed", "started": 1.5, "ended": 2.0,
                 "error_code": "ScriptFailed", "log": "boom"}  # fmt: skip
        record.add_events(failed.id, "a", [event])
        record.settle(failed.id, "a", "Failed", error_code="ScriptFailed", message="exit 1")
        record.request_stop(failed.id, "it is Friday")
        back = record.create_deployment(
            new_deployment(["a"], mode="rollback", rollback_of=failed.id)
        )
        record.admit(back.id, "a")
        record.settle(back.id, "a", "Succeeded")
        record.finish(back.id)
        record.mark_revision("shop", DIGEST, bad=True, why="it leaks")
        record.register_revision("shop", "9" * 64, source="s3://bucket/9.tgz")
    return failed.id, back.id


def exported(url: str, **more: Any) -> list[dict[str, Any]]:
    lines: list[str] = []
    bascule.audit_export(lines.append, record=url, **more)
    return [json.loads(line) for line in lines]


def test_each_change_has_its_link(url: str) -> None:
    failed, back = story(url)
    report = bascule.audit_verify(record=url)
    assert report.broken is None
    *events, seal = exported(url)
    assert (report.chains, report.links, seal["eventName"]) == (3, len(events), "AuditExported")

    def names(chain: str) -> list[str]:
        chained = [one for one in events if one["additionalEventData"]["chain"] == chain]
        return [one["eventName"] for one in chained]

    assert names("main") == [
        "RecordCreated", "DeploymentCreated", "DeploymentEnded", "DeploymentCreated",
        "DeploymentEnded", "RevisionMarkedBad", "RevisionRegistered",
    ]  # fmt: skip
    assert names(failed) == [
        "Created", "Staged", "Admitted", "LifecycleEvents", "Settled", "Halted", "Finished",
    ]  # fmt: skip
    assert names(back) == ["Created", "Admitted", "Settled", "Finished"]
    stopped = next(one for one in events if one["eventName"] == "Halted")
    assert "it is Friday" in stopped["requestParameters"]["why"]
    assert stopped["responseElements"]["deployment"]["error_code"] == "MANUAL_STOP"
    assert stopped["userIdentity"]["userName"]
    assert stopped["sourceIPAddress"]
    assert stopped["requestParameters"]["revisionDigest"] == DIGEST
    assert len(stopped["requestParameters"]["planHash"]) == 64
    admitted = next(one for one in events if one["eventName"] == "Admitted")
    assert admitted["responseElements"]["target"]["status"] == "InProgress"
    assert events[-1]["requestParameters"]["deploymentId"] == back


def test_takeover_pause_release_and_abandon_have_theirs(url: str) -> None:
    with Record.open(url) as record:
        name = create(record, ["a"]).id
        record.pause(name, "lunch")
        record.release(name)
        record.take_over(name)
        record.abandon(name, "nobody wants it")
    *events, _seal = exported(url, deployment=name)
    assert [one["eventName"] for one in events] == [
        "Created", "Paused", "Released", "TakenOver", "Abandoned",
    ]  # fmt: skip
    assert [one["responseElements"]["fence"] for one in events] == [1, 1, 1, 1, 2]
    assert bascule.audit_verify(record=url).broken is None


def test_a_change_that_is_refused_leaves_no_link(url: str) -> None:
    failed, _back = story(url)
    before = bascule.audit_verify(record=url)
    with Record.open(url) as record:
        with pytest.raises(RecordError, match="nothing to abandon"):
            record.abandon(failed)
        with pytest.raises(RecordError, match="has no revision"):
            record.mark_revision("shop", "0" * 64, bad=True)
    assert bascule.audit_verify(record=url) == before


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET why = 'nothing' WHERE sequence = 1",
        "DELETE FROM audit WHERE chain = 'main'",
        "DELETE FROM audit_heads",
        "UPDATE audit_heads SET length = length - 1",
    ],
)
def test_the_database_refuses_to_change_it(url: str, statement: str) -> None:
    story(url)
    with (
        pytest.raises(sqlalchemy.exc.DatabaseError, match="only added to"),
        forger(url, free=False) as connection,
    ):
        connection.exec_driver_sql(statement)
    assert bascule.audit_verify(record=url).broken is None


def test_a_server_refuses_to_empty_it(postgresql: Server) -> None:
    url = postgresql.create(f"audit_{secrets.token_hex(6)}")
    story(url)
    for table in ("audit", "audit_heads"):
        with (
            pytest.raises(sqlalchemy.exc.DatabaseError, match="only added to"),
            forger(url, free=False) as connection,
        ):
            connection.exec_driver_sql(f"TRUNCATE {table}")


def test_bascule_has_no_statement_that_changes_it() -> None:
    with pytest.raises(ValueError, match="never changed"):
        _statements.update("audit", {"why": ""}, {"chain": "main"})
    for table in ("audit", "audit_heads"):
        with pytest.raises(ValueError, match="never removed"):
            _statements.delete(table, {"chain": "main"})


def flip(value: Any, position: int, bit: int) -> Any:
    if isinstance(value, str):
        data = bytearray(value.encode() or b"\1")
        data[position % len(data)] ^= 1 << bit
        return data.replace(b"\0", b"\1").decode("utf-8", "replace") if data != b"\1" else "\2"
    return value + position + 1


def test_whatever_is_changed_in_the_table_is_found(tmp_path: Path) -> None:
    """Each forgery is made in a copy of one record, whose triggers are gone."""
    source = tmp_path / "record.db"
    story(f"sqlite:///{source}")
    with contextlib.closing(sqlite3.connect(source)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    with forger(f"sqlite:///{source}"):
        pass
    whole = source.read_bytes()
    with contextlib.closing(sqlite3.connect(source)) as connection:
        keys = list(connection.execute("SELECT chain, sequence FROM audit ORDER BY 1, 2"))
        chains = sorted({key[0] for key in keys})
    forged = tmp_path / "forged.db"
    url = f"sqlite:///{forged}"
    key = "chain = ? AND sequence = ?"

    def forge(draw: st.DataObject, connection: sqlite3.Connection) -> str | None:
        what = draw.draw(
            st.sampled_from(["flip", "flip", "drop", "swap", "double", "chain", "head"])
        )
        place = draw.draw(st.sampled_from(keys))
        if what == "flip":
            column = draw.draw(st.sampled_from(COLUMNS))
            (old,) = connection.execute(f"SELECT {column} FROM audit WHERE {key}", place).fetchone()
            new = flip(old, draw.draw(st.integers(0, 99)), draw.draw(st.integers(0, 6)))
            connection.execute(
                f"UPDATE OR REPLACE audit SET {column} = ? WHERE {key}", (new, *place)
            )
            return column
        if what == "drop":
            connection.execute(f"DELETE FROM audit WHERE {key}", place)
        elif what == "swap":
            other = draw.draw(st.sampled_from(keys).filter(lambda one: one != place))
            for of, to in ((place, ("x", 0)), (other, place), (("x", 0), other)):
                connection.execute(
                    f"UPDATE audit SET chain = ?, sequence = ? WHERE {key}", (*to, *of)
                )
        elif what == "double":
            names = ", ".join(name for name in COLUMNS if name != "sequence")
            connection.execute(
                f"INSERT INTO audit (sequence, {names}) SELECT 900, {names} FROM audit WHERE {key}",
                place,
            )
        elif what == "chain":
            name = draw.draw(st.sampled_from(chains))
            connection.execute("DELETE FROM audit WHERE chain = ?", (name,))
            if draw.draw(st.booleans()):
                connection.execute("DELETE FROM audit_heads WHERE chain = ?", (name,))
        else:
            name = draw.draw(st.sampled_from(chains))
            column = draw.draw(st.sampled_from(["length", "hash", "chain"]))
            of = (name,)
            (old,) = connection.execute(
                f"SELECT {column} FROM audit_heads WHERE chain = ?", of
            ).fetchone()
            new = flip(old, draw.draw(st.integers(0, 99)), draw.draw(st.integers(0, 6)))
            connection.execute(f"UPDATE audit_heads SET {column} = ? WHERE chain = ?", (new, name))
        return None

    @given(draw=st.data())
    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    def each(draw: st.DataObject) -> None:
        forged.write_bytes(whole)
        with contextlib.closing(sqlite3.connect(forged)) as connection, connection:
            column = forge(draw, connection)
        broken = bascule.audit_verify(record=url).broken
        assert broken is not None
        # A flip in the key makes the link another one, which the end of the chain tells.
        if column not in (None, "chain", "sequence"):
            assert broken.field in (column, None), broken

    each()


def test_forgeries_in_a_server_are_found(postgresql: Server) -> None:
    url = postgresql.create(f"audit_{secrets.token_hex(6)}")
    failed, back = story(url)
    with forger(url) as connection:
        connection.exec_driver_sql(
            f"UPDATE audit SET actor = 'eve' WHERE chain = '{failed}' AND sequence = 3"
        )
    broken = bascule.audit_verify(record=url).broken
    assert broken is not None
    assert (broken.chain, broken.sequence, broken.field) == (failed, 3, "actor")
    with forger(url) as connection:
        for table in ("audit", "audit_heads"):
            connection.exec_driver_sql(f"DELETE FROM {table} WHERE chain = '{failed}'")
    broken = bascule.audit_verify(record=url).broken
    assert broken is not None
    assert (broken.chain, "whole chain is missing" in broken.text()) == (failed, True)
    assert back


def test_a_deployment_that_the_audit_does_not_know_is_found(url: str) -> None:
    _failed, back = story(url)
    with forger(url) as connection:
        connection.exec_driver_sql(f"UPDATE deployments SET digest = 'f' WHERE id = '{back}'")
    broken = bascule.audit_verify(record=url).broken
    assert broken is not None
    assert (broken.field, back in broken.text()) == ("digest", True)
    with forger(url) as connection:
        connection.exec_driver_sql("UPDATE deployments SET id = 'd-X' WHERE digest = 'f'")
    broken = bascule.audit_verify(record=url).broken
    assert broken is not None
    assert "d-X" in broken.text()


def test_the_audit_is_whole_while_it_is_written(url: str) -> None:
    """Verifying reads one state, whatever goes on."""
    with Record.open(url) as record:
        name = create(record, [f"t{number}" for number in range(40)]).id
    rolling = subprocess.Popen(
        [sys.executable, "-m", "support.records", "roll", url, name, "4", ""],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    looks = 0
    lengths = set()
    while rolling.poll() is None:
        report = bascule.audit_verify(record=url)
        assert report.broken is None, report
        lengths.add(report.links)
        looks += 1
        time.sleep(0.02)
    assert rolling.returncode == 0
    assert looks > 1
    assert bascule.audit_verify(record=url).links == max(lengths | {2 + 1 + 80})


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs ``bascule audit`` and gives exit status, output and complaints."""

    def run(url: str, *words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(["audit", *words, *([] if "--record" in words else ["--record", url])])
        told = capsys.readouterr()
        return status, told.out, told.err

    return run


def test_the_command_verifies_exports_and_shows(
    tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    url = f"sqlite:///{tmp_path}/record.db"
    failed, back = story(url)
    status, text, _ = command(url, "verify")
    assert (status, "is whole" in text) == (0, True)
    file = tmp_path / "audit.jsonl"
    assert command(url, "export", "-o", str(file))[0] == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert command(url, "verify", str(file))[0] == 0
    status, _, complaint = command(url, "export", "-o", str(file))
    assert (status, "There is a file" in complaint) == (2, True)
    shown = command(url, "show", "-n", "4")[1]
    assert [line.split()[3] for line in shown.splitlines()[1:]] == [
        "Finished", "DeploymentEnded", "RevisionMarkedBad", "RevisionRegistered",
    ]  # fmt: skip
    one = command(url, "export", "--deployment", failed, "--since", "2020-01-01")[1]
    assert [json.loads(line)["eventName"] for line in one.splitlines()][-1] == "AuditExported"
    assert back not in one
    late = command(url, "export", "--since", "2999-01-01")[1]
    assert late.count("\n") == 1
    (tmp_path / "late").write_text(late)
    assert command(url, "verify", str(tmp_path / "late"))[0] == 0
    for words, message in (
        (("show", "--deployment", "d-NONE"), "has no audit of a deployment d-NONE"),
        (("show", "-n", "0"), "1 or more"),
        (("export", "--since", "yesterday"), "'yesterday' cannot be read"),
        (("verify", str(tmp_path / "none")), "cannot be read"),
        (("verify", "--record", f"sqlite:///{tmp_path}/none.db"), "There is no record"),
    ):
        status, _, complaint = command(url, *words)
        assert (status, message in complaint) == (2, True), complaint
    assert not (tmp_path / "none.db").exists()

    text = file.read_text().replace("it is Friday", "it is Monday")
    file.write_text(text)
    with forger(url) as connection:
        connection.exec_driver_sql("UPDATE audit SET why = 'it is Monday' WHERE action = 'Halted'")
    for words in (("verify",), ("verify", str(file))):
        status, text, _ = command(url, *words, "--format", "json")
        told = json.loads(text)
        assert (status, told["verified"]) == (1, False)
        assert (told["broken"]["chain"], told["broken"]["sequence"]) == (failed, 6)
        assert f"chain {failed}, link 6" in command(url, *words)[1]
