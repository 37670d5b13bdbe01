"""The rule against the examples of the AWS user guide, and our rule for the way back."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._admission import (
    ADMIT,
    HALT,
    WAIT,
    Counts,
    Zone,
    conclude,
    decide,
)
from ansible_collections.bascule.deploy.plugins.module_utils._configuration import (
    parse_minimum_healthy,
)


@dataclass
class Run:
    """A fleet that is deployed to as fast as the rule allows; targets end in the order of start."""

    total: int
    minimum: int
    failing: frozenset[int]
    lost: int = 0  # failed before anything was started
    succeeded: int = 0
    failed: int = 0
    pending: int = 0
    in_flight: list[int] = field(default_factory=list)
    most: list[int] = field(default_factory=list)  # in flight after each admission
    code: str | None = None

    def counts(self) -> Counts:
        return Counts(
            total=self.total,
            pending=self.pending,
            in_flight=len(self.in_flight),
            succeeded=self.succeeded,
            failed=self.failed,
        )

    def play(self) -> Run:
        self.failed, self.pending = self.lost, self.total - self.lost
        waiting = list(range(self.lost, self.total))
        while waiting and self.code is None:
            decision = decide(self.counts(), self.minimum)
            if decision.verdict == ADMIT:
                self.in_flight.append(waiting.pop(0))
                self.pending -= 1
                self.most.append(len(self.in_flight))
            elif decision.verdict == WAIT:
                self.end_one()
            else:
                self.code = decision.error_code
        while self.in_flight:
            self.end_one()
        return self

    def end_one(self) -> None:
        if self.in_flight.pop(0) in self.failing:
            self.failed += 1
        else:
            self.succeeded += 1


# name, targets, configuration, failing targets (in order of start, from 0),
# status, code, succeeded, failed, skipped, most at once
EXAMPLES = [
    ("85% of 10: nine, all good", 10, "85%", [], "Succeeded", None, 10, 0, 0, 1),
    ("85% of 10: first fails", 10, "85%", [0], "Failed", "HEALTH_CONSTRAINTS", 0, 1, 9, 1),
    ("85% of 10: last fails", 10, "85%", [9], "Succeeded", None, 9, 1, 0, 1),
    ("95% of 10: ten", 10, "95%", [], "Failed", "HEALTH_CONSTRAINTS_INVALID", 0, 0, 10, 0),
    ("9 of 10: fifth fails", 10, 9, [4], "Failed", "HEALTH_CONSTRAINTS", 4, 1, 5, 1),
    ("9 of 10: next to last fails", 10, 9, [8], "Failed", "HEALTH_CONSTRAINTS", 8, 1, 1, 1),
    ("9 of 10: last fails", 10, 9, [9], "Succeeded", None, 9, 1, 0, 1),
    ("8 of 10: two at a time", 10, 8, [], "Succeeded", None, 10, 0, 0, 2),
    ("8 of 10: one failure", 10, 8, [3], "Succeeded", None, 9, 1, 0, 2),
    ("8 of 10: two failures", 10, 8, [3, 6], "Failed", "HEALTH_CONSTRAINTS", 5, 2, 3, 2),
    ("8 of 10: the second is the last", 10, 8, [3, 9], "Succeeded", None, 8, 2, 0, 2),
    ("8 of 10: the last two", 10, 8, [8, 9], "Succeeded", None, 8, 2, 0, 2),
    ("8 of 10: first two", 10, 8, [0, 1], "Failed", "HEALTH_CONSTRAINTS", 0, 2, 8, 2),
    ("6 of 9: three at a time", 9, 6, [], "Succeeded", None, 9, 0, 0, 3),
    ("6 of 9: last three fail", 9, 6, [6, 7, 8], "Succeeded", None, 6, 3, 0, 3),
    ("6 of 9: first three fail", 9, 6, [0, 1, 2], "Failed", "HEALTH_CONSTRAINTS", 0, 3, 6, 3),
    ("6 of 9: two fail", 9, 6, [0, 4], "Succeeded", None, 7, 2, 0, 3),
    ("40% of 9: four, five at a time", 9, "40%", [], "Succeeded", None, 9, 0, 0, 5),
    ("40% of 9: five fail at the end", 9, "40%", [4, 5, 6, 7, 8], "Succeeded", None, 4, 5, 0, 5),
    ("40% of 9: first five fail", 9, "40%", [0, 1, 2, 3, 4], "Failed", "HEALTH_CONSTRAINTS",
     0, 5, 4, 5),
    ("half of 9: five, four at a time", 9, "HalfAtATime", [], "Succeeded", None, 9, 0, 0, 4),
    ("half of 9: four fail", 9, "HalfAtATime", [0, 2, 5, 8], "Succeeded", None, 5, 4, 0, 4),
    ("half of 10: five at a time", 10, "HalfAtATime", [], "Succeeded", None, 10, 0, 0, 5),
    ("one at a time, 9 targets", 9, "OneAtATime", [], "Succeeded", None, 9, 0, 0, 1),
    ("one at a time, any but the last", 9, "OneAtATime", [0], "Failed", "HEALTH_CONSTRAINTS",
     0, 1, 8, 1),
    ("one at a time, the last", 9, "OneAtATime", [8], "Succeeded", None, 8, 1, 0, 1),
    ("one at a time, one target", 1, "OneAtATime", [], "Succeeded", None, 1, 0, 0, 1),
    ("one at a time, one target fails", 1, "OneAtATime", [0], "Failed", "HEALTH_CONSTRAINTS",
     0, 1, 0, 1),
    ("99% of 9: nine, not one at a time", 9, "99%", [], "Failed", "HEALTH_CONSTRAINTS_INVALID",
     0, 0, 9, 0),
    ("all at once", 5, "AllAtOnce", [], "Succeeded", None, 5, 0, 0, 5),
    ("all at once, one of five is enough", 5, "AllAtOnce", [0, 1, 2, 3], "Succeeded", None,
     1, 4, 0, 5),
    ("all at once, none is too few", 5, "AllAtOnce", [0, 1, 2, 3, 4], "Failed",
     "HEALTH_CONSTRAINTS", 0, 5, 0, 5),
    ("minimum above the number of targets", 3, 7, [], "Failed", "HEALTH_CONSTRAINTS_INVALID",
     0, 0, 3, 0),
]  # fmt: skip


@pytest.mark.parametrize("case", EXAMPLES, ids=[str(case[0]) for case in EXAMPLES])
def test_examples(case: tuple[str, int, object, list[int], str, str, int, int, int, int]) -> None:
    _name, total, configuration, failing, status, code, succeeded, failed, skipped, most = case
    minimum = parse_minimum_healthy(configuration).of(total)
    run = Run(total, minimum, frozenset(failing)).play()
    outcome = conclude(run.counts(), minimum, run.code)
    assert (outcome.status, outcome.error_code) == (status, code)
    assert (run.succeeded, run.failed, run.pending) == (succeeded, failed, skipped)
    assert max(run.most, default=0) == most


def test_one_failure_narrows_the_window() -> None:
    run = Run(10, 8, frozenset([0])).play()
    assert run.most[:2] == [1, 2]
    assert set(run.most[2:]) == {1}


@pytest.mark.parametrize(
    ("lost", "status", "code", "started"),
    [
        (1, "Succeeded", None, 9),
        # The two that could not be staged have used up the budget: the fleet stays untouched.
        (2, "Failed", "HEALTH_CONSTRAINTS", 0),
        (10, "Failed", "HEALTH_CONSTRAINTS", 0),
    ],
)
def test_targets_that_are_lost_before_the_start_count_as_failed(
    lost: int, status: str, code: str | None, started: int
) -> None:
    run = Run(10, 8, frozenset(), lost=lost).play()
    outcome = conclude(run.counts(), 8, run.code)
    assert (outcome.status, outcome.error_code, len(run.most)) == (status, code, started)


@pytest.mark.parametrize(
    ("counts", "minimum", "halted", "status", "code"),
    [
        (Counts(total=4, succeeded=4, current=4), 4, None, "Succeeded", None),
        (Counts(total=4), 2, None, "Succeeded", None),
        (Counts(total=4, succeeded=3, in_flight=1), 3, None, "Succeeded", None),
        (Counts(total=4, succeeded=3, in_flight=1), 4, None, "Failed", "HEALTH_CONSTRAINTS"),
        (Counts(total=4, succeeded=3, pending=1), 2, None, "Failed", "INTERNAL_ERROR"),
        (Counts(total=4, succeeded=1, failed=1, pending=2), 3, None, "Failed",
         "HEALTH_CONSTRAINTS"),
        (Counts(total=4, succeeded=4), 0, "ALARM_ACTIVE", "Stopped", "ALARM_ACTIVE"),
        (Counts(total=4, succeeded=1, pending=3), 0, "MANUAL_STOP", "Stopped", "MANUAL_STOP"),
        (Counts(total=4, succeeded=4), 0, "TIMEOUT", "Failed", "TIMEOUT"),
    ],
)  # fmt: skip
def test_conclusions(
    counts: Counts, minimum: int, halted: str | None, status: str, code: str | None
) -> None:
    outcome = conclude(counts, minimum, halted)
    assert (outcome.status, outcome.error_code) == (status, code)


def test_targets_that_had_the_revision_are_no_start() -> None:
    counts = Counts(total=3, pending=1, succeeded=2, current=2)
    assert decide(counts, 3).error_code == "HEALTH_CONSTRAINTS_INVALID"


ROLLBACK = [
    ("out of service: at once", Counts(total=4, out=1, pending=2, free_pending=1), 3, False, ADMIT),
    ("out of service: at once, even if all are", Counts(total=4, out=4, pending=4, free_pending=4),
     3, False, ADMIT),
    ("out of service: whatever has failed",
     Counts(total=4, out=3, pending=1, free_pending=1, failed=2, service_failed=2), 3, False,
     ADMIT),
    ("in service: waits for those out of service, which have not asked yet",
     Counts(total=4, out=1, pending=2, free_pending=1), 3, True, WAIT),
    ("in service: waits for those in flight", Counts(total=4, out=1, pending=1, in_flight=1),
     3, True, WAIT),
    ("in service: a slot is free", Counts(total=4, out=0, pending=1), 3, True, ADMIT),
    ("in service: beside those out of service, if there is room",
     Counts(total=10, out=2, pending=3, in_flight=1, free_pending=1), 7, True, ADMIT),
    ("floor broken for good: one at a time", Counts(total=4, out=1, pending=1, failed=1),
     3, True, ADMIT),
    ("floor broken for good: not two", Counts(total=4, out=2, pending=1, failed=1, in_flight=1),
     3, True, WAIT),
    ("minimum of all: one at a time", Counts(total=4, out=0, pending=4), 4, True, ADMIT),
    ("one from service was lost: no further", Counts(total=4, out=1, pending=1, failed=1,
     service_failed=1), 3, True, HALT),
    ("one from service was lost, but there is room",
     Counts(total=9, out=1, pending=1, failed=1, service_failed=1), 6, True, ADMIT),
    ("one from service was lost, others may come back",
     Counts(total=4, out=2, pending=1, failed=1, service_failed=1, in_flight=1), 3, True, WAIT),
]  # fmt: skip


@pytest.mark.parametrize("case", ROLLBACK, ids=[case[0] for case in ROLLBACK])
def test_way_back(case: tuple[str, Counts, int, bool, str]) -> None:
    _name, counts, minimum, in_service, verdict = case
    assert decide(counts, minimum, "rollback", in_service).verdict == verdict


@pytest.mark.parametrize(
    ("total", "minimum", "failed", "in_flight", "verdict"),
    [
        (4, 0, 0, 3, ADMIT),
        (4, 3, 0, 3, ADMIT),
        (4, 3, 1, 2, ADMIT),
        (4, 3, 2, 0, HALT),
        (4, 4, 0, 0, ADMIT),
        (4, 4, 1, 1, HALT),
        (1, 0, 0, 0, ADMIT),
    ],
)
def test_in_a_pool_that_no_user_reaches_only_failures_count(
    total: int, minimum: int, failed: int, in_flight: int, verdict: str
) -> None:
    counts = Counts(total=total, pending=1, failed=failed, in_flight=in_flight)
    decision = decide(counts, minimum, "idle")
    assert decision.verdict == verdict
    assert (decision.error_code == "HEALTH_CONSTRAINTS") == (verdict == HALT)


@pytest.mark.parametrize(
    ("zone", "verdict", "slots", "told"),
    [
        # The fleet has four slots left; the zone has fewer, and they decide.
        (Zone("a", Counts(total=4, in_flight=1), 2), ADMIT, 1, "zone a"),
        (Zone("a", Counts(total=4, in_flight=2), 2), WAIT, 0, "zone a"),
        (Zone("a", Counts(total=4, failed=2, in_flight=1), 2), WAIT, -1, "zone a"),
        # It has more: those of the fleet decide.
        (Zone("a", Counts(total=9), 1), ADMIT, 4, "12 targets"),
    ],
)
def test_the_tighter_of_fleet_and_zone_decides(
    zone: Zone, verdict: str, slots: int, told: str
) -> None:
    decision = decide(Counts(total=12, in_flight=2), 6, zone=zone)
    assert (decision.verdict, decision.slots) == (verdict, slots)
    assert told in decision.reason
