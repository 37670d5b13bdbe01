"""One zone at a time: how it is written, planned, admitted and concluded."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._admission import (
    ADMIT,
    HALT,
    WAIT,
    Counts,
    Zone,
    conclude,
    decide,
)
from ansible_collections.bascule.deploy.plugins.module_utils._configuration import (
    parse_configuration,
    parse_stages,
)
from ansible_collections.bascule.deploy.plugins.module_utils._errors import PlanError, UsageError
from ansible_collections.bascule.deploy.plugins.module_utils._plan import (
    PlanTarget,
    make_plan,
    render_plan,
)
from ansible_collections.bascule.deploy.plugins.module_utils._zonal import Zonal, parse_zonal
from hypothesis import given
from hypothesis import strategies as st

DIGEST = "d" * 32


@pytest.mark.parametrize(
    ("written", "first", "monitor", "minimum_of_ten"),
    [
        (True, 0, 0, 0),
        ("yes", 0, 0, 0),
        ({"monitor": "5m"}, 300, 300, 0),
        ({"first_zone_monitor": "10m", "monitor": "5m"}, 600, 300, 0),
        ({"minimum_healthy_hosts_per_zone": "33%"}, 0, 0, 4),
        ({"minimum_healthy_hosts_per_zone": 7}, 0, 0, 7),
        (
            {
                "firstZoneMonitorDurationInSeconds": 90,
                "monitorDurationInSeconds": 30,
                "minimumHealthyHostsPerZone": {"type": "FLEET_PERCENT", "value": 50},
            },
            90, 30, 5,
        ),
    ],
)  # fmt: skip
def test_it_is_written_in_our_words_or_in_those_of_codedeploy(
    written: Any, first: float, monitor: float, minimum_of_ten: int
) -> None:
    read = parse_zonal(written)
    assert read is not None
    assert (read.first_monitor, read.monitor) == (first, monitor)
    assert read.minimum.of(10) == minimum_of_ten


@pytest.mark.parametrize("written", [None, "", False, "false", {}])
def test_nothing_is_no_zones(written: Any) -> None:
    assert parse_zonal(written) is None


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("perhaps", "deploy_zonal is 'perhaps'; wanted is a mapping"),
        ([1], "wanted is a mapping"),
        ({"watch": "5m"}, "Not 'watch'"),
        ({"monitor": "5m", "monitorDurationInSeconds": 3}, "is said twice"),
        ({"monitor": "soon"}, "monitor of deploy_zonal is 'soon'"),
        ({"minimum_healthy_hosts_per_zone": "OneAtATime"}, "must be a number or a share"),
        ({"minimum_healthy_hosts_per_zone": "half"}, "The minimum per zone of deploy_zonal"),
        ({"order": ["a", "a"]}, "each of them once"),
        ({"order": "a"}, "must be a list of zones"),
    ],
)
def test_what_cannot_be_read_is_named(written: Any, words: str) -> None:
    with pytest.raises(UsageError) as refusal:
        parse_zonal(written)
    assert words in str(refusal.value)


def test_a_configuration_is_read_as_codedeploy_describes_it() -> None:
    minimum, zonal = parse_configuration(
        {
            "deploymentConfigInfo": {
                "deploymentConfigName": "mine", "computePlatform": "Server", "createTime": 1.5,
                "minimumHealthyHosts": {"type": "FLEET_PERCENT", "value": 75},
                "zonalConfig": {"monitorDurationInSeconds": 60},
            }
        }
    )  # fmt: skip
    assert (minimum.of(8), zonal) == (6, {"monitorDurationInSeconds": 60})
    assert parse_configuration("CodeDeployDefault.HalfAtATime")[0].of(8) == 4
    assert parse_configuration({"type": "HOST_COUNT", "value": 3}) == (
        parse_configuration(3)[0],
        None,
    )
    assert parse_configuration({"minimumHealthyHosts": 3})[1] is None


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ({}, "wanted is a name or a mapping with minimumHealthyHosts"),
        ({"minimumHealthyHosts": {"type": "HOSTS", "value": 1}}, "minimumHealthyHosts of deploy_c"),
        ({"minimumHealthyHosts": 1, "speed": 3}, "Not speed."),
        ({"minimumHealthyHosts": 1, "computePlatform": "Lambda"}, "that is deploy_schedule"),
        (
            {"trafficRoutingConfig": {"type": "AllAtOnce"}},
            "for hosts that is deploy_schedule",
        ),
        ({"deploymentConfigInfo": "mine"}, "wanted is a name"),
    ],
)
def test_a_configuration_that_is_not_of_hosts_is_refused(written: Any, words: str) -> None:
    with pytest.raises(UsageError) as refusal:
        parse_configuration(written)
    assert words in str(refusal.value)


def plan(zonal: Zonal | None, stages: Any = ("100%",), **changes: Any) -> dict[str, Any]:
    targets = [
        PlanTarget("a1", "a", "Healthy", "o" * 32),
        PlanTarget("b1", "b", "Unhealthy"),
        PlanTarget("a2", "a", "Healthy", "o" * 32),
        PlanTarget("b2", "b", "Healthy", "o" * 32),
        PlanTarget("a3", "a", "Healthy", "o" * 32),
        PlanTarget("c1", "c", "Healthy", "o" * 32),
    ]
    given_: dict[str, Any] = {
        "digest": DIGEST, "minimum": 3, "bake_time": 7.0, "zonal": zonal,
        "stages": lambda number: parse_stages(stages, number), **changes,
    }  # fmt: skip
    return make_plan("rolling", given_.pop("targets", targets), **given_)


def test_the_zones_come_one_after_the_other() -> None:
    made = plan(Zonal(first_monitor=600.0, monitor=300.0), [1, "100%"], durations=[10.0])
    # The zone of the target that comes first is the first; in it goes the order of the plan.
    assert made["stages"] == [["b1"], ["b2"], ["a1"], ["a2", "a3"], ["c1"]]
    assert made["zonal"] == {
        "zones": [
            {"name": "b", "total": 2, "minimum_healthy": 0, "monitor": 600.0},
            {"name": "a", "total": 3, "minimum_healthy": 0, "monitor": 300.0},
            {"name": "c", "total": 1, "minimum_healthy": 0, "monitor": 0.0},
        ],
        "stages": [0, 0, 1, 1, 2],
        "waits": [7.0, 600.0, 7.0, 300.0, 0.0],
    }
    assert made["estimated_seconds"] == 5 * 10 + 914
    assert [target["stage"] for target in made["targets"]] == [0, 1, 2, 3, 3, 4]
    told = render_plan(made).splitlines()
    assert (
        "Zone b (1 of 3): 0 of 2 must stay healthy, watched for 10 min before the next one" in told
    )
    assert "Stage 1 of 5: 1 target, then 7 s of bake time" in told
    assert "Stage 2 of 5: 1 target" in told
    assert "Zone c (3 of 3): 0 of 1 must stay healthy" in told
    assert sum(line.startswith("Zone") for line in told) == 3


def test_an_order_of_the_user_comes_first() -> None:
    made = plan(Zonal(order=("c", "elsewhere", "a")))
    assert made["stages"] == [["c1"], ["a1", "a2", "a3"], ["b1", "b2"]]


def test_a_zone_counts_all_of_its_targets() -> None:
    """Also those that need nothing now."""
    half = parse_zonal({"minimum_healthy_hosts_per_zone": "50%"})
    made = plan(
        half, targets=[PlanTarget("a1", "a")], total=4, left_out=["a2", "a3", "b1"],
        zones={"a": 3, "b": 1},
    )  # fmt: skip
    assert made["zonal"]["zones"] == [
        {"name": "a", "total": 3, "minimum_healthy": 2, "monitor": 0.0}
    ]


def test_without_zones_nothing_changes() -> None:
    made = plan(None)
    assert made["zonal"] is None
    assert made["stages"] == [["b1", "a1", "a2", "b2", "a3", "c1"]]
    assert "Zone" not in render_plan(made)


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(PlanError, match="of some the zone is not known: x, y"):
        plan(Zonal(), targets=[PlanTarget("x"), PlanTarget("w", "a"), PlanTarget("y")], minimum=0)
    one = parse_zonal({"minimum_healthy_hosts_per_zone": 1})
    with pytest.raises(PlanError, match="HEALTH_CONSTRAINTS_INVALID: 1 of the 1 targets of zone c"):
        plan(one)


@pytest.mark.parametrize(
    ("zone", "verdict", "slots"),
    [
        (Counts(total=4), ADMIT, 2),
        (Counts(total=4, in_flight=1), ADMIT, 1),
        (Counts(total=4, in_flight=2), WAIT, 0),
        (Counts(total=4, failed=1, in_flight=1), WAIT, 0),
        (Counts(total=4, failed=2), HALT, 0),
        # There the fleet is the narrower one.
        (Counts(total=40), ADMIT, 5),
    ],
)
def test_the_narrower_floor_decides(zone: Counts, verdict: str, slots: int) -> None:
    fleet = Counts(total=20, pending=9, in_flight=zone.in_flight, failed=zone.failed)
    decision = decide(fleet, 15, zone=Zone("a", zone, 2))
    assert (decision.verdict, decision.slots) == (verdict, slots)
    assert ("zone a: " in decision.reason) == (slots < 5)
    if verdict == HALT:
        assert decision.error_code in ("HEALTH_CONSTRAINTS", "HEALTH_CONSTRAINTS_INVALID")
    # A way back goes by the floor of the fleet.
    assert decide(fleet, 0, "rollback", zone=Zone("a", zone, 4)).verdict == ADMIT


def test_a_zone_below_its_floor_fails_the_deployment() -> None:
    fleet = Counts(total=20, succeeded=17, failed=3)
    good, bad = Zone("a", Counts(total=10, failed=1), 9), Zone("b", Counts(total=10, failed=2), 9)
    assert conclude(fleet, 10, zones=[good]).status == "Succeeded"
    outcome = conclude(fleet, 10, zones=[good, bad])
    assert (outcome.status, outcome.error_code) == ("Failed", "HEALTH_CONSTRAINTS")
    assert "in zone b: 10 targets, 2 failed" in outcome.message


@given(
    zones=st.lists(st.sampled_from("abc"), min_size=1, max_size=12),
    stages=st.lists(st.integers(1, 3), max_size=3),
    order=st.permutations("abcd"),
)
def test_every_target_is_in_a_stage_of_its_own_zone(
    zones: list[str], stages: list[int], order: list[str]
) -> None:
    targets = [PlanTarget(f"{zone}{place}", zone) for place, zone in enumerate(zones)]
    made = plan(Zonal(order=tuple(order)), stages, targets=targets, minimum=0)
    seen = [name for stage in made["stages"] for name in stage]
    assert sorted(seen) == sorted(target.name for target in targets)
    for stage, number in zip(made["stages"], made["zonal"]["stages"], strict=True):
        assert {name[0] for name in stage} == {made["zonal"]["zones"][number]["name"]}
    assert made["zonal"]["stages"] == sorted(made["zonal"]["stages"])
    assert [zone["name"] for zone in made["zonal"]["zones"]] == [z for z in order if z in zones]
