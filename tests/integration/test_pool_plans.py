"""Plans, steps and ways back of deployments between pools, with a real record and cache."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.bascule.deploy.plugins.module_utils._errors import BasculeError, UsageError
from ansible_collections.bascule.deploy.plugins.plugin_utils._closing import (
    Closed,
    close_deployment,
    is_paused,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._history import left_open
from ansible_collections.bascule.deploy.plugins.plugin_utils._joining import (
    by_users,
    open_follow_up,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._opening import (
    Opened,
    open_deployment,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._outdated import group_targets
from ansible_collections.bascule.deploy.plugins.plugin_utils._planning import Endpoint
from ansible_collections.bascule.deploy.plugins.plugin_utils._pooling import Observed
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Record
from ansible_collections.bascule.deploy.plugins.plugin_utils._settings import public_variables
from support.bundles import files

if TYPE_CHECKING:
    from pathlib import Path

ALB = {
    "deploy_traffic_provider": "elbv2",
    "deploy_traffic_pools": {"blue": {"target_group": "b"}, "green": {"target_group": "g"}},
}
MEMBERS = {"blue": ["b1", "b2"], "green": ["g1", "g2"]}


class Group:
    """A deployment group with two pools; ``live`` has all the traffic."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.live = "blue"
        self.given: dict[str, Any] = {
            "deploy_application": "shop",
            "deploy_group": "web",
            "deploy_traffic_provider": "envoy",
            "deploy_traffic_pools": {"blue": {"cluster": "b"}, "green": {"cluster": "g"}},
        }
        self.record = Record.open(f"sqlite:///{folder / 'record.db'}")

    def open(self, version: str = "", strategy: str = "blue_green", **more: Any) -> Opened:
        if version and not (self.folder / version).exists():
            files(self.folder / version, {"VERSION": version})
        revision = {"deploy_revision": str(self.folder / version)} if version else {}
        endpoints = {
            pool: [Endpoint(name, name, "127.0.0.1", 80, "", pool=pool) for name in names]
            for pool, names in MEMBERS.items()
        }
        other = "green" if self.live == "blue" else "blue"
        return open_deployment(
            strategy,
            self.settings(**revision, **more),
            [one for found in endpoints.values() for one in found],
            record=self.record,
            cache=self.folder / "cache",
            base=self.folder,
            check=False,
            observed=Observed(
                endpoints=endpoints,
                routings=[{"weights": {self.live: 100.0, other: 0.0}}],
                canaries=["b1"],
            ),
        )

    def settings(self, **more: Any) -> dict[str, Any]:
        found = ArgumentSpecValidator(public_variables()).validate({**self.given, **more})
        assert not found.error_messages, found.error_messages
        return dict(found.validated_parameters)

    def open_digest(self, version: str) -> str:
        """The digest of a version that was deployed."""
        return next(
            one.revision.digest
            for one in self.record.deployments(limit=100)
            if one.revision.source.endswith(version)
        )

    def install(self, opened: Opened, *names: str, failing: tuple[str, ...] = ()) -> None:
        for name in names:
            assert self.record.admit(opened.deployment["id"], name).verdict == "admitted"
        for name in names:
            status = "Failed" if name in failing else "Succeeded"
            self.record.settle(opened.deployment["id"], name, status, error_code="ScriptFailed")

    def go(self, opened: Opened, *, until: str = "") -> list[str]:
        """Go through the steps, up to the first one of a kind; return what each might do."""
        verdicts = []
        for step in opened.plan["schedule"]:
            if step["kind"] == until:
                break
            verdicts.append(self.record.begin_step(opened.deployment["id"], step["number"]))
            if verdicts[-1] == "go":
                self.record.end_step(opened.deployment["id"], step["number"])
        return verdicts

    def succeed(self, version: str, **more: Any) -> Closed:
        opened = self.open(version, **more)
        self.install(opened, *opened.fleet["idle"])
        assert set(self.go(opened)) == {"go"}
        closed = close_deployment(self.record, opened.deployment["id"])
        assert closed.deployment.status == "Succeeded", closed.summary
        self.live = opened.plan["pools"]["new"]
        return closed


