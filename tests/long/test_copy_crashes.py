"""A controller that is killed while a group is copied, held still, settled or let go again.

The call is left without an answer, done or not, the controller gets a kill -9, and whoever comes
next finishes the work: nothing is copied twice, nothing stays suspended, nobody is left behind.
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest
from support.bundles import files
from support.copied_group import SIZE, Shop, shopping

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Each call of AWS that changes a group, once before and once after it is done. Two groups are
# suspended and resumed: the first such call is met, and so the other one has not been made.
POINTS = [
    (action, done)
    for action in (
        "CreateAutoScalingGroup", "SuspendProcesses", "AttachLoadBalancerTargetGroups",
        "DeleteAutoScalingGroup", "ResumeProcesses",
    )
    for done in (False, True)
]  # fmt: skip


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with shopping(tmp_path_factory.mktemp("shop")) as made:
        yield made


def wait_for(what: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 300
    while not what():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


@pytest.mark.parametrize(("action", "done"), POINTS)
def test_whoever_comes_next_finishes_the_work(shop: Shop, action: str, done: bool) -> None:
    [live] = shop.instances()
    other = {"blue": "green", "green": "blue"}[live]
    name = f"{action}-{done}"
    revision = files(shop.folder / name, {"text": f"{name}\n"})
    shop.service.forget_calls()
    shop.service.stall(action, done=done)
    log = shop.folder / f"{name}.log"
    try:
        process = shop.start(revision, log)
        wait_for(shop.service.stalled, process, log)
        shop.kill(process)
        assert process.returncode == -signal.SIGKILL
    finally:
        shop.service.stall()

    left = [one for one in shop.controller.deployments() if not one.is_final]
    if left:
        run = shop.controller.command(
            "resume", left[0].id, "-i", str(shop.controller.inventory), "--targets", "shop"
        )
    elif action == "ResumeProcesses":
        # It had succeeded: what it still holds is all that is left to be given up.
        run = shop.controller.command("abandon", shop.controller.deployments()[0].id)
    else:
        # Nothing had been opened yet.
        run = shop.controller.playbook("blue_green", deploy_revision=revision)
    assert run.status == 0, run.said
    after = shop.instances()
    assert {pool: len(found) for pool, found in after.items()} == {other: SIZE}, run.said
    assert [shop.text(one) for one in after[other]] == [f"{name}\n"] * SIZE
    assert shop.answering() == {other}
    made = [one for one in shop.service.calls() if one["action"] == "CreateAutoScalingGroup"]
    # A call that was never answered was not done: it is made again.
    again = action == "CreateAutoScalingGroup" and not done
    assert len(made) == 1 + again
    [group] = shop.scaling.describe_auto_scaling_groups()["AutoScalingGroups"]
    assert group["TargetGroupARNs"] == [shop.groups[other]]
    assert shop.suspended() == []
    with shop.controller.record() as record:
        newest = record.deployments(limit=1)[0]
        assert newest.status == "Succeeded"
        assert record.holds_of([one.id for one in record.deployments(limit=100)]) == []
