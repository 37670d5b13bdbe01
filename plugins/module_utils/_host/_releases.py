# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the release layout keeps things on a host, and what it remembers of its releases.

``<directory>/releases/<deployment-id>-<digest>`` are the releases, ``<directory>/shared`` holds
what all of them share, and one link leads to the release that is live.
"""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple

from .._errors import InstallError, UsageError
from . import _layout, _seal

LAYOUTS = ("copy", "release")
DEFAULT_KEEP = 5
# Beside the releases: whose they are, and in which order they were live.
INDEX = ".bascule.json"
_DIGITS = 12


class Release(NamedTuple):
    """A release that was begun; ``is_good`` once a deployment came to its End with it."""

    name: str
    digest: str
    deployment_id: str
    shared: tuple[str, ...]
    is_good: bool


class Releases:
    """The places of a deployment group's releases; makes nothing by itself.

    Paths that begin with ``logical`` are as an AppSpec writes them, all others are on this host,
    the sysroot included.
    """

    def __init__(self, options: dict[str, Any], sysroot: str) -> None:
        """Check the options that begin with ``release``, and ``shared_paths``.

        :raises UsageError: for the first that cannot be
        """
        logical = _absolute(options.get("release_directory"), "release_directory")
        link = options.get("release_link")
        self.logical_directory = logical
        self.logical_link = _absolute(link, "release_link") if link else f"{logical}/current"
        self.directory = sysroot + logical
        self.link = sysroot + self.logical_link
        self.releases = f"{self.directory}/releases"
        self.shared = f"{self.directory}/shared"
        for taken in (f"{logical}/releases", f"{logical}/shared"):
            if below(self.logical_link, taken) or below(taken, self.logical_link):
                raise UsageError(
                    f"The release_link {self.logical_link} and {taken} lie in each other. Name a"
                    f" link such as {logical}/current."
                )
        self.index = f"{self.releases}/{INDEX}"
        self.shared_paths = _shared_paths(options.get("shared_paths") or ())
        keep = options.get("releases_to_keep")
        self.keep = DEFAULT_KEEP if keep is None else keep
        if isinstance(self.keep, bool) or not isinstance(self.keep, int) or self.keep < 2:
            raise UsageError(
                "releases_to_keep must be a whole number from 2 (the present release and the one"
                f" to go back to), not {keep!r}."
            )

    def path(self, name: str) -> str:
        """Return the folder of a release."""
        return f"{self.releases}/{name}"

    def target(self, name: str) -> str:
        """Return what the link to a release says: relative, so that a sysroot can be moved."""
        where = os.path.realpath(os.path.dirname(self.link))
        return os.path.relpath(os.path.join(os.path.realpath(self.releases), name), where)

    def live(self) -> str | None:
        """Return the name of the release that the link leads to; None for anything else."""
        try:
            leads = os.path.join(os.path.dirname(self.link), os.readlink(self.link))
        except OSError:
            return None
        folder, name = os.path.split(os.path.normpath(leads))
        return name if os.path.realpath(folder) == os.path.realpath(self.releases) else None

    def logical(self, path: str) -> str:
        """Return the path below the link that a path of an AppSpec is installed as.

        What lies in the directory of the releases, but not below the link, is meant to be in the
        release, too: so a bundle that installs to that directory needs no change.

        :raises InstallError: for a path where releases or shared content are
        """
        path = os.path.normpath("/" + path.lstrip("/"))
        if below(path, self.logical_link) or not below(path, self.logical_directory):
            return path
        for taken in ("releases", "shared"):
            if below(path, f"{self.logical_directory}/{taken}"):
                raise InstallError(
                    f"The AppSpec names {path}, but {self.logical_directory}/{taken} is where the"
                    f" layout keeps its {taken}. Name a path below {self.logical_link}."
                )
        return self.logical_link + path[len(self.logical_directory) :]


def below(path: str, top: str) -> bool:
    """Tell whether a path is a folder or in it; both without a slash at the end."""
    return path == top or path.startswith(top + "/")


def name(deployment_id: str, digest: str) -> str:
    """Return the name of the release that a deployment makes."""
    return f"{deployment_id}-{digest[:_DIGITS]}"


def _absolute(value: Any, option: str) -> str:
    if not isinstance(value, str) or not os.path.isabs(value) or "\0" in value:
        raise UsageError(
            f"{option} must be an absolute path such as /srv/app, not {value!r}: the layout"
            " release keeps its releases there."
        )
    path = os.path.normpath("/" + value.lstrip("/"))
    if path == "/":
        raise UsageError(f"{option} must be a folder of its own, not {value!r}.")
    return path


def _shared_paths(values: Any) -> dict[str, bool]:
    """Return ``{path in the release: whether it is a directory if nothing is there yet}``."""
    paths: dict[str, bool] = {}
    for value in values:
        plain = isinstance(value, str) and not os.path.isabs(value) and "\0" not in value
        path = os.path.normpath(value) if plain and value else ""
        if path in ("", ".") or path.split("/")[0] == "..":
            raise UsageError(
                f"shared_paths are paths in the release such as .env or uploads/, not {value!r}."
            )
        for other in paths:
            if below(path, other) or below(other, path):
                raise UsageError(f"The shared_paths {other} and {path} lie in each other.")
        paths[path] = value.endswith("/")
    return paths


# -- what is remembered ----------------------------------------------------------------------------


class Index:
    """Whose the releases are, and all that were begun, the one that was live last at the end."""

    def __init__(self, releases: Releases, group_id: str) -> None:
        """Read the index; nothing is known where there is none."""
        self._releases = releases
        self.group_id = group_id
        self.entries: list[Release] = []
        try:
            with open(releases.index, encoding="utf-8") as file:
                content = json.load(file)
            self.group_id = content["group_id"]
            for one in content["releases"]:
                one = dict(one, shared=tuple(one["shared"]))
                self.entries.append(Release(**one))
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError) as error:
            raise InstallError(
                f"{releases.index} is damaged ({error}). Remove it; the releases that are there"
                " will stay until you remove them."
            ) from error

    def find(self, name: str) -> Release | None:
        """Return a release by its name."""
        return next((one for one in self.entries if one.name == name), None)

    def note(self, release: Release) -> None:
        """Write a release down as the newest."""
        self.entries = [one for one in self.entries if one.name != release.name] + [release]
        self._write()

    def prune(self) -> list[str]:
        """Remove what is not needed to go on or back; return the names.

        The live release always stays. Of the others those of deployments that failed go first.
        """
        live = self._releases.live()
        others = [one for one in self.entries if one.name != live]
        good = [one for one in others if one.is_good]
        surplus = good[: max(0, len(good) - self._releases.keep + 1)]
        gone = [one for one in others if not one.is_good or one in surplus]
        if not gone or live is None:
            return []
        import shutil

        for one in gone:
            shutil.rmtree(self._releases.path(one.name), ignore_errors=True)
        self.entries = [
            one for one in self.entries
            if one not in gone or os.path.lexists(self._releases.path(one.name))
        ]  # fmt: skip
        self._write()
        return [one.name for one in gone]

    def to_go_back_to(self, digest: str, layout: _layout.Layout) -> Release | None:
        """Return the newest good release of a revision that is still as its deployment left it."""
        shared = tuple(self._releases.shared_paths)
        for one in reversed(self.entries):
            if one.is_good and (one.digest, one.shared) == (digest, shared):
                folder = _layout.Folder(os.path.join(layout.group, one.deployment_id))
                if _is_unchanged(_seal.read(folder), self._releases.path(one.name)):
                    return one
        return None

    def _write(self) -> None:
        content = {
            "group_id": self.group_id,
            "releases": [one._asdict() for one in self.entries],
        }
        _layout.write_file(self._releases.index, json.dumps(content, indent=1) + "\n")


def _is_unchanged(seal: dict[str, Any] | None, top: str) -> bool:
    """Compare the paths of a release with what they were at the End of its deployment."""
    if seal is None or not os.path.isdir(top):
        return False
    same = ("kind", "mode", "uid", "gid", "size", "mtime", "inode", "target", "acl")
    entries = {path: then for path, then in seal["entries"].items() if below(path, top)}
    for path, then in entries.items():
        now = _seal.look(path)
        keys = ("kind", "mode", "uid", "gid", "acl") if then["kind"] == "directory" else same
        if any(now.get(key) != then.get(key) for key in keys):
            return False
    return bool(entries)