@pytest.fixture
def group(tmp_path: Path) -> Group:
    return Group(tmp_path)


def test_only_the_idle_pool_is_touched_and_the_pools_take_turns(group: Group) -> None:
    opened = group.open("1.0")
    assert opened.fleet["targets"] == ["g1", "g2"] == opened.fleet["idle"]
    assert opened.plan["left_out"] == ["b1", "b2"]
    assert opened.fleet["home"]["weights"] == {"blue": 100.0, "green": 0.0}
    group.install(opened, "g1", "g2")
    group.go(opened)
    assert close_deployment(group.record, opened.deployment["id"]).deployment.status == "Succeeded"
    group.live = "green"
    assert group.open("2.0").fleet["idle"] == ["b1", "b2"]


def test_all_targets_of_an_idle_pool_go_at_once_and_the_budget_holds(group: Group) -> None:
    opened = group.open("1.0", deploy_minimum_healthy_hosts="100%")
    group.install(opened, "g1", "g2", failing=("g2",))
    assert group.go(opened) == ["stopped", "stopped"], "no user comes to a pool that is too small"
    closed = close_deployment(group.record, opened.deployment["id"])
    assert (closed.deployment.status, closed.deployment.error_code) == (
        "Failed",
        "HEALTH_CONSTRAINTS",
    )
    assert closed.rollback is None
    assert closed.note == "No rollback is needed: no user has reached green."


def test_a_failure_after_users_came_is_rolled_back_by_the_traffic_alone(group: Group) -> None:
    group.succeed("1.0")
    opened = group.open("2.0", deploy_schedule=[{"shift": 5}, {"bake": 60}, {"shift": 100}])
    group.install(opened, "b1", "b2")
    group.go(opened, until="bake")
    assert group.record.begin_step(opened.deployment["id"], 3) == "go"
    group.record.fail_steps(opened.deployment["id"], "GATE_FAILED", "too many errors")
    closed = close_deployment(group.record, opened.deployment["id"])
    assert closed.rollback is not None
    members = closed.rollback_fleet or {}
    assert members["targets"] == []
    assert members["step_hosts"]["back"] == members["closing"] != []
    assert members["steps"]["back"][0]["routing"]["weights"] == {"green": 100.0, "blue": 0.0}
    assert [step.status for step in group.record.steps(opened.deployment["id"])] == [
        "Succeeded", "Succeeded", "Failed", "Skipped",
    ]  # fmt: skip


def resting_in(group: Group) -> set[str]:
    found = group_targets(group.record, "shop", "web", ["b1", "b2", "g1", "g2"])
    return {one["target"] for one in found if one["idle"]}


@pytest.mark.parametrize(
    ("asked", "restored"), [(False, True), (True, False), (True, True)], ids=str
)
def test_who_was_leaving_the_load_balancer_gets_users_when_it_is_back_in_service(
    group: Group, *, asked: bool, restored: bool
) -> None:
    group.succeed("1.0")
    opened = group.open("2.0", deploy_retire="drain")
    identifier, record = opened.deployment["id"], group.record
    assert opened.fleet["unsafe_parts"] == ["retire"]
    group.install(opened, "b1", "b2")
    assert set(group.go(opened, until="retire")) == {"go"}
    retiring = opened.plan["schedule"][-1]["number"]
    assert record.begin_step(identifier, retiring) == "go"
    record.request_stop(identifier, "no", rollback=asked)
    # Nothing that follows sends users back to a pool that is half gone.
    assert record.begin_step(identifier, retiring) == "stopped"
    closed = close_deployment(record, identifier)
    assert closed.deployment.status == "Stopped"
    if not asked:
        assert closed.rollback is None
        assert "Users stay on blue: green was leaving the load balancer" in closed.note
        assert resting_in(group) == {"g1", "g2"}
        return
    assert closed.rollback is not None
    steps = (closed.rollback_fleet or {})["steps"]["back"]
    assert [(step["tasks"], step["routing"]["weights"]) for step in steps] == [
        ("attach", {"blue": 100.0, "green": 0.0}),
        ("route", {"blue": 0.0, "green": 100.0}),
    ]
    assert (closed.rollback_fleet or {})["unsafe_parts"] == ["back"]
    back = closed.rollback.id
    assert record.begin_step(back, 1) == "go"
    if not restored:
        record.fail_steps(back, "TRAFFIC", "lb-2 is away")
        assert record.begin_step(back, 2) == "stopped"
        assert close_deployment(record, back).deployment.status == "Failed"
        assert resting_in(group) == {"g1", "g2"}, "users stayed where they were"
        return
    record.end_step(back, 1)
    assert record.begin_step(back, 2) == "go"
    record.end_step(back, 2)
    assert close_deployment(record, back).deployment.status == "Succeeded"
    assert resting_in(group) == {"b1", "b2"}


