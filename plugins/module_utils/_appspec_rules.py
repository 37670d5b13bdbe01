# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The AppSpec grammar for hosts: from YAML nodes to one plain tree.

Lenient by default: what CodeDeploy's agent 1 or agent 2 accepts is accepted. Messages that begin
"The deployment failed because" follow the agent's (application_specification.rb, 1.8.1).
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from ._appspec_yaml import BLANKS, LocatedError, ruby_text
from ._host import _acl

if TYPE_CHECKING:
    from ._appspec_yaml import Node

STRICT = ("agent-v1", "agent-v2")
BEHAVIORS = ("DISALLOW", "OVERWRITE", "RETAIN")
DEFAULT_TIMEOUT = 3600
RUN_WHEN = ("success", "failure", "always")
_AGAIN = "and then try again."
_A_SCRIPT = "'- location: scripts/start.sh'"
_OCTAL = re.compile(r"0[0-7]{1,4}\Z")
# A whole number as YAML 1.2 knows it, which agent 2 reads.
_WHOLE = re.compile(r"(?:0|[1-9][0-9]*|0x[0-9a-fA-F]+|0o[0-7]+|0b[01]+)\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def build(root: Node, strict: str | None) -> dict[str, Any]:
    """Check a document in the agent's order (the first failure wins) and return its tree."""
    if root.kind != "map":
        raise root.error(
            "The AppSpec file must be a map with the keys 'version', 'os', 'files' and 'hooks',"
            f" not {_what(root)}.",
            "structure",
        )
    return {
        "version": _version(root),
        "os": _os(root),
        "hooks": _hooks(root.get("hooks"), strict),
        "files": _files(root.get("files"), strict),
        "permissions": _permissions(root.get("permissions"), strict),
        "file_exists_behavior": _behavior(root.get("file_exists_behavior")),
    }


def _what(node: Node) -> str:
    return {"map": "a map", "list": "a list"}.get(node.kind, f"the value {node.text()!r}")


def _version(root: Node) -> float:
    node = root.get("version")
    value = node.data() if node else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != 0:
        raise (node or root).error(
            f"The deployment failed because an invalid version value ({ruby_text(value)}) was"
            " entered in the application specification file. Make sure your AppSpec file specifies"
            f' "0.0" as the version, {_AGAIN}',
            "version",
        )
    return 0.0


def _os(root: Node) -> str:
    node = root.get("os")
    name = node.text() if node else ""
    if node is None or node.value != "linux":
        wanted = (
            "These hosts run Linux: this revision is for Windows, and cannot be deployed here."
            if name == "windows"
            else 'Specify either "linux" or "windows" in the os section of the AppSpec file,'
            f" {_AGAIN}"
        )
        raise (node or root).error(
            "The deployment failed because the application specification file specifies an"
            f" unsupported operating system ({name}). {wanted}",
            "os",
        )
    return name


def _behavior(node: Node | None) -> str | None:
    if node is None:
        return None
    if node.value not in BEHAVIORS:
        raise node.error(
            f"The deployment failed because an invalid file_exists_behavior value ({node.text()})"
            " was entered in the application specification file. Make sure your AppSpec file"
            f" specifies one of {','.join(BEHAVIORS)} as the file_exists_behavior, {_AGAIN}",
            "file-exists-behavior",
        )
    return str(node.value)


def _entries(node: Node | None, section: str, example: str, *, optional: bool = True) -> list[Node]:
    """Return the maps of a section, or say how the section should look.

    :param optional: whether false, too, stands for a section that is not there
    """
    if node is None or node.is_empty or (optional and node.is_absent):
        return []
    if node.kind != "list":
        raise node.error(f"{section} must be a list, such as {example}, not {_what(node)}.", "type")
    for item in node.value:
        if item.kind != "map":
            raise item.error(
                f"Each entry of {section} must be a map, such as {example}, not {_what(item)}.",
                "type",
            )
    return list(node.value)


# -- hooks -----------------------------------------------------------------------------------------


def _hooks(node: Node | None, strict: str | None) -> dict[str, list[dict[str, Any]]]:
    if node is None or node.is_absent or (node.kind == "map" and not node.value):
        return {}
    if node.kind != "map":
        raise node.error(
            "hooks must be a map from a lifecycle event to a list of scripts, such as"
            f" 'ApplicationStart: [{{location: scripts/start.sh}}]', not {_what(node)}.",
            "type",
        )
    return {
        event: [
            _script(item, event, strict)
            for item in _entries(scripts, f"hooks: {event}", _A_SCRIPT, optional=False)
        ]
        for event, scripts in node.value.items()
        if not scripts.is_empty and scripts.value != ""
    }


def _script(item: Node, event: str, strict: str | None) -> dict[str, Any]:
    location = item.get("location")
    text = location.text().strip(BLANKS) if location else ""
    if not text or "\0" in text:
        raise (location or item).error(
            "The deployment failed because the application specification file specifies a script"
            " with no location value. Specify the location in the hooks section of the AppSpec"
            f" file, {_AGAIN}",
            "location",
        )
    runas = item.get("runas")
    user = runas.text().strip(BLANKS) if runas else ""
    if "\0" in user or user.startswith("-"):
        raise (runas or item).error(f"runas must be the name of a user, not {user!r}.", "runas")
    script: dict[str, Any] = {
        "location": text,
        "timeout": _timeout(item, strict),
        "runas": (user or None) if runas is None or strict == "agent-v2" else user,
        "sudo": _sudo(item.get("sudo"), strict),
    }
    if strict is None:
        script.update(_extensions(item, event))
    return script


def _timeout(item: Node, strict: str | None) -> int:
    node = item.get("timeout")
    if node is None or node.value is False:
        return DEFAULT_TIMEOUT
    value = node.data()
    seconds = 0
    if strict == "agent-v2" and not (node.plain and _WHOLE.match(node.raw)):
        seconds = 0
    elif (
        strict != "agent-v1" and node.plain and node.raw.startswith("0o") and _WHOLE.match(node.raw)
    ):
        # YAML 1.2's octal numbers, which agent 2 reads and agent 1 takes for 0.
        seconds = int(node.raw[:32], 8)
    elif isinstance(value, str):
        # Ruby's to_i: the number at the start, whatever follows.
        digits = re.match(r"\s*([+-]?\d+(?:_\d+)*)", value[:64], re.ASCII)
        seconds = int(digits.group(1).replace("_", "")) if digits else 0
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        seconds = int(value)
    if seconds <= 0:
        raise node.error(
            "The deployment failed because an invalid timeout value was provided for a script in"
            " the application specification file. Make corrections in the hooks section of the"
            f" AppSpec file, {_AGAIN} A timeout is a whole number of seconds above 0, not"
            f" {node.text()!r}.",
            "timeout",
        )
    return seconds


def _sudo(node: Node | None, strict: str | None) -> bool:
    if node is None:
        return False
    if strict == "agent-v2" and not (node.plain and node.raw.lower() in ("true", "false")):
        raise node.error(f"sudo must be true or false, not {node.raw or node.text()!r}.", "sudo")
    # Agent 1 takes everything but false and null for yes, the text "false" included.
    return node.value is not False


def _extensions(item: Node, event: str) -> dict[str, Any]:
    """Read what Bascule adds to a script; CodeDeploy ignores these keys."""
    result: dict[str, Any] = {}
    arguments = item.get("arguments")
    if arguments is not None:
        if arguments.kind != "list" or any(a.kind != "scalar" for a in arguments.value):
            raise arguments.error(
                f"arguments of a script of {event} must be a list of texts.", "arguments"
            )
        result["arguments"] = [a.raw if a.plain else a.text() for a in arguments.value]
    environment = item.get("environment")
    if environment is not None:
        values = environment.value if environment.kind == "map" else None
        if values is None or any(
            not _VARIABLE.match(name) or value.kind != "scalar" for name, value in values.items()
        ):
            raise environment.error(
                f"environment of a script of {event} must be a map from variable names to texts.",
                "environment",
            )
        result["environment"] = {
            name: value.raw if value.plain else value.text() for name, value in values.items()
        }
    retries = item.get("retries")
    if retries is not None:
        number = retries.value
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= 100:
            raise retries.error(
                f"retries of a script of {event} must be a whole number from 0 to 100.", "retries"
            )
        result["retries"] = number
    when = item.get("run_on")
    if when is not None:
        if when.value not in RUN_WHEN:
            raise when.error(
                f"run_on of a script of {event} must be success, failure or always.", "run-on"
            )
        result["run_on"] = when.value
    return result


# -- files -----------------------------------------------------------------------------------------


def _files(node: Node | None, strict: str | None) -> list[dict[str, str]]:
    result = []
    for item in _entries(node, "files", "'- {source: /, destination: /srv/app}'"):
        source, destination = item.get("source"), item.get("destination")
        if source is None or (strict == "agent-v2" and source.raw == "" == source.value):
            raise item.error(
                "The deployment failed because the application specification file specifies a"
                " destination file, but no source file. Update the files section of the AppSpec"
                f" file, {_AGAIN}",
                "source",
            )
        if destination is None or (
            strict == "agent-v2" and destination.raw == "" == destination.value
        ):
            raise item.error(
                "The deployment failed because the application specification file specifies only a"
                f" source file ({source.text()}). Add the name of the destination file to the files"
                f" section of the AppSpec file, {_AGAIN}",
                "destination",
            )
        result.append(
            {
                "source": _path(source, "source", strict),
                "destination": _path(destination, "destination", strict),
            }
        )
    return result


def _path(node: Node, field: str, strict: str | None) -> str:
    if node.kind != "scalar" or (strict == "agent-v1" and not isinstance(node.value, str)):
        raise node.error(f"{field} of files must be a path, not {_what(node)}.", "type")
    text = node.value if isinstance(node.value, str) else node.raw
    if "\0" in text:
        raise node.error(f"{field} of files holds a null byte.", "type")
    return str(text)


# -- permissions -----------------------------------------------------------------------------------


def _permissions(node: Node | None, strict: str | None) -> list[dict[str, Any]]:
    return [
        _permission(item, strict)
        for item in _entries(node, "permissions", "'- {object: /srv/app, owner: www-data}'")
    ]


def _permission(item: Node, strict: str | None) -> dict[str, Any]:
    subject = item.get("object")
    path = subject.text().strip(BLANKS) if subject else ""
    if not path or "\0" in path:
        raise item.error(
            "The deployment failed because a permission listed in the application specification"
            " file has no object value. Update the permissions section of the AppSpec file,"
            f" {_AGAIN}",
            "object",
        )
    pattern = item.get("pattern")
    return {
        "object": path,
        "pattern": "**" if pattern is None or pattern.is_absent else pattern.text(),
        "except": [entry.text() for entry in _list(item, "except")],
        "type": _types(item),
        "owner": _account(item, "owner", strict),
        "group": _account(item, "group", strict),
        "mode": _mode(item, strict),
        "acls": _acls(item),
        "context": _context(item, strict),
    }


def _list(item: Node, field: str) -> list[Node]:
    node = item.get(field)
    if node is None or node.is_absent or node.is_empty:
        return []
    if node.kind != "list":
        raise node.error(
            f"{field} of a permission must be a list, such as '{field}: [{node.text()}]', not"
            f" {_what(node)}.",
            "type",
        )
    return list(node.value)


def _types(item: Node) -> list[str]:
    node = item.get("type")
    if node is None or node.is_absent:
        return ["file", "directory"]
    result = []
    for entry in _list(item, "type"):
        if entry.value not in ("file", "directory"):
            raise entry.error(
                "The deployment failed because the application specification file specifies a"
                f" permission for an object type not supported for permissions ({entry.text()})."
                f" Update the permissions section of the AppSpec file, {_AGAIN} The types are file"
                " and directory.",
                "permission-type",
            )
        result.append(str(entry.value))
    return result


def _account(item: Node, field: str, strict: str | None) -> str | None:
    node = item.get(field)
    if node is None or (node.is_absent and strict != "agent-v2"):
        return None
    if node.kind != "scalar" or (strict == "agent-v1" and not isinstance(node.value, str)):
        raise node.error(f"{field} must be a name, not {_what(node)}.", "owner")
    text = node.raw if node.plain else node.text()
    if "\0" in text:
        raise node.error(f"{field} must be a name or a number, not {text!r}.", "owner")
    return text


def _mode(item: Node, strict: str | None) -> str | None:
    node = item.get("mode")
    if node is None:
        return None
    # Unquoted 0644 is the number 420 in YAML 1.1. Agent 1 goes on to set 0420; agent 2 and the
    # author of the file mean 0644.
    octal = node.plain and isinstance(node.value, int) and _OCTAL.match(node.raw)
    text = node.raw if octal and strict != "agent-v1" else node.text()
    digits = text.rjust(3, "0")
    if len(digits) == 5 and digits[0] == "0" and octal and strict is None:
        digits = digits[1:]
    update = f"Update the permissions section of the AppSpec file, {_AGAIN}"
    if octal and text != node.raw:
        update += (
            f" The mode is written {node.raw} without quotes, which YAML reads as the number"
            f" {node.value}: write '{node.raw}'."
        )
    if len(digits) > 4:
        raise node.error(
            f"The deployment failed because the length of a permissions mode ({digits}) in the"
            " application specification file is invalid. Permissions modes must be between one"
            f" and four characters long. {update}",
            "mode",
        )
    for digit in digits:
        if digit not in "01234567":
            raise node.error(
                f"The deployment failed because the permissions mode ({digits}) in the application"
                f" specification file contains an invalid character ({digit}). {update}",
                "mode",
            )
    return digits


def _acls(item: Node) -> list[str] | None:
    node = item.get("acls")
    if node is None:
        return None
    if node.is_absent:
        raise node.error("acls must be a list of entries, not false.", "acl")
    result = []
    for entry in _list(item, "acls"):
        text = entry.raw if entry.plain else entry.text()
        try:
            _acl.parse_entry(text)
        except ValueError as error:
            raise entry.error(
                "The deployment failed because of a problem with the acls permission settings in"
                f" the application specification file. {error} Update the permissions section of"
                f" the AppSpec file, {_AGAIN} An entry is such as 'u:www-data:r-x'.",
                "acl",
            ) from error
        result.append(text)
    return result


def _context(item: Node, strict: str | None) -> dict[str, str | None] | None:
    node = item.get("context")
    if node is None:
        return None
    if node.kind != "map" or node.get("type") is None:
        raise node.error(
            "The deployment failed because the application specification file specifies an invalid"
            f" context type ({node.text()}). Update the permissions section of the AppSpec file,"
            f" {_AGAIN} A context is a map with a type, such as {{type: httpd_t, range: s0}}.",
            "context",
        )
    result: dict[str, str | None] = {}
    for field in ("name", "type", "range"):
        value = node.get(field)
        result[field] = value.text() if value else None
    if result["range"] is None and strict == "agent-v1":
        raise node.error(
            "A context without a range fails at Install on CodeDeploy's agent 1. Add range: s0.",
            "context",
        )
    if result["range"] is not None:
        try:
            _acl.check_range(result["range"])
        except ValueError as error:
            raise node.error(
                "The deployment failed because of a problem with the SELinux range specified"
                f" ({result['range']}) for the context parameter in the permissions section of the"
                f" application specification file: {error}. Make corrections in the permissions"
                f" section of the AppSpec file, {_AGAIN}",
                "context",
            ) from error
    return result


def check_strict(strict: str | None) -> None:
    """Refuse an unknown strictness."""
    if strict is not None and strict not in STRICT:
        raise LocatedError(
            f"Unknown strictness {strict!r}, wanted one of {', '.join(STRICT)}.", code="usage"
        )
