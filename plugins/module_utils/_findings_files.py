# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hazards that show only beside a revision's files: its scripts, and what would be installed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ._errors import InstallError
from ._findings_model import Finding, at
from ._host import _cleanup, _events, _files, _links

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ._appspec_yaml import Node
    from ._host._tree import Tree

_LOOK = 65_536
_ENDS = re.compile(rb"\b(?:exit|exec)\b")
_ENDS_BADLY = re.compile(rb"^exit\s+0*[1-9][0-9]*\s*\Z", re.MULTILINE)
_STOPS_AT_ERRORS = re.compile(rb"^#!.*\bsh\s+-\w*e|^\s*set\s+-\w*e", re.MULTILINE)


class EmptyHost(_cleanup.Ground):
    """A host without any file, on which every directory is thought to be there for permissions."""

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__([])

    def kind(self, path: str) -> str | None:
        """Nothing is there but the root."""
        return "directory" if path == "/" else None

    def is_directory(self, path: str) -> bool:
        """Only the root is there."""
        return path == "/"


def hazards(root: Node, appspec: dict[str, Any], tree: Tree, top: Path) -> list[Finding]:
    """Return what is wrong between an AppSpec and the files beside it, in no order."""
    found: list[Finding] = []
    hooks = root.get("hooks")
    for event, scripts in appspec["hooks"].items():
        nodes = hooks.value[event].value if hooks is not None else []
        for node, script in zip(nodes, scripts, strict=True):
            place = node.get("location") or node
            found += _script(place, event, script["location"], tree, top)
    found += _installation(root, appspec, tree)
    found += _outside_links(tree)
    return found


def _outside_links(tree: Tree) -> Iterator[Finding]:
    links = {path: item.target for path, item in tree.items.items() if item.kind == "link"}
    for name in _links.leaving(links):
        yield Finding(
            "warning",
            "link-outside",
            0,
            0,
            f"The link {name} leads to {links[name]}, outside of the revision. It is staged only"
            " where deploy_allow_outside_links is set.",
        )


def _script(node: Node, event: str, location: str, tree: Tree, top: Path) -> Iterator[Finding]:
    problems = list(_problems(node, event, location, tree, top))
    yield from problems
    if event not in _events.OF_PREVIOUS:
        return
    blocks = any(one.code in ("script-missing", "script-crlf") for one in problems)
    if blocks or _always_fails(location, tree, top):
        yield at(
            node,
            "warning",
            "stop-hook-blocks",
            f"{event} runs from this revision when the NEXT one is deployed. With this script that"
            " deployment will fail, and every one after it, unless failures of ApplicationStop are"
            " ignored.",
        )
    elif not problems or problems[0].code != "script-missing":
        found = tree.find(location.lstrip("/"))
        if found is not None and _STOPS_AT_ERRORS.search(_start(top / found)):
            yield at(
                node,
                "info",
                "stop-hook-strict",
                f"{location} stops at its first failing command. If the service is stopped already,"
                " make sure that it still ends well: a failing stop script blocks the next"
                " deployment.",
            )


def _always_fails(location: str, tree: Tree, top: Path) -> bool:
    """Tell whether the only end of a script is its last line, and that is an ``exit`` but 0."""
    found = tree.find(location.lstrip("/"))
    if found is None or tree.items[found].kind != "file" or tree.items[found].size > _LOOK:
        return False
    text = _start(top / found)
    return len(_ENDS.findall(text)) == 1 and _ENDS_BADLY.search(text) is not None


def _problems(node: Node, event: str, location: str, tree: Tree, top: Path) -> Iterator[Finding]:
    found = tree.find(location.lstrip("/"))
    if found is None or tree.items[found].kind != "file":
        yield at(
            node,
            "warning",
            "script-missing",
            f"The script {location} of {event} is not in the revision.",
        )
        return
    if not tree.items[found].mode & 0o111:
        yield at(
            node,
            "warning",
            "script-not-executable",
            f"The script {location} has no run bit. It is given one when it runs.",
        )
    start = _start(top / found)
    first = start.split(b"\n", 1)[0]
    if not first.startswith((b"#!", b"\x7fELF")):
        yield at(
            node,
            "warning",
            "script-no-shebang",
            f"The script {location} does not begin with #! and a program. Agent 1 gives it to"
            " /bin/sh, agent 2 cannot run it.",
        )
    if not start.startswith(b"\x7fELF") and b"\r\n" in start:
        yield at(
            node,
            "warning",
            "script-crlf",
            f"The script {location} has Windows line ends (CRLF), which its program will not"
            " understand. Save it with LF.",
        )


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_LOOK)


def _installation(root: Node, appspec: dict[str, Any], tree: Tree) -> Iterator[Finding]:
    files, permissions = root.get("files"), root.get("permissions")
    usable = []
    for index, entry in enumerate(appspec["files"]):
        node = files.value[index] if files is not None else root
        parts = [part for part in entry["source"].split("/") if part not in ("", ".")]
        if ".." in parts:
            continue
        if entry["destination"].startswith("~"):
            continue
        found = tree.find("/".join(parts))
        is_file = found is not None and tree.items[found].kind != "directory"
        if is_file and parts and _files.names_folder(entry["source"]):
            yield at(
                node.get("source") or node,
                "warning",
                "source-no-folder",
                f"The source {entry['source']} is a file; with the slash at its end it cannot be"
                " installed. Leave that out.",
            )
            continue
        if found is None and "/".join(parts) not in tree.items:
            yield at(
                node.get("source") or node,
                "warning",
                "source-missing",
                f"The source {entry['source']} is not in the revision. Unless a script of"
                " BeforeInstall makes it, the revision cannot be installed.",
            )
            continue
        usable.append(entry)
    ground = EmptyHost()
    spec = {**appspec, "files": usable, "permissions": []}
    try:
        plan = _files.make(spec, tree, ground, existing="OVERWRITE")
    except InstallError as error:
        yield at(files or root, "error", "files-conflict", str(error))
        return
    from ._host import _permissions

    reached: dict[str, Node] = {}
    for index, entry in enumerate(appspec["permissions"]):
        node = permissions.value[index] if permissions is not None else root
        try:
            grants = _permissions.assign(
                [entry],
                plan.copies,
                plan.directories,
                place=lambda path: _files.place(path, ""),
                is_directory=lambda _path: True,
            )
        except InstallError as error:
            yield at(node, "error", "permission-on-file", str(error))
            continue
        twice = [grant.path for grant in grants if grant.path in reached]
        if twice:
            first = reached[twice[0]]
            yield at(
                node,
                "error",
                "permissions-overlap",
                f"The deployment failed because the permissions setting for ({twice[0]}) is"
                f" specified more than once: here and in line {first.line}"
                f"{f' (and for {len(twice) - 1} more paths)' if len(twice) > 1 else ''}. Narrow one"
                " of them by its pattern, except or type.",
            )
        elif not grants:
            yield at(
                node,
                "warning",
                "permission-unused",
                f"The permission of {entry['object']} reaches nothing that this revision installs.",
            )
        reached.update((grant.path, node) for grant in grants)
