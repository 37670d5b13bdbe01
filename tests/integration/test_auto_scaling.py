"""Auto Scaling groups stand still during a deployment, go on after it, and lose no newcomer."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import (
    RecordError,
    UsageError,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils import _aws
from ansible_collections.bascule.deploy.plugins.plugin_utils._hook_watch import (
    HookWatch,
    see_off,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Record, _scaling
from ansible_collections.bascule.deploy.plugins.plugin_utils._scaling import (
    ScalingError,
    answer_hooks,
    hold,
    leave_if_gone,
    let_go,
    release,
)
from support.bundles import files
from support.ec2 import members, scaling_group
from support.records import create
from support.rollout import BIN, ROOT, Controller

import bascule

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support import aws as moto

NAME = "shop-workers-prod"
PROCESSES = ["Launch", "ReplaceUnhealthy"]


@pytest.fixture
def aws(moto_servers: moto.Servers, monkeypatch: pytest.MonkeyPatch) -> moto.Aws:
    # Where the server is killed on purpose nobody has to wait for all retries.
    monkeypatch.setattr(_aws, "ATTEMPTS", 2)
    running = moto_servers.fresh("support.scaling_server")
    running.use(monkeypatch)
    return running


def suspended(aws: moto.Aws) -> list[str]:
    [group] = aws.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[NAME])[
        "AutoScalingGroups"
    ]
    return sorted(one["ProcessName"] for one in group["SuspendedProcesses"])


def wait_for(what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 120
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.1)
    return found


class Fleet:
    """Local hosts that are the instances of an Auto Scaling group."""

    def __init__(self, folder: Path, aws: moto.Aws) -> None:
        assert (ROOT / "collections/ansible_collections/amazon/aws").is_dir(), (
            "run: python tools/fetch_collections.py"
        )
        self.folder = folder
        self.lost = folder / "lost"
        self.lost.write_text("")
        self.inventory = folder / "prod"
        shutil.copytree(ROOT / "inventories" / "prod", self.inventory)
        # Whoever is named in the file "lost" is reached where nobody listens.
        gone = f"inventory_hostname in lookup('ansible.builtin.file', '{self.lost}')"
        variables = {
            "ansible_connection": f"{{{{ 'ssh' if {gone} else 'local' }}}}",
            "ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_become": False,
            "ansible_python_interpreter": "{{ ansible_playbook_python }}",
            "deploy_sysroot": f"{folder}/hosts/{{{{ inventory_hostname }}}}",
            "deploy_targets": "workers", "deploy_stages": ["100%"], "deploy_bake_time": 0,
            "deploy_minimum_healthy_hosts": 1, "deploy_reconnect_timeout": 0,
            "deploy_auto_scaling_groups": [NAME],
        }  # fmt: skip
        self.controller = Controller(
            self.inventory, folder / "state", variables, environment=aws.environment
        )

    def revision(self, name: str, hook: str) -> Path:
        return files(self.folder / name, {"VERSION": f"{name}\n"}, {"AfterInstall": hook})

    def start(self, revision: Path, **more: Any) -> subprocess.Popen[str]:
        said = json.dumps(
            {**self.controller.variables, **more, "deploy_revision": str(revision)}, default=str
        )
        return subprocess.Popen(
            [
                str(BIN / "ansible-playbook"), "-i", str(self.inventory),
                "bascule.deploy.rolling", "-e", said,
            ],
            env={
                **os.environ, **self.controller.environment,
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "BASCULE_STATE":
                str(self.controller.state), "ANSIBLE_STDOUT_CALLBACK": "default",
            },
            cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip


def waiting(folder: Path) -> str:
    """A hook that says that it runs, and goes on when it may."""
    return f"touch {folder}/running; while test ! -e {folder}/go; do sleep 0.1; done"


def test_a_group_stands_still_and_a_terminated_instance_is_no_failure(
    aws: moto.Aws, tmp_path: Path
) -> None:
    ids = scaling_group(aws, NAME, 3, Environment="prod", Application="shop")
    aws.client("autoscaling").suspend_processes(
        AutoScalingGroupName=NAME, ScalingProcesses=["AlarmNotification"]
    )
    fleet = Fleet(tmp_path, aws)
    run = fleet.start(fleet.revision("v1", waiting(tmp_path)))
    wait_for((tmp_path / "running").exists)
    assert suspended(aws) == [
        "AZRebalance", "AlarmNotification", "Launch", "ReplaceUnhealthy", "ScheduledActions",
    ]  # fmt: skip
    aws.client("autoscaling").set_desired_capacity(AutoScalingGroupName=NAME, DesiredCapacity=4)
    assert members(aws, NAME) == ids
    [deployment] = fleet.controller.deployments()

    def pending() -> list[str]:
        targets = fleet.controller.targets(deployment.id)
        return [name for name, one in targets.items() if one.status == "Pending"]

    # Two at a time: the script of the other one may begin later.
    wait_for(lambda: len(pending()) == 1)
    [later] = pending()
    aws.client("ec2").terminate_instances(InstanceIds=[later])
    fleet.lost.write_text(later)
    (tmp_path / "go").touch()
    said, _none = run.communicate(timeout=300)
    assert run.returncode == 0, said

    done = fleet.controller.targets(deployment.id)
    assert {name: one.status for name, one in done.items() if name != later} == dict.fromkeys(
        set(ids) - {later}, "Succeeded"
    )
    assert (done[later].status, done[later].error_code) == ("Skipped", "INSTANCE_TERMINATED")
    assert f"The instance {later} of the Auto Scaling group {NAME} is terminated" in (
        done[later].message
    )
    assert suspended(aws) == ["AlarmNotification"]
    with fleet.controller.record() as record:
        assert record.holds_of([deployment.id]) == []


def test_checking_a_deployment_changes_nothing_at_aws(aws: moto.Aws, tmp_path: Path) -> None:
    [_stays, leaver] = scaling_group(aws, NAME, 2, Environment="prod", Application="shop")
    aws.client("autoscaling").put_lifecycle_hook(
        AutoScalingGroupName=NAME, LifecycleHookName="goodbye",
        LifecycleTransition="autoscaling:EC2_INSTANCE_TERMINATING",
    )  # fmt: skip
    aws.client("autoscaling").terminate_instance_in_auto_scaling_group(
        InstanceId=leaver, ShouldDecrementDesiredCapacity=True
    )
    topic = aws.client("sns").create_topic(Name="t")["TopicArn"]
    iam = aws.client("iam")
    iam.create_user(UserName="looks")
    key = iam.create_access_key(UserName="looks")["AccessKey"]
    looking = {"Effect": "Allow", "Action": ["ec2:Describe*", "autoscaling:Describe*"],
               "Resource": "*"}  # fmt: skip
    document = json.dumps({"Version": "2012-10-17", "Statement": [looking]})
    iam.put_user_policy(UserName="looks", PolicyName="looks", PolicyDocument=document)
    fleet = Fleet(tmp_path, aws)
    fleet.controller.environment = {
        **aws.environment,
        "AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
    }  # fmt: skip
    aws.enforce_permissions()
    run = fleet.controller.playbook(
        "rolling", "--check", "--diff", deploy_revision=str(fleet.revision("v1", "true")),
        deploy_notifications=[{"type": "sns", "topic": topic}],
        deploy_auto_scaling_termination_hook="goodbye",
    )  # fmt: skip
    # Whatever it had tried to change would have been refused.
    assert run.status == 0, run.said
    assert "Launch" in run.said, "the difference shows what would be suspended"
    assert fleet.controller.deployments() == []


def test_a_killed_controller_leaves_nothing_suspended_for_good(
    aws: moto.Aws, tmp_path: Path
) -> None:
    scaling_group(aws, NAME, 2, Environment="prod", Application="shop")
    fleet = Fleet(tmp_path, aws)
    hook = waiting(tmp_path)
    for way in ("resume", "abandon"):
        run = fleet.start(fleet.revision(way, hook))
        wait_for((tmp_path / "running").exists)
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate()
        (tmp_path / "go").touch()
        assert "Launch" in suspended(aws)
        [deployment] = [one for one in fleet.controller.deployments() if not one.is_final]
        if way == "resume":
            ended = fleet.controller.playbook("rolling", deployment_id=deployment.id)
        else:
            ended = fleet.controller.command("abandon", deployment.id)
        assert ended.status == 0, ended.said
        assert suspended(aws) == []
        (tmp_path / "running").unlink()
        (tmp_path / "go").unlink()


def test_an_instance_that_is_launched_meanwhile_gets_the_revision_and_goes_into_service(
    aws: moto.Aws, tmp_path: Path
) -> None:
    scaling_group(aws, NAME, 2, Environment="prod", Application="shop")
    scaling = aws.client("autoscaling")
    for name, transition in (("bascule", "LAUNCHING"), ("goodbye", "TERMINATING")):
        scaling.put_lifecycle_hook(
            AutoScalingGroupName=NAME, LifecycleHookName=name,
            LifecycleTransition=f"autoscaling:EC2_INSTANCE_{transition}",
        )  # fmt: skip
    fleet = Fleet(tmp_path, aws)
    run = fleet.start(
        fleet.revision("v1", waiting(tmp_path)),
        deploy_auto_scaling_suspend=[], deploy_auto_scaling_hook="bascule",
        deploy_auto_scaling_termination_hook="goodbye",
        deploy_minimum_healthy_hosts=1,
    )  # fmt: skip
    wait_for((tmp_path / "running").exists)
    assert suspended(aws) == []
    [deployment] = fleet.controller.deployments()
    [leaver] = [
        name
        for name, one in fleet.controller.targets(deployment.id).items()
        if one.status == "Pending"
    ]
    scaling.terminate_instance_in_auto_scaling_group(
        InstanceId=leaver, ShouldDecrementDesiredCapacity=True
    )
    assert state_of(aws, leaver) == "Terminating:Wait"
    first = members(aws, NAME)
    scaling.set_desired_capacity(AutoScalingGroupName=NAME, DesiredCapacity=2)
    [newcomer] = set(members(aws, NAME)) - set(first)
    assert state_of(aws, newcomer) == "Pending:Wait"
    # A hook gives up after its timeout, unless somebody says that it is still worth waiting.
    wait_for(lambda: heartbeats(aws, newcomer))
    # Who leaves is let go at once; nobody has begun with it.
    wait_for(lambda: leaver not in members(aws, NAME))
    left = fleet.controller.targets(deployment.id)[leaver]
    assert (left.status, left.error_code) == ("Skipped", "INSTANCE_TERMINATED")
    (tmp_path / "go").touch()
    said, _none = run.communicate(timeout=300)
    assert run.returncode == 0, said
    assert not (tmp_path / "hosts" / leaver / "opt/files/VERSION").exists()
    assert state_of(aws, newcomer) == "InService", said
    installed = tmp_path / "hosts" / newcomer / "opt/files/VERSION"
    assert installed.read_text() == "v1\n"

    # One that is launched while a bad revision is tried gets the one that is brought back.
    for name in ("running", "go"):
        (tmp_path / name).unlink()
    run = fleet.start(
        fleet.revision("v2", f"{waiting(tmp_path)}; exit 1"),
        deploy_auto_scaling_suspend=[], deploy_auto_scaling_hook="bascule",
        deploy_rollback_on=["DEPLOYMENT_FAILURE"],
    )  # fmt: skip
    wait_for((tmp_path / "running").exists)
    known = set(members(aws, NAME))
    scaling.set_desired_capacity(AutoScalingGroupName=NAME, DesiredCapacity=3)
    [later] = set(members(aws, NAME)) - known
    (tmp_path / "go").touch()
    said, _none = run.communicate(timeout=300)
    assert run.returncode == 2, said
    assert state_of(aws, later) == "InService", said
    assert (tmp_path / "hosts" / later / "opt/files/VERSION").read_text() == "v1\n"
    assert {state_of(aws, one) for one in members(aws, NAME)} == {"InService"}


def heartbeats(aws: moto.Aws, instance: str) -> int:
    answer = aws.client("ec2").describe_tags(
        Filters=[{"Name": "resource-id", "Values": [instance]}]
    )
    tags = {one["Key"]: one["Value"] for one in answer["Tags"]}
    return int(tags.get("heartbeats", 0))


def test_nobody_is_left_waiting_by_a_deployment_that_failed(
    aws: moto.Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scaling_group(aws, NAME, 0)
    scaling = aws.client("autoscaling")
    scaling.put_lifecycle_hook(
        AutoScalingGroupName=NAME, LifecycleHookName="bascule",
        LifecycleTransition="autoscaling:EC2_INSTANCE_LAUNCHING",
    )  # fmt: skip
    scaling.set_desired_capacity(AutoScalingGroupName=NAME, DesiredCapacity=3)
    good, untried, unknown = sorted(members(aws, NAME))
    endpoints = [{"target": one, "instance": one} for one in (good, untried)]
    with Record.open(f"sqlite:///{tmp_path}/record.db") as record:
        deployment = create(record, [good, untried], 0, options={"endpoints": endpoints})
        hold(record, deployment.id, [NAME], [], hook="bascule")
        # Nobody else looks while one does, however long that takes; whoever was killed is not
        # waited for.
        among = [deployment.id]
        turn = record.hook_turn(deployment.id, among, NAME, 0.0)
        assert turn.region == "eu-central-1"
        others = record.hook_turn(deployment.id, among, NAME, 0.0)
        assert others.region == ""
        assert others.wait > 0
        record.end_hook_turn(deployment.id, among, NAME, turn)
        with monkeypatch.context() as patched:
            patched.setattr(_scaling, "LOOK_SECONDS", 0.0)
            assert record.hook_turn(deployment.id, among, NAME, 0.0).region
        turn = record.hook_turn(deployment.id, among, NAME, 0.0)
        # A controller that takes the deployment over waits for nobody.
        assert turn.region
        hold(record, deployment.id, [NAME], [], hook="bascule")
        turn = record.hook_turn(deployment.id, among, NAME, 0.0)
        assert turn.region == "eu-central-1"
        record.end_hook_turn(deployment.id, among, NAME, turn)
        told = {"hook": "bascule", "groups": [NAME]}
        with HookWatch(
            lambda: Record.open(f"sqlite:///{tmp_path}/record.db"), deployment.id, told, 0.05
        ):
            wait_for(lambda: min(heartbeats(aws, one) for one in (good, untried, unknown)) > 1)
        assert record.admit(deployment.id, good).verdict == "admitted"
        record.settle(deployment.id, good, "Succeeded")
        record.halt(deployment.id, "HEALTH_CONSTRAINTS", "too few")
        ended = record.finish(deployment.id)
        assert ended.status == "Failed"
        # Another deployment of the group may still bring one its revision.
        other = create(record, ["x"], group="api")
        hold(record, other.id, [NAME], [], hook="bascule")
        assert answer_hooks(record, [ended], "bascule", [NAME])[0] == [
            f"{one} of {NAME}: {verdict}"
            for one, verdict in sorted({good: "CONTINUE", untried: "ABANDON"}.items())
        ]
        assert state_of(aws, unknown) == "Pending:Wait"
        record.finish(other.id)
        answered, left = answer_hooks(record, [ended], "bascule", [NAME])
        assert f"{unknown} of {NAME}: ABANDON" in answered
        assert left == []


def test_who_leaves_is_drained_before_its_hook_is_answered(aws: moto.Aws, tmp_path: Path) -> None:
    ids = scaling_group(aws, NAME, 5)
    scaling = aws.client("autoscaling")
    scaling.put_lifecycle_hook(
        AutoScalingGroupName=NAME, LifecycleHookName="goodbye",
        LifecycleTransition="autoscaling:EC2_INSTANCE_TERMINATING",
    )  # fmt: skip
    network = aws.client("ec2").create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    elb = aws.client("elbv2")
    [group] = elb.create_target_group(Name="web", Protocol="HTTP", Port=80, VpcId=network)[
        "TargetGroups"
    ]
    arn = group["TargetGroupArn"]
    elb.register_targets(TargetGroupArn=arn, Targets=[{"Id": one, "Port": 80} for one in ids])

    def registered() -> set[str]:
        described = elb.describe_target_health(TargetGroupArn=arn)["TargetHealthDescriptions"]
        return {one["Target"]["Id"] for one in described}

    pending, done, working, stays, stranger = ids
    options = {
        "elbv2_target_groups": ["web"], "elbv2_propagation": "0s", "pools": {},
        "drain_timeout": "30s", "restore_timeout": "30s", "interval": "50ms",
    }  # fmt: skip
    told: dict[str, Any] = {
        "hook": "", "termination_hook": "goodbye", "groups": [NAME],
        "traffic": {"provider": "elbv2", "options": options},
    }  # fmt: skip
    endpoints = [
        {"target": one, "name": one, "address": "10.9.0.1", "port": 80, "instance": one}
        for one in ids
        if one != stranger
    ]
    url = f"sqlite:///{tmp_path}/record.db"
    with Record.open(url) as record:
        deployment = create(
            record, [done, working, pending, stays], 0,
            options={"endpoints": endpoints, "scaling": told},
        )  # fmt: skip
        hold(record, deployment.id, [NAME], [], hook="goodbye")
        for one in (done, working):
            assert record.admit(deployment.id, one).verdict == "admitted"
        record.settle(deployment.id, done, "Succeeded")
        for one in (pending, done, working):
            scaling.terminate_instance_in_auto_scaling_group(
                InstanceId=one, ShouldDecrementDesiredCapacity=True
            )
        # What has been ordered just now is not answered yet; the next look sees it done.
        now = record.deployment(deployment.id)
        assert see_off(record, [now], told, [NAME]) == ([], [])
        assert registered() == {working, stays, stranger}
        assert state_of(aws, pending) == state_of(aws, done) == "Terminating:Wait"
        with HookWatch(lambda: Record.open(url), deployment.id, told, 0.05):
            wait_for(lambda: sorted(members(aws, NAME)) == sorted([working, stays, stranger]))
            # Nobody takes a host away under the scripts that run on it.
            before = heartbeats(aws, working)
            wait_for(lambda: heartbeats(aws, working) > before)
        assert state_of(aws, working) == "Terminating:Wait"
        assert registered() == {working, stays, stranger}
        seen = {one.name: (one.status, one.in_service) for one in record.targets(deployment.id)}
        assert (seen[pending], seen[done]) == (("Skipped", False), ("Succeeded", False))
        # A failure of one that is being taken away is none, though it still runs.
        assert leave_if_gone(record, deployment.id, stays, "traffic") == ""
        assert "is being terminated" in leave_if_gone(record, deployment.id, working, "traffic")
        record.finish(deployment.id)
        # Nobody has made a target of this one: it was launched after the plan was made.
        scaling.terminate_instance_in_auto_scaling_group(
            InstanceId=stranger, ShouldDecrementDesiredCapacity=True
        )
        assert see_off(record, [now], {**told, "groups": []}, []) == ([], [])
        # Where the load balancer refuses it is left waiting, and somebody is told.
        wrong = {"provider": "elbv2", "options": {**options, "elbv2_target_groups": ["nobody"]}}
        answered, troubles = see_off(record, [now], {**told, "traffic": wrong}, [NAME], last=True)
        assert (answered, len(troubles)) == ([], 2)
        assert all("could not be taken out of the traffic" in one for one in troubles)
        # Where another deployment holds the group it is that one's business.
        other = create(record, ["x"], group="api")
        hold(record, other.id, [NAME], [], hook="goodbye")
        ended = see_off(record, [now], told, [NAME], last=True)
        assert ended == ([f"{working} of {NAME}: CONTINUE at goodbye"], [])
        assert registered() == {stays, stranger}
        record.finish(other.id)
        ended = see_off(record, [now], told, [NAME], last=True)
        assert ended == ([f"{stranger} of {NAME}: CONTINUE at goodbye"], [])
        assert registered() == {stays}
        assert members(aws, NAME) == [stays]
        statuses = {one.name: one.status for one in record.targets(deployment.id)}
        assert statuses[working] == "Skipped"


def state_of(aws: moto.Aws, instance: str) -> str:
    answer = aws.client("autoscaling").describe_auto_scaling_instances(InstanceIds=[instance])
    return str(answer["AutoScalingInstances"][0]["LifecycleState"])


def test_two_deployments_of_one_group_resume_it_when_the_last_has_ended(
    aws: moto.Aws, tmp_path: Path
) -> None:
    scaling_group(aws, NAME, 1)
    with Record.open(f"sqlite:///{tmp_path}/record.db") as record:
        one, two = create(record, ["a"]), create(record, ["a"], group="api")
        for deployment in (one, two, one):
            hold(record, deployment.id, [NAME], PROCESSES)
        assert suspended(aws) == PROCESSES
        assert release(record, [one.id]) == []
        record.finish(one.id)
        assert release(record, [one.id]) == [NAME]
        assert suspended(aws) == PROCESSES
        record.finish(two.id)
        release(record, [two.id])
        assert suspended(aws) == []


def test_what_could_not_be_resumed_is_resumed_by_the_next(aws: moto.Aws, tmp_path: Path) -> None:
    scaling_group(aws, NAME, 1)
    with Record.open(f"sqlite:///{tmp_path}/record.db") as record:
        one = create(record, ["a"])
        hold(record, one.id, [NAME], PROCESSES)
        record.finish(one.id)
        os.environ["AWS_ENDPOINT_URL"] = "http://127.0.0.1:9"
        [warning] = let_go(record, [one.id])
        assert "aws autoscaling resume-processes" in warning
        os.environ["AWS_ENDPOINT_URL"] = aws.url
        two = create(record, ["a"])
        hold(record, two.id, [NAME], PROCESSES)
        record.finish(two.id)
        assert let_go(record, [two.id]) == []
        assert suspended(aws) == []
        assert record.holds_of([one.id, two.id]) == []


def test_who_gives_a_deployment_up_leaves_nobody_waiting(aws: moto.Aws, tmp_path: Path) -> None:
    scaling_group(aws, NAME, 0)
    scaling = aws.client("autoscaling")
    scaling.put_lifecycle_hook(
        AutoScalingGroupName=NAME, LifecycleHookName="bascule",
        LifecycleTransition="autoscaling:EC2_INSTANCE_LAUNCHING",
    )  # fmt: skip
    scaling.set_desired_capacity(AutoScalingGroupName=NAME, DesiredCapacity=2)
    good, untried = sorted(members(aws, NAME))
    endpoints = [{"target": one, "instance": one} for one in (good, untried)]
    told = {"hook": "bascule", "termination_hook": "", "groups": [NAME], "traffic": None}
    url = f"sqlite:///{tmp_path}/record.db"
    with Record.open(url) as record:
        one = create(
            record, [good, untried], 0, options={"endpoints": endpoints, "scaling": told}
        )  # fmt: skip
        hold(record, one.id, [NAME], PROCESSES)
        assert record.admit(one.id, good).verdict == "admitted"
        record.settle(one.id, good, "Succeeded")
        assert bascule.abandon(one.id, record=url).status == "Stopped"
        assert state_of(aws, good) == "InService"
        assert untried not in members(aws, NAME)
        assert suspended(aws) == []
        # A controller that is killed between the end of a deployment and its last task.
        two = create(record, ["a"])
        hold(record, two.id, [NAME], PROCESSES)
        record.finish(two.id)
        assert suspended(aws) == PROCESSES
        assert bascule.abandon(two.id, record=url).status == record.deployment(two.id).status
        assert suspended(aws) == []
        with pytest.raises(RecordError, match="nothing to abandon"):
            bascule.abandon(two.id, record=url)


def test_checking_suspends_nothing_and_wrong_names_are_refused(
    aws: moto.Aws, tmp_path: Path
) -> None:
    scaling_group(aws, NAME, 1)
    with Record.open(f"sqlite:///{tmp_path}/record.db") as record:
        deployment = create(record, ["a"])
        seen = hold(record, deployment.id, [NAME], PROCESSES, check=True)
        assert seen == {NAME: {"before": [], "after": PROCESSES}}
        assert suspended(aws) == []
        with pytest.raises(UsageError, match="no Auto Scaling group nobody"):
            hold(record, deployment.id, ["nobody"], PROCESSES)
        with pytest.raises(UsageError, match="no process Lunch"):
            hold(record, deployment.id, [NAME], ["Lunch"])
        aws.kill()
        with pytest.raises(ScalingError, match="cannot be described"):
            hold(record, deployment.id, [NAME], PROCESSES)


def test_who_has_left_is_not_admitted_and_counts_for_nothing(tmp_path: Path) -> None:
    with Record.open(f"sqlite:///{tmp_path}/record.db") as record:
        deployment = create(record, ["a", "b", "c"], 2)
        record.leave(deployment.id, "a", "The instance i-1 is terminated.")
        assert record.admit(deployment.id, "a").verdict == "refused"
        for name in ("b", "c"):
            assert record.admit(deployment.id, name).verdict == "admitted"
            record.settle(deployment.id, name, "Succeeded")
        assert record.finish(deployment.id).status == "Succeeded"
        statuses = {one.name: one.status for one in record.targets(deployment.id)}
    assert statuses == {"a": "Skipped", "b": "Succeeded", "c": "Succeeded"}
