# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is deployed to a Lambda function: its code and its configuration, named by a digest. Pure.

The words are those of the variables: ``{"memory": MB, "timeout": seconds, "environment": {name:
value}, "handler", "runtime", "layers": [ARN], "ephemeral_storage": MB}``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ._appspec_lambda import EVENTS
from ._errors import UsageError

PLATFORM = "lambda"
DEFAULT_ALIAS = "live"

# The limits of Lambda (developer guide, "Lambda quotas").
_NUMBERS = {"memory": (128, 10240), "timeout": (1, 900), "ephemeral_storage": (512, 10240)}
_TEXTS = ("handler", "runtime")
_MOST_LAYERS = 5
_IN_API = {
    "memory": "MemorySize",
    "timeout": "Timeout",
    "handler": "Handler",
    "runtime": "Runtime",
}
_VARIABLE = re.compile(r"[A-Za-z][A-Za-z0-9_]+\Z")
_IMAGE = re.compile(r"(?:docker://)?(\d{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?/\S+)\Z")
# Who reads the record must not find a value by trying likely ones: a guess costs 16 MB and 50 ms.
_SCRYPT = {"n": 2**14, "r": 8, "p": 1, "dklen": 16}


@dataclass(frozen=True)
class FunctionSettings:
    """A function as the inventory knows it; ``configuration`` holds only what is to be set.

    ``package`` is a path inside the revision, ``image`` the address of an image; both may be
    empty. ``hooks`` are functions by their event.
    """

    target: str
    function: str
    alias: str = DEFAULT_ALIAS
    package: str = ""
    image: str = ""
    configuration: dict[str, Any] = field(default_factory=dict)
    provisioned_concurrency: int = 0
    hooks: dict[str, str] = field(default_factory=dict)


def is_lambda(settings: Mapping[str, Any]) -> bool:
    """Tell whether the settings of a deployment group are those of functions."""
    return bool(settings.get("deploy_compute_platform") == PLATFORM)


def image_address(text: str) -> str | None:
    """Return the address of an image in ECR; None where the text is none."""
    found = _IMAGE.match(text.strip())
    return found.group(1) if found else None


def parse_configuration(value: Any, name: str = "deploy_lambda_configuration") -> dict[str, Any]:
    """Check what is to be set of a function's configuration; absent keys stay as they are.

    :raises UsageError: naming the key that does not fit; never with the value of an environment
        variable
    """
    if not isinstance(value, Mapping):
        raise UsageError(f"{name} must be a map such as {{memory: 256, timeout: 30}}.")
    known = {*_NUMBERS, *_TEXTS, "environment", "layers"}
    unknown = sorted(set(map(str, value)) - known)
    if unknown:
        raise UsageError(
            f"{name} has the unknown keys {', '.join(unknown)}; there are "
            f"{', '.join(sorted(known))}."
        )
    found: dict[str, Any] = {}
    for key, given in value.items():
        if given is None:
            continue
        where = f"{name}.{key}"
        if key in _NUMBERS:
            found[key] = _number(given, where, *_NUMBERS[key])
        elif key in _TEXTS:
            found[key] = str(given)
        elif key == "layers":
            found[key] = _layers(given, where)
        else:
            found[key] = _environment(given, where)
    return found


def parse_hooks(value: Any, name: str = "deploy_lambda_hooks") -> dict[str, str]:
    """Check functions by their event.

    :raises UsageError: an event that there is not
    """
    if not isinstance(value, Mapping) or set(map(str, value)) - set(EVENTS):
        raise UsageError(f"{name} must be a map of {' and '.join(EVENTS)} to functions.")
    return {str(event): str(function) for event, function in value.items() if function}


def _number(value: Any, name: str, least: int, most: int) -> int:
    try:
        number = int(str(value))
    except ValueError:
        number = -1
    if not least <= number <= most:
        raise UsageError(f"{name} is {value!r}; wanted is a number from {least} to {most}.")
    return number


def _layers(value: Any, name: str) -> list[str]:
    fits = isinstance(value, Sequence) and not isinstance(value, str) and len(value) <= _MOST_LAYERS
    if not fits or not all(str(one).startswith("arn:") for one in value):
        raise UsageError(
            f"{name} must be a list of at most {_MOST_LAYERS} ARNs of versions of layers."
        )
    return [str(one) for one in value]


def _environment(value: Any, name: str) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise UsageError(f"{name} must be a map of variables.")
    for variable, text in value.items():
        if not _VARIABLE.match(str(variable)) or isinstance(text, (dict, list)):
            raise UsageError(
                f"{name}.{variable} does not fit: a name begins with a letter and has letters, "
                "digits and underscores, at least two; a value is a text."
            )
    return {str(variable): _plain(text) for variable, text in value.items()}


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def seen_configuration(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration that Lambda tells of a function or of a version of it."""
    seen: dict[str, Any] = {ours: told.get(theirs) for ours, theirs in _IN_API.items()}
    seen["ephemeral_storage"] = (told.get("EphemeralStorage") or {}).get("Size")
    seen["layers"] = [layer["Arn"] for layer in told.get("Layers") or []]
    seen["environment"] = dict((told.get("Environment") or {}).get("Variables") or {})
    return seen


def api_changes(seen: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of UpdateFunctionConfiguration that make ``seen`` as ``wanted``."""
    changes: dict[str, Any] = {}
    for key, value in wanted.items():
        if seen.get(key) == value:
            continue
        if key == "environment":
            changes["Environment"] = {"Variables": value}
        elif key == "layers":
            changes["Layers"] = value
        elif key == "ephemeral_storage":
            changes["EphemeralStorage"] = {"Size": value}
        else:
            changes[_IN_API[key]] = value
    return changes


def recorded_configuration(configuration: Mapping[str, Any], function: str) -> dict[str, Any]:
    """Return a configuration as it may be written down: names of variables, no value of them."""
    environment = configuration.get("environment") or {}
    kept = {key: value for key, value in configuration.items() if key != "environment"}
    return {
        **kept,
        "environment": {
            "names": sorted(environment),
            "digest": environment_digest(environment, function) if environment else "",
        },
    }


def environment_digest(environment: Mapping[str, str], function: str) -> str:
    """Name the values of a function's environment variables without telling them."""
    text = _canonical(dict(environment))
    made = hashlib.scrypt(text, salt=f"bascule {function}".encode(), **_SCRYPT)
    return made.hex()


def revision_digest(functions: Mapping[str, Mapping[str, Any]]) -> str:
    """Name what is deployed: SHA-256 over the code and the configuration of every function.

    :param functions: by target, each ``{"function", "alias", "code_sha256", "configuration" (as
        recorded), "hooks", "target_version"}``
    """
    keys = ("function", "alias", "code_sha256", "configuration", "hooks", "target_version")
    named = {
        target: {key: function.get(key) for key in keys} for target, function in functions.items()
    }
    return hashlib.sha256(b"bascule lambda 1\n" + _canonical(named)).hexdigest()


def _canonical(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Tell what of a recorded configuration changes, a line each, without any secret."""
    lines = []
    for key in sorted({*before, *after}):
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        if key != "environment":
            lines.append(f"{key}: {old} -> {new}")
            continue
        was, will = set((old or {}).get("names", [])), set((new or {}).get("names", []))
        told = [f"+{name}" for name in sorted(will - was)] + [
            f"-{name}" for name in sorted(was - will)
        ]
        lines.append(f"environment: {', '.join(told) or 'values of ' + ', '.join(sorted(will))}")
    return lines
