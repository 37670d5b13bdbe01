# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The operation drift: how a host differs from what its newest deployment left. Only looks."""

from __future__ import annotations

import grp
import os
import pwd
from typing import Any, BinaryIO

from .._errors import AppSpecError, HostError
from . import _context, _layout, _running, _seal
from ._journal import Journal


def run(request: dict[str, Any], _bundle: BinaryIO | None) -> dict[str, Any]:
    """Compare a host with its newest deployment.

    :param request: ``{"root", "group_id", "expected": digest the record has for this target}``
    :returns: ``{"changed": False, "deployment_id", "digest", "checked": number of paths,
        "unseen": number of processes that could not be looked at, "findings": [{"kind": revision |
        deployment | missing | type | content | link | mode | owner | acl | process, "path", "pid",
        "message"}]}``
    :raises BasculeError: for a request that names no group, or a host that cannot be read
    """
    layout = _layout.Layout(
        request.get("root") or _layout.DEFAULT_ROOT, str(request.get("group_id") or ""), "drift"
    )
    try:
        return _compare(layout, request.get("expected"))
    except OSError as error:
        raise HostError(
            f"The host cannot be compared with its deployment: {error}. Run this as the user who "
            "deploys (become)."
        ) from error


def _compare(layout: _layout.Layout, expected: str | None) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "changed": False, "deployment_id": None, "digest": None, "checked": 0, "unseen": 0,
        "findings": [],
    }  # fmt: skip
    findings = answer["findings"]
    folder = _layout.read_pointer(layout.last_successful)
    if folder is None:
        if expected:
            findings.append(_finding("deployment", "nothing of this group is installed here"))
        return answer
    answer["deployment_id"] = folder.deployment_id
    answer["digest"] = digest = _digest(folder)
    if expected and digest != expected:
        findings.append(
            _finding(
                "revision",
                f"has revision {(digest or 'unknown')[:12]} of {folder.deployment_id}, the record"
                f" says {expected[:12]}",
            )
        )
    if not Journal(folder.journal).ended:
        findings.append(
            _finding("deployment", f"{folder.deployment_id} did not come to its end here")
        )
        return answer
    seal = _seal.read(folder)
    if seal is None:
        findings.append(
            _finding(
                "deployment",
                f"{folder.deployment_id} left no list of what it installed; the next deployment"
                " leaves one",
            )
        )
        return answer
    for path, entry in seal["entries"].items():
        findings += differences(path, entry, _seal.look(path))
    answer["checked"] = len(seal["entries"])
    files = {path for path, entry in seal["entries"].items() if entry["kind"] == "file"}
    active = {
        "deployment_id": folder.deployment_id,
        "digest": digest,
        "installed_at": seal["installed_at"],
        "root": layout.root,
        "files": {os.path.realpath(path) for path in files} | files,
    }
    found, answer["unseen"] = _running.processes()
    digests = _remembered(layout)
    for process in found:
        why = _running.stale(process, layout.group_id, active, digests)
        if why:
            findings.append(_finding("process", f"{process.name} {why}", pid=process.pid))
    return answer


def differences(path: str, then: dict[str, Any], now: dict[str, Any]) -> list[dict[str, Any]]:
    """Return how a path differs from what it was; a file is read only if its status changed."""
    if then["kind"] == "missing":
        return []
    if now["kind"] != then["kind"]:
        if now["kind"] == "missing":
            return [_finding("missing", f"the {then['kind']} is gone", path)]
        return [_finding("type", f"is a {now['kind']}, was a {then['kind']}", path)]
    found = []
    if then["kind"] == "link" and now["target"] != then["target"]:
        found.append(_finding("link", f"leads to {now['target']}, led to {then['target']}", path))
    if then["kind"] == "file" and _touched(then, now):
        found += _content(path, then, now)
    if now["mode"] != then["mode"] and then["kind"] != "link":
        found.append(_finding("mode", f"has mode {now['mode']:04o}, had {then['mode']:04o}", path))
    if (now["uid"], now["gid"]) != (then["uid"], then["gid"]):
        found.append(
            _finding("owner", f"belongs to {_owner(now)}, belonged to {_owner(then)}", path)
        )
    if now["acl"] != then["acl"]:
        found.append(_finding("acl", "has another access list", path))
    return found


def _touched(then: dict[str, Any], now: dict[str, Any]) -> bool:
    return any(now[key] != then[key] for key in ("size", "mtime", "ctime", "inode"))


def _content(path: str, then: dict[str, Any], now: dict[str, Any]) -> list[dict[str, Any]]:
    if now["size"] != then["size"]:
        return [_finding("content", f"was changed: {now['size']} bytes, had {then['size']}", path)]
    wanted = then.get("sha256")
    if wanted is None:
        try:
            wanted = _seal.digest(then["source"])
        except OSError:
            return [_finding("content", "was written to; its original is gone", path)]
    if _seal.digest(path) == wanted:
        return []
    return [_finding("content", f"was changed, still {now['size']} bytes", path)]


def _owner(entry: dict[str, Any]) -> str:
    try:
        user = pwd.getpwuid(entry["uid"]).pw_name
    except KeyError:
        user = str(entry["uid"])
    try:
        group = grp.getgrgid(entry["gid"]).gr_name
    except KeyError:
        group = str(entry["gid"])
    return f"{user}:{group}"


def _finding(kind: str, message: str, path: str = "", pid: int | None = None) -> dict[str, Any]:
    return {"kind": kind, "path": path, "pid": pid, "message": message}


def _digest(folder: _layout.Folder) -> str | None:
    try:
        digest: str | None = _context.recall(folder)["digest"]
    except AppSpecError:
        return None
    return digest


def _remembered(layout: _layout.Layout) -> dict[str, str | None]:
    """Return the revisions of the group's deployments that this host still has."""
    return {
        name: _digest(_layout.Folder(os.path.join(layout.group, name)))
        for name in os.listdir(layout.group)
        if name.startswith("d-")
    }
