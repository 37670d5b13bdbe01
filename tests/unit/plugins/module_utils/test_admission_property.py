"""Whatever the order in which targets ask, succeed, fail and are lost: the rule holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ansible_collections.bascule.deploy.plugins.module_utils._admission import (
    ADMIT,
    FORWARD,
    HALT,
    ROLLBACK,
    WAIT,
    Counts,
    conclude,
    decide,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._record._admit import counts_from
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule


@dataclass
class Target:
    status: str = "Pending"
    in_service: bool = True
    from_service: bool = False
    changed: bool = False
    verdicts: int = 0

    def decide(self, status: str) -> None:
        self.status = status
        self.verdicts += 1

    def row(self) -> dict[str, Any]:
        return {
            "n": 1, "stage": 0, "status": self.status, "in_service": self.in_service,
            "from_service": self.from_service, "changed": self.changed,
        }  # fmt: skip


class Fleet(RuleBasedStateMachine):
    """A deployment, forward or back, in which everything happens in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[Target] = []
        self.total = 0
        self.minimum = 0
        self.mode = FORWARD
        self.code: str | None = None

    @initialize(
        out=st.lists(st.booleans(), min_size=1, max_size=12),
        untouched=st.integers(0, 4),
        minimum=st.integers(0, 13),
        back=st.booleans(),
    )
    def begin(self, out: list[bool], untouched: int, minimum: int, back: bool) -> None:
        self.mode = ROLLBACK if back else FORWARD
        self.targets = [Target(in_service=not (back and is_out)) for is_out in out]
        self.total = len(out) + (untouched if back else 0)
        self.minimum = minimum

    def counts(self) -> Counts:
        return counts_from([target.row() for target in self.targets], self.total, 0)

    def having(self, status: str) -> list[Target]:
        return [target for target in self.targets if target.status == status]

    def serving(self) -> int:
        """How many targets users can reach for sure."""
        gone = [t for t in self.targets if not t.in_service or t.status in ("InProgress", "Failed")]
        return self.total - len(gone)

    def ask(self, target: Target) -> None:
        serving, counts = self.serving(), self.counts()
        decision = decide(counts, self.minimum, self.mode, target.in_service)
        if decision.verdict == HALT:
            assert not self.having("InProgress")
            self.code = decision.error_code
        elif decision.verdict == ADMIT:
            if target.in_service:
                self.check_floor(serving - 1)
            target.from_service = target.in_service
            target.status = "InProgress"
        else:
            assert decision.verdict == WAIT

    def check_floor(self, serving: int) -> None:
        if self.mode == FORWARD:
            assert serving >= self.minimum
        elif serving < self.minimum:
            # The way back where the floor is broken anyway: nobody else is under way, all that
            # were out have had their turn, and none that came from service was lost.
            assert not self.having("InProgress")
            assert all(target.in_service for target in self.having("Pending"))
            assert not any(target.from_service for target in self.having("Failed"))

    @precondition(lambda self: self.having("Pending") and self.code is None)
    @rule(data=st.data())
    def one_asks(self, data: st.DataObject) -> None:
        self.ask(data.draw(st.sampled_from(self.having("Pending"))))

    @precondition(lambda self: self.having("InProgress"))
    @rule(data=st.data(), fails=st.booleans(), drained=st.booleans())
    def one_ends(self, data: st.DataObject, fails: bool, drained: bool) -> None:
        self.end(data.draw(st.sampled_from(self.having("InProgress"))), fails, drained)

    def end(self, target: Target, fails: bool, drained: bool) -> None:
        target.changed = True
        target.in_service = not fails or (target.in_service and not drained)
        target.decide("Failed" if fails else "Succeeded")

    @rule()
    def nothing_happens(self) -> None:
        """Even when all are decided the machine may go on."""

    @precondition(lambda self: self.having("Pending"))
    @rule(data=st.data(), lost=st.booleans())
    def one_needs_no_start(self, data: st.DataObject, lost: bool) -> None:
        """Staging finds that a target cannot be reached, or that it has the revision already."""
        target = data.draw(st.sampled_from(self.having("Pending")))
        target.in_service = target.in_service or not lost
        target.decide("Failed" if lost else "Succeeded")

    @invariant()
    def nobody_is_decided_twice(self) -> None:
        assert all(target.verdicts <= 1 for target in self.targets)

    def teardown(self) -> None:
        """Let it run to its end: it comes to one, and everybody has one verdict."""
        for _round in range(3 * len(self.targets) + 3):
            for target in self.having("Pending"):
                if self.code is None and target.status == "Pending":
                    self.ask(target)
            for target in self.having("InProgress"):
                self.end(target, fails=False, drained=False)
        assert not self.having("InProgress")
        assert self.code is not None or not self.having("Pending")
        counts = self.counts()
        outcome = conclude(counts, self.minimum, self.code)
        for target in self.having("Pending"):
            target.decide("Skipped")
        assert all(target.verdicts == 1 for target in self.targets)
        enough = counts.total - counts.failed >= self.minimum and counts.succeeded >= 1
        if self.code is None and not counts.failed:
            assert outcome.status == "Succeeded"
        else:
            assert (outcome.status == "Succeeded") == (enough and self.code is None)


TestFleet = Fleet.TestCase
TestFleet.settings = settings(max_examples=300, stateful_step_count=30, deadline=None)


@given(
    total=st.integers(0, 1000),
    failed=st.integers(0, 1000),
    in_flight=st.integers(0, 1000),
    minimum=st.integers(0, 1000),
)
def test_closed_form(total: int, failed: int, in_flight: int, minimum: int) -> None:
    counts = Counts(total=total, pending=1, failed=failed, in_flight=in_flight)
    decision = decide(counts, minimum)
    slots = total - failed - in_flight - minimum
    assert decision.slots == slots
    assert decision.verdict == (ADMIT if slots > 0 else WAIT if in_flight else HALT)
    assert (decision.error_code is not None) == (decision.verdict == HALT)
