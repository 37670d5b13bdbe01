# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What users write about speed and safety, turned into numbers.

Pure functions over plain values. A value may come from YAML (typed) or from ``-e NAME=VALUE``
(always text), so a number and its text mean the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ._errors import PlanError, UsageError

HOST_COUNT = "HOST_COUNT"
FLEET_PERCENT = "FLEET_PERCENT"
MOST_CONCURRENCY = "MOST_CONCURRENCY"

# What CodeDeploy says of a configuration of its own.
_DESCRIBED = frozenset(
    {
        "minimumHealthyHosts", "zonalConfig", "deploymentConfigName", "deploymentConfigId",
        "createTime", "computePlatform", "trafficRoutingConfig",
    }
)  # fmt: skip
_PREFIX = "CodeDeployDefault."
_INTEGER = re.compile(r"[0-9]+\Z")
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?%\Z")
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(ms|s|m|h|d)? ?")
_SECONDS: dict[str, Fraction] = {
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3600),
    "d": Fraction(86400),
}


@dataclass(frozen=True)
class MinimumHealthy:
    """How many targets must stay healthy, before the number of targets is known.

    ``kind`` is HOST_COUNT (``value`` targets), FLEET_PERCENT (``value`` percent of them, rounded
    up) or MOST_CONCURRENCY (all but ``value``: CodeDeploy's OneAtATime).
    """

    kind: str
    value: Fraction

    def of(self, total: int) -> int:
        """Return the number of targets of ``total`` that must stay healthy."""
        if self.kind == HOST_COUNT:
            return int(self.value)
        if self.kind == MOST_CONCURRENCY:
            return max(0, total - int(self.value))
        return _ceiling(total * self.value / 100)

    def __str__(self) -> str:
        """As a person would write it."""
        if self.kind == MOST_CONCURRENCY:
            return f"all but {_number(self.value)}"
        return _number(self.value) + ("%" if self.kind == FLEET_PERCENT else "")


# The predefined configurations for servers. OneAtATime is not the "99%" of AWS's table: that
# would demand all of 9 targets and fail at once.
NAMED: dict[str, MinimumHealthy] = {
    "OneAtATime": MinimumHealthy(MOST_CONCURRENCY, Fraction(1)),
    "HalfAtATime": MinimumHealthy(FLEET_PERCENT, Fraction(50)),
    "AllAtOnce": MinimumHealthy(HOST_COUNT, Fraction(0)),
}


def parse_minimum_healthy(value: Any, name: str = "deploy_minimum_healthy_hosts") -> MinimumHealthy:
    """Read ``3``, ``"75%"``, ``{"type": "HOST_COUNT", "value": 3}`` or ``"HalfAtATime"``.

    Names are CodeDeploy's, with or without ``CodeDeployDefault.``, in any case of letters.
    Raises UsageError, which names the variable ``name``.
    """
    wanted = (
        '{} is {!r}; wanted is a number of targets (3), a share ("75%"), '
        '{{"type": "HOST_COUNT" or "FLEET_PERCENT", "value": n}} or one of {}.'
    ).format(name, value, ", ".join(NAMED))
    if isinstance(value, MinimumHealthy):
        return value
    if isinstance(value, Mapping):
        return _parse_typed(value, wanted)
    text = _plain(value)
    if _INTEGER.match(text):
        return MinimumHealthy(HOST_COUNT, Fraction(text))
    percent = _PERCENT.match(text)
    if percent:
        return _fleet_percent(Fraction(percent.group(1)), wanted)
    bare = text[len(_PREFIX) :] if text.lower().startswith(_PREFIX.lower()) else text
    for known, configuration in NAMED.items():
        if bare.lower() == known.lower():
            return configuration
    raise UsageError(wanted)


