# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carry out a planned installation, so that it can be repeated after any interruption."""

from __future__ import annotations

import errno
import json
import os
import stat
from typing import TYPE_CHECKING, Any

from .._errors import InstallError
from . import _cleanup
from ._layout import write_file

if TYPE_CHECKING:
    from ._cleanup import Ground, Made
    from ._files import Plan, Step
    from ._layout import Layout
    from ._permissions import Grant
    from ._tree import Tree

_ACL_ATTRIBUTES = ("system.posix_acl_access", "system.posix_acl_default")
_BLOCK = 1024 * 1024


def carry_out(
    plan: Plan, tree: Tree, archive: str, made: list[Made], ground: Ground, layout: Layout
) -> None:
    """Install, then take away what the earlier installation made and this one does not.

    Files are replaced by one rename each. The clean-up file grows before every copy and after every
    new directory, and loses the earlier installation's lines at the end: whenever this stops, the
    next run knows everything that either of the two made.

    :raises InstallError: for a file or permission that cannot be written
    """
    check_accounts(plan.grants)
    check_rights(plan.grants)
    check_tools(plan.grants)
    keep = _in_both(plan, ground)
    blocking = _blocking(plan, ground, made)
    _unlabel(made)
    _cleanup.remove(blocking, ground, keep)
    lines = []
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    record = os.open(layout.cleanup, flags, 0o644)
    try:
        _end_line(layout.cleanup, record)
        for step in plan.steps:
            line = _cleanup.line(step.kind, step.path)
            lines.append(line)
            if step.kind == "copy":
                os.write(record, line)
                _copy(step, tree, archive)
            else:
                _mkdir(step, tree)
                os.write(record, line)
        for grant in plan.grants:
            label = _grant(grant)
            if label is not None:
                lines.append(_cleanup.line("semanage", label))
                os.write(record, lines[-1])
        _cleanup.remove(made, ground, {ground.key(step.path) for step in plan.steps})
    finally:
        os.close(record)
    write_file(layout.install, json.dumps({"instructions": instructions(plan, archive)}))
    write_file(layout.cleanup, os.fsdecode(b"".join(lines)))


def instructions(plan: Plan, archive: str) -> list[dict[str, Any]]:
    """Return the plan as the agent writes it to ``<group>-install.json``."""
    result: list[dict[str, Any]] = []
    for step in plan.steps:
        if step.kind == "copy":
            source = os.path.join(archive, step.source or "")
            result.append({"type": "copy", "source": source, "destination": step.path})
        else:
            result.append({"type": "mkdir", "directory": step.path})
    for path, permission in plan.grants:
        if permission["owner"] or permission["group"]:
            result.append(
                {
                    "type": "chown",
                    "owner": permission["owner"],
                    "group": permission["group"],
                    "file": path,
                }
            )
        if permission["mode"]:
            result.append({"type": "chmod", "mode": permission["mode"], "file": path})
        if permission["acls"]:
            result.append({"type": "setfacl", "acl": permission["acls"], "file": path})
        if permission["context"]:
            result.append({"type": "semanage", "context": permission["context"], "file": path})
    return result


def _in_both(plan: Plan, ground: Ground) -> set[str]:
    """Return what goes away and comes again as the same kind: it is replaced, not removed."""
    keep = set()
    for step in plan.steps:
        key = ground.key(step.path)
        if key in ground.gone:
            is_directory = stat.S_ISDIR(os.lstat(key).st_mode)
            if is_directory == (step.kind == "mkdir"):
                keep.add(key)
    return keep


def _blocking(plan: Plan, ground: Ground, made: list[Made]) -> list[Made]:
    """Return what must go first: a file where a directory comes, or the other way round."""
    wanted = {ground.key(step.path) for step in plan.steps}
    keep = _in_both(plan, ground)
    bad = {key for key in wanted if key in ground.gone and key not in keep}
    if not bad:
        return []
    return [
        one
        for one in made
        if one.kind != "semanage"
        and any(
            ground.key(one.path) == key or ground.key(one.path).startswith(key + "/") for key in bad
        )
    ]


