# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run one script and watch it: its output, its end, its deadline."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import subprocess
import time
from typing import TYPE_CHECKING, NamedTuple

from ._scriptlog import MAX_LINE

if TYPE_CHECKING:
    from collections.abc import Callable

# How long a script may take to end after SIGTERM, before SIGKILL.
GRACE = 5.0
# How long a failed script's background children may keep its output open.
LINGER = 2.0
# How often the end of a script is looked for while something else keeps its output open.
LOOK = 0.1
# poll(2) counts milliseconds in 32 bits; this is 23 days.
LONGEST = 2_000_000.0
# A host that goes down ends the script and who watches it at nearly the same moment.
SHUTDOWN = 0.2


class Ending(NamedTuple):
    """How a script ended: ``exit``, ``signal``, ``timeout`` or ``open`` (output kept open)."""

    how: str
    number: int = 0
    stream: str = ""


def run(
    command: list[str],
    environment: dict[str, str],
    timeout: float,
    write: Callable[[bytes], None],
    started: Callable[[int], None] | None = None,
) -> Ending:
    """Run a command in a process group of its own until it and its output have ended.

    The agent's rule: process, standard output and standard error share one deadline. A background
    child that keeps an output open is waited for, and left running.

    :param write: takes every line with its end, if it has one, and ``[stdout]`` or ``[stderr]``
        before it
    :param started: is told the number of the process
    :raises OSError: if the command cannot be started
    """
    process = _start(command, environment)
    if started is not None:
        started(process.pid)
    deadline = time.monotonic() + min(timeout, LONGEST)
    streams = _Streams(process, write)
    try:
        failed_at = None
        while True:
            now = time.monotonic()
            ended = process.poll() is not None
            if ended and not streams.open:
                if process.returncode < 0 or process.returncode > 128:
                    # Time for the signal that is meant for this process: then the script was
                    # interrupted, and has not failed.
                    time.sleep(SHUTDOWN)
                return _ending(process.returncode)
            if ended and process.returncode:
                failed_at = failed_at or now
                if now - failed_at >= LINGER:
                    return _ending(process.returncode)
            if now >= deadline:
                break
            wait = min(deadline - now, LOOK if streams.open else 0.01)
            if streams.open:
                streams.read(wait)
            else:
                _wait(process, deadline - now)
        if process.poll() is not None:
            return Ending("open", process.returncode, streams.first_open())
        kill(process.pid)
        _wait(process, GRACE)
        streams.read(0)
        return Ending("timeout")
    except BaseException:
        # Whoever ends this run ends its script: a second run must not meet the first one's.
        kill(process.pid)
        _wait(process, GRACE)
        raise
    finally:
        streams.close()


def _wait(process: subprocess.Popen[bytes], timeout: float) -> None:
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        return


def _ending(code: int) -> Ending:
    return Ending("signal", -code) if code < 0 else Ending("exit", code)


def _start(command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    def popen(arguments: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - running the revision's scripts is the purpose
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd="/",
            start_new_session=True,
            bufsize=0,
        )

    try:
        return popen(command)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
    # A script without a first line that names its program is the shell's.
    return popen(["/bin/sh", *command])


class _Streams:
    """The two outputs of a process, cut into lines."""

    def __init__(self, process: subprocess.Popen[bytes], write: Callable[[bytes], None]) -> None:
        self._write = write
        self._poll = select.poll()
        self._files = {}
        for name, file in (("STDOUT", process.stdout), ("STDERR", process.stderr)):
            if file is not None:
                os.set_blocking(file.fileno(), False)
                self._poll.register(file.fileno(), select.POLLIN)
                self._files[file.fileno()] = (name, file)
        self._rest = dict.fromkeys(self._files, b"")

    @property
    def open(self) -> bool:
        return bool(self._files)

    def first_open(self) -> str:
        return next((name for name, _file in self._files.values()), "STDOUT")

    def read(self, timeout: float) -> None:
        for descriptor, _event in self._poll.poll(timeout * 1000):
            try:
                data = os.read(descriptor, 65_536)
            except BlockingIOError:
                continue
            if data:
                self._lines(descriptor, data)
            else:
                self._end(descriptor)

    def _lines(self, descriptor: int, data: bytes) -> None:
        *lines, rest = (self._rest[descriptor] + data).split(b"\n")
        while len(rest) > MAX_LINE:
            lines.append(rest[:MAX_LINE])
            rest = rest[MAX_LINE:]
        self._rest[descriptor] = rest
        mark = b"[%s]" % self._files[descriptor][0].lower().encode()
        for line in lines:
            self._write(mark + line + b"\n")

    def _end(self, descriptor: int) -> None:
        name, file = self._files[descriptor]
        rest = self._rest[descriptor]
        if rest:
            self._write(b"[%s]" % name.lower().encode() + rest)
        self._poll.unregister(descriptor)
        del self._files[descriptor]
        file.close()

    def close(self) -> None:
        for descriptor in list(self._files):
            self._end(descriptor)


def kill(pid: int) -> None:
    """End a process, its group and its descendants for good: SIGTERM, a grace, SIGKILL.

    ``su`` puts the script into a session of its own, out of the group: hence the descendants.
    """
    groups = {pid}
    for member in _descendants(pid):
        try:
            group = os.getpgid(member)
        except ProcessLookupError:
            continue
        if group != os.getpgrp():
            groups.add(group)
    _signal(groups, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    while time.monotonic() < deadline and any(_alive(group) for group in groups):
        time.sleep(0.05)
    _signal(groups, signal.SIGKILL)


def birth(pid: int) -> int | None:
    """Return when a process began, in the kernel's ticks; its number alone may be used again."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def boot() -> str | None:
    """Return the name of this start of the host, None where the kernel has none."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return None


def _signal(groups: set[int], number: signal.Signals) -> None:
    for group in groups:
        try:
            os.killpg(group, number)
        except (ProcessLookupError, PermissionError):
            continue


def _alive(group: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        # A leader that has ended is counted until its parent, maybe this process, asks for it.
        os.waitpid(group, os.WNOHANG)
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _descendants(pid: int) -> list[int]:
    """Return the processes below a process, from /proc."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    # The command's name stands in brackets and may hold anything.
                    fields = file.read().rpartition(b")")[2].split()
                children.setdefault(int(fields[1]), []).append(int(name))
            except (OSError, ValueError, IndexError):
                continue
    result: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        result += below
        waiting += below
    return result
