# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build a release beside the live one, and make it live by one rename of the link."""

from __future__ import annotations

import errno
import os
import shutil
from typing import TYPE_CHECKING

from .._errors import InstallError
from . import _cleanup, _grants, _release_plan, _steps

if TYPE_CHECKING:
    from ._cleanup import Ground
    from ._release_plan import Inside
    from ._tree import Tree


def build(inside: Inside, tree: Tree, archive: str) -> None:
    """Make a release whole; what is live is not touched. It can be repeated at any time.

    :raises InstallError: for what cannot be made
    """
    releases = inside.releases
    for folder in (releases.releases, releases.shared, os.path.dirname(releases.link)):
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise InstallError(f"Cannot make the folder {folder}: {error.strerror}.") from error
    if inside.again or releases.live() == inside.release.name:
        # It was whole before it became live.
        return
    inside.index.note(inside.release)
    for step in inside.steps:
        if step.kind == "copy":
            _steps.copy(step, tree, archive)
        else:
            _steps.mkdir(step, tree)
    for grant in inside.grants:
        _grants.give(grant)
    for path, is_directory in releases.shared_paths.items():
        try:
            _share(inside, path, is_directory)
        except OSError as error:
            raise InstallError(
                f"Cannot share {path} of the release {inside.path}: {error}."
            ) from error


def _share(inside: Inside, path: str, is_directory: bool) -> None:
    """Put a link to shared content into a release; the first release's content becomes shared."""
    releases = inside.releases
    place, shared = f"{inside.path}/{path}", f"{releases.shared}/{path}"
    if not os.path.lexists(shared):
        os.makedirs(os.path.dirname(shared), exist_ok=True)
        if os.path.lexists(place):
            _move(place, shared)
        elif is_directory:
            os.mkdir(shared)
        else:
            os.close(os.open(shared, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
    if os.path.isdir(place) and not os.path.islink(place):
        shutil.rmtree(place)
    _link(_release_plan.shared_target(releases, inside.release.name, path), place)


def _move(source: str, target: str) -> None:
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        raise InstallError(
            f"{target} is on another file system than the releases, so the revision's own content"
            " cannot become the shared one. Put it there by hand, or leave it out of the revision."
        ) from error


def _link(target: str, path: str) -> None:
    """Make a link, or change where it leads, by one rename."""
    temporary = os.path.join(os.path.dirname(path), _cleanup.TEMPORARY)
    if os.path.lexists(temporary):
        os.unlink(temporary)
    os.symlink(target, temporary)
    os.rename(temporary, path)


def switch(inside: Inside, ground: Ground) -> None:
    """Let the link lead to the release, which is whole and on the disk by then.

    :raises InstallError: if it cannot be made
    """
    link = inside.releases.link
    target = inside.releases.target(inside.release.name)
    aside = f"{link}.bascule-before"
    try:
        if not (os.path.islink(link) and os.readlink(link) == target):
            if not inside.again:
                # A power cut must not leave a link to files that were never written.
                _sync_files(inside.path)
            if os.path.isdir(link) and not os.path.islink(link):
                # What copies have left: a link cannot be renamed over a directory.
                ground.forget(link)
                os.rename(link, aside)
            _link(target, link)
            _sync_folder(os.path.dirname(link))
        inside.index.note(inside.release)
        if os.path.lexists(aside):
            shutil.rmtree(aside)
    except OSError as error:
        raise InstallError(f"Cannot let {link} lead to {target}: {error.strerror}.") from error


def _sync_files(path: str) -> None:
    """Write out the file system of a path; all file systems where it cannot be done for one."""
    import ctypes

    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            failed = ctypes.CDLL(None).syncfs(descriptor)
        finally:
            os.close(descriptor)
    except (AttributeError, OSError):
        failed = True
    if failed:
        os.sync()


def _sync_folder(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
