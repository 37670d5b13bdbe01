"""Blue/green and canary deployments behind real proxies, under load, with good and bad revisions.

One story a proxy, told once; each test proves one claim of it.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._pools import (
    ALLOW_EVENTS,
    BLOCK_EVENTS,
)
from ansible_collections.bascule.deploy.plugins.module_utils._shares import share_confirmed
from support.rollout import BIN, ROOT, kill_controller
from support.twopools import TwoPools, all_counted, two_pools, until

import bascule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from support.rollout import Run

RATE = 200
JUDGE = {
    "interval": "500ms",
    "metrics": [{"name": "errors", "kind": "rate", "critical": True}],
}
TEST_ROUTE = {"header": "X-Bascule-Test", "value": "new"}


@dataclass
class Story:
    """What the runs said, and what users saw meanwhile."""

    site: TwoPools
    runs: dict[str, Run] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    answers: dict[str, dict[str, int]] = field(default_factory=dict)
    load: dict[str, Any] = field(default_factory=dict)

    def run(self, name: str, playbook: str, **variables: Any) -> None:
        known = {one.id for one in self.site.controller.deployments()}
        self.runs[name] = self.site.controller.playbook(playbook, **variables)
        new = [
            one.id
            for one in self.site.controller.deployments()
            # A fresh baseline is a deployment of its own.
            if one.id not in known and "then" not in one.options
        ]
        self.ids[name] = new[-1] if new else ""
        self.answers[name] = self.site.ask(20)

    def begin(self, *, logged: bool = False) -> Callable[[], dict[str, Any]]:
        """Deploy 1.0, let users come, and bring 2.0 step by step; returns what ends the load.

        :param logged: both have hooks around the traffic
        """
        self.run("first", "blue_green", deploy_revision=self.site.revision("1.0", logged=logged))
        end = self.site.load(RATE)
        self.run(
            "update",
            "blue_green",
            deploy_revision=self.site.revision("2.0", logged=logged),
            deploy_schedule=schedule(self.site),
            deploy_test_route=TEST_ROUTE,
            deploy_retire="drain",
        )
        return end

    def ended(self, name: str) -> Any:
        return next(d for d in self.site.controller.deployments() if d.id == self.ids[name])


def schedule(site: TwoPools) -> list[dict[str, Any]]:
    """A test of the new pool before users see it, then a share, then all."""
    headers = {TEST_ROUTE["header"]: TEST_ROUTE["value"]}
    smoke = {
        "name": "smoke", "type": "http", "url": f"{site.proxy.url}/", "headers": headers,
        "count": 1, "status": [200],
    }  # fmt: skip
    return [{"gate": smoke}, {"shift": "20%"}, {"bake": "2s"}, {"shift": "100%"}]


def errors_of(pool: str) -> dict[str, Any]:
    """A gate that a pool passes whose errors are few."""
    return {
        "gate": {
            "name": "errors", "type": "proxy", "metric": "error_rate", "pool": pool,
            "success": "< 0.01", "interval": "500ms", "count": 3,
        }
    }  # fmt: skip


def kill_in_step(site: TwoPools, told: str, **variables: Any) -> str:
    """Begin a blue/green deployment, and kill its controller in the step that is told."""
    known = {one.id for one in site.controller.deployments()}
    process = site.start("blue_green", **variables)
    try:

        def step() -> str:
            for one in site.controller.deployments():
                if one.id not in known and (told, "InProgress") in site.steps(one.id):
                    return str(one.id)
            return ""

        return str(until(step, 180))
    finally:
        kill_controller(process, site.controller.state)


@pytest.fixture(scope="module")
def envoy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Blue/green: two good revisions, a bad one, a killed controller, and the way back."""
    folder = tmp_path_factory.mktemp("envoy")
    pools = {"blue": ["b1", "b2"], "green": ["g1", "g2"]}
    with two_pools("envoy", folder, pools) as site:
        story = Story(site)
        end = story.begin(logged=True)
        story.run(
            "bad",
            "blue_green",
            deploy_revision=site.revision("3.0", bad=True, logged=True),
            deploy_schedule=[{"shift": "20%"}, errors_of("green"), {"shift": "100%"}],
        )
        again = {
            "deploy_revision": site.revision("4.0"),
            "deploy_schedule": [{"shift": "40%"}, {"bake": "4s"}, {"shift": "100%"}],
        }
        story.ids["killed"] = kill_in_step(site, "bake for 4s", **again)
        story.answers["killed"] = site.ask(100)
        story.run("resumed", "blue_green", deployment_id=story.ids["killed"], **again)
        story.run("back", "rollback")
        story.load = end()
        yield story


