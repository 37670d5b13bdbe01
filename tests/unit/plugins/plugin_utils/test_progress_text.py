from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ansible_collections.bascule.deploy.plugins.plugin_utils._progress import PlainRenderer
from ansible_collections.bascule.deploy.plugins.plugin_utils._progress_text import (
    difference_lines,
    duration,
    size,
)
from support import story

if TYPE_CHECKING:
    from ansible_collections.bascule.deploy.plugins.plugin_utils._progress_events import Observation


def lines(
    *seen: Observation, plan: bool = False, verbose: bool = False, differences: bool = False
) -> list[str]:
    """Return the plain lines of a run, its outcome included."""
    written: list[str] = []
    show = PlainRenderer(written.append, plan=plan, verbose=verbose, clock=lambda: story.START + 60)
    for event in story.told(*seen, differences=differences):
        show.event(event)
    show.close()
    return written


FAILED = """\
d-AAAAAAAAA  rolling shop/web to 2.0 (0123456789ab): 3 targets, 2 stay healthy, 1 at a time
web1  staged (5.0 MB sent, 0.9 s)
web2  staged (5.0 MB sent, 0.9 s)
web3  staged (5.0 MB sent, 0.9 s)
web1  admitted
web1  Install Succeeded (0.5 s)
web1  ValidateService Succeeded (1.5 s)
web1  Succeeded
web2  admitted after 10 s
web2  Install Succeeded (0.5 s)
web2  ValidateService failed: scripts/health.sh failed with exit code 1
    | GET /health
    | 500
web2  Failed
web3  not started
d-AAAAAAAAA  Failed: HEALTH_CONSTRAINTS: no further target can be taken
d-BBBBBBBBB  rollback of shop/web to 1.0 (0123456789ab)
web2  admitted
web2  Install Succeeded (0.5 s)
web2  ValidateService Succeeded (1.5 s)
web2  Succeeded
d-BBBBBBBBB  Succeeded
d-AAAAAAAAA  Failed after 22 s: 1 succeeded, 1 failed, 1 not touched
  HEALTH_CONSTRAINTS: no further target can be taken
  web2: scripts/health.sh failed with exit code 1
d-BBBBBBBBB  rollback succeeded in 5.0 s: shop/web is at 1.0 (0123456789ab), 1 of 1 target
Look further with: bascule status d-AAAAAAAAA, bascule events d-AAAAAAAAA"""


def test_a_failed_deployment_and_its_rollback() -> None:
    assert "\n".join(lines(*story.failing_story())) == FAILED


def test_a_deployment_that_succeeds() -> None:
    told = lines(
        story.opened("web1"),
        story.admitted("web1", 1),
        story.settled("web1", 4),
        story.closed("Succeeded", 5),
    )
    assert told[-1] == (
        "d-AAAAAAAAA  Succeeded in 5.0 s: shop/web is at 2.0 (0123456789ab), 1 of 1 target"
    )


def test_nothing_to_do_is_said() -> None:
    current = {"status": "Current", "seconds": 0.1, "bytes_sent": 0}
    told = lines(
        story.opened("web1", "web2"),
        *(
            story.observed("stage", host, bascule={"target": host, **current})
            for host in ("web1", "web2")
        ),
        story.closed("Succeeded", 2),
    )
    assert told[1:] == [
        "web1  has the revision already",
        "web2  has the revision already",
        "d-AAAAAAAAA  Succeeded",
        "d-AAAAAAAAA  nothing to do: 2 targets already at 2.0 (0123456789ab)",
    ]


def test_a_failure_within_the_budget_is_named_at_the_end() -> None:
    told = lines(
        story.opened("web1", "web2"),
        *(story.admitted(host, 1) for host in ("web1", "web2")),
        story.settled("web1", 4),
        story.hooked("web2", 4, fails=True),
        story.settled("web2", 4, "Failed"),
        story.closed("Succeeded", 5),
    )
    assert told[-2:] == [
        "d-AAAAAAAAA  Succeeded in 5.0 s: shop/web is at 2.0 (0123456789ab), 1 of 2 targets; "
        "failed: web2",
        "Look further with: bascule status d-AAAAAAAAA, bascule events d-AAAAAAAAA",
    ]


def test_hosts_that_cannot_be_staged_have_failed_and_their_reason_is_told_once() -> None:
    names = [f"web{number}" for number in range(1, 4)]
    away = {"kind": "host", "message": "Cannot reach the host"}
    told = lines(
        story.opened(*names),
        *(
            story.observed("stage", name, "failed", 1, bascule={"target": name, "error": away})
            for name in names
        ),
        story.closed("Failed", 2),
    )
    end = told.index("d-AAAAAAAAA  Failed after 2.0 s: 3 failed")
    assert "  web1, web2, web3: Cannot reach the host" in told[end:]


def test_an_interrupted_deployment_says_how_far_it_came() -> None:
    told = lines(
        story.opened("web1", "web2", "web3"),
        *(story.began("admit", host, 1) for host in ("web1", "web2")),
        story.admitted("web1", 1),
    )
    assert told[-2] == (
        "d-AAAAAAAAA  not finished after 1 min 0 s: 1 not touched, 1 in flight, 1 waiting"
    )


def test_a_refusal_is_one_line_and_has_no_outcome() -> None:
    error = {"error": {"kind": "usage", "message": "Unknown variable deploy_aplication."}}
    told = lines(story.observed("open", moment="failed", bascule=error))
    assert told == ["bascule  cannot begin: Unknown variable deploy_aplication."]


def test_the_plan_is_shown_and_no_outcome() -> None:
    told = lines(story.opened("web1"), plan=True)
    assert told[1:] == ["PLAN"]


