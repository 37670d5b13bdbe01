"""Steps, decisions and alarms in the record: who asks, who waits, and what admissions do of it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import (
    LeaseLostError,
    RecordError,
)
from ansible_collections.bascule.deploy.plugins.module_utils._plan import PlanTarget, make_plan
from ansible_collections.bascule.deploy.plugins.module_utils._schedule import schedule_times
from ansible_collections.bascule.deploy.plugins.plugin_utils._gates import run_step
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import (
    NewDeployment,
    Record,
    RevisionRow,
)
from support.records import DIGEST, create

STEP = "stage 1"


def gated(record: Record, bake_time: float = 0.0) -> str:
    plan = make_plan(
        "rolling", [PlanTarget(name) for name in "abc"], digest=DIGEST, minimum=0, stages=[1, 2],
        bake_time=bake_time, gates={"texts": ["tcp"], "staged": True, "alarms": []},
    )  # fmt: skip
    new = NewDeployment(
        application="shop", group="web", strategy="rolling", revision=RevisionRow(digest=DIGEST),
        plan=plan,
    )  # fmt: skip
    return record.create_deployment(new).id


def test_one_has_a_step_until_it_is_silent_for_too_long(record: Record) -> None:
    name = create(record, ["a"]).id
    first = record.claim_gates(name, STEP, 60.0, "one", now=1000.0)
    assert (first.claimed, first.started_at, first.until) == (True, 1000.0, 1060.0)
    assert not record.claim_gates(name, STEP, 60.0, "two", now=1020.0).claimed
    assert record.keep_gates(name, STEP, "one", "the bake time", now=1025.0)
    assert not record.claim_gates(name, STEP, 60.0, "two", now=1050.0).claimed
    # The end of the bake time is that of the first claim, whoever goes on.
    second = record.claim_gates(name, STEP, 60.0, "two", now=1056.0)
    assert (second.claimed, second.until, second.round) == (True, 1060.0, 1)
    assert not record.keep_gates(name, STEP, "one", "nothing", now=1057.0)
    record.end_gates(name, STEP, "Pass", "all is well")
    known = record.claim_gates(name, STEP, 60.0, "three", now=1100.0)
    assert (known.claimed, known.verdict, known.message) == (False, "Pass", "all is well")
    assert [event.event for event in record.events(name)][-2:] == ["GatesAsked", "GatesDecided"]


def test_another_controller_need_not_wait_for_a_claim(record: Record) -> None:
    name = create(record, ["a"]).id
    record.claim_gates(name, STEP, 60.0, "one")
    taken = record.take_over(name)
    assert record.claim_gates(name, STEP, 60.0, "two").claimed
    old = Record.open(record_url(record), fence=taken.fence - 1)
    with pytest.raises(LeaseLostError):
        old.gate_look(name, STEP)
    with pytest.raises(LeaseLostError):
        old.claim_gates(name, STEP, 60.0, "one")


def record_url(record: Record) -> str:
    return str(record._location.url)


def test_what_was_open_is_asked_anew_and_decisions_are_written_once(record: Record) -> None:
    name = create(record, ["a"]).id
    record.claim_gates(name, STEP, 10.0, "one", now=1000.0)
    for _number in range(2):
        record.decide_gate(name, STEP, 1, "errors", "NoData", {"phase": "NoData"}, "-", now=1001.0)
    record.end_gates(name, STEP, "Inconclusive", "not enough")
    record.pause(name, "not enough", step=STEP)
    assert record.deployment(name).paused_step == STEP
    record.take_over(name)
    assert record.deployment(name).paused_step is None
    again = record.claim_gates(name, STEP, 10.0, "two", now=2000.0)
    assert (again.claimed, again.round, again.until, again.verdict) == (True, 2, 2010.0, "")
    more = record.extend_gates(name, STEP, 5.0, "not enough")
    assert more.round == 3
    record.decide_gate(name, STEP, 3, "errors", "Successful", {"value": [0.1]}, "good", told=True)
    found = record.gate_decisions(name, STEP)
    assert [(one.sequence, one.round, one.verdict) for one in found] == [
        (1, 1, "NoData"), (2, 3, "Successful"),
    ]  # fmt: skip
    assert found[1].data == {"value": [0.1]}
    assert record.gate_decisions(name, "another") == []


def test_a_later_stage_waits_for_the_gates_of_the_one_before(record: Record) -> None:
    name = gated(record, bake_time=1000.0)
    assert record.admit(name, "a").verdict == "admitted"
    waiting = record.admit(name, "b")
    assert (waiting.verdict, waiting.gates) == ("wait", "")
    record.settle(name, "a", "Succeeded")
    waiting = record.admit(name, "b")
    assert (waiting.verdict, waiting.gates, waiting.leads) == ("wait", STEP, True)
    assert 900 < waiting.bakes <= 1000
    assert not record.admit(name, "c").leads
    assert not record.worth_watching(name)
    record.claim_gates(name, STEP, 0.0, "one")
    record.end_gates(name, STEP, "Pass", "")
    # The bake time is the step's: who has passed it early (a test) still waits for it here.
    assert record.admit(name, "b").gates == ""
    late = record.targets(name)[0].finished_at or 0.0
    assert record.admit(name, "b", now=late + 1001).verdict == "admitted"
    record.settle(name, "b", "Succeeded")
    assert record.admit(name, "c", now=late + 1001).verdict == "admitted"
    record.settle(name, "c", "Succeeded")
    assert record.worth_watching(name)
    record.halt(name, "ALARM_ACTIVE", "an alarm")
    assert not record.worth_watching(name)


def test_a_stage_without_a_change_has_no_gates(record: Record) -> None:
    name = gated(record)
    record.note_current(name, "a")
    assert record.admit(name, "b").verdict == "admitted"


def test_one_has_the_turn_to_look_at_alarms(record: Record) -> None:
    name = create(record, ["a"]).id
    assert record.alarms(name) is None
    assert record.alarm_turn(name, 10.0, now=1000.0) == 0.0
    assert record.alarm_turn(name, 10.0, now=1001.0) > 0
    assert record.note_alarms(name, {"High": "OK"}, 10.0) == 0
    seen = record.alarms(name)
    assert seen is not None
    assert (seen.states, seen.failures) == ({"High": "OK"}, 0)
    # Whoever had the turn and died is not waited for long.
    assert record.alarm_turn(name, 1.0, now=seen.polled_at + 11.0) == 0.0  # type: ignore[operator]
    assert record.note_alarms(name, {}, 10.0, error="no answer") == 1
    assert record.note_alarms(name, {}, 10.0, error="no answer") == 2
    assert record.note_alarms(name, {"High": "OK"}, 10.0) == 0
    told = [(one.event, one.status, one.message) for one in record.events(name)]
    assert told[1:] == [("AlarmState", "OK", "High"), ("AlarmsUnknown", "Error", "no answer")]
    record.halt(name, "MANUAL_STOP", "enough")
    assert record.alarm_turn(name, 10.0, now=9e9) == 10.0


def test_a_person_is_asked_once_about_a_step(record: Record) -> None:
    name = create(record, ["a"]).id
    first: Any = record.ask_person(name, "canary 5 %", 60.0)
    assert record.ask_person(name, "canary 5 %", 60.0) == first
    assert (first.status, first.what) == ("Waiting", "canary 5 %")
    record.decide_approval(name, approve=True, why="flat graphs")
    assert record.ask_person(name, "canary 5 %", 60.0).status == "Approved"
    record.ask_person(name, "canary 25 %", 60.0)
    record.time_out_approval(name, "stop")
    halted = record.finish(name)
    assert (halted.status, halted.error_code) == ("Stopped", "APPROVAL_TIMEOUT")
    assert halted.error_message.startswith("nobody approved canary 25 % until")


def keeping(record: Record) -> str:
    """A deployment whose traffic is moved, and which keeps the old pool for an hour."""
    timed = schedule_times(
        [
            {"kind": "shift", "share": 100.0, "part": "shift", "text": "shift"},
            {"kind": "bake", "seconds": 3600.0, "part": "kept", "text": "bake for 1h"},
        ]
    )
    plan = make_plan(
        "blue_green", [PlanTarget("a")], digest=DIGEST, minimum=0, stages=[1], schedule=timed
    )
    new = NewDeployment(
        application="shop", group="web", strategy="blue_green",
        revision=RevisionRow(digest=DIGEST), plan=plan,
    )  # fmt: skip
    name = record.create_deployment(new).id
    record.admit(name, "a")
    record.settle(name, "a", "Succeeded")
    assert record.begin_step(name, 1) == "go"
    with pytest.raises(RecordError, match="does not wait for an approval"):
        record.go_on(name)
    record.end_step(name, 1, "")
    assert record.begin_step(name, 2) == "go"
    return name


def test_a_person_ends_the_wait_before_the_old_pool_is_retired(record: Record) -> None:
    name = keeping(record)
    assert record.deployment(name).status == "Baking"
    with pytest.raises(RecordError, match="does not wait for an approval"):
        record.decide_approval(name, approve=True)
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        record.go_on(name, "all is well")

    outcome = run_step(record, {"id": name}, "step 2", [], seconds=3600.0, tell=tell, may_end=True)
    assert f"`bascule continue {name}` ends that" in told[0]
    assert (outcome.verdict, outcome.message) == ("Pass", "the wait was ended")
    (why,) = [one.message for one in record.events(name) if one.event == "WaitEnded"]
    assert why.endswith("ends the wait before the old pool is retired: all is well")


def test_a_wait_that_nobody_has_begun_to_keep_is_over_at_once(record: Record) -> None:
    name = keeping(record)
    record.go_on(name)
    outcome = run_step(record, {"id": name}, "step 2", [], seconds=3600.0)
    assert (outcome.verdict, outcome.message) == ("Pass", "the bake time has passed")
    record.end_step(name, 2, "")
    with pytest.raises(RecordError, match="does not wait for an approval"):
        record.go_on(name)


@pytest.mark.parametrize("ending", ["paused", "halted"])
def test_a_wait_is_not_ended_where_nobody_goes_on(record: Record, ending: str) -> None:
    name = keeping(record)
    record.pause(name, "lunch") if ending == "paused" else record.halt(name, "MANUAL_STOP", "no")
    with pytest.raises(RecordError, match="bascule resume" if ending == "paused" else "is ending"):
        record.go_on(name)
