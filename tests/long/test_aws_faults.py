"""What AWS refuses in the middle of a deployment: one clear message, and nothing half done stays.

The service refuses single calls in the words that AWS has for it; the deployments are real.
"""

from __future__ import annotations

import concurrent.futures
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from support import alb, proxies
from support.alb.site import Site
from support.bundles import files
from support.ec2 import members, scaling_group
from support.rollout import Controller, Run, local_inventory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NAMES = ["a1", "a2", "a3"]
ALONE = {"deploy_traffic_provider": "none"}
HELD = {"deploy_auto_scaling_groups": ["workers"], "deploy_auto_scaling_suspend": ["Launch"]}
EXPIRED = {
    "code": "ExpiredToken",
    "message": "The security token included in the request is expired",
}


def denied(action: str) -> dict[str, Any]:
    """Return the refusal of a call as IAM words it."""
    said = (
        "User: arn:aws:sts::123456789012:assumed-role/ci/1 is not authorized to perform: "
        f"{action} because no identity-based policy allows the {action} action"
    )
    return {"call": action, "code": "AccessDenied", "message": said}


class Shop:
    """Targets on this machine that are instances behind a load balancer."""

    def __init__(self, service: alb.Alb, folder: Path) -> None:
        self.service, self.folder = service, folder
        self.site = Site(service)
        self.site.start("blue")
        self.group = self.site.group("web", delay=1, Port=self.site.ports["blue"])
        self.site.listen({self.group: 1})
        self.ids = {name: self.site.instance(name) for name in NAMES}
        scaling_group(service, "workers", 1)
        inventory = local_inventory(folder / "hosts.json", {n: folder / "hosts" / n for n in NAMES})
        content = json.loads(inventory.read_text())
        for name, variables in content["all"]["children"]["web"]["hosts"].items():
            variables |= {"instance_id": self.ids[name]}
        inventory.write_text(json.dumps(content))
        self.controller = Controller(
            inventory, folder / "state",
            {
                "deploy_application": "shop", "deploy_targets": "web",
                "deploy_traffic_provider": "elbv2", "deploy_elbv2_target_groups": ["web"],
                "deploy_elbv2_propagation": "0s", "deploy_minimum_healthy_hosts": 2,
                "deploy_rollback_on": ["DEPLOYMENT_FAILURE"], "deploy_bake_time": 0,
            },
            environment=dict(service.environment),
        )  # fmt: skip
        self.number = 0

    def revision(self, hook: str = "true") -> Path:
        self.number += 1
        return files(
            self.folder / f"v{self.number}", {"VERSION": f"{self.number}\n"},
            {"AfterInstall": hook},
        )  # fmt: skip

    def deploy(self, revision: Path | str, *options: str, **more: Any) -> Run:
        return self.controller.deploy("rolling", *options, deploy_revision=str(revision), **more)

    def serving(self) -> set[str]:
        told = self.site.elbv2.describe_target_health(TargetGroupArn=self.group)
        ids = {one["Target"]["Id"] for one in told["TargetHealthDescriptions"]
               if one["TargetHealth"]["State"] == "healthy"}  # fmt: skip
        return {name for name, one in self.ids.items() if one in ids}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    with alb.running(folder / "service", hooks=["support.scaling_server:patch"]) as service:
        made = Shop(service, folder)
        try:
            first = made.deploy(made.revision(), deploy_minimum_healthy_hosts=0)
            assert first.status == 0, first.said
            yield made
        finally:
            proxies.stop(made.site.processes["blue"])


@pytest.fixture(autouse=True)
def whole(shop: Shop) -> Iterator[None]:
    """Begin with all targets in service, which a deployment brings back; refuse nothing after."""
    if shop.serving() != set(NAMES):
        run = shop.deploy(shop.revision())
        assert run.status == 0, run.said
        assert shop.serving() == set(NAMES)
    yield
    shop.service.refuse()


def meanwhile(shop: Shop, work: Callable[[], object], **more: Any) -> Run:
    """Deploy, and do something while the first target is being worked on."""
    name = f"{shop.number}"
    running, go = shop.folder / f"running-{name}", shop.folder / f"go-{name}"
    revision = shop.revision(f"touch {running}; while test ! -e {go}; do sleep 0.1; done")
    ended = threading.Event()

    def wait() -> bool:
        while not running.exists():
            if ended.wait(0.1):
                return False
        work()
        go.touch()
        return True

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        done = pool.submit(wait)
        try:
            run = shop.deploy(revision, **more)
        finally:
            ended.set()
        assert done.result(), run.said
    return run


