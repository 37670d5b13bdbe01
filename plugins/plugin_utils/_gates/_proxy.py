# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sources at the load balancer: what it has counted of a pool, and whom it sees healthy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...module_utils._gate_rules import (
    FAILED,
    NO_DATA,
    SUCCESSFUL,
    judge_values,
    parse_condition,
)
from ...module_utils._host._router import Counters, quantile, window
from ._http import seen_values
from ._model import Measurement, SourceError, Traffic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...module_utils._gate_spec import Gate
    from ._model import Moment

_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def measured_by(traffic: Traffic | None) -> dict[str, Any]:
    """Return what the load balancers have counted, all of them together (see ``Traffic``).

    :raises SourceError: there is no load balancer, or none that counts
    """
    if traffic is None:
        raise SourceError("There is no load balancer to measure: set deploy_traffic_provider.")
    return traffic.measured()


def counters_of(traffic: Traffic | None) -> dict[str, Counters]:
    """Return what has been counted of each pool; where there are none, of each arm.

    :raises SourceError: there is no load balancer, or none that counts
    """
    measured = measured_by(traffic)
    found = measured["pools"] or measured.get("arms") or {}
    return {str(name): counters_from(seen) for name, seen in found.items()}


def counters_from(seen: Mapping[str, Any]) -> Counters:
    """Return counters from plain data (see ``Counters.as_data``)."""
    histogram = (seen.get("latency") or {}).get("histogram")
    pairs = [(float(bound), int(count)) for bound, count in histogram] if histogram else None
    return Counters(int(seen["requests"]), int(seen["errors"]), pairs)


def plain_counters(counters: Mapping[str, Counters]) -> dict[str, Any]:
    """Return counters as plain data from which ``counters_from`` makes them again."""
    return {
        name: {
            "requests": one.requests, "errors": one.errors,
            "latency": {"histogram": [list(pair) for pair in one.histogram]}
            if one.histogram
            else None,
        }
        for name, one in counters.items()
    }  # fmt: skip


def together(parts: Sequence[Counters]) -> Counters:
    """Return what several load balancers have counted of one pool."""
    histograms = [one.histogram for one in parts if one.histogram]
    bounds = sorted({bound for histogram in histograms for bound, _count in histogram})
    merged = [
        (
            bound,
            sum(
                max((count for upper, count in histogram if upper <= bound), default=0)
                for histogram in histograms
            ),
        )
        for bound in bounds
    ]
    return Counters(
        sum(one.requests for one in parts), sum(one.errors for one in parts), merged or None
    )


def value_of(counters: Counters, metric: str) -> float | None:
    """Return a metric of what was counted; None where there was nothing to count."""
    if metric == "requests":
        return float(counters.requests)
    if metric == "errors":
        return float(counters.errors)
    if metric == "error_rate":
        return counters.errors / counters.requests if counters.requests else None
    if not counters.histogram or not counters.histogram[-1][1]:
        return None
    return quantile(counters.histogram, _QUANTILES[metric])


def measure_proxy(gate: Gate, moment: Moment) -> Measurement:
    """Measure a pool since the step began; against ``baseline``, as a multiple of that pool's.

    Latency is in seconds. The first look only counts: what was before the step says nothing.
    """
    metric = str(gate.options["metric"])
    now = counters_of(moment.traffic)
    pool = moment.pools.named(str(gate.options.get("pool") or moment.pools.canary))
    names = [pool] if pool else list(now)
    data: dict[str, Any] = {"counters": plain_counters(now)}
    begun = _since(moment, now)
    if begun is None:
        return Measurement(NO_DATA, "counts from now on", data)
    value = value_of(together([_window(begun, now, name) for name in names]), metric)
    baseline = moment.pools.named(str(gate.options.get("baseline") or ""))
    seen = ""
    if baseline and value is not None:
        other = value_of(_window(begun, now, baseline), metric)
        seen = f"{metric} {value:.6g} against {other if other is None else f'{other:.6g}'}: "
        value = value / other if other else None
    values = [] if value is None else [value]
    phase = judge_values(values, gate.success, gate.failure)
    return Measurement(phase, seen + seen_values(values, gate), {**data, "values": values})


def _since(moment: Moment, now: Mapping[str, Counters]) -> dict[str, Counters] | None:
    """Return what was counted when the step began; a proxy that began anew began at 0."""
    earlier = [one["counters"] for one in moment.earlier if "counters" in one]
    if not earlier:
        return None
    first, last = earlier[0], earlier[-1]
    begun = {}
    for name in now:
        known = first.get(name)
        if known is None:
            begun[name] = Counters(0, 0, None)
            continue
        latest = last.get(name) or known
        restarted = now[name].requests < int(latest["requests"])
        begun[name] = Counters(0, 0, None) if restarted else counters_from(known)
    return begun


def _window(begun: Mapping[str, Counters], now: Mapping[str, Counters], name: str) -> Counters:
    if name not in now:
        raise SourceError(
            f"The load balancer has no pool {name}; it has {', '.join(sorted(now)) or 'none'}."
        )
    return window(begun[name], now[name])


def measure_load_balancer(gate: Gate, moment: Moment) -> Measurement:
    """Ask whom the load balancer sees in service; all of them by default."""
    if moment.traffic is None:
        raise SourceError("There is no load balancer to ask: set deploy_traffic_provider.")
    pool = moment.pools.named(str(gate.options.get("pool") or ""))
    targets = moment.traffic.observed(pool)["targets"]
    states = {str(name): bool(one.get("in_service")) for name, one in targets.items()}
    healthy = sum(states.values())
    data = {"targets": {str(name): one.get("state") for name, one in targets.items()}}
    told = f"{healthy} of {len(states)} targets are in service"
    if not states:
        return Measurement(NO_DATA, "the load balancer has no targets", data)
    wanted = gate.options.get("healthy")
    if wanted is not None:
        good = parse_condition(wanted, "healthy").holds(float(healthy))
        return Measurement(SUCCESSFUL if good else FAILED, f"{told}, wanted {wanted}", data)
    out = [name for name, fine in states.items() if not fine]
    if out:
        return Measurement(FAILED, f"{told}; not {', '.join(out[:5])}", data)
    return Measurement(SUCCESSFUL, told, data)
