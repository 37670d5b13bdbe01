# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What users write about gates (``deploy_gates``), read and checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from ._configuration import parse_duration
from ._errors import UsageError
from ._gate_rules import Condition, Rule, parse_condition

# Each type with what it needs (one of each group) and what it may have beside.
TYPES: dict[str, tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]] = {
    "http": (
        (("url",),),
        ("method", "headers", "status", "body", "json_path", "verify", "success", "failure"),
    ),
    "tcp": ((("port",),), ("host",)),
    "command": ((("command",),), ("environment", "success", "failure")),
    "webhook": ((("url",),), ("headers", "parameters", "verify")),
    "load_balancer": ((), ("pool", "healthy")),
    "cloudwatch_alarm": ((("alarm",),), ("ignore_poll_failure",)),
    "cloudwatch": ((("queries",),), ("period", "window", "result", "success", "failure")),
    "prometheus": ((("url",), ("query",)), ("headers", "verify", "success", "failure")),
    "proxy": ((("metric",),), ("pool", "baseline", "success", "failure")),
    "approval": ((), ("on_timeout", "ends_bake")),
    "judge": ((), ("judge", "canary", "baseline", "share")),
    "ab_test": ((("goal",),), ("better", "canary", "baseline", "share")),
}
# These measure a number, so something has to be wanted of it.
MEASURING = ("cloudwatch", "prometheus", "proxy")
# These say yes or no by themselves, once.
DECIDING = ("webhook", "approval", "judge", "ab_test")
COMMON = (
    "name", "type", "interval", "initial_delay", "error_retry", "timeout", "deadline", "count",
    "failure_limit", "inconclusive_limit", "consecutive_error_limit", "consecutive_success_limit",
    "dry_run",
)  # fmt: skip
PROXY_METRICS = ("error_rate", "errors", "requests", "p50", "p95", "p99")
DEFAULT_DEADLINE = 3600.0


@dataclass(frozen=True)
class Gate:
    """A gate that can be asked; ``options`` are those of its type, as they were given.

    ``timeout`` is the longest wait for one answer, in seconds.
    """

    name: str
    type: str
    rule: Rule
    timeout: float = 10.0
    dry_run: bool = False
    success: Condition | None = None
    failure: Condition | None = None
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def ends_bake(self) -> bool:
        """Whether the bake ends as soon as this gate has passed."""
        return self.type == "ab_test" or bool(self.options.get("ends_bake"))


def parse_gates(given: Any, name: str = "deploy_gates") -> list[Gate]:
    """Read a list of gates; each gets a name of its own.

    :raises UsageError: naming the gate and the key that does not fit
    """
    if not isinstance(given, (list, tuple)):
        raise UsageError(f"{name} is {given!r}; wanted is a list of gates.")
    gates: list[Gate] = []
    for number, one in enumerate(given):
        gate = parse_gate(one, f"{name}[{number}]", {known.name for known in gates})
        gates.append(gate)
    return gates


def parse_gate(given: Any, where: str = "The gate", taken: Any = ()) -> Gate:
    """Read one gate; ``taken`` are names that others have.

    :raises UsageError: naming the key that does not fit
    """
    if not isinstance(given, Mapping):
        raise UsageError(f"{where} is {given!r}; wanted is a mapping with a type.")
    values = {key: value for key, value in given.items() if value is not None}
    kind = values.get("type")
    if kind not in TYPES:
        raise UsageError(f"{where} has the type {kind!r}; there are {', '.join(sorted(TYPES))}.")
    groups, optional = TYPES[kind]
    own = {one for group in groups for one in group} | set(optional)
    unknown = sorted(set(values) - own - set(COMMON))
    if unknown:
        raise UsageError(
            f"{where}: a gate of type {kind} has no key {unknown[0]}; it may have "
            f"{', '.join(sorted(own | set(COMMON)))}."
        )
    for group in groups:
        if not any(values.get(one) not in ("", [], {}) and one in values for one in group):
            raise UsageError(f"{where}: a gate of type {kind} needs {' or '.join(group)}.")
    success, failure = (
        parse_condition(values[key], f"{where}.{key}") if key in values else None
        for key in ("success", "failure")
    )
    if kind in MEASURING and success is None and failure is None:
        raise UsageError(
            f"{where}: a gate of type {kind} measures a number; say what is wanted of it, such as "
            'success: "< 0.01".'
        )
    if kind == "http" and (success or failure) and not values.get("json_path"):
        raise UsageError(f"{where}: success and failure need json_path, where the number stands.")
    _check_own(kind, values, where)
    return Gate(
        name=_name(values, kind, where, taken),
        type=kind,
        rule=_rule(kind, values, where),
        timeout=_seconds(values, "timeout", 86400.0 if kind == "approval" else 10.0, where),
        dry_run=_yes(values, "dry_run", where),
        success=success,
        failure=failure,
        options={key: values[key] for key in values if key in own - {"success", "failure"}},
    )


