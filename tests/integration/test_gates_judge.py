"""The judge in a deployment: what it sees at the proxy, what the record has, and its replay."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._gate_spec import parse_gates
from ansible_collections.bascule.deploy.plugins.module_utils._host._router import Counters
from ansible_collections.bascule.deploy.plugins.plugin_utils._gates import (
    Pools,
    Rules,
    StepOutcome,
    run_step,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._gates._proxy import plain_counters
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Record
from support.records import create

import bascule.judge
from bascule.cli import main

if TYPE_CHECKING:
    from pathlib import Path

STEP = "canary 10 %"
CRITICAL = {"metrics": [{"name": "errors", "kind": "rate", "critical": True}]}


class Counting:
    """Pools whose counters grow by the same at every look, as a load balancer's do.

    ``per_look``: by pool, requests, errors, and requests slower than 100 ms.
    """

    def __init__(self, **per_look: tuple[int, int, int]) -> None:
        self.per_look = per_look
        self.looks = 7

    def measured(self) -> dict[str, Any]:
        self.looks += 1
        counted = {
            name: Counters(
                requests * self.looks, errors * self.looks,
                [(0.1, (requests - slow) * self.looks), (0.2, requests * self.looks)],
            )
            for name, (requests, errors, slow) in self.per_look.items()
        }  # fmt: skip
        return {"at": 0.0, "pools": plain_counters(counted)}

    def observed(self, pool: str = "") -> dict[str, Any]:
        return {"targets": {f"a{pool}": {"in_service": True, "state": "up"}}}


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    found = f"sqlite:///{tmp_path / 'record.db'}"
    monkeypatch.setenv("BASCULE_RECORD", found)
    return found


def judged(
    record: Record, judge: dict[str, Any], traffic: Counting, **more: Any
) -> tuple[str, StepOutcome]:
    made = create(record, ["a", "b"], group=f"g{len(record.deployments())}")
    gate = {"type": "judge", "judge": judge, "interval": "100ms"}
    settings: dict[str, Any] = {
        "seconds": 1.5, "pools": Pools("green", "blue", 0.1), "rules": Rules(), **more,
    }  # fmt: skip
    outcome = run_step(
        record, {"id": made.id}, STEP, parse_gates([gate]), traffic=traffic, **settings
    )
    return made.id, outcome


def test_a_bad_canary_fails_at_once_and_a_good_one_when_the_step_ends(url: str) -> None:
    with Record.open(url) as record:
        name, outcome = judged(
            record, CRITICAL, Counting(blue=(900, 9, 0), green=(100, 10, 0)), seconds=3600
        )
        assert (outcome.verdict, outcome.halted) == ("Fail", True)
        assert "The critical metric errors is bad" in outcome.message
        assert record.finish(name).error_code == "GATE_FAILED"

        name, outcome = judged(
            record, CRITICAL, Counting(blue=(90000, 90, 0), green=(10000, 10, 0))
        )
        assert outcome.verdict == "Pass", outcome
        looks = [one for one in record.gate_decisions(name) if "result" in one.data]
        assert {one.verdict for one in looks[:-1]} <= {"Pending"}
        assert looks[-1].data["final"]
        # What was counted before the step began is in none of them.
        assert looks[0].data["look"]["rates"]["errors"]["baseline"] == {"bad": 90, "total": 90000}


def test_a_step_that_bakes_longer_than_a_judge_may_take_is_judged_when_it_ends(url: str) -> None:
    with Record.open(url) as record:
        made = create(record, ["a"])
        gate = {"type": "judge", "judge": CRITICAL, "interval": "100ms", "deadline": "50ms"}
        outcome = run_step(
            record, {"id": made.id}, STEP, parse_gates([gate]), seconds=0.5,
            pools=Pools("green", "blue", 0.1),
            traffic=Counting(blue=(90000, 90, 0), green=(10000, 10, 0)),
        )  # fmt: skip
        assert outcome.verdict == "Pass", outcome


def test_too_little_traffic_is_no_failure(url: str) -> None:
    with Record.open(url) as record:
        name, outcome = judged(record, CRITICAL, Counting(blue=(9, 0, 0), green=(1, 0, 0)))
        assert (outcome.verdict, outcome.paused) == ("Inconclusive", True)
        assert "Not enough evidence yet" in outcome.message
        assert record.deployment(name).paused_step == STEP


def test_an_extended_step_goes_on_with_what_it_has_seen(url: str) -> None:
    with Record.open(url) as record:
        # Enough for a verdict only after some rounds of half a second.
        traffic = Counting(blue=(900, 0, 0), green=(100, 0, 0))
        name, outcome = judged(
            record, CRITICAL, traffic, seconds=0.35,
            rules=Rules(on_inconclusive="extend", extensions=50),
        )  # fmt: skip
        assert outcome.verdict == "Pass", outcome
        assert outcome.round > 1
        last = [one for one in record.gate_decisions(name) if "result" in one.data][-1]
        assert "0 of " in json.dumps(last.data["result"]["metrics"])


def test_pools_that_do_not_get_their_shares_block_the_verdict(url: str) -> None:
    with Record.open(url) as record:
        name, outcome = judged(
            record, CRITICAL, Counting(blue=(900, 0, 0), green=(300, 90, 0)), seconds=3600
        )
        assert (outcome.verdict, outcome.paused) == ("Inconclusive", True)
        assert "sample ratio mismatch" in outcome.message
        trusting = {**CRITICAL, "assignments": "none"}
        name, outcome = judged(
            record, trusting, Counting(blue=(900, 0, 0), green=(300, 90, 0)), seconds=3600
        )
        assert outcome.verdict == "Fail"
        assert record.deployment(name).error_code == "GATE_FAILED"


class Targets(Counting):
    """The same with arms that are targets; ``given``: what each is given at a look."""

    def __init__(self, share: float | None, given: dict[str, int], **per_look: Any) -> None:
        super().__init__(**per_look)
        self.share, self.given = share, given

    def measured(self) -> dict[str, Any]:
        found = super().measured()
        arms = {arm: found["pools"].pop(arm) for arm in ("canary", "baseline")}
        given = {arm: number * self.looks for arm, number in self.given.items()}
        return {**found, "arms": arms, "assigned": {**given, "share": self.share}}


ARMS: dict[str, Any] = {"canary": [{"name": "a"}], "baseline": [{"name": "b"}]}


@pytest.mark.parametrize(
    ("share", "verdict"), [(0.25, "Inconclusive"), (0.5, "Fail"), (None, "Fail")]
)
def test_targets_that_do_not_get_the_share_of_their_weights_block_the_verdict(
    url: str, share: float | None, verdict: str
) -> None:
    traffic = Targets(
        share, {"canary": 500, "baseline": 500}, canary=(500, 90, 0), baseline=(500, 0, 0)
    )
    with Record.open(url) as record:
        _name, outcome = judged(
            record, CRITICAL, traffic, seconds=3600, pools=Pools("canary", "baseline", arms=ARMS)
        )
        assert outcome.verdict == verdict, outcome
        assert ("sample ratio mismatch" in outcome.message) == (verdict == "Inconclusive")


@pytest.mark.parametrize(("green", "verdict"), [(100, "Fail"), (300, "Inconclusive")])
def test_a_baseline_in_the_other_pool_is_compared_and_the_shares_are_those_of_pools(
    url: str, green: int, verdict: str
) -> None:
    traffic = Targets(
        None, {"canary": 100, "baseline": 300},
        blue=(900, 500, 0), green=(green, 50, 0), canary=(100, 50, 0), baseline=(300, 0, 0),
    )  # fmt: skip
    with Record.open(url) as record:
        name, outcome = judged(
            record, CRITICAL, traffic, seconds=3600, pools=Pools("green", "blue", 0.1, arms=ARMS)
        )
        assert outcome.verdict == verdict, outcome
        look = next(one.data for one in record.gate_decisions(name) if "look" in one.data)["look"]
        assert look["rates"]["errors"]["baseline"] == {"bad": 0, "total": 300}
        assert look["assignments"] == {"canary": green, "baseline": 900}
    assert all(one["same"] for one in bascule.judge.replay(name))


def test_with_all_the_traffic_on_one_pool_there_is_nothing_to_compare(url: str) -> None:
    with Record.open(url) as record:
        _name, outcome = judged(
            record, CRITICAL, Counting(blue=(0, 0, 0), green=(100, 99, 0)), seconds=0.2,
            pools=Pools("green", "blue", 1.0),
        )  # fmt: skip
        assert (outcome.verdict, outcome.gates[0]["seen"]) == (
            "Pass",
            "one pool has all the traffic (100 % for the canary): nothing to compare",
        )


def test_latency_by_quantiles_of_each_interval(url: str) -> None:
    slow = {"metrics": [{"name": "p95", "kind": "series", "quantile": "p95", "critical": True}]}
    with Record.open(url) as record:
        _name, outcome = judged(
            record, slow, Counting(blue=(900, 0, 9), green=(100, 0, 90)), seconds=3600
        )
        assert outcome.verdict == "Fail", outcome
        _name, outcome = judged(
            record, slow, Counting(blue=(900, 0, 9), green=(100, 0, 1)),
            rules=Rules(on_inconclusive="extend", extensions=50),
        )  # fmt: skip
        assert outcome.verdict == "Pass", outcome


def test_numbers_of_a_command(url: str, tmp_path: Path) -> None:
    state = tmp_path / "calls"
    program = (
        "import json, pathlib, sys; p = pathlib.Path(sys.argv[1]);"
        "n = len(p.read_text()) if p.exists() else 0; p.write_text('x' * (n + 1));"
        "print(json.dumps({'canary': {'bad': 30 * n, 'total': 100 * n},"
        " 'baseline': {'bad': n, 'total': 900 * n}}))"
    )
    judge = {
        "metrics": [
            {"name": "orders", "kind": "rate", "critical": True, "source": "command",
             "command": [sys.executable, "-c", program, str(state)]}
        ]
    }  # fmt: skip
    with Record.open(url) as record:
        _name, outcome = judged(record, judge, Counting(), seconds=3600)
    assert outcome.verdict == "Fail"


def test_a_pool_that_is_not_there_is_an_error(url: str) -> None:
    with Record.open(url) as record:
        made = create(record, ["a"])
        gate = {
            "type": "judge", "judge": CRITICAL, "interval": "100ms", "error_retry": "100ms",
            "consecutive_error_limit": 1,
        }  # fmt: skip
        outcome = run_step(
            record, {"id": made.id}, STEP, parse_gates([gate]), seconds=60,
            pools=Pools("green", "red"), traffic=Counting(blue=(9, 0, 0), green=(1, 0, 0)),
        )  # fmt: skip
    assert outcome.verdict == "Fail"
    assert "The judge's baseline is the pool red; the load balancer has blue, green" in (
        outcome.message
    )


def test_gates_on_the_statistics_of_a_pool(url: str) -> None:
    gates = [
        {"type": "proxy", "metric": "error_rate", "success": "< 2%"},
        {"type": "proxy", "name": "against", "metric": "error_rate", "baseline": "blue",
         "success": "<= 1.5"},
        {"type": "proxy", "name": "slow", "metric": "p95", "pool": "blue", "success": "< 0.15"},
        {"type": "load_balancer"},
        {"type": "load_balancer", "name": "two", "healthy": ">= 2", "dry_run": True},
    ]  # fmt: skip
    with Record.open(url) as record:
        made = create(record, ["a"])
        outcome = run_step(
            record, {"id": made.id}, STEP,
            parse_gates([{**gate, "interval": "100ms"} for gate in gates]), seconds=0.6,
            pools=Pools("green", "blue"), traffic=Counting(blue=(900, 9, 0), green=(100, 1, 0)),
        )  # fmt: skip
        assert outcome.verdict == "Pass", outcome
        seen = {one["name"]: one["seen"] for one in outcome.gates}
        assert seen["proxy"] == "0.01, wanted < 2%"
        assert seen["against"] == "error_rate 0.01 against 0.01: 1, wanted <= 1.5"
        assert "1 of 1 targets are in service, wanted >= 2" in seen["two"]


def test_a_deployment_can_be_judged_again(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = {
        "metrics": [
            {"name": "errors", "kind": "rate", "critical": True},
            {"name": "p95", "kind": "series", "test": "rank"},
        ],
        "passing": 50,
        "marginal": 40,
    }
    with Record.open(url) as record:
        name, outcome = judged(record, judge, Counting(blue=(90000, 900, 9), green=(10000, 100, 1)))
        assert outcome.verdict == "Pass", outcome
    found = bascule.judge.replay(name)
    assert found[-1]["final"]
    assert all(one["same"] for one in found)
    assert [one["replayed"] for one in found] == [one["recorded"] for one in found]
    assert main(["judge", "replay", name]) == 0
    assert f"{len(found)} verdicts: the same, bit by bit." in capsys.readouterr().out

    strict = tmp_path / "strict.yml"
    strict.write_text(
        "deploy_judge:\n  interval: 10s\n"
        "  metrics: [{name: errors, kind: rate, tolerance: 0.00001, source: proxy}]\n"
    )
    assert main(["judge", "replay", name, "--config", str(strict), "--format", "json"]) == 0
    other = json.loads(capsys.readouterr().out)
    assert not other["same"]
    assert other["verdicts"][-1]["recorded"]["verdict"] == "Pass"
    assert other["verdicts"][-1]["replayed"]["verdict"] == "Inconclusive"
    assert main(["judge", "replay", name, "--step", "no step"]) == 2
