# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a judge looks at, and how much of a change it allows."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from ...module_utils._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

KINDS = ("rate", "series")
DIRECTIONS = ("increase", "decrease", "either")
TESTS = ("sequential", "rank")
MISSING = ("remove", "zero")
OUTLIERS = ("keep", "remove")
FAMILY, DISCOVERIES = "family", "discoveries"
CONTROLS = (FAMILY, DISCOVERIES)
# Before so many measurements the variance is not known well enough for a sequential test.
BURN_IN = 10
# A rank test with fewer values on a side finds nothing that is there.
RANK_MINIMUM = 50


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric.

    ``rate``: bad requests of all requests. Bad is a rate above ``ratio`` times the baseline's, or
    ``tolerance`` above it; good is one that is shown to lie less than ``tolerance`` above it.

    ``series``: a value for each interval, canary beside baseline, such as the p95 of the latency.
    ``ratio`` is how far it may go to the bad side (``direction``); ``absolute`` is used in its
    place, in the metric's own unit, where the baseline is 0. With ``spread`` its values may scatter
    so many times as much as the baseline's, whatever their level; both sides should be measured on
    as many requests then. An interval without a value is left out, or counts as 0 (``missing``);
    ``outliers`` of a rank test are kept or left out (``_statistics.without_outliers``).

    ``minimum`` is the evidence below which nothing is called good (requests a side; intervals).
    """

    name: str
    kind: str
    direction: str = "increase"
    ratio: float = 1.25
    tolerance: float = 0.01
    absolute: float | None = None
    test: str = "sequential"
    minimum: int = 100
    critical: bool = False
    group: str = "metrics"
    spread: float | None = None
    missing: str = "remove"
    outliers: str = "keep"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judge:
    """The metrics, and what follows from them.

    ``alpha`` is the chance that a revision no worse than the baseline fails, over all metrics and
    all looks. ``groups`` are weights out of 100; groups without one share what is left. With the
    ``control`` ``discoveries``, ``alpha`` is the expected part of good metrics among those that are
    called bad (see ``_verdict``).
    """

    metrics: tuple[Metric, ...]
    groups: dict[str, float] = dataclasses.field(default_factory=dict)
    alpha: float = 0.05
    sample_ratio_alpha: float = 0.001
    passing: float = 95.0
    marginal: float = 75.0
    control: str = FAMILY

    def weights(self) -> dict[str, float]:
        """Return each group's part of the score; they add up to 1."""
        names = list(dict.fromkeys(metric.group for metric in self.metrics))
        given = {name: self.groups[name] for name in names if name in self.groups}
        rest = [name for name in names if name not in given]
        left = max(0.0, 100.0 - math.fsum(given.values()))
        shares = {**given, **{name: left / len(rest) for name in rest}}
        total = math.fsum(shares.values())
        return {name: shares[name] / total for name in names}


