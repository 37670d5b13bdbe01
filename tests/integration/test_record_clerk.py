"""The clerk of a controller: workers ask it instead of logging in to the server themselves."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import psycopg
import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import (
    LeaseLostError,
    RecordAwayError,
    RecordError,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils import _record
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import (
    Record,
    ServedRecord,
    _clerk,
    _holder,
    employ_clerk,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._record._location import locate
from support.records import create

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.postgresql import Server


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """A process that this one counts as a worker of."""
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"],
                               stdin=subprocess.PIPE)  # fmt: skip
    with process:
        own = _holder.this_controller()
        started = _holder._start_of(process.pid)
        as_said = _holder.Holder(
            user=own.user, host=own.host, boot=own.boot, pid=process.pid, started=started
        )
        monkeypatch.setattr(_holder, "_served", [as_said])
        yield process
        process.kill()


@pytest.fixture
def url(
    postgresql: Server, controller: subprocess.Popen[bytes], request: pytest.FixtureRequest
) -> Iterator[str]:
    """A record whose clerk this controller has."""
    made = postgresql.create(f"clerk_{abs(hash(request.node.name))}")
    Record.open(made).close()
    employ_clerk(made)
    yield made
    controller.kill()
    until(lambda: clerk_of(made) is None)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def clerk_of(url: str) -> int | None:
    """Return the process that listens for the workers of this controller."""
    address = _clerk.address_of(locate(url), _holder.this_controller())
    assert address is not None
    with socket.socket(socket.AF_UNIX) as line:
        try:
            line.connect(address)
        except OSError:
            return None
        return int(struct.unpack("3i", line.getsockopt(socket.SOL_SOCKET, 17, 12))[0])


def sessions(postgresql: Server, url: str) -> int:
    with psycopg.connect(postgresql.url("postgres")) as connection:
        counted = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = %s", [url.rpartition("/")[2]]
        ).fetchone()
    assert counted is not None
    return int(counted[0])


def test_workers_ask_the_clerk_and_none_of_them_logs_in(postgresql: Server, url: str) -> None:
    names = [f"target-{number:02}" for number in range(12)]
    with Record.open(url) as record:
        deployment = create(record, names, 8)
    until(lambda: sessions(postgresql, url) == 0)
    workers = [ServedRecord.open(url, fence=1, patience=5) for _ in names]
    held = deployment.id
    said = [one.admit(held, name).verdict for one, name in zip(workers, names, strict=True)]
    assert said == ["admitted"] * 4 + ["wait"] * 8
    assert sessions(postgresql, url) == 1
    seen = workers[0].deployment(held)
    assert (seen.revision, seen.plan) == (deployment.revision, deployment.plan)
    assert seen.overview == {"InProgress": 4, "Pending": 8}
    event = {"event": "Install", "status": "Succeeded", "started": 1.0, "ended": 2.0}
    workers[0].add_events(held, names[0], [event])
    workers[0].note_staged(held, names[0], digest_present=True)
    assert workers[0].has_bundle("shop", "web", names[0], deployment.revision.digest) is True
    workers[0].set_in_service(held, names[0], in_service=False)
    workers[0].settle(held, names[0], "Succeeded")
    workers[0].beat(held)
    workers[5].lose_absent(held, names[5], names)
    assert workers[4].admit(held, names[4]).verdict == "admitted"
    assert [one.status for one in workers[0].targets(held)][:5] == ["Succeeded"] + 4 * [
        "InProgress"
    ]
    assert sessions(postgresql, url) == 1
    for one in workers:
        one.close()
    # Others see what was written, and what a clerk does not do is done all the same.
    with ServedRecord.open(url, fence=1) as record:
        assert [event.event for event in record.events(held, names[0])][:3] == [
            "Admitted", "Install", "Staged"
        ]  # fmt: skip
        assert record.finish(held).status == "Failed"


def test_a_refusal_is_the_one_of_the_record(url: str) -> None:
    with Record.open(url) as record:
        deployment = create(record, ["a"])
        record.take_over(deployment.id)
    with ServedRecord.open(url, fence=1) as late, ServedRecord.open(url, fence=2) as own:
        with pytest.raises(LeaseLostError, match="the 1st that has taken it"):
            late.admit(deployment.id, "a")
        with pytest.raises(RecordError, match="cannot have succeeded: it was never admitted"):
            own.settle(deployment.id, "a", "Succeeded")
        with pytest.raises(RecordError, match="no deployment d-NOTTHERE1") as caught:
            own.deployment("d-NOTTHERE1")
        assert type(caught.value) is RecordError


def test_without_its_clerk_a_worker_asks_the_server_itself(
    url: str, controller: subprocess.Popen[bytes]
) -> None:
    with Record.open(url) as record:
        deployment = create(record, ["a", "b"])
    with ServedRecord.open(url, fence=1) as worker:
        assert worker.admit(deployment.id, "a").verdict == "admitted"
        # A second one finds the place taken, and leaves.
        first = clerk_of(url)
        employ_clerk(url)
        assert clerk_of(url) == first
        assert first is not None
        os.kill(first, signal.SIGKILL)
        until(lambda: clerk_of(url) is None)
        assert worker.admit(deployment.id, "b").verdict == "admitted"
        worker.settle(deployment.id, "a", "Succeeded")
    # A new controller, as after a resume, gets one of its own.
    employ_clerk(url)
    assert clerk_of(url) not in (None, first)
    controller.kill()
    controller.wait()
    until(lambda: clerk_of(url) is None)
    with (
        ServedRecord.open(url, fence=1) as orphan,
        pytest.raises(LeaseLostError, match="has ended"),
    ):
        orphan.admit(deployment.id, "b")


def test_what_the_clerk_waits_for_is_told_to_who_asks(postgresql: Server, url: str) -> None:
    with Record.open(url) as record:
        deployment = create(record, ["a"])
    told: list[str] = []
    _record.listen(told.append)
    try:
        with ServedRecord.open(url, fence=1, patience=60) as worker:
            assert worker.admit(deployment.id, "a").verdict == "admitted"
            postgresql.stop()
            back = threading.Thread(
                target=lambda: (until(lambda: bool(told)), postgresql.start()), daemon=True
            )
            back.start()
            worker.settle(deployment.id, "a", "Succeeded")
            back.join()
            assert worker.targets(deployment.id)[0].status == "Succeeded"
            assert "does not answer; trying again for up to 60 seconds" in told[0]
            assert told[-1].endswith("answers again.")
            postgresql.stop()
            with (
                ServedRecord.open(url, fence=1) as hasty,
                pytest.raises(RecordAwayError, match="cannot be used"),
            ):
                hasty.targets(deployment.id)
    finally:
        _record.listen(lambda _text: None)
        if postgresql.process is None:
            postgresql.start()


def test_nobody_talks_to_processes_of_others(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Record.open(url) as record:
        deployment = create(record, ["a"])
    monkeypatch.setattr(_clerk, "is_ours", lambda _line: False)
    ours, theirs = socket.socketpair()
    with ours, ours.makefile("rwb") as stream:
        _clerk.Clerk(url).serve(theirs)
        assert stream.read() == b""
    monkeypatch.setattr("ansible_collections.bascule.deploy.plugins.plugin_utils._record._served."
                        "is_ours", lambda _line: False)  # fmt: skip
    with ServedRecord.open(url, fence=1) as worker:
        assert worker._line is None
        assert worker.admit(deployment.id, "a").verdict == "admitted"
    assert clerk_of(url) is not None


def test_a_clerk_does_what_workers_may_ask_and_nothing_else(url: str) -> None:
    assert _clerk.Clerk(url).answer({"method": "close"}) == {"unknown": "close"}
    assert _clerk.address_of(locate("sqlite:////tmp/record.db"), _holder.this_controller()) is None
