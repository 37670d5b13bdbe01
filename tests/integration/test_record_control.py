"""Stopping, pausing and approving in the record, on SQLite and on PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import RecordError
from support.records import new_deployment

if TYPE_CHECKING:
    from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Deployment, Record


def begin(
    record: Record, mode: str = "none", *, on_timeout: str = "stop", timeout: float = 60.0
) -> Deployment:
    """A deployment of three stages of one target each."""
    new = new_deployment(["a", "b", "c"], stages=[1, 1, 1])
    if mode != "none":
        rule: dict[str, Any] = {"mode": mode, "timeout": timeout, "on_timeout": on_timeout}
        new.plan["approval"] = rule
    return record.create_deployment(new)


def roll(record: Record, deployment: Deployment, name: str) -> None:
    assert record.admit(deployment.id, name).verdict == "admitted"
    record.settle(deployment.id, name, "Succeeded")


def told(record: Record, deployment: Deployment) -> list[str]:
    return [event.event for event in record.events(deployment.id)]


def test_a_stop_lets_those_in_flight_finish_and_names_who_wants_it(record: Record) -> None:
    deployment = begin(record)
    assert record.admit(deployment.id, "a").verdict == "admitted"
    record.request_stop(deployment.id, "wrong day")
    refused = record.admit(deployment.id, "b")
    assert (refused.verdict, "wrong day" in refused.reason) == ("refused", True)
    assert record.admit(deployment.id, "a").resumed
    record.settle(deployment.id, "a", "Succeeded")
    record.request_stop(deployment.id, rollback=True)
    ended = record.finish(deployment.id)
    assert (ended.status, ended.error_code, ended.rollback_on_stop) == (
        "Stopped", "MANUAL_STOP", True,
    )  # fmt: skip
    assert ended.stop_requested_by
    assert ended.stop_requested_by in ended.error_message
    with pytest.raises(RecordError, match=r"has ended already \(Stopped\); .* nothing to stop"):
        record.request_stop(deployment.id)


def test_a_pause_admits_nobody_until_somebody_resumes(record: Record) -> None:
    deployment = begin(record)
    assert record.admit(deployment.id, "a").verdict == "admitted"
    record.pause(deployment.id, "lunch")
    record.pause(deployment.id, "tea")
    assert record.admit(deployment.id, "b").reason == "paused: lunch"
    assert record.admit(deployment.id, "a").resumed
    record.settle(deployment.id, "a", "Succeeded")
    paused = record.deployment(deployment.id)
    assert (paused.status, paused.pause_reason) == ("InProgress", "lunch")
    assert record.take_over(deployment.id).paused_at is None
    roll(record, deployment, "b")
    assert told(record, deployment).count("Paused") == 1


def test_the_next_stage_waits_until_a_person_approves(record: Record) -> None:
    deployment = begin(record, "first_stage")
    assert record.admit(deployment.id, "b").needs_approval is False
    with pytest.raises(RecordError, match="does not wait for an approval"):
        record.decide_approval(deployment.id, approve=True)
    roll(record, deployment, "a")
    waiting = record.admit(deployment.id, "b")
    assert (waiting.verdict, waiting.needs_approval) == ("wait", True)
    assert f"bascule approve {deployment.id}" in waiting.reason
    assert record.admit(deployment.id, "b").needs_approval
    (asked,) = record.approvals(deployment.id)
    assert (asked.stage, asked.status, asked.decided_by) == (0, "Waiting", None)
    assert asked.until == pytest.approx(asked.asked_at + 60.0)

    record.decide_approval(deployment.id, approve=True, why="the graphs are flat")
    (given,) = record.approvals(deployment.id)
    assert (given.status, given.why) == ("Approved", "the graphs are flat")
    assert given.decided_by
    assert given.decided_from
    roll(record, deployment, "b")
    roll(record, deployment, "c")
    assert record.finish(deployment.id).status == "Succeeded"
    assert told(record, deployment).count("ApprovalAsked") == 1


def test_every_stage_is_approved_for_itself(record: Record) -> None:
    deployment = begin(record, "every_stage")
    for before, name in (("", "a"), ("a", "b"), ("b", "c")):
        if before:
            assert record.admit(deployment.id, name).needs_approval
            record.decide_approval(deployment.id, approve=True)
        roll(record, deployment, name)
    assert [one.stage for one in record.approvals(deployment.id)] == [0, 1]


def test_a_stage_that_changed_nothing_needs_no_approval(record: Record) -> None:
    deployment = begin(record, "every_stage")
    record.note_current(deployment.id, "a")
    roll(record, deployment, "b")
    assert record.admit(deployment.id, "c").needs_approval
    assert [one.stage for one in record.approvals(deployment.id)] == [1]


def test_a_rejection_is_a_failure(record: Record) -> None:
    deployment = begin(record, "first_stage")
    roll(record, deployment, "a")
    record.admit(deployment.id, "b")
    record.decide_approval(deployment.id, approve=False, why="too slow")
    assert record.admit(deployment.id, "b").verdict == "refused"
    with pytest.raises(RecordError, match="is ending already"):
        record.decide_approval(deployment.id, approve=True)
    ended = record.finish(deployment.id)
    assert (ended.status, ended.error_code) == ("Failed", "APPROVAL_REJECTED")
    assert ended.error_message.endswith("rejected stage 1: too slow")


@pytest.mark.parametrize(
    ("on_timeout", "verdict", "status"),
    [("stop", "refused", "Stopped"), ("continue", "admitted", "Succeeded")],
)
def test_when_nobody_answers_in_time(
    record: Record, on_timeout: str, verdict: str, status: str
) -> None:
    deployment = begin(record, "first_stage", on_timeout=on_timeout)
    roll(record, deployment, "a")
    record.admit(deployment.id, "b")
    until = record.approvals(deployment.id)[0].until
    assert until is not None
    assert record.admit(deployment.id, "b", now=until - 1).verdict == "wait"
    assert record.admit(deployment.id, "b", now=until + 1).verdict == "wait"
    assert record.approvals(deployment.id)[0].status == "TimedOut"
    assert record.admit(deployment.id, "b", now=until + 1).verdict == verdict
    if verdict == "admitted":
        record.settle(deployment.id, "b", "Succeeded")
        roll(record, deployment, "c")
    ended = record.finish(deployment.id)
    assert ended.status == status
    assert (ended.error_code == "APPROVAL_TIMEOUT") == (status == "Stopped")


def test_a_target_that_was_done_when_the_controller_died_was_changed(record: Record) -> None:
    deployment = begin(record)
    assert record.admit(deployment.id, "a").verdict == "admitted"
    record.note_current(deployment.id, "a")
    record.note_current(deployment.id, "b")
    assert [target.changed for target in record.targets(deployment.id)] == [True, False, False]
