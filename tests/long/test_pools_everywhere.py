"""Blue/green and canary, good and bad, behind every load balancer, under 200 requests a second.

One story for each load balancer, told once: a good blue/green deployment, a bad one, a good canary
and a bad one, all by real playbooks, with the same schedules. Every request is kept with its time,
so that it can be held against what the record says of that time.
``POOLS_PROVIDERS=nginx,elbv2`` tells some of the stories.
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._shares import share_confirmed
from support.twopools import TwoPools, two_pools

if TYPE_CHECKING:
    from support.rollout import Run

PROVIDERS = os.environ.get("POOLS_PROVIDERS", "envoy,haproxy,nginx,elbv2").split(",")
RATE = 200
SHARE = 20.0
# A right share is refuted, and a count called too large, by one run in ten thousand.
ALPHA = 0.0001
SIGMAS = 3.72
TEST_ROUTE = {"header": "X-Bascule-Test", "value": "new"}
# (name, playbook, version, bad, pool that gets it, pool that is home when all is over)
RUNS = (
    ("blue/green", "blue_green", "2.0", False, "blue", "blue"),
    ("bad blue/green", "blue_green", "3.0", True, "green", "blue"),
    ("canary", "canary", "4.0", False, "green", "blue"),
    ("bad canary", "canary", "5.0", True, "green", "blue"),
)
BAD = [name for name, _playbook, _version, bad, *_pools in RUNS if bad]
GOOD = [name for name, _playbook, _version, bad, *_pools in RUNS if not bad]


@dataclass
class Told:
    """A deployment: what it said, its events, and who answered users when it was over."""

    run: Run
    id: str
    deployment: Any
    events: list[Any]
    trace: list[tuple[str, str, str]]
    targets: dict[str, str]
    after: dict[str, int]
    began: float
    ended: float

    def at(self, event: str, having: str = "") -> float:
        """Return when something was written down first."""
        return float(
            next(one.at for one in self.events if one.event == event and having in one.message)
        )


@dataclass
class Story:
    """All deployments behind one load balancer, and every request meanwhile."""

    told: dict[str, Told] = field(default_factory=dict)
    backs: dict[str, Told] = field(default_factory=dict)
    load: dict[str, Any] = field(default_factory=dict)
    requests: list[tuple[float, str, str]] = field(default_factory=list)

    def between(self, first: float, last: float) -> list[tuple[float, str, str]]:
        return [one for one in self.requests if first <= one[0] < last]


def steps(site: TwoPools, pool: str) -> list[dict[str, Any]]:
    """A test of the new pool before users see it, a share that is watched, and then all."""
    headers = {TEST_ROUTE["header"]: TEST_ROUTE["value"]}
    smoke = {
        "name": "smoke", "type": "http", "url": f"{site.proxy.url}/health",
        "headers": headers, "count": 1, "status": [200],
    }  # fmt: skip
    errors = {
        "name": "errors", "type": "proxy", "metric": "error_rate", "pool": pool,
        "success": "< 0.01", "interval": "500ms", "count": 3,
        # CloudWatch counts come seconds after the requests.
        "consecutive_error_limit": 60,
    }  # fmt: skip
    return [
        {"gate": smoke}, {"shift": f"{SHARE:g}%"}, {"bake": "3s"}, {"gate": errors},
        {"shift": "60%"}, {"bake": "2s"},
    ]  # fmt: skip


def tell(site: TwoPools, identifier: str, run: Run, after: dict[str, int]) -> Told:
    controller = site.controller
    return Told(
        run,
        identifier,
        next(one for one in controller.deployments() if one.id == identifier),
        controller.events(identifier),
        site.trace(identifier),
        {name: one.status for name, one in controller.targets(identifier).items()},
        after,
        run.started,
        run.ended,
    )


def story_of(provider: str, folder: Any) -> Story:
    story = Story()
    pools = {"blue": ["b1", "b2"], "green": ["g1", "g2"]}
    with two_pools(provider, folder, pools) as site:
        site.controller.timeout = 1200
        first = site.controller.playbook("blue_green", deploy_revision=site.revision("1.0"))
        assert first.status == 0, first.said
        end = site.load(RATE)
        for name, playbook, version, bad, pool, _home in RUNS:
            known = {one.id for one in site.controller.deployments()}
            run = site.controller.playbook(
                playbook,
                deploy_revision=site.revision(version, bad=bad),
                deploy_schedule=steps(site, pool),
                deploy_test_route=TEST_ROUTE,
            )
            after = site.ask(20)
            new = [one for one in site.controller.deployments() if one.id not in known]
            assert new, run.said
            story.told[name] = tell(site, new[-1].id, run, after)
            if len(new) > 1:
                story.backs[name] = tell(site, new[0].id, run, after)
        time.sleep(1)
        story.load = end()
        for line in (folder / "load-0.log").read_text().splitlines():
            at, answered, how = line.split("\t")
            story.requests.append((float(at), answered, how))
    return story


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Story]:
    told = {}
    for provider in PROVIDERS:
        told[provider] = story_of(provider, tmp_path_factory.mktemp(provider))
        print(f"\n{provider}: {figures(told[provider])}")
    return told


def figures(story: Story) -> str:
    """Say what was measured, for people."""
    load = story.load
    lines = [f"{load['sent']} requests, {load['failed']} failed, {load['versions']}"]
    for name, told in story.told.items():
        lines.append(f"{name}: {told.deployment.status} in {told.ended - told.began:.1f} s")
        for share, window in windows(told):
            counts = Counter(version for _at, version, _how in story.between(*window))
            lines.append(f"  {share}: {dict(counts)}")
        if name in story.backs:
            bad, allowed, verdict, back = exposed(story, name)
            lines.append(
                f"  {bad} bad answers; share x requests until all were home {allowed:.0f}; "
                f"{verdict:.1f} s to the verdict, {back:.2f} s more until all were home"
            )
    return "\n  ".join(lines)


def windows(told: Told) -> list[tuple[dict[str, float], tuple[float, float]]]:
    """Return each share with the time in which it was seen to hold: its bakes."""
    found = []
    weights: dict[str, float] = {}
    began = 0.0
    for one in told.events:
        if one.event == "TrafficRouted":
            weights = {
                pool: float(share.rstrip("%"))
                for pool, share in (part.split(" ") for part in one.message.split(", "))
            }
        if one.event == "StepStarted" and ". bake" in one.message:
            began = one.at
        if one.event == "StepEnded" and ". bake" in one.message:
            found.append((weights, (began, one.at)))
    return found


def exposed(story: Story, name: str) -> tuple[int, float, float, float]:
    """Return how many bad answers there were, and the share of all requests of that time.

    The time is from the beginning of the shift until all traffic was seen at home again; returned
    are also the seconds until the verdict, and those from there on.
    """
    told = story.told[name]
    version = next(row[2] for row in RUNS if row[0] == name)
    shifted = told.at("StepStarted", f"shift {SHARE:g}%")
    verdict = [one.at for one in told.events if one.event == "GatesDecided"][-1]
    home = next(one.at for one in told.events if one.event == "TrafficRouted" and one.at > verdict)
    asked = len(story.between(shifted, home))
    bad = sum(one == version for _at, one, _how in story.requests)
    return bad, SHARE / 100 * asked, verdict - shifted, home - verdict


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_deployment_ends_as_it_should(stories: dict[str, Story], provider: str) -> None:
    last = "1.0"
    for name, _playbook, version, bad, pool, home in RUNS:
        told = stories[provider].told[name]
        assert bool(told.run.status) == bad, told.run.said
        assert told.deployment.plan["pools"]["new"] == pool, told.run.said
        last = last if bad else version
        assert told.after == {last: 20}, told.run.said
        routed = [one.message for one in told.events if one.event == "TrafficRouted"]
        other = "green" if home == "blue" else "blue"
        assert routed[-1] == ", ".join(
            f"{one} {100 if one == home else 0}%" for one in sorted((home, other))
        )


@pytest.mark.parametrize("provider", PROVIDERS)
def test_no_request_failed_but_at_the_bad_version_itself(
    stories: dict[str, Story], provider: str
) -> None:
    story = stories[provider]
    bad = {row[2] for row in RUNS if row[3]}
    failed = [one for one in story.requests if one[2] != "ok"]
    assert [one for one in failed if one[1] not in bad] == []
    assert [one for one in story.requests if one[1] in bad and one[2] == "ok"] == []
    assert len(failed) == story.load["failed"] > 0
    assert story.load["sent"] >= 0.9 * RATE * story.load["seconds"], story.load


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("provider", PROVIDERS)
def test_bad_answers_stay_below_the_share_until_the_verdict(
    stories: dict[str, Story], provider: str, name: str
) -> None:
    story = stories[provider]
    assert story.told[name].deployment.error_code == "GATE_FAILED", story.told[name].run.said
    bad, allowed, _verdict, _back = exposed(story, name)
    assert bad > 0
    # Who is sent where is a draw for each request: so much more than the mean it may be.
    margin = SIGMAS * math.sqrt(allowed * (1 - SHARE / 100))
    assert bad <= allowed + margin, figures(story)


@pytest.mark.parametrize("name", [row[0] for row in RUNS])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_users_see_the_shares_that_the_schedule_says(
    stories: dict[str, Story], provider: str, name: str
) -> None:
    story = stories[provider]
    told = story.told[name]
    new = told.deployment.plan["pools"]["new"]
    version = next(row[2] for row in RUNS if row[0] == name)
    seen = windows(told)
    assert [weights[new] for weights, _window in seen] == ([20.0] if name in BAD else [20.0, 60.0])
    for weights, window in seen:
        counts = Counter(one for _at, one, _how in story.between(*window))
        share = weights[new]
        shares = share_confirmed(
            {"new": counts[version], "old": sum(counts.values()) - counts[version]},
            {"new": share, "old": 100 - share},
            ALPHA,
        )
        assert shares.confirmed, shares.describe()


@pytest.mark.parametrize("name", [row[0] for row in RUNS])
def test_the_same_schedule_gives_the_same_trace_everywhere(
    stories: dict[str, Story], name: str
) -> None:
    told = [story.told[name] for story in stories.values()]
    assert all(one.trace == told[0].trace for one in told[1:])
    assert all(one.targets == told[0].targets for one in told[1:])
    assert [text for event, _status, text in told[0].trace if event == "StepStarted"]
    if name in BAD:
        backs = [story.backs[name] for story in stories.values()]
        assert all(one.trace == backs[0].trace for one in backs[1:])
        assert all(one.targets == backs[0].targets for one in backs[1:])
        assert {one.deployment.status for one in backs} == {"Succeeded"}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_traffic_is_home_before_anything_else_is_done(
    stories: dict[str, Story], provider: str, name: str
) -> None:
    events = [one.event for one in stories[provider].told[name].events if not one.target]
    verdict = len(events) - 1 - events[::-1].index("GatesDecided")
    after = [one for one in events[verdict + 1 :] if one not in ("Halted", "GateDecided")]
    assert after[0] == "TrafficRouted", events
