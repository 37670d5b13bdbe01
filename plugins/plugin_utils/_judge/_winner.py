# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two variants of an A/B test: which of them is better, as soon as that can be told.

The same always-valid tests as the judge's, asked in both directions: each has half of the error. So
one may look after every measurement, and end the test when there is a winner.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from ._verdict import BAD, decide

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._metrics import Judge

_OTHER = {"canary": "baseline", "baseline": "canary"}


def winner(judge: Judge, data: Mapping[str, Any], *, more_is_better: bool) -> dict[str, Any]:
    """Return which arm is better by the one metric of a judge.

    :param data: as ``decide`` has it; the new variant is the canary
    :returns: ``{"winner": "canary" | "baseline" | None, "alarm": whether the arms did not get the
        shares they should have, "arms": {"canary": text, "baseline": text}}``
    """
    half = dataclasses.replace(judge, alpha=judge.alpha / 2)
    forward, backward = decide(half, data), decide(half, _swapped(data))
    higher = None
    if forward["metrics"][0]["state"] == BAD:
        higher = "canary"
    elif backward["metrics"][0]["state"] == BAD:
        higher = "baseline"
    alarm = bool(forward["sample_ratio"]["alarm"])
    better = higher if more_is_better or higher is None else _OTHER[higher]
    metric = judge.metrics[0]
    seen = (data.get("metrics") or {}).get(metric.name) or {}
    return {
        "winner": None if alarm else better,
        "alarm": alarm,
        "arms": {arm: _told(metric.kind, seen, arm) for arm in _OTHER},
    }


def _swapped(data: Mapping[str, Any]) -> dict[str, Any]:
    def turned(one: Mapping[str, Any]) -> dict[str, Any]:
        return {**one, "canary": one.get("baseline"), "baseline": one.get("canary")}

    metrics = {}
    for name, seen in (data.get("metrics") or {}).items():
        steps = {"steps": [turned(step) for step in seen["steps"]]} if "steps" in seen else {}
        metrics[name] = steps or turned(seen)
    return {"assignments": [], "metrics": metrics}


def _told(kind: str, seen: Mapping[str, Any], arm: str) -> str:
    if kind == "rate":
        bad = sum(step[arm]["bad"] for step in seen.get("steps") or ())
        total = sum(step[arm]["total"] for step in seen.get("steps") or ())
        return f"{bad} of {total}" + (f" ({100 * bad / total:.2f} %)" if total else "")
    values = [one for one in seen.get(arm) or () if one is not None]
    mean = math.fsum(values) / len(values) if values else math.nan
    return f"{mean:.4g} on average of {len(values)} intervals" if values else "no value"
