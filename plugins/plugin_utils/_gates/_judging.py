# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The judge as a gate: look at canary and baseline, and decide on all that was seen so far."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...module_utils._errors import UsageError
from ...module_utils._gate_rules import FAILED, INCONCLUSIVE, PENDING, SUCCESSFUL
from ...module_utils._host._router import Counters, window
from .._judge import Judge, decide, parse_judge
from .._judge._samples import data_from, fingerprint, plain_number
from . import _cloudwatch, _http, _local
from ._model import Measurement, Moment, Pools, SourceError
from ._proxy import counters_from, measured_by, plain_counters, value_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...module_utils._gate_spec import Gate

SOURCES = ("proxy", "prometheus", "cloudwatch", "command")
_ARMS = ("canary", "baseline")
# What a metric has for its source, beside what the judge knows of it.
_OF_SOURCE = {
    "source", "url", "headers", "verify", "canary", "baseline", "quantile", "command", "period",
}  # fmt: skip
# What the setting has beside the judge.
_OF_STEP = {"interval", "canary", "baseline", "share", "assignments", "evidence"}


@dataclass(frozen=True)
class Configured:
    """A judge, what it needs to know as plain data, and where each metric comes from."""

    judge: Judge
    public: dict[str, Any]
    sources: dict[str, dict[str, Any]]
    pools: Pools
    assignments: bool


def configure(given: Any) -> Configured:
    """Read ``deploy_judge``.

    :raises UsageError: naming the metric and the key that do not fit
    """
    if not isinstance(given, dict):
        raise UsageError(f"deploy_judge is {given!r}; wanted is a mapping with metrics.")
    public = {key: value for key, value in given.items() if key not in _OF_STEP}
    sources: dict[str, dict[str, Any]] = {}
    metrics = []
    for one in given.get("metrics") or ():
        if not isinstance(one, dict):
            raise UsageError(f"A metric of the judge is a mapping, not {one!r}.")
        metrics.append({key: value for key, value in one.items() if key not in _OF_SOURCE})
        source = {key: value for key, value in one.items() if key in _OF_SOURCE}
        sources[str(one.get("name"))] = {"source": "proxy", **source}
    public["metrics"] = metrics
    judge = parse_judge(public)
    for metric in judge.metrics:
        _check_source(metric.name, metric.kind, sources[metric.name])
    share = given.get("share")
    return Configured(
        judge=judge,
        public=json.loads(json.dumps(public)),
        sources=sources,
        pools=Pools(
            str(given.get("canary") or ""),
            str(given.get("baseline") or ""),
            None if share is None else _share(share),
        ),
        assignments=_assignments(given.get("assignments", "requests")),
    )


def _share(share: Any) -> float:
    try:
        found = float(str(share).rstrip("% "))
    except ValueError:
        found = -1.0
    if not 0 < found < 100:
        raise UsageError(f"The judge's share is {share!r}; wanted is a percentage, such as 5.")
    return found / 100


def _assignments(given: Any) -> bool:
    if given not in ("requests", "none"):
        raise UsageError(f"The judge's assignments are {given!r}; wanted is requests or none.")
    return bool(given == "requests")


def _check_source(name: str, kind: str, source: Mapping[str, Any]) -> None:
    where = f"Metric {name} of the judge"
    known = source["source"]
    if known not in SOURCES:
        raise UsageError(f"{where}: source is one of {', '.join(SOURCES)}, not {known!r}.")
    if known == "proxy":
        if kind == "series" and source.get("quantile", "p95") not in ("p50", "p95", "p99"):
            raise UsageError(f"{where}: quantile is p50, p95 or p99.")
        return
    if known == "command":
        if not source.get("command"):
            raise UsageError(f"{where}: the source command needs command.")
        return
    if known == "prometheus" and not source.get("url"):
        raise UsageError(f"{where}: the source prometheus needs url.")
    for arm in _ARMS:
        given = source.get(arm)
        fits = bool(given)
        if kind == "rate":
            fits = isinstance(given, dict) and {"bad", "total"} <= set(given)
        if not fits:
            wanted = "a query" if kind == "series" else "queries for bad and total"
            raise UsageError(f"{where}: {arm} needs {wanted}.")


def measure_judge(gate: Gate, moment: Moment) -> Measurement:
    """Look once, and decide on all looks of the step.

    While the step bakes, good is not enough to end it; bad is.
    """
    setting = configure(gate.options["judge"])
    pools = pools_for(setting, gate, moment)
    if pools.share is not None and not 0 < pools.share < 1:
        alone = f"one pool has all the traffic ({100 * pools.share:g} % for the canary)"
        return Measurement(SUCCESSFUL, f"{alone}: nothing to compare")
    before = [one["look"] for one in moment.earlier if "look" in one]
    last = next((one["raw"] for one in reversed(moment.earlier) if "raw" in one), None)
    look, raw = look_at(setting, pools, gate, moment, last)
    if last is None:
        # What was counted before the step began says nothing; from here on it does.
        return Measurement(PENDING, "counts from now on", {"raw": raw})
    looks = [*before, look]
    final = (moment.over and moment.bakes) or moment.late
    data = data_from(setting.judge, looks, final=final)
    found = decide(setting.judge, data, final=final)
    told = {
        "look": look, "raw": raw, "judge": setting.public, "final": final, "result": found,
        "sha256": fingerprint(data),
    }  # fmt: skip
    return Measurement(_phase(found, moment, final), f"{found['verdict']}: {found['reason']}", told)


