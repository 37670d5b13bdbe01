"""What an A/B test is written as, and the schedule that it is."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._ab_test import (
    ab_schedule,
    gate_of,
    parse_ab_test,
)
from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError
from ansible_collections.bascule.deploy.plugins.module_utils._gate_spec import (
    describe_gate,
    parse_gate,
)
from ansible_collections.bascule.deploy.plugins.module_utils._schedule import step_text


def test_without_anything_a_person_decides_between_halves_within_a_day() -> None:
    steps = ab_schedule(parse_ab_test({}))
    assert steps == [
        {"kind": "shift", "share": 50.0},
        {"kind": "bake", "seconds": 86400.0, "decides": "person"},
        {"kind": "shift", "share": 100.0},
    ]
    assert step_text(steps[1], "new", "old") == (
        "keep this split until a person decides for new, at most 1d"
    )
    gate = parse_gate(gate_of({}))
    assert (gate.type, gate.timeout, gate.ends_bake) == ("approval", 86400.0, True)
    assert not parse_gate({"type": "approval"}).ends_bake


def test_a_metric_decides_as_soon_as_it_can() -> None:
    goal = {"name": "sales", "kind": "rate", "better": "more", "interval": "1m"}
    given = {"split": "10%", "duration": "2h", "goal": goal}
    assert [step.get("share") for step in ab_schedule(parse_ab_test(given))] == [10, None, 100]
    gate = parse_gate(gate_of(given))
    assert (gate.type, gate.rule.interval, gate.ends_bake) == ("ab_test", 60, True)
    assert gate.options["goal"] == {
        "name": "sales", "kind": "rate", "ratio": 1.0, "tolerance": 0.0,
    }  # fmt: skip
    assert describe_gate(gate) == "ab_test whose sales is more"
    more = gate_of({"goal": {**goal, "ratio": 1.05}})
    assert more["goal"]["ratio"] == 1.05


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("50%", "wanted is a mapping with split"),
        ({"arms": 3}, "wanted is a mapping with split"),
        ({"split": "100%"}, "split is '100%'; wanted is a share below 100%"),
        ({"split": "half"}, r"split\[0\].shift is 'half'"),
        ({"duration": 0}, "duration is 0; wanted is some time"),
        ({"goal": "errors"}, "goal is 'errors'; wanted is a metric"),
        ({"goal": {"name": "x", "better": "other"}}, "better is 'other'; wanted is less or more"),
        ({"goal": {"name": "x", "direction": "either"}}, "goal has direction, which only"),
    ],
)
def test_a_test_that_does_not_fit(given: Any, message: str) -> None:
    with pytest.raises(UsageError, match=f"deploy_ab_test.*{message}"):
        parse_ab_test(given)
