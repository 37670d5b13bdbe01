# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask the gates of a step while it bakes."""

from __future__ import annotations

import time
import typing as t

from ansible_collections.bascule.deploy.plugins.module_utils._configuration import parse_duration
from ansible_collections.bascule.deploy.plugins.module_utils._errors import GateError, UsageError
from ansible_collections.bascule.deploy.plugins.module_utils._gate_spec import (
    describe_gate,
    parse_gates,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._action import (
    DEPLOYMENT_OPTIONS,
    Arguments,
    BasculeAction,
    Result,
    Variables,
    open_record,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._gates import (
    ON_INCONCLUSIVE,
    Pools,
    Rules,
    StepOutcome,
    run_step,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._pausing import pause_wanted
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import tell


class ActionModule(BasculeAction):
    phase = "gate"
    options: t.ClassVar[dict[str, dict[str, t.Any]]] = {
        **DEPLOYMENT_OPTIONS,
        "step": {"type": "str", "required": True},
        "gates": {"type": "list", "elements": "dict", "default": []},
        "alarms": {"type": "list", "elements": "str", "default": []},
        "judge": {"type": "dict", "default": {}},
        "seconds": {"type": "raw", "default": 0},
        "pools": {
            "type": "dict",
            "default": {},
            "options": {
                "canary": {"type": "str", "default": ""},
                "baseline": {"type": "str", "default": ""},
                "share": {"type": "float"},
            },
        },
        "on_inconclusive": {"type": "str", "choices": [*ON_INCONCLUSIVE], "default": "pause"},
        "extensions": {"type": "int", "default": 3},
        "approval_timeout": {"type": "raw", "default": "24h"},
        "approval_on_timeout": {"type": "str", "choices": ["stop", "continue"], "default": "stop"},
    }

    def act(self, arguments: Arguments, _variables: Variables) -> Result:
        started = time.monotonic()
        gates = parse_gates(gates_of(arguments), "gates")
        seconds = parse_duration(arguments["seconds"], "seconds")
        if self.checking:
            told = [describe_gate(gate) for gate in gates]
            text = f"would bake for {seconds:g} s" + (f" and ask {'; '.join(told)}" if told else "")
            return {"changed": False, "msg": text, "bascule": {"step": arguments["step"]}}
        with open_record(arguments) as record:
            outcome = run_step(
                record,
                arguments["deployment"],
                arguments["step"],
                gates,
                seconds=seconds,
                rules=rules_of(arguments),
                pools=pools_of(arguments["pools"]),
                tell=tell,
                pause_wanted=pause_wanted,
            )
        return answer(arguments["step"], outcome, time.monotonic() - started)


def gates_of(arguments: Arguments) -> list[dict[str, t.Any]]:
    """Return all gates of a step: its own, the alarms and the judge."""
    alarms = [
        {"type": "cloudwatch_alarm", "name": f"alarm {name}", "alarm": name}
        for name in arguments["alarms"]
    ]
    judge = arguments["judge"]
    return [*arguments["gates"], *alarms, *([{"type": "judge", "judge": judge}] if judge else [])]


def rules_of(arguments: Arguments) -> Rules:
    """Return what follows when evidence is not enough."""
    if arguments["extensions"] < 0:
        raise UsageError(f"extensions is {arguments['extensions']}; wanted is 0 or more.")
    return Rules(
        on_inconclusive=arguments["on_inconclusive"],
        extensions=arguments["extensions"],
        approval_timeout=parse_duration(arguments["approval_timeout"], "approval_timeout"),
        approval_on_timeout=arguments["approval_on_timeout"],
    )


def pools_of(given: t.Mapping[str, t.Any]) -> Pools:
    """Return which pools are compared; the share is given in percent."""
    share = given.get("share")
    return Pools(
        canary=str(given.get("canary") or ""),
        baseline=str(given.get("baseline") or ""),
        share=None if share is None else float(share) / 100,
    )


def answer(step: str, outcome: StepOutcome, waited: float) -> Result:
    """Return the result of a step; one that failed fails the task.

    :raises GateError: a step that has failed with nothing to tell of its gates
    """
    told: dict[str, t.Any] = {
        "step": step,
        "verdict": outcome.verdict,
        "message": outcome.message,
        "paused": outcome.paused,
        "halted": outcome.halted,
        "round": outcome.round,
        "gates": outcome.gates,
        "waited": round(waited, 3),
    }
    message = f"{step}: {outcome.verdict}: {outcome.message}"
    result: Result = {
        "changed": False,
        "msg": message,
        "verdict": outcome.verdict,
        "bascule": told,
    }
    if outcome.verdict == "Fail":
        result["failed"] = True
        told["error"] = {"kind": GateError.kind, "message": message}
    return result