def _phase(found: Mapping[str, Any], moment: Moment, final: bool) -> str:
    verdict = found["verdict"]
    if verdict == "Fail":
        return FAILED
    if verdict == "Inconclusive":
        return INCONCLUSIVE
    if verdict == "Continue" or (moment.bakes and not final):
        return PENDING
    return SUCCESSFUL


def pools_for(setting: Configured, gate: Gate, moment: Moment) -> Pools:
    """Return which pools are compared: what the gate names, else the judge, else the step."""
    options = gate.options
    share = setting.pools.share
    if options.get("share") is not None:
        share = _share(options["share"])
    named = any(options.get(arm) or getattr(setting.pools, arm) for arm in _ARMS)
    return Pools(
        str(options.get("canary") or setting.pools.canary or moment.pools.canary),
        str(options.get("baseline") or setting.pools.baseline or moment.pools.baseline),
        moment.pools.share if share is None else share,
        moment.pools.sticky,
        # Who names pools wants them compared as a whole.
        {} if named else moment.pools.arms,
    )


def look_at(
    setting: Configured,
    pools: Pools,
    gate: Gate,
    moment: Moment,
    last: Mapping[str, Any] | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return one look, and the raw counters from which the next one counts on.

    :raises SourceError: a source that does not answer
    """
    raw: dict[str, Any] = {"at": moment.now}
    look: dict[str, Any] = {
        "at": moment.now, "share": pools.share, "rates": {}, "values": {}, "assignments": None,
    }  # fmt: skip
    if any(source["source"] == "proxy" for source in setting.sources.values()):
        measured = measured_by(moment.traffic)
        for key, found in (("proxy", measured["pools"]), ("arms", measured.get("arms"))):
            # As JSON has them: what is replayed must be what was seen.
            counted = {str(name): counters_from(seen) for name, seen in (found or {}).items()}
            raw[key] = plain_counters(counted)
        raw["assigned"] = measured.get("assigned")
        if last is not None:
            _from_proxy(setting, pools, look, raw, last)
    for metric in setting.judge.metrics:
        source = setting.sources[metric.name]
        if source["source"] == "proxy":
            continue
        if metric.kind == "series" and source["source"] == "cloudwatch":
            known = ((last or {}).get("periods") or {}).get(metric.name)
            at, pair = _newest_period(source, gate, moment, known)
            raw.setdefault("periods", {})[metric.name] = at
            look["values"][metric.name] = pair
            continue
        if metric.kind == "series":
            look["values"][metric.name] = {
                arm: plain_number(found)
                for arm, found in _values(source, gate, moment, metric.name).items()
            }
            continue
        counts = _counts(source, gate, moment, metric.name)
        raw.setdefault("counts", {})[metric.name] = counts
        known = ((last or {}).get("counts") or {}).get(metric.name)
        if known is not None:
            look["rates"][metric.name] = {
                arm: {key: _grown(known[arm][key], counts[arm][key]) for key in ("bad", "total")}
                for arm in _ARMS
            }
    return look, raw


def _from_proxy(
    setting: Configured,
    pools: Pools,
    look: dict[str, Any],
    now: Mapping[str, Any],
    last: Mapping[str, Any],
) -> None:
    """Add what the load balancers have counted since the look before."""
    windows = _since_last(pools, now, last)
    for metric in setting.judge.metrics:
        source = setting.sources[metric.name]
        if source["source"] != "proxy":
            continue
        if metric.kind == "rate":
            look["rates"][metric.name] = {
                arm: {"bad": min(one.errors, one.requests), "total": one.requests}
                for arm, one in windows.items()
            }
        else:
            quantile = str(source.get("quantile") or "p95")
            look["values"][metric.name] = {
                arm: plain_number(value_of(one, quantile)) for arm, one in windows.items()
            }
    if setting.assignments and not pools.sticky:
        look["assignments"] = _assignments_of(pools, now, last)


def _since_last(
    pools: Pools, now: Mapping[str, Any], last: Mapping[str, Any]
) -> dict[str, Counters]:
    """Return what was counted of each arm between two looks.

    :raises SourceError: the load balancers do not have it
    """
    key = "arms" if pools.arms else "proxy"
    names = {arm: arm if pools.arms else getattr(pools, arm) for arm in _ARMS}
    windows = {}
    for arm, name in names.items():
        if not name or name not in now[key]:
            raise SourceError(
                f"The judge's {arm} is the pool {name or '(not set)'}; the load balancer has "
                f"{', '.join(sorted(now[key])) or 'none'}."
            )
        after = counters_from(now[key][name])
        before = last.get(key) or {}
        windows[arm] = window(counters_from(before[name]) if name in before else after, after)
    return windows


def _assignments_of(
    pools: Pools, now: Mapping[str, Any], last: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return how many requests the arms were given since the look before; None: not to be compared.

    Pools have the shares that the schedule gives them. Targets among the others have those of their
    weights, if the load balancer goes by them and they were the same at both looks.
    """
    if not pools.arms or pools.canary in now["proxy"]:
        if pools.share is None:
            return None
        whole = dataclasses.replace(pools, arms={})
        return {arm: one.requests for arm, one in _since_last(whole, now, last).items()}
    given, before = now.get("assigned"), last.get("assigned")
    if not given or not before or any(given[arm] < before[arm] for arm in _ARMS):
        return None
    share = pools.share if pools.share is not None else given["share"]
    if share is None or (pools.share is None and share != before["share"]):
        return None
    return {**{arm: given[arm] - before[arm] for arm in _ARMS}, "share": share}


def _values(
    source: Mapping[str, Any], gate: Gate, moment: Moment, name: str
) -> dict[str, float | None]:
    """Return the present value of a metric on both sides, of Prometheus or of a command."""
    if source["source"] == "command":
        said = _said(source, gate, moment, name)
        return {arm: None if said[arm] is None else float(said[arm]) for arm in _ARMS}
    asking = _asking(gate, source)
    found: dict[str, float | None] = {}
    for arm in _ARMS:
        query = _of_arm(str(source[arm]), moment, arm)
        values = _http.prometheus_values(asking, str(source["url"]), query)
        found[arm] = values[0] if values else None
    return found


def _newest_period(
    source: Mapping[str, Any], gate: Gate, moment: Moment, known: float | None
) -> tuple[float | None, dict[str, float | None]]:
    """Return CloudWatch's newest whole period of the step with a value on both sides.

    Each period counts once, however often one looks: a value that is seen again is no evidence.

    :param known: when the period begins that was seen last
    """
    asking = _asking(gate, source)
    arms = {
        arm: dict(_cloudwatch.points_since(asking, source[arm], moment.started, moment.now))
        for arm in _ARMS
    }
    both = sorted(set(arms["canary"]) & set(arms["baseline"]))
    new = [at for at in both if known is None or at > known]
    if not new:
        return known, dict.fromkeys(_ARMS)
    return new[-1], {arm: plain_number(arms[arm][new[-1]]) for arm in _ARMS}


def _counts(
    source: Mapping[str, Any], gate: Gate, moment: Moment, name: str
) -> dict[str, dict[str, int]]:
    """Return counters that only grow: of Prometheus, of a command, or CloudWatch's sums so far."""
    if source["source"] == "command":
        said = _said(source, gate, moment, name)
        return {arm: {key: int(said[arm][key]) for key in ("bad", "total")} for arm in _ARMS}
    asking = _asking(gate, source)
    found: dict[str, dict[str, int]] = {}
    for arm in _ARMS:
        found[arm] = {}
        for key in ("bad", "total"):
            query = source[arm][key]
            if source["source"] == "prometheus":
                query = _of_arm(str(query), moment, arm)
                values = _http.prometheus_values(asking, str(source["url"]), query)
            else:
                values = _cloudwatch.sums_since(asking, query, moment.started, moment.now)
            found[arm][key] = round(sum(values))
    return found


def _of_arm(query: str, moment: Moment, arm: str) -> str:
    """Put the targets of an arm where a query of Prometheus names them.

    ``$targets`` are their names in the inventory, ``$addresses`` are ``address:port``, both as a
    regular expression for ``=~``.
    """
    members = moment.pools.arms.get(arm) or ()
    for name, values in (
        ("$targets", [str(one.get("target") or one["name"]) for one in members]),
        ("$addresses", [f"{one['address']}:{one['port']}" for one in members]),
    ):
        if name in query:
            if not values:
                raise SourceError(
                    f"A query of the judge has {name}, and there are no canaries among the "
                    "targets in this deployment."
                )
            # PromQL reads backslashes in its strings once more.
            query = query.replace(
                name, "|".join(re.escape(one) for one in values).replace("\\", "\\\\")
            )
    return query


def _asking(gate: Gate, source: Mapping[str, Any]) -> Gate:
    options = {key: source[key] for key in ("url", "headers", "verify", "period") if key in source}
    return dataclasses.replace(gate, options=options, success=None, failure=None)


def _said(source: Mapping[str, Any], gate: Gate, moment: Moment, name: str) -> dict[str, Any]:
    """Return what a command prints: ``{"canary": …, "baseline": …}`` as JSON."""
    text = _local.output_of(source["command"], gate, moment)
    try:
        said = json.loads(text)
        return {arm: said[arm] for arm in _ARMS}
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(
            f"The command of the metric {name} did not print JSON with canary and baseline: "
            f"{text[:100]!r}"
        ) from error


def _grown(before: int, now: int) -> int:
    """Return by how much a counter has grown; one that is smaller has begun anew."""
    return now - before if now >= before else now
