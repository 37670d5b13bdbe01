# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of the paths an installation makes a permission reaches (linux_permission_info.rb)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from .._errors import InstallError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection


class Grant(NamedTuple):
    """What is set on one path."""

    path: str
    permission: dict[str, Any]


def assign(
    permissions: list[dict[str, Any]],
    copies: Collection[str],
    directories: Collection[str],
    *,
    place: Callable[[str], str],
    is_directory: Callable[[str], bool],
) -> list[Grant]:
    """Return what is set where, in the AppSpec's order.

    Only what this deployment makes is ever touched, and an object itself is no member of its own
    directory.

    :param place: turns the path an AppSpec names into the path on this host
    :param is_directory: whether a path is a directory before this installation
    :raises InstallError: for a path that two permissions reach, a pattern put on a file, or a
        default access control list that reaches one
    """
    grants: list[Grant] = []
    holders: dict[str, str] = {}
    for permission in permissions:
        name = permission["object"]
        path = place(name)
        if path in copies:
            if "file" not in permission["type"]:
                continue
            _check_file(permission)
            reached = [path]
        elif path in directories or is_directory(path):
            reached = [*_members(permission, path, copies, "file")]
            if reached and _has_default(permission):
                raise _for_directories("a default access control list", reached[0])
            reached += _members(permission, path, directories, "directory")
        else:
            continue
        for member in reached:
            if member in holders:
                raise InstallError(
                    f"The deployment failed because the permissions setting for ({member}) is"
                    " specified more than once in the application specification file (by the"
                    f" objects {holders[member]} and {name}). Narrow one of them by its pattern,"
                    " except or type, and then try again."
                )
            holders[member] = name
            grants.append(Grant(member, permission))
    return grants


def _members(permission: dict[str, Any], top: str, paths: Collection[str], kind: str) -> list[str]:
    if kind not in permission["type"]:
        return []
    prefix = top if top.endswith("/") else top + "/"
    return [
        path
        for path in paths
        if path.startswith(prefix)
        and matches(path[len(prefix) :], permission["pattern"])
        and not any(single_level(path[len(prefix) :], one) for one in permission["except"])
    ]


def matches(relative: str, pattern: str) -> bool:
    """Match a path below an object: ``**`` at any depth, everything else one level deep."""
    return pattern == "**" or single_level(relative, pattern)


def single_level(relative: str, pattern: str) -> bool:
    """Match one name against a pattern in which only ``*`` is special; it takes dots, too."""
    if "/" in relative:
        return False
    # Two positions are enough: of several stars only the last one ever needs another try.
    name_at = pattern_at = 0
    star = retry = -1
    while name_at < len(relative):
        if pattern_at < len(pattern) and pattern[pattern_at] == "*":
            star, retry = pattern_at, name_at
            pattern_at += 1
        elif pattern_at < len(pattern) and pattern[pattern_at] == relative[name_at]:
            name_at += 1
            pattern_at += 1
        elif star >= 0:
            retry += 1
            name_at, pattern_at = retry, star + 1
        else:
            return False
    return all(letter == "*" for letter in pattern[pattern_at:])


def _check_file(permission: dict[str, Any]) -> None:
    name = permission["object"]
    reason = None
    if permission["pattern"] != "**":
        reason = f"the pattern {permission['pattern']!r}"
    elif permission["except"]:
        reason = "an except list"
    elif _has_default(permission):
        reason = "a default access control list"
    if reason:
        raise _for_directories(reason, name)


def _has_default(permission: dict[str, Any]) -> bool:
    return any(acl.split(":")[0] in ("d", "default") for acl in permission["acls"] or ())


def _for_directories(reason: str, name: str) -> InstallError:
    return InstallError(
        f"The deployment failed because the application specification file includes {reason}"
        f" for the object ({name}), which is a file; that is for directories only. Correct the"
        " permissions section of the AppSpec file, and then try again."
    )
