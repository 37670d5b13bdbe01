from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import PlanError
from ansible_collections.bascule.deploy.plugins.module_utils._plan import (
    PlanTarget,
    make_plan,
    render_plan,
)
from ansible_collections.bascule.deploy.plugins.module_utils._plan_hash import plan_hash
from ansible_collections.bascule.deploy.plugins.module_utils._rehearsal import (
    GoodRevision,
    rehearse,
)
from hypothesis import given
from hypothesis import strategies as st

NEW, GOOD, OLDER = "n" * 32, "g" * 32, "o" * 32

TARGETS = [
    PlanTarget("current-1", "a", "Healthy", GOOD),
    PlanTarget("has-it", "a", "Healthy", NEW),
    PlanTarget("old", "b", "Healthy", OLDER),
    PlanTarget("joined"),
    PlanTarget("broken", "b", "Unhealthy", None),
    PlanTarget("current-2", "b", "Healthy", GOOD),
    PlanTarget("broken-but-known", "b", "Unhealthy", GOOD),
]


def plan(targets: list[PlanTarget] | None = None, **changes: Any) -> dict[str, Any]:
    targets = TARGETS if targets is None else targets
    given_: dict[str, Any] = {
        "digest": NEW, "minimum": 4, "stages": [len(targets)], "current": GOOD, **changes,
    }  # fmt: skip
    names = [target.name for target in targets]
    good = given_.pop("good", GoodRevision(GOOD))
    return make_plan("rolling", targets, rollback=rehearse(NEW, good, names), **given_)


def test_order_is_unhealthy_unknown_old_current() -> None:
    made = plan()
    assert [target["name"] for target in made["targets"]] == [
        "broken", "broken-but-known", "joined", "old", "current-1", "current-2", "has-it",
    ]  # fmt: skip
    states = {target["name"]: target["revision"] for target in made["targets"]}
    assert states == {
        "broken": "Unknown", "broken-but-known": "Current", "joined": "Unknown", "old": "Old",
        "current-1": "Current", "current-2": "Current", "has-it": "Current",
    }  # fmt: skip


def test_canaries_come_before_all_others_in_the_same_order() -> None:
    made = plan(first=["has-it", "old"])
    assert [target["name"] for target in made["targets"]] == [
        "old", "has-it", "broken", "broken-but-known", "joined", "current-1", "current-2",
    ]  # fmt: skip
    assert made["canaries"] == ["has-it", "old"]


def test_stages_divide_the_order() -> None:
    made = plan(stages=[1, 2, 4])
    assert made["stages"][:2] == [["broken"], ["broken-but-known", "joined"]]
    assert [target["stage"] for target in made["targets"]] == [0, 1, 1, 2, 2, 2, 2]


def test_numbers() -> None:
    made = plan()
    assert (made["total"], made["minimum_healthy"], made["slots"]) == (7, 4, 3)
    assert made["mode"] == "forward"
    assert made == json.loads(json.dumps(made))


def test_traffic_changes_of_each_target() -> None:
    assert plan(provider="none")["routing"] == []
    assert plan(provider=None)["routing"] == []
    steps = plan(provider="haproxy")["routing"]
    assert [(step["target"], step["step"]) for step in steps[:2]] == [
        ("broken", "block"), ("broken", "allow"),
    ]  # fmt: skip
    assert len(steps) == 14


def test_way_back_takes_those_out_of_service_first_and_counts_the_whole_group() -> None:
    targets = [
        PlanTarget("serving-1"),
        PlanTarget("out-1", in_service=False),
        PlanTarget("serving-2"),
        PlanTarget("out-2", in_service=False),
    ]
    made = plan(targets, total=10, minimum=8, mode="rollback", provider="envoy")
    assert made["stages"] == [["out-1", "out-2", "serving-1", "serving-2"]]
    assert (made["total"], made["slots"]) == (10, 2)
    assert [step["step"] for step in made["routing"] if step["target"] == "out-1"] == ["allow"]
    assert not made["rollback"]["possible"]


def test_way_back_is_never_refused_by_the_minimum() -> None:
    made = plan([PlanTarget("a"), PlanTarget("b")], minimum=5, mode="rollback")
    assert made["slots"] == 1


