# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of the record that schedules use: their steps, and how the traffic was routed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _control, _shifting
from ._transactions import Transactions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._change import Change


class ShiftedRecord(Transactions):
    """Each method is a transaction of its own, as are those of ``Record``."""

    def steps(self, deployment_id: str) -> list[_shifting.Step]:
        """Return the steps of a deployment's schedule in order; none where no traffic is moved."""
        return self._read(lambda session: _shifting.steps(session, deployment_id))

    def begin_step(self, deployment_id: str, number: int) -> str:
        """Begin a step, or go on with it.

        :returns: go, passed (it has succeeded), stopped (the deployment ends before any traffic was
            moved) or paused
        :raises RecordError: there is no such step, or the deployment is to end after traffic was
            moved
        """
        return self._change(
            deployment_id, lambda change: _shifting.begin(change, number), synced=True
        )

    def end_step(self, deployment_id: str, number: int, message: str = "") -> None:
        """Write down that a step has succeeded."""
        self._change(
            deployment_id,
            lambda change: _shifting.end(change, number, _shifting.SUCCEEDED, message),
            synced=True,
        )

    def fail_steps(self, deployment_id: str, error_code: str, message: str) -> None:
        """Write down that the present step has failed, and halt the deployment."""

        def fail(change: Change) -> None:
            _shifting.fail_present(change, message)
            _control.halt(change, error_code, message)

        self._change(deployment_id, fail, synced=True)

    def note_routing(
        self,
        deployment_id: str,
        *,
        provider: str,
        where: str,
        before: Mapping[str, Any] | None,
        after: Mapping[str, Any] | None,
        waited: float = 0.0,
    ) -> None:
        """Write down what the routing of a load balancer was seen to be set to."""
        self._change(
            deployment_id,
            lambda change: _shifting.note_routing(
                change, provider=provider, where=where, before=before, after=after, waited=waited
            ),
            synced=True,
        )

    def routing_changes(self, deployment_id: str) -> list[_shifting.RoutingChange]:
        """Return what the routing was set to in a deployment, in order."""
        return self._read(lambda session: _shifting.routing_changes(session, deployment_id))
