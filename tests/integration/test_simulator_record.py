"""The simulator does what the record does: each of its steps, repeated in a real record."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
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
    _Rollout,
    plan_of,
)

if TYPE_CHECKING:
    from pathlib import Path

BEGAN = 1_800_000_000.0


class Traced(_Rollout):
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
    run = Traced(scenario, plan, Defect(), dice, Exposure())
    monkeypatch.setattr(_store.time, "time", lambda: BEGAN + run.now)
    run.record = Record.open(f"sqlite:///{tmp_path}/record.db")
    run.deployment_id = run.record.create_deployment(
        NewDeployment(
            application="shop", group="web", strategy="rolling",
            revision=RevisionRow(digest=plan["digest"]), plan=plan,
        )
    ).id  # fmt: skip
    outcome = run.run()
    done = run.record.finish(run.deployment_id)
    assert (done.status, done.error_code) == (outcome.status, outcome.error_code)
    assert run.steps >= 2
