"""One zone at a time in the record: who may begin when, and when that fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._zonal import parse_zonal
from ansible_collections.bascule.deploy.plugins.plugin_utils._closing import close_deployment
from ansible_collections.bascule.deploy.plugins.plugin_utils._planning import FAILURE_EVENT
from support.records import create

if TYPE_CHECKING:
    from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Deployment, Record

NAMES = ["a1", "a2", "a3", "b1", "b2", "b3", "b4"]


def zoned(record: Record, **zonal: Any) -> Deployment:
    return create(record, NAMES, 1, zonal=parse_zonal(zonal), zone_of=lambda name: name[0])


def verdict(record: Record, deployment: Deployment, name: str, later: float = 0.0) -> str:
    now = deployment.created_at + 1000 + later
    return record.admit(deployment.id, name, now=now).verdict


def test_a_zone_is_done_and_watched_before_the_next_one(record: Record) -> None:
    deployment = zoned(record, first_zone_monitor="1h", monitor="5m")
    assert verdict(record, deployment, "b1") == "wait"
    for name in NAMES[:3]:
        assert verdict(record, deployment, name) == "admitted"
    for name in NAMES[:3]:
        waits = record.admit(deployment.id, "b1")
        assert (waits.verdict, "earlier stages are not decided" in waits.reason) == ("wait", True)
        record.settle(deployment.id, name, "Succeeded")
    ended = max(target.finished_at or 0.0 for target in record.targets(deployment.id))
    waits = record.admit(deployment.id, "b1")
    assert waits.verdict == "wait"
    assert waits.reason.startswith("zone a is watched for 3600 s before the next one, until ")
    assert waits.retry_at == pytest.approx(ended + 3600)
    assert record.admit(deployment.id, "b1", now=ended + 3599).verdict == "wait"
    assert record.admit(deployment.id, "b1", now=ended + 3601).verdict == "admitted"


def test_the_floor_of_a_zone_holds_beside_that_of_the_fleet(record: Record) -> None:
    deployment = zoned(record, minimum_healthy_hosts_per_zone=2)
    assert verdict(record, deployment, "a1") == "admitted"
    waits = record.admit(deployment.id, "a2")
    assert (waits.verdict, waits.slots) == ("wait", 0)
    assert "zone a: 3 targets, 0 failed, 1 in flight, 2 must stay healthy" in waits.reason
    for name in ("a1", "a2", "a3"):
        assert verdict(record, deployment, name) == "admitted"
        record.settle(deployment.id, name, "Succeeded")
    # Two at a time in the larger zone.
    assert [verdict(record, deployment, name) for name in NAMES[3:6]] == [
        "admitted", "admitted", "wait"
    ]  # fmt: skip
    record.settle(deployment.id, "b1", "Failed", error_code="ScriptFailed")
    assert verdict(record, deployment, "b3") == "wait"
    record.settle(deployment.id, "b2", "Failed", error_code="ScriptFailed")
    # The fleet could spare three more, the zone none.
    halted = record.admit(deployment.id, "b3")
    assert halted.verdict == "refused"
    assert halted.reason.startswith("HEALTH_CONSTRAINTS: no further target can be taken")
    assert "zone b: 4 targets, 2 failed" in halted.reason
    done = record.finish(deployment.id)
    assert (done.status, done.error_code) == ("Failed", "HEALTH_CONSTRAINTS")
    assert done.overview == {"Succeeded": 3, "Failed": 2, "Skipped": 2}


def test_a_zone_that_ends_below_its_floor_fails_the_deployment(record: Record) -> None:
    deployment = zoned(record, minimumHealthyHostsPerZone={"type": "FLEET_PERCENT", "value": 50})
    for name in NAMES[3:6]:
        record.settle(deployment.id, name, "Failed", error_code="HostLost")
    for name in NAMES[:3]:
        assert verdict(record, deployment, name) == "admitted"
        record.settle(deployment.id, name, "Succeeded")
    done = record.finish(deployment.id)
    assert (done.status, done.error_code) == ("Failed", "HEALTH_CONSTRAINTS")
    assert "Too few targets are healthy in zone b: 4 targets, 3 failed" in done.error_message


def test_a_way_back_is_not_held_by_the_floor_of_a_zone_nor_by_its_monitor(record: Record) -> None:
    endpoints = [
        {"target": name, "name": name, "address": "", "port": 0, "zone": name[0]} for name in NAMES
    ]
    options = {"rollback_on": [FAILURE_EVENT], "endpoints": endpoints}
    good = create(record, NAMES, 1, digest="g" * 64, options=options)
    for name in NAMES:
        record.note_current(good.id, name)
    assert record.finish(good.id).status == "Succeeded"
    deployment = create(
        record, NAMES, 1, zone_of=lambda name: name[0], options=options,
        zonal=parse_zonal({"minimum_healthy_hosts_per_zone": 2, "monitor": "1h"}),
    )  # fmt: skip
    for name in ("a1", "a2", "a3"):
        assert verdict(record, deployment, name) == "admitted"
        if name == "a2":
            # One of three at a time, as the zone's floor has it.
            assert verdict(record, deployment, "a3") == "wait"
        record.set_in_service(deployment.id, name, in_service=False)
        record.settle(deployment.id, name, "Succeeded" if name != "a3" else "Failed")
        if name != "a3":
            record.set_in_service(deployment.id, name, in_service=True)
    record.request_stop(deployment.id, rollback=True)
    closed = close_deployment(record, deployment.id)
    assert closed.rollback is not None
    assert closed.rollback.plan["zonal"] is None
    assert [one["name"] for one in closed.rollback.plan["targets"]] == ["a3", "a1", "a2"]
    # All three of the zone at once, and nothing is watched.
    for name in ("a3", "a1", "a2"):
        assert verdict(record, closed.rollback, name) == "admitted"
        record.settle(closed.rollback.id, name, "Succeeded")
    assert record.finish(closed.rollback.id).status == "Succeeded"