def test_a_deployment_that_ends_before_its_last_step_has_failed(group: Group) -> None:
    opened = group.open("1.0")
    group.install(opened, "g1", "g2")
    group.go(opened, until="shift")
    closed = close_deployment(group.record, opened.deployment["id"]).deployment
    assert (closed.status, closed.error_code) == ("Failed", "INTERNAL_ERROR")
    assert "It ended before step 2: shift 100%" in closed.error_message


def test_a_stop_is_seen_by_the_next_step_and_a_pause_waits(group: Group) -> None:
    opened = group.open("1.0", deploy_schedule=[{"shift": 5}, {"shift": 50}])
    identifier = opened.deployment["id"]
    group.install(opened, "g1", "g2")
    for number in (1, 2):
        assert group.record.begin_step(identifier, number) == "go"
        group.record.end_step(identifier, number)
    group.record.pause(identifier, "lunch")
    assert group.record.begin_step(identifier, 3) == "paused"
    assert is_paused(group.record.deployment(identifier), group.record.steps(identifier))
    group.record.take_over(identifier)
    group.record.request_stop(identifier, "enough")
    with pytest.raises(BasculeError, match="MANUAL_STOP"):
        group.record.begin_step(identifier, 3)


def test_a_step_that_has_succeeded_is_passed_and_one_that_was_begun_goes_on(group: Group) -> None:
    opened = group.open("1.0")
    identifier = opened.deployment["id"]
    group.install(opened, "g1", "g2")
    group.record.begin_step(identifier, 1)
    group.record.end_step(identifier, 1)
    group.record.begin_step(identifier, 2)
    assert group.record.begin_step(identifier, 1) == "passed"
    assert group.record.begin_step(identifier, 2) == "go"
    kinds = [one.event for one in group.record.events(identifier)]
    assert kinds.count("StepStarted") == 2
    assert kinds.count("StepResumed") == 1


def test_the_status_says_that_a_person_is_waited_for_and_that_the_old_pool_is_kept_warm(
    group: Group,
) -> None:
    opened = group.open(
        "1.0",
        deploy_ready_timeout="1h",
        deploy_schedule=[{"shift": 5}, {"bake": 60}, {"shift": 100}],
        deploy_bake_time="5m",
        deploy_retire="drain",
        deploy_retire_after="1h",
    )
    identifier, record = opened.deployment["id"], group.record
    group.install(opened, "g1", "g2")
    seen = []
    for step in opened.plan["schedule"]:
        assert record.begin_step(identifier, step["number"]) == "go"
        # Whoever takes the deployment over in a step finds, and leaves, the same.
        record.take_over(identifier)
        assert record.begin_step(identifier, step["number"]) == "go"
        seen.append((step["kind"], record.deployment(identifier).status))
        record.end_step(identifier, step["number"])
        assert record.deployment(identifier).status == "InProgress"
    assert seen == [
        ("pool", "InProgress"), ("approval", "Ready"), ("shift", "InProgress"),
        ("bake", "InProgress"), ("shift", "InProgress"), ("bake", "Baking"), ("bake", "Baking"),
        ("retire", "InProgress"),
    ]  # fmt: skip
    assert close_deployment(record, identifier).deployment.status == "Succeeded"


