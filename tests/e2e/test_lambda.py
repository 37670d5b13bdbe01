"""Deployments of Lambda functions: published, checked, shifted under load, and brought back."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

import pytest
from support import function_site
from support.function_site import (
    RETURNS,
    FunctionSite,
    Users,
    free_port,
    kill_session,
    shares,
    within_binomial,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.lambda_plane import LambdaPlane

CALLS = """
import os, boto3

def handler(event, context):
    boto3.client("codedeploy").put_lifecycle_event_hook_execution_status(
        deploymentId=event["DeploymentId"],
        lifecycleEventHookExecutionId=event["LifecycleEventHookExecutionId"],
        status="Succeeded")
    return "done"
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LambdaPlane]:
    with function_site.running(tmp_path_factory.mktemp("plane")) as plane:
        yield plane


@pytest.fixture
def plane(service: LambdaPlane) -> LambdaPlane:
    service.reset()
    return service


def test_a_canary_under_load_with_hooks_of_both_kinds(plane: LambdaPlane, tmp_path: Path) -> None:
    site = FunctionSite(plane, tmp_path, ["greet"])
    port = free_port()
    site.hook("before", RETURNS, STATUS="Succeeded")
    site.hook("after", CALLS, AWS_ENDPOINT_URL_CODEDEPLOY=f"http://127.0.0.1:{port}")
    with Users(plane, ["greet"]) as users:
        run = site.controller.playbook(
            "canary",
            deploy_revision=site.revision("2"),
            deploy_schedule=[{"shift": "30%"}, {"bake": "4s"}, {"shift": "60%"}, {"bake": "1s"}],
            deploy_lambda_hooks={"BeforeAllowTraffic": "before", "AfterAllowTraffic": "after"},
            deploy_lambda_hook_listen=f"127.0.0.1:{port}",
            deploy_lambda_configuration={"environment": {"GREETING": "not-to-be-told"}},
            deploy_lambda_provisioned_concurrency=1,
        )
    assert run.status == 0, run.said
    moved = shares(plane, "greet")
    assert [share for _at, share in moved] == [
        {"1": 70, "2": 30}, {"1": 40, "2": 60}, {"2": 100},
    ]  # fmt: skip
    assert moved[1][0] - moved[0][0] >= 4
    assert moved[2][0] - moved[1][0] >= 1
    assert not [one for one in users.seen if one["failed"]]
    # An invocation that began just before a change may still go by the weights before.
    for (begin, share), (end, _next) in itertools.pairwise(moved):
        seen = [one["version"] for one in users.seen if begin + 0.5 <= one["at"] <= end - 0.5]
        assert within_binomial(seen.count("2"), len(seen), share["2"] / 100), (share, len(seen))
    assert {one["version"] for one in users.seen if one["at"] < moved[0][0] - 0.5} == {"1"}
    deployment = site.controller.deployments()[0]
    assert deployment.status == "Succeeded"
    assert site.controller.targets(deployment.id)["greet"].status == "Succeeded"
    events = [(one.event, one.status) for one in site.controller.events(deployment.id)]
    assert ("BeforeAllowTraffic", "Succeeded") in events
    assert ("AfterAllowTraffic", "Succeeded") in events
    assert plane.invoke("greet")["payload"]["greeting"] == "not-to-be-told"
    assert "not-to-be-told" not in run.said + site.everything_written()
    told = plane.client("lambda").get_provisioned_concurrency_config(
        FunctionName="greet", Qualifier="2"
    )
    assert told["Status"] == "READY"
    again = site.controller.playbook(
        "in_place",
        deploy_revision=site.revision("2"),
        deploy_lambda_hooks={"BeforeAllowTraffic": "before", "AfterAllowTraffic": "after"},
    )
    assert again.status == 0, again.said
    assert len(shares(plane, "greet")) == 3
    back = site.controller.playbook("rollback")
    assert back.status == 0, back.said
    assert plane.alias("greet") == ("1", {})
    assert plane.invoke("greet")["payload"]["greeting"] == ""


def test_a_bad_version_is_found_by_its_metrics_and_the_old_one_comes_back_alone(
    plane: LambdaPlane, tmp_path: Path
) -> None:
    site = FunctionSite(plane, tmp_path, ["greet"])
    gate = {"type": "proxy", "metric": "error_rate", "pool": "new", "failure": "> 5%"}
    with Users(plane, ["greet"]) as users:
        run = site.controller.playbook(
            "blue_green",
            deploy_revision=site.revision("2", errors=0.5),
            deploy_schedule=[{"shift": "50%"}, {"bake": "2s"}, {"gate": gate}],
        )
    assert run.status == 2, run.said
    assert {one["version"] for one in users.seen if one["failed"]} == {"2"}
    # The old version has everything again, the new one is kept to be looked at.
    assert plane.alias("greet") == ("1", {})
    assert plane.invoke("greet", qualifier="2")["version"] == "2"
    rollback, failed = site.controller.deployments()
    assert (failed.status, failed.error_code) == ("Failed", "GATE_FAILED")
    assert "error_rate" in failed.error_message
    assert (rollback.status, rollback.rollback_of) == ("Succeeded", failed.id)
    assert [share for _at, share in shares(plane, "greet")] == [{"1": 50, "2": 50}, {"1": 100}]


def test_several_functions_in_order_with_one_abort_and_a_crash(
    plane: LambdaPlane, tmp_path: Path
) -> None:
    site = FunctionSite(plane, tmp_path, ["cart", "order"])
    process = site.begin(
        "canary",
        deploy_revision=site.revision("2"),
        deploy_schedule=[{"shift": "20%"}, {"bake": "4s"}],
        deploy_lambda_order="in_order",
    )
    try:
        site.wait(lambda: plane.alias("order") == ("1", {"2": 0.2}), "order at 20%")
    finally:
        kill_session(process)
    assert plane.alias("cart") == ("2", {})
    [left] = site.controller.deployments()
    assert left.status == "InProgress"
    resumed = site.controller.command(
        "resume", left.id, "-i", str(site.controller.inventory),
        *(part for name, value in site.controller.variables.items()
          for part in ("-e", json.dumps({name: value}))),
        "-e", json.dumps({"deploy_revision": str(site.revision("2"))}),
        "-e", json.dumps({"deploy_lambda_order": "in_order"}),
    )  # fmt: skip
    assert resumed.status == 0, resumed.said
    # Nothing was done twice, and the schedule went on where it stood.
    assert [share for _at, share in shares(plane, "cart")] == [{"1": 80, "2": 20}, {"2": 100}]
    moved = shares(plane, "order")
    assert [share for _at, share in moved] == [{"1": 80, "2": 20}, {"2": 100}]
    assert moved[1][0] - moved[0][0] >= 4
    assert moved[0][0] >= shares(plane, "cart")[1][0]
    run = site.controller.playbook(
        "canary",
        deploy_revision=site.revision("3"),
        deploy_schedule=[{"shift": "20%"}, {"gate": {"type": "command", "command": "false"}}],
    )
    assert run.status == 2, run.said
    for function in site.functions:
        assert plane.alias(function) == ("2", {})
        assert [share for _at, share in shares(plane, function)][2:] == [
            {"2": 80, "3": 20}, {"2": 100},
        ]  # fmt: skip
