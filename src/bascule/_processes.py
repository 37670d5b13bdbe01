"""The processes below one of ours, so that none of them outlives it unseen."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
# In /proc/PID/stat, counted after the name: the parent, and the start in clock ticks.
_PARENT, _START = 1, 19
_PATIENCE_SECONDS = 2.0


class Offspring:
    """The workers of an ansible-playbook and their ssh, as they are at this moment.

    A worker is a session of its own, so that no terminal's signal and no process group reaches it.
    Nothing else is meant: on a local target, hooks are below the workers, too, and go on.
    """

    def __init__(self, parent: int) -> None:
        """Look at the processes; where there is no /proc, none are found."""
        self._found = [
            (pid, stat[_START]) for pid, stat in _below(parent).items() if _is_of_ansible(pid)
        ]

    def end(self) -> None:
        """Terminate those that still run; kill what does not end within two seconds."""
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while self._left() and time.monotonic() < deadline:
            time.sleep(0.05)
        self._signal(signal.SIGKILL)

    def _left(self) -> list[int]:
        found = []
        for pid, start in self._found:
            stat = _stat_of(pid)
            if stat is not None and stat[_START] == start and stat[0] not in ("Z", "X"):
                found.append(pid)
        return found

    def _signal(self, number: signal.Signals) -> None:
        for pid in self._left():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)


def _below(parent: int) -> dict[int, list[str]]:
    """Return all descendants, each with its ``stat``."""
    every = {
        int(entry.name): stat
        for entry in _PROC.glob("[0-9]*")
        if (stat := _stat_of(int(entry.name))) is not None
    }
    found: dict[int, list[str]] = {}
    parents = {parent}
    while parents:
        children = {pid for pid, stat in every.items() if int(stat[_PARENT]) in parents}
        found |= {pid: every[pid] for pid in children}
        parents = children
    return found


def _is_of_ansible(pid: int) -> bool:
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    names = {word.rpartition(b"/")[2] for word in words[:2]}
    return bool(names & {b"ansible-playbook", b"ssh", b"sftp", b"scp"})


def _stat_of(pid: int) -> list[str] | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name of the program is in brackets and may hold anything.
    return text.rpartition(")")[2].split()
