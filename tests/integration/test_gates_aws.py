"""Gates on CloudWatch, and alarms that many workers watch together; against a moto server."""

from __future__ import annotations

import datetime
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError
from ansible_collections.bascule.deploy.plugins.module_utils._gate_rules import (
    FAILED,
    INCONCLUSIVE,
    PENDING,
)
from ansible_collections.bascule.deploy.plugins.module_utils._gate_spec import parse_gates
from ansible_collections.bascule.deploy.plugins.plugin_utils._alarms import (
    FAILED_LOOKS,
    look,
    refuse_active,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._gates import Pools, run_step
from ansible_collections.bascule.deploy.plugins.plugin_utils._gates._judging import measure_judge
from ansible_collections.bascule.deploy.plugins.plugin_utils._gates._model import Moment
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Record
from support.aws import running
from support.records import create

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.aws import Aws


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("moto")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Aws]:
    with running(folder) as started:
        yield started


@pytest.fixture
def aws(server: Aws, monkeypatch: pytest.MonkeyPatch) -> Aws:
    server.reset()
    server.use(monkeypatch)
    return server


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    with Record.open(f"sqlite:///{tmp_path / 'record.db'}") as opened:
        yield opened


def alarm(aws: Aws, name: str, state: str) -> None:
    client = aws.client("cloudwatch")
    client.put_metric_alarm(
        AlarmName=name, Namespace="shop", MetricName=name, Statistic="Sum", Period=60,
        EvaluationPeriods=1, Threshold=1.0, ComparisonOperator="GreaterThanThreshold",
    )  # fmt: skip
    client.set_alarm_state(AlarmName=name, StateValue=state, StateReason="a test")


def put(aws: Aws, name: str, *values: float) -> None:
    """Write one value a minute, the last one some seconds ago: the end of a window is not in it."""
    now = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=20)
    data = [
        {"MetricName": name, "Value": value, "Dimensions": [{"Name": "Pool", "Value": "green"}],
         "Timestamp": now - datetime.timedelta(minutes=len(values) - number)}
        for number, value in enumerate(values, 1)
    ]  # fmt: skip
    aws.client("cloudwatch").put_metric_data(Namespace="shop", MetricData=data)


def asked(record: Record, *gates: dict[str, Any]) -> Any:
    made = create(record, ["a"], group=f"g{len(record.deployments())}")
    quick = [{"interval": "100ms", "error_retry": "100ms", **gate} for gate in gates]
    return run_step(record, {"id": made.id}, "stage 1", parse_gates(quick))


METRICS = {"type": "cloudwatch", "queries": [
    {"id": "bad", "namespace": "shop", "metric": "Errors", "stat": "Sum",
     "dimensions": {"Pool": "green"}},
    {"namespace": "shop", "metric": "Requests", "stat": "Sum", "dimensions": {"Pool": "green"}},
]}  # fmt: skip


def test_the_newest_value_of_a_metric_decides(aws: Aws, record: Record) -> None:
    put(aws, "Errors", 50, 60, 2)
    put(aws, "Requests", 1000, 1000, 900)
    good = {**METRICS, "result": "bad", "success": "<= 5"}
    bad = {**METRICS, "name": "requests", "success": "> 5000", "dry_run": True}
    outcome = asked(record, good, bad)
    assert outcome.verdict == "Pass", outcome
    seen = {one["name"]: one["seen"] for one in outcome.gates}
    assert seen == {"cloudwatch": "2, wanted <= 5", "requests": "900, wanted > 5000"}
    assert asked(record, {**good, "success": "< 2"}).verdict == "Fail"


def test_a_metric_without_values_is_not_known(aws: Aws, record: Record) -> None:
    put(aws, "Requests", 1000, 1000, 900)
    outcome = asked(record, {**METRICS, "result": "bad", "success": "<= 5"})
    assert (outcome.verdict, outcome.gates[0]["seen"]) == ("Inconclusive", "no value yet")