@pytest.fixture(scope="module")
def haproxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """The same update at another load balancer, then a canary that is bad."""
    folder = tmp_path_factory.mktemp("haproxy")
    pools = {"blue": ["b1", "b2"], "green": ["g1", "g2"]}
    with two_pools("haproxy", folder, pools) as site:
        story = Story(site)
        end = story.begin()
        story.run(
            "bad",
            "canary",
            deploy_revision=site.revision("3.0", bad=True),
            deploy_schedule=[{"shift": "20%"}, {"bake": "1h"}],
            deploy_canary_baseline="fresh",
            deploy_judge=JUDGE,
        )
        story.load = end()
        yield story


def test_every_revision_comes_to_its_users(envoy: Story, haproxy: Story) -> None:
    for story, wanted in (
        (envoy, {"first": "1.0", "update": "2.0", "bad": "2.0", "resumed": "4.0", "back": "2.0"}),
        (haproxy, {"first": "1.0", "update": "2.0", "bad": "2.0"}),
    ):
        for name, version in wanted.items():
            assert story.answers[name] == {version: 20}, story.runs[name].said
            assert bool(story.runs[name].status) == (name == "bad"), story.runs[name].said


def test_only_the_bad_version_itself_has_failed_users(envoy: Story, haproxy: Story) -> None:
    for story in (envoy, haproxy):
        load = story.load
        assert load["failed"] == load["versions"].get("3.0", 0), load
        assert set(load["versions"]) >= {"1.0", "2.0"}, load


def test_the_same_schedule_gives_the_same_trace_everywhere(envoy: Story, haproxy: Story) -> None:
    traces = [story.site.trace(story.ids["update"]) for story in (envoy, haproxy)]
    assert traces[0] == traces[1]
    assert [text for event, _status, text in traces[0] if event == "TrafficRouted"] == [
        "blue 0%, green 100%",
        "blue 20%, green 80%",
        "blue 100%, green 0%",
    ]
    assert [text for event, _status, text in traces[0] if event == "StepEnded"] == [
        "1. see the targets of blue in service",
        "2. open the test route to blue",
        "3. ask the gate smoke",
        "4. shift 20% of the traffic to blue, 80% stays on green",
        "5. bake for 2s",
        "6. shift 100% of the traffic to blue",
        "7. retire green (drain)",
    ]


LOGICAL = ("StepStarted", "StepEnded", "TrafficRouted", "GatesDecided", "Halted", "Finished")


