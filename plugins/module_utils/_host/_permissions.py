# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of the paths an installation makes a permission reaches (linux_permission_info.rb)."""

from __future__ import annotations

import os
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
                raise _default_on_file(reached[0])
            reached += _members(permission, path, directories, "directory")
        else:
            continue
        for member in reached:
            if member in holders:
                raise InstallError(
                    f"The deployment failed because the permissions setting for ({member}) is"
                    " specified more than once in the application specification file. Update the"
                    " permissions section of the AppSpec file, and then try again. The objects"
                    f" {holders[member]} and {name} both reach it: narrow one of them by its"
                    " pattern, except or type."
                )
            holders[member] = name
            grants.append(Grant(member, permission))
    return grants


def through(
    grants: list[Grant],
    links: dict[str, str],
    exists: Callable[[str], bool],
    copies: Collection[str],
) -> tuple[list[Grant], list[str]]:
    """Let what is set on a link reach the file it leads to, as with the agent.

    Only a file of this deployment's, though: what is outside of it is left alone. The link itself
    has nothing to set.

    :param links: the links that are made, and what they lead to
    :param exists: whether something that is not made now will be at a path
    :param copies: all files and links that are made
    :returns: the grants, and a message for every link that leads nowhere
    """
    result, lost = [], []
    for grant in grants:
        path = grant.path
        for _hop in range(len(links)):
            if path not in links:
                break
            path = os.path.normpath(os.path.join(os.path.dirname(path), links[path]))
        if path == grant.path or (path in copies and path not in links):
            result.append(grant._replace(path=path))
        elif _sets(grant.permission) and (path in links or not exists(path)):
            lost.append(
                f"The permissions of {grant.permission['object']} reach the link {grant.path},"
                " which leads to nothing that they could be set on. Leave it out by the pattern,"
                " except or type of the permission"
            )
    return result, lost


def _sets(permission: dict[str, Any]) -> bool:
    return any(
        permission[field] is not None for field in ("owner", "group", "mode", "acls", "context")
    )


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
    name, pattern, exceptions = permission["object"], permission["pattern"], permission["except"]
    if pattern != "**":
        raise InstallError(
            "The deployment failed because the application specification file includes an object"
            f" ({name}) with an invalid pattern ({pattern}), such as a pattern for a file applied"
            " to a directory. Correct the permissions section of the AppSpec file, and then try"
            " again. The object is a file; patterns are for directories only."
        )
    if exceptions:
        raise InstallError(
            "The deployment failed because the except parameter for a pattern in the permissions"
            f" section ({', '.join(exceptions)}) for the object named {name} contains an invalid"
            " format. Update the AppSpec file, and then try again. The object is a file; exceptions"
            " are for directories only."
        )
    if _has_default(permission):
        raise _default_on_file(name)


def _has_default(permission: dict[str, Any]) -> bool:
    if not permission["acls"]:
        return False
    from . import _acl

    return any(_acl.parse_entry(acl).default for acl in permission["acls"])


def _default_on_file(path: str) -> InstallError:
    return InstallError(
        "The deployment failed because the -d parameter has been specified to apply an acl setting"
        " to a file. This parameter is supported for directories only. Update the AppSpec file, and"
        f" then try again. The file is {path}; type: [directory] leaves files out."
    )
