# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which process carries a deployment out, and whether it still lives."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
# In /proc/PID/stat, counted after the name: the state, and the start in clock ticks since the boot.
_STATE, _START = 0, 19


# The controller that this process serves without having been forked by it (see ``_clerk``).
_served: list[Holder] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A controller.

    ``boot`` names the run of the machine and the space in which ``pid`` means something: two
    containers with the same host name count their processes apart. ``started`` is when the process
    began, in clock ticks since the boot, None where that cannot be known; a later process may get
    the same number.
    """

    user: str
    host: str
    boot: str
    pid: int
    started: float | None

    @property
    def shown(self) -> str:
        """Name it for a person."""
        return f"{self.user}@{self.host}, process {self.pid}"


def this_controller() -> Holder:
    """Return the controller that this process is or works for.

    Ansible runs an action in a forked worker: then it is the process that forked us, whether that
    still runs or not.
    """
    if _served:
        return _served[0]
    pid = _controller_pid()
    return Holder(user=user(), host=host(), boot=_boot(), pid=pid, started=_start_of(pid))


def work_for(controller: Holder) -> None:
    """Let this process count as one of a controller that has not forked it."""
    _served[:] = [controller]


def is_orphaned() -> bool:
    """Tell whether the process that forked this worker, or that it serves, has ended."""
    if _served:
        own = _served[0]
        return is_gone(own.host, own.boot, own.pid, own.started) is not False
    return _controller_pid() not in (os.getpid(), os.getppid())


def is_gone(host_name: str, boot: str, pid: int, started: float | None) -> bool | None:
    """Tell whether a controller's process has ended; None if that cannot be seen from here."""
    if (host_name, boot) != (host(), _boot()):
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    stat = _stat_of(pid)
    if stat is None:
        return False
    # A dead process whose parent has not asked for it yet.
    if stat[_STATE] in ("Z", "X"):
        return True
    return started is not None and float(stat[_START]) != started


def user() -> str:
    """Return the name of the user that this process belongs to."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def host() -> str:
    """Return the name of this machine."""
    import socket

    return socket.gethostname()


def _controller_pid() -> int:
    # Not imported for its sake: where nothing has imported it, nothing has forked us.
    multiprocessing = sys.modules.get("multiprocessing.process")
    parent = multiprocessing.parent_process() if multiprocessing else None
    return int(parent.pid) if parent is not None else os.getpid()


def _boot() -> str:
    boot = space = ""
    with contextlib.suppress(OSError):
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = (_PROC / "self/ns/pid").readlink().name
    return f"{boot} {space}".strip()


def _start_of(pid: int) -> float | None:
    stat = _stat_of(pid)
    return None if stat is None else float(stat[_START])


def _stat_of(pid: int) -> list[str] | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name of the program is in brackets and may hold anything.
    return text.rpartition(")")[2].split()