def test_an_idle_pool_is_not_outdated_and_keeps_what_it_has(group: Group) -> None:
    def outdated() -> dict[str, bool]:
        found = group_targets(group.record, "shop", "web", ["b1", "b2", "g1", "g2"])
        assert {one["target"] for one in found if one["idle"]} == set(MEMBERS[other])
        return {one["target"]: one["outdated"] for one in found}

    group.succeed("1.0")
    group.succeed("2.0")
    other = "green"
    assert outdated() == dict.fromkeys(("b1", "b2", "g1", "g2"), False)
    group.open("", strategy="rollback")
    assert outdated() == dict.fromkeys(("b1", "b2", "g1", "g2"), False), "until users are back"
    back = group.record.deployments(limit=1)[0]
    assert group.record.begin_step(back.id, 1) == "go"
    group.record.end_step(back.id, 1)
    group.record.begin_step(back.id, 2)
    group.record.end_step(back.id, 2)
    assert close_deployment(group.record, back.id).deployment.status == "Succeeded"
    other = "blue"
    assert outdated()["g1"] is outdated()["b1"] is False


def test_who_joins_the_live_pool_gets_the_revision_and_who_joins_the_idle_one_rests(
    group: Group,
) -> None:
    group.succeed("1.0")
    joined = {
        pool: [Endpoint(f"{pool}-new", "new", "127.0.0.1", 80, "", pool=pool)] for pool in MEMBERS
    }
    found = group.record.deployments(limit=1)[0]
    everybody = [one for some in joined.values() for one in some]
    serving, resting = by_users(found, everybody, joined)
    assert ([one.target for one in serving], [one.target for one in resting]) == (
        ["green-new"],
        ["blue-new"],
    )
    nameless = [dataclasses.replace(one, pool="") for one in everybody]
    opened = open_follow_up(
        found.id,
        group.settings(),
        nameless,
        record=group.record,
        cache=group.folder / "cache",
        pools=joined,
    )
    assert opened is not None
    assert opened.fleet["balanced"] == ["green-new"]
    assert opened.fleet["pool_of"] == {"green-new": "green"}
    assert [one["pool"] for one in opened.fleet["in_pools"]] == ["green"]


def test_a_rollback_moves_the_traffic_alone_while_the_old_pool_has_its_revision(
    group: Group,
) -> None:
    group.succeed("1.0")
    group.succeed("2.0")
    opened = group.open(strategy="rollback")
    assert opened.plan["pools"]["new"] == "green"
    assert opened.fleet["targets"] == []
    assert [step["kind"] for step in opened.plan["schedule"]] == ["pool", "shift"]
    assert set(group.go(opened)) == {"go"}
    assert close_deployment(group.record, opened.deployment["id"]).deployment.status == "Succeeded"


def test_a_rollback_without_the_pools_that_were_is_refused(group: Group) -> None:
    group.succeed("1.0")
    group.succeed("2.0")
    before = group.record.deployments(limit=100)
    with pytest.raises(UsageError, match="pools blue, green, and now deploy_traffic_pools has"):
        group.open(strategy="rollback", deploy_traffic_pools={}, deploy_traffic_provider="none")
    assert group.record.deployments(limit=100) == before


def test_a_rollback_brings_the_revision_where_the_old_pool_has_lost_it(group: Group) -> None:
    group.succeed("1.0")
    group.succeed("2.0")
    bad = group.open("3.0")
    group.install(bad, "g1", "g2")
    group.record.halt(bad.deployment["id"], "GATE_FAILED", "no")
    close_deployment(group.record, bad.deployment["id"])
    opened = group.open(strategy="rollback", deploy_rollback_to=group.open_digest("1.0"))
    assert opened.fleet["idle"] == ["g1", "g2"]


