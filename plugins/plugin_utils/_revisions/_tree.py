# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A folder, read: its members with the hashes of their contents."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...module_utils._errors import RevisionError

if TYPE_CHECKING:
    from ._model import Entry

MAX_ENTRIES = 500_000
MAX_BYTES = 16 * 1024**3


@dataclass(frozen=True)
class Member:
    """One path of a folder, ready for the manifest and for packing."""

    path: str
    type: str
    mode: int
    size: int = 0
    mtime: int = 0
    sha256: str = ""
    target: str = ""

    def entry(self) -> Entry:
        """Give the part of a member that belongs to the revision's content."""
        return {
            "path": self.path,
            "type": self.type,
            "mode": self.mode,
            "size": self.size,
            "sha256": self.sha256,
            "target": self.target,
        }


def hash_of_file(path: Path) -> str:
    """Hash a file, in SHA-256."""
    with path.open("rb", buffering=0) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_tree(root: Path, name: str, *, ignored: frozenset[str] = frozenset()) -> list[Member]:
    """Give a folder's members, sorted by path.

    :param name: what to call it in messages
    :param ignored: names that are left out wherever they stand
    :raises RevisionError: for what is neither a file, a folder nor a link, for what cannot be read,
        and for more than a revision may hold
    """
    members: list[Member] = []
    waiting = [("", root)]
    size = 0
    try:
        while waiting:
            prefix, folder = waiting.pop()
            with os.scandir(folder) as entries:
                for item in entries:
                    if item.name in ignored:
                        continue
                    member = _member(prefix + item.name, item, name)
                    size += member.size
                    if len(members) >= MAX_ENTRIES or size > MAX_BYTES:
                        raise RevisionError(
                            f"{name} holds more than a revision may: {MAX_ENTRIES} files and "
                            f"folders of {MAX_BYTES // 1024**3} GiB in all. Name the folder of "
                            "what is deployed."
                        )
                    members.append(member)
                    if member.type == "directory":
                        waiting.append((f"{member.path}/", Path(item.path)))
    except OSError as error:
        raise RevisionError(
            f"{name} cannot be read: {error.strerror} ({error.filename}). Check its permissions, "
            "and that nothing writes there."
        ) from error
    return sorted(members, key=lambda member: member.path)


def _member(path: str, item: os.DirEntry[str], name: str) -> Member:
    status = item.stat(follow_symlinks=False)
    mode, mtime = stat.S_IMODE(status.st_mode), int(status.st_mtime)
    if stat.S_ISLNK(status.st_mode):
        target = os.readlink(item.path)  # noqa: PTH115 - Path would change the text
        return Member(path, "link", 0o777, mtime=mtime, target=target)
    if stat.S_ISDIR(status.st_mode):
        return Member(path, "directory", mode, mtime=mtime)
    if not stat.S_ISREG(status.st_mode):
        raise RevisionError(
            f"{name} is refused: {path!r} is a device, a socket or a pipe; a bundle may hold "
            "files, folders and symbolic links only. Take it out and deploy again."
        )
    return Member(path, "file", mode, status.st_size, mtime, hash_of_file(Path(item.path)))
