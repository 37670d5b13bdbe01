"""Every predefined configuration of Lambda on a fast clock, bad versions, and strangers' hands.

``make test-lambda`` runs these; each is a whole run of a playbook.
"""

from __future__ import annotations

import itertools
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._notifications import EVENTS
from ansible_collections.bascule.deploy.plugins.module_utils._schedule import (
    NAMES,
    parse_schedule,
)
from support import function_site
from support.function_site import (
    RETURNS,
    SILENT,
    FunctionSite,
    Users,
    shares,
)
from support.lambda_plane import ALIAS, LambdaPlane
from support.ports import free_port
from support.receiver import receiving
from support.rollout import kill_controller

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# A minute of a configuration is a second here.
FAST = 1 / 60


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LambdaPlane]:
    with function_site.running(tmp_path_factory.mktemp("plane")) as plane:
        yield plane


@pytest.fixture
def plane(service: LambdaPlane) -> LambdaPlane:
    service.reset()
    return service


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("Lambda")])
def test_weights_over_time_are_those_of_the_configuration(
    plane: LambdaPlane, tmp_path: Path, name: str
) -> None:
    site = FunctionSite(plane, tmp_path, ["greet"])
    schedule = parse_schedule(f"CodeDeployDefault.{name}")
    fast = [
        {**step, "seconds": step["seconds"] * FAST} if step["kind"] == "bake" else step
        for step in schedule
    ]
    with Users(plane, ["greet"], workers=1) as users:
        run = site.controller.playbook(
            "canary", deploy_revision=site.revision("2"), deploy_schedule=fast
        )
    assert run.status == 0, run.said
    moved = shares(plane, "greet")
    wanted = [step["share"] for step in schedule if step["kind"] == "shift"]
    assert [share.get("2", 0) for _at, share in moved] == wanted
    assert [share.get("1", 0) for _at, share in moved] == [100 - share for share in wanted]
    bakes = [step["seconds"] for step in fast if step["kind"] == "bake"]
    gaps = [later[0] - sooner[0] for sooner, later in itertools.pairwise(moved)]
    assert all(gap >= bake for gap, bake in zip(gaps, bakes, strict=True))
    assert not [one for one in users.seen if one["failed"]]


@pytest.mark.parametrize(
    "found_by", ["metrics", "alarm", "hook before", "hook after", "silent hook after"]
)
def test_a_bad_version_is_found_and_the_old_one_comes_back_alone(
    plane: LambdaPlane, tmp_path: Path, found_by: str
) -> None:
    site = FunctionSite(plane, tmp_path, ["greet"])
    event = "BeforeAllowTraffic" if found_by == "hook before" else "AfterAllowTraffic"
    more: dict[str, Any] = {"deploy_lambda_hooks": {event: "check"}}
    alarms = plane.client("cloudwatch")
    if found_by == "alarm":
        alarms.put_metric_alarm(
            AlarmName="greet-is-ill", MetricName="Errors", Namespace="AWS/Lambda", Period=60,
            EvaluationPeriods=1, Threshold=1, ComparisonOperator="GreaterThanThreshold",
            Statistic="Sum",
        )  # fmt: skip
        alarms.set_alarm_state(AlarmName="greet-is-ill", StateValue="OK", StateReason="a test")
        more = {
            "deploy_alarms": ["greet-is-ill"],
            "deploy_alarms_interval": "1s",
            "deploy_rollback_on": ["DEPLOYMENT_STOP_ON_ALARM"],
        }
    elif found_by == "metrics":
        gate = {"type": "proxy", "metric": "error_rate", "pool": "new", "failure": "> 5%"}
        more = {"deploy_gates": [{**gate, "interval": "1s", "failure_limit": 2}]}
    elif found_by == "silent hook after":
        site.hook("check", SILENT)
        more["deploy_lambda_hook_listen"] = f"127.0.0.1:{free_port()}"
        more["deploy_lambda_hook_timeout"] = "2s"
    else:
        site.hook("check", RETURNS, STATUS="Failed")
    bake = "1s" if "hook" in found_by else "60s"
    with Users(plane, ["greet"]) as users, receiving() as receiver:
        channel = {"type": "webhook", "url": receiver.url, "format": "json", "events": list(EVENTS)}
        process = site.begin(
            "blue_green",
            deploy_revision=site.revision("2", errors=0.5),
            deploy_schedule=[{"shift": "50%"}, {"bake": bake}],
            deploy_notifications=[channel],
            **more,
        )
        try:
            if found_by == "alarm":
                site.wait(lambda: plane.alias("greet") == ("1", {"2": 0.5}), "greet at 50%")
                alarms.set_alarm_state(
                    AlarmName="greet-is-ill", StateValue="ALARM", StateReason="a test"
                )
            assert process.wait(timeout=function_site.DEADLINE) == 2
        finally:
            kill_controller(process, site.controller.state)
    said = (site.folder / "begun.log").read_text()
    assert plane.alias("greet") == ("1", {}), said
    assert plane.invoke("greet", qualifier="2")["version"] == "2"
    assert {one["version"] for one in users.seen if one["failed"]} <= {"2"}
    failed = next(one for one in site.controller.deployments() if not one.rollback_of)
    rollbacks = [one for one in site.controller.deployments() if one.rollback_of]
    moved = [share for _at, share in shares(plane, "greet")]
    ended = "DeploymentStop" if found_by == "alarm" else "DeploymentFailure"
    back = ["DeploymentRollback", "DeploymentStart", "DeploymentSuccess"]
    assert [one["event"] for one in receiver.bodies] == [
        "DeploymentStart", "InstanceStart", "InstanceReady", "InstanceFailure", ended,
        *([] if found_by == "hook before" else back),
    ]  # fmt: skip
    target = site.controller.targets(failed.id)["greet"]
    assert (target.status, target.error_code) == ("Failed", failed.error_code)
    hooks = [
        (one.event, one.status, one.error_code)
        for one in site.controller.events(failed.id)
        if one.kind == "lifecycle"
    ]
    failed_hook = [(event, "Failed", "HOOK_EXECUTION_FAILURE")] if "hook" in found_by else []
    assert hooks == failed_hook
    if found_by == "hook before":
        assert (failed.status, moved, rollbacks) == ("Failed", [], [])
        assert "check answered Failed" in failed.error_message
        return
    assert [(one.status, one.rollback_of) for one in rollbacks] == [("Succeeded", failed.id)], said
    assert moved[0] == {"1": 50, "2": 50}
    assert moved[-1] == {"1": 100}
    wanted = {
        "metrics": ("Failed", "(3 of "),
        "alarm": ("Stopped", "greet-is-ill"),
        "hook after": ("Failed", "check answered Failed"),
        "silent hook after": ("Failed", "did not answer within 2 s"),
    }
    assert failed.status == wanted[found_by][0]
    assert wanted[found_by][1] in failed.error_message


