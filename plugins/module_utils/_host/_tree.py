# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a revision holds: the same tree from an unpacked folder or from a manifest."""

from __future__ import annotations

import os
import stat
from typing import Any, NamedTuple

from .._errors import InstallError

MAX_LINKS = 40


class Item(NamedTuple):
    """A file, directory or link of a revision; ``sha256`` only where a manifest gave it."""

    kind: str
    mode: int
    size: int
    sha256: str | None
    target: str


class Tree:
    """The content of a revision by relative path (``""`` is its top)."""

    def __init__(self, items: dict[str, Item]) -> None:
        """Take a complete map: the parents of every path are in it."""
        self.items = items
        self._children: dict[str, list[str]] = {}
        for path in items:
            if path:
                self._children.setdefault(path.rpartition("/")[0], []).append(path)

    def children(self, path: str) -> list[str]:
        """Return the paths right below a directory, sorted."""
        return sorted(self._children.get(path, ()))

    def find(self, path: str) -> str | None:
        """Follow links as far as they stay inside the revision.

        :returns: the path of a file or directory, or None for what is missing or outside
        """
        parts = [part for part in path.split("/") if part not in ("", ".")]
        here: list[str] = []
        links = 0
        while parts:
            part = parts.pop(0)
            if part == "..":
                if not here:
                    return None
                here.pop()
                continue
            item = self.items.get("/".join([*here, part]))
            if item is None:
                return None
            if item.kind == "link":
                links += 1
                if links > MAX_LINKS or item.target.startswith("/"):
                    return None
                parts = [p for p in item.target.split("/") if p not in ("", ".")] + parts
                continue
            if parts and item.kind != "directory":
                return None
            here.append(part)
        return "/".join(here)


def scan(top: str) -> Tree:
    """Read an unpacked revision.

    :raises InstallError: for anything but files, directories and links
    """
    items = {"": Item("directory", stat.S_IMODE(os.lstat(top).st_mode), 0, None, "")}
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        with os.scandir(os.path.join(top, folder)) as entries:
            for entry in entries:
                path = folder + "/" + entry.name if folder else entry.name
                status = entry.stat(follow_symlinks=False)
                mode = stat.S_IMODE(status.st_mode)
                if stat.S_ISDIR(status.st_mode):
                    items[path] = Item("directory", mode, 0, None, "")
                    waiting.append(path)
                elif stat.S_ISLNK(status.st_mode):
                    items[path] = Item("link", mode, 0, None, os.readlink(entry.path))
                elif stat.S_ISREG(status.st_mode):
                    items[path] = Item("file", mode, status.st_size, None, "")
                else:
                    raise InstallError(
                        f"The revision holds {path!r}, which is no file, directory or link."
                    )
    return Tree(items)


def from_manifest(manifest: list[dict[str, Any]]) -> Tree:
    """Read ``[{"path", "type", "mode", "size", "sha256", "target"}]``; modes are octal text or int.

    A single top folder with an AppSpec in it is stripped, as it is when a bundle is unpacked.
    """
    items = {"": Item("directory", 0o755, 0, None, "")}
    for entry in manifest:
        path = entry["path"].strip("/")
        if path in ("", "."):
            continue
        path = path[2:] if path.startswith("./") else path
        parent = path.rpartition("/")[0]
        while parent and parent not in items:
            items[parent] = Item("directory", 0o755, 0, None, "")
            parent = parent.rpartition("/")[0]
        mode = entry.get("mode")
        if mode is None:
            mode = 0o755 if entry["type"] == "directory" else 0o644
        items[path] = Item(
            {"symlink": "link", "dir": "directory"}.get(entry["type"], entry["type"]),
            int(mode, 8) if isinstance(mode, str) else int(mode),
            int(entry.get("size") or 0),
            entry.get("sha256"),
            entry.get("target") or "",
        )
    tops = [path for path in items if path and "/" not in path]
    if len(tops) == 1 and items[tops[0]].kind == "directory":
        prefix = tops[0] + "/"
        inner = {
            path[len(prefix) :]: item
            for path, item in items.items()
            if prefix in path[: len(prefix)]
        }
        if is_wrapper(path for path in inner if "/" not in path):
            return Tree(dict(inner, **{"": items[tops[0]]}))
    return Tree(items)


def is_wrapper(names: Any) -> bool:
    """Tell whether a single top folder with these names inside is only a wrapping."""
    return any("appspec" in name.lower() for name in names)


def strip_wrapper(top: str) -> None:
    """Move the content of a single top folder that holds an AppSpec one level up."""
    names = os.listdir(top)
    if len(names) != 1:
        return
    only = os.path.join(top, names[0])
    if not stat.S_ISDIR(os.lstat(only).st_mode) or not is_wrapper(os.listdir(only)):
        return
    aside = top + ".wrapped"
    os.rename(only, aside)
    os.rmdir(top)
    os.rename(aside, top)
