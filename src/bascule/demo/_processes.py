"""Programs beside the demonstration: started apart from its terminal, ended by their own id."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# How long a program may take to answer on a machine that does much else, and to end.
START_PATIENCE = 60.0
PATIENCE = 10.0
# The range from which the kernel takes the ports of outgoing connections, and of who asks for any.
_PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST_PORT = 15_000
# The variable in the environment of all that belongs to a demonstration: its folder.
MARK = "BASCULE_DEMO"
# How often in a row nothing is to be found that belongs to it.
LOOKS = 3
LOOK_SECONDS = 0.1


class NotStartedError(Exception):
    """A program that ended, or did not answer, instead of coming up."""


def free_ports(count: int) -> list[int]:
    """Return different ports on which nobody listens on loopback now.

    Below the kernel's own range where it tells it: an application that is stopped for a moment
    must not find that a connection has been given its port meanwhile.
    """
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        for port in (*_candidates(), *[0] * count):
            if len(found) == count:
                break
            probe = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                found.append(int(probe.getsockname()[1]))
    return found


def _candidates() -> list[int]:
    try:
        highest = int(_PORT_RANGE.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return []
    known = range(_LOWEST_PORT, highest)
    return random.sample(known, min(100, len(known)))


def spawn(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, so that Ctrl-C reaches only us."""
    with log.open("ab") as file:
        return subprocess.Popen(  # noqa: S603 - the commands are ours
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def wait_until(
    ready: Callable[[], bool], process: subprocess.Popen[bytes], name: str, log: Path
) -> None:
    """Wait until a program answers.

    :raises NotStartedError: with the end of its log, when it does not
    """
    deadline = time.monotonic() + START_PATIENCE
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            end(process)
            said = log.read_text(encoding="utf-8", errors="replace")[-1000:].strip()
            raise NotStartedError(f"{name} did not come up: {said or 'it said nothing'} ({log})")
        time.sleep(0.05)


def end(process: subprocess.Popen[bytes], patience: float = PATIENCE) -> None:
    """End a program that we started: politely, and after so many seconds not."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def end_foreign(pid: int) -> None:
    """End a process that something we ran left behind, and wait until it is gone."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + PATIENCE
        while _runs(pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        if not _runs(pid):
            return


def marked(directory: Path) -> list[int]:
    """Return the processes that were started for a demonstration, by it or by what it started."""
    mark = f"{MARK}={directory}\0".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (process / "environ").read_bytes():
                found.append(int(process.name))
    return found


def end_marked(directory: Path) -> None:
    """End all that was started for a demonstration.

    A deployment that was broken off goes on with its scripts, and these start applications. What is
    just being started shows its mark a moment later: so it is looked for again.
    """
    unseen = 0
    while unseen < LOOKS:
        found = marked(directory)
        for pid in found:
            end_foreign(pid)
        unseen = 0 if found else unseen + 1
        time.sleep(LOOK_SECONDS)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
