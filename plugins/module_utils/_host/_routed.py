# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Share traffic between pools, wait until the proxy is seen to do so, and read what it counted.

This file runs on the proxy's host: Python 3.8 and the standard library only.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from .._capabilities import require
from .._errors import TrafficError
from .._routing_data import Routing, describe, parse_routing
from ._router import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._router import Router

    Opener = Callable[[str, dict[str, Any]], Router]

ACTIONS = ("route", "measure")


def carry_out(request: dict[str, Any], opener: Opener) -> dict[str, Any]:
    """Make a routing so, or measure the pools, at the proxy that ``opener`` gives.

    :param request: ``{"operation": "traffic", "action": "route" | "measure", "check": bool,
        "provider": ..., "provider_options": {..., "pools": {name: {...}}}, "routing": {...},
        "since": epoch s}``
    :param opener: returns the router for a provider's name and its options
    :returns: of ``route``: ``{"changed", "msg", "routing": {"before", "after"}, "diff", "waited",
        "where", "warnings"}``, ``before`` being ``None`` where the proxy has no routing that we
        understand. Of ``measure``: ``{"changed": False, "msg", "pools": {name: {"requests",
        "errors", "latency"}}, "at", "where", "warnings"}``, with ``"since"`` where no request from
        before that moment is among them
    :raises UsageError: a request that cannot be worked with, or that the provider cannot fulfil
    :raises TrafficError: a proxy that cannot be reached, or does not do as asked
    """
    provider = str(request.get("provider"))
    options = dict(request.get("provider_options") or {})
    if request["action"] == "measure":
        require(provider, ["measure"])
        return _measured(opener(provider, options), request.get("since"))
    routing = parse_routing(request.get("routing"), options.get("pools"), provider=provider)
    router = opener(provider, options)
    before = router.shown()
    if before is not None and router.same(before, routing):
        return _result(router, before, routing, changed=False, waited=0.0)
    if request.get("check"):
        return _result(router, before, routing, changed=True, waited=0.0)
    return _route(router, before, routing)


def _route(router: Router, before: Routing | None, routing: Routing) -> dict[str, Any]:
    started = time.monotonic()
    try:
        router.order(routing)
        while True:
            missing = _still_missing(router, routing, started)
            if not missing:
                break
            if time.monotonic() - started >= router.take_up_seconds:
                raise TrafficError(
                    f"{router.where} was given another routing, but after "
                    f"{router.take_up_seconds:g} s it does not go by it: {missing}. Look at the "
                    "proxy's log. The order was taken back."
                )
            time.sleep(router.interval)
    except TrafficError:
        with contextlib.suppress(TrafficError):
            router.take_back()
        raise
    time.sleep(router.settle_seconds)
    waited = round(time.monotonic() - started, 3)
    return _result(router, before, routing, changed=True, waited=waited)


def _still_missing(router: Router, routing: Routing, started: float) -> str:
    """Look once; a proxy that does not answer just now is asked again until the deadline."""
    try:
        return router.missing(routing)
    except RefusedError:
        raise
    except TrafficError as error:
        if time.monotonic() - started >= router.take_up_seconds:
            raise
        return str(error)


def _measured(router: Router, since: float | None) -> dict[str, Any]:
    alone = router.measure_since(since) if since is not None else None
    counters = router.measure() if alone is None else alone
    return {
        **({} if alone is None else {"since": since}),
        "changed": False,
        "msg": f"{router.where}: "
        + ", ".join(
            f"{pool} {seen.requests} requests, {seen.errors} errors"
            for pool, seen in counters.items()
        ),
        "pools": {pool: seen.as_data() for pool, seen in counters.items()},
        "at": time.time(),
        "where": router.where,
        "warnings": [],
    }


def _result(
    router: Router, before: Routing | None, after: Routing, *, changed: bool, waited: float
) -> dict[str, Any]:
    return {
        "changed": changed,
        "msg": f"{router.where}: {', '.join(describe(after).splitlines())}",
        "routing": {"before": before.as_data() if before else None, "after": after.as_data()},
        "diff": {
            "before_header": router.where,
            "after_header": router.where,
            "before": describe(before),
            "after": describe(after),
        },
        "waited": waited,
        "where": router.where,
        "warnings": list(router.warnings),
    }
