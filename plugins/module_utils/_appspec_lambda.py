# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The AppSpec file for Lambda: which version an alias gets, and which functions check it.

Rules: CodeDeploy's user guide, "AppSpec 'resources' section" and "AppSpec 'hooks' section for an
AWS Lambda deployment". Every key is written in capitals (``Resources``, ``CurrentVersion``) or
small (``resources``, ``currentversion``); a file is YAML or JSON.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _appspec_yaml
from ._findings_model import Finding, at

if TYPE_CHECKING:
    from ._appspec_yaml import Node

FUNCTION_TYPE = "AWS::Lambda::Function"
BEFORE, AFTER = "BeforeAllowTraffic", "AfterAllowTraffic"
EVENTS = (BEFORE, AFTER)
LATEST = "$LATEST"

_TOP = ("version", "resources", "hooks")
_RESOURCE = ("type", "properties")
_PROPERTIES = ("name", "alias", "currentversion", "targetversion")
_SHOWN = {
    "version": "version", "resources": "Resources", "hooks": "Hooks", "type": "Type",
    "properties": "Properties", "name": "Name", "alias": "Alias",
    "currentversion": "CurrentVersion", "targetversion": "TargetVersion",
}  # fmt: skip


def is_lambda(root: Node) -> bool:
    """Tell whether a file is one for functions or services: hosts have no resources."""
    return root.kind == "map" and _member(root, "resources") is not None


def load(text: bytes | str) -> Node:
    """Read the file with the places of its values; JSON may be indented by tabs.

    :raises AppSpecError: it is neither YAML nor JSON
    """
    # A text in JSON has no tab in it, so these are all between its values.
    if isinstance(text, bytes):
        text = text.replace(b"\t", b" ") if text.lstrip().startswith(b"{") else text
    else:
        text = text.replace("\t", " ") if text.lstrip().startswith("{") else text
    return _appspec_yaml.load(text)


def parse_lambda_appspec(text: bytes | str, *, published: bool = True) -> dict[str, Any]:
    """Return the tree of an AppSpec file for Lambda.

    ``{"version": 0.0, "platform": "lambda", "resource": its name, "function", "alias",
    "current_version", "target_version", "hooks": {event: function}}``

    :param published: whether the versions must be named; a file that comes with a package may
        leave out ``CurrentVersion`` and ``TargetVersion``, which are None then
    :raises AppSpecError: with the line and column where there are any
    """
    return build(load(text), published=published)


def build(root: Node, *, published: bool = True) -> dict[str, Any]:
    """Return the tree of a file that was read; see ``parse_lambda_appspec``."""
    if root.kind != "map":
        raise root.error("An AppSpec file is a map with version, Resources and Hooks.")
    top = _members(root, _TOP, "the AppSpec file")
    version = top.get("version")
    if version is None or str(version.value) not in ("0.0", "0"):
        raise (version or root).error("The version must be 0.0, the only one there is.", "version")
    resource, properties = _resource(top.get("resources"), root)
    return {
        "version": 0.0,
        "platform": "lambda",
        "resource": resource,
        "function": _text(properties, "name", properties["."]),
        "alias": _text(properties, "alias", properties["."]),
        "current_version": _version(properties, "currentversion", published),
        "target_version": _version(properties, "targetversion", published),
        "hooks": _hooks(top.get("hooks")),
    }


def hazards(root: Node, appspec: dict[str, Any]) -> list[Finding]:
    """Return what a reader of an accepted file should know."""
    if appspec["current_version"] is None:
        return []
    if appspec["current_version"] == appspec["target_version"]:
        message = (
            f"CurrentVersion and TargetVersion are both {appspec['target_version']}: no traffic "
            "is shifted."
        )
        return [at(root, "warning", "same-version", message)]
    return []


def _resource(node: Node | None, root: Node) -> tuple[str, dict[str, Node]]:
    """Return the name of the one resource, and its properties; "." is where they stand."""
    if node is None or node.kind != "list" or len(node.value) != 1:
        raise (node or root).error(
            "Resources must be a list with one function. CodeDeploy deploys one function at a "
            "time; deploy several by an inventory with a target for each.",
            "resources",
        )
    entry = node.value[0]
    if entry.kind != "map" or len(entry.value) != 1:
        raise entry.error(
            "A resource is one name of your own with Type and Properties below.", "resources"
        )
    name, body = next(iter(entry.value.items()))
    if body.kind != "map":
        raise body.error(f"The resource {name} must have Type and Properties.", "resources")
    parts = _members(body, _RESOURCE, f"the resource {name}")
    kind = parts.get("type")
    if kind is None or kind.value != FUNCTION_TYPE:
        raise (kind or body).error(
            f"The Type of {name} must be {FUNCTION_TYPE}; Bascule deploys to hosts and to Lambda.",
            "type",
        )
    properties = parts.get("properties")
    if properties is None or properties.kind != "map":
        raise (properties or body).error(
            f"The resource {name} must have Properties: Name, Alias, CurrentVersion, "
            "TargetVersion.",
            "properties",
        )
    return str(name), {
        ".": properties,
        **_members(properties, _PROPERTIES, f"the Properties of {name}"),
    }


def _hooks(node: Node | None) -> dict[str, str]:
    if node is None:
        return {}
    if node.kind != "list":
        raise node.error(
            f"Hooks must be a list, such as `- {BEFORE}: name-of-a-function`.", "hooks"
        )
    hooks: dict[str, str] = {}
    for entry in node.value:
        if entry.kind != "map" or len(entry.value) != 1:
            raise entry.error("A hook is one event with the name of a function.", "hooks")
        event, function = next(iter(entry.value.items()))
        if event not in EVENTS:
            raise entry.error(
                f"{event} is no event of a Lambda deployment; there are {' and '.join(EVENTS)}.",
                "hooks",
            )
        if event in hooks:
            raise entry.error(f"{event} is named twice; it runs one function.", "hooks")
        if function.kind != "scalar" or not str(function.value or "").strip():
            raise function.error(f"{event} must be the name or the ARN of a function.", "hooks")
        hooks[event] = str(function.value).strip()
    return hooks


def _member(node: Node, wanted: str) -> Node | None:
    return node.get(_SHOWN[wanted]) or node.get(wanted)


def _members(node: Node, known: tuple[str, ...], what: str) -> dict[str, Node]:
    """Return the members of a map by their small names; null is as good as missing."""
    found: dict[str, Node] = {}
    for key, value in node.value.items():
        small = next((one for one in known if key in (one, _SHOWN[one])), None)
        if small is None:
            wanted = ", ".join(_SHOWN[one] for one in known)
            raise value.error(f"{key!r} is unknown in {what}; there are {wanted}.", "unknown-key")
        if small in found:
            raise value.error(f"{_SHOWN[small]} is written twice in {what}.", "duplicate-key")
        if not value.is_null:
            found[small] = value
    return found


def _text(properties: dict[str, Node], name: str, place: Node) -> str:
    node = properties.get(name)
    if node is None or node.kind != "scalar" or not str(node.value).strip():
        raise (node or place).error(f"{_SHOWN[name]} must be a text.", name)
    return str(node.value).strip()


def _version(properties: dict[str, Node], name: str, published: bool) -> str | None:
    if not published and name not in properties:
        return None
    text = _text(properties, name, properties["."])
    if text == LATEST or not text.isdigit():
        raise properties[name].error(
            f"{_SHOWN[name]} is {text!r}; wanted is the number of a published version.", name
        )
    return text
