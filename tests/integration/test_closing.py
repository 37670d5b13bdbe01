"""Closing a deployment and opening its rollback, against a real record."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError
from ansible_collections.bascule.deploy.plugins.module_utils._plan import PlanTarget, make_plan
from ansible_collections.bascule.deploy.plugins.plugin_utils._closing import (
    close_deployment,
    good_of,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._opening import resume_deployment
from ansible_collections.bascule.deploy.plugins.plugin_utils._planning import Endpoint
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import (
    Deployment,
    NewDeployment,
    Record,
    RevisionRow,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._stopping import stop

if TYPE_CHECKING:
    from pathlib import Path

NAMES = [f"web{number}" for number in range(1, 9)]


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record.open(f"sqlite:///{tmp_path}/record.db")


def begin(
    record: Record,
    digest: str,
    *,
    minimum: int = 6,
    rollback_on: tuple[str, ...] = ("*",),
    plan: dict[str, Any] | None = None,
) -> Deployment:
    endpoints = [Endpoint(name, f"lb-{name}", "10.0.0.1", 80, "") for name in NAMES]
    good = record.last_known_good("shop", "web")
    events = ["DEPLOYMENT_FAILURE"] if rollback_on == ("*",) else list(rollback_on)
    return record.create_deployment(
        NewDeployment(
            application="shop",
            group="web",
            strategy="rolling",
            revision=RevisionRow(digest=digest * 16),
            plan=make_plan(
                "rolling",
                [PlanTarget(name) for name in NAMES],
                digest=digest * 16,
                minimum=minimum,
                stages=[len(NAMES)],
                provider="envoy",
                current=good.digest if good else None,
            )
            | (plan or {}),
            options={
                "rollback_on": events,
                "endpoints": [asdict(endpoint) for endpoint in endpoints],
            },
        )
    )


def run(record: Record, deployment: Deployment, outcomes: dict[str, str]) -> None:
    """Let the named targets go through; the others are never admitted."""
    for name in NAMES:
        record.note_staged(deployment.id, name, digest_present=True)
    for name, status in outcomes.items():
        assert record.admit(deployment.id, name).verdict == "admitted"
        record.set_in_service(deployment.id, name, in_service=False)
        if status == "Succeeded":
            record.set_in_service(deployment.id, name, in_service=True)
        record.settle(deployment.id, name, status, message=f"{name} {status}")


def succeed(record: Record, digest: str) -> None:
    deployment = begin(record, digest)
    run(record, deployment, dict.fromkeys(NAMES, "Succeeded"))
    assert close_deployment(record, deployment.id).deployment.status == "Succeeded"


def test_a_failed_deployment_opens_a_rollback_of_what_changed(record: Record) -> None:
    succeed(record, "aaaa")
    bad = begin(record, "bbbb")
    run(record, bad, {"web1": "Succeeded", "web2": "Failed", "web3": "Failed"})
    closed = close_deployment(record, bad.id)
    assert closed.deployment.status == "Failed"
    assert closed.rollback is not None
    assert closed.rollback.rollback_of == bad.id
    assert closed.rollback.creator == "codeDeployRollback"
    assert closed.rollback.revision.digest == "aaaa" * 16
    assert closed.rollback_fleet is not None
    assert closed.rollback_fleet["targets"] == ["web2", "web3", "web1"]
    # 8 targets, 2 out of service, 6 must stay: nobody may leave before the first has come back.
    assert closed.rollback_fleet["retreat"] == []
    assert record.deployment(bad.id).rolled_back_by == closed.rollback.id


def test_the_bad_revision_retreats_as_far_as_the_floor_allows(record: Record) -> None:
    succeed(record, "aaaa")
    bad = begin(record, "bbbb", minimum=5)
    outcomes = {"web1": "Succeeded", "web2": "Succeeded", "web3": "Failed"}
    run(record, bad, outcomes)
    record.halt(bad.id, "HEALTH_CONSTRAINTS", "halted by the test")
    closed = close_deployment(record, bad.id)
    assert closed.rollback_fleet is not None
    assert closed.rollback_fleet["targets"] == ["web3", "web1", "web2"]
    retreat = [endpoint["target"] for endpoint in closed.rollback_fleet["retreat"]]
    assert retreat == ["web1", "web2"]
    assert closed.rollback_fleet["retreat"][0] == {
        "target": "web1",
        "name": "lb-web1",
        "address": "10.0.0.1",
        "port": 80,
    }


@pytest.mark.parametrize(
    ("outcomes", "rollback_on", "good", "words"),
    [
        ({"web1": "Failed", "web2": "Failed", "web3": "Failed"}, (), True, "No automatic rollback"),
        ({"web1": "Failed", "web2": "Failed"}, ("*",), False, "No rollback is possible"),
        ({}, ("*",), True, "No rollback is needed"),
    ],
)
def test_why_there_is_no_rollback(
    record: Record,
    outcomes: dict[str, str],
    rollback_on: tuple[str, ...],
    good: bool,
    words: str,
) -> None:
    if good:
        succeed(record, "aaaa")
    bad = begin(record, "bbbb", rollback_on=rollback_on)
    run(record, bad, dict(list(outcomes.items())[:2]))
    record.halt(bad.id, "HEALTH_CONSTRAINTS", "halted by the test")
    closed = close_deployment(record, bad.id)
    assert closed.rollback is None
    assert words in closed.summary


def test_deploying_twice_says_that_there_is_nothing_to_do(record: Record) -> None:
    succeed(record, "aaaa")
    again = begin(record, "aaaa")
    for name in NAMES:
        record.note_current(again.id, name)
    closed = close_deployment(record, again.id)
    assert closed.deployment.status == "Succeeded"
    assert "nothing to do, all 8 targets already have revision aaaaaaaaaaaa" in closed.summary


GIVEN: dict[str, Any] = {
    "deploy_application": "shop", "deploy_group": "web", "deploy_traffic_provider": "envoy",
    "deploy_traffic_pools": {"blue": {}, "green": {}}, "deploy_gates": [], "deploy_judge": {},
}  # fmt: skip


@pytest.mark.parametrize(
    ("plan", "given", "words"),
    [
        ({}, {"deploy_traffic_provider": "none"}, "deploy_traffic_provider envoy, and now it is"),
        (
            {"pools": {"members": {"blue": ["web1"], "green": ["web2"]}}},
            {"deploy_traffic_pools": {}},
            "the pools blue, green, and now deploy_traffic_pools has none",
        ),
        (
            {"gates": {"texts": ["page (http)"], "staged": False, "alarms": []}},
            {},
            r"deploy_gates \(page \(http\)\), and now there are none",
        ),
    ],
)
def test_nothing_is_taken_up_without_the_variables_that_it_was_begun_with(
    record: Record, plan: dict[str, Any], given: dict[str, Any], words: str
) -> None:
    deployment = begin(record, "aaaa", plan={"provider": "envoy", **plan})
    with pytest.raises(UsageError, match=words):
        resume_deployment(deployment.id, {**GIVEN, **given}, record=record)
    assert record.deployment(deployment.id).fence == deployment.fence


def test_what_is_ending_needs_no_gates(record: Record) -> None:
    gates = {"texts": ["page (http)"], "staged": True, "alarms": []}
    deployment = begin(record, "aaaa", plan={"gates": gates})
    record.halt(deployment.id, "MANUAL_STOP", "halted by the test")
    assert resume_deployment(deployment.id, GIVEN, record=record).deployment["resumed"] is True


def test_a_stop_that_is_refused_has_stopped_nothing(record: Record) -> None:
    deployment = begin(record, "aaaa", plan={"provider": "envoy"})
    record.release(deployment.id)
    left = stop(record, deployment.id, rollback=True, defer=True)
    assert left is not None
    asked = {"why": "not today", "rollback": True}
    with pytest.raises(UsageError, match=r"now it is none.*Nothing was changed"):
        resume_deployment(
            left.id, {**GIVEN, "deploy_traffic_provider": "none"}, record=record, stop=asked
        )
    seen = record.deployment(deployment.id)
    assert (seen.error_code, seen.rollback_on_stop) == (None, False)
    assert not seen.stop_requested_by
    settings = {**GIVEN, "deploy_traffic_provider": "envoy"}
    resume_deployment(left.id, settings, record=record, stop=asked)
    seen = record.deployment(deployment.id)
    assert (seen.error_code, seen.rollback_on_stop) == ("MANUAL_STOP", True)
    assert "not today" in seen.error_message


def test_a_stop_that_needs_no_playbook_is_carried_out_at_once(record: Record) -> None:
    deployment = begin(record, "aaaa")
    record.release(deployment.id)
    assert stop(record, deployment.id, defer=True) is None
    assert record.deployment(deployment.id).status == "Stopped"


def test_an_interrupted_deployment_is_taken_up_with_its_own_plan(record: Record) -> None:
    deployment = begin(record, "aaaa")
    run(record, deployment, {"web1": "Succeeded"})
    settings = {**GIVEN, "deploy_traffic_provider": deployment.plan["provider"]}
    with pytest.raises(UsageError, match=r"none of the targets of .* \(web1, .*, web5, …\)"):
        resume_deployment(deployment.id, settings, record=record, hosts=["localhost", "api1"])
    assert record.deployment(deployment.id).fence == deployment.fence
    opened = resume_deployment(deployment.id, settings, record=record, hosts=["web8", "web9"])
    assert opened.deployment["id"] == deployment.id
    assert opened.deployment["resumed"] is True
    assert opened.fleet["targets"] == NAMES
    assert record.admit(deployment.id, "web1").verdict == "current"
    with pytest.raises(UsageError, match="belongs to shop/web"):
        resume_deployment(deployment.id, {**settings, "deploy_group": "api"}, record=record)
    record.abandon(deployment.id, "by the test")
    with pytest.raises(UsageError, match="has ended as Stopped"):
        resume_deployment(deployment.id, settings, record=record)


def test_the_end_and_its_rollback_are_one_transaction(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were they two, a controller that dies between them would leave the group to anybody."""
    succeed(record, "aaaa")
    failing = begin(record, "bbbb")
    run(record, failing, {"web1": "Succeeded", "web2": "Failed", "web3": "Failed"})

    def dies(*_arguments: object, **_more: object) -> None:
        message = "the controller is killed here"
        raise KeyboardInterrupt(message)

    home = "ansible_collections.bascule.deploy.plugins.plugin_utils._record._close"
    with monkeypatch.context() as patch:
        patch.setattr(f"{home}.create", dies)
        with pytest.raises(KeyboardInterrupt):
            close_deployment(record, failing.id)
    assert record.deployment(failing.id).status == "InProgress"
    assert record.lease(failing.id) is not None
    closed = close_deployment(record, failing.id)
    assert closed.rollback is not None
    assert record.deployment(failing.id).rolled_back_by == closed.rollback.id
    in_service = {one.name: one.in_service for one in record.targets(closed.rollback.id)}
    assert in_service == {"web1": True, "web2": False, "web3": False}
    # Closed once more, it has no second rollback.
    assert close_deployment(record, failing.id).rollback is None
    assert len(record.deployments()) == 3


