# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The room on file systems: what is free, what is wanted, what to say when it is used up."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from .._errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterable

# Room that is left on a file system whatever a revision needs. A way back takes it, too.
RESERVE = 16 * 1024 * 1024
_FULL = (errno.ENOSPC, errno.EDQUOT)


def free_bytes(path: str) -> int:
    """Return the bytes a caller may still write where a path is, or will be."""
    status = os.statvfs(_existing(path))
    return status.f_bavail * status.f_frsize


def want(path: str, needed: int, what: str, reserve: int = 0) -> None:
    """Make sure that bytes can be written where a path is, or will be.

    :raises HostError: if there is less room
    """
    free = free_bytes(path)
    if needed + reserve > free:
        kept = f" and a reserve of {reserve}" if reserve else ""
        raise HostError(
            f"Not enough space at {path} for {what}: {needed} bytes{kept} are needed, {free} are"
            " free. Free some, and then try again."
        )


def want_for(files: Iterable[tuple[str, int]], what: str, reserve: int = 0) -> None:
    """Make sure that each file system has room while its part of many files is written.

    A file that is replaced gives its room back once the new one is beside it.

    :param files: path and bytes of each, in order
    :raises HostError: for the first file system with less room
    """
    needed: dict[int, _Need] = {}
    for path, size in files:
        if size:
            folder = _existing(os.path.dirname(path))
            need = needed.setdefault(os.stat(folder).st_dev, _Need(folder))
            need.most = max(need.most, need.now + size)
            need.now += size - _size(path)
    for need in needed.values():
        want(need.folder, need.most, what, reserve)


class _Need:
    """The bytes that one file system needs, so far and at the most."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.now = 0
        self.most = 0


def _size(path: str) -> int:
    try:
        status = os.lstat(path)
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 else 0


def reason(error: OSError, path: str) -> str:
    """Return what went wrong with a path; for a full file system also how full it is."""
    text = error.strerror or str(error)
    if error.errno in _FULL:
        text += f" ({free_bytes(path)} bytes are free there)"
    return text


def _existing(path: str) -> str:
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path
