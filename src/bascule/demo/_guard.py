"""Stop what a demonstration has started if that itself is killed.

Runs beside it (``python -m bascule.demo._guard DIRECTORY HOSTS``), reads from a pipe that only the
demonstration holds, and has nothing to do as long as that is open. Each line is the process id of a
program of the demonstration, or ``done``.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from bascule.demo._fleet import Host
from bascule.demo._processes import end_foreign

# What the killed demonstration was deploying may start an application after we have looked.
LOOKS = 20
PAUSE_SECONDS = 0.5


def main() -> None:
    """Wait for the end of the pipe; stop everything unless ``done`` was said."""
    directory, number = Path(sys.argv[1]), int(sys.argv[2])
    programs = []
    for line in sys.stdin:
        if line.strip() == "done":
            return
        programs.append(int(line))
    for program in programs:
        if belongs(program, directory):
            end_foreign(program)
    hosts = [Host(f"web-{n}", directory / f"web-{n}", 0) for n in range(1, number + 1)]
    for _look in range(LOOKS):
        for host in hosts:
            host.stop_application()
        if not (runs := deploying(directory)):
            break
        for run in runs:
            end_foreign(run)
        time.sleep(PAUSE_SECONDS)
    for host in hosts:
        host.stop_application()


def belongs(pid: int, directory: Path) -> bool:
    """Tell whether a process was started for this demonstration."""
    try:
        return str(directory).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def deploying(directory: Path) -> list[int]:
    """Return the processes of Ansible that still work on the demonstration's inventory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if belongs(int(process.name), directory) and b"ansible" in command(process):
            found.append(int(process.name))
    return found


def command(process: Path) -> bytes:
    """Return the command line of a process, empty if it has ended."""
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


if __name__ == "__main__":
    main()