def parse_configuration(
    value: Any, name: str = "deploy_configuration"
) -> tuple[MinimumHealthy, Any]:
    """Read a deployment configuration: a name, or one that CodeDeploy describes.

    The latter is what CreateDeploymentConfig takes and GetDeploymentConfig gives:
    ``{"minimumHealthyHosts": {"type", "value"}, "zonalConfig": {…}}``, also inside
    ``deploymentConfigInfo``; its name, id, time and the platform ``Server`` are passed over.

    Returns the minimum, and ``zonalConfig`` as it is (None if there is none).
    Raises UsageError, which names the variable ``name``.
    """
    if not isinstance(value, Mapping) or "type" in value:
        return parse_minimum_healthy(value, name), None
    inner = value.get("deploymentConfigInfo", value)
    wanted = (
        f"{name} is {value!r}; wanted is a name or a mapping with minimumHealthyHosts and, if "
        "you like, zonalConfig, as CodeDeploy describes a configuration."
    )
    if not isinstance(inner, Mapping):
        raise UsageError(wanted)
    if inner.get("trafficRoutingConfig") or inner.get("computePlatform", "Server") != "Server":
        raise UsageError(
            f"{name} describes how traffic moves, as CodeDeploy has it for Lambda and ECS; for "
            "hosts that is deploy_schedule. " + wanted
        )
    unknown = sorted(str(key) for key in inner if key not in _DESCRIBED)
    if unknown or "minimumHealthyHosts" not in inner:
        raise UsageError(wanted + (f" Not {', '.join(unknown)}." if unknown else ""))
    minimum = parse_minimum_healthy(inner["minimumHealthyHosts"], f"minimumHealthyHosts of {name}")
    return minimum, inner.get("zonalConfig") or None


def _parse_typed(value: Mapping[str, Any], wanted: str) -> MinimumHealthy:
    text = _plain(value.get("value"))
    if set(value) != {"type", "value"} or not _INTEGER.match(text):
        raise UsageError(wanted)
    kind = str(value["type"]).upper()
    if kind == FLEET_PERCENT:
        return _fleet_percent(Fraction(text), wanted)
    if kind == HOST_COUNT:
        return MinimumHealthy(HOST_COUNT, Fraction(text))
    if kind == MOST_CONCURRENCY and int(text) >= 1:
        return MinimumHealthy(MOST_CONCURRENCY, Fraction(text))
    raise UsageError(wanted)


def _fleet_percent(share: Fraction, wanted: str) -> MinimumHealthy:
    if share > 100:
        raise UsageError(wanted + " A share is at most 100%.")
    return MinimumHealthy(FLEET_PERCENT, share)


def parse_duration(value: Any, name: str = "The duration") -> float:
    """Read ``30``, ``"90s"``, ``"10m"``, ``"1h30m"`` or ``"500ms"`` as seconds.

    Raises UsageError, which names the variable ``name``.
    """
    text = _plain(value)
    parts = _duration_parts(text)
    if not parts or (len(parts) > 1 and any(not unit for _number_text, unit in parts)):
        raise UsageError(
            f'{name} is {value!r}; wanted are seconds (30) or a duration such as "90s", "10m" '
            'or "1h30m".'
        )
    return float(sum(Fraction(number) * _SECONDS[unit or "s"] for number, unit in parts))


def _duration_parts(text: str) -> list[tuple[str, str]]:
    parts = []
    position = 0
    while position < len(text):
        part = _DURATION_PART.match(text, position)
        if part is None:
            return []
        parts.append((part.group(1), part.group(2) or ""))
        position = part.end()
    return parts


def parse_stages(value: Any, total: int, name: str = "deploy_stages") -> list[int]:
    """Turn ``[1, "10%", "100%"]`` into the sizes of the batches of ``total`` targets.

    The meaning is that of ``serial`` in a play: each entry is the size of one batch, the last
    entry repeats until all targets have a batch, a share is rounded down but is at least one.
    ``None`` and an empty list mean one batch of all. The sizes add up to ``total``.
    Raises UsageError, which names the variable ``name``.
    """
    if total < 0:
        raise PlanError(f"A number of targets below 0 cannot be divided: {total}.")
    entries = list(value) if isinstance(value, (list, tuple)) else [value]
    wanted = [_batch(entry, total, name) for entry in entries if entry is not None]
    sizes: list[int] = []
    remaining = total
    while remaining > 0:
        size = wanted[min(len(sizes), len(wanted) - 1)] if wanted else total
        sizes.append(min(size, remaining))
        remaining -= size
    return sizes


def _batch(entry: Any, total: int, name: str) -> int:
    text = _plain(entry)
    percent = _PERCENT.match(text)
    if _INTEGER.match(text) and int(text) > 0:
        return int(text)
    if percent and 0 < Fraction(percent.group(1)) <= 100:
        return max(1, int(total * Fraction(percent.group(1)) / 100))
    raise UsageError(
        f"{name} holds {entry!r}; wanted is a number of targets above 0 or a share from above 0 to "
        '100%, for instance [1, "10%", "100%"].'
    )


def _plain(value: Any) -> str:
    """Return the text of a number or a text, empty for everything else (True is no number)."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _ceiling(value: Fraction) -> int:
    return -(-value.numerator // value.denominator)


def _number(value: Fraction) -> str:
    return f"{float(value):g}"
