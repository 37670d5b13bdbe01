# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which processes of a host belong to a deployment group, from Linux's ``/proc``.

A process that a hook has started inherits the deployment's variables. One that an init system
starts does not; it is known by the installed file that it runs.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_DELETED = " (deleted)"
# The kernel counts a start in hundredths of a second.
_PRECISION = 0.05


class Process(NamedTuple):
    """A process: who started it, when (seconds since the epoch), and the files it may run.

    ``archive`` is the folder of the revision whose hook started it, where it was told.
    """

    pid: int
    name: str
    started: float
    group_id: str | None
    deployment_id: str | None
    files: tuple[str, ...]
    archive: str | None = None


def processes(proc: str = "/proc") -> tuple[list[Process], int]:
    """Return the processes that can be looked at, and the number of those that cannot."""
    found, unseen = [], 0
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    tick = os.sysconf("SC_CLK_TCK")
    for pid in _numbers(proc):
        folder = os.path.join(proc, str(pid))
        try:
            found.append(_process(folder, pid, booted, tick))
        except PermissionError:
            unseen += 1
        except (OSError, ValueError, IndexError):
            # It has ended meanwhile, or is a thread of the kernel.
            continue
    return found, unseen


def _numbers(proc: str) -> Iterator[int]:
    for name in os.listdir(proc):
        if name.isdigit():
            yield int(name)


def _process(folder: str, pid: int, booted: float, tick: int) -> Process:
    with open(os.path.join(folder, "stat"), "rb") as file:
        # The name stands in brackets and may hold brackets and blanks itself.
        before, _bracket, after = file.read().rpartition(b")")
    fields = after.split()
    variables = _variables(os.path.join(folder, "environ"))
    return Process(
        pid=pid,
        name=os.fsdecode(before.partition(b"(")[2]),
        started=booted + int(fields[19]) / tick,
        group_id=variables.get(b"DEPLOYMENT_GROUP_ID"),
        deployment_id=variables.get(b"DEPLOYMENT_ID"),
        files=_files(folder),
        archive=variables.get(b"ARCHIVE_DIRECTORY"),
    )


def _variables(path: str) -> dict[bytes, str]:
    wanted = (b"DEPLOYMENT_GROUP_ID", b"DEPLOYMENT_ID", b"ARCHIVE_DIRECTORY")
    with open(path, "rb") as file:
        pairs = (one.partition(b"=") for one in file.read().split(b"\0"))
        return {name: os.fsdecode(value) for name, _equals, value in pairs if name in wanted}


def _files(folder: str) -> tuple[str, ...]:
    """Return the program, the name it was called by, and the script of an interpreter."""
    with open(os.path.join(folder, "cmdline"), "rb") as file:
        words = [os.fsdecode(word) for word in file.read().split(b"\0")[:-1]]
    program = os.readlink(os.path.join(folder, "exe"))
    if program.endswith(_DELETED):
        program = program[: -len(_DELETED)]
    where = os.readlink(os.path.join(folder, "cwd"))
    script = next((word for word in words[1:] if word and not word.startswith("-")), None)
    called = [os.path.normpath(os.path.join(where, word)) for word in (*words[:1], script) if word]
    return (program, *called)


def stale(
    process: Process, group_id: str, active: dict[str, Any], digests: dict[str, str | None]
) -> str | None:
    """Return why a process is not one of the active revision; None if it is, or is not ours.

    A machine may hold several deployment roots, such as those of a local fleet: what was started
    from another one is not ours.

    :param active: ``{"deployment_id", "digest", "installed_at", "root", "files": set of paths}``
    :param digests: revisions of the deployments that the host remembers
    """
    if process.group_id == group_id:
        if process.archive and not process.archive.startswith(active["root"].rstrip("/") + "/"):
            return None
        if process.deployment_id == active["deployment_id"]:
            return None
        known = digests.get(process.deployment_id or "")
        if known is not None and known == active["digest"]:
            return None
        of = f" (revision {known[:12]})" if known else ""
        return f"was started by deployment {process.deployment_id}{of}"
    if process.group_id is None and process.started < active["installed_at"] - _PRECISION:
        file = next((one for one in process.files if one in active["files"]), None)
        if file is not None:
            return f"runs {file} since before it was installed"
    return None
