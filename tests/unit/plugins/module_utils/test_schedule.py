from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError
from ansible_collections.bascule.deploy.plugins.module_utils._schedule import (
    NAMES,
    duration_text,
    is_schedule_name,
    nearest_name,
    parse_schedule,
    render_schedule,
    schedule_seconds,
    schedule_times,
)
from hypothesis import given
from hypothesis import strategies as st


def short(steps: list[dict[str, Any]]) -> list[Any]:
    """Return shares as floats, bakes as texts such as "60s", everything else as it is."""
    read = {"shift": lambda s: s["share"], "bake": lambda s: f"{s['seconds']:g}s"}
    return [read.get(step["kind"], lambda s: s)(step) for step in steps]


@pytest.mark.parametrize(
    ("written", "steps"),
    [
        ("all_at_once", [100]),
        ("AllAtOnce", [100]),
        ({"all_at_once": True}, [100]),
        ("CodeDeployDefault.LambdaAllAtOnce", [100]),
        ("CodeDeployDefault.ECSAllAtOnce", [100]),
        ("CodeDeployDefault.LambdaCanary10Percent5Minutes", [10, "300s", 100]),
        ("LambdaCanary10Percent10Minutes", [10, "600s", 100]),
        ("codedeploydefault.lambdacanary10percent15minutes", [10, "900s", 100]),
        ("Canary10Percent30Minutes", [10, "1800s", 100]),
        ("CodeDeployDefault.ECSCanary10Percent5Minutes", [10, "300s", 100]),
        ("ECSCanary10Percent15Minutes", [10, "900s", 100]),
        ({"canary": {"first": "10%", "then_after": "5m"}}, [10, "300s", 100]),
        ({"canary": {"first": 2.5, "then_after": 30}}, [2.5, "30s", 100]),
        ({"linear": {"step": "40%", "every": "1m"}}, [40, "60s", 80, "60s", 100]),
        ({"linear": {"step": "50%", "every": "1s"}}, [50, "1s", 100]),
        ({"linear": {"step": "100%", "every": "1s"}}, [100]),
        (
            {"type": "TimeBasedCanary", "timeBasedCanary":
                {"canaryPercentage": 25, "canaryInterval": 2}},
            [25, "120s", 100],
        ),
        (
            {"type": "TimeBasedLinear", "timeBasedLinear":
                {"linearPercentage": 50, "linearInterval": 1}},
            [50, "60s", 100],
        ),
        ({"type": "AllAtOnce"}, [100]),
        ([{"shift": "5%"}, {"bake": "10m"}], [5, "600s", 100]),
        ([{"shift": 5}, {"bake": 1}, {"shift": "100%"}, {"bake": "1h"}], [5, "1s", 100, "3600s"]),
        ('[{"shift": "5%"}, {"bake": "10m"}]', [5, "600s", 100]),
        ('{"canary": {"first": "10%", "then_after": "5m"}}', [10, "300s", 100]),
        (
            [{"approval": "1h"}, {"shift": 100}],
            [{"kind": "approval", "timeout": 3600.0, "on_timeout": "stop"}, 100],
        ),
        (
            ["approval", {"approval": {"timeout": "5m", "on_timeout": "continue"}}],
            [
                {"kind": "approval", "timeout": 86400.0, "on_timeout": "stop"},
                {"kind": "approval", "timeout": 300.0, "on_timeout": "continue"},
                100,
            ],
        ),
        (
            [{"shift": "5%"}, {"gate": {"http": "http://localhost/health"}}],
            [5, {"kind": "gate", "gate": {"http": "http://localhost/health"}}, 100],
        ),
    ],
)  # fmt: skip
def test_schedules(written: Any, steps: list[Any]) -> None:
    parsed = parse_schedule(written)
    assert short(parsed) == steps
    assert parse_schedule(parsed) == parsed
    assert parse_schedule(json.dumps(parsed)) == parsed


@pytest.mark.parametrize("every", [1, 2, 3, 10])
def test_the_linear_configurations_of_lambda_take_ten_steps(every: int) -> None:
    unit = "Minute" if every == 1 else "Minutes"
    steps = parse_schedule(f"CodeDeployDefault.LambdaLinear10PercentEvery{every}{unit}")
    assert [step["share"] for step in steps if step["kind"] == "shift"] == [
        10, 20, 30, 40, 50, 60, 70, 80, 90, 100,
    ]  # fmt: skip
    assert [step["seconds"] for step in steps if step["kind"] == "bake"] == [60 * every] * 9


