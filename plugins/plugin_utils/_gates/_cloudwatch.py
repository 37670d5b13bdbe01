# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sources in CloudWatch: the state of an alarm, the value of metrics."""

from __future__ import annotations

import datetime
import math
from typing import TYPE_CHECKING, Any

from ...module_utils._configuration import parse_duration
from ...module_utils._errors import UsageError
from ...module_utils._gate_rules import FAILED, SUCCESSFUL, judge_values
from .. import _aws
from ._http import seen_values
from ._model import Measurement, SourceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...module_utils._gate_spec import Gate
    from ._model import Moment

# An answer comes within a second or not at all; who asks tries again by itself.
_ATTEMPTS = 3
_READ_SECONDS = 10.0
_SIMPLE = {"id", "namespace", "metric", "dimensions", "stat", "period", "expression", "unit"}


def alarm_states(names: Sequence[str]) -> dict[str, str]:
    """Return the state of each alarm (OK, ALARM, INSUFFICIENT_DATA); unknown ones are left out.

    :raises SourceError: CloudWatch does not answer, or refuses
    """
    cloudwatch = _client()
    from botocore.exceptions import BotoCoreError, ClientError

    found: dict[str, str] = {}
    try:
        pages = cloudwatch.get_paginator("describe_alarms").paginate(
            AlarmNames=list(names), AlarmTypes=["MetricAlarm", "CompositeAlarm"]
        )
        for page in pages:
            for alarm in [*page.get("MetricAlarms", ()), *page.get("CompositeAlarms", ())]:
                found[str(alarm["AlarmName"])] = str(alarm["StateValue"])
    except (BotoCoreError, ClientError) as error:
        raise SourceError(f"The alarms cannot be looked at: {_aws.reason(error)}") from error
    return found


def measure_alarm(gate: Gate, _moment: Moment) -> Measurement:
    """Look at one alarm: no while it is active, and yes otherwise, as in CodeDeploy."""
    name = str(gate.options["alarm"])
    try:
        state = alarm_states([name]).get(name)
        if state is None:
            raise SourceError(f"There is no alarm {name} in CloudWatch.")
    except SourceError as error:
        if gate.options.get("ignore_poll_failure"):
            return Measurement(SUCCESSFUL, f"not known, which is ignored: {error}", {"state": None})
        raise
    return Measurement(FAILED if state == "ALARM" else SUCCESSFUL, state, {"state": state})


def measure_metrics(gate: Gate, moment: Moment) -> Measurement:
    """Ask for metrics (GetMetricData); the newest value of ``result`` decides."""
    found = metric_values(gate, gate.options["queries"], moment.now, gate.options.get("result"))
    values = [found[0]] if found else []
    data = {"values": values, "at": moment.now}
    return Measurement(
        judge_values(values, gate.success, gate.failure), seen_values(values, gate), data
    )


def metric_values(gate: Gate, queries: Any, now: float, result: Any = None) -> list[float]:
    """Return the values of the last ``window`` (5 minutes), the newest first.

    :raises SourceError: CloudWatch does not answer or refuses the queries
    """
    seconds = parse_duration(gate.options.get("window") or "5m", "window")
    return _values(gate, queries, now - seconds, now, result)


def sums_since(gate: Gate, queries: Any, started: float, now: float) -> list[float]:
    """Return the values of all whole periods since ``started``.

    :raises SourceError: CloudWatch does not answer or refuses the queries
    """
    return [value for _at, value in points_since(gate, queries, started, now)]


def points_since(gate: Gate, queries: Any, started: float, now: float) -> list[tuple[float, float]]:
    """Return the values of all whole periods since ``started``, each with when it begins.

    What is measured comes late: a period that has no value yet may have one at the next look.

    :raises SourceError: CloudWatch does not answer or refuses the queries
    """
    period = parse_duration(gate.options.get("period") or "60s", "period")
    first, last = math.ceil(started / period) * period, math.floor(now / period) * period
    return _points(gate, queries, first, last) if last > first else []


def _values(gate: Gate, queries: Any, start: float, end: float, result: Any = None) -> list[float]:
    return [value for _at, value in _points(gate, queries, start, end, result)]


def _points(
    gate: Gate, queries: Any, start: float, end: float, result: Any = None
) -> list[tuple[float, float]]:
    cloudwatch = _client()
    from botocore.exceptions import BotoCoreError, ClientError

    period = int(parse_duration(gate.options.get("period") or "60s", "period"))
    listed = list(queries) if isinstance(queries, (list, tuple)) else [queries]
    asked = [_query(one, number, period) for number, one in enumerate(listed, 1)]
    wanted = str(result or asked[-1]["Id"])
    for one in asked:
        one["ReturnData"] = one["Id"] == wanted
    points: list[tuple[float, float]] = []
    try:
        pages = cloudwatch.get_paginator("get_metric_data").paginate(
            MetricDataQueries=asked,
            StartTime=datetime.datetime.fromtimestamp(start, datetime.UTC),
            EndTime=datetime.datetime.fromtimestamp(end, datetime.UTC),
            ScanBy="TimestampDescending",
        )
        for page in pages:
            for one in page.get("MetricDataResults", ()):
                if one["Id"] == wanted:
                    points += [
                        (at.timestamp(), float(value))
                        for at, value in zip(one["Timestamps"], one["Values"], strict=True)
                    ]
    except (BotoCoreError, ClientError) as error:
        raise SourceError(f"CloudWatch refuses the metrics: {_aws.reason(error)}") from error
    return [(at, value) for at, value in points if math.isfinite(value)]


def _query(given: Any, number: int, period: int) -> dict[str, Any]:
    """Return a MetricDataQuery: as it was given, or made of the short form."""
    if not isinstance(given, dict):
        raise SourceError(f"A query of CloudWatch is a mapping, not {given!r}.")
    if "MetricStat" in given or "Expression" in given:
        return {"Id": f"q{number}", **given}
    unknown = sorted(set(given) - _SIMPLE)
    if unknown:
        raise SourceError(
            f"A query of CloudWatch has no key {unknown[0]}; it may have "
            f"{', '.join(sorted(_SIMPLE))}."
        )
    query: dict[str, Any] = {"Id": str(given.get("id") or f"q{number}")}
    if "expression" in given:
        return {**query, "Expression": str(given["expression"]), "Period": period}
    if not given.get("namespace") or not given.get("metric"):
        raise SourceError("A query of CloudWatch needs namespace and metric, or an expression.")
    dimensions = [
        {"Name": str(name), "Value": str(value)}
        for name, value in (given.get("dimensions") or {}).items()
    ]
    own = given.get("period")
    statistic: dict[str, Any] = {
        "Metric": {
            "Namespace": str(given["namespace"]),
            "MetricName": str(given["metric"]),
            "Dimensions": dimensions,
        },
        "Period": int(parse_duration(own, "period")) if own is not None else period,
        "Stat": str(given.get("stat") or "Average"),
    }
    if given.get("unit"):
        statistic["Unit"] = str(given["unit"])
    return {**query, "MetricStat": statistic}


def _client() -> Any:
    """Return the client; raises SourceError where boto3 or a region is missing."""
    try:
        return _aws.client("cloudwatch", attempts=_ATTEMPTS, connect=5, read=_READ_SECONDS)
    except UsageError as error:
        raise SourceError(str(error)) from error
