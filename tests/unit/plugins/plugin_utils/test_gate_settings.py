"""From the public variables to gates, rules and alarms."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError
from ansible_collections.bascule.deploy.plugins.module_utils._plan import (
    PlanTarget,
    make_plan,
    render_plan,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._gates import (
    alarms_of,
    gates_of,
    planned_gates,
)

TCP = {"type": "tcp", "port": 80, "name": "port"}
JUDGE = {"metrics": [{"name": "errors", "kind": "rate"}], "interval": "30s"}
ASKED = {"metrics": [{"name": "errors", "kind": "rate", "source": "command", "command": "counts"}]}


def settings(**changes: Any) -> dict[str, Any]:
    return {
        "deploy_gates": [], "deploy_judge": {}, "deploy_on_inconclusive": "pause",
        "deploy_inconclusive_extensions": 3, "deploy_approval_timeout": "24h",
        "deploy_approval_on_timeout": "stop", "deploy_alarms": [], "deploy_alarms_interval": "10s",
        "deploy_alarms_ignore_poll_failure": False, "deploy_schedule": "",
        **{f"deploy_{name}": value for name, value in changes.items()},
    }  # fmt: skip


def test_without_gates_and_alarms_there_is_nothing_to_plan() -> None:
    assert planned_gates("rolling", settings()) is None
    assert planned_gates("rollback", settings(gates=[TCP], alarms=["High"])) is None


def test_gates_of_stages_and_of_bakes_are_told() -> None:
    found = planned_gates("rolling", settings(gates=[TCP], judge=ASKED, alarms=["High"]))
    assert found == {
        "texts": ["port (tcp) 127.0.0.1:80", "judge"], "staged": True, "alarms": ["High"],
    }  # fmt: skip
    found = planned_gates("canary", settings(gates=[TCP], alarms=["High"]))
    assert found == {"texts": ["port (tcp) 127.0.0.1:80"], "staged": False, "alarms": ["High"]}
    plan = make_plan(
        "canary", [PlanTarget("a"), PlanTarget("b")], digest="d" * 64, minimum=0, stages=[1, 1],
        gates=found,
    )  # fmt: skip
    text = render_plan(plan)
    assert "its gates" not in text
    assert "Gates in every bake:\n  port (tcp) 127.0.0.1:80\n" in text


SHIFT = {"kind": "shift", "seconds": 0}


@pytest.mark.parametrize(
    ("strategy", "steps", "warned"),
    [
        ("canary", [SHIFT], True),
        ("canary", [SHIFT, {"kind": "bake", "seconds": 5}], False),
        ("canary", [{"kind": "gate", "gate": {"name": "port"}, "seconds": 0}, SHIFT], False),
        ("rolling", [], False),
    ],
)
def test_gates_that_no_step_asks_are_warned_of(
    strategy: str, steps: list[dict[str, Any]], warned: bool
) -> None:
    plan = make_plan(
        strategy, [PlanTarget("a"), PlanTarget("b")], digest="d" * 64, minimum=0, stages=[1, 1],
        gates=planned_gates(strategy, settings(gates=[TCP])), schedule=steps,
    )  # fmt: skip
    assert any(text.startswith("No step asks deploy_gates") for text in plan["warnings"]) == warned


def test_a_plan_tells_of_gates_alarms_and_the_last_bake_time() -> None:
    given = planned_gates("rolling", settings(gates=[TCP], alarms=["High", "Slow"]))
    plan = make_plan(
        "rolling", [PlanTarget("a"), PlanTarget("b")], digest="d" * 64, minimum=0, stages=[1, 1],
        bake_time=600, gates=given, alarms_roll_back=False, durations=[10.0],
    )  # fmt: skip
    text = render_plan(plan)
    assert text.count("then 10 min of bake time with its gates") == 2
    assert "Gates after each stage:\n  port (tcp) 127.0.0.1:80\n" in text
    assert "Alarms watched all the time: High, Slow." in text
    assert "deploy_rollback_on does not have DEPLOYMENT_STOP_ON_ALARM" in text
    assert plan["estimated_seconds"] == 1220.0


def test_a_judge_is_a_gate_with_its_own_interval() -> None:
    given = {"gates": [], "judge": JUDGE, "alarms": ["High"]}
    gates = gates_of(given)
    assert [(gate.name, gate.type, gate.rule.interval) for gate in gates] == [
        ("alarm High", "cloudwatch_alarm", 10.0), ("judge", "judge", 30.0),
    ]  # fmt: skip


def test_a_step_may_name_a_gate() -> None:
    gates = gates_of({"gates": [{"name": "port"}], "named": [TCP]})
    assert [(gate.name, gate.type) for gate in gates] == [("port", "tcp")]
    planned_gates("canary", settings(gates=[TCP], schedule=[{"gate": {"name": "port"}}]))
    probe = {"type": "http", "url": "http://lb", "headers": {"X-Bascule-Test": "new"}}
    planned_gates("canary", settings(schedule=[{"gate": probe}]))


@pytest.mark.parametrize("strategy", ["in_place", "rolling"])
def test_a_judge_who_has_nothing_to_compare_at_the_load_balancer_is_refused(strategy: str) -> None:
    with pytest.raises(UsageError, match=f"compares errors .* {strategy} has no canary"):
        planned_gates(strategy, settings(judge=JUDGE))
    planned_gates(strategy, settings(judge=ASKED))
    planned_gates(strategy, settings(judge={**JUDGE, "canary": "green", "baseline": "blue"}))
    planned_gates("canary", settings(judge=JUDGE))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alarms": [f"a{number}" for number in range(11)]}, "names 11 alarms; there may be 10"),
        ({"alarms": [""]}, "an alarm without a name"),
        ({"alarms": ["a"], "alarms_interval": "soon"}, "deploy_alarms_interval is 'soon'"),
        ({"gates": [{"type": "tcp"}]}, r"deploy_gates\[0\]: a gate of type tcp needs port"),
        ({"judge": {"metrics": []}}, "needs metrics"),
        ({"judge": {"metrics": [{"name": "a", "kind": "rate", "source": "tea"}]}}, "source is one"),
        ({"judge": {"metrics": [{"name": "a", "kind": "rate", "source": "command"}]}},
         "needs command"),
        ({"judge": {"metrics": [{"name": "a", "kind": "rate", "source": "prometheus",
                                 "url": "http://p", "canary": "q", "baseline": "q"}]}},
         "canary needs queries for bad and total"),
        ({"judge": {**JUDGE, "share": 100}}, "wanted is a percentage"),
        ({"judge": {**JUDGE, "assignments": "users"}}, "wanted is requests or none"),
        ({"judge": {**JUDGE, "evidence": {"rate": 0.1}}}, "needs effect"),
        ({"inconclusive_extensions": -1}, "wanted is 0 or more"),
        ({"approval_timeout": "later"}, "deploy_approval_timeout is 'later'"),
        ({"schedule": [{"gate": {"name": "none"}}]}, "deploy_gates has no gate with the name"),
        ({"schedule": [{"gate": {"type": "http", "url": "http://x",
                                 "headers": {"Authorization": "b"}}}]},
         "a schedule is kept in the record"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_anything_begins(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        planned_gates("rolling", settings(**changes))


def test_alarms_are_told_once_each() -> None:
    assert alarms_of(settings(alarms=["High", " High ", "Slow"], alarms_interval="200ms")) == {
        "names": ["High", "Slow"], "ignore_poll_failure": False, "interval": 1.0,
    }  # fmt: skip
