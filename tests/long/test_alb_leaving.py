"""Auto Scaling takes instances away in the middle of a deployment, under load: no request is lost.

A machine ends in the moment in which its hook is answered, as AWS's do: whatever still reaches it
then is lost.
"""

from __future__ import annotations

import concurrent.futures
import json
import threading
import time
from typing import TYPE_CHECKING, Any

from support.alb.rolling import Story, rolling
from support.alb.site import Site
from support.ec2 import scaling_group

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIZE = 8
# Three at a time.
FLOOR = 5
GROUP, HOOK = "web", "goodbye"


class Reaper:
    """Ends the hosts whose instances EC2 has ended."""

    def __init__(self, story: Story, ids: dict[str, str]) -> None:
        self._story, self._names = story, {one: name for name, one in ids.items()}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=lambda: story.fleet.inside(self._work))
        self.reaped: list[str] = []

    def __enter__(self) -> Reaper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(60)

    def _work(self) -> None:
        ec2 = Site(self._story.service).client("ec2", max_attempts=20)
        terminated = [{"Name": "instance-state-name", "Values": ["terminated"]}]
        while not self._ended.wait(0.05):
            answer = ec2.describe_instances(InstanceIds=list(self._names), Filters=terminated)
            for one in [i for part in answer["Reservations"] for i in part["Instances"]]:
                name = self._names[one["InstanceId"]]
                if name not in self.reaped:
                    self._story.fleet.kill(name)
                    self.reaped.append(name)


def instances(story: Story) -> dict[str, str]:
    """Put the hosts' instances into an Auto Scaling group with a termination hook."""
    hosts = json.loads(story.controller.inventory.read_text())["all"]["children"]["web"]["hosts"]
    ids = {name: str(one["instance_id"]) for name, one in hosts.items()}
    scaling_group(story.service, GROUP, 0)
    scaling = story.service.client("autoscaling")
    scaling.attach_instances(InstanceIds=list(ids.values()), AutoScalingGroupName=GROUP)
    scaling.put_lifecycle_hook(
        AutoScalingGroupName=GROUP, LifecycleHookName=HOOK,
        LifecycleTransition="autoscaling:EC2_INSTANCE_TERMINATING",
    )  # fmt: skip
    return ids


def statuses(story: Story) -> dict[str, list[str]]:
    """Return the targets of the newest deployment by their status."""
    found: dict[str, list[str]] = {}
    for name, one in story.controller.targets(story.controller.deployments()[0].id).items():
        found.setdefault(one.status, []).append(name)
    return found


def wait_for(what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 300
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.1)
    return found


def test_no_request_is_lost_when_instances_are_taken_away(tmp_path: Path) -> None:
    hooks = ["support.scaling_server:patch"]
    with rolling(tmp_path, "application", size=SIZE, floor=FLOOR, hooks=hooks) as story:
        ids = story.fleet.inside(lambda: instances(story))
        story.controller.variables |= {
            "deploy_auto_scaling_groups": [GROUP], "deploy_auto_scaling_suspend": [],
            "deploy_auto_scaling_termination_hook": HOOK,
        }  # fmt: skip
        first = story.run(
            "first", deploy_revision=story.revision("1.0"), deploy_minimum_healthy_hosts=0
        )
        assert first.status == 0, first.said

        def taken() -> dict[str, list[str]]:
            """Have one of each kind taken away, as soon as there is one."""

            def ready() -> dict[str, list[str]] | None:
                now = statuses(story)
                kinds = {"Succeeded", "InProgress", "Pending"}
                return now if story.controller.deployments()[1:] and kinds <= set(now) else None

            now: dict[str, list[str]] = wait_for(ready)
            gone = {
                "Succeeded": now["Succeeded"][:1],
                "InProgress": now["InProgress"][-1:],
                "Pending": now["Pending"][-2:],
            }
            scaling = story.service.client("autoscaling")
            for name in [one for some in gone.values() for one in some]:
                scaling.terminate_instance_in_auto_scaling_group(
                    InstanceId=ids[name], ShouldDecrementDesiredCapacity=True
                )
            return gone

        with (
            concurrent.futures.ThreadPoolExecutor() as pool,
            story.users(),
            Reaper(story, ids) as reaper,
        ):
            future = pool.submit(lambda: story.fleet.inside(taken))
            run = story.run("update", deploy_revision=story.revision("2.0"))
            gone = future.result()
        left = statuses(story)
        calls = story.calls["update"]
    assert run.status == 0, run.said
    names = [one for some in gone.values() for one in some]
    assert sorted(reaper.reaped) == sorted(names)
    assert set(gone["Pending"]) <= set(left["Skipped"])
    assert sorted(left["Skipped"] + left["Succeeded"]) == sorted(ids)
    told = [one["action"] for one in calls if one["mutating"]]
    print(
        f"{len(names)} of {SIZE} taken away ({gone}); {told.count('DeregisterTargets')} "
        f"DeregisterTargets, {told.count('RegisterTargets')} RegisterTargets, "
        f"{told.count('CompleteLifecycleAction')} hooks answered; {story.load['sent']} requests, "
        f"{story.load['failed']} failed; {story.slow['sent']} slow ones, {story.slow['failed']} "
        "failed"
    )
    # One that is asked again, because the answer came late, refuses: that is no harm.
    assert told.count("CompleteLifecycleAction") >= len(names)
    story.check_users({"1.0", "2.0"})
    assert story.versions["update"] == [
        "nothing" if name in names else "2.0" for name in story.names
    ]
