# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Room that is kept beside a proxy's file, so that the way back works on a disk that is full.

A file is replaced by a new one, which needs room for both. Beside the file there is therefore a
spare one, ``.NAME.spare``, whose blocks are written already: what is urgent is written over it, and
it takes the file's place by a rename, which needs no room either.

This file runs on hosts: Python 3.8 and the standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from .._errors import TrafficError
from ._eds import replace_file

# How much a file may grow until the room that was kept for it is too small.
SLACK_BYTES = 4096
FULL = (errno.ENOSPC, errno.EDQUOT)


def keep_spare(path: str, text: str, what: str) -> None:
    """Keep room for a file as long as this text; what is there already is left.

    :raises TrafficError: there is none
    """
    spare = spare_of(path)
    size = len(text.encode("utf-8")) + SLACK_BYTES
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(str(spare), flags, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            found = os.fstat(file.fileno())
            if found.st_size >= size and found.st_blocks * 512 >= size:
                return
            # Written and not only reserved: a reservation may need room when it is used.
            file.write(b"\n" * size)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        with contextlib.suppress(OSError):
            spare.unlink()
        raise TrafficError(
            f"No room can be kept at {spare} for the way back: {error.strerror}. On a full disk "
            f"the {what} could not be written; nothing is changed before there is some."
        ) from error


def replace_at_need(path: str, text: str, what: str) -> str:
    """Put text in place of a file as ``replace_file`` does; on a full disk in the room kept for it.

    :returns: what a person should know; empty if there was room
    :raises TrafficError: no permission, or no room and none kept
    """
    try:
        replace_file(path, text, what)
    except TrafficError as error:
        if not is_full(error) or not spare_of(path).is_file():
            raise
        _take_spare(path, text, what)
        told = f"{error.__cause__.strerror}" if isinstance(error.__cause__, OSError) else ""
        told = f"{told}: the {what} {path} was written in the room that is kept for that"
        try:
            # The file that was there has left as much.
            keep_spare(path, text, what)
        except TrafficError:
            return f"{told}, and none is left. Make room on this disk."
        return f"{told}. Make room on this disk."
    with contextlib.suppress(TrafficError):
        keep_spare(path, text, what)
    return ""


def is_full(error: TrafficError) -> bool:
    """Tell whether a file could not be written because its disk, or a quota, is full."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in FULL


def spare_of(path: str) -> Path:
    """Return where the room for a file is kept."""
    return Path(path).with_name(f".{Path(path).name}.spare")


def _take_spare(path: str, text: str, what: str) -> None:
    spare = spare_of(path)
    content = text.encode("utf-8")
    try:
        before = Path(path).stat()
        descriptor = os.open(str(spare), os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.ftruncate(file.fileno(), len(content))
            os.fchmod(file.fileno(), stat.S_IMODE(before.st_mode))
            with contextlib.suppress(PermissionError):
                os.fchown(file.fileno(), before.st_uid, before.st_gid)
            os.fsync(file.fileno())
        spare.replace(path)
    except OSError:
        # A file system that copies what is written over needs new blocks even here: it gets those.
        with contextlib.suppress(OSError):
            spare.unlink()
        replace_file(path, text, what)
