"""What the record promises, on SQLite and on PostgreSQL."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import RecordError
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import (
    ActiveDeploymentError,
    Deployment,
    Record,
    RevisionRow,
    TargetState,
    group_id,
)
from support.records import DIGEST, create, new_deployment

OTHER = "f" * 64
EVENT = {
    "event": "Install", "status": "Succeeded", "started": 10.5, "ended": 11.5, "error_code": None,
    "script": None, "message": "", "log": "line 1\nline 2",
}  # fmt: skip


def succeed(record: Record, deployment: Deployment, *names: str) -> None:
    for name in names:
        assert record.admit(deployment.id, name).verdict == "admitted"
        record.settle(deployment.id, name, "Succeeded")


def fail(record: Record, deployment: Deployment, name: str) -> None:
    assert record.admit(deployment.id, name).verdict == "admitted"
    record.settle(deployment.id, name, "Failed", error_code="ScriptFailed", message="exit 1")


def statuses(record: Record, deployment: Deployment) -> list[str]:
    return [target.status for target in record.targets(deployment.id)]


def story(record: Record, deployment: Deployment) -> list[tuple[str, str]]:
    return [(event.target, event.event) for event in record.events(deployment.id)]


def test_what_may_be_gone_back_to_is_needed(record: Record) -> None:
    assert record.needed_digests() == set()
    digests = [str(number) * 64 for number in range(8)]
    for digest in digests[:7]:
        made = create(record, ["a"], digest=digest)
        if digest != digests[6]:
            succeed(record, made, "a")
        record.finish(made.id)
    create(record, ["a"], digest=digests[7])
    # The oldest, and the one that failed, are not; the one that is deployed now is.
    assert record.needed_digests() == {*digests[1:6], digests[7]}
    for digest in digests[1:6]:
        record.mark_revision("shop", digest, bad=True)
    assert record.needed_digests(newest=1) == {digests[0], digests[5], digests[7]}


def test_a_deployment_comes_back_as_it_went_in(record: Record) -> None:
    revision = RevisionRow(
        digest=OTHER, source="https://example.org/b.tgz", description="Release 2 — größer",
        bundle_sha256="1" * 64, bundle_size=5_000_000_000, bundle_type="tgz", bundle_path="/c/b",
        appspec={"version": 0.0, "hooks": {"Install": []}}, environment={"BUNDLE_COMMIT": "abc"},
    )  # fmt: skip
    made = new_deployment(["b", "a"], 1, options={"rollback_on": ["DEPLOYMENT_FAILURE"]})
    plan = made.plan
    made = type(made)(
        application="shop", group="web", strategy="rolling", revision=revision, plan=plan,
        options=made.options, description="Friday", started_by="ada", started_from="ci-7",
    )  # fmt: skip
    deployment = record.create_deployment(made)
    assert re.fullmatch(r"d-[A-Z0-9]{9}", deployment.id)
    assert deployment == record.deployment(deployment.id)
    assert (deployment.application, deployment.group) == ("shop", "web")
    assert deployment.group_id == group_id("shop", "web") != group_id("shop/web", "")
    assert (deployment.status, deployment.creator, deployment.is_final) == (
        "Created",
        "user",
        False,
    )
    assert (deployment.revision, deployment.plan) == (revision, plan)
    assert deployment.options == {"rollback_on": ["DEPLOYMENT_FAILURE"]}
    assert (deployment.description, deployment.previous_digest) == ("Friday", None)
    assert (deployment.started_by, deployment.started_from) == ("ada", "ci-7")
    assert deployment.overview == {"Pending": 2}
    assert deployment.as_dict()["revision"]["digest"] == OTHER
    targets = record.targets(deployment.id)
    assert [(target.name, target.position, target.stage) for target in targets] == [
        ("b", 0, 0), ("a", 1, 0),
    ]  # fmt: skip
    assert all(target.in_service and not target.changed for target in targets)


def test_the_way_of_a_deployment(record: Record) -> None:
    deployment = create(record, ["a", "b", "c"], 2)
    for name in ("a", "b", "c"):
        record.note_staged(deployment.id, name, digest_present=True)
    assert record.deployment(deployment.id).status == "InProgress"
    first = record.admit(deployment.id, "a", now=1000.0)
    assert (first.verdict, first.slots, first.in_flight, first.failed) == ("admitted", 1, 0, 0)
    assert (first.total, first.minimum_healthy, first.resumed) == (3, 2, False)
    second = record.admit(deployment.id, "b")
    assert (second.verdict, second.slots, second.in_flight) == ("wait", 0, 1)
    assert "1 in flight" in second.reason
    record.set_in_service(deployment.id, "a", False)
    record.add_events(deployment.id, "a", [EVENT])
    record.set_in_service(deployment.id, "a", True)
    record.settle(deployment.id, "a", "Succeeded")
    a = record.targets(deployment.id)[0]
    assert (a.status, a.staged, a.changed, a.in_service) == ("Succeeded", True, True, True)
    assert (a.started_at, a.finished_at is not None) == (1000.0, True)
    succeed(record, deployment, "b", "c")
    done = record.finish(deployment.id)
    assert (done.status, done.error_code, done.error_message) == ("Succeeded", None, "")
    assert done.finished_at is not None
    assert done.overview == {"Succeeded": 3}
    assert story(record, deployment)[4:9] == [
        ("a", "Admitted"), ("a", "OutOfService"), ("a", "Install"), ("a", "InService"),
        ("a", "Settled"),
    ]  # fmt: skip
    assert story(record, deployment)[-1] == ("", "Finished")


def test_the_verdict_comes_once(record: Record) -> None:
    deployment = create(record, ["a", "b"])
    succeed(record, deployment, "a")
    told = story(record, deployment)
    record.settle(deployment.id, "a", "Succeeded")
    record.settle(deployment.id, "a", "Failed", message="too late")
    record.note_current(deployment.id, "a")
    assert story(record, deployment) == told
    assert statuses(record, deployment) == ["Succeeded", "Pending"]
    assert record.targets(deployment.id)[0].changed
    assert record.admit(deployment.id, "a").verdict == "current"


def test_who_failed_is_not_admitted_again(record: Record) -> None:
    deployment = create(record, ["a", "b"])
    fail(record, deployment, "a")
    refused = record.admit(deployment.id, "a")
    assert (refused.verdict, "exit 1" in refused.reason) == ("refused", True)
    a = record.targets(deployment.id)[0]
    assert (a.error_code, a.message, a.changed) == ("ScriptFailed", "exit 1", True)


def test_a_target_that_was_begun_goes_on(record: Record) -> None:
    deployment = create(record, ["a", "b"], 1)
    record.admit(deployment.id, "a")
    again = record.admit(deployment.id, "a")
    assert (again.verdict, again.resumed) == ("admitted", True)
    assert story(record, deployment).count(("a", "Admitted")) == 1


def test_a_failed_staging_counts_and_touches_nothing(record: Record) -> None:
    deployment = create(record, ["a", "b", "c"], 1)
    record.settle(deployment.id, "a", "Failed", message="unreachable")
    assert record.admit(deployment.id, "b").verdict == "admitted"
    waiting = record.admit(deployment.id, "c")
    assert (waiting.verdict, waiting.failed) == ("wait", 1)
    assert not record.targets(deployment.id)[0].changed


def test_nobody_succeeds_who_was_not_admitted(record: Record) -> None:
    deployment = create(record, ["a"])
    with pytest.raises(RecordError, match="never admitted"):
        record.settle(deployment.id, "a", "Succeeded")
    with pytest.raises(RecordError, match="not as 'Skipped'"):
        record.settle(deployment.id, "a", "Skipped")
    assert statuses(record, deployment) == ["Pending"]


def test_a_spent_budget_halts_the_deployment(record: Record) -> None:
    deployment = create(record, ["a", "b", "c"], 2)
    fail(record, deployment, "a")
    refused = record.admit(deployment.id, "b")
    assert (refused.verdict, refused.reason[:18]) == ("refused", "HEALTH_CONSTRAINTS")
    assert record.admit(deployment.id, "c").reason == refused.reason
    assert story(record, deployment).count(("", "Halted")) == 1
    done = record.finish(deployment.id)
    assert (done.status, done.error_code) == ("Failed", "HEALTH_CONSTRAINTS")
    assert "1 failed" in done.error_message
    assert done.overview == {"Failed": 1, "Skipped": 2}


@pytest.mark.parametrize(
    ("code", "status"),
    [("MANUAL_STOP", "Stopped"), ("ALARM_ACTIVE", "Stopped"), ("TIMEOUT", "Failed")],
)
def test_a_halt_lets_targets_in_flight_end(record: Record, code: str, status: str) -> None:
    deployment = create(record, ["a", "b"])
    record.admit(deployment.id, "a")
    record.halt(deployment.id, code, "because")
    record.halt(deployment.id, "INTERNAL_ERROR", "a later one says nothing")
    assert record.admit(deployment.id, "a").resumed
    assert record.admit(deployment.id, "b").reason == f"{code}: because"
    record.settle(deployment.id, "a", "Succeeded")
    done = record.finish(deployment.id)
    assert (done.status, done.error_code, done.error_message) == (status, code, "because")
    assert statuses(record, deployment) == ["Succeeded", "Skipped"]


def test_nothing_to_do_is_a_success(record: Record) -> None:
    deployment = create(record, ["a", "b"], 1)
    for name in ("a", "b"):
        record.note_current(deployment.id, name)
    assert record.admit(deployment.id, "a").verdict == "current"
    done = record.finish(deployment.id)
    assert done.status == "Succeeded"
    assert not any(target.changed for target in record.targets(deployment.id))
    states = record.target_states("shop", "web")
    assert states["a"] == TargetState(health="Healthy", revision_state="Current", digest=DIGEST)


def test_a_late_end_is_written_down_and_changes_no_verdict(record: Record) -> None:
    deployment = create(record, ["a", "b"])
    succeed(record, deployment, "b")
    record.admit(deployment.id, "a")
    ended = record.finish(deployment.id)
    assert (ended.status, ended.overview) == ("Succeeded", {"Succeeded": 1, "Unknown": 1})
    states = record.target_states("shop", "web")
    record.settle(deployment.id, "a", "Failed", message="after the end")
    assert statuses(record, deployment) == ["Failed", "Succeeded"]
    assert record.deployment(deployment.id).status == "Succeeded"
    assert record.target_states("shop", "web") == states
    assert record.admit(deployment.id, "a").verdict == "refused"
    told = story(record, deployment)
    assert record.finish(deployment.id).status == "Succeeded"
    assert story(record, deployment) == told


def test_stages_wait_for_the_stage_before_and_its_baking(record: Record) -> None:
    deployment = create(record, ["a", "b", "c", "d"], stages=[2, 1, 1], bake_time=60.0)
    assert record.admit(deployment.id, "c").reason.startswith("2 targets of earlier stages")
    record.note_current(deployment.id, "b")
    record.admit(deployment.id, "a")
    record.settle(deployment.id, "a", "Succeeded")
    end = record.targets(deployment.id)[0].finished_at
    assert end is not None
    baking = record.admit(deployment.id, "c", now=end + 59)
    assert (baking.verdict, baking.retry_at) == ("wait", end + 60)
    assert record.admit(deployment.id, "d", now=end + 100).verdict == "wait"
    assert record.admit(deployment.id, "c", now=end + 60).verdict == "admitted"


def test_slots_go_to_the_first_of_the_plan_if_one_asks_in_turn(record: Record) -> None:
    deployment = create(record, ["a", "b", "c", "d"], minimum=2)
    third = record.admit(deployment.id, "c", in_turn=True)
    assert (third.verdict, third.out_of_turn) == ("wait", True)
    assert record.admit(deployment.id, "b", in_turn=True).verdict == "admitted"
    assert record.admit(deployment.id, "c", in_turn=True).out_of_turn
    record.settle(deployment.id, "a", "Failed")
    waiting = record.admit(deployment.id, "c", in_turn=True)
    assert (waiting.verdict, waiting.out_of_turn) == ("wait", False)
    record.settle(deployment.id, "b", "Succeeded")
    assert record.admit(deployment.id, "d", in_turn=True).out_of_turn
    assert record.admit(deployment.id, "d").verdict == "admitted"


def test_a_stage_that_had_nothing_to_do_does_not_bake(record: Record) -> None:
    deployment = create(record, ["a", "b"], stages=[1, 1], bake_time=60.0)
    record.note_current(deployment.id, "a")
    assert record.admit(deployment.id, "b").verdict == "admitted"


def test_events_are_numbered_and_a_repeated_report_is_left_out(record: Record) -> None:
    deployment = create(record, ["a", "b"])
    later = {**EVENT, "event": "AfterInstall", "started": 12.0, "status": "Failed",
             "error_code": "ScriptFailed", "script": "x.sh", "message": "exit 1"}  # fmt: skip
    record.add_events(deployment.id, "a", [EVENT])
    record.add_events(deployment.id, "a", [EVENT, later])
    record.add_events(deployment.id, "b", [EVENT])
    events = record.events(deployment.id)
    assert [event.sequence for event in events] == [1, 2, 3, 4]
    assert [event.event for event in record.events(deployment.id, "a")] == [
        "Install", "AfterInstall",
    ]  # fmt: skip
    assert [event.sequence for event in record.events(deployment.id, after=2)] == [3, 4]
    failed = events[2].as_dict()
    assert {key: failed[key] for key in later} == later
    assert (failed["kind"], failed["target"]) == ("lifecycle", "a")


def test_a_group_has_one_deployment_at_a_time(record: Record) -> None:
    holder = create(record, ["a"], started_by="ada", started_from="ci-7")
    with pytest.raises(ActiveDeploymentError) as refusal:
        create(record, ["a"])
    assert refusal.value.holder == holder
    for part in (holder.id, "ada", "ci-7", f"`bascule resume {holder.id}`",
                 f"`bascule abandon {holder.id}`"):  # fmt: skip
        assert part in str(refusal.value)
    create(record, ["a"], group="db")
    record.finish(holder.id)
    assert create(record, ["a"]).status == "Created"


def test_abandoning_frees_the_group(record: Record) -> None:
    deployment = create(record, ["a", "b", "c"])
    succeed(record, deployment, "a")
    record.admit(deployment.id, "b")
    done = record.abandon(deployment.id, "the controller is gone")
    assert (done.status, done.error_code) == ("Stopped", "MANUAL_STOP")
    assert done.error_message == "Abandoned: the controller is gone"
    assert statuses(record, deployment) == ["Succeeded", "Unknown", "Skipped"]
    assert set(record.target_states("shop", "web")) == {"a", "b"}
    with pytest.raises(RecordError, match=r"ended already \(Stopped\)"):
        record.abandon(deployment.id)
    create(record, ["a"])


def test_a_rollback_takes_the_group_over_and_knows_who_is_out(record: Record) -> None:
    names = ["drained", "broken", "changed", "untouched", "skipped"]
    failed = create(record, names, 1)
    record.admit(failed.id, "drained")
    record.set_in_service(failed.id, "drained", False)
    record.settle(failed.id, "drained", "Failed")
    fail(record, failed, "broken")
    succeed(record, failed, "changed")
    record.settle(failed.id, "untouched", "Failed", message="unreachable")
    back = create(
        record, names[:4], 4, mode="rollback", total=5, digest=OTHER, rollback_of=failed.id,
        creator="codeDeployRollback",
    )  # fmt: skip
    was = record.deployment(failed.id)
    assert (was.status, was.rolled_back_by) == ("Failed", back.id)
    assert (back.rollback_of, back.creator) == (failed.id, "codeDeployRollback")
    assert [target.in_service for target in record.targets(back.id)] == [False, False, True, True]
    assert record.admit(back.id, "changed").verdict == "wait"
    succeed(record, back, "drained")
    assert record.admit(back.id, "broken").verdict == "admitted"
    assert record.admit(back.id, "changed").verdict == "wait"
    record.settle(back.id, "broken", "Succeeded")
    succeed(record, back, "changed", "untouched")
    assert record.finish(back.id).status == "Succeeded"


def test_who_is_out_in_a_later_stage_holds_nobody_up(record: Record) -> None:
    back = create(record, ["a", "b", "c"], 3, stages=[1, 1, 1], mode="rollback")
    record.set_in_service(back.id, "c", False)
    succeed(record, back, "a")
    record.set_in_service(back.id, "b", False)
    assert record.admit(back.id, "c").verdict == "wait"
    record.set_in_service(back.id, "b", True)
    succeed(record, back, "b", "c")


def test_states_follow_success(record: Record) -> None:
    first = create(record, ["a", "b"], digest=OTHER)
    succeed(record, first, "a", "b")
    record.finish(first.id)
    second = create(record, ["a", "b", "c", "d"], 1)
    assert second.previous_digest == OTHER
    succeed(record, second, "a")
    fail(record, second, "c")
    record.settle(second.id, "b", "Failed", message="unreachable")
    assert record.finish(second.id).status == "Failed"
    # The group keeps its revision; who was touched has a new state, who was not keeps the old.
    assert record.target_states("shop", "web") == {
        "a": TargetState(health="Healthy", revision_state="Old", digest=DIGEST),
        "b": TargetState(health="Unhealthy", revision_state="Current", digest=OTHER),
        "c": TargetState(health="Unhealthy", revision_state="Unknown", digest=None),
    }
    third = create(record, ["a", "b", "c", "d"], 1)
    record.note_current(third.id, "a")
    succeed(record, third, "b", "c", "d")
    record.finish(third.id)
    states = record.target_states("shop", "web")
    assert {state.revision_state for state in states.values()} == {"Current"}
    assert record.target_states("shop", "db") == {}


def test_last_known_good(record: Record) -> None:
    assert record.last_known_good("shop", "web") is None
    for digest in (OTHER, DIGEST):
        deployment = create(record, ["a"], digest=digest)
        succeed(record, deployment, "a")
        record.finish(deployment.id)
    failed = create(record, ["a"], digest="e" * 64)
    fail(record, failed, "a")
    record.finish(failed.id)

    def good() -> Any:
        found = record.last_known_good("shop", "web")
        return found and found.digest

    assert good() == DIGEST
    record.mark_revision("shop", DIGEST, bad=True, why="memory leak")
    assert good() == OTHER
    record.mark_revision("shop", DIGEST, bad=False)
    assert good() == DIGEST
    with pytest.raises(RecordError, match="neither registered nor deployed"):
        record.mark_revision("shop", "unknown", bad=True)


def test_a_revision_is_registered_before_it_is_deployed(record: Record) -> None:
    for place in ("s3://old/1.tgz", "s3://new/1.tgz"):
        record.register_revision("shop", DIGEST, source=place, description="1.0")
    [found] = record.revisions("shop")
    assert (found.source, found.description, found.bad) == ("s3://new/1.tgz", "1.0", False)
    assert (found.deployments, found.groups) == ({}, ())
    assert record.revisions("other") == []
    record.mark_revision("shop", DIGEST, bad=True, why="untested")
    assert record.bad_revisions("shop") == {DIGEST: "untested"}
    record.finish(create(record, ["a"], digest=OTHER).id)
    assert [one.digest for one in record.revisions("shop")] == [DIGEST, OTHER]
    record.finish(create(record, ["a"], digest=DIGEST).id)
    newest, _other = record.revisions("shop")
    assert (newest.digest, newest.source) == (DIGEST, new_deployment(["a"]).revision.source)


def test_where_bundles_are(record: Record) -> None:
    deployment = create(record, ["a", "b"])
    for _time in range(2):
        record.note_staged(deployment.id, "a", digest_present=True)
    record.note_staged(deployment.id, "b", digest_present=False)
    assert record.has_bundle("shop", "web", "a", DIGEST)
    assert not record.has_bundle("shop", "web", "b", DIGEST)
    assert not record.has_bundle("shop", "db", "a", DIGEST)
    held = record.revision_holders(DIGEST)
    assert [(one.application, one.group, one.target) for one in held] == [("shop", "web", "a")]


def test_history_is_newest_first(record: Record) -> None:
    made = []
    for group in ("web", "db", "web"):
        deployment = create(record, ["a"], group=group)
        record.finish(deployment.id)
        made.append(deployment.id)
    assert [one.id for one in record.deployments()] == made[::-1]
    assert [one.id for one in record.deployments("shop", "web")] == [made[2], made[0]]
    assert [one.id for one in record.deployments(limit=1)] == [made[2]]
    assert record.deployments("other") == []
    assert record.deployments()[0].overview == {"Skipped": 1}


def test_what_is_not_there_is_named(record: Record) -> None:
    with pytest.raises(RecordError, match="has no deployment d-MISSING00"):
        record.deployment("d-MISSING00")
    with pytest.raises(RecordError, match="has no deployment d-MISSING00"):
        record.admit("d-MISSING00", "a")
    deployment = create(record, ["a"])
    for call in (
        lambda: record.admit(deployment.id, "z"),
        lambda: record.settle(deployment.id, "z", "Failed"),
        lambda: record.note_staged(deployment.id, "z", digest_present=True),
        lambda: record.add_events(deployment.id, "z", [EVENT]),
    ):
        with pytest.raises(RecordError, match="has no target z"):
            call()
