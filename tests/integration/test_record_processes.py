"""Many real processes at one record: the floor holds at every moment, whatever the order."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Record
from support.records import create

TESTS = Path(__file__).resolve().parents[1]
NAMES = [f"target-{number:03}" for number in range(120)]


def program(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "support.records", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def replay(record: Record, deployment_id: str, minimum: int, total: int) -> dict[str, list[str]]:
    """Go through the events in their order; returns the verdicts of each target."""
    in_flight: set[str] = set()
    failed = 0
    verdicts: dict[str, list[str]] = {}
    events = record.events(deployment_id)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    for event in events:
        if event.event == "Admitted":
            assert event.target not in in_flight
            assert event.target not in verdicts
            in_flight.add(event.target)
        elif event.event == "Settled":
            in_flight.remove(event.target)
            failed += event.status == "Failed"
            verdicts.setdefault(event.target, []).append(event.status)
        assert total - failed - len(in_flight) >= minimum, f"at event {event.sequence}"
    return verdicts


@pytest.mark.parametrize(
    ("minimum", "failures", "status"),
    [(110, 0, "Succeeded"), (110, 3, "Succeeded"), (114, 20, "Failed"), (0, 10, "Succeeded")],
)
def test_the_floor_holds_for_24_processes(
    url: str, minimum: int, failures: int, status: str
) -> None:
    record = Record.open(url)
    deployment = create(record, NAMES, minimum)
    failing = random.sample(NAMES, failures)
    with program("roll", url, deployment.id, 24, ",".join(failing)) as run:
        _output, errors = run.communicate(timeout=300)
    assert run.returncode == 0, errors
    verdicts = replay(record, deployment.id, minimum, len(NAMES))
    assert all(len(given) == 1 for given in verdicts.values())
    done = record.finish(deployment.id)
    assert done.status == status
    assert sum(done.overview.values()) == len(NAMES)
    if status == "Succeeded":
        expected = {"Succeeded": len(NAMES) - failures, "Failed": failures}
        assert done.overview == {name: number for name, number in expected.items() if number}
    else:
        # Where the window closes depends on who came first, but not on how many may be lost.
        assert done.error_code == "HEALTH_CONSTRAINTS"
        assert done.overview["Failed"] == len(NAMES) - minimum
        assert done.overview["Skipped"] > 0


def test_two_controllers_share_a_deployment(url: str) -> None:
    record = Record.open(url)
    deployment = create(record, NAMES, 110)
    with (
        program("roll", url, deployment.id, 8, "") as one,
        program("roll", url, deployment.id, 8, "") as other,
    ):
        errors = [run.communicate(timeout=300)[1] for run in (one, other)]
    assert [one.returncode, other.returncode] == [0, 0], errors
    admitted = [e.target for e in record.events(deployment.id) if e.event == "Admitted"]
    assert sorted(admitted) == NAMES
    assert record.finish(deployment.id).status == "Succeeded"


def test_controllers_killed_at_any_moment_leave_a_record_to_go_on_with(url: str) -> None:
    record = Record.open(url)
    deployment = create(record, NAMES, 100)
    killed = 0
    for _attempt in range(4):
        with program("roll", url, deployment.id, 12, "") as run:
            deadline = time.monotonic() + 120
            known = len(record.events(deployment.id))
            # Between two looks much may happen; the last one may be done before it is killed.
            while len(record.events(deployment.id)) < known + 30 and run.poll() is None:
                assert time.monotonic() < deadline
            killed += run.poll() is None
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)
            run.communicate()
    assert killed
    with program("roll", url, deployment.id, 12, "") as run:
        _output, errors = run.communicate(timeout=300)
    assert run.returncode == 0, errors
    replay(record, deployment.id, 100, len(NAMES))
    assert record.finish(deployment.id).overview == {"Succeeded": len(NAMES)}