def _end_line(path: str, descriptor: int) -> None:
    """Cut off a line that an interruption left unfinished, so that nothing is glued to it."""
    with open(path, "rb") as file:
        content = file.read()
    if content and not content.endswith(b"\n"):
        os.ftruncate(descriptor, content.rfind(b"\n") + 1)


# -- one step --------------------------------------------------------------------------------------


def _mkdir(step: Step, tree: Tree) -> None:
    wanted = None if step.source is None else tree.items[step.source].mode
    try:
        try:
            os.mkdir(step.path)
        except FileExistsError:
            _renew_directory(step.path)
        if wanted is not None:
            # The bits beyond rwx come from the parent (setgid) and are not the bundle's to drop.
            mode = stat.S_IMODE(os.lstat(step.path).st_mode)
            if mode & 0o777 != wanted & 0o777:
                os.chmod(step.path, mode & 0o7000 | wanted & 0o777)
    except OSError as error:
        raise InstallError(f"Cannot make the directory {step.path}: {error.strerror}.") from error


def _renew_directory(path: str) -> None:
    """Make a directory that stays look as if it were just made."""
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode):
        raise FileExistsError(errno.EEXIST, "a file of that name exists")
    parent = os.stat(os.path.dirname(path))
    setgid = parent.st_mode & stat.S_ISGID
    owner = (os.geteuid(), parent.st_gid if setgid else os.getegid())
    if (status.st_uid, status.st_gid) != owner:
        os.chown(path, *owner)
    for name in _ACL_ATTRIBUTES:
        try:
            os.removexattr(path, name)
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.ENOTSUP):
                raise
    mask = os.umask(0o022)
    os.umask(mask)
    os.chmod(path, 0o777 & ~mask | setgid)


def _copy(step: Step, tree: Tree, archive: str) -> None:
    source = step.source or ""
    temporary = os.path.join(os.path.dirname(step.path), _cleanup.TEMPORARY)
    try:
        if tree.items[source].kind == "link":
            _fresh(temporary)
            os.symlink(tree.items[source].target, temporary)
        else:
            _copy_file(os.path.join(archive, source), temporary)
        os.rename(temporary, step.path)
    except OSError as error:
        _fresh(temporary, quiet=True)
        raise InstallError(
            f"Cannot install {source} as {step.path}: {error.strerror or error}."
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


# -- permissions -----------------------------------------------------------------------------------


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
    """Look up every owner and group before anything is touched.

    :raises InstallError: for the first that is unknown
    """
    for kind, field in (("user", "owner"), ("group", "group")):
        for name in {grant.permission[field] for grant in grants} - {None}:
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


def find_program(name: str) -> str | None:
    """Return the path of a program, also from the administrator's folders."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    for folder in [*folders, "/usr/sbin", "/sbin"]:
        path = os.path.join(folder, name)
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    return None


def _grant(grant: Grant) -> str | None:
    """Set one permission; return the path an SELinux rule was added for."""
    path, permission = grant
    try:
        status = os.lstat(path)
        _chown(path, status, permission)
        if stat.S_ISLNK(status.st_mode):
            # A link has no mode of its own, and what it leads to is not this deployment's.
            return None
        if permission["mode"]:
            os.chmod(path, int(permission["mode"], 8))
    except OSError as error:
        raise InstallError(f"Cannot set the permissions of {path}: {error.strerror}.") from error
    if permission["acls"]:
        from . import _acl

        entries = [_acl.parse_entry(text) for text in permission["acls"]]
        full = _acl.full_set(entries, stat.S_IMODE(os.lstat(path).st_mode))
        _run("setfacl", "--set", ",".join(entry.text() for entry in full), "--", path)
    if permission["context"]:
        return _label(path, permission["context"])
    return None


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


def _label(path: str, context: dict[str, str | None]) -> str:
    real = os.path.realpath(path)
    command = ["semanage", "fcontext", "-a"]
    for option, field in (("-s", "name"), ("-t", "type"), ("-r", "range")):
        value = context[field]
        if value is not None:
            command += [option, value]
    _run(*command, real)
    _run("restorecon", "-v", real)
    return real


def _unlabel(made: list[Made]) -> None:
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
