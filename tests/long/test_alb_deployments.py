"""Whole deployments behind every kind of load balancer of AWS, while its API throttles, under load.

Each: a revision that reaches all, then one that some hosts take and serve before others fail it,
and that is rolled back in the same run. The story that is told of an Application Load Balancer
without throttling is in ``tests/e2e/test_alb.py``.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from support.alb.rolling import RATE, rolling
from support.alb_pools import Balancer
from support.twopools import two_pools

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 8
# Seconds until CloudWatch hears of requests.
LATE = 30.0


@pytest.mark.parametrize(
    ("kind", "floor", "broken", "throttle"),
    [
        # Three take it, then four failures leave no room for the last.
        ("application", 4, "h[4-8]", 0.3),
        ("network", 4, "h[4-8]", 0.0),
        ("classic", 4, "h[4-8]", 0.0),
        ("network", 4, "h[4-8]", 0.3),
        ("classic", 4, "h[4-8]", 0.3),
        # One at a time, and one failure in the middle is too much: four go back from it.
        ("application", 7, "h5", 0.0),
        # It fails everywhere at once; nobody has served it.
        ("application", 4, "h*", 0.3),
    ],
)
def test_no_request_is_lost_and_every_target_comes_back(
    tmp_path: Path, kind: str, floor: int, broken: str, throttle: float
) -> None:
    with rolling(tmp_path, kind, size=SIZE, floor=floor) as story:
        first = story.run(
            "first", deploy_revision=story.revision("1.0"), deploy_minimum_healthy_hosts=0
        )
        assert first.status == 0, first.said
        with story.users(), story.watched():
            story.fleet.inside(lambda: story.service.throttle(throttle))
            good = story.run("good", deploy_revision=story.revision("2.0"))
            bad = story.run("bad", deploy_revision=story.revision("3.0", broken=broken))
            story.fleet.inside(lambda: story.service.throttle(0.0))
    for name in ("good", "bad"):
        calls = Counter(
            (one["action"], "refused" if one["throttled"] else "done")
            for one in story.calls[name]
            if one["service"] == "elasticloadbalancing"
        )
        told = ", ".join(f"{action} {end} {n}" for (action, end), n in sorted(calls.items()))
        run = story.runs[name]
        print(f"{name}: {run.ended - run.started:.0f} s: {told}")
    samples = {pool: [sample[pool] for sample in story.samples] for pool in story.pools}
    print(
        f"{kind}, floor {floor}, throttled {throttle:.0%}: {story.load['sent']} requests, "
        f"{story.load['failed']} failed; {story.slow['sent']} slow ones, {story.slow['failed']} "
        f"failed; fewest healthy of {len(story.samples)} samples: "
        f"{[min(seen) for seen in samples.values()]}"
    )
    assert good.status == 0, good.said
    assert story.versions["good"] == ["2.0"] * SIZE
    assert bad.status != 0
    assert "the catalogue of 3.0 cannot be read" in bad.said
    assert story.versions["bad"] == ["2.0"] * SIZE, bad.said
    story.check_users({"1.0", "2.0"} | ({"3.0"} if broken != "h*" else set()))
    story.check_floor(floor)
    assert bool(throttle) == any(one["throttled"] for one in story.calls["bad"])


def test_two_target_groups_take_turns_and_the_old_one_is_left_until_users_are_seen_elsewhere(
    tmp_path: Path,
) -> None:
    pools = {"blue": ["b1", "b2"], "green": ["g1", "g2"]}
    given = {"deploy_retire": "drain", "deploy_schedule": [{"shift": "20%"}, {"bake": "2s"}]}
    with two_pools("elbv2", tmp_path, pools, **given) as site:
        assert isinstance(site.proxy, Balancer)
        service, listener = site.proxy.service, site.proxy.site
        site.controller.timeout = 900
        # There are no users yet, who could be seen anywhere.
        first = site.controller.playbook(
            "blue_green", deploy_revision=site.revision("1.0"), deploy_share_timeout="0s"
        )
        assert first.status == 0, first.said
        service.tell_late(LATE)
        end = site.load(RATE / 4)
        seen = {}
        for version in ("2.0", "3.0"):
            service.forget_calls()
            run = site.controller.playbook("blue_green", deploy_revision=site.revision(version))
            assert run.status == 0, run.said
            seen[version] = site.ask(20)
            deployment = site.controller.deployments()[0].id
            with contextlib.closing(site.controller.record()) as record:
                steps = {one.told: one for one in record.steps(deployment)}
            [told] = [text for text in steps if "shift 100%" in text]
            retired = [one["at"] for one in service.calls() if one["action"] == "DeregisterTargets"]
            shift = steps[told]
            print(f"{version}: {shift.message} after {shift.ended_at - shift.started_at:.0f} s")
            # A minute that began after the shift, and then the time until it is told.
            minute = math.ceil(shift.started_at / 60) * 60
            assert min(retired) >= minute + LATE
            assert "100.00% (wanted 100.00%" in shift.message
            states = {
                group["TargetGroupName"]: listener.states(group["TargetGroupArn"])
                for group in listener.elbv2.describe_target_groups()["TargetGroups"]
            }
            assert sorted(states.values()) == [[], ["healthy", "healthy"]], states
        load = end()
    assert seen == {"2.0": {"2.0": 20}, "3.0": {"3.0": 20}}
    assert load["failed"] == 0, load
