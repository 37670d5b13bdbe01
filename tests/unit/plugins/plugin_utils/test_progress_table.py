from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING

import pytest
from ansible_collections.bascule.deploy.plugins.plugin_utils._progress import (
    LiveRenderer,
    live_console,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._progress_model import (
    DeploymentProgress,
    Progress,
    TargetProgress,
    waits_for,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._progress_table import (
    progress_text,
    table,
    visible,
)
from rich.console import Console
from support import story

if TYPE_CHECKING:
    from ansible_collections.bascule.deploy.plugins.plugin_utils._progress_events import Observation


def progress(*seen: Observation) -> Progress:
    made = Progress()
    for event in story.told(*seen):
        made.apply(event)
    return made


def deployment(*seen: Observation) -> DeploymentProgress:
    found = progress(*seen).current
    assert found is not None
    return found


def drawn(shown: DeploymentProgress, after: float, width: int = 100, height: int = 30) -> str:
    """Return the table as text, without the trailing blanks of its columns."""
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(table(shown, story.START + after, width, height))
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


MIDWAY = """\
d-AAAAAAAAA  rolling shop/web to 2.0 (0123456789ab)
TARGET  STATE        STEP                                         LAST EVENT                  TIME
web1    succeeded                                                 ValidateService Succeeded   10 s
web2    in progress  Do lifecycle                                                            4.0 s
web3    waiting      waits for a free slot (1 of 1 in use: web2)                              14 s
━━━━━━━━━━━━━                             1 of 3, 15 s, about 28 s left"""


def test_the_table_midway() -> None:
    shown = deployment(*story.failing_story()[:16])
    assert drawn(shown, 15) == MIDWAY


def test_a_failed_target_says_why_and_the_step_gives_way_to_a_narrow_terminal() -> None:
    shown = deployment(*story.failing_story()[:18])
    failed = next(line for line in drawn(shown, 21).splitlines() if line.startswith("web2"))
    assert failed == (
        "web2    failed     scripts/health.sh failed with exit code 1  ValidateService Failed"
        "     10 s"
    )
    narrow = drawn(shown, 21, width=80).splitlines()
    assert max(len(line) for line in narrow) <= 80
    assert "scripts/health.sh failed …" in "\n".join(narrow)


def test_the_columns_stand_still_where_there_is_room() -> None:
    headers = {
        drawn(deployment(*story.failing_story()[:seen]), 21, width=120).splitlines()[1]
        for seen in range(1, 20)
    }
    assert len(headers) == 1


def test_a_large_fleet_shows_what_matters_and_counts_the_rest() -> None:
    names = [f"web{number:03}" for number in range(100)]
    shown = deployment(
        story.opened(*names),
        *(story.admitted(name, 1) for name in names[:40]),
        *(story.settled(name, 2) for name in names[:39]),
        story.settled("web039", 2, "Failed"),
        story.admitted("web080", 2),
    )
    rows = drawn(shown, 3, height=17).splitlines()
    assert [row.split()[0] for row in rows[2:-2]] == [
        "web039", "web040", "web041", "web042", "web043", "web044", "web045", "web046", "web047",
        "web080",
    ]  # fmt: skip
    assert rows[-2] == (
        "… and 90 more targets (39 succeeded, 1 failed, 59 not touched, 1 in flight)"
    )


def test_all_targets_are_visible_where_they_fit() -> None:
    shown = deployment(story.opened("web1", "web2"))
    found, hidden = visible(shown, 2)
    assert ([target.name for target in found], hidden) == (["web1", "web2"], 0)


@pytest.mark.parametrize(
    ("seen", "text"),
    [
        ([story.opened("a", "b")], "0 of 2, 20 s"),
        ([story.opened("a", "b", estimated_seconds=50)], "0 of 2, 20 s, about 30 s left"),
        (
            [story.opened("a", "b", "c"), story.admitted("a", 10), story.settled("a", 15)],
            "1 of 3, 20 s, about 20 s left",
        ),
        (
            [
                story.opened("a"),
                story.admitted("a", 1),
                story.settled("a", 15),
                story.closed("Succeeded", 16),
            ],
            "1 of 1, 16 s",
        ),
    ],
)
def test_time_left_is_by_pace_then_by_plan_and_ends_with_the_deployment(
    seen: list[Observation], text: str
) -> None:
    assert progress_text(deployment(*seen), story.START + 20) == text


def test_a_target_waits_for_a_slot_or_for_the_stage_before_it() -> None:
    shown = deployment(story.opened("a", "b", "c", "d", "e", slots=4), story.began("admit", "e"))
    waiting = shown.targets["e"]
    assert waits_for(shown, waiting) == "waiting for its turn"
    for name in ("a", "b", "c", "d"):
        shown.targets[name].admitted = True
    assert waits_for(shown, waiting) == "waits for a free slot (4 of 4 in use: a, b, c, …)"
    waiting.stage = 2
    assert waits_for(shown, waiting).startswith("waits for the stage before it (4 of 4")


def test_what_is_left_when_a_deployment_closes_was_not_touched() -> None:
    shown = deployment(story.opened("a", "b"), story.admitted("a"), story.closed("Failed"))
    assert [target.state for target in shown.targets.values()] == ["Skipped", "Skipped"]
    assert shown.in_flight() == []


def test_the_rollback_is_linked_to_what_it_rolls_back() -> None:
    failed, back = progress(*story.failing_story()).deployments
    assert failed.rolled_back_by == back.id == "d-BBBBBBBBB"
    assert back.rollback_of == failed.id
    assert list(back.targets) == ["web2"]


def test_a_second_verdict_does_not_change_a_target() -> None:
    shown = deployment(
        story.opened("a"), story.settled("a"), story.began("traffic", "a"), story.hooked("a")
    )
    target: TargetProgress = shown.targets["a"]
    assert (target.state, target.event) == ("Succeeded", "")


def test_what_is_skipped_after_a_failure_does_not_hide_it() -> None:
    skipped = {"event": "BeforeAllowTraffic", "status": "Skipped"}
    after = story.observed("lifecycle", "a", bascule={"target": "a", "events": [skipped]})
    shown = deployment(story.opened("a"), story.hooked("a", fails=True), after)
    assert shown.targets["a"].event == "ValidateService Failed"


def test_the_live_display_scrolls_failures_and_leaves_the_last_table_and_the_outcome() -> None:
    out = io.StringIO()
    console = Console(
        file=out, width=100, height=40, force_terminal=True, color_system=None, legacy_windows=False
    )
    before = set(threading.enumerate())
    show = LiveRenderer(console, clock=lambda: story.START + 30)
    for event in story.told(*story.failing_story()):
        show.event(event)
    show.close()
    text = out.getvalue()
    assert (
        text.count("web2  ValidateService failed: scripts/health.sh failed with exit code 1") == 1
    )
    assert text.count("    | 500") == 1
    assert "web1  staged" not in text
    last = text[text.rindex("d-BBBBBBBBB  rollback shop/web to 1.0 (0123456789ab)  Succeeded") :]
    assert [line.removeprefix("\x1b[?25h") for line in last.splitlines()[-5:]] == [
        "d-AAAAAAAAA  Failed after 22 s: 1 succeeded, 1 failed, 1 not touched",
        "  HEALTH_CONSTRAINTS: no further target can be taken",
        "  web2: scripts/health.sh failed with exit code 1",
        "d-BBBBBBBBB  rollback succeeded in 5.0 s: shop/web is at 1.0 (0123456789ab), "
        "1 of 1 target",
        "Look further with: bascule status d-AAAAAAAAA, bascule events d-AAAAAAAAA",
    ]
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=5)
        assert not thread.is_alive()


def test_hooks_of_targets_that_the_table_does_not_show_scroll_above_it() -> None:
    """Those of the old pool are no targets of the deployment, those of the new one are done."""
    out = io.StringIO()
    console = Console(
        file=out, width=100, height=40, force_terminal=True, color_system=None, legacy_windows=False
    )
    show = LiveRenderer(console, clock=lambda: story.START + 30)

    def ran(event: str, host: str, after: float) -> Observation:
        begun = story.START + after - 3
        told = {"event": event, "status": "Succeeded", "started": begun, "ended": begun + 3}
        return story.observed(
            "lifecycle", host, after=after, bascule={"target": host, "events": [told]}
        )

    drained = {"state": "drained", "targets": ["blue1"], "waited": 1.0}
    for event in story.told(
        story.opened("green1"),
        story.admitted("green1", 1),
        story.hooked("green1", 5),
        story.settled("green1", 5),
        ran("AfterAllowTraffic", "green1", 9),
        ran("BeforeBlockTraffic", "blue1", 13),
        story.observed("traffic", "blue1", after=15, bascule=drained),
        story.closed("Succeeded", 16),
    ):
        show.event(event)
    show.close()
    text = out.getvalue()
    for line in (
        "green1  AfterAllowTraffic Succeeded (3.0 s)",
        "blue1   BeforeBlockTraffic Succeeded (3.0 s)",
        "blue1   out of service, drained (1.0 s)",
    ):
        assert text.count(line) == 1
    assert "green1  Install Succeeded" not in text


def test_a_pipe_is_no_place_for_a_live_table() -> None:
    assert live_console(io.StringIO()) is None
