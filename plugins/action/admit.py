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
    options = DEPLOYMENT_OPTIONS

    def act(self, arguments: Arguments, variables: Variables) -> Result:
        target = variables["inventory_hostname"]
        if self.checking:
            return self._answer(target, "admitted", "check mode: nothing is admitted", 0.0)
        begun = time.monotonic()
        with open_record(arguments) as record:
            batch = variables["ansible_play_batch"]
            admission = self._wait(record, arguments["deployment"]["id"], target, batch)
        waited = time.monotonic() - begun
        return self._answer(target, admission.verdict, admission.reason, waited)

    def _wait(self, record: Record, deployment_id: str, target: str, batch: list[str]) -> Admission:
        """Ask until there is an answer; the first in line tells what all wait for."""
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
            if admission.leads and admission.reason != told:
                told = admission.reason
                tell(told)
            passed_over = (passed_over or now) if admission.out_of_turn else None
            longest = PAUSE_FOR_A_PERSON if admission.needs_approval else LONGEST_PAUSE
            if admission.retry_at is not None:
                pause = max(pause, min(longest, admission.retry_at - time.time()))
            time.sleep(pause)
            pause = min(longest, pause * 1.5)

    def _answer(self, target: str, verdict: str, reason: str, waited: float) -> Result:
        told: dict[str, t.Any] = {
            "target": target,
            "verdict": verdict,
            "reason": reason,
            "waited": round(waited, 3),
        }
        return {"changed": False, "msg": reason, "bascule": told}
