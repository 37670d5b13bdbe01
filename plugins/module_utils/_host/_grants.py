# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Set one permission of an AppSpec, and find out before anything is touched whether all can be."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

from .._errors import InstallError

if TYPE_CHECKING:
    from ._cleanup import Made
    from ._permissions import Grant


def account(kind: str, name: str) -> int:
    """Return the number of a user or group; a number stands for itself if no such name is known.

    :raises InstallError: for a name this host does not know
    """
    import grp
    import pwd

    try:
        return pwd.getpwnam(name).pw_uid if kind == "user" else grp.getgrnam(name).gr_gid
    except KeyError:
        if name.isdigit() and int(name) < 2**32 - 1:
            return int(name)
        raise InstallError(
            f"can't find {kind} for {name}: the AppSpec's permissions name it, and this host does"
            f" not know it. Create the {kind} (a BeforeInstall hook can), or correct the AppSpec."
        ) from None


def check_accounts(grants: list[Grant]) -> None:
    """Look up every owner and group, those of access control lists, too, before all else.

    :raises InstallError: for the first that is unknown
    """
    wanted: dict[tuple[str, str], None] = {}
    for grant in grants:
        permission = grant.permission
        for kind, field in (("user", "owner"), ("group", "group")):
            if permission[field] is not None:
                wanted[kind, permission[field]] = None
        if permission["acls"]:
            from . import _acl

            for text in permission["acls"]:
                entry = _acl.parse_entry(text)
                if entry.name:
                    wanted[entry.kind, entry.name] = None
    for kind, name in wanted:
        account(kind, name)


def check_rights(grants: list[Grant]) -> None:
    """Find out before anything is touched whether this user may give files away.

    :raises InstallError: for the first owner or group that only root could set
    """
    me = os.geteuid()
    if me == 0:
        return
    groups = {os.getegid(), *os.getgroups()}
    for path, permission in grants:
        owner, group = permission["owner"], permission["group"]
        bad_owner = owner and account("user", owner) != me
        if bad_owner or (group and account("group", group) not in groups):
            raise _not_root(path, permission)


def _not_root(path: str, permission: dict[str, Any]) -> InstallError:
    wanted = ":".join(permission[field] or "" for field in ("owner", "group"))
    return InstallError(
        f"Cannot change the owner of {path} to {wanted}: this runs as user number"
        f" {os.geteuid()}, which may not. Run it as root, or drop owner and group there."
    )


def check_tools(grants: list[Grant]) -> None:
    """Look for setfacl, semanage and restorecon where the permissions want them.

    :raises InstallError: naming the program and its package
    """
    wanted = []
    if any(grant.permission["acls"] for grant in grants):
        wanted.append(("setfacl", "acls", "acl"))
    if any(grant.permission["context"] for grant in grants):
        wanted.append(("semanage", "a context", "policycoreutils-python-utils"))
        wanted.append(("restorecon", "a context", "policycoreutils"))
    for program, field, package in wanted:
        if find_program(program) is None:
            raise InstallError(
                f"The AppSpec's permissions set {field}, which needs the program {program}, and"
                f" this host has none (package {package})."
            )


CHECKS = (check_accounts, check_rights, check_tools)
"""What is found out before anything is touched."""


def find_program(name: str) -> str | None:
    """Return the path of a program, also from the administrator's folders."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    for folder in [*folders, "/usr/sbin", "/sbin"]:
        path = os.path.join(folder, name)
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    return None


def give(grant: Grant) -> None:
    """Set the owner, the mode and the access control list of one path.

    :raises InstallError: if they cannot be set
    """
    path, permission = grant
    try:
        status = os.lstat(path)
        _chown(path, status, permission)
        if stat.S_ISLNK(status.st_mode):
            # A link has no mode of its own, and what it leads to is not this deployment's.
            return
        if permission["mode"]:
            os.chmod(path, int(permission["mode"], 8))
    except OSError as error:
        raise InstallError(f"Cannot set the permissions of {path}: {error.strerror}.") from error
    if permission["acls"]:
        from . import _acl

        entries = [_acl.parse_entry(text) for text in permission["acls"]]
        full = _acl.full_set(entries, stat.S_IMODE(os.lstat(path).st_mode))
        _run("setfacl", "--set", ",".join(entry.text() for entry in full), "--", path)


def _chown(path: str, status: os.stat_result, permission: dict[str, Any]) -> None:
    user = account("user", permission["owner"]) if permission["owner"] else status.st_uid
    group = account("group", permission["group"]) if permission["group"] else status.st_gid
    if (user, group) == (status.st_uid, status.st_gid):
        return
    try:
        os.chown(path, user, group, follow_symlinks=False)
        if not stat.S_ISLNK(status.st_mode):
            # The system drops setuid and setgid with the owner; the bundle's file had them.
            os.chmod(path, stat.S_IMODE(status.st_mode))
    except PermissionError:
        raise _not_root(path, permission) from None


def label(grant: Grant) -> str | None:
    """Give a path its SELinux context; return the path that a rule was added for, None for none.

    :raises InstallError: if a program of SELinux's fails
    """
    path, permission = grant
    context = permission["context"]
    if not context or os.path.islink(path):
        return None
    from . import _acl

    real = os.path.realpath(path)
    command = ["semanage", "fcontext", "-a"]
    for option, field in (("-s", "name"), ("-t", "type"), ("-r", "range")):
        value = context[field]
        if value is not None:
            command += [option, value if field != "range" else _acl.check_range(value)]
    _run(*command, real)
    _run("restorecon", "-v", real)
    return real


def unlabel(made: list[Made]) -> None:
    """Take back the SELinux rules of the earlier installation."""
    for one in reversed(made):
        if one.kind == "semanage" and find_program("semanage"):
            _run("semanage", "fcontext", "-d", one.path, check=False)


def _run(name: str, *arguments: str, check: bool = True) -> None:
    import subprocess

    program = find_program(name) or name
    result = subprocess.run(  # noqa: S603 - a list without a shell; the program was looked up
        [program, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if check and result.returncode:
        output = result.stdout.decode("utf-8", "replace").strip()[-400:]
        raise InstallError(
            f"{name} {' '.join(arguments)} failed with exit code {result.returncode}: {output}"
        )
