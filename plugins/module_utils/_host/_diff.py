# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show what an installation would change, as two texts with a line for each file that differs."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._files import Plan
    from ._tree import Tree

MAX_LINES = 2000
_BLOCK = 1024 * 1024


def listing(plan: Plan, tree: Tree, archive: str | None, leaving: list[str]) -> tuple[str, str]:
    """Return the files before and after: ``path mode sha256`` of what is added, changed, removed.

    :param archive: the unpacked revision; None if the tree knows its digests
    :param leaving: paths of the earlier installation that go, unless they come again
    """
    modes = {
        grant.path: int(grant.permission["mode"], 8)
        for grant in plan.grants
        if grant.permission["mode"]
    }
    before: dict[str, str] = {}
    after: dict[str, str] = {}
    for path, source in plan.copies.items():
        item = tree.items[source]
        if item.kind == "link":
            after[path] = f"{path} -> {item.target}"
        else:
            digest = item.sha256 or _digest(os.path.join(archive or "", source))
            after[path] = f"{path} {modes.get(path, item.mode):04o} sha256:{digest[:16]}"
        _describe(path, before)
    for path in plan.directories:
        after[path] = path + "/"
        _describe(path, before)
    for path, target in plan.links.items():
        after[path] = f"{path} -> {target}"
        _describe(path, before)
    for path in leaving:
        if path not in before:
            _describe(path, before)
    same = {path for path, line in after.items() if before.get(path) == line}
    return _text(before, same), _text(after, same)


def _text(lines: dict[str, str], without: set[str]) -> str:
    kept = [_printable(lines[path]) for path in sorted(lines) if path not in without]
    if len(kept) > MAX_LINES:
        kept[MAX_LINES:] = [f"... and {len(kept) - MAX_LINES} more"]
    return "".join(line + "\n" for line in kept)


def _printable(line: str) -> str:
    return line.encode("utf-8", "backslashreplace").decode("utf-8").replace("\n", "\\n")


def _describe(path: str, lines: dict[str, str]) -> None:
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            lines[path] = f"{path} -> {os.readlink(path)}"
        elif stat.S_ISDIR(status.st_mode):
            lines[path] = path + "/"
        elif stat.S_ISREG(status.st_mode):
            digest = _digest(path)[:16]
            lines[path] = f"{path} {stat.S_IMODE(status.st_mode):04o} sha256:{digest}"
        else:
            lines[path] = f"{path} (special)"
    except FileNotFoundError:
        return
    except OSError as error:
        lines[path] = f"{path} ({error.strerror})"


def _digest(path: str) -> str:
    import hashlib

    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while True:
            block = file.read(_BLOCK)
            if not block:
                return digest.hexdigest()
            digest.update(block)
