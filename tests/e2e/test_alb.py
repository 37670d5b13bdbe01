"""Instances of EC2 behind an Application Load Balancer: a revision rolls through them under load.

The instances are real hosts in two target groups with other checks and delays; the load balancer
moves real requests and hears of everything two seconds late, as AWS's own do. One story, told once;
each test proves one claim of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.alb.rolling import Story, rolling

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = 8
FLOOR = 4
RATE = 100


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("alb")
    with rolling(folder, "application", size=SIZE, floor=FLOOR, rate=RATE) as story:
        first = story.run(
            "first", deploy_revision=story.revision("1.0"), deploy_minimum_healthy_hosts=0
        )
        assert first.status == 0, first.said
        good = story.revision("2.0")
        with story.users():
            story.run("plan", "--check", "--diff", deploy_revision=good)
            # The looks at the API are none of the plan's, and come after it.
            with story.watched():
                story.run("update", deploy_revision=good)
                # The first three take it and serve it; four failures leave no room for the last.
                story.run("bad", deploy_revision=story.revision("3.0", broken="h[4-8]"))
        yield story


def test_the_first_deployment_registers_every_instance(story: Story) -> None:
    assert story.versions["first"] == ["1.0"] * SIZE


def test_a_plan_makes_no_call_that_changes_anything(story: Story) -> None:
    assert story.runs["plan"].status == 0, story.runs["plan"].said
    assert story.calls["plan"], "the load balancer was asked"
    # Neither at the load balancer nor in CloudWatch nor at those who are told of deployments.
    assert not [one for one in story.calls["plan"] if one["mutating"]]
    told = {one["action"] for one in story.calls["update"] if one["mutating"]}
    assert told >= {"PutLogEvents", "PutMetricData", "PutEvents"}
    assert story.versions["plan"] == ["1.0"] * SIZE
    assert "h1: web healthy, web-internal healthy" in story.runs["plan"].said
    assert "h1: out of service" in story.runs["plan"].said


def test_an_update_reaches_every_instance(story: Story) -> None:
    assert story.runs["update"].status == 0, story.runs["update"].said
    assert story.versions["update"] == ["2.0"] * SIZE


def test_a_bad_revision_is_rolled_back_in_the_same_run(story: Story) -> None:
    run = story.runs["bad"]
    assert run.status != 0
    assert "the catalogue of 3.0 cannot be read" in run.said
    assert story.versions["bad"] == ["2.0"] * SIZE, run.said


def test_no_request_failed_and_none_in_flight_was_cut(story: Story) -> None:
    # Also from hosts that had taken the bad revision, served it and gave it back.
    story.check_users({"1.0", "2.0", "3.0"})


def test_the_floor_was_never_broken(story: Story) -> None:
    story.check_floor(FLOOR)


def test_targets_share_calls(story: Story) -> None:
    changes = story.changes("update")
    assert set(changes) == {"DeregisterTargets", "RegisterTargets"}
    at_most = 2 * SIZE * len(story.pools)
    assert len(changes) < at_most, "what happened at the same moment was one call"
