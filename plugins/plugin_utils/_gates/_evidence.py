# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a step must last to see an effect at the present traffic."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...module_utils._errors import BasculeError, UsageError
from ...module_utils._host._router import window
from .._judge import rate_of, requests_needed
from ._judging import configure
from ._proxy import counters_of, together

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .._record import Record
    from ._model import Traffic

# How long the load balancers are watched to see what the traffic is now.
_WATCH_SECONDS = 2.0
# So many deployments are looked through for one that was judged.
_LOOK_BACK = 20


@dataclass(frozen=True)
class Wanted:
    """A rise of bad requests that is to be seen, and what traffic there is.

    ``rate`` and ``effect`` are parts of 1, ``traffic`` is requests a second; None: to be measured.
    """

    effect: float
    rate: float | None
    traffic: float | None


def wanted_of(judge: Mapping[str, Any]) -> Wanted | None:
    """Return what ``evidence`` of ``deploy_judge`` asks for; None where it asks for nothing.

    :raises UsageError: naming the key that does not fit
    """
    given = judge.get("evidence")
    if not given:
        return None
    if not isinstance(given, dict) or set(given) - {"effect", "rate", "traffic"}:
        raise UsageError(
            f"The judge's evidence is {given!r}; wanted is effect, and rate and traffic where the "
            "load balancer does not count them."
        )
    numbers = {key: _number(key, value) for key, value in given.items()}
    if "effect" not in numbers or not 0 < numbers["effect"] < 1:
        raise UsageError("The judge's evidence needs effect: a part of 1, such as 0.02.")
    return Wanted(numbers["effect"], numbers.get("rate"), numbers.get("traffic"))


def _number(key: str, value: Any) -> float:
    try:
        found = float(str(value))
    except ValueError:
        found = -1.0
    if found < 0:
        raise UsageError(f"The judge's evidence: {key} is {value!r}; wanted is a number.")
    return found


def measure_traffic(
    traffic: Traffic | None, sleep: Callable[[float], None] = time.sleep
) -> tuple[float, float]:
    """Return the requests a second of now, and the part of them that has failed so far.

    :raises BasculeError: there is no load balancer that counts
    """
    before, begun = counters_of(traffic), time.monotonic()
    sleep(_WATCH_SECONDS)
    after, seconds = counters_of(traffic), time.monotonic() - begun
    seen = together([window(before.get(name, after[name]), after[name]) for name in after])
    whole = together(list(after.values()))
    return seen.requests / seconds, whole.errors / whole.requests if whole.requests else 0.0


@dataclass(frozen=True)
class Remembered:
    """The traffic that the judge has last seen: requests a second, the part that failed, where."""

    traffic: float
    rate: float
    deployment: str


def remembered(record: Record, application: str, group: str) -> Remembered | None:
    """Return what the judge of the newest deployment of a group has seen; None if none has.

    Bad requests are those of the baseline: the canary may have been bad.
    """
    for deployment in record.deployments(application, group, limit=_LOOK_BACK):
        seen = [one.data for one in record.gate_decisions(deployment.id) if "raw" in one.data]
        looks = [one["look"]["rates"] for one in seen if one.get("look", {}).get("rates")]
        times = [float(one["raw"]["at"]) for one in seen]
        if not looks or times[-1] <= times[0]:
            continue
        arms = [next(iter(rates.values())) for rates in looks]
        whole = sum(arm["total"] for both in arms for arm in both.values())
        bad = sum(both["baseline"]["bad"] for both in arms)
        total = sum(both["baseline"]["total"] for both in arms)
        if total:
            return Remembered(whole / (times[-1] - times[0]), bad / total, deployment.id)
    return None


def evidence_lines(
    judge: Mapping[str, Any],
    schedule: Sequence[Mapping[str, Any]],
    traffic: Traffic | None,
    *,
    recall: Callable[[], Remembered | None] = lambda: None,
    share: float | None = None,
    beside: float = 1.0,
) -> list[str]:
    """Return how long each step of a schedule must last, beside how long it does.

    :param judge: ``deploy_judge``
    :param schedule: the steps of a plan; without shares, the judge's own share is taken
    :param recall: what was seen of the traffic before, where it cannot be measured now
    :param share: the canaries' part of all that are compared, where they are targets among others
    :param beside: the part of the other pool's traffic that a pool of canaries is compared with
    :raises UsageError: naming the key that does not fit
    """
    wanted = wanted_of(judge) if judge else None
    if wanted is None:
        return []
    rate, load = wanted.rate, wanted.traffic
    lines: list[str] = []
    if rate is None or load is None:
        try:
            measured, failing = measure_traffic(traffic)
            why = "" if measured > 0 else "there is no traffic now"
        except BasculeError as error:
            measured, failing, why = 0.0, 0.0, f"the traffic cannot be measured. {error}"
        known = recall() if why else None
        if known is not None:
            measured, failing = known.traffic, known.rate
            lines.append(f"Evidence: as the judge of {known.deployment} saw it, since {why}")
        elif why and load is None:
            return [f"Evidence: not known, {why}"]
        rate = failing if rate is None else rate
        load = measured if load is None else load
    if load <= 0:
        return ["Evidence: not known, there is no traffic now"]
    found = configure(judge)
    metric, alpha = rate_of(found.judge)
    told = f"{100 * wanted.effect:.3g} points above {100 * rate:.3g} %"
    head = f"Evidence: to tell errors {told} from none, at {load:.3g} requests/s,"
    shares = baking(schedule)
    if not shares and share is not None:
        bakes = sum(float(step["seconds"]) for step in schedule if step["kind"] == "bake")
        shares = [(share, bakes)]
    if not shares and found.pools.share is not None:
        shares = [(found.pools.share, None)]
    told_steps = []
    for part, lasts in shares:
        compared = part + (1 - part) * beside
        needed = requests_needed(
            metric, alpha, rate=rate, effect=wanted.effect, share=part / compared
        )
        found_in, passed_in = (None if one is None else one / compared / load for one in needed)
        line = f"  a step at {100 * part:.3g} % has to bake "
        if found_in is None:
            line += f"for ever: the metric {metric.name} allows as much"
        else:
            line += f"{_time(found_in)} until they are found (9 times of 10)"
        if passed_in is not None:
            line += f", {_time(passed_in)} until a good one passes"
        if lasts is not None:
            short = ""
            if found_in is not None and lasts < found_in:
                short = " (too short: the judge may not find them)"
            elif passed_in is None or lasts < passed_in:
                short = " (too short: the judge may stay inconclusive)"
            line += f"; it bakes {_time(lasts)}{short}"
        told_steps.append(line)
    return [*lines, head, *told_steps] if told_steps else []


def baking(schedule: Sequence[Mapping[str, Any]]) -> list[tuple[float, float | None]]:
    """Return each share between 0 and 1 of a schedule, with the seconds for which it bakes."""
    found: list[tuple[float, float | None]] = []
    share: float | None = None
    for step in schedule:
        if step["kind"] == "shift":
            share = float(step["share"]) / 100
            if 0 < share < 1:
                found.append((share, 0.0))
        elif step["kind"] == "bake" and share is not None and 0 < share < 1:
            found[-1] = (share, (found[-1][1] or 0.0) + float(step["seconds"]))
    return found


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
