from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ansible_collections.bascule.deploy.plugins.plugin_utils._progress_events import (
    Observation,
    Translator,
    answer_of,
    is_own,
    message_of,
    step_of,
)
from support import story

if TYPE_CHECKING:
    from pathlib import Path


def kinds(*seen: Observation) -> list[tuple[str, str | None, str, str]]:
    return [(event.kind, event.target, event.name, event.status) for event in story.told(*seen)]


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (story.opened("web1"), [("opened", None, "rolling", "Created")]),
        (story.began("admit", "web1"), [("started", "web1", "admit", "InProgress")]),
        (story.began("close", "web1"), [("started", None, "close", "InProgress")]),
        (story.admitted("web1"), [("admitted", "web1", "admit", "admitted")]),
        (
            story.observed("stage", bascule={"target": "web1", "status": "Current"}),
            [("staged", "web1", "stage", "Current")],
        ),
        (
            story.observed(
                "function",
                bascule={"phase": "stage", "target": "web1", "status": "Current", "version": "7"},
            ),
            # Its version was there; that an alias leads to it is another matter.
            [("staged", "web1", "stage", "Staged")],
        ),
        (
            # One of several functions in order: the task runs for the first of them.
            story.observed(
                "function",
                bascule={
                    "phase": "lifecycle",
                    "target": "web2",
                    "events": [],
                    "status": "Succeeded",
                },
            ),
            [("settled", "web2", "settle", "Succeeded")],
        ),
        (
            story.observed(
                "function",
                moment="failed",
                bascule={"phase": "stage", "error": {"kind": "lambda", "message": "too large"}},
            ),
            [("staged", "web1", "stage", "Failed")],
        ),
        (story.observed("function", bascule={"phase": "tidy", "target": "web1"}), []),
        (
            story.observed("shift", bascule={"state": "started", "verdict": "go", "kind": "bake"}),
            [("shift", None, "bake", "InProgress")],
        ),
        (
            story.observed("shift", bascule={"state": "ended", "verdict": "go", "kind": "bake"}),
            [("shift", None, "bake", "Succeeded")],
        ),
        (story.observed("shift", bascule={"state": "started", "verdict": "passed"}), []),
        (
            story.observed("shift", bascule={"state": "ended", "kind": "bake", "foreseen": True}),
            [],
        ),
        (
            story.observed("traffic", bascule={"target": "web1", "state": "drained", "waited": 1}),
            [("traffic", "web1", "drained", "Succeeded")],
        ),
        (
            story.observed("traffic", bascule={"targets": ["web1", "web2"], "state": "drained"}),
            [
                ("traffic", "web1", "drained", "Succeeded"),
                ("traffic", "web2", "drained", "Succeeded"),
            ],
        ),
        (
            story.observed("traffic", bascule={"targets": ["web1"], "state": "observed"}),
            [],
        ),
        (
            story.observed(
                "traffic",
                moment="failed",
                bascule={
                    "targets": ["web1", "web2"],
                    "state": "observed",
                    "error": {"kind": "traffic", "message": "no answer"},
                },
            ),
            [("error", None, "traffic", "traffic")],
        ),
        (
            story.observed(
                "traffic",
                moment="failed",
                bascule={
                    "targets": ["web1"],
                    "state": "drained",
                    "error": {"kind": "traffic", "message": "no answer"},
                },
            ),
            [("error", "web1", "traffic", "traffic")],
        ),
        (
            story.observed(
                "lifecycle", bascule={"target": "web1", "events": [], "status": "Succeeded"}
            ),
            [("settled", "web1", "settle", "Succeeded")],
        ),
        (
            story.hooked("web1", fails=True),
            [
                ("lifecycle", "web1", "Install", "Succeeded"),
                ("lifecycle", "web1", "ValidateService", "Failed"),
            ],
        ),
        (
            story.settled("web1", status="Failed"),
            [("settled", "web1", "settle", "Failed")],
        ),
        (
            story.observed(
                "open", moment="failed", bascule={"error": {"kind": "plan", "message": "no"}}
            ),
            [("error", None, "open", "plan")],
        ),
        (
            story.observed("lifecycle", moment="unreachable", msg="no route to host"),
            [("error", "web1", "lifecycle", "unreachable")],
        ),
        (story.task("ok", changed=True), [("task", "web1", "Tell the team", "changed")]),
        (story.task("failed", ignored=True), [("task", "web1", "Tell the team", "ignored")]),
        (story.task("ok", own=True), []),
        (story.task("start", own=True), []),
        (story.task("start"), [("started", "web1", "task", "InProgress")]),
        (story.task("failed", own=True), [("task", "web1", "Tell the team", "failed")]),
    ],
)
def test_one_result_becomes_events(
    seen: Observation, expected: list[tuple[str, str | None, str, str]]
) -> None:
    assert kinds(seen) == expected