def test_every_name_can_be_read_and_is_told_from_those_of_hosts() -> None:
    assert len(NAMES) == 14
    for name in NAMES:
        assert parse_schedule(name) == parse_schedule(f"CodeDeployDefault.{name}")
        assert is_schedule_name(name)
    assert not any(map(is_schedule_name, ["AllAtOnce", "OneAtATime", "", None, {"canary": {}}]))


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("", "deploy_schedule is ''; wanted is all_at_once"),
        ("LambdaCanary20Percent5Minutes", "LambdaCanary10Percent5Minutes"),
        ("[broken", "deploy_schedule is '[broken'"),
        (None, "deploy_schedule is None"),
        (5, "deploy_schedule is 5"),
        ("CodeDeployDefault.OneAtATime", "belongs into deploy_configuration"),
        ([], "deploy_schedule is an empty list"),
        ({}, "deploy_schedule has the keys none"),
        ({"canary": {"first": "10%"}}, "deploy_schedule.canary is {'first': '10%'}"),
        ({"canary": {"first": "100%", "then_after": 1}}, "canary.first is '100%'"),
        ({"canary": {"first": "10%", "then_after": "soon"}}, "canary.then_after is 'soon'"),
        ({"linear": {"step": 0, "every": 1}}, "linear.step is 0"),
        ({"linear": {"step": "0.05%", "every": 1}}, "wanted is at least 0.1%"),
        ({"linear": 5}, "deploy_schedule.linear is 5; wanted are every and step"),
        ({"type": "Sometimes"}, "deploy_schedule.type is 'Sometimes'"),
        ({"type": "TimeBasedCanary"}, "deploy_schedule.timeBasedCanary is None"),
        ([{"shift": "101%"}], "deploy_schedule[0].shift is '101%'"),
        ([{"shift": True}], "deploy_schedule[0].shift is True"),
        ([{"shift": "5%", "bake": "1m"}], "deploy_schedule[0] is {'shift': '5%', 'bake': '1m'}"),
        ([{"shift": 5}, {"wait": 1}], "deploy_schedule[1] is {'wait': 1}"),
        ([{"shift": 5}, {"shift": 5}], "deploy_schedule[1] shifts to 5% after 5%"),
        ([{"shift": 50}, {"bake": 1}, {"shift": 5}], "deploy_schedule[2] shifts to 5% after 50%"),
        ([{"gate": {}}], "deploy_schedule[0].gate is {}"),
        ([{"approval": {"until": "1h"}}], "deploy_schedule[0].approval is"),
        ([{"approval": {"on_timeout": "wait"}}], "deploy_schedule[0].approval is"),
        ([{"kind": "shift"}], "deploy_schedule[0] is {'kind': 'shift'}"),
        ([{"shift": 1}] * 1001, "has 1001 steps"),
    ],
)
def test_what_cannot_be_read_is_named_with_what_is_wanted(written: Any, said: str) -> None:
    with pytest.raises(UsageError) as refusal:
        parse_schedule(written)
    assert said in str(refusal.value)


def test_a_schedule_that_need_not_be_complete_gets_no_last_step() -> None:
    assert short(parse_schedule([{"shift": 50}, {"bake": 5}], complete=False)) == [50, "5s"]


def test_the_plan_tells_every_step_with_its_time() -> None:
    timed = schedule_times(
        parse_schedule(
            [{"shift": "5%"}, {"bake": "10m"}, {"gate": {"name": "errors"}}, {"approval": "1h"}]
        ),
        shift_seconds=3,
    )
    assert schedule_seconds(timed) == 606
    assert render_schedule(timed, "green", "blue") == [
        "  1. shift 5% of the traffic to green, 95% stays on blue (after about 0s)",
        "  2. bake for 10m (after about 3s)",
        "  3. ask the gate errors (after about 10m3s)",
        "  4. wait for an approval, at most 1h, then it stops (after about 10m3s)",
        "  5. shift 100% of the traffic to green (after about 10m3s)",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.25, "250ms"), (1.5, "1.5s"), (90, "1m30s"), (7200, "2h"), (90061, "1d1h1m1s")],
)
def test_durations_are_told_as_they_are_written(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


shares = st.integers(1, 999).map(lambda tenths: tenths / 10)
steps = st.one_of(
    st.floats(0, 1e6, allow_nan=False).map(lambda s: {"bake": round(s, 3)}),
    st.dictionaries(st.sampled_from(["name", "http"]), st.text(min_size=1), min_size=1).map(
        lambda gate: {"gate": gate}
    ),
    st.integers(1, 10**6).map(lambda s: {"approval": s}),
)


@given(st.lists(shares, unique=True).map(sorted), st.data())
def test_any_list_with_rising_shares_is_read_and_ends_at_all(
    rising: list[float], data: st.DataObject
) -> None:
    written: list[dict[str, Any]] = []
    for share in rising:
        written += [{"shift": share}, *data.draw(st.lists(steps, max_size=2))]
    written += data.draw(st.lists(steps, min_size=0 if written else 1, max_size=2))
    parsed = parse_schedule(written)
    assert [s["share"] for s in parsed if s["kind"] == "shift"] == [*rising, 100.0]
    assert len(parsed) == len(written) + 1
    timed = schedule_times(parsed)
    assert [step["number"] for step in timed] == list(range(1, len(parsed) + 1))
    assert schedule_seconds(timed) == pytest.approx(
        timed[-1]["starts_after"] + timed[-1]["seconds"]
    )
    assert parse_schedule(timed) == parsed


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["shift", "bake", "gate", "approval", "canary", "linear", "type"])
                | st.text(),
                inner,
                max_size=3,
            )
        ),
    )
)
def test_anything_is_read_or_refused_by_name(written: Any) -> None:
    parsed: list[dict[str, Any]] = []
    said = ""
    try:
        parsed = parse_schedule(written, "the schedule")
    except UsageError as refusal:
        said = str(refusal)
    assert said.startswith("the schedule") != bool(parsed)
    assert not parsed or 100.0 in [step.get("share") for step in parsed]


@pytest.mark.parametrize(
    ("written", "near"),
    [
        ("CodeDeployDefault.LambdaCanary10Percent5Minute", "LambdaCanary10Percent5Minutes"),
        ("ecslinear10percentevery3minute", "ECSLinear10PercentEvery3Minutes"),
        ("OneAtATime", ""),
        ("75%", ""),
        (3, ""),
    ],
)
def test_a_misspelt_name_is_near_to_one(written: object, near: str) -> None:
    assert nearest_name(written) == near
