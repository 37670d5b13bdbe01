# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make one directory, file or link of an installation, so that it can be repeated at any time."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from .._errors import InstallError
from . import _cleanup, _room

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._files import Step
    from ._tree import Tree

_ACL_ATTRIBUTES = ("system.posix_acl_access", "system.posix_acl_default")
_BLOCK = 1024 * 1024


def _nothing() -> None:
    return


def mkdir(step: Step, tree: Tree, touch: Callable[[], None] = _nothing) -> None:
    """Make a directory, or make one that is there look as if it were just made.

    :param touch: is told before a directory that is there is changed
    :raises InstallError: if it cannot be made
    """
    wanted = None if step.source is None else tree.items[step.source].mode
    try:
        try:
            os.mkdir(step.path)
        except FileExistsError:
            _renew_directory(step.path, touch)
        if wanted is not None:
            # The bits beyond rwx come from the parent (setgid) and are not the bundle's to drop.
            mode = stat.S_IMODE(os.lstat(step.path).st_mode)
            if mode & 0o777 != wanted & 0o777:
                os.chmod(step.path, mode & 0o7000 | wanted & 0o777)
    except OSError as error:
        raise InstallError(
            f"Cannot make the directory {step.path}: {_room.reason(error, step.path)}."
        ) from error


def _renew_directory(path: str, touch: Callable[[], None]) -> None:
    """Make a directory that stays look as if it were just made."""
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode):
        raise FileExistsError(errno.EEXIST, "a file of that name exists")
    parent = os.stat(os.path.dirname(path))
    setgid = parent.st_mode & stat.S_ISGID
    owner = (os.geteuid(), parent.st_gid if setgid else os.getegid())
    if (status.st_uid, status.st_gid) != owner:
        touch()
        os.chown(path, *owner)
    for name in set(_ACL_ATTRIBUTES).intersection(_attributes(path)):
        touch()
        os.removexattr(path, name)
    mask = os.umask(0o022)
    os.umask(mask)
    mode = 0o777 & ~mask | setgid
    if stat.S_IMODE(os.lstat(path).st_mode) != mode:
        touch()
        os.chmod(path, mode)


def _attributes(path: str) -> list[str]:
    try:
        return os.listxattr(path)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []
        raise


def copy(step: Step, tree: Tree, archive: str, touch: Callable[[], None] = _nothing) -> None:
    """Install a file or a link by one rename over what is there, or over what that leads to.

    :param touch: is told before something that is there is replaced
    :raises InstallError: if it cannot be written
    """
    source = step.source or ""
    path = step.onto or step.path
    temporary = os.path.join(os.path.dirname(path), _cleanup.TEMPORARY)
    try:
        if tree.items[source].kind == "link":
            _fresh(temporary)
            os.symlink(tree.items[source].target, temporary)
        else:
            _copy_file(os.path.join(archive, source), temporary)
        if os.path.lexists(path):
            touch()
        os.rename(temporary, path)
    except OSError as error:
        _fresh(temporary, quiet=True)
        raise InstallError(
            f"Cannot install {source} as {path}: {_room.reason(error, path)}."
        ) from error


def _fresh(path: str, *, quiet: bool = False) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError:
        if not quiet:
            raise


def _copy_file(source: str, temporary: str) -> None:
    """Copy content, then owner, then mode (setuid would not survive the other order), then time."""
    reader = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            writer = os.open(temporary, flags, 0o600)
        except FileExistsError:
            os.unlink(temporary)
            writer = os.open(temporary, flags, 0o600)
        try:
            status = os.fstat(reader)
            _copy_data(reader, writer, status.st_size)
            mode = stat.S_IMODE(status.st_mode)
            made = os.fstat(writer)
            if (made.st_uid, made.st_gid) != (status.st_uid, status.st_gid):
                try:
                    os.fchown(writer, status.st_uid, status.st_gid)
                except PermissionError:
                    mode &= 0o1777
            os.fchmod(writer, mode)
            os.utime(writer, ns=(status.st_atime_ns, status.st_mtime_ns))
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def _copy_data(reader: int, writer: int, size: int) -> None:
    done = 0
    while done < size:
        try:
            sent = os.sendfile(writer, reader, done, min(size - done, 2**30))
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS) or done:
                raise
            break
        if not sent:
            break
        done += sent
    if done < size:
        os.lseek(reader, done, os.SEEK_SET)
        while True:
            view = memoryview(os.read(reader, _BLOCK))
            if not view:
                return
            while view:
                view = view[os.write(writer, view) :]