def judged(record: Record, judge: dict[str, Any], aws: Aws, lag: int, looks: int) -> list[Any]:
    """Look once a minute at what has come ``lag`` minutes late; return what the judge said."""
    [gate] = parse_gates([{"type": "judge", "judge": judge}])
    # On a whole minute, an hour ago.
    started = float(int(time.time()) // 60 * 60 - 3600)
    earlier: list[Any] = []
    said: list[Any] = []
    for number in range(looks):
        minute = number - 1 - lag
        if minute >= 0:
            at = datetime.datetime.fromtimestamp(started + 60 * minute + 30, datetime.UTC)
            write_minute(aws, at, minute)
        now = started + 60 * number + 1
        found = measure_judge(
            gate,
            Moment(
                record=record, deployment={"id": "d-1"}, step="step 1", round=1, started=started,
                until=started + 60 * looks, now=now, over=number == looks - 1, late=False,
                pools=Pools("green", "blue", 0.1), traffic=None, earlier=tuple(earlier),
            ),
        )  # fmt: skip
        earlier.append({"phase": found.phase, **found.data})
        said.append(found)
    return said


def write_minute(aws: Aws, at: datetime.datetime, minute: int) -> None:
    """Write what a load balancer sends for a minute: the canary is bad, and slow."""
    more = minute % 3 / 100
    sent = {
        ("Requests", "green"): 1000, ("Errors", "green"): 60, ("Time", "green"): 0.3 + more,
        ("Requests", "blue"): 9000, ("Errors", "blue"): 90, ("Time", "blue"): 0.2 + more,
    }  # fmt: skip
    data = [
        {"MetricName": name, "Value": value, "Timestamp": at,
         "Dimensions": [{"Name": "Pool", "Value": pool}]}
        for (name, pool), value in sent.items()
    ]  # fmt: skip
    aws.client("cloudwatch").put_metric_data(Namespace="shop", MetricData=data)


def query(metric: str, pool: str, stat: str, **more: Any) -> dict[str, Any]:
    of = {"namespace": "shop", "metric": metric, "stat": stat, "dimensions": {"Pool": pool}}
    return {**of, **more}


ERROR_RATE = {
    "name": "errors", "kind": "rate", "critical": True, "source": "cloudwatch",
    **{arm: {"bad": query("Errors", pool, "Sum"), "total": query("Requests", pool, "Sum")}
       for arm, pool in (("canary", "green"), ("baseline", "blue"))},
}  # fmt: skip
SLOWNESS = {
    "name": "time", "kind": "series", "critical": True, "source": "cloudwatch",
    "canary": query("Time", "green", "Average"), "baseline": query("Time", "blue", "Average"),
}  # fmt: skip


def test_a_judge_on_counts_of_cloudwatch_that_come_late(aws: Aws, record: Record) -> None:
    said = judged(record, {"metrics": [ERROR_RATE]}, aws, lag=2, looks=6)
    # Nothing has come yet: that is no failure, and no success.
    assert [one.phase for one in said[:3]] == [PENDING] * 3
    assert said[3].phase == FAILED, [one.seen for one in said]
    assert "60 of 1000 requests against 90 of 9000" in said[3].seen
    # What was counted before is not counted again.
    counted = [one.data["look"]["rates"]["errors"]["canary"] for one in said[1:] if one.data]
    assert counted[2:] == [{"bad": 60, "total": 1000}] * 3


def test_a_judge_on_a_series_of_cloudwatch_sees_each_period_once(aws: Aws, record: Record) -> None:
    said = judged(record, {"metrics": [SLOWNESS]}, aws, lag=1, looks=14)
    seen = [one.data["look"]["values"]["time"]["canary"] for one in said[1:]]
    assert seen[:1] == [None]
    assert [round(one, 2) for one in seen[1:4]] == [0.3, 0.31, 0.32]
    assert said[10].phase == PENDING
    assert "9 of 10 intervals" in said[10].seen
    assert said[11].phase == FAILED, [one.seen for one in said]


def test_a_judge_whose_metrics_never_come_in_time_is_inconclusive(aws: Aws, record: Record) -> None:
    for metric in (ERROR_RATE, SLOWNESS):
        said = judged(record, {"metrics": [metric]}, aws, lag=9, looks=5)
        assert [one.phase for one in said] == [PENDING] * 4 + [INCONCLUSIVE], said
        aws.reset()
    # A period in which no minute is whole is asked for in vain, too.
    hourly = {**ERROR_RATE, "period": "2h"}
    said = judged(record, {"metrics": [hourly]}, aws, lag=0, looks=5)
    assert said[-1].phase == INCONCLUSIVE


def test_an_alarm_as_a_gate(aws: Aws, record: Record) -> None:
    alarm(aws, "High5xx", "OK")
    alarm(aws, "Unknown", "INSUFFICIENT_DATA")
    alarm(aws, "Active", "ALARM")
    for name, verdict in (("High5xx", "Pass"), ("Unknown", "Pass"), ("Active", "Fail")):
        assert asked(record, {"type": "cloudwatch_alarm", "alarm": name}).verdict == verdict
    missing = {"type": "cloudwatch_alarm", "alarm": "Gone", "consecutive_error_limit": 0}
    outcome = asked(record, missing)
    assert "There is no alarm Gone in CloudWatch" in outcome.message
    assert asked(record, {**missing, "ignore_poll_failure": True}).verdict == "Pass"


def test_none_is_begun_while_an_alarm_is_active_or_cannot_be_looked_at(
    aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    alarm(aws, "High5xx", "OK")
    given = {"names": ["High5xx"], "ignore_poll_failure": False, "interval": 1.0}
    refuse_active(None)
    refuse_active(given)
    alarm(aws, "High5xx", "ALARM")
    with pytest.raises(UsageError, match=r"ALARM_ACTIVE: the alarm High5xx is active"):
        refuse_active({**given, "ignore_poll_failure": True})
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(UsageError, match="The alarms cannot be looked at"):
        refuse_active(given)
    refuse_active({**given, "ignore_poll_failure": True})


def test_looks_without_an_answer_stop_the_deployment_after_some(aws: Aws, record: Record) -> None:
    alarm(aws, "High5xx", "OK")
    name = create(record, ["a"]).id
    assert record.alarm_turn(name, 1.0) == 0.0
    look(record, name, ["High5xx"], 1.0, ignore=False)
    assert record.alarms(name).states == {"High5xx": "OK"}  # type: ignore[union-attr]
    for _number in range(FAILED_LOOKS):
        assert record.deployment(name).error_code is None
        look(record, name, ["High5xx", "Gone"], 1.0, ignore=False)
    halted = record.finish(name)
    assert (halted.status, halted.error_code) == ("Stopped", "ALARM_POLL_FAILED")
    assert "CloudWatch has no alarm Gone" in halted.error_message

    other = create(record, ["a"], group="other").id
    assert record.alarm_turn(other, 1.0) == 0.0
    for _number in range(FAILED_LOOKS + 2):
        look(record, other, ["Gone"], 1.0, ignore=True)
    assert record.deployment(other).error_code is None
    alarm(aws, "Gone", "ALARM")
    look(record, other, ["Gone"], 1.0, ignore=True)
    assert record.finish(other).error_code == "ALARM_ACTIVE"


WATCHER = """
import sys, time
from ansible_collections.bascule.deploy.plugins.plugin_utils._alarms import AlarmWatch
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Record
url, deployment = sys.argv[1:]
alarms = {"names": ["High5xx"], "ignore_poll_failure": False, "interval": 1.0}
with Record.open(url) as record, AlarmWatch(lambda: Record.open(url), deployment, alarms):
    print("watching", flush=True)
    deadline = time.monotonic() + 120
    while record.deployment(deployment).error_code is None and time.monotonic() < deadline:
        time.sleep(0.1)
"""


def test_one_look_serves_all_who_watch(
    aws: Aws, record: Record, tmp_path: Path, folder: Path
) -> None:
    def calls() -> int:
        return (folder / "moto.log").read_text().count('"POST / HTTP')

    alarm(aws, "High5xx", "OK")
    before = calls()
    name = create(record, ["a", "b"]).id
    url = f"sqlite:///{tmp_path / 'record.db'}"
    begun = time.monotonic()
    watchers = [
        subprocess.Popen([sys.executable, "-c", WATCHER, url, name], stdout=subprocess.PIPE)
        for _number in range(6)
    ]
    try:
        for watcher in watchers:
            assert watcher.stdout is not None
            assert watcher.stdout.readline() == b"watching\n"
        wait_for(lambda: calls() >= before + 3)
        alarm(aws, "High5xx", "ALARM")
        for watcher in watchers:
            watcher.wait(timeout=120)
    finally:
        for watcher in watchers:
            watcher.kill()
            watcher.communicate()
    lasted = time.monotonic() - begun
    assert record.deployment(name).error_code == "ALARM_ACTIVE"
    # However many watch: one look in an interval. Two calls were the test's own.
    assert 3 <= calls() - before - 2 <= lasted / 1.0 + 1


def wait_for(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)