@pytest.mark.parametrize(
    ("verdict", "moment"), [("Inconclusive", "ok"), ("Fail", "failed")], ids=["paused", "ending"]
)
def test_a_gate_that_could_not_decide_has_not_failed(verdict: str, moment: str) -> None:
    why = "not decided, the deployment is ending (MANUAL_STOP: stopped by ann@ops)"
    answer = {"step": "stage 1", "verdict": verdict, "message": why, "decided": False}
    if verdict == "Fail":
        answer["error"] = {"kind": "gate", "message": f"stage 1: {why}"}
    (told,) = lines(story.observed("gate", moment=moment, bascule=answer))
    assert told.split("  ", 1)[1].strip() == f"stage 1: {why}"


def test_what_the_old_version_came_to_is_told() -> None:
    again = {"event": "StartOldVersion", "status": "Succeeded", "message": "It runs again."}
    told = lines(
        story.observed("lifecycle", bascule={"target": "web1", "events": [again], "error": None})
    )
    assert told == ["web1  It runs again."]


def test_a_long_log_is_cut_to_its_end() -> None:
    failed = {
        "event": "AfterInstall",
        "status": "Failed",
        "message": "it failed",
        "log": "\n".join(f"line {number}" for number in range(100)),
    }
    answer = {"target": "web1", "events": [failed], "error": None}
    told = lines(story.observed("lifecycle", moment="failed", bascule=answer))
    assert told[0] == "web1  AfterInstall failed: it failed"
    assert told[1:] == [f"    | line {number}" for number in range(88, 100)]


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (story.task("ok"), ["web1  ok: Tell the team"]),
        (story.task("ok", changed=True), ["web1  changed: Tell the team"]),
        (story.task("skipped"), []),
        (
            story.task("ok", msg="hello", _ansible_verbose_always=True),
            ["web1  ok: Tell the team: hello"],
        ),
        (
            story.task("failed", msg="non-zero return code", stderr="one\ntwo"),
            ["web1  failed: Tell the team: non-zero return code", "    | one", "    | two"],
        ),
        (
            story.task("unreachable", msg="no route"),
            ["web1  unreachable: Tell the team: no route"],
        ),
        (
            story.task("ok", censored="hidden"),
            ["web1  ok: Tell the team: (output hidden by no_log)"],
        ),
    ],
)
def test_tasks_of_others_are_shown_briefly(seen: Observation, expected: list[str]) -> None:
    assert lines(seen) == expected


def test_verbose_shows_skipped_tasks_and_results() -> None:
    seen = story.task("ok", rc=0, stdout="x", stdout_lines=["x"], invocation={}, _ansible_x=1)
    assert lines(seen, verbose=True) == ['web1  ok: Tell the team => {"rc": 0, "stdout": "x"}']
    assert lines(story.task("skipped"), verbose=True) == ["web1  skipped: Tell the team => {}"]


def test_traffic_words() -> None:
    seen = [
        story.observed("traffic", bascule={"target": "web1", "state": state, "waited": 0.25})
        for state in ("drained", "in_service")
    ]
    assert lines(*seen) == [
        "web1  out of service, drained (0.2 s)",
        "web1  in service again (0.2 s)",
    ]


def test_differences() -> None:
    seen = story.task("ok", "Write it", diff={"before": "a\n", "after": "b\n"})
    assert lines(seen, differences=True)[:6] == [
        "web1  Write it:", "--- before", "+++ after", "@@ -1 +1 @@", "-a", "+b",
    ]  # fmt: skip
    assert difference_lines({"prepared": "x\ny\n"}) == ["x", "y"]
    assert difference_lines([{"prepared": "x"}, {"prepared": "y"}]) == ["x", "y"]
    assert difference_lines({"before": {"mode": "0644"}, "after": {"mode": "0644"}}) == []
    assert difference_lines("text") == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (9.97, "10 s"),
        (59.6, "1 min 0 s"),
        (185, "3 min 5 s"),
        (7800, "2 h 10 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (5_000_000, "5.0 MB"), (2e12, "2000.0 GB")],
)
def test_sizes(count: float, text: str) -> None:
    assert size(count) == text


def test_the_steps_of_a_schedule_and_a_way_back_that_moves_only_traffic() -> None:
    step = {"number": 1, "text": "shift 100% of the traffic to blue"}
    way_back = {"targets": [], "schedule": [step], "minimum_healthy": 0, "slots": 1}
    opening = {
        "deployment": story.about("d-BBBBBBBBB", strategy="rollback", rollback_of="d-AAAAAAAAA"),
        "plan": way_back,
        "plan_text": "PLAN",
    }
    begun = {**step, "state": "started", "verdict": "go"}
    seen = [
        story.observed("open", "web1", bascule=opening),
        story.began("shift", "web1"),
        story.observed("shift", "web1", bascule={**begun, "verdict": "paused"}),
        story.observed("shift", "web1", bascule=begun),
        story.observed(
            "shift", "web1", bascule={**step, "state": "ended", "message": "600 of 600"}
        ),
        story.observed("shift", "web1", bascule={**step, "state": "ended", "message": ""}),
        story.closed("Succeeded", 3, identifier="d-BBBBBBBBB"),
    ]
    told = lines(*seen)
    assert told[0].startswith("d-BBBBBBBBB  rollback of shop/web to ")
    assert told[0].endswith(": only the traffic")
    assert told[1:3] == [
        "d-BBBBBBBBB  step 1: shift 100% of the traffic to blue",
        "d-BBBBBBBBB  step 1: 600 of 600",
    ]
    assert told[3] == "d-BBBBBBBBB  Succeeded"
    assert ": the traffic of shop/web is at " in told[4]
    assert len(told) == 5