def test_credentials_that_expire_in_the_middle(shop: Shop) -> None:
    """The one that was out stays out, the others serve; whoever comes back heals it first."""
    run = meanwhile(shop, lambda: shop.service.refuse({"call": "*", **EXPIRED}))
    assert run.status == 1, run.said
    assert "AWS says ExpiredToken" in run.said
    assert "The credentials have expired: get new ones, and run it again with them." in run.said
    shop.service.refuse()
    assert shop.serving() == {"a2", "a3"}
    rollback, failed = shop.controller.deployments()[:2]
    assert (failed.status, rollback.status) == ("Failed", "Failed")
    targets = shop.controller.targets(failed.id)
    assert (targets["a1"].status, targets["a1"].in_service) == ("Failed", False)
    assert {targets[name].status for name in ("a2", "a3")} == {"Skipped"}
    run = shop.deploy(shop.revision())
    assert run.status == 0, run.said
    assert run.said.index("a1  in service again") < run.said.index("a2  out of service"), run.said
    assert shop.serving() == set(NAMES)


@pytest.mark.parametrize(
    ("action", "left_out"),
    [
        ("elasticloadbalancing:DescribeTargetGroups", set()),
        ("elasticloadbalancing:DescribeTargetHealth", set()),
        ("elasticloadbalancing:DeregisterTargets", set()),
        ("elasticloadbalancing:RegisterTargets", {"a1"}),
    ],
)
def test_a_right_that_lacks_at_the_load_balancer(
    shop: Shop, action: str, left_out: set[str]
) -> None:
    shop.service.refuse(denied(action))
    run = shop.deploy(shop.revision())
    assert run.status == 1, run.said
    assert f"is not authorized to perform: {action}" in run.said
    assert "`bascule iam-policy` prints what a group needs" in run.said
    shop.service.refuse()
    assert shop.serving() == set(NAMES) - left_out


def test_a_way_back_that_is_refused_ends(shop: Shop) -> None:
    """The first has the revision, and then no target may leave the load balancer any more."""
    shop.service.refuse({**denied("elasticloadbalancing:DeregisterTargets"), "after": 1})
    run = shop.deploy(shop.revision())
    assert run.status == 1, run.said
    rollback, failed = shop.controller.deployments()[:2]
    assert failed.status == "Failed", run.said
    assert rollback.is_final, run.said
    ended = {name: one.status for name, one in shop.controller.targets(rollback.id).items()}
    assert ended == {"a1": "Failed", "a2": "Succeeded"}, run.said
    assert shop.serving() == set(NAMES)


def suspended(shop: Shop) -> list[str]:
    scaling = shop.service.client("autoscaling")
    [group] = scaling.describe_auto_scaling_groups()["AutoScalingGroups"]
    return [one["ProcessName"] for one in group["SuspendedProcesses"]]


@pytest.mark.parametrize("action", ["DescribeAutoScalingGroups", "SuspendProcesses"])
def test_a_group_that_cannot_be_held_still(shop: Shop, action: str) -> None:
    shop.service.refuse(denied(f"autoscaling:{action}"))
    run = shop.deploy(shop.revision(), **ALONE, **HELD)
    assert run.status == 1, run.said
    assert f"is not authorized to perform: autoscaling:{action}" in run.said
    shop.service.refuse()
    assert suspended(shop) == []
    assert shop.controller.deployments()[0].is_final


def test_a_group_that_cannot_be_let_go(shop: Shop) -> None:
    shop.service.refuse(denied("autoscaling:ResumeProcesses"))
    run = shop.deploy(shop.revision(), **ALONE, **HELD)
    assert run.status == 0, run.said
    assert "not authorized to perform: autoscaling:ResumeProcesses" in run.said
    assert "aws autoscaling resume-processes --auto-scaling-group-name workers" in run.said
    assert suspended(shop) == ["Launch"]
    shop.service.refuse()
    run = shop.deploy(shop.revision(), **ALONE, **HELD)
    assert run.status == 0, run.said
    assert suspended(shop) == []


def test_a_hook_that_may_not_be_answered(shop: Shop) -> None:
    scaling = shop.service.client("autoscaling")
    scaling.put_lifecycle_hook(
        AutoScalingGroupName="workers", LifecycleHookName="goodbye",
        LifecycleTransition="autoscaling:EC2_INSTANCE_TERMINATING",
    )  # fmt: skip
    [leaver] = members(shop.service, "workers")
    scaling.terminate_instance_in_auto_scaling_group(
        InstanceId=leaver, ShouldDecrementDesiredCapacity=True
    )
    more = {**ALONE, **HELD, "deploy_auto_scaling_termination_hook": "goodbye"}
    shop.service.refuse(denied("autoscaling:CompleteLifecycleAction"))
    run = shop.deploy(shop.revision(), **more)
    assert run.status == 0, run.said
    assert f"The lifecycle hook goodbye of {leaver} in workers cannot be answered" in run.said
    assert members(shop.service, "workers") == [leaver]
    shop.service.refuse()
    run = shop.deploy(shop.revision(), **more)
    assert run.status == 0, run.said
    assert members(shop.service, "workers") == []


