# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask the gates of a step while it bakes."""

from __future__ import annotations

import contextlib
import time
import typing as t

from ansible_collections.bascule.deploy.plugins.module_utils._configuration import parse_duration
from ansible_collections.bascule.deploy.plugins.module_utils._errors import BasculeError, GateError
from ansible_collections.bascule.deploy.plugins.module_utils._gate_rules import FAIL
from ansible_collections.bascule.deploy.plugins.module_utils._gate_spec import describe_gate
from ansible_collections.bascule.deploy.plugins.plugin_utils._action import (
    DEPLOYMENT_OPTIONS,
    Arguments,
    BasculeAction,
    Result,
    Variables,
    open_record,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._at_proxies import (
    TRAFFIC,
    traffic_of,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._gates import (
    GATE_OPTIONS,
    StepOutcome,
    gates_of,
    pools_of,
    rules_of,
    run_step,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._pausing import pause_wanted
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import tell


class ActionModule(BasculeAction):
    phase = "gate"
    options: t.ClassVar[dict[str, dict[str, t.Any]]] = {
        **DEPLOYMENT_OPTIONS,
        "step": {"type": "str", "required": True},
        "alarms": {"type": "list", "elements": "str", "default": []},
        "seconds": {"type": "raw", "default": 0},
        "last": {"type": "bool", "default": False},
        "may_end": {"type": "bool", "default": False},
        "ab_test": {"type": "dict"},
        "home": {"type": "dict", "default": {}},
        **GATE_OPTIONS,
        **TRAFFIC,
    }

    def act(self, arguments: Arguments, variables: Variables) -> Result:
        started = time.monotonic()
        gates = gates_of(arguments)
        seconds = parse_duration(arguments["seconds"], "seconds")
        if self.checking:
            told = [describe_gate(gate) for gate in gates]
            text = f"would bake for {seconds:g} s" + (f" and ask {'; '.join(told)}" if told else "")
            return {"changed": False, "msg": text, "bascule": {"step": arguments["step"]}}
        with open_record(arguments) as record:
            if arguments["last"] and not record.worth_watching(arguments["deployment"]["id"]):
                nothing = {"step": arguments["step"]}
                return {"changed": False, "msg": "there is nothing to watch", "bascule": nothing}
            traffic = traffic_of(
                self,
                variables,
                {**arguments["traffic"], "arms": arguments["pools"].get("arms")},
                lambda: open_record(arguments),
                arguments["deployment"]["id"],
            )
            outcome = run_step(
                record,
                arguments["deployment"],
                arguments["step"],
                gates,
                seconds=seconds,
                rules=rules_of(arguments),
                pools=pools_of(arguments["pools"]),
                traffic=traffic,
                tell=tell,
                pause_wanted=pause_wanted,
                may_end=arguments["may_end"],
            )
        if outcome.verdict == FAIL and arguments["home"] and traffic is not None:
            # The task that follows does the same, tells what goes wrong, and writes it down; only
            # the users do not wait until Ansible has come to it.
            with contextlib.suppress(BasculeError):
                traffic.route(arguments["home"])
        return answer(arguments["step"], outcome, time.monotonic() - started)


def answer(step: str, outcome: StepOutcome, waited: float) -> Result:
    """Return the result of a step; one that failed fails the task."""
    told: dict[str, t.Any] = {
        "step": step,
        "verdict": outcome.verdict,
        "message": outcome.message,
        "paused": outcome.paused,
        "halted": outcome.halted,
        "decided": outcome.decided,
        "round": outcome.round,
        "gates": outcome.gates,
        "waited": round(waited, 3),
    }
    verdict = f"{outcome.verdict}: " if outcome.decided else ""
    message = f"{step}: {verdict}{outcome.message}"
    result: Result = {
        "changed": False,
        "msg": message,
        "verdict": outcome.verdict,
        "bascule": told,
    }
    if outcome.verdict == FAIL:
        result["failed"] = True
        told["error"] = {"kind": GateError.kind, "message": message}
    return result
