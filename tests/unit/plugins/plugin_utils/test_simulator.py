"""The simulator: exact draws, closed forms of exposure, deployments on a virtual clock."""

from __future__ import annotations

import json
import math
import random
import statistics
from typing import Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import PlanError, UsageError
from ansible_collections.bascule.deploy.plugins.plugin_utils._simulator import (
    Defect,
    Traffic,
    _draw,
    parse_scenario,
    simulate,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._simulator._exposure import Exposure
from ansible_collections.bascule.deploy.plugins.plugin_utils._simulator._hosts import (
    plan_of,
    run_hosts,
)
from hypothesis import given, settings
from hypothesis import strategies as st

EXACT = {"install": 10, "install_spread": 0, "drain": 5}


def rolled(seed: int) -> random.Random:
    """Return dice of a seed."""
    return random.Random(seed)  # noqa: S311 - a simulation


def numbers(strategy: str, runs: int = 1, seed: int = 0, **given_: Any) -> dict[str, Any]:
    """Simulate one strategy."""
    scenario = parse_scenario(strategy, **given_)
    return dict(simulate([(strategy, scenario)], runs=runs, seed=seed)["strategies"][0])


@pytest.mark.parametrize(("number", "chance"), [(9, 0.3), (40, 0.02), (1000, 0.01), (5000, 0.6)])
def test_binomial_numbers_have_their_mean_and_variance(number: int, chance: float) -> None:
    dice = rolled(7)
    drawn = [_draw.binomial(dice, number, chance) for _throw in range(4000)]
    variance = number * chance * (1 - chance)
    assert statistics.fmean(drawn) == pytest.approx(
        number * chance, abs=5 * math.sqrt(variance / 4000)
    )
    assert statistics.variance(drawn) == pytest.approx(variance, rel=0.12)
    assert 0 <= min(drawn) <= max(drawn) <= number


@pytest.mark.parametrize("mean", [0.5, 15.0, 400.0])
def test_poisson_numbers_have_their_mean_and_variance(mean: float) -> None:
    dice = rolled(7)
    drawn = [_draw.poisson(dice, mean) for _throw in range(4000)]
    assert statistics.fmean(drawn) == pytest.approx(mean, abs=5 * math.sqrt(mean / 4000))
    assert statistics.variance(drawn) == pytest.approx(mean, rel=0.12)


def test_a_quantile_is_drawn_as_that_of_drawn_values() -> None:
    dice = rolled(7)
    short = [_draw.quantile(dice, 50, 0.95, 1.0, 0.5) or 0.0 for _throw in range(4000)]
    long = []
    for _throw in range(4000):
        values = sorted(_draw.lognormal(dice, 1.0, 0.5) for _throw in range(50))
        long.append(values[math.ceil(0.95 * 50) - 1])
    assert statistics.fmean(short) == pytest.approx(statistics.fmean(long), rel=0.02)
    assert statistics.stdev(short) == pytest.approx(statistics.stdev(long), rel=0.08)
    assert _draw.quantile(dice, 0, 0.95, 1.0, 0.5) is None


def test_what_is_exposed_follows_from_shares_and_times() -> None:
    exposure = Exposure()
    exposure.add(100.0, 0.1)
    exposure.add(50.0, 0.5)
    traffic = Traffic(requests=20.0, users=1000, error_rate=0.01)
    assert exposure.requests(traffic) == pytest.approx(20 * 35)
    assert exposure.bad(traffic, Defect(errors=0.02)) == pytest.approx(14.0)
    assert exposure.bad(traffic, Defect(errors=0.02, from_share=0.2)) == pytest.approx(10.0)
    assert exposure.users(traffic) == pytest.approx(1000 * (1 - math.exp(-0.02 * 35)))
    sticky = Traffic(requests=20.0, users=1000, sticky=True)
    met = 0.1 * (1 - math.exp(-0.02 * 150)) + 0.4 * (1 - math.exp(-0.02 * 50))
    assert exposure.users(sticky) == pytest.approx(1000 * met)


@given(
    pieces=st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 1)), max_size=6),
    sticky=st.booleans(),
)
def test_no_more_users_are_met_than_there_are_or_than_requests(
    pieces: list[tuple[float, float]], sticky: bool
) -> None:
    exposure = Exposure()
    for seconds, share in pieces:
        exposure.add(seconds, share)
    traffic = Traffic(requests=3.0, users=200, sticky=sticky)
    most = min(200.0, exposure.requests(traffic))
    assert 0 <= exposure.users(traffic) <= most * (1 + 1e-9) + 1e-9


