# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings of one function: what a task gives, and what the inventory says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...module_utils._configuration import parse_duration
from ...module_utils._errors import UsageError
from ...module_utils._functions import FunctionSettings, parse_configuration, parse_hooks

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "deploy_lambda_"

# The names of the public variables without their prefix; the role fills them from its variables.
FUNCTION_OPTIONS: dict[str, dict[str, Any]] = {
    "function": {"type": "str", "required": True},
    "alias": {"type": "str", "required": True},
    "package": {"type": "str", "default": ""},
    "image": {"type": "str", "default": ""},
    "configuration": {"type": "dict", "default": {}, "no_log": True},
    "provisioned_concurrency": {"type": "int", "default": 0},
    "hooks": {"type": "dict", "default": {}},
    "hook_listen": {"type": "str", "default": ""},
    "hook_timeout": {"type": "raw", "default": "1h"},
    "versions_to_keep": {"type": "int", "default": -1},
    "versions_min_age": {"type": "raw", "default": "0"},
}
# Those that name what is deployed, and may be another for each target.
OWN = ("function", "alias", "package", "image", "configuration", "provisioned_concurrency", "hooks")
LONGEST_HOOK = 3600.0


def function_settings(target: str, given: Mapping[str, Any]) -> FunctionSettings:
    """Return the settings of a target.

    :param given: values by the names of ``OWN``
    :raises UsageError: naming the variable that does not fit
    """
    number = str(given.get("provisioned_concurrency") or 0)
    if not number.isdigit():
        raise UsageError(
            f"{PREFIX}provisioned_concurrency of {target} is {number!r}; wanted is a number."
        )
    return FunctionSettings(
        target=target,
        function=str(given.get("function") or target),
        alias=str(given.get("alias") or ""),
        package=str(given.get("package") or ""),
        image=str(given.get("image") or ""),
        configuration=parse_configuration(given.get("configuration") or {}),
        provisioned_concurrency=int(number),
        hooks=parse_hooks(given.get("hooks") or {}),
    )


def hook_limit(given: Any) -> float:
    """Return the seconds that a hook has.

    :raises UsageError: more than CodeDeploy's hour
    """
    seconds = parse_duration(given, f"{PREFIX}hook_timeout")
    if not 0 < seconds <= LONGEST_HOOK:
        raise UsageError(f"{PREFIX}hook_timeout is {given!r}; wanted is at most 1h.")
    return seconds