def test_a_canary_pool_goes_first_and_the_traffic_comes_home(group: Group) -> None:
    opened = group.open("1.0", "canary", deploy_schedule="Canary10Percent5Minutes")
    assert opened.plan["stages"] == [["g1", "g2"], ["b1", "b2"]]
    assert opened.fleet["balanced"] == ["b1", "b2"]
    assert opened.fleet["serial"] == [2]
    assert opened.plan["minimum_healthy"] == 3, "one of the fleet, and both canaries"
    assert [step["text"] for step in opened.plan["schedule"]] == [
        "see the targets of green in service",
        "shift 10% of the traffic to green, 90% stays on blue",
        "bake for 5m",
        "bring all traffic back to blue",
    ]


def test_canaries_among_the_targets_have_no_pools(group: Group) -> None:
    opened = group.open("1.0", "canary", deploy_traffic_pools={}, deploy_schedule=[{"bake": 5}])
    assert opened.plan["stages"] == [["b1"], ["b2", "g1", "g2"]]
    assert opened.fleet["canaries_balanced"] == ["b1"]
    assert opened.fleet["balanced"] == ["b2", "g1", "g2"]
    assert opened.plan["pools"] is None


ERRORS = {"metrics": [{"name": "errors", "kind": "rate", "critical": True}]}
LATENCY = {"metrics": [{"name": "p95", "kind": "series"}]}
FRESH: dict[str, Any] = {"deploy_canary_baseline": "fresh", "deploy_traffic_pools": {}}


@pytest.mark.parametrize("ends", ["Succeeded", "Failed", "Stopped"])
def test_canaries_follow_a_baseline_that_has_succeeded_and_no_other(
    group: Group, ends: str
) -> None:
    plain = {"deploy_traffic_pools": {}, "deploy_minimum_healthy_hosts": 1}
    opened = group.open("1.0", "in_place", **plain)
    for name in ("b1", "b2", "g1", "g2"):
        group.install(opened, name)
    assert close_deployment(group.record, opened.deployment["id"]).deployment.status == "Succeeded"

    opened = group.open("2.0", "canary", **{**plain, **FRESH}, deploy_schedule=[{"bake": 5}])
    baseline = opened.deployment["id"]
    assert opened.plan["baseline"]["targets"] == ["b2"] == opened.baseline_fleet["targets"]
    # What the targets have is installed all the same.
    assert opened.baseline_fleet["unhealthy"] == ["b2"]
    arms = {arm: [one["target"] for one in found] for arm, found in opened.fleet["arms"].items()}
    assert arms == {"canary": ["b1"], "baseline": ["b2"]}
    if ends == "Stopped":
        group.record.request_stop(baseline, rollback=True)
    else:
        group.install(opened, "b2", failing=("b2",) if ends == "Failed" else ())
    closed = close_deployment(group.record, baseline)
    assert (closed.deployment.status, closed.rollback) == (ends, None)
    if ends != "Succeeded":
        assert closed.following is None
        assert "No canary was touched." in closed.summary
        assert group.record.deployments()[0].id == baseline
        return
    assert closed.following is not None
    assert closed.following_fleet is not None
    assert closed.following.plan["canaries"] == ["b1"] == closed.following_fleet["targets"][:1]
    assert closed.following.previous_digest == group.open_digest("1.0")
    # Whoever resumes the baseline goes on with what follows it; a way back leads past both.
    assert left_open(group.record.deployment(baseline), group.record).id == closed.following.id
    assert close_deployment(group.record, baseline).following is None


