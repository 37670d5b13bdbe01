"""``bascule demo``: it tells its story, loses no request, and leaves no process behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND = [str(Path(sys.executable).with_name("bascule")), "demo"]
# Whoever runs the tests, the demonstration runs as somebody without rights.
NOBODY = ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if os.getuid() == 0 else []


def living(folder: Path) -> list[str]:
    """Return the processes that were started for a demonstration in this folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in told and process.name != str(os.getpid()):
            found.append(told.replace(b"\0", b" ").decode(errors="replace")[:300])
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Give the demonstration a place of its own, and see that nothing goes on living there."""
    yield tmp_path
    assert living(tmp_path) == []


def environment(folder: Path) -> dict[str, str]:
    """Return an environment in which all that is started can be told by its folder."""
    (folder / "home").mkdir()
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder),
        "LC_ALL": "C.UTF-8",
    }


def test_the_demonstration_goes_as_told(folder: Path) -> None:
    done = subprocess.run(
        [*NOBODY, *COMMAND], env=environment(folder), cwd=folder, timeout=300,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = done.stdout
    assert done.returncode == 0, said + done.stderr
    assert living(folder) == []
    sent, failed = re.search(r"^(\d+) requests in \d+ s, (\d+) failed", said, re.M).groups()
    assert int(failed) == 0
    seconds = int(re.search(r"requests in (\d+) s", said).group(1))
    assert int(sent) >= 100 * seconds
    assert "The targets run web-1 2.0, web-2 2.0, web-3 2.0, web-4 2.0\n" in said
    (where,) = re.findall(r"^The record is (.+)$", said, re.M)
    assert Path(where).is_relative_to(folder)
    with Record.open(f"sqlite:///{where}") as record:
        rollback, bad, good, first = record.deployments()
        assert [one.status for one in (first, good, bad, rollback)] == [
            "Succeeded", "Succeeded", "Failed", "Succeeded",
        ]  # fmt: skip
        assert bad.error_code == "HEALTH_CONSTRAINTS"
        assert (rollback.rollback_of, bad.rolled_back_by) == (bad.id, rollback.id)
        assert rollback.revision.digest == good.revision.digest
        fates = {target.name: target.status for target in record.targets(bad.id)}
        assert fates == {
            "web-1": "Succeeded", "web-2": "Failed", "web-3": "Skipped", "web-4": "Skipped",
        }  # fmt: skip
        assert {target.name for target in record.targets(rollback.id)} == {"web-1", "web-2"}
    for one in (first, good, bad, rollback):
        assert one.id in said.partition("What happened")[2]


@pytest.mark.parametrize(
    ("moment", "times"),
    [
        ("Deploying 1.0", 1),
        ("web-2  admitted", 1),
        ("web-2  admitted", 2),
        (r"d-\w+  Succeeded$", 1),
    ],
    ids=["before the first", "in the first", "in the first, twice", "with nothing left to pause"],
)
def test_an_interrupted_demonstration_stops_everything(
    folder: Path, moment: str, times: int
) -> None:
    with subprocess.Popen(
        COMMAND, env=environment(folder), cwd=folder, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            if re.match(moment, line):
                break
        # As Ctrl-C in a terminal: everybody in the foreground gets it.
        os.killpg(process.pid, signal.SIGINT)
        rest = ""
        for _again in range(times - 1):
            # Who looks late finds that all has ended meanwhile.
            while "Pausing:" not in rest and (line := process.stdout.readline()):
                rest += line
            os.killpg(process.pid, signal.SIGINT)
        rest += process.stdout.read()
        assert process.wait(60) == 4, rest
    assert "everything that was started is stopped" in rest
    assert living(folder) == []


def test_a_demonstration_that_is_killed_leaves_nothing_behind(folder: Path) -> None:
    with subprocess.Popen(
        COMMAND, env=environment(folder), cwd=folder, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("web-2  admitted"):
                break
        process.kill()
    deadline = time.monotonic() + 90
    while left := living(folder):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
