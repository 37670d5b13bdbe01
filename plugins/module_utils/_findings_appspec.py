# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hazards of an accepted AppSpec file by itself: where it does not say what it seems to say."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any

from ._findings_model import Finding, at
from ._host import _acl, _events
from ._pools import TEST_EVENT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._appspec_yaml import Node

EVENT_LIMIT = 3600
_KEYS = {
    "": ("version", "os", "files", "hooks", "permissions", "file_exists_behavior"),
    "files": ("source", "destination"),
    "hooks": (
        "location",
        "timeout",
        "runas",
        "sudo",
        "arguments",
        "environment",
        "retries",
        "run_on",
    ),
    "permissions": (
        "object",
        "pattern",
        "except",
        "type",
        "owner",
        "group",
        "mode",
        "acls",
        "context",
    ),
    "context": ("name", "type", "range"),
}
# For one of these Ruby's spawn starts a shell, which takes it for its own.
_SHELL = re.compile(r"""[*?<>()&|\\$;'`"]""")
_UNQUOTED_MODE = re.compile(r"0[0-7]+\Z")


def hazards(text: bytes, root: Node, appspec: dict[str, Any], name: str) -> list[Finding]:
    """Return what a reader of the file should know, in no order."""
    found = list(_file(text, root, name))
    found += _unknown_keys(root, "")
    found += _duplicates(root)
    for node in _entries(root, "files"):
        found += _unknown_keys(node, "files")
        found += _mapping(node)
    hooks = root.get("hooks")
    if hooks is not None and hooks.kind == "map":
        for event, scripts in hooks.value.items():
            found += _event(event, scripts, appspec)
    for node in _entries(root, "permissions"):
        found += _unknown_keys(node, "permissions")
        found += _permission(node)
    return found


def _entries(root: Node, section: str) -> list[Node]:
    node = root.get(section)
    return list(node.value) if node is not None and node.kind == "list" else []


def _file(text: bytes, root: Node, name: str) -> Iterator[Finding]:
    if text.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        yield Finding(
            "warning",
            "byte-order-mark",
            1,
            1,
            "The file begins with a byte order mark, for which CodeDeploy's agent 1 refuses it."
            " Save it without one.",
        )
    if name == "appspec.yaml":
        yield Finding(
            "warning",
            "appspec-yaml",
            0,
            0,
            "The file is named appspec.yaml. CodeDeploy's agent 1 installs such a revision and then"
            " does not find its hooks. Name it appspec.yml.",
        )
    if not root.get("files") and not root.get("hooks"):
        yield at(root, "info", "does-nothing", "The file names neither files nor hooks.")


def _unknown_keys(node: Node, section: str) -> Iterator[Finding]:
    if node.kind != "map":
        return
    known = _KEYS[section]
    for key, value in node.value.items():
        if key in known:
            continue
        close = difflib.get_close_matches(key, known, 1)
        hint = f" Did you mean {close[0]}?" if close else ""
        if section == "context" and key == "user":
            hint = " The agent reads the SELinux user from name, whatever the documentation says."
        yield at(value, "warning", "unknown-key", f"The key {key} is ignored.{hint}")


def _duplicates(node: Node) -> Iterator[Finding]:
    for key, line, column in node.duplicates:
        yield Finding(
            "warning", "duplicate-key", line, column, f"The key {key} came before; the last counts."
        )
    members = node.value.values() if node.kind == "map" else node.value
    if node.kind != "scalar":
        for member in members:
            yield from _duplicates(member)


def _mapping(node: Node) -> Iterator[Finding]:
    source, destination = node.get("source"), node.get("destination")
    if destination is not None and not destination.text():
        yield at(
            destination,
            "warning",
            "empty-destination",
            "The destination is empty: a file would be installed into /, a directory is refused.",
        )
    elif destination is not None and destination.text().startswith("~"):
        yield at(
            destination,
            "warning",
            "tilde-destination",
            f"The destination {destination.text()} begins with ~, which stands for no folder here:"
            " the installation will fail. Write the whole path.",
        )
    elif destination is not None and not destination.text().startswith("/"):
        yield at(
            destination,
            "warning",
            "relative-destination",
            f"The destination {destination.text()} is relative, and counts from /, the agent's"
            " working directory. Write it absolute.",
        )
    if source is not None:
        parts = source.text().split("/")
        if ".." in parts:
            yield at(
                source,
                "warning",
                "source-outside",
                f"The source {source.text()} leaves the revision. Bascule will not install it.",
            )
        if not any(part not in ("", ".") for part in parts):
            yield at(
                source,
                "info",
                "source-everything",
                "The whole revision is installed, this file and the hook scripts included.",
            )


def _event(event: str, scripts: Node, appspec: dict[str, Any]) -> Iterator[Finding]:
    if event in _events.RESERVED:
        message = f"{event} is reserved for the agent; scripts of it never run."
        yield at(scripts, "warning", "reserved-event", message)
    elif event == TEST_EVENT:
        yield at(
            scripts,
            "info",
            "own-event",
            f"{event} is Bascule's own on hosts: it runs in blue/green and canary deployments when"
            " the test route leads to the new pool. CodeDeploy does not run it.",
        )
    elif event not in _events.HOOKS:
        close = difflib.get_close_matches(event, _events.HOOKS, 1)
        hint = f" Did you mean {close[0]}?" if close else ""
        yield at(
            scripts,
            "warning",
            "unknown-event",
            f"{event} is no lifecycle event of a host; its scripts never run.{hint}",
        )
    if scripts.kind != "list":
        return
    total = 0
    for node, script in zip(scripts.value, appspec["hooks"].get(event, ()), strict=True):
        yield from _unknown_keys(node, "hooks")
        yield from _script(node, script)
        total += script["timeout"] if node.get("timeout") is not None else 0
    if total > EVENT_LIMIT:
        yield at(
            scripts,
            "warning",
            "timeout-limit",
            f"The timeouts of {event} add up to {total} seconds; CodeDeploy's service ends an event"
            f" after {EVENT_LIMIT}.",
        )


