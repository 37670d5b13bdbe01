# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait in the record for a free slot."""

from __future__ import annotations

import time
import typing as t

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
    gates_of,
    pools_of,
    rules_of,
    run_step,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._pausing import pause_wanted
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import tell

if t.TYPE_CHECKING:
    from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Admission, Record

SHORTEST_PAUSE = 0.05
LONGEST_PAUSE = 0.5
# A person does not notice a second, and a whole stage of targets asks meanwhile.
PAUSE_FOR_A_PERSON = 1.5
# How long a free slot is left to the targets before this one: their worker may have died.
PATIENCE = 5.0


class ActionModule(BasculeAction):
    phase = "admit"
    options: t.ClassVar[dict[str, dict[str, t.Any]]] = {
        **DEPLOYMENT_OPTIONS,
        "gating": {"type": "dict", "default": {}, "options": {**GATE_OPTIONS, **TRAFFIC}},
    }

    def act(self, arguments: Arguments, variables: Variables) -> Result:
        target = variables["inventory_hostname"]
        if self.checking:
            return self._answer(target, "admitted", "check mode: nothing is admitted", 0.0)
        begun = time.monotonic()
        with open_record(arguments) as record:
            batch = variables["ansible_play_batch"]
            admission = self._wait(record, arguments, target, batch, variables)
        waited = time.monotonic() - begun
        return self._answer(target, admission.verdict, admission.reason, waited)

    def _wait(
        self,
        record: Record,
        arguments: Arguments,
        target: str,
        batch: list[str],
        variables: Variables,
    ) -> Admission:
        """Ask until there is an answer; the first in line tells what all wait for."""
        deployment_id = arguments["deployment"]["id"]
        gates_since: float | None = None
        pause = SHORTEST_PAUSE
        passed_over: float | None = None
        told = ""
        looked_for_lost = False
        while True:
            wanted = pause_wanted()
            if wanted is not None:
                record.pause(deployment_id, wanted)
            now = time.monotonic()
            in_turn = passed_over is None or now - passed_over < PATIENCE
            admission = record.admit(deployment_id, target, in_turn=in_turn)
            if admission.verdict != "wait":
                return admission
            if not looked_for_lost:
                # What is not in this batch of the play has had its batch, or never gets one.
                record.lose_absent(deployment_id, target, batch)
                looked_for_lost = True
                continue
            if admission.gates:
                gates_since = gates_since or now
                # The first in line asks; if its worker has died, another one does.
                waited = now - gates_since
                if admission.leads or (
                    waited > PATIENCE and is_free(record, deployment_id, admission.gates)
                ):
                    self._ask_gates(record, arguments, admission, variables)
                    gates_since = None
                    continue
            if admission.leads and admission.reason != told:
                told = admission.reason
                tell(told)
            passed_over = (passed_over or now) if admission.out_of_turn else None
            patient = admission.needs_approval or admission.gates
            longest = PAUSE_FOR_A_PERSON if patient else LONGEST_PAUSE
            if admission.retry_at is not None:
                pause = max(pause, min(longest, admission.retry_at - time.time()))
            time.sleep(pause)
            pause = min(longest, pause * 1.5)

    def _ask_gates(
        self, record: Record, arguments: Arguments, admission: Admission, variables: Variables
    ) -> None:
        """Ask the gates between two stages, or wait while another target's worker does."""
        gating = arguments["gating"]
        run_step(
            record,
            arguments["deployment"],
            admission.gates,
            gates_of(gating),
            seconds=admission.bakes,
            rules=rules_of(gating),
            pools=pools_of(gating["pools"]),
            traffic=traffic_of(self, variables, gating["traffic"]),
            tell=tell,
            pause_wanted=pause_wanted,
        )

    def _answer(self, target: str, verdict: str, reason: str, waited: float) -> Result:
        told: dict[str, t.Any] = {
            "target": target,
            "verdict": verdict,
            "reason": reason,
            "waited": round(waited, 3),
        }
        return {"changed": False, "msg": reason, "bascule": told}


def is_free(record: Record, deployment_id: str, step: str) -> bool:
    """Tell whether nobody asks the gates of a step."""
    run = record.gate_look(deployment_id, step).run
    return run is None or run.claimed_until is None or run.claimed_until <= time.time()