def _check_own(kind: str, values: Mapping[str, Any], where: str) -> None:
    """Check what only one type has."""
    if kind == "proxy" and values["metric"] not in PROXY_METRICS:
        raise UsageError(
            f"{where}: metric is {values['metric']!r}; there are {', '.join(PROXY_METRICS)}."
        )
    if kind == "approval" and values.get("on_timeout", "stop") not in ("stop", "continue"):
        raise UsageError(
            f"{where}: on_timeout is {values['on_timeout']!r}; wanted is stop or continue."
        )
    if kind == "http" and values.get("body") is not None:
        try:
            re.compile(str(values["body"]))
        except re.error as error:
            raise UsageError(f"{where}: body is no regular expression: {error}.") from error
    for key in ("headers", "parameters", "environment"):
        if not isinstance(values.get(key, {}), Mapping):
            raise UsageError(f"{where}: {key} is a mapping, not {values[key]!r}.")
    if kind in ("http", "webhook", "prometheus"):
        url = urlsplit(str(values["url"]))
        if url.scheme not in ("http", "https") or not url.hostname:
            raise UsageError(f"{where}: url is {shown_url(str(values['url']))!r}, no http address.")


def _name(values: Mapping[str, Any], kind: str, where: str, taken: Any) -> str:
    name = str(values.get("name") or "")
    if name and name in taken:
        raise UsageError(f"{where} is called {name}, as another gate is; give each its own name.")
    if name:
        return name
    number = 1
    while (found := kind if number == 1 else f"{kind}-{number}") in taken:
        number += 1
    return found


def _rule(kind: str, values: Mapping[str, Any], where: str) -> Rule:
    decides = kind in DECIDING
    count = _whole(values, "count", 1, where) if "count" in values else None
    deadline = DEFAULT_DEADLINE if decides else None
    if kind == "approval":
        # A person has until the approval's own end.
        deadline = None
    # A webhook may be asked more than once; the others decide by one answer.
    if decides and (count is None or kind != "webhook"):
        count = 1
    return Rule(
        interval=max(0.1, _seconds(values, "interval", 2.0 if kind == "approval" else 10.0, where)),
        initial_delay=_seconds(values, "initial_delay", 0.0, where),
        error_retry=max(0.1, _seconds(values, "error_retry", 10.0, where)),
        count=count,
        failure_limit=_whole(values, "failure_limit", -1, where, 0),
        inconclusive_limit=_whole(values, "inconclusive_limit", -1, where, 0),
        consecutive_error_limit=_whole(values, "consecutive_error_limit", -1, where, 4),
        consecutive_success_limit=_whole(values, "consecutive_success_limit", 0, where, 0),
        deadline=_seconds(values, "deadline", deadline, where),
    )


def _seconds(values: Mapping[str, Any], key: str, default: Any, where: str) -> Any:
    if key not in values:
        return default
    return parse_duration(values[key], f"{where}.{key}")


def _whole(
    values: Mapping[str, Any], key: str, least: int, where: str, default: int | None = None
) -> int:
    value = values.get(key, default)
    if isinstance(value, str) and re.match(r"-?[0-9]+\Z", value.strip()):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{where}: {key} is {value!r}; wanted is a whole number from {least}.")
    return value


def _yes(values: Mapping[str, Any], key: str, where: str) -> bool:
    value = values.get(key, False)
    if isinstance(value, str) and value.lower() in ("true", "yes", "false", "no"):
        return value.lower() in ("true", "yes")
    if not isinstance(value, bool):
        raise UsageError(f"{where}: {key} is {value!r}; wanted is true or false.")
    return value


def shown_url(url: str) -> str:
    """Return an address without what may be secret in it: user, password, query."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    netloc = f"[{host}]" if ":" in host else host
    if parts.port is not None:
        netloc += f":{parts.port}"
    return urlunsplit((parts.scheme, netloc, parts.path, "", ""))


def describe_gate(gate: Gate) -> str:
    """Name a gate for a plan and a message; without anything that may be secret."""
    options = gate.options
    what = {
        "http": lambda: shown_url(str(options["url"])),
        "webhook": lambda: shown_url(str(options["url"])),
        "tcp": lambda: f"{options.get('host') or '127.0.0.1'}:{options['port']}",
        "command": lambda: _program(options["command"]),
        "cloudwatch_alarm": lambda: str(options["alarm"]),
        "prometheus": lambda: shown_url(str(options["url"])),
        "proxy": lambda: f"{options['metric']} of {options.get('pool') or 'the canary'}",
        "approval": lambda: "of a person",
        "ab_test": lambda: (
            f"whose {options['goal'].get('name')} is {options.get('better') or 'less'}"
        ),
    }.get(gate.type, lambda: "")()
    text = gate.type if gate.name == gate.type else f"{gate.name} ({gate.type})"
    text += f" {what}" if what else ""
    wanted = [
        f"{word} {condition.text}"
        for word, condition in (("wanted", gate.success), ("fails at", gate.failure))
        if condition
    ]
    text += f", {', '.join(wanted)}" if wanted else ""
    return text + (", dry run" if gate.dry_run else "")


def _program(command: Any) -> str:
    """Return the name of a command; its arguments may be secret."""
    words = command.split() if isinstance(command, str) else [str(word) for word in command]
    return words[0] if words else ""
