# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a source of measurements is given, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ...module_utils._errors import GateError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .._record import Record


class SourceError(GateError):
    """A source that does not answer, or whose answer cannot be read."""


@dataclass(frozen=True)
class Measurement:
    """One answer: a phase of ``_gate_rules``, what was seen in words, and as data.

    ``data`` is JSON, without secrets; a decision can be made again from it.
    """

    phase: str
    seen: str
    data: dict[str, Any] = field(default_factory=dict)


class Traffic(Protocol):
    """The load balancers of a deployment, seen from the controller."""

    def measured(self) -> dict[str, Any]:
        """Return ``{"at": epoch seconds, "pools": {name: {"requests", "errors", "latency"}}}``.

        The counters only grow; ``latency`` is ``{"p50", "p95", "p99"}`` in milliseconds or None.
        Where arms are targets, ``arms`` has the same of each, and ``assigned`` is ``{arm: requests
        given to it, "share": the part of them that the canary is to get, or None}``.

        :raises BasculeError: a load balancer does not answer
        """

    def observed(self, pool: str = "") -> dict[str, Any]:
        """Return ``{"targets": {name: {"in_service", "state"}}}`` as the load balancers see them.

        :param pool: that of the targets, where the load balancers have pools
        :raises BasculeError: a load balancer does not answer
        """


@dataclass(frozen=True)
class Pools:
    """Which pools are compared, and the canary's part of the traffic (0 to 1; None: not known).

    ``sticky``: users stay with their pool, so their requests do not stand for themselves. ``arms``
    are the targets of canary and baseline, as the load balancer knows them, where these are targets
    and not whole pools; they are what is counted then, and ``canary`` and ``baseline`` are the
    pools that they are in, if there are any.
    """

    canary: str = ""
    baseline: str = ""
    share: float | None = None
    sticky: bool = False
    arms: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def named(self, name: str) -> str:
        """Return the pool that a gate means: ``new`` and ``old`` are those of the deployment.

        Pools take turns, so a gate that is kept with a deployment group cannot name them.
        """
        if name in (self.canary, self.baseline):
            return name
        return {"new": self.canary, "old": self.baseline}.get(name) or name


@dataclass(frozen=True)
class Moment:
    """The moment at which a gate is asked; times are epoch seconds.

    ``over``: the bake time has passed, so what is not told now is told by nobody. ``earlier`` is
    the data of the gate's decisions in this step, of all rounds and in order.
    """

    record: Record
    deployment: Mapping[str, Any]
    step: str
    round: int
    started: float
    until: float
    now: float
    over: bool
    late: bool
    pools: Pools
    traffic: Traffic | None
    earlier: Sequence[Mapping[str, Any]]

    @property
    def bakes(self) -> bool:
        """Whether the step has a bake time at all."""
        return self.until > self.started