@pytest.mark.parametrize(
    ("good", "possible", "warned"), [(GOOD, True, False), (None, False, True), (NEW, True, False)]
)
def test_whether_a_rollback_would_be_possible(
    good: str | None, possible: bool, warned: bool
) -> None:
    made = plan(good=GoodRevision(good) if good else None)
    assert (made["rollback"]["possible"], made["rollback"]["digest"]) == (possible, good)
    assert any("cannot be rolled back" in warning for warning in made["warnings"]) == warned


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"minimum": 7}, r"HEALTH_CONSTRAINTS_INVALID: 7 of 7 targets .* Set the minimum to 6"),
        ({"minimum": 9}, r"9 of 7 targets must stay healthy"),
        ({"targets": [], "stages": []}, "no targets"),
        ({"targets": [PlanTarget("twice"), PlanTarget("twice")]}, "named more often: twice"),
        ({"stages": [3, 3]}, r"\[3, 3\] do not divide 7 targets"),
        ({"stages": [7, 0]}, "each must be at least 1"),
        ({"total": 6}, "has 6 targets, so 7 cannot be touched"),
    ],
)
def test_refusals_say_the_numbers(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        plan(**{"minimum": 0, **changes})


def test_estimate_is_waves_of_slots_and_baking() -> None:
    assert plan()["estimated_seconds"] is None
    # Stages of 1, 2 and 4 with 3 slots: 1 + 1 + 2 waves of the median, and two times baking.
    made = plan(stages=[1, 2, 4], bake_time=60, durations=[10, 20, 90])
    assert made["estimated_seconds"] == 4 * 20 + 2 * 60


def test_text() -> None:
    made = plan(stages=[1, 6], bake_time=300, provider="envoy", durations=[50])
    assert render_plan(made).splitlines() == [
        "rolling of revision nnnnnnnnnnnn to 7 targets: 4 must stay healthy, at most 3 at a time.",
        "Stage 1 of 2: 1 target, then 5 min of bake time",
        "  Unhealthy, revision Unknown:",
        "    broken (b)",
        "Stage 2 of 2: 6 targets",
        "  Unhealthy, revision Current:",
        "    broken-but-known (b)",
        "  Unknown, revision Unknown:",
        "    joined",
        "  Healthy, revision Old:",
        "    old (b)",
        "  Healthy, revision Current:",
        "    current-1 (a), current-2 (b), has-it (a)",
        "Traffic, for each target in its turn:",
        "  block: taken out of envoy, then waits until its requests have ended (7 targets)",
        "  allow: put back into envoy, then waits until it is seen in service (7 targets)",
        "Rollback: to revision gggggggggggg, it succeeded before.",
        "  Its bundle is in this controller's cache; at most 7 targets would be changed; "
        "automatic.",
        "Estimated time: about 8 min.",
    ]


def test_text_of_a_first_deployment_without_load_balancer() -> None:
    text = render_plan(plan([PlanTarget("only")], minimum=0, good=None))
    assert "Traffic: no load balancer" in text
    assert "Rollback: not possible, no revision has succeeded" in text
    assert text.splitlines()[1].startswith("Warning: A failure cannot be rolled back: no revision")


def test_order_goes_by_the_revision_of_the_group_and_not_by_the_way_back() -> None:
    """A revision marked bad stays the group's; a rollback would lead to an older one."""
    made = plan(current=OLDER, good=GoodRevision(GOOD))
    assert [target["name"] for target in made["targets"]] == [
        "broken", "broken-but-known", "joined", "current-1", "current-2", "old", "has-it",
    ]  # fmt: skip
    states = {target["name"]: target["revision"] for target in made["targets"]}
    assert (states["current-1"], states["old"]) == ("Old", "Current")
    assert made["rollback"]["digest"] == GOOD


def test_targets_that_need_nothing_are_left_out_and_count_for_the_floor() -> None:
    made = plan(TARGETS[2:4], minimum=5, total=7, left_out=["a", "b", "c", "d", "e"])
    assert (made["total"], made["minimum_healthy"], made["slots"]) == (7, 5, 2)
    assert made["left_out"] == ["a", "b", "c", "d", "e"]
    told = render_plan(made).splitlines()
    assert "to 2 of 7 targets: 5 must stay healthy, at most 2 at a time." in told[0]
    assert told[1:3] == [
        "Left out: 5 targets, healthy with this revision in the record:", "  a, b, c, d, e",
    ]  # fmt: skip


def test_a_plan_of_nothing_says_so_and_warns_of_nothing() -> None:
    made = plan([], minimum=3, stages=[], total=2, left_out=["a", "b"], good=None)
    assert (made["stages"], made["targets"], made["warnings"]) == ([], [], [])
    assert "2 targets: nothing is outdated, so nothing is to be done." in render_plan(made)


def test_the_hash_is_of_all_of_the_plan_and_of_the_revision() -> None:
    made = plan()
    known = plan_hash(made, NEW)
    assert len(known) == 64
    assert plan_hash(json.loads(json.dumps(made)), NEW) == known
    assert plan_hash(dict(reversed(made.items())), NEW) == known
    other = json.loads(json.dumps(made))
    other["targets"][3]["zone"] = "c"
    assert plan_hash(other, NEW) != known
    assert plan_hash(made, OLDER) != known


@pytest.mark.parametrize(("count", "text"), [(1, "the only target is"), (3, "all 3 targets may")])
def test_text_warns_of_a_floor_of_nothing(count: int, text: str) -> None:
    targets = [PlanTarget(str(number)) for number in range(count)]
    assert text in render_plan(plan(targets, minimum=0, provider="haproxy"))


@given(
    targets=st.lists(
        st.builds(
            PlanTarget,
            name=st.text(min_size=1),
            health=st.sampled_from(["Healthy", "Unhealthy", "Unknown"]),
            digest=st.sampled_from([None, NEW, GOOD, OLDER]),
            in_service=st.booleans(),
        ),
        min_size=1,
        unique_by=lambda target: target.name,
    ),
    mode=st.sampled_from(["forward", "rollback"]),
)
def test_every_target_is_planned_once(targets: list[PlanTarget], mode: str) -> None:
    made = plan(targets, minimum=0, mode=mode)
    assert sorted(name for stage in made["stages"] for name in stage) == sorted(
        target.name for target in targets
    )
    assert render_plan(made).endswith("\n")
