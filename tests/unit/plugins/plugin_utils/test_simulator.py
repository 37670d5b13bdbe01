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
        # All at once, behind the traffic; then a share is moved, watched, and the rest follows.
        ("canary", {"deploy_schedule": {"canary": {"first": "20%", "then_after": "3m"}}}, 200.0),
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
    assert judged["cleared_after"]["median"] == judged["rolled_back_after"]["median"] == 2
    assert judged["users_exposed"]["mean"] < 1500
    blind = numbers(
        "canary", fleet=fleet, defect=defect, noticed="10m", variables={"deploy_judge": False}
    )["bad"]  # fmt: skip
    assert blind["succeeded"] == 1
    # A tenth for ten minutes and a shift, all until somebody notices.
    assert blind["requests_exposed"]["mean"] == pytest.approx(100 * (0.1 * 605 + 600))
    assert blind["bad_requests"]["mean"] == pytest.approx(10 * (0.1 * 605 + 600))
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


@pytest.mark.parametrize(
    ("strategy", "given_", "words"),
    [
        ("shadow", {}, "'shadow' cannot be simulated"),
        ("rolling", {"variables": {"deploy_group": "web"}}, "does not know deploy_group"),
        ("rolling", {"variables": {"deploy_schedule": "all_at_once"}}, "nothing for rolling"),
        ("in_place", {"variables": {"deploy_stages": [1]}}, "nothing for in_place"),
        ("canary", {"variables": {"deploy_stages": [1]}}, "nothing for canary"),
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
