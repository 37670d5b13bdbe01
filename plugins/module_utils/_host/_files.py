# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plan an installation: what is made where, before anything is touched (installer.rb, 1.8.1)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from .._errors import InstallError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from . import _permissions
    from ._release_plan import Inside
    from ._tree import Tree

    class Ground(Protocol):
        """What will be where before anything is installed, as :class:`_cleanup.Ground` knows."""

        def kind(self, path: str) -> str | None:
            """Return ``directory``, ``link``, ``file`` or None."""

        def is_directory(self, path: str) -> bool:
            """Whether there will be a directory, maybe at the end of a link."""


BEHAVIORS = ("DISALLOW", "OVERWRITE", "RETAIN")
_AGAIN = "and then try again."
_EXISTS = "The deployment failed because a specified file already exists at this location"


class Step(NamedTuple):
    """Something to make; ``source`` is its path in the revision, None for a mere ancestor.

    ``onto`` is where a file is written that overwrites a link (what that leads to) or a directory
    (a file in it) of somebody else's, empty where it is ``path`` itself.
    """

    kind: str
    path: str
    source: str | None
    onto: str = ""


class Plan:
    """An installation in the order it will be carried out."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.steps: list[Step] = []
        self.copies: dict[str, str] = {}
        self.directories: dict[str, str | None] = {}
        self.grants: list[_permissions.Grant] = []
        # What stands in the way on this host now, each without its full stop; a hook that runs
        # before Install may remove it.
        self.conflicts: list[str] = []
        self.retained: list[str] = []
        # In the release layout: what goes into the release, and (to be shown) the links to it.
        self.release: Inside | None = None
        self.links: dict[str, str] = {}

    def sizes(self, tree: Tree) -> list[tuple[str, int]]:
        """Return path and bytes of every file to be written, in order."""
        return [(target, tree.items[source].size) for target, source in self.copies.items()]

    def conflict_text(self) -> str:
        """Say what stands in the way; the first in full, the others by number."""
        first, more = self.conflicts[0], len(self.conflicts) - 1
        text = first + (f" (and {more} more like it)." if more else ".")
        if first.startswith(_EXISTS):
            text += (
                " No deployment has put it there. Move it away, or say in file_exists_behavior what"
                " to do with it: OVERWRITE or RETAIN."
            )
        return text


def behavior(appspec: dict[str, Any], option: str | None) -> str:
    """Return what happens to files that exist: the AppSpec's word goes before the option's.

    :raises UsageError: for anything but DISALLOW, OVERWRITE and RETAIN
    """
    chosen = appspec.get("file_exists_behavior") or (option or "DISALLOW").upper()
    if chosen not in BEHAVIORS:
        raise UsageError(f"The file_exists_behavior {option!r} is none of {', '.join(BEHAVIORS)}.")
    return str(chosen)


def place(path: str, sysroot: str = "") -> str:
    """Return where a path of an AppSpec is on this host.

    A relative one counts from ``/``, the agent's own working directory; ``~`` is a home, as in
    Ruby's ``File.expand_path``.
    """
    if path.startswith("~"):
        path = os.path.expanduser(path)
    normal = os.path.normpath("/" + path.lstrip("/"))
    return sysroot + normal if sysroot and normal != "/" else (sysroot or normal)


def names_folder(source: str) -> bool:
    """Tell whether a path can only be one of a folder: ``conf/`` or ``conf/.``."""
    return source.endswith(("/", "/."))


def check_sources(appspec: dict[str, Any]) -> None:
    """Check that no source leaves the revision.

    :raises InstallError: for one that does
    """
    for entry in appspec["files"]:
        if ".." in entry["source"].split("/"):
            raise InstallError(
                f"The source {entry['source']!r} leaves the revision by '..'. Name a path inside"
                f" it, {_AGAIN}"
            )


def make(
    appspec: dict[str, Any],
    tree: Tree,
    ground: Ground,
    *,
    existing: str,
    put: Callable[[str], str] = place,
    missing: list[str] | None = None,
) -> Plan:
    """Plan the files and permissions of a revision.

    :param existing: DISALLOW, OVERWRITE or RETAIN
    :param put: turns a path that the AppSpec names into the path on this host
    :param missing: takes a message for every source that the revision lacks; without it, the
        first one is an error
    :returns: the plan; ``conflicts`` lists what on the host forbids it
    :raises InstallError: for an AppSpec that contradicts itself or its revision
    """
    check_sources(appspec)
    planner = _Planner(tree, ground, existing, missing)
    for entry in appspec["files"]:
        planner.climb(entry["destination"], put)
        planner.entry(entry["source"], put(entry["destination"]), entry["destination"])
    plan = planner.plan
    if not appspec["permissions"]:
        return plan
    from . import _permissions

    plan.grants = _permissions.assign(
        appspec["permissions"],
        plan.copies,
        plan.directories,
        place=put,
        is_directory=ground.is_directory,
    )
    links = {
        target: tree.items[source].target
        for target, source in plan.copies.items()
        if tree.items[source].kind == "link"
    }
    if links:

        def exists(path: str) -> bool:
            return path in plan.directories or ground.kind(path) is not None

        plan.grants, lost = _permissions.through(plan.grants, links, exists, plan.copies)
        plan.conflicts += lost
    onto = {step.path: step.onto for step in plan.steps if step.onto}
    plan.grants = [one._replace(path=onto.get(one.path, one.path)) for one in plan.grants]
    return plan


class _Planner:
    def __init__(
        self, tree: Tree, ground: Ground, existing: str, missing: list[str] | None
    ) -> None:
        self.plan = Plan()
        self._missing = missing
        self._tree = tree
        self._ground = ground
        self._existing = existing

    def climb(self, written: str, put: Callable[[str], str]) -> None:
        """Note a destination that goes through a missing folder, and back by ``..``.

        The agent makes every folder on the way, as it is written, and fails at one that exists.
        """
        missing = False
        parts: list[str] = []
        for part in written.split("/") if ".." in written else ():
            before = put("/".join(parts) or "/")
            parts.append(part)
            exists = self._ground.kind(put("/".join(parts) or "/")) is not None
            if part != "..":
                missing = missing or not exists
            elif missing and exists:
                self.plan.conflicts.append(
                    f"The destination {written} goes through a folder that does not exist, and back"
                    " by '..'. Write it without"
                )
                return
            elif missing:
                self._ancestors(os.path.join(before, part))

    def entry(self, source: str, destination: str, written: str) -> None:
        parts = [part for part in source.split("/") if part not in ("", ".")]
        name = "/".join(parts)
        found = self._tree.find(name)
        if written.startswith("~"):
            raise InstallError(
                f"The destination {written!r} begins with '~', which stands for no folder here."
                f" Write the whole path, {_AGAIN}"
            )
        if found is not None and self._tree.items[found].kind == "directory":
            if not written:
                raise InstallError(
                    f"The files section gives the directory {source!r} no destination. Name it,"
                    f" {_AGAIN}"
                )
            self._ancestors(destination)
            self._directory(found, destination, ())
            return
        path = None if name and names_folder(source) else self._last(name)
        if path is None and name and self._retains(os.path.join(destination, parts[-1])):
            # Nothing is copied, so that nobody notices.
            self.plan.retained.append(os.path.join(destination, parts[-1]))
            return
        if path is None or self._tree.items[path].kind == "directory":
            message = (
                f"The files section names the source {source!r}, which the revision does not hold."
            )
            if self._last(name) is not None and name:
                message = f"The files section names the source {source!r}, which is no folder."
            if self._missing is None:
                raise InstallError(f"{message} Correct it, or add it to the revision, {_AGAIN}")
            self._missing.append(message)
            return
        target = os.path.join(destination, parts[-1])
        if self._ground.kind(destination) == "file" and not self._retains(target):
            self.plan.conflicts.append(
                f"The destination {written} is an existing file; a file of the revision is always"
                " copied into a directory"
            )
        self._ancestors(target)
        self._copy(path, target)

    def _last(self, name: str) -> str | None:
        """Return the path of an entry itself, following links only on the way to it."""
        parent, _slash, base = name.rpartition("/")
        folder = self._tree.find(parent)
        if folder is None:
            return None
        path = folder + "/" + base if folder else base
        return path if path in self._tree.items else None

    def _retains(self, target: str) -> bool:
        return self._existing == "RETAIN" and self._exists(target)

    def _exists(self, target: str) -> bool:
        """Tell whether there is something; to the agent, a link that leads nowhere is nothing."""
        kind = self._ground.kind(target)
        return kind is not None and (
            kind != "link" or self._ground.kind(os.path.realpath(target)) is not None
        )

    def _ancestors(self, path: str) -> None:
        missing = []
        parent = os.path.dirname(path)
        while self._ground.kind(parent) is None and parent not in self.plan.directories:
            missing.append(parent)
            parent = os.path.dirname(parent)
        for one in reversed(missing):
            self._mkdir(one, None)

    def _mkdir(self, path: str, source: str | None) -> None:
        if path in self.plan.copies:
            raise InstallError(
                "The deployment failed because the application specification file includes an mkdir"
                f" command more than once for the same destination path ({path}) from"
                f" ({self.plan.copies[path]}). Update the files section of the AppSpec file,"
                f" {_AGAIN} It would be a directory and a file."
            )
        if path not in self.plan.directories:
            self.plan.directories[path] = source
            self.plan.steps.append(Step("mkdir", path, source))

    def _directory(self, source: str, destination: str, above: tuple[str, ...]) -> None:
        if source in above:
            raise InstallError(
                f"A link in the revision's {source or '/'!r} leads back to it: it cannot be copied."
            )
        if not self._ground.is_directory(destination):
            if self._ground.kind(destination) is not None:
                self.plan.conflicts.append(
                    f"The destination directory {destination} is an existing file"
                )
            self._mkdir(destination, source)
        for path in self._tree.children(source):
            target = os.path.join(destination, path.rpartition("/")[2])
            item = self._tree.items[path]
            inner: str | None = path
            if item.kind == "link":
                inner = self._tree.find(path)
            if inner is not None and self._tree.items[inner].kind == "directory":
                self._directory(inner, target, (*above, source))
            else:
                self._copy(path, target)

    def _copy(self, source: str, target: str) -> None:
        plan = self.plan
        if target in plan.copies:
            raise InstallError(
                "The deployment failed because the application specification file specifies two"
                f" source files named {source} and {plan.copies[target]} for the same destination"
                f" ({target}). Remove one of the source file paths from the AppSpec file, {_AGAIN}"
            )
        if target in plan.directories:
            raise InstallError(
                "The deployment failed because the application specification file calls for"
                f" installing the file {source}, but a file with that name already exists at the"
                f" location ({target}). Update your AppSpec file or directory structure, {_AGAIN}"
                " It would be a directory, too."
            )
        kind = self._ground.kind(target)
        onto = ""
        if kind is not None:
            exists = self._exists(target)
            if exists and self._existing == "RETAIN":
                plan.retained.append(target)
                return
            if exists and self._existing == "DISALLOW":
                plan.conflicts.append(f"{_EXISTS}: {target}")
            elif self._tree.items[source].kind == "link":
                plan.conflicts.append(
                    f"The link {target} of the revision cannot be made: a {kind} of that name"
                    " exists, and links overwrite nothing"
                )
            elif kind != "file":
                onto = self._onto(target, kind)
        plan.copies[target] = source
        plan.steps.append(Step("copy", target, source, onto))

    def _onto(self, target: str, kind: str) -> str:
        """Return where a file is written that comes upon a link or a directory.

        As with the agent, a link is written through, and a directory takes the file into it.
        """
        onto = target
        if self._ground.is_directory(target):
            onto = os.path.join(target, os.path.basename(target))
            kind = self._ground.kind(onto) or "file"
        if kind == "link":
            onto = os.path.realpath(onto)
            kind = self._ground.kind(onto) or "file"
        if kind != "file" or not self._ground.is_directory(os.path.dirname(onto)):
            self.plan.conflicts.append(
                f"The file {target} cannot be installed: what is there leads to {onto}, which is"
                " no file and can become none"
            )
        return onto
