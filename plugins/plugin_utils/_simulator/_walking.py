# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of a schedule on a virtual clock; they are those of a real deployment's plan."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from ...module_utils._gate_rules import FAIL, GATE_FAILED, PASS
from ...module_utils._pools import routing_for, routing_home, way_back
from .._gates import gates_of
from .._record._shifting import weights_text
from ._outcome import APPROVAL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ._asking import Asking
    from ._model import Scenario
    from ._outcome import Trace

# Kinds of steps that the role ``shift`` has the action ``gate`` carry out.
_ASKING = ("bake", "gate", "approval")


class Walking(ABC):
    """A deployment with a schedule: how far it is, and the new pool's part of the traffic."""

    _scenario: Scenario
    _plan: dict[str, Any]
    _asking: Asking
    trace: Trace
    now: float
    # The part of the traffic that the new pool has, 0 to 1.
    part = 0.0
    # When something was found wrong, and whether the traffic was moved by then.
    found_at = 0.0
    _moved = False

    @abstractmethod
    def passes(self, seconds: float) -> None:
        """Let time pass."""

    def go_back(self) -> None:
        """Go the steps of the way back before its targets; the traffic is home by then."""
        for step in way_back(self._plan["pools"])[1] if self._moved else ():
            self._begin_step(step)
            self._note_routing(routing_home(self._plan["pools"]))
            self._end_step(step, "")

    def _halt(self, code: str) -> None:
        """Note that nothing new is begun any more."""
        self.trace.note(self.now, "Halted", status="", text=code)

    def _begin_step(self, step: Mapping[str, Any]) -> None:
        """Begin a step."""
        text = f"{step['number']}. {step['text']}"
        self.trace.note(self.now, "StepStarted", status="InProgress", text=text)

    def _end_step(self, step: Mapping[str, Any], why: str) -> None:
        """End a step; ``why`` is who has stopped it, empty if it succeeded."""
        text = f"{step['number']}. {step['text']}"
        status = "Failed" if why else "Succeeded"
        self.trace.note(self.now, "StepEnded", status=status, text=text)

    def _walk(self, steps: Sequence[Mapping[str, Any]]) -> str:
        """Go through steps until one is stopped; returns who has stopped it."""
        for step in steps:
            self._begin_step(step)
            why = self._carry_out(step)
            if step["kind"] in _ASKING:
                if why:
                    self._halt(GATE_FAILED)
                verdict = FAIL if why else PASS
                self.trace.note(self.now, "GatesDecided", status=verdict)
            if why:
                self._home()
            self._end_step(step, why)
            if why:
                return why
        return ""

    def _carry_out(self, step: Mapping[str, Any]) -> str:
        """Let the time of a step pass; returns who has stopped it, empty if nobody has."""
        kind = step["kind"]
        if kind in ("shift", "test"):
            if kind == "shift":
                self.passes(self._scenario.shift)
            self._route(step["share"])
        elif kind == "bake":
            return self._asking.ask(step["seconds"], self._scenario.gates)
        elif kind == "gate":
            self.passes(self._scenario.asked.gate)
            given = {"gates": [step["gate"]], "named": self._scenario.named}
            return self._asking.ask(0.0, gates_of(given, "deploy_schedule"))
        elif kind == "approval":
            return self._approved(step)
        return ""

    def _approved(self, step: Mapping[str, Any]) -> str:
        asked = self._scenario.asked
        if asked.approval > step["timeout"]:
            self.passes(step["timeout"])
            return APPROVAL if step["on_timeout"] == "stop" else ""
        return "" if self._asking.person() else APPROVAL

    def _route(self, percent: float) -> None:
        pools = self._plan["pools"]
        self.part = percent / 100
        self._moved = True
        self._note_routing(routing_for(pools, percent, "simulated"))

    def _home(self) -> None:
        """Bring all traffic back to the pool that had it, before anything else."""
        self.found_at = self.now
        pools = self._plan["pools"]
        if not pools:
            # Canaries among the targets have the traffic that targets have.
            return
        if self.part > 0:
            self.passes(self._scenario.back)
        self.part = 0.0
        self._note_routing(routing_home(pools))

    def _note_routing(self, routing: dict[str, Any]) -> None:
        # Also what was so already is ordered, seen and written down.
        self.trace.note(self.now, "TrafficRouted", status="Succeeded", text=weights_text(routing))
