# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what was seen at each look of a step to the data that the judge decides on.

A look is ``{"at": epoch seconds, "share": the canary's share or None, "rates": {metric: {"canary":
{"bad", "total"}, "baseline": {…}}}, "values": {metric: {"canary": number or None, "baseline": …}},
"assignments": {"canary", "baseline"} or None}``; assignments may have a ``share`` of their own.
Rates and assignments are what was counted since the look before, so looks add up, also those of a
run that was resumed. Pure: the same looks give the same data, bit by bit.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ._metrics import Judge

_ARMS = ("canary", "baseline")


def data_from(judge: Judge, looks: Sequence[Mapping[str, Any]], *, final: bool) -> dict[str, Any]:
    """Return the data of ``_verdict.decide``.

    Looks in a row with the same share are one step of a rate. A rank test allows one look only, so
    its values are left out until the last.
    """
    metrics: dict[str, Any] = {}
    for metric in judge.metrics:
        if metric.kind == "rate":
            seen = [
                (look.get("share"), look["rates"][metric.name])
                for look in looks
                if metric.name in look.get("rates", {})
            ]
            metrics[metric.name] = {"steps": _summed(seen)}
        elif metric.test == "sequential" or final:
            pairs = [look["values"].get(metric.name, {}) for look in looks if look.get("values")]
            metrics[metric.name] = {arm: [pair.get(arm) for pair in pairs] for arm in _ARMS}
    return {"assignments": _assigned(looks), "metrics": metrics}


def _summed(seen: Sequence[tuple[float | None, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = []
    before: float | None = None
    for number, (share, counts) in enumerate(seen):
        if number == 0 or share != before:
            steps.append({arm: {"bad": 0, "total": 0} for arm in _ARMS})
            before = share
        for arm in _ARMS:
            for key in ("bad", "total"):
                steps[-1][arm][key] += int(counts[arm][key])
    return steps


def _assigned(looks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for look in looks:
        counts = look.get("assignments")
        share = None if counts is None else counts.get("share", look.get("share"))
        if counts is None or share is None or not 0 < share < 1:
            continue
        if not found or found[-1]["share"] != share:
            found.append({"share": share, "canary": 0, "baseline": 0})
        for arm in _ARMS:
            found[-1][arm] += int(counts[arm])
    return found


def fingerprint(value: Any) -> str:
    """Return the SHA-256 of plain data, the same for the same data."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def plain_number(value: float | None) -> float | None:
    """Return a number that JSON can hold, None for those that are none."""
    return value if value is not None and math.isfinite(value) else None