def test_every_event_knows_its_deployment() -> None:
    identifiers = [event.deployment_id for event in story.told(*story.failing_story())]
    rollback = identifiers.index("d-BBBBBBBBB")
    assert set(identifiers[:rollback]) == {"d-AAAAAAAAA"}
    assert set(identifiers[rollback:]) == {"d-BBBBBBBBB"}


def test_a_close_with_a_rollback_opens_it_and_the_verdict_is_not_told_twice() -> None:
    whole = [
        (event.kind, event.deployment_id, event.status)
        for event in story.told(*story.failing_story())
        if event.kind in ("opened", "closed")
    ]
    assert whole == [
        ("opened", "d-AAAAAAAAA", "Created"),
        ("closed", "d-AAAAAAAAA", "Failed"),
        ("opened", "d-BBBBBBBBB", "Created"),
        ("closed", "d-BBBBBBBBB", "Succeeded"),
    ]


def test_lifecycle_events_carry_their_own_time_and_log() -> None:
    install, validate = story.told(story.hooked("web1", after=10, fails=True))
    assert (install.at, validate.at) == (story.START + 8.5, story.START + 10)
    assert validate.data["log"] == "GET /health\n500\n"
    assert validate.message == "scripts/health.sh failed with exit code 1"


def test_a_refusal_that_is_passed_on_by_the_next_tasks_is_told_once() -> None:
    refusal = {"error": {"kind": "usage", "message": "no application"}}
    seen = [
        story.observed("open", moment="failed", msg="no application", bascule=refusal),
        story.observed("close", moment="failed", msg="no application", bascule=refusal),
        story.task("failed", own=True, msg="no application"),
    ]
    assert [event.message for event in story.told(*seen)] == ["no application"]


def test_the_same_failure_on_two_targets_is_told_for_each() -> None:
    seen = [
        story.observed("stage", host, "unreachable", msg="timed out") for host in ("web1", "web2")
    ]
    assert [event.target for event in story.told(*seen)] == ["web1", "web2"]


def test_hidden_results_show_nothing_but_that_they_are_hidden() -> None:
    seen = story.task("failed", censored="hidden", msg="s3cr3t", diff={"after": "s3cr3t"})
    events = story.told(seen, differences=True)
    assert [(event.kind, event.message) for event in events] == [
        ("task", "(output hidden by no_log)")
    ]


def test_differences_are_told_only_when_asked_for() -> None:
    seen = story.task("ok", changed=True, diff={"before": "a\n", "after": "b\n"})
    assert [event.kind for event in story.told(seen)] == ["task"]
    assert [event.kind for event in story.told(seen, differences=True)] == ["diff", "task"]


def test_of_several_load_balancers_the_failed_one_or_the_slowest_speaks() -> None:
    quick = {"bascule": {"state": "drained", "waited": 0.1}}
    slow = {"bascule": {"state": "drained", "waited": 3.0}}
    broken = {"failed": True, "msg": "no answer", "bascule": {"state": "drained", "waited": 1.0}}
    assert answer_of({"results": [quick, slow]}) == slow["bascule"]
    answer = answer_of({"results": [slow, broken, quick]})
    assert answer is not None
    assert answer["error"] == {"kind": "traffic", "message": "no answer"}
    assert answer_of({"results": [{"skipped": True}]}) is None
    assert answer_of({"results": "text"}) is None


@pytest.mark.parametrize(
    ("action", "step"),
    [
        ("bascule.deploy.admit", "admit"),
        ("settle", "settle"),
        ("ansible.builtin.command", None),
        ("bascule.deploy.other", None),
    ],
)
def test_steps_are_known_by_their_action(action: str, step: str | None) -> None:
    assert step_of(action) == step


def test_the_message_is_the_first_that_says_something() -> None:
    assert message_of({"msg": " ", "stderr": "boom\n"}) == "boom"
    assert message_of({}) == "no message was given"


def test_own_tasks_are_those_below_roles_and_playbooks(tmp_path: Path) -> None:
    assert is_own(f"{tmp_path}/roles/open/tasks/main.yml:3", tmp_path)
    assert is_own(f"{tmp_path}/playbooks/rolling.yml:3", tmp_path)
    assert not is_own(f"{tmp_path}/examples/site.yml:3", tmp_path)
    assert not is_own("/srv/site.yml:3", tmp_path)
    assert not is_own(None, tmp_path)


def test_what_is_done_about_auto_scaling_is_told() -> None:
    translator = Translator()
    seen = Observation(
        moment="ok",
        host="web-1",
        task="Hold the Auto Scaling groups still",
        action="bascule.deploy.scaling",
        at=1.0,
        own=True,
        result={
            "msg": "workers: suspended Launch",
            "bascule": {
                "phase": "scaling",
                "groups": {"workers": {"before": [], "after": ["Launch"]}},
            },
        },
    )
    [event] = translator.events(seen)
    assert (event.kind, event.target) == ("notice", None)
    assert event.message == "Auto Scaling: workers: suspended Launch"
