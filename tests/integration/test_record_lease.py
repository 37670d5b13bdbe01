"""One controller carries a deployment out; one that lost it cannot write any more."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import re
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy
from ansible_collections.bascule.deploy.plugins.module_utils._errors import (
    LeaseHeldError,
    LeaseLostError,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils import _record
from ansible_collections.bascule.deploy.plugins.plugin_utils._heartbeat import Heartbeat
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import (
    LEASE_SECONDS,
    ActiveDeploymentError,
    Lease,
    Record,
)
from support import controllers
from support.records import create

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ME = f"{getpass.getuser()}@{socket.gethostname()}"
EVENT = {"event": "Install", "status": "Succeeded", "started": 1.0, "ended": 2.0}


@pytest.fixture
def notices() -> Iterator[list[str]]:
    told: list[str] = []
    _record.listen(told.append)
    yield told
    _record.listen(lambda _text: None)


def change_lease(url: str, deployment_id: str, **values: Any) -> None:
    """Make a lease what another machine or another time would have made it."""
    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    changes = ", ".join(f"{name} = :{name}" for name in values)
    with engine.begin() as connection:
        statement = f"UPDATE active SET {changes} WHERE deployment_id = :id"  # noqa: S608
        connection.execute(sqlalchemy.text(statement), {**values, "id": deployment_id})
    engine.dispose()


def lease_of(record: Record, deployment_id: str) -> Lease:
    lease = record.lease(deployment_id)
    assert lease is not None
    return lease


def held_elsewhere(url: str, record: Record, seconds: float) -> str:
    """A deployment that a controller on another machine holds for so long."""
    deployment = create(record, ["a", "b"])
    now = lease_of(record, deployment.id).now
    change_lease(
        url, deployment.id, holder="ada@ci-7, process 123", holder_host="ci-7",
        holder_boot="other", holder_pid=123, holder_started=5.0, heartbeat_at=now,
        expires_at=now + seconds,
    )  # fmt: skip
    return deployment.id


def test_who_opens_a_deployment_holds_it(record: Record) -> None:
    deployment = create(record, ["a"])
    assert deployment.fence == 1
    lease = lease_of(record, deployment.id)
    assert (lease.state, lease.own, lease.here, lease.pid) == ("Alive", True, True, os.getpid())
    assert lease.holder == f"{ME}, process {os.getpid()}"
    assert lease.heartbeat_at is not None
    assert lease.expires_at == pytest.approx(lease.heartbeat_at + LEASE_SECONDS)
    assert json.loads(json.dumps(lease.as_dict()))["state"] == "Alive"
    record.release(deployment.id)
    assert lease_of(record, deployment.id).state == "Nobody"
    assert record.take_over(deployment.id).fence == 2
    record.finish(deployment.id)
    assert record.lease(deployment.id) is None


def test_a_living_controller_is_left_alone_and_a_dead_one_is_followed_at_once(
    url: str, record: Record
) -> None:
    with controllers.holding(url) as (process, held):
        for refused in (record.take_over, record.abandon):
            with pytest.raises(LeaseHeldError) as refusal:
                refused(held)
        error = refusal.value
        assert (error.holder, error.host) == (f"{ME}, process {process.pid}", socket.gethostname())
        assert error.certain
        assert error.since <= time.time() < error.until
        for words in (error.holder, "is alive", "last heartbeat", f"`bascule stop {held}`"):
            assert words in str(error)
        with pytest.raises(ActiveDeploymentError) as active:
            create(record, ["a"])
        assert f"process {process.pid}" in str(active.value)
        assert "Its controller is alive" in str(active.value)
        process.send_signal(signal.SIGKILL)
        # Not waited for yet: a zombie is as dead as any.
        deadline = time.monotonic() + 60
        while lease_of(record, held).state != "Dead":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.wait()
        with pytest.raises(ActiveDeploymentError) as active:
            create(record, ["a"])
        assert "Its controller is dead" in str(active.value)
        assert f"process {process.pid}" in str(active.value)
        commands = re.findall(r"`([^`]+)`", str(active.value))
        assert commands == [f"bascule resume {held}", f"bascule abandon {held}"]
        assert record.take_over(held).fence == 2
    taken = [event for event in record.events(held) if event.event == "TakenOver"]
    assert len(taken) == 1
    assert f"process {os.getpid()} goes on with it" in taken[0].message
    assert f"process {process.pid}" in taken[0].message


def test_of_many_that_resume_one_gets_it(url: str, record: Record) -> None:
    with controllers.holding(url) as (process, held):
        process.kill()
        process.wait()
    with contextlib.ExitStack() as running:
        rivals = [running.enter_context(controllers.program("take", url, held)) for _ in range(5)]
        told = []
        for rival in rivals:
            assert rival.stdout is not None
            told.append(rival.stdout.readline())
        assert sum(line.startswith("2") for line in told) == 1, told
        winner = rivals[[line.startswith("2") for line in told].index(True)]
        for line in told:
            assert line.startswith("2") or f"process {winner.pid}" in line
        for rival in rivals:
            rival.kill()
    assert record.deployment(held).fence == 2


def test_a_number_that_a_later_process_got_is_not_the_controller(url: str, record: Record) -> None:
    deployment = create(record, ["a"])
    change_lease(url, deployment.id, holder_started=1.0)
    assert lease_of(record, deployment.id).state == "Dead"
    # In another boot, or another container, the same number says nothing.
    change_lease(url, deployment.id, holder_boot="other")
    lease = lease_of(record, deployment.id)
    assert (lease.state, lease.here, lease.own) == ("Alive", False, False)


def test_another_machine_has_until_its_lease_runs_out(url: str, record: Record) -> None:
    held = held_elsewhere(url, record, 3600)
    with pytest.raises(LeaseHeldError) as refusal:
        record.take_over(held)
    assert (refusal.value.host, refusal.value.certain) == ("ci-7", False)
    now = lease_of(record, held).now
    change_lease(url, held, heartbeat_at=now - 40, expires_at=now - 10)
    lease = lease_of(record, held)
    assert lease.state == "Expired"
    assert "ada@ci-7, process 123" in lease.text()
    assert "last heartbeat 40 s ago" in lease.text()
    assert record.take_over(held).fence == 2


def test_who_resumes_waits_for_a_lease_to_run_out(
    url: str, record: Record, notices: list[str]
) -> None:
    held = held_elsewhere(url, record, 3)
    begun = time.monotonic()
    assert record.take_over(held, wait=True).fence == 2
    assert time.monotonic() - begun > 0.5
    assert len(notices) == 1
    assert f"{held} is held by ada@ci-7, process 123" in notices[0]
    assert "Waiting until" in notices[0]


def test_who_resumes_does_not_wait_for_one_that_turns_out_to_live(
    url: str, record: Record, notices: list[str]
) -> None:
    held = held_elsewhere(url, record, 3600)

    def beats() -> None:
        while not notices:
            time.sleep(0.02)
        change_lease(url, held, expires_at=lease_of(record, held).now + 7200)

    beating = threading.Thread(target=beats)
    beating.start()
    with pytest.raises(LeaseHeldError, match="ada@ci-7"):
        record.take_over(held, wait=True)
    beating.join()
    assert record.deployment(held).fence == 1


def writes(record: Record, held: str) -> dict[str, Callable[[], object]]:
    """Everything that a controller does to its deployment."""
    return {
        "note_staged": lambda: record.note_staged(held, "a", digest_present=True),
        "note_current": lambda: record.note_current(held, "a"),
        "admit": lambda: record.admit(held, "b"),
        "settle": lambda: record.settle(held, "a", "Succeeded"),
        "set_in_service": lambda: record.set_in_service(held, "a", in_service=False),
        "add_events": lambda: record.add_events(held, "a", [EVENT]),
        "halt": lambda: record.halt(held, "HEALTH_CONSTRAINTS", "too many"),
        "beat": lambda: record.beat(held),
        "release": lambda: record.release(held),
        "finish": lambda: record.finish(held),
        "abandon": lambda: record.abandon(held),
        "take_over": lambda: record.take_over(held),
    }


def test_a_controller_that_lost_its_lease_writes_nothing(url: str, record: Record) -> None:
    deployment = create(record, ["a", "b"])
    stale = Record.open(url, fence=deployment.fence)
    assert stale.admit(deployment.id, "a").verdict == "admitted"
    taken = record.take_over(deployment.id)
    before = (record.events(deployment.id), record.targets(deployment.id))
    for name, write in writes(stale, deployment.id).items():
        with pytest.raises(LeaseLostError, match="taken from this controller"):
            write()
        assert (record.events(deployment.id), record.targets(deployment.id)) == before, name
    assert record.deployment(deployment.id) == taken
    stale.close()
    # The one that took it may, and whoever is no controller, too.
    with Record.open(url, fence=taken.fence) as current:
        assert current.admit(deployment.id, "a").resumed
        current.settle(deployment.id, "a", "Succeeded")
        assert current.admit(deployment.id, "b").verdict == "admitted"
    record.halt(deployment.id, "MANUAL_STOP", "stopped by a person")
    assert record.finish(deployment.id).status == "Stopped"


def test_what_was_abandoned_is_not_written_to(url: str, record: Record) -> None:
    deployment = create(record, ["a", "b"])
    stale = Record.open(url, fence=deployment.fence)
    stale.admit(deployment.id, "a")
    record.abandon(deployment.id)
    with pytest.raises(LeaseLostError):
        stale.settle(deployment.id, "a", "Succeeded")
    assert [one.status for one in record.targets(deployment.id)] == ["Unknown", "Skipped"]
    stale.close()


def test_the_worker_of_a_dead_controller_may_finish_but_not_begin(url: str, record: Record) -> None:
    with controllers.program("fork", url) as controller:
        assert controller.stdin is not None
        assert controller.stdout is not None
        held, worker = controller.stdout.readline().split()

        def told(order: str) -> str:
            assert controller.stdin is not None
            assert controller.stdout is not None
            controller.stdin.write(f"{order}\n")
            controller.stdin.flush()
            return controller.stdout.readline().strip()

        try:
            aged = lease_of(record, held).now - 10
            assert lease_of(record, held).pid == controller.pid
            change_lease(url, held, heartbeat_at=aged)
            assert told("beat") == "None"
            beaten = lease_of(record, held).heartbeat_at
            assert beaten is not None
            assert beaten > aged
            controller.kill()
            os.waitpid(controller.pid, 0)
            # It gives no sign of life for a controller that has none, and gets no new target.
            change_lease(url, held, heartbeat_at=aged)
            assert told("beat") == "None"
            assert lease_of(record, held).heartbeat_at == aged
            assert told("admit").startswith(f"LeaseLostError: The controller of {held} has ended")
            # What its target did may be written down until somebody has taken over.
            assert told("events") == "None"
            assert record.targets(held)[0].in_service is False
            record.take_over(held)
            assert told("settle").startswith("LeaseLostError: ")
            assert record.targets(held)[0].status == "InProgress"
        finally:
            os.kill(int(worker), signal.SIGKILL)


def test_a_heartbeat_goes_on_while_something_is_done(url: str, record: Record) -> None:
    deployment = create(record, ["a"])

    def opened() -> Record:
        return Record.open(url, fence=deployment.fence)

    with Heartbeat(opened, deployment.id, seconds=0.05):
        for _beat in range(2):
            aged = lease_of(record, deployment.id).now - 10
            change_lease(url, deployment.id, heartbeat_at=aged, expires_at=aged)
            deadline = time.monotonic() + 60
            while lease_of(record, deployment.id).heartbeat_at == aged:
                assert time.monotonic() < deadline
                time.sleep(0.02)
    assert lease_of(record, deployment.id).state == "Alive"
    record.take_over(deployment.id)
    with pytest.raises(LeaseLostError):
        Heartbeat(opened, deployment.id).__enter__()


def test_two_controllers_at_the_same_moment(url: str, tmp_path: Path) -> None:
    rounds = 100
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "appspec.yml").write_text("version: 0.0\nos: linux\n")
    with controllers.program("race", url, bundle, tmp_path / "cache", rounds) as run:
        output, errors = run.communicate(timeout=600)
    assert run.returncode == 0, errors
    told = [json.loads(line) for line in output.splitlines()]
    for number in range(rounds):
        winner, loser = sorted(
            (line for line in told if line["round"] == number), key=lambda line: "refused" in line
        )
        for words in (
            f"{ME}, process {winner['pid']}", "is alive", f"`bascule resume {winner['id']}`",
            f"`bascule abandon {winner['id']}`",
        ):  # fmt: skip
            assert words in loser["refused"]
    assert len({line["id"] for line in told if "id" in line}) == rounds


def test_a_target_that_was_lost_does_not_hold_up_the_stages_after_it(
    url: str, record: Record
) -> None:
    deployment = create(record, ["a", "b", "c", "d"], stages=[3, 1])
    held = deployment.id
    with Record.open(url, fence=deployment.fence) as controller:
        for name in ("a", "b"):
            assert controller.admit(held, name).verdict == "admitted"
        controller.settle(held, "a", "Succeeded")
        waits = controller.admit(held, "d")
        assert (waits.verdict, "2 targets of earlier stages" in waits.reason) == ("wait", True)
        # While they are in the batch they are waited for, and by who knows no batch for ever.
        controller.lose_absent(held, "d", ["b", "c", "d"])
        record.lose_absent(held, "d", ["d"])
        controller.lose_absent(held, "b", ["b"])
        assert controller.admit(held, "d").verdict == "wait"
        controller.lose_absent(held, "d", ["d"])
        assert [(one.status, one.changed) for one in controller.targets(held)] == [
            ("Succeeded", True), ("Unknown", True), ("Skipped", False), ("Pending", False),
        ]  # fmt: skip
        admitted = controller.admit(held, "d")
        assert (admitted.verdict, admitted.failed, admitted.in_flight) == ("admitted", 1, 0)
        lost = [(one.target, one.status) for one in record.events(held) if one.event == "Lost"]
        assert lost == [("b", "Unknown"), ("c", "Skipped")]
        # Its result may still come.
        controller.settle(held, "b", "Succeeded")
        assert controller.targets(held)[1].status == "Succeeded"