@pytest.mark.parametrize(
    ("strategy", "variables", "seconds"),
    [
        # One after the other; a target drains (5 s) and is installed (10 s).
        ("in_place", {}, 60.0),
        ("in_place", {"deploy_minimum_healthy_hosts": 2}, 30.0),
        ("in_place", {"deploy_minimum_healthy_hosts": "0%"}, 15.0),
        ("rolling", {"deploy_stages": [1, "100%"], "deploy_bake_time": "1m"}, 120.0),
        (
            "rolling",
            {
                "deploy_minimum_healthy_hosts": 0,
                "deploy_zonal": {"first_zone_monitor": "2m", "minimum_healthy_hosts_per_zone": 1},
            },
            # Two zones of two: one at a time in each, and two minutes between.
            180.0,
        ),
        # A canary (10 s); a share is moved (5 s) and watched; four others follow one by one, and
        # the traffic comes home (5 s).
        (
            "canary",
            {
                "deploy_schedule": {"canary": {"first": "20%", "then_after": "3m"}},
                "deploy_judge": False,
            },
            260.0,
        ),
        # With a judge that looks once a minute there is too little evidence after three; a person
        # resumes it after ten minutes, three times, until it has seen enough.
        (
            "canary",
            {"deploy_schedule": {"canary": {"first": "20%", "then_after": "3m"}}},
            260.0 + 3 * (600 + 180),
        ),
        # Among the targets: one, five minutes, then the others two at a time.
        (
            "canary",
            {"deploy_canary_targets": 1, "deploy_minimum_healthy_hosts": 2, "deploy_judge": False},
            15.0 + 300 + 30,
        ),
        ("blue_green", {}, 15.0),
    ],
)
def test_without_chance_the_time_is_that_of_the_rule(
    strategy: str, variables: dict[str, Any], seconds: float
) -> None:
    found = numbers(
        strategy, fleet={**EXACT, "targets": 4, "zones": 2}, variables={**variables}, interval=60
    )
    assert found["good"]["seconds"]["median"] == pytest.approx(seconds)
    assert found["good"]["succeeded"] == 1
    assert found["bad"] is None


def test_a_defect_that_targets_notice_is_stopped_by_the_rule_and_rolled_back() -> None:
    found = numbers(
        "rolling", fleet={**EXACT, "targets": 4}, defect={"hosts": 1, "errors": "50%"},
        variables={"deploy_minimum_healthy_hosts": 3},
    )["bad"]  # fmt: skip
    assert found["stopped_by"] == {"gates": 1.0}
    # The first target fails after 15 s; it had left the traffic, so no user met it.
    assert found["stopped_after"]["median"] == 15
    assert found["requests_exposed"]["mean"] == found["bad_requests"]["mean"] == 0
    assert found["rolled_back_after"]["median"] == 10
    assert found["lowest_in_service"] == 3


def test_the_judge_finds_what_no_target_notices() -> None:
    defect = {"errors": "10%"}
    fleet = {**EXACT, "targets": 4}
    judged = numbers("canary", fleet=fleet, defect=defect, runs=3)["bad"]
    assert judged["stopped_by"] == {"judge": 1.0}
    assert judged["cleared_after"]["median"] == 2
    # The traffic first, then the canary gets the revision back that it had.
    assert judged["rolled_back_after"]["median"] == 12
    assert judged["users_exposed"]["mean"] < 1500
    blind = numbers(
        "canary", fleet=fleet, defect=defect, noticed="10m", variables={"deploy_judge": False}
    )["bad"]  # fmt: skip
    assert blind["succeeded"] == 1
    # A tenth for ten minutes; while one after the other of four targets is away, all that are back
    # have the revision: nine tenths of 0, 1, 2 and 3 thirds of the traffic beside the canary's
    # tenth, for a quarter of a minute each; then all, while it comes home and until it is noticed.
    shares = [0.1 + 0.9 * done / 3 for done in range(4)]
    seconds = 0.1 * 600 + sum(15 * share for share in shares) + 5 + 600
    assert blind["requests_exposed"]["mean"] == pytest.approx(100 * seconds)
    assert blind["bad_requests"]["mean"] == pytest.approx(10 * seconds)
    rolling = numbers(
        "rolling", fleet=fleet, defect=defect, runs=3,
        variables={"deploy_judge": True, "deploy_stages": [1, "100%"], "deploy_bake_time": "5m"},
    )["bad"]  # fmt: skip
    assert rolling["stopped_by"] == {"judge": 1.0}
    assert rolling["stopped_after"]["p95"] < 320
    # It leaves the traffic at once, as far as the floor allows.
    assert rolling["cleared_after"]["p95"] < rolling["rolled_back_after"]["median"]