def test_a_canary_pool_has_its_fresh_baseline_in_the_other_pool(group: Group) -> None:
    first = group.open("1.0", "canary")
    for name in ("g1", "g2", "b1", "b2"):
        group.install(first, name)
    group.go(first)
    assert close_deployment(group.record, first.deployment["id"]).deployment.status == "Succeeded"

    fresh = {"deploy_canary_baseline": "fresh", "deploy_schedule": [{"shift": 20}, {"bake": 5}]}
    opened = group.open("2.0", "canary", **fresh, deploy_judge=ERRORS)
    assert opened.baseline_fleet["balanced"] == ["b1", "b2"], "as many as there are canaries"
    assert [one["pool"] for one in opened.baseline_fleet["in_pools"]] == ["blue"]
    assert opened.baseline_plan["minimum_healthy"] == 3, "one of the pool that serves"
    arms = {
        arm: [(one["target"], one["pool"]) for one in found]
        for arm, found in opened.fleet["arms"].items()
    }
    assert arms == {
        "canary": [("g1", "green"), ("g2", "green")],
        "baseline": [("b1", "blue"), ("b2", "blue")],
    }
    for name in ("b1", "b2"):
        group.install(opened, name)
    closed = close_deployment(group.record, opened.deployment["id"])
    assert closed.following is not None
    assert closed.following.plan["pools"]["new"] == "green"
    assert closed.following_fleet is not None
    assert closed.following_fleet["idle"] == ["g1", "g2"]


@pytest.mark.parametrize(
    ("strategy", "given", "said"),
    [
        ("blue_green", {"deploy_traffic_provider": "none"}, "one that can: elbv2, envoy"),
        ("blue_green", {"deploy_traffic_provider": "elb"}, "one that can: elbv2"),
        ("blue_green", {"deploy_traffic_pools": {}}, "deploy_traffic_pools has none"),
        ("blue_green", {"deploy_schedule": "soon"}, "deploy_schedule is 'soon'"),
        ("canary", {"deploy_traffic_pools": {}}, "deploy_schedule shifts traffic"),
        ("blue_green", {"deploy_test_route": {"path": "/"}}, "deploy_test_route is"),
        (
            "blue_green",
            {"deploy_test_route": {"listener": "arn:aws:x"}},
            "cannot send what comes to a test listener to a pool (listener). Set "
            "deploy_traffic_provider to one that can: elbv2.",
        ),
        ("canary", {"deploy_canary_baseline": "fresh"}, "there is nothing to compare with"),
        ("canary", {**FRESH, "deploy_schedule": [{"bake": 5}]}, "there is nothing to compare with"),
        (
            "blue_green",
            {**ALB, "deploy_sticky": {"header": "X-User"}},
            "cannot know a user by a header or a cookie that you name (identity). Set "
            "deploy_traffic_provider to one that can: envoy, haproxy, nginx.",
        ),
        (
            "blue_green",
            {**ALB, "deploy_sticky": {"cookie": "AWSALBTG", "ttl": "8d"}},
            "keeps a user with a target group for at most 604800 s (7 days)",
        ),
        (
            "canary",
            {**ALB, "deploy_schedule": [{"shift": 0.01}]},
            "Take shares of whole tenths of a percent.",
        ),
        (
            "canary",
            {**FRESH, "deploy_judge": LATENCY, "deploy_schedule": [{"bake": 5}]},
            "p95 of deploy_judge is a series of the load balancer, which knows the latency of",
        ),
        (
            "canary",
            {
                "deploy_canary_baseline": "fresh",
                "deploy_traffic_provider": "nginx",
                "deploy_traffic_pools": {"blue": {"upstream": "b"}, "green": {"upstream": "g"}},
                "deploy_judge": ERRORS,
            },
            "cannot count requests and errors of each target (count). Set deploy_traffic_provider "
            "to one that can: envoy, haproxy.",
        ),
        (
            "blue_green",
            {
                "deploy_traffic_provider": "nginx",
                "deploy_traffic_pools": {"blue": {"upstream": "b"}, "green": {"upstream": "g"}},
                "deploy_sticky": {"header": "X.User"},
            },
            "nginx cannot name the header 'X.User'",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is(
    group: Group, strategy: str, given: dict[str, Any], said: str
) -> None:
    schedule = {"deploy_schedule": [{"shift": 5}], **given}
    with pytest.raises(BasculeError) as refusal:
        group.open("1.0", strategy, **schedule)
    assert said in str(refusal.value)
    assert group.record.deployments() == []
