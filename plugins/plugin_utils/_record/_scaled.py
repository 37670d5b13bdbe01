# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of the record that Auto Scaling uses: who is held still, who leaves the fleet."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from . import _scaling
from ._transactions import Transactions

if TYPE_CHECKING:
    from collections.abc import Sequence


class HookTurn(NamedTuple):
    """Whose turn it is to look at a group's hooks.

    ``region`` is the group's, empty for who has not the turn; ``wait`` the seconds until the next,
    ``began`` (epoch seconds) when this one was taken.
    """

    region: str
    wait: float
    began: float = 0.0


class ScaledRecord(Transactions):
    """Each method is a transaction of its own, as are those of ``Record``."""

    def hold(
        self,
        deployment_id: str,
        scaling_group: str,
        region: str,
        processes: Sequence[str],
        *,
        hook: str | None = None,
    ) -> None:
        """Write down that processes of an Auto Scaling group are suspended for a deployment.

        Or that its instances wait at a launch hook, where nothing is suspended.
        """
        self._change(
            deployment_id,
            lambda change: _scaling.hold(change, scaling_group, region, processes, hook=hook),
            synced=True,
        )

    def hook_turn(
        self, deployment_id: str, among: Sequence[str], scaling_group: str, interval: float
    ) -> HookTurn:
        """Return whether it is this one's turn to look at a group's hooks.

        A turn with a region must be given back (``end_hook_turn``); nobody else looks meanwhile.

        :param among: the deployments for which the group may be held
        :param interval: seconds between two heartbeats
        """
        wait = self._read(
            lambda session: _scaling.wait_for(session, among, scaling_group, interval)
        )
        if wait is None or wait > 0:
            return HookTurn("", interval if wait is None else wait)
        began = time.time()
        region = self._change(
            deployment_id,
            lambda change: _scaling.take_turn(change, among, scaling_group, interval),
            now=began,
        )
        return HookTurn(region, interval, began)

    def end_hook_turn(
        self, deployment_id: str, among: Sequence[str], scaling_group: str, turn: HookTurn
    ) -> None:
        """Give a turn back: the next is due its interval after this one has begun."""
        self._change(
            deployment_id,
            lambda change: _scaling.end_turn(change, among, scaling_group, turn.began),
        )

    def note_hook_failure(self, deployment_id: str, message: str) -> None:
        """Write down that instances could not be kept waiting at a hook, or seen off."""
        self._change(
            deployment_id,
            lambda change: change.note("HookUnanswered", status="Error", message=message),
        )

    def holds(self, scaling_group: str, region: str) -> list[_scaling.Hold]:
        """Return for which deployments an Auto Scaling group is held."""
        return self._read(lambda session: _scaling.holds(session, scaling_group, region))

    def holds_of(self, deployment_ids: Sequence[str]) -> list[_scaling.Hold]:
        """Return which Auto Scaling groups are held for these deployments."""
        return self._read(lambda session: _scaling.holds_of(session, deployment_ids))

    def release_hold(self, held: _scaling.Hold) -> None:
        """Write down that an Auto Scaling group is not held any more."""
        self._change(held.deployment_id, lambda change: _scaling.release(change, held))

    def leave(self, deployment_id: str, target: str, message: str) -> None:
        """Write down that a target has left the fleet; it counts neither as done nor as failed."""
        self._change(deployment_id, lambda change: _scaling.leave(change, target, message))

    def see_off(self, deployment_id: str, target: str, message: str) -> bool:
        """Write down that a target is being taken away; False while it is worked on."""
        return self._change(deployment_id, lambda change: _scaling.see_off(change, target, message))
