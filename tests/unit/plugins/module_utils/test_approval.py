"""Whether a stage waits for a person."""

from __future__ import annotations

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._approval import (
    APPROVED,
    ASK,
    CONTINUE,
    EVERY_STAGE,
    FIRST_STAGE,
    GO,
    NONE,
    REJECTED,
    STOP,
    TIME_OUT,
    TIMED_OUT,
    WAIT,
    WAITING,
    Asked,
    approval_rule,
    approval_text,
    judge,
    to_approve,
)
from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError


@pytest.mark.parametrize(
    ("mode", "worked", "stage"),
    [
        (NONE, [0, 1], None),
        (FIRST_STAGE, [], None),
        (FIRST_STAGE, [0, 0, 1], 0),
        (FIRST_STAGE, [2, 1], 1),
        (EVERY_STAGE, [0], 0),
        (EVERY_STAGE, [2, 0, 1], 2),
        (EVERY_STAGE, [], None),
    ],
)
def test_the_stage_that_has_to_be_approved(mode: str, worked: list[int], stage: int | None) -> None:
    assert to_approve(mode, worked) == stage


@pytest.mark.parametrize(
    ("asked", "on_timeout", "verdict"),
    [
        (None, STOP, ASK),
        (Asked(WAITING, 100.0), STOP, WAIT),
        (Asked(WAITING, None), STOP, WAIT),
        (Asked(WAITING, 50.0), STOP, TIME_OUT),
        (Asked(WAITING, 50.0), CONTINUE, TIME_OUT),
        (Asked(APPROVED, 50.0), STOP, GO),
        (Asked(REJECTED, 50.0), CONTINUE, WAIT),
        (Asked(TIMED_OUT, 50.0), CONTINUE, GO),
        (Asked(TIMED_OUT, 50.0), STOP, WAIT),
    ],
)
def test_what_is_done_about_an_approval(asked: Asked | None, on_timeout: str, verdict: str) -> None:
    assert judge(asked, on_timeout, 50.0) == verdict


def test_nobody_can_answer_in_no_time() -> None:
    assert approval_rule(NONE, 0.0, STOP) is None
    assert approval_rule(FIRST_STAGE, 60, STOP) == {
        "mode": FIRST_STAGE,
        "timeout": 60.0,
        "on_timeout": STOP,
    }
    with pytest.raises(UsageError, match="deploy_approval_timeout is 0 s; wanted is"):
        approval_rule(FIRST_STAGE, 0.0, STOP)


def test_the_plan_says_which_stages_wait() -> None:
    every = {"mode": EVERY_STAGE, "timeout": 60.0, "on_timeout": CONTINUE}
    first = {**every, "mode": FIRST_STAGE, "on_timeout": STOP}
    wait = "a person approves it within 60 s (else the deployment {})"
    assert [approval_text(every, number, 3, "60 s") for number in (1, 2, 3)] == [
        wait.format("goes on"), wait.format("goes on"), "",
    ]  # fmt: skip
    assert [approval_text(first, number, 3, "60 s") for number in (1, 2, 3)] == [
        wait.format("stops"), "", "",
    ]  # fmt: skip