def parse_judge(given: Mapping[str, Any]) -> Judge:
    """Return the judge that a mapping describes; its keys are the fields, ``pass`` for passing.

    :raises UsageError: naming the metric and the key that do not fit
    """
    if not isinstance(given, dict):
        raise UsageError(f"A judge is a mapping with metrics, not {given!r}.")
    values = dict(given)
    listed = values.pop("metrics", None)
    if not isinstance(listed, list) or not listed:
        raise UsageError("A judge needs metrics: a list with at least one of them.")
    metrics = tuple(_metric(number, one) for number, one in enumerate(listed, 1))
    names = [metric.name for metric in metrics]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UsageError(f"The judge has two metrics {twice}; give each a name of its own.")
    groups = values.pop("groups", {})
    if not isinstance(groups, dict):
        raise UsageError(f"The groups of a judge are weights by name, not {groups!r}.")
    unknown = sorted(set(groups) - {metric.group for metric in metrics})
    if unknown:
        raise UsageError(f"No metric of the judge is in the group {unknown[0]}.")
    if "pass" in values:
        values["passing"] = values.pop("pass")
    control = _one_of("The judge", "control", values.pop("control", FAMILY), CONTROLS)
    numbers = {
        name: _number("The judge", name, values.pop(name), above=0.0, below=limit)
        for name, limit in (
            ("alpha", 0.5), ("sample_ratio_alpha", 0.5), ("passing", 100.0), ("marginal", 100.0),
        )
        if name in values
    }  # fmt: skip
    if values:
        raise UsageError(f"The judge has an unknown key {sorted(values)[0]}.")
    weights = {
        str(name): _number("The judge", f"weight of {name}", weight, above=0.0, below=100.0)
        for name, weight in groups.items()
    }
    judge = Judge(metrics=metrics, groups=weights, control=control, **numbers)
    if judge.marginal > judge.passing:
        raise UsageError("The judge's marginal score lies above the one to pass with.")
    if math.fsum(weights.values()) > 100 or (
        math.fsum(weights.values()) == 100 and set(judge.weights()) != set(weights)
    ):
        raise UsageError("The weights of the judge's groups leave less than nothing of 100.")
    return judge


def _metric(number: int, given: object) -> Metric:
    if not isinstance(given, dict) or not given.get("name"):
        raise UsageError(f"Metric {number} of the judge is no mapping with a name: {given!r}.")
    name = str(given["name"])
    where = f"Metric {name} of the judge"
    known = {field.name for field in dataclasses.fields(Metric)}
    unknown = sorted(set(given) - known)
    if unknown:
        raise UsageError(f"{where} has an unknown key {unknown[0]}.")
    kind = _one_of(where, "kind", given.get("kind"), KINDS)
    values: dict[str, Any] = {"name": name, "kind": kind}
    if kind == "series":
        # A latency a tenth above the baseline's is where users begin to see it.
        values["ratio"] = 1.10
    if "direction" in given:
        values["direction"] = _one_of(where, "direction", given["direction"], DIRECTIONS)
    for key, choices in (("test", TESTS), ("missing", MISSING), ("outliers", OUTLIERS)):
        if key in given:
            values[key] = _one_of(where, key, given[key], choices)
    if values.get("outliers") == "remove" and (kind != "series" or values.get("test") != "rank"):
        raise UsageError(
            f"{where}: outliers can be left out of a series with the test rank alone; what is "
            "looked at again and again must not depend on what comes later."
        )
    if kind == "series":
        values["minimum"] = RANK_MINIMUM if values.get("test") == "rank" else BURN_IN
    for key, lowest, highest in (
        ("ratio", 1.0, math.inf),
        ("tolerance", 0.0, 1.0),
        ("absolute", 0.0, math.inf),
        ("spread", 1.0, math.inf),
        ("minimum", 2.0, math.inf),
    ):
        if given.get(key) is not None:
            values[key] = _number(where, key, given[key], above=lowest, below=highest)
    values["minimum"] = int(values.get("minimum", 100))
    if kind == "series" and values["minimum"] < BURN_IN:
        raise UsageError(f"{where}: its minimum is {values['minimum']}, the least is {BURN_IN}.")
    if not isinstance(given.get("critical", False), bool):
        raise UsageError(f"{where}: critical is true or false, not {given['critical']!r}.")
    values["critical"] = given.get("critical", False)
    values["group"] = str(given.get("group", "metrics"))
    return Metric(**values)


def _one_of(where: str, key: str, value: object, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise UsageError(f"{where}: {key} is one of {', '.join(choices)}, not {value!r}.")
    return str(value)


def _number(where: str, key: str, value: object, *, above: float, below: float) -> float:
    fits = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not fits or not above <= float(str(value)) <= below:
        limits = f"from {above:g}" + (f" to {below:g}" if math.isfinite(below) else "")
        raise UsageError(f"{where}: {key} is a number {limits}, not {value!r}.")
    return float(str(value))
