# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every proxy is to the code that shares traffic between pools: a few words and methods.

This file runs on hosts: Python 3.8 and the standard library only.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any, NamedTuple

from .._errors import TrafficError, UsageError

if TYPE_CHECKING:
    from .._routing_data import Routing

QUANTILES = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))


class RefusedError(TrafficError):
    """The proxy has said no; waiting does not help."""


class Counters(NamedTuple):
    """What a proxy has counted of one pool since it, or its statistics, began.

    :ivar errors: answers with a status of 500 or more, and connections that failed
    :ivar histogram: (upper bound in seconds, requests up to it), rising; ``None``: not known
    :ivar quantiles: where a service tells quantiles itself, and no histogram: those of its newest
        interval, in seconds
    """

    requests: int
    errors: int
    histogram: list[tuple[float, int]] | None = None
    quantiles: dict[str, float] | None = None

    def as_data(self) -> dict[str, Any]:
        """Return plain data, with the quantiles of the latency in seconds."""
        latency: dict[str, Any] | None = dict(self.quantiles) if self.quantiles else None
        if self.histogram and self.histogram[-1][1]:
            latency = {name: quantile(self.histogram, share) for name, share in QUANTILES}
            latency["histogram"] = [list(pair) for pair in self.histogram]
        return {"requests": self.requests, "errors": self.errors, "latency": latency}


class Router(abc.ABC):
    """The methods that a provider has for pools; one instance serves one request.

    Everything may raise ``TrafficError``.

    :ivar where: the proxy and its place, for messages
    :ivar settle_seconds: how long after the proxy shows a routing all its threads go by it
    :ivar take_up_seconds: an order that is not seen after this time will not be
    :ivar interval: seconds between two looks
    """

    where = ""
    settle_seconds = 0.0
    take_up_seconds = 15.0
    interval = 0.05

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what a person should know."""
        return ()

    @abc.abstractmethod
    def shown(self) -> Routing | None:
        """Return the routing that the proxy itself shows; ``None`` is none that we understand."""

    def same(self, shown: Routing, wanted: Routing) -> bool:
        """Tell whether nothing has to be ordered."""
        return shown == wanted

    @abc.abstractmethod
    def order(self, routing: Routing) -> None:
        """Order this routing; returns before it is observed."""

    @abc.abstractmethod
    def missing(self, routing: Routing) -> str:
        """Say what is still missing until the proxy goes by this routing; nothing is ``""``."""

    @abc.abstractmethod
    def take_back(self) -> None:
        """Put back what was there before the order, as far as that is possible."""

    @abc.abstractmethod
    def measure(self) -> dict[str, Counters]:
        """Return what the proxy has counted, by pool."""

    def measure_since(self, moment: float) -> dict[str, Counters] | None:
        """Return what was counted of requests after a moment (epoch seconds) and of no others.

        None: the counters have no times; what is between two measurements is what came between.
        """
        del moment
        return None


def everything_to(routing: Routing) -> str:
    """Return the pool that gets all requests; empty if another one gets a single one of them."""
    shared = [pool for pool, points in routing.points.items() if points]
    if len(shared) > 1 or routing.match or (routing.mirror and routing.mirror.share):
        return ""
    return shared[0]


def window(before: Counters, after: Counters) -> Counters:
    """Return what was counted between two measurements; a proxy that began anew began at 0."""
    if after.requests < before.requests or after.errors < before.errors:
        return after
    histogram = None
    if after.histogram is not None:
        bounds = {bound for bound, _count in [*(before.histogram or ()), *after.histogram]}
        histogram = [
            (bound, _up_to(after.histogram, bound) - _up_to(before.histogram or [], bound))
            for bound in sorted(bounds)
        ]
    return Counters(after.requests - before.requests, after.errors - before.errors, histogram)


def _up_to(histogram: list[tuple[float, int]], bound: float) -> int:
    return max((count for upper, count in histogram if upper <= bound), default=0)


def quantile(histogram: list[tuple[float, int]], share: float) -> float:
    """Return the quantile of a cumulative histogram, linear within its bucket.

    :param histogram: (upper bound, values up to it), rising
    """
    wanted = histogram[-1][1] * share
    lower, before = 0.0, 0
    for upper, count in histogram:
        if count >= wanted and count > before:
            if upper == float("inf"):
                return lower
            return round(lower + (upper - lower) * (wanted - before) / (count - before), 6)
        lower, before = upper, count
    return lower


def pool_names(pools: Any, key: str, provider: str) -> dict[str, str]:
    """Return how the provider names each pool, out of ``deploy_traffic_pools``.

    :raises UsageError: no pools, or one without this key
    """
    if not isinstance(pools, dict) or not pools:
        raise UsageError(
            "No pool is named: set deploy_traffic_pools, for instance {blue: {"
            f"{key}: shop-blue}}, green: {{{key}: shop-green}}}}."
        )
    names = {}
    for pool, entry in pools.items():
        name = entry.get(key) if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name:
            raise UsageError(
                f"deploy_traffic_pools: {pool} is {entry!r}; with {provider} it needs {key!r}."
            )
        names[str(pool)] = name
    if len(set(names.values())) != len(names):
        raise UsageError(
            f"deploy_traffic_pools: two pools have the same {key}: {', '.join(names.values())}."
        )
    return names
