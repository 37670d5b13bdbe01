# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""The clean-up file: what an installation made, so that the next one can take it away.

The file is the agent's (one path a line, a line that a crash cut short does not count), so that a
host can move from the agent to Bascule and back. A path with a line break is written as JSON
behind ``json\0``; the agent corrupts its list there.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from typing import NamedTuple

from .._errors import InstallError

SEMANAGE = "semanage\0"
ESCAPED = "json\0"
# What a crash may leave beside a file that was being written; see _steps.
TEMPORARY = ".bascule-install.tmp"


class Made(NamedTuple):
    """Something an earlier installation made; ``kind`` is copy, mkdir, semanage or unknown."""

    kind: str
    path: str


def read(path: str, install_path: str) -> list[Made]:
    """Return what was made, in order; kinds come from the installation's record."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        return []
    kinds = _kinds(install_path)
    result: list[Made] = []
    seen: set[str] = set()
    for raw in content.split(b"\n")[:-1]:
        line = os.fsdecode(raw)
        if line.startswith(SEMANAGE):
            result.append(Made("semanage", line[len(SEMANAGE) :]))
            continue
        if line.startswith(ESCAPED):
            try:
                line = os.fsdecode(json.loads(line[len(ESCAPED) :]).encode("latin-1"))
            except (ValueError, AttributeError):
                continue
        if os.path.isabs(line) and "\0" not in line:
            if line in seen:
                # An interrupted installation made it anew, maybe as another kind.
                kinds.pop(line, None)
            seen.add(line)
            result.append(Made("", line))
    return [one if one.kind else Made(kinds.get(one.path, "unknown"), one.path) for one in result]


def installed(path: str) -> dict[str, str | None]:
    """Return ``{path: source in the archive, None for a directory or link}`` of an installation."""
    return {one: source for one, (_kind, source) in _instructions(path).items()}


def _kinds(path: str) -> dict[str, str]:
    return {
        one: "mkdir" if kind == "mkdir" else "copy"
        for one, (kind, _source) in _instructions(path).items()
    }


def _instructions(path: str) -> dict[str, tuple[str, str | None]]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            instructions = json.load(file)["instructions"]
        return {
            one["directory" if one["type"] == "mkdir" else "destination"]: (
                one["type"],
                one.get("source"),
            )
            for one in instructions
            if one["type"] in ("copy", "mkdir", "link")
        }
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}


def line(kind: str, path: str) -> bytes:
    """Return the line for something that was made."""
    if kind == "semanage":
        path = SEMANAGE + path
    elif "\n" in path or path.startswith((SEMANAGE, ESCAPED)):
        path = ESCAPED + json.dumps(os.fsencode(path).decode("latin-1"))
    return os.fsencode(path) + b"\n"


class Ground:
    """The file system as it will be once the earlier installation is taken away."""

    def __init__(self, made: list[Made]) -> None:
        """Find out what goes away; nothing is touched."""
        self._folders: dict[str, str | None] = {"/": "/"}
        self._real: dict[str, str] = {}
        self.gone: set[str] = set()
        # In reverse, so that directories come after what is in them.
        for one in reversed(made):
            if one.kind != "semanage":
                self._leave(one)

    def _key(self, path: str) -> str:
        parent, name = os.path.split(path)
        if parent not in self._real:
            self._real[parent] = os.path.realpath(parent)
        return os.path.join(self._real[parent], name)

    def _leave(self, one: Made) -> None:
        key = self._key(one.path)
        try:
            mode = os.lstat(key).st_mode
        except OSError:
            return
        if not stat.S_ISDIR(mode):
            # A file where a directory was made is somebody else's.
            if one.kind != "mkdir":
                self.gone.add(key)
        else:
            try:
                names = os.listdir(key)
            except OSError:
                return
            if all(os.path.join(key, name) in self.gone or name == TEMPORARY for name in names):
                self.gone.add(key)

    def _folder(self, path: str) -> str | None:
        """Return a directory's own path without links, None where there will be none."""
        if path not in self._folders:
            self._folders[path] = None  # what a loop of links comes to
            parent = self._folder(os.path.dirname(path))
            if parent is not None:
                self._folders[path] = self._settle(os.path.join(parent, os.path.basename(path)))
        return self._folders[path]

    def _settle(self, key: str) -> str | None:
        if key in self.gone:
            return None
        try:
            mode = os.lstat(key).st_mode
        except OSError:
            return None
        if stat.S_ISLNK(mode):
            real = os.path.realpath(key)
            return None if real == key else self._folder(real)
        return key if stat.S_ISDIR(mode) else None

    def kind(self, path: str) -> str | None:
        """Return ``directory``, ``link`` or ``file`` (anything else) for what will be there."""
        if path == "/":
            return "directory"
        parent = self._folder(os.path.dirname(path))
        if parent is None:
            return None
        key = os.path.join(parent, os.path.basename(path))
        if key in self.gone:
            return None
        try:
            mode = os.lstat(key).st_mode
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InstallError(f"Cannot look at {path}: {error.strerror}.") from error
        if stat.S_ISDIR(mode):
            return "directory"
        return "link" if stat.S_ISLNK(mode) else "file"

    def is_directory(self, path: str) -> bool:
        """Whether there will be a directory, maybe at the end of a link."""
        return self._folder(path) is not None

    def forget(self, path: str) -> None:
        """Leave a path, and all below it, to whoever moves it away."""
        top = self._key(path)
        self.gone = {key for key in self.gone if key != top and not key.startswith(top + "/")}

    def key(self, path: str) -> str:
        """Return one spelling for all paths that lead to the same entry."""
        return self._key(path)


def remove(made: list[Made], ground: Ground, keep: set[str]) -> None:
    """Take away what goes, but the entries of ``keep`` (as :meth:`Ground.key` spells them).

    What is removed is gone for good: a later call never looks at its path again, where by then a
    link of the new revision may lead elsewhere.

    :raises InstallError: for something that cannot be removed
    """
    for one in reversed(made):
        if one.kind == "semanage":
            continue
        key = ground.key(one.path)
        if key not in ground.gone or key in keep:
            continue
        ground.gone.discard(key)
        try:
            if stat.S_ISDIR(os.lstat(key).st_mode):
                _remove_directory(key)
            else:
                os.unlink(key)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise InstallError(
                f"Cannot remove {one.path} of the earlier installation: {error.strerror}."
            ) from error


def _remove_directory(path: str) -> None:
    try:
        os.rmdir(path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        left = os.path.join(path, TEMPORARY)
        if os.listdir(path) == [TEMPORARY] and not os.path.isdir(left):
            os.unlink(left)
            os.rmdir(path)