@pytest.mark.parametrize(
    ("rollback_on", "asked", "status"),
    [
        ((), True, "Created"),
        (("DEPLOYMENT_STOP_ON_REQUEST",), False, "Created"),
        (("DEPLOYMENT_FAILURE",), False, None),
    ],
)
def test_a_stopped_deployment_is_rolled_back_if_that_is_asked_for(
    record: Record, rollback_on: tuple[str, ...], asked: bool, status: str | None
) -> None:
    succeed(record, "aaaa")
    stopped = begin(record, "bbbb", rollback_on=rollback_on)
    run(record, stopped, {"web1": "Succeeded"})
    record.request_stop(stopped.id, "not today", rollback=asked)
    closed = close_deployment(record, stopped.id)
    assert closed.deployment.status == "Stopped"
    assert (closed.rollback.status if closed.rollback else None) == status
    if closed.rollback is None:
        assert f"`bascule rollback {stopped.id}`" in closed.note
    else:
        assert [one["name"] for one in closed.rollback.plan["targets"]] == ["web1"]


def test_what_others_have_moved_goes_back_to_what_was_there(record: Record) -> None:
    deployment, good = begin(record, "a"), RevisionRow(digest="g" * 16)
    assert good_of(deployment, good) == good
    there = RevisionRow(digest="t" * 16, source="was there")
    moved = replace(deployment, options={**deployment.options, "before": asdict(there)})
    assert good_of(moved, good) == there
