"""Deployments of Lambda functions: published, checked, shifted under load, and brought back."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._notifications import EVENTS
from support import function_site
from support.function_site import (
    RETURNS,
    FunctionSite,
    Users,
    shares,
    within_binomial,
)
from support.lambda_plane import package
from support.ports import free_port
from support.receiver import receiving
from support.rollout import BIN, ROOT, kill_controller

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
    plane.settings(provision=1.5)
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
    # Before its first share the new version was provisioned, which takes a while.
    assert [one["provisioned"] for one in plane.log()["aliases"]] == 3 * [{"2": "READY"}]
    assert not [one for one in users.seen if one["failed"]]
    # An invocation that was under way at a change may have gone by either.
    for (begin, share), (end, _next) in itertools.pairwise(moved):
        seen = [one["version"] for one in users.seen if begin <= one["at"] and one["until"] <= end]
        assert within_binomial(seen.count("2"), len(seen), share["2"] / 100), (share, len(seen))
    assert {one["version"] for one in users.seen if one["until"] < moved[0][0]} == {"1"}
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
    # The package of what was left may be gone forward to, and is kept.
    version = plane.client("lambda").get_function_configuration(FunctionName="greet", Qualifier="2")
    with closing(site.controller.record()) as record:
        assert version["CodeSha256"] in record.needed_packages()


def test_a_bad_version_is_found_by_its_metrics_and_the_old_one_comes_back_alone(
    plane: LambdaPlane, tmp_path: Path
) -> None:
    site = FunctionSite(plane, tmp_path, ["greet"])
    judge = {"interval": "1s", "metrics": [{"name": "errors", "kind": "rate", "critical": True}]}
    with Users(plane, ["greet"]) as users, receiving() as receiver:
        channel = {"type": "webhook", "url": receiver.url, "format": "json", "events": list(EVENTS)}
        run = site.controller.playbook(
            "blue_green",
            deploy_revision=site.revision("2", errors=0.5),
            deploy_schedule=[{"shift": "50%"}, {"bake": "300s"}],
            deploy_judge=judge,
            deploy_notifications=[channel],
        )
        assert run.status == 2, run.said
        # Who tells may do so when the deployment is over.
        site.wait(lambda: len(receiver.bodies) >= 8, "everything is told")
        told = [one["event"] for one in receiver.bodies]
    assert {one["version"] for one in users.seen if one["failed"]} == {"2"}
    # The old version has everything again, the new one is kept to be looked at.
    assert plane.alias("greet") == ("1", {})
    assert plane.invoke("greet", qualifier="2")["version"] == "2"
    rollback, failed = site.controller.deployments()
    assert (failed.status, failed.error_code) == ("Failed", "GATE_FAILED")
    assert "The critical metric errors is bad" in failed.error_message
    assert (rollback.status, rollback.rollback_of) == ("Succeeded", failed.id)
    assert [share for _at, share in shares(plane, "greet")] == [{"1": 50, "2": 50}, {"1": 100}]
    # The record has all of it: the look that decided, the step, the target, where it stands now.
    with closing(site.controller.record()) as record:
        [looks] = [one for one in record.gate_runs(failed.id) if one.verdict]
        decided = record.gate_decisions(failed.id, looks.step)
        steps = [(step.kind, step.status) for step in record.steps(failed.id)]
        routed = [change.after["weights"] for change in record.routing_changes(failed.id)
                  if change.after]  # fmt: skip
        [state] = record.target_states("shop", "targets").values()
        [version] = record.functions(failed.id).values()
    arms = [one.data["result"]["metrics"][0] for one in decided if "result" in one.data]
    assert arms[-1]["state"] == "Bad"
    assert looks.verdict == "Fail"
    assert steps == [("shift", "Succeeded"), ("bake", "Failed"), ("shift", "Skipped")]
    assert routed == [{"old": 50, "new": 50}, {"old": 100, "new": 0}]
    assert (state.health, state.digest) == ("Healthy", rollback.revision.digest)
    assert (version.old_version, version.version) == ("1", "2")
    target = site.controller.targets(failed.id)["greet"]
    assert (target.status, target.error_code) == ("Failed", "GATE_FAILED")
    assert told == [
        "DeploymentStart", "InstanceStart", "InstanceReady", "InstanceFailure", "DeploymentFailure",
        "DeploymentRollback", "DeploymentStart", "DeploymentSuccess",
    ]  # fmt: skip


def test_the_first_deployment_of_the_documentation_works_as_it_is_written(
    plane: LambdaPlane, tmp_path: Path
) -> None:
    plane.create("greet", package("1"))
    page = (ROOT / "docs" / "lambda.md").read_text()
    part = page.partition("## A first deployment\n")[2].partition("\n## ")[0]
    script = "".join(
        line.removeprefix("    ") for line in part.splitlines(keepends=True) if line[:4] == "    "
    )
    assert script.count("bascule ") == 3
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", script], cwd=tmp_path, check=False, text=True,
        env={
            **os.environ, **plane.environment, "BASCULE_STATE": str(tmp_path / "state"),
            "PATH": f"{BIN}:{os.environ['PATH']}",
        },
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "version 1 (100%) of live now; changes: code" in done.stdout
    assert [share for _at, share in shares(plane, "greet")] == [
        {"1": 90, "2": 10}, {"2": 100}, {"1": 100},
    ]  # fmt: skip
    assert plane.invoke("greet", qualifier="2")["payload"] == {"greeting": "hello", "version": "2"}


def test_an_ab_test_ends_when_the_new_variant_is_shown_to_be_better(
    plane: LambdaPlane, tmp_path: Path
) -> None:
    site = FunctionSite(plane, tmp_path, ["greet"], errors=0.5)
    goal = {"name": "errors", "kind": "rate", "better": "less", "interval": "1s"}
    with Users(plane, ["greet"]) as users:
        run = site.controller.playbook(
            "ab_test",
            deploy_revision=site.revision("2"),
            deploy_ab_test={"split": "40%", "duration": "1h", "goal": goal},
        )
    assert run.status == 0, run.said
    moved = shares(plane, "greet")
    assert [share for _at, share in moved] == [{"1": 60, "2": 40}, {"2": 100}]
    between = [
        one for one in users.seen if moved[0][0] <= one["at"] and one["until"] <= moved[1][0]
    ]
    seen = [one["version"] for one in between]
    assert within_binomial(seen.count("2"), len(seen), 0.4), len(seen)
    assert {one["version"] for one in users.seen if one["failed"]} == {"1"}
    [deployment] = site.controller.deployments()
    with closing(site.controller.record()) as record:
        steps = record.steps(deployment.id)
        [asked] = record.gate_runs(deployment.id)
        last = record.gate_decisions(deployment.id, asked.step)[-2]
    assert [(step.kind, step.status) for step in steps] == [
        ("shift", "Succeeded"), ("bake", "Succeeded"), ("shift", "Succeeded"),
    ]  # fmt: skip
    # What each variant has done is told, and is in the record with what it was made from.
    assert "new is better. errors: new 0 of " in asked.message
    assert last.data["ab_test"]["winner"] == "canary"
    assert all(share > 0 for share in last.data["look"]["assignments"].values())


def bakes(site: FunctionSite) -> list[float]:
    """Return until when the steps of the newest deployment bake, those that have begun."""
    newest = site.controller.deployments()[0]
    with closing(site.controller.record()) as record:
        return [one.until for one in record.gate_runs(newest.id)]


def test_several_functions_in_order_with_one_abort_and_a_crash(
    plane: LambdaPlane, tmp_path: Path
) -> None:
    site = FunctionSite(plane, tmp_path, ["cart", "order"])
    site.hook("check", RETURNS, STATUS="Succeeded")
    hooks = {"BeforeAllowTraffic": "check", "AfterAllowTraffic": "check"}
    process = site.begin(
        "canary",
        deploy_revision=site.revision("2"),
        deploy_schedule=[{"shift": "20%"}, {"bake": "6s"}],
        deploy_lambda_order="in_order",
        deploy_lambda_hooks=hooks,
    )
    try:
        site.wait(lambda: plane.alias("order") == ("1", {"2": 0.2}), "order at 20%")
        site.wait(lambda: len(bakes(site)) == 2, "the bake of order")
    finally:
        kill_controller(process, site.controller.state)
    assert plane.alias("cart") == ("2", {})
    [left] = site.controller.deployments()
    assert left.status == "InProgress"
    # Who has its traffic has succeeded; who has not, has not.
    targets = site.controller.targets(left.id)
    assert [targets[name].status for name in site.functions] == ["Succeeded", "InProgress"]
    until = bakes(site)
    resumed = site.controller.command(
        "resume", left.id, "-i", str(site.controller.inventory),
        *(part for name, value in site.controller.variables.items()
          for part in ("-e", json.dumps({name: value}))),
        "-e", json.dumps({"deploy_revision": str(site.revision("2"))}),
        "-e", json.dumps({"deploy_lambda_order": "in_order", "deploy_lambda_hooks": hooks}),
    )  # fmt: skip
    assert resumed.status == 0, resumed.said
    # Nothing was done twice, and the schedule went on where it stood.
    assert [share for _at, share in shares(plane, "cart")] == [{"1": 80, "2": 20}, {"2": 100}]
    moved = shares(plane, "order")
    assert [share for _at, share in moved] == [{"1": 80, "2": 20}, {"2": 100}]
    assert moved[1][0] - moved[0][0] >= 6
    assert moved[0][0] >= shares(plane, "cart")[1][0]
    assert bakes(site) == until, "the bake was begun anew"
    happened = [
        (one.target, one.event) if one.kind == "lifecycle" else one.message
        for one in site.controller.events(left.id)
        if one.kind == "lifecycle" or one.event == "TrafficRouted"
    ]
    assert happened == [
        ("cart", "BeforeAllowTraffic"), "new 10%, old 90%", "new 50%, old 50%",
        ("cart", "AfterAllowTraffic"),
        ("order", "BeforeAllowTraffic"), "new 60%, old 40%", "new 100%, old 0%",
        ("order", "AfterAllowTraffic"),
    ]  # fmt: skip
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
