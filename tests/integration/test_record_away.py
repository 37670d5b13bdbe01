"""A record that is away for a moment: what is done goes on, nothing is done twice."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import (
    RecordAwayError,
    RecordError,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils import _record
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import (
    Record,
)
from support.ports import free_port
from support.postgresql import PASSWORD, Server
from support.records import create

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TESTS = Path(__file__).resolve().parents[1]
NAMES = [f"target-{number:03}" for number in range(60)]
AWAY_SECONDS = 10


@pytest.fixture
def notices() -> Iterator[list[str]]:
    told: list[str] = []
    _record.listen(told.append)
    yield told
    _record.listen(lambda _text: None)


def story(record: Record, deployment_id: str) -> list[tuple[str, str]]:
    return [(event.target, event.event) for event in record.events(deployment_id)]


@pytest.mark.parametrize(("at_once", "seconds"), [(False, AWAY_SECONDS), (True, 1)])
def test_a_deployment_outlives_a_server_that_is_away(
    postgresql: Server, at_once: bool, seconds: int
) -> None:
    url = postgresql.create(f"away_{seconds}")
    deployment = create(Record.open(url), NAMES, len(NAMES) - 12)
    run = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "support.records", "roll", url, deployment.id, "6",
         ""],
        env={**os.environ, "PYTHONPATH": str(TESTS)}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    with run, Record.open(url, patience=60.0) as record:
        while len(record.events(deployment.id)) < 15:
            assert run.poll() is None
            time.sleep(0.02)
        # So that it is not done before the server is away, which may take a while.
        os.killpg(run.pid, signal.SIGSTOP)
        postgresql.stop(at_once=at_once)
        os.killpg(run.pid, signal.SIGCONT)
        time.sleep(seconds)
        postgresql.start()
        _output, errors = run.communicate(timeout=300)
        assert run.returncode == 0, errors
        assert "does not answer; trying again for up to 60 seconds" in errors
        assert "answers again" in errors
        assert PASSWORD not in errors
        events = record.events(deployment.id)
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        for name in ("Admitted", "Settled"):
            assert sorted(event.target for event in events if event.event == name) == NAMES
        assert record.finish(deployment.id).overview == {"Succeeded": len(NAMES)}


class _Ended:
    """Both ends of a connection; a closed socket that a thread still reads says no goodbye."""

    def __init__(self, *ends: socket.socket) -> None:
        self.ends = ends

    def close(self) -> None:
        for end in self.ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Cutter:
    """Stands before a server, and cuts the connection when a transaction is committed.

    ``after`` the server has done it but before its answer arrives, or before the server hears of
    it. Only the next ``cuts`` commits are cut.
    """

    def __init__(self, port: int) -> None:
        self.server_port = port
        self.cuts, self.after = 0, True
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _address = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self.server_port)) as upstream:
            back = threading.Thread(target=self._copy, args=(upstream, client), daemon=True)
            back.start()
            with contextlib.suppress(OSError), contextlib.closing(_Ended(upstream, client)):
                while data := client.recv(65536):
                    if b"COMMIT" in data and self.cuts:
                        self.cuts -= 1
                        if self.after:
                            self.silent = client
                            upstream.sendall(data)
                            self.answered.wait(60)
                        return
                    upstream.sendall(data)

    def _copy(self, upstream: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := upstream.recv(65536):
                if self.silent is client:
                    self.answered.set()
                    return
                client.sendall(data)

    def cut(self, *, after: bool, times: int = 1) -> None:
        self.silent: socket.socket | None = None
        self.answered = threading.Event()
        self.after, self.cuts = after, times

    silent = None


@pytest.fixture
def cutter(postgresql: Server) -> Iterator[Cutter]:
    cutting = Cutter(postgresql.port)
    yield cutting
    cutting.listener.close()


@pytest.mark.parametrize("after", [True, False], ids=["after", "before"])
def test_a_commit_without_an_answer_is_not_done_twice(
    postgresql: Server, cutter: Cutter, notices: list[str], after: bool
) -> None:
    name = f"cut_{after}".lower()
    direct = postgresql.create(name)
    through = direct.replace(f":{postgresql.port}/", f":{cutter.port}/")
    with Record.open(direct) as seen, Record.open(through, patience=30.0) as record:

        def cut(work: Callable[[], object]) -> object:
            cutter.cut(after=after)
            answer = work()
            assert cutter.cuts == 0, "the transaction was not cut"
            return answer

        made = cut(lambda: create(record, ["a", "b"]))
        deployment = seen.deployments()[0]
        assert [one.id for one in seen.deployments()] == [deployment.id]
        assert made == deployment
        held = deployment.id
        cut(lambda: record.note_staged(held, "a", digest_present=True))
        admission = cut(lambda: record.admit(held, "a"))
        assert admission == seen_admission(admission)
        event = {"event": "Install", "status": "Succeeded", "started": 1.0, "ended": 2.0}
        cut(lambda: record.add_events(held, "a", [event]))
        cut(lambda: record.set_in_service(held, "a", in_service=False))
        cut(lambda: record.settle(held, "a", "Failed", error_code="ScriptFailed", message="no"))
        taken = cut(lambda: record.take_over(held))
        assert taken == seen.deployment(held)
        assert seen.deployment(held).fence == 2
        cut(lambda: record.halt(held, "HEALTH_CONSTRAINTS", "too many"))
        assert story(seen, held) == [
            ("", "Created"), ("a", "Staged"), ("a", "Admitted"), ("a", "Install"),
            ("a", "OutOfService"), ("a", "Settled"), ("", "TakenOver"), ("", "Halted"),
        ]  # fmt: skip
        cut(lambda: record.abandon(held, "enough"))
        assert story(seen, held)[-1] == ("", "Abandoned")
        assert len(story(seen, held)) == 9
    assert "answers again" in notices[-1]


def seen_admission(admission: object) -> object:
    """The answer of an admission that was cut is that of the first time."""
    assert isinstance(admission, _record.Admission)
    assert (admission.verdict, admission.resumed) == ("admitted", False)
    return admission


def test_whoever_has_no_patience_is_told_at_once_and_what_is_not_known(
    postgresql: Server, cutter: Cutter, notices: list[str]
) -> None:
    direct = postgresql.create("told")
    through = direct.replace(f":{postgresql.port}/", f":{cutter.port}/")
    with Record.open(through) as record:
        cutter.cut(after=True)
        with pytest.raises(RecordAwayError, match="Whether the last change was written is not kn"):
            create(record, ["a"])
    assert notices == []


def test_a_wrong_address_is_told_at_once() -> None:
    port = free_port()
    begun = time.monotonic()
    with pytest.raises(RecordError, match="see that the server runs"):
        Record.open(f"postgresql://bascule:x@127.0.0.1:{port}/none", patience=60.0)
    assert time.monotonic() - begun < 30


def test_a_file_that_somebody_holds_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notices: list[str]
) -> None:
    home = "ansible_collections.bascule.deploy.plugins.plugin_utils._record._sqlite"
    monkeypatch.setattr(f"{home}._PATIENT_SECONDS", 0.2)
    path = tmp_path / "record.db"
    record = Record.open(f"sqlite:///{path}")
    deployment = create(record, ["a"])
    holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN IMMEDIATE")

    def let_go() -> None:
        while not notices:
            time.sleep(0.02)
        holder.execute("ROLLBACK")

    freeing = threading.Thread(target=let_go)
    freeing.start()
    assert record.admit(deployment.id, "a").verdict == "admitted"
    freeing.join()
    holder.close()
    assert len(notices) == 1
    assert f"{path} is locked by another process; waiting for up to 60 seconds" in notices[0]


FULL = """\
import os, pathlib, sys, threading, time
from ansible_collections.bascule.deploy.plugins.plugin_utils import _record
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Record
from support.records import create
folder = pathlib.Path(sys.argv[1])
url = f"sqlite:///{folder}/record.db"
deployment = create(Record.open(url), ["a", "b"])
filler = folder / "filler"
with filler.open("wb", buffering=0) as file:
    size = 65536
    while size:
        try:
            file.write(b"x" * size)
        except OSError:
            size //= 2
told = []
_record.listen(told.append)
def make_room():
    while not told:
        time.sleep(0.02)
    filler.unlink()
try:
    Record.open(url).settle(deployment.id, "a", "Failed", message="m" * 100000)
except Exception as error:
    print(type(error).__name__, error)
threading.Thread(target=make_room).start()
record = Record.open(url, fence=1, patience=60.0)
record.settle(deployment.id, "a", "Failed", message="m" * 100000)
print([event.event for event in record.events(deployment.id)])
print(told[0]); print(told[-1])
"""


def test_a_full_disk_is_waited_for(tmp_path: Path) -> None:
    """In a file system of its own, which only this test's processes see."""
    mounted = 'mount -t tmpfs -o size=1m none "$1" && exec "$2" -c "$3" "$1"'
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mounted, "sh",
         tmp_path, sys.executable, FULL],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    refused, events, first, last = done.stdout.splitlines()
    assert refused.startswith("RecordAwayError The record sqlite:///")
    assert "make room on its file system" in refused
    assert events == "['Created', 'Settled']"
    assert "does not answer; trying again" in first
    assert "answers again" in last
