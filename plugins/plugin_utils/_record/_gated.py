# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of the record that gates and alarms use (see ``_store.Record``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _alarms, _control, _gating
from ._transactions import Transactions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._rows import Approval


class GatedRecord(Transactions):
    """Each method is a transaction of its own, as are those of ``Record``."""

    def gate_look(self, deployment_id: str, step: str) -> _gating.GateLook:
        """Return whether the deployment is to go on, and how the gates of the step stand."""
        return self._read(lambda session: _gating.look(session, deployment_id, step, self._fence))

    def claim_gates(
        self,
        deployment_id: str,
        step: str,
        seconds: float,
        holder: str,
        *,
        now: float | None = None,
    ) -> _gating.GateRun:
        """Take the gates of a step unless another one asks them; ``claimed`` says whether.

        :param seconds: how long the step bakes; counted from the first claim, whoever made it
        :param holder: a name that only the one who claims has
        :param now: for tests
        """
        return self._change(
            deployment_id,
            lambda change: _gating.claim(change, step, seconds, holder),
            synced=True,
            now=now,
        )

    def keep_gates(
        self,
        deployment_id: str,
        step: str,
        holder: str,
        waits_for: str,
        *,
        now: float | None = None,
    ) -> bool:
        """Renew a claim and write down what is waited for; False if it was lost."""
        return self._change(
            deployment_id, lambda change: _gating.keep(change, step, holder, waits_for), now=now
        )

    def extend_gates(
        self, deployment_id: str, step: str, seconds: float, why: str
    ) -> _gating.GateRun:
        """Bake a step once more; what was measured stays."""
        return self._change(
            deployment_id, lambda change: _gating.extend(change, step, seconds, why), synced=True
        )

    def decide_gate(
        self,
        deployment_id: str,
        step: str,
        round_: int,
        gate: str,
        verdict: str,
        data: Mapping[str, Any],
        message: str,
        *,
        told: bool = False,
        now: float | None = None,
    ) -> None:
        """Write down what a gate has answered, with the data that the answer was made from.

        :param told: it is an event, too
        :param now: when it was asked, in epoch seconds
        """
        self._change(
            deployment_id,
            lambda change: _gating.decide(
                change, step, round_, gate, verdict, data, message, told=told
            ),
            now=now,
        )

    def end_gates(self, deployment_id: str, step: str, verdict: str, message: str) -> None:
        """Write down the verdict of a step."""
        self._change(
            deployment_id, lambda change: _gating.end(change, step, verdict, message), synced=True
        )

    def gate_runs(self, deployment_id: str) -> list[_gating.GateRun]:
        """Return the gates of all steps of a deployment, in order."""
        return self._read(lambda session: _gating.runs(session, deployment_id))

    def gate_decisions(
        self, deployment_id: str, step: str | None = None
    ) -> list[_gating.GateDecision]:
        """Return what gates have answered, with the data, in order."""
        return self._read(lambda session: _gating.decisions(session, deployment_id, step))

    def ask_person(self, deployment_id: str, step: str, timeout: float) -> Approval:
        """Ask a person about a step, unless that was done; ``timeout`` in seconds."""
        return self._change(
            deployment_id, lambda change: _gating.ask_person(change, step, timeout), synced=True
        )

    def time_out_approval(self, deployment_id: str, on_timeout: str) -> None:
        """Note that nobody has answered in time; with ``stop`` that halts the deployment."""
        self._change(
            deployment_id,
            lambda change: _control.time_out(change, {"on_timeout": on_timeout}),
            synced=True,
        )

    def worth_watching(self, deployment_id: str) -> bool:
        """Whether the deployment has changed targets, and is to succeed as it stands."""
        return self._read(lambda session: _gating.worth_watching(session, deployment_id))

    def alarm_turn(self, deployment_id: str, interval: float, *, now: float | None = None) -> float:
        """Return 0 if the caller is the one to look at the alarms now; then nobody else is.

        Otherwise the seconds until it is time to ask again.

        :param interval: seconds until the next look
        """
        wait = self._read(lambda session: _alarms.wait_for(session, deployment_id, now))
        if wait > 0:
            return wait
        return self._change(
            deployment_id, lambda change: _alarms.take_turn(change, interval), now=now
        )

    def note_alarms(
        self, deployment_id: str, states: Mapping[str, str], interval: float, *, error: str = ""
    ) -> int:
        """Keep what was seen of the alarms; returns how many looks in a row have failed.

        :param interval: seconds until the next look
        :param error: why nothing was seen
        """
        return self._change(
            deployment_id, lambda change: _alarms.note(change, states, error, interval)
        )

    def alarms(self, deployment_id: str) -> _alarms.AlarmPoll | None:
        """Return what was seen of the alarms last, None if nobody has looked."""
        return self._read(lambda session: _alarms.newest(session, deployment_id))
