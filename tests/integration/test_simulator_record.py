"""The simulator does what the record does: each of its steps, and of its way back, in a record."""

from __future__ import annotations

import dataclasses
import random
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.bascule.deploy.plugins.plugin_utils._closing import close_deployment
from ansible_collections.bascule.deploy.plugins.plugin_utils._planning import FAILURE_EVENT
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import (
    NewDeployment,
    Record,
    RevisionRow,
    _store,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._simulator import (
    Defect,
    parse_scenario,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._simulator._exposure import Exposure
from ansible_collections.bascule.deploy.plugins.plugin_utils._simulator._hosts import (
    Rollout,
    plan_of,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._simulator._outcome import Trace
from ansible_collections.bascule.deploy.plugins.plugin_utils._simulator._shift import (
    Shifting,
    shift_plan,
)

if TYPE_CHECKING:
    from pathlib import Path

BEGAN = 1_800_000_000.0
OLD = RevisionRow(digest="o" * 64)


class Traced(Rollout):
    """A simulated deployment that repeats each of its steps in a record."""

    record: Record
    deployment_id: str
    steps = 0

    def _admit(self) -> float | None:
        wake = super()._admit()
        if self._waiting:
            answer = self.record.admit(self.deployment_id, self._waiting[0])
            if self.code is None:
                assert answer.verdict == "wait", answer
                if wake is not None:
                    assert answer.retry_at == pytest.approx(BEGAN + wake)
            else:
                assert answer.verdict == "refused", answer
                assert str(self.code) in answer.reason
        return wake

    def _begin(self, name: str) -> None:
        assert self.record.admit(self.deployment_id, name).verdict == "admitted"
        self.record.set_in_service(self.deployment_id, name, in_service=False)
        super()._begin(name)
        self.steps += 1

    def _end(self, name: str) -> None:
        super()._end(name)
        status = "Succeeded" if self._in_service[name] else "Failed"
        self.record.settle(self.deployment_id, name, status)
        self.steps += 1


def repeated(rollout: Rollout) -> Traced:
    """Return a simulated deployment as one that is repeated in a record."""
    rollout.__class__ = Traced
    assert isinstance(rollout, Traced)
    return rollout


@pytest.mark.parametrize(
    ("failure", "variables"),
    [
        (0.0, {"deploy_minimum_healthy_hosts": "75%"}),
        (0.15, {"deploy_minimum_healthy_hosts": 6, "deploy_stages": [1, 4, "100%"]}),
        (0.5, {"deploy_minimum_healthy_hosts": 8}),
        (
            0.1,
            {
                "deploy_minimum_healthy_hosts": 2,
                "deploy_stages": [1, "100%"],
                "deploy_bake_time": "2m",
                "deploy_zonal": {"monitor": "5m", "minimum_healthy_hosts_per_zone": "50%"},
            },
        ),
    ],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_every_step_of_a_simulation_is_one_of_the_record(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: float,
    variables: dict[str, Any],
    seed: int,
) -> None:
    scenario = parse_scenario(
        "rolling",
        fleet={"targets": 12, "zones": 3, "failure": failure},
        variables=variables,
    )
    plan = plan_of(scenario)
    dice = random.Random(seed)  # noqa: S311 - a simulation
    run = Traced(scenario, plan, Defect(), dice, Exposure(), Trace())
    monkeypatch.setattr(_store.time, "time", lambda: BEGAN + run.now)
    run.record = Record.open(f"sqlite:///{tmp_path}/record.db")
    good = run.record.create_deployment(
        NewDeployment(
            application="shop", group="web", strategy="rolling", revision=OLD,
            plan={**plan, "digest": OLD.digest}, options={"rollback_on": [FAILURE_EVENT]},
        )
    )  # fmt: skip
    for target in plan["targets"]:
        run.record.note_current(good.id, target["name"])
    run.record.finish(good.id)
    run.deployment_id = run.record.create_deployment(
        NewDeployment(
            application="shop", group="web", strategy="rolling",
            revision=RevisionRow(digest=plan["digest"]), plan=plan,
            options={"rollback_on": [FAILURE_EVENT], "endpoints": [
                {"target": one["name"], "name": one["name"], "address": "", "port": 0,
                 "zone": one["zone"]} for one in plan["targets"]
            ]},
        )
    ).id  # fmt: skip
    outcome = run.run()
    closed = close_deployment(run.record, run.deployment_id)
    done = closed.deployment
    assert (done.status, done.error_code) == (outcome.status, outcome.error_code)
    assert run.steps >= 2
    if outcome.status == "Succeeded":
        return
    # The way back: traffic first, then what has changed, in the order of the record's own plan.
    back = repeated(Rollout.back(run))
    assert closed.rollback is not None
    assert closed.rollback_fleet is not None
    back.record, back.deployment_id = run.record, closed.rollback.id
    monkeypatch.setattr(_store.time, "time", lambda: BEGAN + back.now)
    for gone in closed.rollback_fleet["retreat"]:
        assert not back._in_service[gone["target"]]
        run.record.set_in_service(closed.rollback.id, gone["target"], in_service=False)
    wanted = {one.name: one.in_service for one in run.record.targets(closed.rollback.id)}
    assert wanted == back._in_service
    assert [one["name"] for one in closed.rollback.plan["targets"]] == list(back._stage)
    ended = back.run()
    last = run.record.finish(closed.rollback.id)
    assert (last.status, last.error_code) == (ended.status, ended.error_code)
    assert back.steps >= 2


class TracedShift(Shifting):
    """A simulated schedule that repeats each of its steps in a record."""

    record: Record
    deployment_id: str
    told: list[tuple[str, int]]

    def _installed(self, name: str, status: str) -> None:
        assert self.record.admit(self.deployment_id, name).verdict == "admitted"
        self.record.settle(self.deployment_id, name, status)

    def _begin_step(self, step: Any) -> None:
        assert self.record.begin_step(self.deployment_id, step["number"]) == "go"

    def _end_step(self, step: Any, why: str) -> None:
        if why:
            self.record.fail_steps(self.deployment_id, "GATE_FAILED", why)
        else:
            self.record.end_step(self.deployment_id, step["number"])

    def _halted(self) -> None:
        closed = close_deployment(self.record, self.deployment_id)
        assert closed.deployment.status == "Failed"
        if closed.rollback is not None:
            self.deployment_id = closed.rollback.id


@pytest.mark.parametrize(
    ("given", "found_by", "told"),
    [
        ({}, "", ["1", "2", "3", "4", "5", "6"]),
        ({"asked": {"gate_fails": 1}}, "gates", ["1", "2", "3", "4 Failed", "back 1"]),
        ({"asked": {"approval": "2h"}}, "approval", ["1", "2", "3", "4", "5 Failed", "back 1"]),
        (
            {"defect": {"errors": "30%"}, "traffic": {"requests": 500}},
            "judge",
            ["1", "2", "3 Failed", "back 1"],
        ),
    ],
)
def test_the_steps_of_a_simulated_schedule_and_its_way_back_are_those_of_the_record(
    tmp_path: Path, given: dict[str, Any], found_by: str, told: list[str]
) -> None:
    schedule = [
        {"shift": "10%"}, {"bake": "5m"}, {"gate": {"type": "tcp", "port": 80}}, {"approval": "1h"},
        {"shift": "100%"},
    ]  # fmt: skip
    scenario = parse_scenario("blue_green", variables={"deploy_schedule": schedule}, **given)
    plan = shift_plan(scenario)
    run = TracedShift(scenario, plan, scenario.defect, random.Random(3))  # noqa: S311 - a simulation
    with Record.open(f"sqlite:///{tmp_path}/record.db") as run.record:
        new = NewDeployment(
            application="shop", group="web", strategy="blue_green", plan={**plan, "schedule": []},
            revision=OLD, options={"rollback_on": [FAILURE_EVENT], "endpoints": []},
        )  # fmt: skip
        good = run.record.create_deployment(new)
        for target in plan["targets"]:
            run.record.note_current(good.id, target["name"])
        run.record.finish(good.id)
        bad = dataclasses.replace(new, plan=plan, revision=RevisionRow(digest=plan["digest"]))
        begun = run.deployment_id = run.record.create_deployment(bad).id
        assert run.run().found_by == found_by
        ended = run.record.finish(run.deployment_id)
        assert ended.status == "Succeeded"
        assert (ended.id != begun) == bool(found_by)
        steps = [
            f"{'back ' * (name != begun)}{one.number}{' Failed' * (one.status == 'Failed')}"
            for name in dict.fromkeys((begun, ended.id))
            for one in run.record.steps(name)
            if one.started_at is not None
        ]
        assert steps == told