def test_a_judge_passes_a_good_version(plane: LambdaPlane, tmp_path: Path) -> None:
    site = FunctionSite(plane, tmp_path, ["greet"])
    # So few requests show no more than that.
    metric = {"name": "errors", "kind": "rate", "critical": True, "tolerance": 0.1}
    with Users(plane, ["greet"], workers=4) as users:
        run = site.controller.playbook(
            "canary",
            deploy_revision=site.revision("2"),
            deploy_schedule=[{"shift": "50%"}, {"bake": "20s"}],
            deploy_judge={"interval": "1s", "metrics": [metric]},
            deploy_on_inconclusive="extend",
            deploy_inconclusive_extensions=20,
        )
    assert run.status == 0, run.said
    assert plane.alias("greet") == ("2", {})
    assert not [one for one in users.seen if one["failed"]]
    [deployment] = site.controller.deployments()
    with closing(site.controller.record()) as record:
        [looked] = record.gate_runs(deployment.id)
        results = [
            one.data["result"]
            for one in record.gate_decisions(deployment.id, looked.step)
            if "result" in one.data
        ]
    assert looked.verdict == results[-1]["verdict"] == "Pass"
    assert not results[-1]["sample_ratio"]["alarm"]
    replayed = site.controller.command("judge", "replay", deployment.id)
    assert replayed.status == 0, replayed.said


def test_without_provisioned_concurrency_nothing_is_shifted(
    plane: LambdaPlane, tmp_path: Path
) -> None:
    site = FunctionSite(plane, tmp_path, ["greet"])
    plane.settings(provision=1.0, failing_provision="2")
    run = site.controller.playbook(
        "canary", deploy_revision=site.revision("2"), deploy_lambda_provisioned_concurrency=5
    )
    assert run.status == 2, run.said
    assert shares(plane, "greet") == []
    [deployment] = site.controller.deployments()
    target = site.controller.targets(deployment.id)["greet"]
    assert (deployment.status, target.status) == ("Failed", "Failed")
    assert "There are no more instances" in target.message
    assert "There are no more instances" in run.said
    client = plane.client("lambda")
    with pytest.raises(client.exceptions.ProvisionedConcurrencyConfigNotFoundException):
        client.get_provisioned_concurrency_config(FunctionName="greet", Qualifier="2")


