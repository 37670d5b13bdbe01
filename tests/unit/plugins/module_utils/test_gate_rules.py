"""What measurements mean: conditions, limits, the verdict of a step."""

from __future__ import annotations

import contextlib
import math

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError
from ansible_collections.bascule.deploy.plugins.module_utils._gate_rules import (
    Rule,
    State,
    assess,
    judge_values,
    next_at,
    parse_condition,
    verdict_of,
)
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "yes", "no"),
    [
        ("< 0.01", [0.0, 0.009, -5], [0.01, 1, math.nan]),
        ("<= 1", [1, 0.5], [1.01, math.inf]),
        (">= 5", [5, math.inf], [4.99]),
        ("> 1e-3", [0.002], [0.001]),
        ("== 3", [3], [2.9]),
        ("!= 0", [1, -1], [0]),
        ("3", [3], [4]),
        (3, [3], [4]),
        ("0.1..0.5", [0.1, 0.3, 0.5], [0.09, 0.51]),
        ("-5 to 5", [-5, 0, 5], [-6, 6]),
        ("< 1%", [0.009], [0.01]),
        (">= 1 and < 5", [1, 4.9], [0.9, 5]),
        ("< 1 or > 9", [0, 10], [1, 5, 9, math.nan]),
    ],
)
def test_conditions(text: str, yes: list[float], no: list[float]) -> None:
    condition = parse_condition(text, "success")
    assert [condition.holds(value) for value in yes] == [True] * len(yes)
    assert [condition.holds(value) for value in no] == [False] * len(no)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<",
        "< x",
        "=> 1",
        "5..1",
        "1..",
        "__import__('os')",
        "< 1 and",
        "1 < 2",
        True,
        None,
        [1],
    ],
)
def test_what_is_no_condition_is_refused(text: object) -> None:
    with pytest.raises(UsageError, match=r"success is "):
        parse_condition(text, "success")


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert parse_condition(text, "success").holds(1.0) in (True, False)


LOW, HIGH = parse_condition("< 1", "success"), parse_condition("> 9", "failure")


@pytest.mark.parametrize(
    ("values", "success", "failure", "phase"),
    [
        ([0.5], LOW, None, "Successful"),
        ([5], LOW, None, "Failed"),
        ([5], None, HIGH, "Successful"),
        ([10], None, HIGH, "Failed"),
        ([0.5], LOW, HIGH, "Successful"),
        ([5], LOW, HIGH, "Inconclusive"),
        ([10], LOW, HIGH, "Failed"),
        # Where both hold, it has failed.
        ([0.5], LOW, parse_condition("< 9", "failure"), "Failed"),
        ([math.nan], LOW, HIGH, "Inconclusive"),
        # What is no number neither passes where only a failure is named, nor fails otherwise.
        ([math.nan], None, HIGH, "Inconclusive"),
        ([math.nan], LOW, None, "Inconclusive"),
        ([], LOW, None, "NoData"),
        # Every series has to be good, one bad one is enough.
        ([0.5, 0.6], LOW, None, "Successful"),
        ([0.5, 5], LOW, None, "Failed"),
        ([0.5, 10], LOW, HIGH, "Failed"),
        ([0.5, 5], LOW, HIGH, "Inconclusive"),
    ],
)
def test_values(values: list[float], success: object, failure: object, phase: str) -> None:
    assert judge_values(values, success, failure) == phase  # type: ignore[arg-type]


LETTERS = {
    "s": "Successful", "f": "Failed", "i": "Inconclusive", "e": "Error", "n": "NoData",
    "p": "Pending",
}  # fmt: skip


def after(answers: str) -> State:
    state = State()
    for number, letter in enumerate(answers):
        state = state.after(LETTERS[letter], float(number))
    return state


@pytest.mark.parametrize(
    ("rule", "answers", "over", "phase"),
    [
        # Without a count: as long as it bakes.
        ({}, "sss", False, "Running"),
        ({}, "sss", True, "Successful"),
        ({}, "", True, "Running"),
        ({}, "n", True, "Inconclusive"),
        ({}, "sn", True, "Successful"),
        ({}, "se", True, "Running"),
        ({}, "ses", True, "Successful"),
        ({}, "sf", False, "Failed"),
        ({"failure_limit": 1}, "sf", False, "Running"),
        ({"failure_limit": 1}, "sfsf", False, "Failed"),
        ({"failure_limit": -1}, "ffff", False, "Running"),
        ({}, "si", False, "Inconclusive"),
        ({"inconclusive_limit": 1}, "sisi", False, "Inconclusive"),
        ({"inconclusive_limit": -1}, "iii", False, "Running"),
        # Errors count in a row, and for no measurement.
        ({}, "eeee", False, "Running"),
        ({}, "eeeee", False, "Error"),
        ({}, "eeeeseeee", False, "Running"),
        ({"consecutive_error_limit": 0}, "e", False, "Error"),
        ({"consecutive_error_limit": -1}, "e" * 40, False, "Running"),
        ({"count": 3}, "sees", False, "Running"),
        # A count.
        ({"count": 3}, "sss", False, "Successful"),
        ({"count": 3, "failure_limit": 1}, "sfs", False, "Successful"),
        ({"count": 2}, "s", True, "Running"),
        ({"count": 2}, "snnnnn", False, "Running"),
        ({"count": 2}, "snnnnn", True, "Inconclusive"),
        # A number of successes in a row.
        ({"consecutive_success_limit": 2}, "ss", False, "Successful"),
        ({"consecutive_success_limit": 2, "failure_limit": 5}, "sfsfs", True, "Running"),
        ({"consecutive_success_limit": 2, "failure_limit": 5, "count": 3}, "sfs", False,
         "Inconclusive"),
        ({"consecutive_success_limit": 2, "failure_limit": -1, "count": 3}, "sfs", False, "Failed"),
        ({"failure_limit": 1, "inconclusive_limit": 0}, "ffi", False, "Inconclusive"),
        # The later line wins: enough errors in a row after a failure that is allowed.
        ({"failure_limit": 1}, "feeeee", False, "Error"),
        # What decides by itself.
        ({"count": 1}, "ppp", True, "Running"),
        ({"count": 1}, "pps", False, "Successful"),
    ],
)  # fmt: skip
def test_limits(rule: dict[str, int], answers: str, over: bool, phase: str) -> None:
    assert assess(Rule(**rule), after(answers), over=over) == phase  # type: ignore[arg-type]


def test_what_has_not_decided_at_its_deadline_is_inconclusive() -> None:
    assert assess(Rule(count=1), after("pp"), over=True, late=True) == "Inconclusive"
    assert assess(Rule(count=1), after("s"), over=True, late=True) == "Successful"


def test_when_a_gate_is_asked_next() -> None:
    rule = Rule(interval=30, initial_delay=5, error_retry=10)
    assert next_at(rule, State(), 100.0) == 105.0
    assert next_at(rule, State().after("Successful", 105.0), 100.0) == 135.0
    assert next_at(rule, State().after("Error", 105.0), 100.0) == 115.0


@pytest.mark.parametrize(
    ("phases", "verdict"),
    [
        ([], "Pass"),
        (["Successful", "Successful"], "Pass"),
        (["Successful", "Running"], "Running"),
        (["Running", "Inconclusive"], "Inconclusive"),
        (["Inconclusive", "Failed"], "Fail"),
        (["Running", "Error"], "Fail"),
    ],
)
def test_the_worst_gate_decides(phases: list[str], verdict: str) -> None:
    assert verdict_of(phases) == verdict
