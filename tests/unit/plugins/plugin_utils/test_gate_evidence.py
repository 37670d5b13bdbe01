"""How long the steps of a schedule must last."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError
from ansible_collections.bascule.deploy.plugins.module_utils._host._router import Counters
from ansible_collections.bascule.deploy.plugins.module_utils._schedule import parse_schedule
from ansible_collections.bascule.deploy.plugins.plugin_utils._gates import evidence_lines
from ansible_collections.bascule.deploy.plugins.plugin_utils._gates._evidence import (
    Remembered,
    measure_traffic,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._gates._proxy import plain_counters
from ansible_collections.bascule.deploy.plugins.plugin_utils._judge import (
    Metric,
    requests_needed,
)

METRICS = {"metrics": [{"name": "errors", "kind": "rate"}]}
SCHEDULE = parse_schedule([{"shift": "5%"}, {"bake": "10m"}, {"shift": "50%"}, {"bake": "1h"}])


def judge(**evidence: Any) -> dict[str, Any]:
    return {**METRICS, "evidence": evidence}


def test_each_share_is_told_with_how_long_it_bakes() -> None:
    head, first, second = evidence_lines(
        judge(effect=0.02, rate=0.01, traffic=2), SCHEDULE, traffic=None
    )
    assert head == "Evidence: to tell errors 2 points above 1 % from none, at 2 requests/s,"
    metric = Metric(name="errors", kind="rate")
    needed = requests_needed(metric, 0.05, rate=0.01, effect=0.02, share=0.05)
    assert needed.to_fail is not None
    assert needed.to_pass is not None
    assert first == (
        f"  a step at 5 % has to bake {needed.to_fail / 7200:.1f} h until they are found (9 times "
        f"of 10), {needed.to_pass / 7200:.1f} h until a good one passes; it bakes 10 min (too "
        "short: the judge may not find them)"
    )
    assert second.startswith("  a step at 50 % has to bake ")
    assert second.endswith("it bakes 60 min (too short: the judge may stay inconclusive)")


def test_what_the_judge_allows_is_never_found() -> None:
    _head, line, _second = evidence_lines(
        judge(effect=0.005, rate=0.1, traffic=2000), SCHEDULE, traffic=None
    )
    assert line.startswith("  a step at 5 % has to bake for ever: the metric errors allows as much")


class Traffic:
    """Counts 250 requests a pool between two looks."""

    def __init__(self) -> None:
        self.looks = 3

    def measured(self) -> dict[str, Any]:
        self.looks += 1
        seen = Counters(250 * self.looks, self.looks, None)
        return {"at": 0.0, "pools": plain_counters({"blue": seen, "green": seen})}

    def observed(self, pool: str = "") -> dict[str, Any]:
        return {"targets": {pool: {}}}


def test_what_is_not_given_is_measured() -> None:
    load, rate = measure_traffic(Traffic(), sleep=lambda _seconds: None)
    assert load > 500
    assert rate == pytest.approx(1 / 250)


@pytest.mark.parametrize(
    ("given", "lines"),
    [
        ({}, []),
        (METRICS, []),
        (
            judge(effect=0.02, rate=0.01, traffic=0),
            ["Evidence: not known, there is no traffic now"],
        ),
        (judge(effect=0.02), ["Evidence: not known, the traffic cannot be measured."]),
    ],
)
def test_without_numbers_nothing_is_promised(given: dict[str, Any], lines: list[str]) -> None:
    found = evidence_lines(given, SCHEDULE, traffic=None)
    assert [line[: len(lines[0])] for line in found] == lines if lines else found == []


def test_what_cannot_be_measured_is_what_the_last_judge_saw() -> None:
    known = Remembered(traffic=50.0, rate=0.01, deployment="d-LAST")
    why, head, _first, _second = evidence_lines(
        judge(effect=0.02), SCHEDULE, traffic=None, recall=lambda: known
    )
    assert why.startswith("Evidence: as the judge of d-LAST saw it, since the traffic cannot be")
    assert head.endswith("2 points above 1 % from none, at 50 requests/s,")


def test_the_part_of_canaries_among_the_targets_counts() -> None:
    bakes = parse_schedule([{"bake": "10m"}, {"bake": "5m"}], complete=False)
    _head, line = evidence_lines(
        judge(effect=0.02, rate=0.01, traffic=1000), bakes, traffic=None, share=0.25
    )
    assert line.startswith("  a step at 25 % has to bake ")
    assert line.endswith("; it bakes 15 min")


def test_a_pool_may_be_compared_with_a_part_of_the_other_one() -> None:
    # A tenth of the traffic, and a ninth of the rest: as much again, a fifth in all.
    steps = parse_schedule([{"shift": "10%"}, {"bake": "10m"}], complete=False)
    _head, line = evidence_lines(
        judge(effect=0.02, rate=0.01, traffic=1000), steps, traffic=None, beside=1 / 9
    )
    metric = Metric(name="errors", kind="rate")
    needed = requests_needed(metric, 0.05, rate=0.01, effect=0.02, share=0.5)
    assert needed.to_fail is not None
    assert line.startswith(
        f"  a step at 10 % has to bake {needed.to_fail / 0.2 / 1000:.0f} s until"
    )


@pytest.mark.parametrize(
    "evidence", [{"rate": 0.1}, {"effect": 2}, {"effect": "much"}, {"effect": 0.1, "speed": 1}]
)
def test_what_does_not_fit_is_refused(evidence: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="evidence"):
        evidence_lines(judge(**evidence), SCHEDULE, traffic=None)
