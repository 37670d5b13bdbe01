"""Log lines, what may not be in them, and batches that CloudWatch takes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.bascule.deploy.plugins.plugin_utils._cloudwatch._limits import (
    BATCH_BYTES,
    BATCH_EVENTS,
    BATCH_SPAN_MS,
    EVENT_BYTES,
    EVENT_OVERHEAD,
    Line,
    batches,
    fitting,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._cloudwatch._lines import (
    Redactor,
    line_of,
    metrics_of,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._progress_events import Event
from hypothesis import given
from hypothesis import strategies as st


def event(kind: str, **more: Any) -> Event:
    fields = {
        "deployment_id": "d-1", "target": "web1", "name": kind, "status": "Succeeded",
        "message": "", "at": 1000.5, **more,
    }  # fmt: skip
    return Event(kind=kind, **fields)


def test_a_lifecycle_event_is_told_with_the_output_of_its_script() -> None:
    data = {"started": 999.0, "ended": 1000.5, "script": "start.sh", "log": "[stdout]up\n"}
    line = line_of(event("lifecycle", name="ApplicationStart", data=data), Redactor())
    assert line is not None
    assert line.at == 1_000_500
    assert json.loads(line.message) == {
        "kind": "lifecycle",
        "deployment_id": "d-1",
        "target": "web1",
        "name": "ApplicationStart",
        "status": "Succeeded",
        **data,
    }


def test_a_step_of_the_traffic_is_told() -> None:
    step = {"number": 2, "part": "shift", "share": 0.1, "verdict": "passed", "text": "10 %"}
    line = line_of(event("shift", target=None, message="10 % to green", data=step), Redactor())
    assert line is not None
    told = json.loads(line.message)
    assert (told["message"], told["number"], told["share"]) == ("10 % to green", 2, 0.1)
    assert "text" not in told


@pytest.mark.parametrize("kind", ["started", "task", "diff"])
def test_what_only_those_who_look_on_need_is_not_told(kind: str) -> None:
    assert line_of(event(kind), Redactor()) is None


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("password=hunter22 next", "hunter22"),
        ("DB_PASSWORD: hunter22", "hunter22"),
        ('"api_key": "abcdef0123"', "abcdef0123"),
        ("key AKIAABCDEFGHIJKLMNOP here", "AKIAABCDEFGHIJKLMNOP"),
        ("Authorization: Bearer abc.def.ghi", "abc.def.ghi"),
        ("cloning https://me:t0ken@example.org/x.git", "t0ken"),
        ("GET /b?X-Amz-Signature=0a1b2c&x=1", "0a1b2c"),
        ("the pin is 4711", "4711"),
    ],
)
def test_secrets_are_struck_out(text: str, secret: str) -> None:
    redactor = Redactor([r"\b4711\b"])
    line = line_of(event("lifecycle", data={"log": f"[stdout]{text}\n"}, message=text), redactor)
    assert line is not None
    assert secret not in line.message
    assert "[stdout]" in line.message


def test_a_closed_deployment_becomes_metrics() -> None:
    about = {"application": "shop", "group": "web", "rollback_of": "d-0"}
    closed = event("closed", target=None, data={"deployment": about})
    found = metrics_of(closed, 990.5, {"Succeeded": 7, "Failed": 1})
    assert {one["MetricName"]: one["Value"] for one in found} == {
        "DeploymentDuration": 10.0,
        "DeploymentsSucceeded": 1,
        "TargetsFailed": 1,
        "TargetsSucceeded": 7,
        "Rollbacks": 1,
    }
    assert found[0]["Dimensions"] == [
        {"Name": "Application", "Value": "shop"},
        {"Name": "DeploymentGroup", "Value": "web"},
    ]


def test_a_long_message_is_cut_between_characters() -> None:
    cut = fitting("ä" * EVENT_BYTES)
    assert len(cut.encode()) <= EVENT_BYTES
    assert cut.endswith("(cut)")
    assert fitting("short") == "short"


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3 * BATCH_SPAN_MS),
            st.sampled_from(["a", "ä" * 1000, "x" * 300_000]),
        ),
        max_size=60,
    )
)
def test_batches_keep_order_content_and_limits(told: list[tuple[int, str]]) -> None:
    lines = [Line(*one) for one in told]
    found = list(batches(lines))
    messages = [line.message for batch in found for line in batch]
    assert messages == [fitting(line.message) for line in lines]
    for batch in found:
        times = [line.at for line in batch]
        assert times == sorted(times)
        assert times[-1] - times[0] < BATCH_SPAN_MS
        size = sum(len(line.message.encode()) + EVENT_OVERHEAD for line in batch)
        assert size <= BATCH_BYTES


def test_a_batch_has_no_more_events_than_one_call_takes() -> None:
    found = list(batches(Line(0, "x") for _number in range(2 * BATCH_EVENTS + 1)))
    assert [len(batch) for batch in found] == [BATCH_EVENTS, BATCH_EVENTS, 1]