def test_a_defect_may_show_only_with_more_traffic() -> None:
    steps = [{"shift": "10%"}, {"bake": "5m"}, {"shift": "50%"}, {"bake": "5m"}]
    found = numbers(
        "canary", fleet={**EXACT, "targets": 4}, runs=2, variables={"deploy_schedule": steps},
        defect={"errors": "10%", "from_share": "30%"},
    )["bad"]  # fmt: skip
    assert found["stopped_by"] == {"judge": 1.0}
    assert found["stopped_after"]["median"] > 10 + 5 + 300 + 5


def test_the_same_seed_gives_the_same_numbers() -> None:
    given_: dict[str, Any] = {
        "fleet": {"targets": 6, "failure": "10%"},
        "variables": {"deploy_minimum_healthy_hosts": "50%"},
    }
    first = numbers("rolling", runs=20, seed=3, **given_)
    assert json.dumps(first) == json.dumps(numbers("rolling", runs=20, seed=3, **given_))
    assert first != numbers("rolling", runs=20, seed=4, **given_)


@settings(max_examples=60, deadline=None)
@given(
    targets=st.integers(1, 30),
    zones=st.integers(1, 3),
    minimum=st.integers(0, 100),
    stages=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    forks=st.integers(1, 12),
    failure=st.sampled_from([0.0, 0.1, 0.5]),
    zonal=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_floor_holds_and_it_comes_to_an_end(
    targets: int, zones: int, minimum: int, stages: list[int], forks: int, failure: float,
    zonal: bool, seed: int,
) -> None:  # fmt: skip
    scenario = parse_scenario(
        "rolling",
        fleet={"targets": targets, "zones": zones, "forks": forks, "failure": failure},
        variables={
            "deploy_minimum_healthy_hosts": f"{minimum}%", "deploy_stages": stages,
            "deploy_bake_time": 20, "deploy_zonal": zonal,
        },
    )  # fmt: skip
    floor = scenario.minimum.of(targets)
    if floor >= targets:
        with pytest.raises(PlanError):
            plan_of(scenario)
        return
    ended = run_hosts(scenario, plan_of(scenario), Defect(), rolled(seed))
    assert ended.seconds > 0
    # Only a way back may go below it, one target at a time.
    assert ended.lowest >= (floor - 1 if ended.found_by else floor)
    if failure == 0:
        assert (ended.found_by, ended.lowest >= floor) == ("", True)


TWO: dict[str, Any] = {
    "deploy_traffic_pools": {"blue": {}, "green": {}}, "deploy_judge": False,
    "deploy_schedule": [{"shift": "20%"}, {"bake": "60s"}],
}  # fmt: skip
ERRORS: dict[str, Any] = {
    "name": "errors", "type": "proxy", "metric": "error_rate", "pool": "green",
    "success": "< 5%", "interval": "5s",
}  # fmt: skip
SMOKE = {"name": "smoke", "type": "http", "url": "http://shop.example/", "interval": "5s"}


@pytest.mark.parametrize(
    ("gate", "given_", "stopped_by", "after"),
    [
        # What the load balancer counts is modelled: the first look only counts from there on.
        (ERRORS, {}, "gates", 5.0),
        ({**ERRORS, "pool": "blue"}, {}, "", None),
        ({**ERRORS, "initial_delay": "10s"}, {}, "gates", 15.0),
        ({**ERRORS, "failure_limit": 2}, {}, "gates", 15.0),
        ({**ERRORS, "dry_run": True}, {}, "", None),
        ({**ERRORS, "metric": "p95", "success": "< 0.25"}, {}, "gates", 5.0),
        ({**ERRORS, "metric": "errors", "baseline": "blue", "success": "< 2"}, {}, "gates", 5.0),
        # Others answer as is assumed, by the same limits.
        (SMOKE, {}, "", None),
        (SMOKE, {"asked": {"gate_finds": 1}}, "gates", 0.0),
        ({**SMOKE, "failure_limit": 3}, {"asked": {"gate_fails": 1}}, "gates", 15.0),
        ({**SMOKE, "count": 2, "failure_limit": 2}, {"asked": {"gate_fails": 1}}, "", None),
    ],
)
def test_gates_are_asked_by_their_own_rules(
    gate: dict[str, Any], given_: Any, stopped_by: str, after: float | None
) -> None:
    found = numbers(
        "blue_green", fleet={**EXACT, "targets": 4}, defect={"errors": "30%", "latency": 2},
        variables={**TWO, "deploy_gates": [gate]}, **given_,
    )["bad"]  # fmt: skip
    assert found["stopped_by"] == ({stopped_by: 1.0} if stopped_by else {})
    if after is not None:
        # Ten seconds of installing and five of shifting come before.
        assert found["stopped_after"]["median"] == pytest.approx(15.0 + after)


@pytest.mark.parametrize(
    ("rule", "asked", "stopped_by", "waits"),
    [
        ({}, {}, {"evidence": 1.0}, 4 * 30 + 3 * 600),
        ({}, {"approval_rejects": 1}, {"approval": 1.0}, 30 + 600),
        ({"deploy_on_inconclusive": "fail"}, {}, {"evidence": 1.0}, 30),
        ({"deploy_on_inconclusive": "ask"}, {}, {}, 30 + 600),
        ({"deploy_on_inconclusive": "ask"}, {"approval_rejects": 1}, {"approval": 1.0}, 630),
        (
            {"deploy_on_inconclusive": "extend", "deploy_inconclusive_extensions": 1}, {},
            {"evidence": 1.0}, 60,
        ),
    ],
)  # fmt: skip
def test_too_little_evidence_is_what_the_rule_makes_of_it(
    rule: dict[str, Any], asked: dict[str, Any], stopped_by: dict[str, float], waits: float
) -> None:
    # One request a second proves nothing in half a minute.
    variables = {**TWO, **rule, "deploy_schedule": [{"shift": "20%"}, {"bake": "30s"}]}
    found = numbers(
        "blue_green", fleet={**EXACT, "targets": 2}, traffic={"requests": 1}, asked=asked,
        variables={**variables, "deploy_judge": True},
    )["good"]  # fmt: skip
    assert found["stopped_by"] == stopped_by
    back_or_rest = 2 if stopped_by else 5
    assert found["seconds"]["median"] == pytest.approx(15 + waits + back_or_rest)


def events_of(found: dict[str, Any]) -> list[str]:
    """Return the logical events of the first run in short."""
    return [
        f"{'back ' * (one['deployment'] == 'rollback')}{one['event']} "
        f"{one['target'] or one['message'] or one['status']}"
        for one in found["trace"]
    ]


def test_canaries_of_a_pool_are_watched_and_then_the_fleet_rolls() -> None:
    given_: dict[str, Any] = {
        "fleet": {**EXACT, "targets": 2, "canaries": 1}, "defect": {"errors": "30%"},
        "variables": {**TWO, "deploy_judge": True, "deploy_minimum_healthy_hosts": 1,
                      "deploy_schedule": [{"shift": "20%"}, {"bake": "5m"}]},
    }  # fmt: skip
    found = numbers("canary", **given_)
    started = ["Admitted green-0001", "Settled green-0001"]
    watched = [
        "StepStarted 1. see the targets of green in service",
        "StepEnded 1. see the targets of green in service",
        "StepStarted 2. shift 20% of the traffic to green, 80% stays on blue",
        "TrafficRouted blue 80%, green 20%",
        "StepEnded 2. shift 20% of the traffic to green, 80% stays on blue",
        "StepStarted 3. bake for 5m",
    ]
    assert events_of(found["good"]) == [
        *started, *watched, "GatesDecided Pass", "StepEnded 3. bake for 5m",
        "Admitted blue-0001", "Settled blue-0001", "Admitted blue-0002", "Settled blue-0002",
        "StepStarted 4. bring all traffic back to blue", "TrafficRouted blue 100%, green 0%",
        "StepEnded 4. bring all traffic back to blue", "Finished Succeeded",
    ]  # fmt: skip
    assert found["good"]["lowest_in_service"] == 1
    assert events_of(found["bad"]) == [
        *started, *watched, "Halted GATE_FAILED", "GatesDecided Fail",
        "TrafficRouted blue 100%, green 0%", "StepEnded 3. bake for 5m", "Finished Failed",
        "back StepStarted 1. shift 100% of the traffic to blue",
        "back TrafficRouted blue 100%, green 0%",
        "back StepEnded 1. shift 100% of the traffic to blue",
        "back Admitted green-0001", "back Settled green-0001", "back Finished Succeeded",
    ]  # fmt: skip


def test_a_fleet_that_fails_after_its_canaries_brings_the_users_back_first() -> None:
    found = numbers(
        "canary", fleet={**EXACT, "targets": 3, "failure": "60%"}, runs=30,
        variables={**TWO, "deploy_minimum_healthy_hosts": 2},
    )["good"]  # fmt: skip
    assert found["stopped_by"]["hosts"] > 0.5
    assert found["lowest_in_service"] >= 1


def test_the_variables_of_a_group_may_be_given_as_they_are() -> None:
    group = {"deploy_application": "shop", "deploy_group": "web", "deploy_bake_time": "1m"}
    found = numbers("blue_green", variables=group)
    assert found["ignored"] == ["deploy_application", "deploy_group"]
    assert found["plan"]["schedule"][-1]["text"] == "bake for 1m"


def test_canaries_among_the_targets_are_judged_by_the_schedule() -> None:
    found = numbers(
        "canary", fleet={**EXACT, "targets": 4}, defect={"errors": "30%"},
        variables={"deploy_canary_targets": 1, "deploy_minimum_healthy_hosts": 2},
    )  # fmt: skip
    assert events_of(found["bad"]) == [
        "Admitted target-0001", "Settled target-0001", "StepStarted 1. bake for 5m",
        "Halted GATE_FAILED", "GatesDecided Fail", "StepEnded 1. bake for 5m", "Finished Failed",
        "back Admitted target-0001", "back Settled target-0001", "back Finished Succeeded",
    ]  # fmt: skip
    assert found["bad"]["stopped_by"] == {"judge": 1.0}
    assert [one for one in events_of(found["good"]) if "Admitted" in one] == [
        f"Admitted target-000{number}" for number in (1, 2, 3, 4)
    ]


@pytest.mark.parametrize(
    ("strategy", "given_", "words"),
    [
        ("shadow", {}, "'shadow' cannot be simulated"),
        ("rolling", {"variables": {"deploy_grop": "web"}}, "deploy_grop"),
        ("rolling", {"variables": {"deploy_schedule": "all_at_once"}}, "nothing for rolling"),
        ("in_place", {"variables": {"deploy_stages": [1]}}, "nothing for in_place"),
        ("canary", {"variables": {"deploy_bake_time": 5}}, "nothing for canary"),
        ("blue_green", {"variables": {"deploy_stages": [1]}}, "nothing for blue_green"),
        ("blue_green", {"variables": {"deploy_gates": [{"type": "tcp"}]}}, "needs port"),
        ("canary", {"variables": {"deploy_canary_targets": "100%"}}, "wanted are some of 10"),
        ("canary", {"variables": {"deploy_on_inconclusive": "wait"}}, "one of pause, extend, ask"),
        ("canary", {"variables": {"deploy_traffic_pools": {"a": {}}}}, "names two pools here"),
        ("canary", {"variables": {"deploy_schedule": "soon"}}, "deploy_schedule is 'soon'"),
        ("rolling", {"fleet": {"hosts": 3}}, "fleet has no 'hosts'"),
        ("rolling", {"fleet": {"targets": 0}}, "targets of fleet is 0"),
        ("rolling", {"fleet": {"targets": 1.5}}, "targets of fleet is 1.5"),
        ("rolling", {"fleet": {"failure": "120%"}}, "failure of fleet is '120%'"),
        ("rolling", {"traffic": {"sticky": "yes"}}, "sticky of traffic"),
        ("rolling", {"traffic": {"p95": "fast"}}, "p95 of traffic is 'fast'"),
        ("rolling", {"defect": {"errors": -1}}, "errors of defect is -1"),
        ("rolling", {"interval": 0}, "interval must be above 0"),
        (
            "canary",
            {"variables": {"deploy_judge": {"metrics": [{"name": "cpu", "kind": "level"}]}}},
            "kind is one of rate, series",
        ),
    ],
)
def test_what_cannot_be_simulated_is_said(strategy: str, given_: Any, words: str) -> None:
    with pytest.raises(UsageError) as refusal:
        parse_scenario(strategy, **given_)
    assert words in str(refusal.value)
