# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bascule's events as structured log lines and as metrics; without secrets."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ._limits import Line

if TYPE_CHECKING:
    from .._progress_events import Event

# What a started task or a difference tells is for those who look on, not for a log.
TOLD = frozenset(
    {
        "opened", "staged", "admitted", "current", "refused", "gate", "shift", "traffic",
        "lifecycle", "settled", "closed", "drift", "error", "warning",
    }
)  # fmt: skip
_OF_LIFECYCLE = ("started", "ended", "error_code", "script", "log")
_OF_SHIFT = ("number", "part", "share", "verdict")
_OF_DEPLOYMENT = (
    "application", "group", "strategy", "digest", "revision", "creator", "rollback_of",
    "error_code",
)  # fmt: skip
MASK = "********"
# Credentials as they are commonly written; more patterns are an option of the callback.
SECRETS = (
    r"(?i)[\w-]*(?:password|passwd|secret|token|api[_-]?key|access[_-]?key)[\w-]*"
    r"[\"']?\s*[=:]\s*[\"']?[^\s\"']+",
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    r"(?i)\bX-Amz-(?:Signature|Credential|Security-Token)=[^&\s\"]+",
    r"(?i)\bauthorization:\s*\S+(?:\s+\S+)?",
    r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)",
)


class Redactor:
    """Strikes secrets out of texts."""

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        """Take more patterns than the common ones; raises re.error for one that is none."""
        self._patterns = [re.compile(pattern) for pattern in (*SECRETS, *patterns)]

    def text(self, text: str) -> str:
        """Return a text without secrets."""
        for pattern in self._patterns:
            text = pattern.sub(MASK, text)
        return text

    def data(self, data: Any) -> Any:
        """Return data, the same but for the secrets in its texts."""
        if isinstance(data, str):
            return self.text(data)
        if isinstance(data, Mapping):
            return {key: self.data(value) for key, value in data.items()}
        if isinstance(data, Sequence):
            return [self.data(one) for one in data]
        return data


def line_of(event: Event, redactor: Redactor) -> Line | None:
    """Return the log line of an event; None for one that is not told."""
    if event.kind not in TOLD:
        return None
    told: dict[str, Any] = {
        "kind": event.kind,
        "deployment_id": event.deployment_id,
        "target": event.target,
        "name": event.name,
        "status": event.status,
        "message": event.message if event.kind != "opened" else "",
    }
    if event.kind == "lifecycle":
        told |= {key: event.data.get(key) for key in _OF_LIFECYCLE}
    about = event.data.get("deployment")
    if event.kind in ("opened", "closed") and isinstance(about, Mapping):
        told |= {key: about.get(key) for key in _OF_DEPLOYMENT}
    if event.kind == "shift":
        told |= {key: event.data.get(key) for key in _OF_SHIFT}
    if event.kind == "opened":
        plan = event.data.get("plan") or {}
        told["targets"] = len(plan.get("targets") or ())
    filled = {key: value for key, value in told.items() if value not in (None, "", [])}
    return Line(round(event.at * 1000), json.dumps(redactor.data(filled), default=str))


def metrics_of(event: Event, opened_at: float, states: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return what a closed deployment adds to the metrics, as PutMetricData takes it.

    :param opened_at: when it was opened, in seconds since the epoch
    :param states: its targets by status
    """
    about = event.data.get("deployment") or {}
    dimensions = [
        {"Name": "Application", "Value": str(about.get("application") or "-")},
        {"Name": "DeploymentGroup", "Value": str(about.get("group") or "-")},
    ]
    values: list[tuple[str, float, str]] = [
        ("DeploymentDuration", max(0.0, event.at - opened_at), "Seconds"),
        (f"Deployments{event.status}", 1, "Count"),
    ]
    values += [(f"Targets{status}", number, "Count") for status, number in sorted(states.items())]
    if about.get("rollback_of"):
        values.append(("Rollbacks", 1, "Count"))
    return [
        {
            "MetricName": name,
            "Dimensions": dimensions,
            "Timestamp": event.at,
            "Value": float(value),
            "Unit": unit,
        }
        for name, value, unit in values
    ]
