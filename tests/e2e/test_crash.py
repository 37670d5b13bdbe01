"""The controller is killed in the middle of a deployment, and `bascule resume` goes on.

The points are those that an undisturbed run passes: each commit that writes an event to the
record, before and after it, and each hook while it runs. One deployment is disturbed at every few
of them in turn; ``make test-crash`` takes every one, and all sides of both stories, which takes its
time.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from support.crashes import STRIDE, Scene, scene

if TYPE_CHECKING:
    from pathlib import Path


def undisturbed(folder: Path, sides: str, *, bad: bool) -> tuple[dict[str, Any], set[str], Any]:
    """Return how the story ends by itself, its points, and how often each hook ran."""
    with scene(folder) as quiet:
        run = quiet.deploy(quiet.release("2.0", bad=bad), "list", sides)
        assert run.status == (2 if bad else 0), run.said
        ended = comparable(quiet)
        hooks = Counter((target, event) for target, _id, event in quiet.marks().elements())
    assert quiet.load["failed"] == 0, quiet.load
    return ended, set(quiet.points()), hooks


def comparable(seen: Scene) -> dict[str, Any]:
    """Return the ending without the ports, which differ from scene to scene."""
    ending = seen.ending()
    ending["balancer"] = [health for _port, health in ending["balancer"]]
    return ending


@pytest.mark.parametrize(
    ("bad", "sides"),
    [(False, "during"), (True, "after")],
    ids=["a good release, in its hooks", "a bad release and its rollback, after commits"],
)
def test_resumed_at_any_point_it_ends_as_if_nothing_had_happened(
    tmp_path: Path, bad: bool, sides: str
) -> None:
    sides = os.environ.get("CRASH_SIDES", sides)
    expected, points, hooks = undisturbed(tmp_path / "quiet", sides, bad=bad)
    with scene(tmp_path / "disturbed") as disturbed:
        release = disturbed.release("2.0", bad=bad)
        run = disturbed.deploy(release, "kill", sides)
        crashes = 1
        while run.killed and disturbed.open_deployment() is None and crashes < 4:
            # It was killed before there was anything to go on with, or after everything was done.
            if len(disturbed.ending()["deployments"]) > 1:
                break
            run = disturbed.deploy(release, "kill", sides)
            crashes += 1
        seen = disturbed.points()
        while (left := disturbed.open_deployment()) is not None:
            run = disturbed.resume(left, "kill", sides)
            crashes += 1
            passed = disturbed.points()
            assert passed != seen or disturbed.open_deployment() is None, run.said
            seen = passed
        ended = comparable(disturbed)
        ran = disturbed.marks()
    # A target that had come to its end before the crash is found to be so, and settled by that.
    passed = {point.replace(" Current ", " Settled ") for point in disturbed.points()}
    assert points <= passed, points - passed
    assert ended == expected
    # Not even the hook that ran when its controller was killed is run again.
    assert set(ran.values()) == {1}, ran
    assert Counter((target, event) for target, _id, event in ran.elements()) == hooks
    assert disturbed.load["failed"] == 0, disturbed.load
    assert crashes > len(points) / STRIDE / 2
