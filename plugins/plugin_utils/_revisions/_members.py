# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One view of a folder, a tar and a zip: their members, checked, in a normal form.

The rules are those of the hosts: no absolute path, no ``..``, no link that leaves the bundle, no
device, no path below a link, and a bound on count and size, so that a bundle that a host would
refuse is refused before anything is sent.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ...module_utils._errors import RevisionError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._model import Entry

MAX_ENTRIES = 200_000
MAX_BYTES = 16 * 1024**3
APPSPEC_NAMES = ("appspec.yml", "appspec.yaml")


@dataclass(frozen=True)
class Member:
    """One path as a folder or an archive holds it; ``place`` is how its reader finds it again."""

    path: str
    type: str
    mode: int
    size: int = 0
    mtime: int = 0
    sha256: str = ""
    target: str = ""
    place: object = None

    def entry(self) -> Entry:
        """Give the part of a member that belongs to the revision's content."""
        return {
            "path": self.path,
            "type": self.type,
            "mode": 0o777 if self.type == "link" else self.mode,
            "size": self.size if self.type == "file" else 0,
            "sha256": self.sha256,
            "target": self.target,
        }


class Budget:
    """Counts members and bytes while a source is read, and stops a bomb before it is unpacked."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.entries = 0
        self.size = 0

    def spend(self, size: int) -> None:
        """Count one more member.

        :raises RevisionError: when the source holds more than a revision may
        """
        self.entries += 1
        self.size += size
        if self.entries > MAX_ENTRIES:
            raise RevisionError(
                f"{self.source} holds more than {MAX_ENTRIES} files and folders, which is more "
                "than a revision may. Build the bundle from the files that are deployed only."
            )
        if self.size > MAX_BYTES:
            raise RevisionError(
                f"{self.source} unpacks to more than {MAX_BYTES // 1024**3} GiB, which is more "
                "than a revision may. Build the bundle from the files that are deployed only."
            )


def clean_path(name: str, source: str) -> str:
    """Bring a member's name into the form ``a/b/c``; the root is the empty string.

    :raises RevisionError: for a name that would be unpacked outside the bundle
    """
    if name.startswith("/") or ".." in name.split("/") or "\0" in name:
        raise RevisionError(
            f"{source} is refused: its entry {name!r} would be unpacked outside of the bundle. "
            "Build the bundle with relative paths and without '..'."
        )
    path = posixpath.normpath(name)
    return "" if path == "." else path


def special(name: str, what: str, source: str) -> RevisionError:
    """Say that an entry is of a kind that cannot be deployed."""
    return RevisionError(
        f"{source} is refused: its entry {name!r} is {what}; a bundle may hold files, folders and "
        "symbolic links only. Take it out and deploy again."
    )


def _check_link(member: Member, source: str) -> None:
    parent = posixpath.dirname(member.path)
    end = posixpath.normpath(posixpath.join(parent, member.target))
    if member.target.startswith("/") or end == ".." or end.startswith("../"):
        raise RevisionError(
            f"{source} is refused: its link {member.path!r} points to {member.target!r}, outside "
            "of the bundle. Point it to a path inside, or make the link in a hook."
        )


def _with_folders(members: dict[str, Member], source: str) -> dict[str, Member]:
    """Add the folders that an archive only implies, and refuse paths below something else."""
    complete = dict(members)
    for path in members:
        parent = posixpath.dirname(path)
        while parent:
            known = complete.setdefault(parent, Member(parent, "directory", 0o755))
            if known.type != "directory":
                raise RevisionError(
                    f"{source} is refused: its entry {path!r} lies below {parent!r}, which is a "
                    f"{known.type}. Build the bundle again from a clean folder."
                )
            parent = posixpath.dirname(parent)
    return complete


def normalise(members: Iterable[Member], source: str) -> list[Member]:
    """Sort and complete the members of a source; of two with the same path the later one counts.

    :raises RevisionError: for links that leave the bundle and for paths below a link or a file
    """
    by_path = {member.path: member for member in members if member.path}
    complete = _with_folders(by_path, source)
    ordered = sorted(complete.values(), key=lambda member: member.path)
    for member in ordered:
        if member.type == "link":
            _check_link(member, source)
    return ordered


def below(members: Iterable[Member], folder: str, source: str) -> list[Member]:
    """Take one folder's members, as if it were the root.

    :raises RevisionError: when there is no such folder
    """
    prefix = folder + "/"
    members = list(members)
    if not any(member.path == folder and member.type == "directory" for member in members):
        names = sorted(m.path for m in members if m.type == "directory" and "/" not in m.path)
        raise RevisionError(
            f"{source} has no folder {folder!r}; its folders are {', '.join(names) or 'none'}. "
            "Correct the subdirectory."
        )
    return [
        replace(member, path=member.path[len(prefix) :])
        for member in members
        if member.path.startswith(prefix)
    ]


def without_single_folder(members: list[Member]) -> list[Member]:
    """Strip an archive's only top folder where it holds the AppSpec file, as agent 1.8.1 does."""
    tops = {member.path.split("/", 1)[0] for member in members}
    if len(tops) != 1:
        return members
    top = tops.pop() + "/"
    inside = [member for member in members if member.path.startswith(top)]
    names = {member.path[len(top) :] for member in inside}
    if not any("appspec" in name.lower() for name in names if "/" not in name):
        return members
    return [replace(member, path=member.path[len(top) :]) for member in inside]
