# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deployment left installed, written down at its End, so that later changes can be told.

Hooks may change what was installed (a configuration that AfterInstall fills in): what counts is how
things were when the deployment ended. An unchanged file is told by its status alone, as git does.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from typing import Any

from ._layout import Folder, write_file

FORMAT = 1
_ACL = "system.posix_acl_access"
_BLOCK = 1024 * 1024
_KINDS = ((stat.S_ISREG, "file"), (stat.S_ISLNK, "link"), (stat.S_ISDIR, "directory"))


def write(folder: Folder, paths: dict[str, str | None], at: float) -> None:
    """Write down how the installed paths are now.

    :param paths: ``{path: its source in the archive, or None for a directory}``
    :param at: when the installation began, in seconds since the epoch
    """
    entries = {}
    for path, source in paths.items():
        entry = look(path)
        # With the time and size of its source it has its content, too, and needs no reading.
        if entry["kind"] == "file" and not _as_copied(entry, source):
            entry["sha256"] = digest(path)
        entry["source"] = source
        entries[path] = entry
    content = {"format": FORMAT, "installed_at": at, "entries": entries}
    write_file(folder.seal, json.dumps(content, separators=(",", ":")), sync=False)


def read(folder: Folder) -> dict[str, Any] | None:
    """Return ``{"format", "installed_at", "entries": {path: entry}}``; None if there is none."""
    try:
        with open(folder.seal, encoding="utf-8", errors="surrogateescape") as file:
            content = json.load(file)
    except (FileNotFoundError, ValueError):
        return None
    return content if isinstance(content, dict) and content.get("format") == FORMAT else None


def look(path: str) -> dict[str, Any]:
    """Return the status of a path; only ``{"kind": "missing"}`` if nothing is there.

    ``{"kind": "file" | "link" | "directory" | "other", "mode", "uid", "gid", "size", "mtime",
    "ctime", "inode", "target", "acl"}``, times in nanoseconds
    """
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return {"kind": "missing"}
    kind = next((name for is_kind, name in _KINDS if is_kind(status.st_mode)), "other")
    return {
        "kind": kind,
        "mode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
        "size": status.st_size,
        "mtime": status.st_mtime_ns,
        "ctime": status.st_ctime_ns,
        "inode": status.st_ino,
        "target": os.readlink(path) if kind == "link" else None,
        "acl": None if kind == "link" else _acl(path),
    }


def digest(path: str) -> str:
    """Return the SHA-256 of a file's content."""
    total = hashlib.sha256()
    with open(path, "rb") as file:
        while True:
            block = file.read(_BLOCK)
            if not block:
                return total.hexdigest()
            total.update(block)


def _as_copied(entry: dict[str, Any], source: str | None) -> bool:
    if source is None:
        return False
    try:
        status = os.lstat(source)
    except OSError:
        return False
    # Not every file system keeps nanoseconds.
    same_time = abs(status.st_mtime_ns - entry["mtime"]) < 2_000
    return bool(same_time and status.st_size == entry["size"])


def _acl(path: str) -> str | None:
    try:
        return os.getxattr(path, _ACL).hex()
    except OSError:
        return None