def _script(node: Node, script: dict[str, Any]) -> Iterator[Finding]:
    location, timeout = node.get("location"), node.get("timeout")
    sudo, runas = node.get("sudo"), node.get("runas")
    if location is not None and re.search(r"\s", script["location"]):
        yield at(
            location,
            "warning",
            "location-space",
            "The location holds a space. It is one file name: arguments are not possible here, and"
            " CodeDeploy's agent 1 does not find the script.",
        )
    elif location is not None and _SHELL.search(script["location"]):
        yield at(
            location,
            "warning",
            "location-special",
            "The location holds a character that means something to a shell, which CodeDeploy's"
            " agent 1 gives it to. Rename the script.",
        )
    if timeout is not None and isinstance(timeout.value, str):
        yield at(
            timeout,
            "warning",
            "timeout-text",
            f"The timeout {timeout.text()!r} is a text. Agent 1 reads {script['timeout']} seconds,"
            " agent 2 refuses it. Write a number.",
        )
    if timeout is not None and timeout.plain and ":" in timeout.raw:
        yield at(
            timeout,
            "warning",
            "timeout-sexagesimal",
            f"YAML reads {timeout.raw} as {script['timeout']} seconds. Write the number.",
        )
    if sudo is not None and not isinstance(sudo.value, bool):
        yield at(
            sudo,
            "warning",
            "sudo-text",
            f"sudo is {sudo.text()!r}, which agent 1 takes for yes and agent 2 refuses. Write true"
            " or false.",
        )
    if runas is not None and not runas.text().strip():
        yield at(
            runas,
            "warning",
            "runas-empty",
            "runas is empty. Agent 1 runs the script as root through a broken su command; here it"
            " counts as not given.",
        )


def _permission(node: Node) -> Iterator[Finding]:
    context = node.get("context")
    if context is not None:
        yield from _unknown_keys(context, "context")
        if context.get("range") is None:
            yield at(
                context,
                "warning",
                "context-range",
                "The context has no range, for which CodeDeploy's agent 1 fails at Install.",
            )
    yield from _mode(node)
    yield from _pattern(node)
    for field in ("owner", "group"):
        account = node.get(field)
        if account is None or account.is_absent:
            continue
        if not isinstance(account.value, str):
            yield at(
                account,
                "warning",
                "numeric-owner",
                f"The {field} {account.text()} is a number, for which CodeDeploy's agent 1 fails at"
                " Install.",
            )


def _mode(node: Node) -> Iterator[Finding]:
    mode = node.get("mode")
    if mode is None:
        return
    if mode.plain and isinstance(mode.value, int) and _UNQUOTED_MODE.match(mode.raw):
        agent = str(mode.value)
        fate = "refuses it" if set(agent) & set("89") else f"sets {agent.rjust(4, '0')}"
        yield at(
            mode,
            "warning",
            "unquoted-mode",
            f"The mode {mode.raw} is written without quotes. YAML reads the number {agent}, and"
            f" CodeDeploy's agent 1 {fate}. Write '{mode.raw}'.",
        )
    if mode.text() == "":
        yield at(mode, "warning", "empty-mode", "An empty mode means 000: nobody may do anything.")
    acls = node.get("acls")
    digits = mode.raw.rjust(3, "0")
    if acls is None or not digits[-2].isdigit():
        return
    for entry in acls.value:
        parsed = _acl.parse_entry(entry.raw)
        lost = {"r": 4, "w": 2, "x": 1}
        cut = [one for one in parsed.permissions if one in lost and not int(digits[-2]) & lost[one]]
        if parsed.name and not parsed.default and cut:
            yield at(
                entry,
                "warning",
                "acl-masked",
                f"The entry {entry.raw} has no full effect: the mask is made from the group's part"
                f" of the mode {mode.raw}, which lacks {''.join(cut)}.",
            )


def _pattern(node: Node) -> Iterator[Finding]:
    pattern = node.get("pattern")
    if pattern is not None and "/" in pattern.text():
        yield at(
            pattern,
            "warning",
            "pattern-never-matches",
            f"The pattern {pattern.text()} can never match: only ** reaches deeper than one level.",
        )
    elif pattern is not None and re.search(r"[?\[\]]", pattern.text()):
        yield at(
            pattern,
            "warning",
            "pattern-literal",
            f"In the pattern {pattern.text()} only * is special; ? and brackets stand for"
            " themselves.",
        )
    exceptions = node.get("except")
    for one in exceptions.value if exceptions is not None and exceptions.kind == "list" else ():
        if "/" in one.text():
            yield at(
                one,
                "warning",
                "except-never-matches",
                f"The exception {one.text()} can never match: exceptions are names right below the"
                " object.",
            )
