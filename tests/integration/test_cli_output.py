"""Where what is said cannot be heard: closed pipes, full disks, closed streams."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from bascule.cli.deployments import carry_out

if TYPE_CHECKING:
    from collections.abc import Callable

COMPLETION = f"{sys.executable} -m bascule completion bash"


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        (f"{COMPLETION} >/dev/full", 1, "bascule: The output cannot be written: No space left on"),
        (f"{COMPLETION} --format json >/dev/full", 1, "bascule: The output cannot be written: No"),
        (f"{COMPLETION} >&-", 0, ""),
        (f"{COMPLETION} 2>&-", 0, ""),
        (f"{COMPLETION} | true; exit ${{PIPESTATUS[0]}}", 0, ""),
    ],
)
@pytest.mark.parametrize("unbuffered", ["1", ""])
def test_a_command_that_is_not_heard(
    command: str, status: int, words: str, unbuffered: str
) -> None:
    done = subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (status, 1 if words else 0)
    assert done.stderr.startswith(words)


def test_a_letter_that_the_locale_does_not_have_stops_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bascule", "rollback", "--help"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "group, APPLICATION/GROUP, or d-?" in done.stdout


def closed_pipe() -> Any:
    reads, writes = os.pipe()
    os.close(reads)
    return os.fdopen(writes, "w")


def full_disk() -> Any:
    return Path("/dev/full").open("w", encoding="utf-8")


@pytest.mark.parametrize("output", [closed_pipe, full_disk])
@pytest.mark.parametrize("status", [0, 1, 3])
def test_a_deployment_ends_as_it_ended_whoever_hears_it(
    output: Callable[[], Any], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: Any = SimpleNamespace(exit_code=status, unfinished=None, to_dict=dict)
    options = argparse.Namespace(check=False, quiet=True, verbose=0, format="json")
    monkeypatch.setattr(sys, "stdout", output())
    assert carry_out(lambda **_: ended, {}, options) == status
    sys.stdout.close()
