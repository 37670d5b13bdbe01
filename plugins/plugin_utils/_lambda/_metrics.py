# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What CloudWatch has counted of the two versions that an alias is shared between.

Lambda tells the dimension ``ExecutedVersion`` only of an alias with weights (developer guide,
"Types of metrics for Lambda functions"). So both versions are counted from the first share on. What
the alias got before is counted for neither: CloudWatch tells it late, when the old version would
seem to have had more than its share. What it gets after the last share belongs to the new version.
"""

from __future__ import annotations

import datetime
import time
from typing import TYPE_CHECKING, Any

from ...module_utils._aliases import NEW, OLD
from ...module_utils._errors import TrafficError
from ...module_utils._host._router import Counters
from .._aws import client, reason
from ._service import region_of

if TYPE_CHECKING:
    from .._record import FunctionVersion

NAMESPACE = "AWS/Lambda"
_QUANTILES = ("p50", "p95", "p99")
# CloudWatch keeps minutes for 15 days; a deployment may take longer than a request can return.
_PERIOD = 60
_LONGEST = 15 * 86400.0

Series = dict[float, float]


def counted(one: FunctionVersion, *, full_since: float | None = None) -> dict[str, Counters]:
    """Return the counters of the old and the new version since the new one was published.

    :param full_since: when the alias was moved to the new version alone (epoch seconds)
    :raises TrafficError: CloudWatch does not answer
    """
    now = time.time()
    begin = max(one.at, now - _LONGEST)
    name = one.function.rpartition(":")[2]
    alias = [
        {"Name": "FunctionName", "Value": name},
        {"Name": "Resource", "Value": f"{name}:{one.alias}"},
    ]
    versions = {OLD: one.old_version, NEW: one.version}
    queries: dict[str, dict[str, Any]] = {}
    for pool, version in versions.items():
        executed = [*alias, {"Name": "ExecutedVersion", "Value": version or "none"}]
        for metric, stat in (("Invocations", "Sum"), ("Errors", "Sum")):
            queries[f"{pool}_{metric.lower()}"] = _query(metric, stat, executed)
        for quantile in _QUANTILES:
            queries[f"{pool}_{quantile}"] = _query("Duration", quantile, executed)
    for metric in ("Invocations", "Errors"):
        queries[f"all_{metric.lower()}"] = _query(metric, "Sum", alias)
    for quantile in _QUANTILES:
        queries[f"all_{quantile}"] = _query("Duration", quantile, alias)
    found = _ask(queries, begin, now, region_of(one.function))
    counters = {pool: _counters(found, pool) for pool in versions}
    return _with_unweighted(found, counters, full_since)


def _with_unweighted(
    found: dict[str, Series], counters: dict[str, Counters], full_since: float | None
) -> dict[str, Counters]:
    """Add what the alias got since it leads to the new version alone: the rest of each minute.

    The minute in which it was moved is left out: who got what of it is not told.
    """
    if full_since is None:
        return counters
    rest = {"invocations": 0.0, "errors": 0.0}
    for metric in rest:
        for at, total in found[f"all_{metric}"].items():
            weighted = sum(found[f"{pool}_{metric}"].get(at, 0.0) for pool in (OLD, NEW))
            rest[metric] += max(0.0, total - weighted) if at >= full_since else 0.0
    have = counters[NEW]
    requests = have.requests + round(rest["invocations"])
    histogram = have.histogram
    if rest["invocations"] > have.requests:
        histogram = _histogram(found, "all", requests)
    return {**counters, NEW: Counters(requests, have.errors + round(rest["errors"]), histogram)}


def _counters(found: dict[str, Series], pool: str) -> Counters:
    requests = round(sum(found[f"{pool}_invocations"].values()))
    errors = round(sum(found[f"{pool}_errors"].values()))
    return Counters(requests, errors, _histogram(found, pool, requests))


def _histogram(
    found: dict[str, Series], name: str, requests: float
) -> list[tuple[float, int]] | None:
    """Return a histogram in seconds that has the quantiles which CloudWatch tells."""
    weights = found[f"{name}_invocations"]
    bounds = []
    for quantile in _QUANTILES:
        values = found[f"{name}_{quantile}"]
        total = sum(weights.get(at, 0.0) for at in values)
        if not total:
            return None
        mean = sum(value * weights.get(at, 0.0) for at, value in values.items()) / total
        bounds.append((mean / 1000, int(quantile[1:]) / 100))
    highest = 0.0
    histogram = []
    for bound, share in bounds:
        highest = max(highest, bound)
        histogram.append((highest, round(requests * share)))
    return [*histogram, (highest, round(requests))] if requests else None


def _query(metric: str, stat: str, dimensions: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "Metric": {"Namespace": NAMESPACE, "MetricName": metric, "Dimensions": dimensions},
        "Period": _PERIOD,
        "Stat": stat,
    }


def _ask(
    queries: dict[str, dict[str, Any]], begin: float, end: float, region: str | None
) -> dict[str, Series]:
    from botocore.exceptions import BotoCoreError, ClientError

    asked = [{"Id": name, "MetricStat": query} for name, query in queries.items()]
    found: dict[str, Series] = {name: {} for name in queries}
    minute = datetime.timedelta(seconds=_PERIOD)
    first = datetime.datetime.fromtimestamp(begin - begin % _PERIOD, datetime.UTC)
    last = datetime.datetime.fromtimestamp(end - end % _PERIOD, datetime.UTC) + minute
    try:
        pages = (
            client("cloudwatch", region=region)
            .get_paginator("get_metric_data")
            .paginate(MetricDataQueries=asked, StartTime=first, EndTime=last)
        )
        for page in pages:
            for one in page.get("MetricDataResults", ()):
                pairs = zip(one["Timestamps"], one["Values"], strict=True)
                found[one["Id"]].update({at.timestamp(): float(value) for at, value in pairs})
    except (BotoCoreError, ClientError) as error:
        raise TrafficError(f"CloudWatch does not tell the metrics: {reason(error)}") from error
    return found
