# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What users write about an A/B test (``deploy_ab_test``), and the schedule that it is. Pure.

Two variants have a fixed split of the traffic for a time: the present revision and the new one. A
metric decides, or a person; then the winner gets everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ._configuration import parse_duration
from ._errors import UsageError
from ._schedule import BAKE, SHIFT, parse_schedule

LESS, MORE = "less", "more"
NAME = "deploy_ab_test"
_SPLIT, _DURATION = "50%", "1d"


@dataclass(frozen=True)
class AbTest:
    """A test: ``split`` is the percent of the new variant, ``duration`` the longest time (seconds).

    ``goal`` is a metric as a judge has it, with where its numbers come from; empty where a person
    decides. ``better`` says whether less or more of it is wanted.
    """

    split: float
    duration: float
    goal: dict[str, Any] = field(default_factory=dict)
    better: str = LESS


def parse_ab_test(value: Any) -> AbTest:
    """Read ``{split: 50%, duration: 1d, goal: {name, kind, better, …}}``; all may be left out.

    :raises UsageError: naming the key that does not fit; the goal's own are checked by the judge
    """
    if not isinstance(value, Mapping) or set(value) - {"split", "duration", "goal"}:
        raise UsageError(
            f"{NAME} is {value!r}; wanted is a mapping with split (50%), duration (1d) and goal "
            "(a metric as in deploy_judge; without one a person decides)."
        )
    [split, *_rest] = parse_schedule([{"shift": value.get("split", _SPLIT)}], f"{NAME}.split")
    if split["share"] >= 100:
        raise UsageError(f"{NAME}.split is {value['split']!r}; wanted is a share below 100%.")
    duration = parse_duration(value.get("duration", _DURATION), f"{NAME}.duration")
    if duration <= 0:
        raise UsageError(f"{NAME}.duration is {value['duration']!r}; wanted is some time.")
    goal = value.get("goal") or {}
    if not isinstance(goal, Mapping):
        raise UsageError(f"{NAME}.goal is {goal!r}; wanted is a metric as in deploy_judge.")
    better = goal.get("better", LESS)
    if better not in (LESS, MORE):
        raise UsageError(f"{NAME}.goal.better is {better!r}; wanted is less or more.")
    # Which side is the bad one is no question here.
    foreign = sorted({"direction", "test", "critical", "group", "spread"} & set(goal))
    if foreign:
        raise UsageError(f"{NAME}.goal has {foreign[0]}, which only a metric of deploy_judge has.")
    metric = {key: one for key, one in goal.items() if key != "better"}
    if metric:
        # A difference is a difference, unless a larger one is asked for.
        metric = {"ratio": 1.0, "tolerance": 0.0, **metric}
    return AbTest(split["share"], duration, metric, better)


def ab_schedule(test: AbTest) -> list[dict[str, Any]]:
    """Return the schedule of a test; its bake ends when what it has as ``decides`` has decided."""
    return [
        {"kind": SHIFT, "share": test.split},
        {"kind": BAKE, "seconds": test.duration, "decides": "metric" if test.goal else "person"},
        {"kind": SHIFT, "share": 100.0},
    ]


def gate_of(value: Any) -> dict[str, Any]:
    """Return the gate that decides a test, as ``deploy_gates`` would have it.

    :raises UsageError: the test does not fit
    """
    test = parse_ab_test(value)
    if not test.goal:
        waits = {"timeout": test.duration, "on_timeout": "stop", "ends_bake": True}
        return {"name": "ab_test", "type": "approval", **waits}
    own = {key: test.goal[key] for key in ("interval",) if key in test.goal}
    goal = {key: one for key, one in test.goal.items() if key not in own}
    return {
        "name": "ab_test", "type": "ab_test", "goal": goal, "better": test.better, **own,
    }  # fmt: skip