def test_an_ab_test_goes_back_when_the_present_variant_is_better(
    plane: LambdaPlane, tmp_path: Path
) -> None:
    site = FunctionSite(plane, tmp_path, ["greet"])
    goal = {"name": "errors", "kind": "rate", "interval": "1s"}
    with Users(plane, ["greet"]) as users:
        run = site.controller.playbook(
            "ab_test", deploy_revision=site.revision("2", errors=0.5),
            deploy_ab_test={"duration": "1h", "goal": goal},
        )  # fmt: skip
    assert run.status == 2, run.said
    assert [share for _at, share in shares(plane, "greet")] == [{"1": 50, "2": 50}, {"1": 100}]
    assert {one["version"] for one in users.seen if one["failed"]} == {"2"}
    rollback, lost = site.controller.deployments()
    assert (lost.status, rollback.status) == ("Failed", "Succeeded")
    assert "old is better. errors: new " in lost.error_message


@pytest.mark.parametrize("answer", ["approve", "continue", "reject", "nothing"])
def test_a_person_decides_an_ab_test(plane: LambdaPlane, tmp_path: Path, answer: str) -> None:
    site = FunctionSite(plane, tmp_path, ["greet"])
    duration = "3s" if answer == "nothing" else "1h"
    process = site.begin(
        "ab_test", deploy_revision=site.revision("2"),
        deploy_ab_test={"split": "30%", "duration": duration},
    )  # fmt: skip
    try:
        site.wait(lambda: plane.alias("greet") == ("1", {"2": 0.3}), "greet at 30%")
        if answer != "nothing":
            site.wait(lambda: waits_for_a_person(site), "the question")
            run = site.controller.command(answer, site.controller.deployments()[0].id)
            assert run.status == 0, run.said
        status = process.wait(timeout=function_site.DEADLINE)
    finally:
        kill_controller(process, site.controller.state)
    promoted = answer in ("approve", "continue")
    said = (site.folder / "begun.log").read_text()
    assert status == (0 if promoted else 2), said
    assert plane.alias("greet") == ("2" if promoted else "1", {}), said
    asked = next(one for one in site.controller.deployments() if not one.rollback_of)
    wanted = {"reject": "Failed", "nothing": "Stopped"}.get(answer, "Succeeded")
    assert asked.status == wanted, said


def waits_for_a_person(site: FunctionSite) -> bool:
    newest = site.controller.deployments()[0]
    with closing(site.controller.record()) as record:
        return any(one.status == "Waiting" for one in record.approvals(newest.id))


def test_an_alias_that_somebody_else_moves_is_met(plane: LambdaPlane, tmp_path: Path) -> None:
    site = FunctionSite(plane, tmp_path, ["greet"])
    client = plane.client("lambda")
    client.update_function_code(FunctionName="greet", ZipFile=b"PK\x05\x06" + b"\0" * 18)
    client.publish_version(FunctionName="greet")
    process = site.begin(
        "canary",
        deploy_revision=site.revision("3"),
        deploy_schedule=[{"shift": "20%"}, {"bake": "3s"}],
    )
    try:
        site.wait(lambda: plane.alias("greet") == ("1", {"3": 0.2}), "greet at 20%")
        client.update_alias(
            FunctionName="greet", Name=ALIAS, FunctionVersion="2",
            RoutingConfig={"AdditionalVersionWeights": {}},
        )  # fmt: skip
        process.wait(timeout=function_site.DEADLINE)
    finally:
        kill_controller(process, site.controller.state)
    assert plane.alias("greet") == ("2", {})
    failed = next(one for one in site.controller.deployments() if not one.rollback_of)
    assert failed.status == "Failed"
    assert "somebody else has moved it" in failed.error_message
    # The next deployment finds it before anything is changed.
    versions = len(client.list_versions_by_function(FunctionName="greet")["Versions"])
    run = site.controller.playbook("in_place", deploy_revision=site.revision("4"))
    assert run.status == 2
    assert "it was moved by hand or by another tool" in run.said
    assert len(client.list_versions_by_function(FunctionName="greet")["Versions"]) == versions
    checked = site.controller.playbook(
        "in_place", "--check", "--diff",
        deploy_revision=site.revision("4"), deploy_lambda_accept_drift=True,
    )  # fmt: skip
    assert checked.status == 0, checked.said
    assert "version 2 (100%) of live now; changes: code" in checked.said
    assert plane.alias("greet") == ("2", {})
    assert len(client.list_versions_by_function(FunctionName="greet")["Versions"]) == versions
    run = site.controller.playbook(
        "in_place", deploy_revision=site.revision("4"), deploy_lambda_accept_drift=True,
        deploy_lambda_versions_to_keep=0,
    )  # fmt: skip
    assert run.status == 0, run.said
    assert plane.alias("greet") == ("4", {})
    left = client.list_versions_by_function(FunctionName="greet")["Versions"]
    assert [one["Version"] for one in left] == ["$LATEST", "2", "4"]