def test_alarms_that_cannot_be_looked_at(shop: Shop) -> None:
    """Before it begins nothing is changed; in the middle it is halted and goes back."""
    before = len(shop.controller.deployments())
    run = shop.deploy(shop.revision(), **ALONE, deploy_alarms=["nobody"])
    assert run.status == 2, run.said
    assert "CloudWatch has no alarm nobody. Nothing was changed." in run.said
    shop.service.refuse(denied("monitoring:DescribeAlarms"))
    run = shop.deploy(shop.revision(), **ALONE, deploy_alarms=["nobody"])
    assert run.status == 2, run.said
    assert "The alarms cannot be looked at: AccessDenied" in run.said
    assert "`bascule iam-policy` prints what a group needs. Nothing was changed." in run.said
    assert len(shop.controller.deployments()) == before


def test_revisions_that_cannot_be_had(shop: Shop) -> None:
    s3 = shop.service.client("s3")
    s3.create_bucket(
        Bucket="releases", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    push = ("push", str(shop.revision()), "--to", "s3://releases/x/")
    before = len(shop.controller.deployments())
    for fault, words in (
        (denied("s3:PutObject"), "not authorized to perform: s3:PutObject"),
        ({"call": "s3:*", **EXPIRED}, "ExpiredToken: The security token included"),
    ):
        shop.service.refuse(fault)
        run = shop.controller.command(*push)
        assert run.status == 2, run.said
        assert "cannot be written: " in run.said
        assert words in run.said
    shop.service.refuse()
    assert s3.list_objects_v2(Bucket="releases")["KeyCount"] == 0
    run = shop.controller.command(*push, "--format", "json")
    assert run.status == 0, run.said
    source = json.loads(run.said)["source"]
    # The bucket keeps no versions: it is the ETag that is pinned.
    assert "versionId" not in source
    key = "arn:aws:kms:eu-central-1:123456789012:key/k"
    refused = {**denied("s3:GetObject"), "after": 0}
    refused["message"] = refused["message"].replace("s3:GetObject", f"kms:Decrypt on {key}")
    for fault, words in (
        ({"call": "s3:*", **EXPIRED}, "get new ones"),
        (refused, "It is encrypted: the policy of its key"),
        (denied("s3:GetObject"), "not authorized to perform: s3:GetObject"),
    ):
        shop.service.refuse(fault)
        run = shop.deploy(source, **ALONE)
        assert run.status == 2, run.said
        assert words in run.said
        assert len(shop.controller.deployments()) == before
    shop.service.refuse()
    run = shop.deploy(source, **ALONE)
    assert run.status == 0, run.said


def test_another_region(shop: Shop) -> None:
    right = dict(shop.controller.environment)
    try:
        for region, more, words in (
            (
                "eu-west-1",
                {},
                "Check the names of target groups, the region (eu-west-1) and the account.",
            ),
            ("eu-west-1", {**ALONE, **HELD}, "no Auto Scaling group workers in eu-west-1"),
        ):
            shop.controller.environment |= {"AWS_REGION": region, "AWS_DEFAULT_REGION": region}
            run = shop.deploy(shop.revision(), **more)
            assert run.status != 0, run.said
            assert words in run.said
            assert shop.controller.deployments()[0].is_final
    finally:
        shop.controller.environment = right
    assert shop.serving() == set(NAMES)


def test_a_target_group_that_is_deleted_in_the_middle(shop: Shop) -> None:
    group = shop.site.group("gone", delay=1, Port=shop.site.ports["blue"])
    shop.site.listen({group: 1})
    listener = shop.site.listener
    shop.site.elbv2.register_targets(
        TargetGroupArn=group, Targets=[{"Id": one} for one in shop.ids.values()]
    )

    def delete() -> None:
        shop.site.elbv2.delete_listener(ListenerArn=listener)
        shop.site.elbv2.delete_target_group(TargetGroupArn=group)

    run = meanwhile(shop, delete, deploy_elbv2_target_groups=["gone"])
    assert run.status == 1, run.said
    assert "TargetGroupNotFound" in run.said
    assert "It was there before: somebody has deleted it." in run.said
    targets = shop.controller.targets(shop.controller.deployments()[1].id)
    assert [targets[name].status for name in NAMES] == ["Failed", "Skipped", "Skipped"]