def in_short(events: Iterable[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """The logical events of a deployment, with what they say before any numbers."""
    return [
        (
            one["event"],
            one["status"],
            "" if one["event"] in ("GatesDecided", "Finished") else one["message"].split(": ")[0],
        )
        for one in events
        if one["event"] in LOGICAL
    ]


def recorded(story: Story, name: str) -> list[tuple[str, str, str]]:
    """The logical events of a real deployment, and of its rollback."""
    ended = story.ended(name)
    found: list[tuple[str, str, str]] = []
    for one in (ended.id, ended.rolled_back_by):
        events = story.site.controller.events(one) if one else []
        found += in_short(
            {
                "event": event.event,
                "status": event.status,
                "message": event.error_code if event.event == "Halted" else event.message,
            }
            for event in events
        )
    return found


@pytest.mark.parametrize("name", ["update", "bad"])
@pytest.mark.parametrize("provider", ["envoy", "haproxy"])
def test_the_simulator_foretells_the_events_and_the_verdict(
    provider: str, name: str, request: pytest.FixtureRequest
) -> None:
    story: Story = request.getfixturevalue(provider)
    live, idle = ("green", "blue") if name == "update" else ("blue", "green")
    given: dict[str, Any] = {
        "deploy_traffic_pools": {live: {}, idle: {}},
        "deploy_judge": False,
        "deploy_schedule": [{"shift": "20%"}, errors_of("green"), {"shift": "100%"}],
    }
    if name == "update":
        given["deploy_schedule"] = schedule(story.site)
        given |= {"deploy_test_route": TEST_ROUTE, "deploy_retire": "drain"}
    elif provider == "haproxy":
        given |= {"deploy_schedule": [{"shift": "20%"}, {"bake": "1h"}], "deploy_judge": JUDGE}
    ended = story.ended(name)
    found = bascule.simulate(
        ended.strategy,
        fleet={"targets": 2, "canaries": 2} if ended.strategy == "canary" else {"targets": 2},
        traffic={"requests": RATE, "error_rate": 0},
        defect={"errors": "100%"},
        variables=given,
        asked={"gate": 0},
        runs=5,
    )["strategies"][0]["good" if name == "update" else "bad"]
    assert in_short(found["trace"]) == recorded(story, name)
    assert found["succeeded"] == (ended.status == "Succeeded"), "the verdict of all runs"
    if provider == "haproxy" and name == "bad":
        assert found["stopped_by"] == {"judge": 1.0}
        events = story.site.controller.events(ended.id)
        begun = next(one.at for one in events if one.message.endswith("bake for 1h"))
        halted = next(one.at for one in events if one.event == "Halted")
        simulated = {
            one["event"]: one["at"] for one in found["trace"] if one["deployment"] != "rollback"
        }
        # It looks at the same moments; a real one also waits for the load balancer and the record.
        bake = next(one["at"] for one in found["trace"] if one["message"].endswith("bake for 1h"))
        assert halted - begun >= simulated["Halted"] - bake - 0.5


def test_a_pool_of_canaries_is_judged_beside_its_fresh_baseline(haproxy: Story) -> None:
    bad = haproxy.ended("bad")
    assert sorted(bad.plan["baseline"]["targets"]) == ["b1", "b2"]
    with haproxy.site.controller.record() as record:
        looks = [one.data["look"] for one in record.gate_decisions(bad.id) if "look" in one.data]
        baseline = record.deployment(bad.options["baseline"])
    assert (baseline.status, baseline.revision.digest) == ("Succeeded", bad.previous_digest)
    counted = all_counted(looks, "errors")
    assert counted["canary"]["bad"] == counted["canary"]["total"] > 0
    assert counted["baseline"]["bad"] == 0 < counted["baseline"]["total"]
    # The shares that are checked are those of the pools, which the schedule gives them.
    assert {(look["share"], *sorted(look["assignments"])) for look in looks} == {
        (0.2, "baseline", "canary")
    }
    replayed = haproxy.site.controller.command("judge", "replay", bad.id)
    assert "the same, bit by bit" in replayed.said


def test_the_pools_take_turns(envoy: Story) -> None:
    new = [envoy.ended(name).plan["pools"]["new"] for name in ("first", "update", "bad", "killed")]
    assert new == ["green", "blue", "green", "green"]


def test_the_realised_share_was_seen_in_requests(envoy: Story, haproxy: Story) -> None:
    for story in (envoy, haproxy):
        events = story.site.controller.events(story.ids["update"])
        shown = [e.message for e in events if e.event == "StepEnded" and ". shift " in e.message]
        assert len(shown) == 2
        assert all("requests: " in message and "interval" in message for message in shown), shown


def test_a_failing_gate_brings_the_traffic_back_before_all_else(
    envoy: Story, haproxy: Story
) -> None:
    for story, home in ((envoy, "blue"), (haproxy, "blue")):
        deployment = story.ended("bad")
        assert deployment.error_code == "GATE_FAILED", deployment.error_message
        events = [e.event for e in story.site.controller.events(deployment.id) if not e.target]
        verdict = events.index("GatesDecided")
        after = [e for e in events[verdict + 1 :] if e not in ("Halted", "GateDecided")]
        assert after[0] == "TrafficRouted", events
        assert story.site.weights(deployment.id)[-1][home] == 100.0
        back = next(
            d for d in story.site.controller.deployments() if d.id == deployment.rolled_back_by
        )
        assert (back.status, back.creator) == ("Succeeded", "codeDeployRollback")
        assert back.rollback_of == deployment.id


def test_the_way_back_of_blue_green_touches_no_target(envoy: Story) -> None:
    back = envoy.ended("bad").rolled_back_by
    assert envoy.site.controller.targets(back) == {}
    assert envoy.site.steps(back) == [("shift 100% of the traffic to blue", "Succeeded")]


def ran(story: Story, deployment: str) -> list[str]:
    """The hooks around the traffic in their order, pool after pool.

    A pool's targets run theirs side by side: each has the same order of its own.
    """
    pools: dict[str, dict[str, list[str]]] = {}
    for line in story.site.hooks(deployment):
        event, target, version, pool = line.split()
        # A pool that has had its turn is not seen again.
        assert pool not in list(pools)[:-1], line
        pools.setdefault(pool, {}).setdefault(target, []).append(f"{event} {version} {pool}")
    for pool, targets in pools.items():
        assert sorted(targets) == story.site.pools[pool]
        assert len({tuple(hooks) for hooks in targets.values()}) == 1, targets
    return [hook for targets in pools.values() for hook in next(iter(targets.values()))]


def test_both_pools_run_their_hooks_around_the_traffic(envoy: Story) -> None:
    assert ran(envoy, envoy.ids["update"]) == [
        "AfterAllowTestTraffic 2.0 blue",
        "BeforeAllowTraffic 2.0 blue",
        "AfterAllowTraffic 2.0 blue",
        "BeforeBlockTraffic 1.0 green",
        "AfterBlockTraffic 1.0 green",
    ]
    bad = envoy.ended("bad")
    assert ran(envoy, bad.id) == ["BeforeAllowTraffic 3.0 green"], "it came no further"
    # The traffic is back before any hook runs, and hooks of both targets are in the record.
    events = envoy.site.controller.events(bad.rolled_back_by)
    routed = next(one.sequence for one in events if one.event == "TrafficRouted")
    hooks = [one for one in events if one.kind == "lifecycle"]
    assert min(one.sequence for one in hooks) > routed
    assert sorted({(one.target, one.event) for one in hooks}) == [
        *((name, event) for name in ("b1", "b2") for event in sorted(ALLOW_EVENTS)),
        *((name, event) for name in ("g1", "g2") for event in sorted(BLOCK_EVENTS)),
    ]
    assert {one.status for one in hooks} == {"Succeeded"}
    assert envoy.ended("update").plan["pools"]["leaving_hooks"] == list(BLOCK_EVENTS)


def test_a_bad_canary_gets_the_revision_back_that_it_had(haproxy: Story) -> None:
    bad = haproxy.ended("bad")
    status = {name: one.status for name, one in haproxy.site.controller.targets(bad.id).items()}
    assert status == {"g1": "Succeeded", "g2": "Succeeded", "b1": "Skipped", "b2": "Skipped"}
    back = haproxy.site.controller.targets(bad.rolled_back_by)
    assert {name: one.status for name, one in back.items()} == {
        "g1": "Succeeded",
        "g2": "Succeeded",
    }


def test_a_killed_controller_is_taken_up_where_it_stood(envoy: Story) -> None:
    identifier = envoy.ids["killed"]
    seen = envoy.answers["killed"]
    assert set(seen) == {"2.0", "4.0"}
    assert share_confirmed(seen, {"2.0": 60.0, "4.0": 40.0}, 0.0001).confirmed, seen
    assert envoy.ended("killed").status == "Succeeded"
    events = [
        (one.event, one.message.partition(": ")[0])
        for one in envoy.site.controller.events(identifier)
        if one.event in ("StepStarted", "StepResumed", "TakenOver")
    ]
    assert [event for event, _text in events].count("TakenOver") == 1
    assert ("StepResumed", "3. bake for 4s") in events
    started = [text for event, text in events if event == "StepStarted"]
    assert len(started) == len(set(started)), "no step was begun anew"
    assert envoy.site.weights(identifier) == [
        {"green": 40.0, "blue": 60.0},
        {"green": 100.0, "blue": 0.0},
    ]


def test_a_plan_tells_pools_steps_and_routing(envoy: Story, tmp_path: Path) -> None:
    run = envoy.site.controller.playbook(
        "blue_green",
        "--check",
        "--diff",
        deploy_revision=envoy.site.folder / "revisions" / "4.0",
        deploy_schedule="CodeDeployDefault.LambdaCanary10Percent5Minutes",
        deploy_plan_output=str(tmp_path / "plan.json"),
    )
    assert run.status == 0, run.said
    for text in (
        "Traffic before: blue 100%, green 0%",
        "Traffic after: blue 0%, green 100%",
        "BeforeBlockTraffic and AfterBlockTraffic run on blue once users left.",
        "2. shift 10% of the traffic to green, 90% stays on blue",
        "3. bake for 5m",
    ):
        assert text in run.said, run.said
    assert any(line.startswith("+green: 10 %") for line in run.said.splitlines()), run.said
    assert envoy.site.ask(10) == {"2.0": 10}
    saved = json.loads((tmp_path / "plan.json").read_text())
    assert [step["kind"] for step in saved["plan"]["schedule"]] == [
        "pool", "shift", "bake", "shift",
    ]  # fmt: skip


def test_the_status_of_a_deployment_shows_its_steps(envoy: Story) -> None:
    told = subprocess.run(
        [BIN / "bascule", "status", envoy.ids["update"]],
        cwd=ROOT,
        env={**os.environ, "BASCULE_STATE": str(envoy.site.controller.state)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "shift 20% of the traffic to blue" in told, told
