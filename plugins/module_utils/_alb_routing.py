# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a routing to what an Application Load Balancer takes, and back.

Sources: the ELBv2 API reference (``ForwardActionConfig``: weights are whole numbers from 0 to 999;
``HttpHeaderConditionConfig``: ``*`` and ``?`` are wildcards, case is ignored; stickiness lasts 1 s
to 7 days and goes by the cookie AWSALBTG, which the load balancer gives).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ._capabilities import ALB_COOKIE
from ._errors import UsageError
from ._routing_data import WHOLE, Match, Routing, Sticky

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

COOKIE = ALB_COOKIE
LONGEST_STICKY = 604800
HEAVIEST = 999


def weights_of(points: Mapping[str, int]) -> dict[str, int]:
    """Return the smallest weights that have these shares, or have them to a hundredth percent.

    :param points: hundredths of a percent by pool, summing to ``WHOLE``
    :raises UsageError: no weights have these shares
    """
    divisor = math.gcd(*points.values())
    exact = {pool: share // divisor for pool, share in points.items()}
    if max(exact.values()) <= HEAVIEST:
        return exact
    for total in range(1, HEAVIEST * len(points) + 1):
        weights = {pool: (share * total + WHOLE // 2) // WHOLE for pool, share in points.items()}
        fits = sum(weights.values()) == total and max(weights.values()) <= HEAVIEST
        if fits and points_of(weights) == dict(points):
            return weights
    raise UsageError(
        "routing: an Application Load Balancer has weights from 0 to 999 and cannot share "
        + ", ".join(f"{pool} {share / 100:g} %" for pool, share in points.items())
        + ". Take shares of whole tenths of a percent."
    )


def points_of(weights: Mapping[str, int]) -> dict[str, int]:
    """Return hundredths of a percent that sum to ``WHOLE``, by largest remainder.

    All weights 0 are a routing that answers 503; the points are then all 0.
    """
    total = sum(weights.values())
    if not total:
        return dict.fromkeys(weights, 0)
    points = {pool: weight * WHOLE // total for pool, weight in weights.items()}
    left = WHOLE - sum(points.values())
    for pool in sorted(weights, key=lambda one: (-(weights[one] * WHOLE % total), one))[:left]:
        points[pool] += 1
    return points


def forward(
    routing: Routing, groups: Mapping[str, str], attached: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the action that shares requests between the pools' target groups.

    :param groups: ARN by pool
    :param attached: pools that stay attached at weight 0 though the routing does not name them
    :raises UsageError: shares or a stickiness that an ALB does not have
    """
    weights = {**dict.fromkeys(attached, 0), **weights_of(routing.points)}
    config: dict[str, Any] = {
        "TargetGroups": [
            {"TargetGroupArn": groups[pool], "Weight": weight} for pool, weight in weights.items()
        ],
        "TargetGroupStickinessConfig": {"Enabled": False},
    }
    if routing.sticky:
        config["TargetGroupStickinessConfig"] = {
            "Enabled": True,
            "DurationSeconds": sticky_seconds(routing.sticky),
        }
    return {"Type": "forward", "ForwardConfig": config}


def sticky_seconds(sticky: Sticky) -> int:
    """Return for how long a user stays with a pool.

    :raises UsageError: an ALB knows users by no other cookie than its own
    """
    if sticky.cookie != COOKIE:
        by = f"the header {sticky.header}" if sticky.header else f"the cookie {sticky.cookie}"
        raise UsageError(
            f"routing: sticky by {by}: an Application Load Balancer knows a user by its own cookie "
            f"{COOKIE} and nothing else. Set cookie: {COOKIE} and ttl (1 s to 7 days)."
        )
    seconds = round(sticky.ttl or 86400)
    if seconds > LONGEST_STICKY:
        raise UsageError(
            f"routing: sticky: ttl is {seconds} s; an Application Load Balancer keeps a user with "
            f"a target group for at most {LONGEST_STICKY} s (7 days)."
        )
    return seconds


def condition(rule: Match) -> dict[str, Any]:
    """Return the condition of a rule; a cookie is looked for in its header, at every place."""
    if rule.header:
        name, values = rule.header, [rule.value]
    else:
        pair = f"{rule.cookie}={rule.value}"
        name, values = "Cookie", [pair, f"{pair};*", f"*; {pair}", f"*; {pair};*"]
    return {
        "Field": "http-header",
        "HttpHeaderConfig": {"HttpHeaderName": name, "Values": values},
    }


def match_of(given: Mapping[str, Any], pool: str) -> Match | None:
    """Understand a condition that ``condition`` has made; None for any other."""
    config = given.get("HttpHeaderConfig") or {}
    name, values = config.get("HttpHeaderName"), list(config.get("Values") or [])
    if given.get("Field") != "http-header" or not name or not values:
        return None
    if str(name).lower() == "cookie":
        cookie, equals, value = str(values[0]).partition("=")
        return Match(pool, value, cookie=cookie) if equals else None
    return Match(pool, str(values[0]), header=str(name)) if len(values) == 1 else None


def shares(action: Mapping[str, Any]) -> dict[str, int]:
    """Return the weight of each target group (by ARN) that an action forwards to."""
    config = action.get("ForwardConfig") or {}
    groups = config.get("TargetGroups") or []
    if not groups and action.get("TargetGroupArn"):
        return {str(action["TargetGroupArn"]): 1}
    return {str(one["TargetGroupArn"]): int(one.get("Weight", 1)) for one in groups}


def stickiness(action: Mapping[str, Any]) -> Sticky | None:
    """Return an action's stickiness. The salt is the load balancer's own secret."""
    config = (action.get("ForwardConfig") or {}).get("TargetGroupStickinessConfig") or {}
    if str(config.get("Enabled")).lower() != "true":
        return None
    return Sticky("alb", cookie=COOKIE, ttl=float(config.get("DurationSeconds") or 0))


def at_test_listener(routing: Routing) -> Routing:
    """Return the routing of what comes to the test listener: all to one pool, or as users go."""
    pools = [rule.pool for rule in routing.match if rule.listener]
    if not pools:
        return Routing(routing.points, (), routing.sticky)
    points = {pool: 0 for pool in routing.points if pool != pools[0]}
    return Routing({pools[0]: WHOLE, **points})


def same(one: Routing, other: Routing) -> bool:
    """Tell whether two routings mean the same for an ALB, which has a salt of its own.

    What a test listener forwards to is compared by whoever can ask it.
    """
    return _plain(one) == _plain(other)


def _plain(routing: Routing) -> tuple[Any, ...]:
    rules = tuple(
        (rule.pool, (rule.header or "").lower(), rule.cookie, rule.value.lower())
        for rule in routing.match
        if not rule.listener
    )
    sticky = sticky_seconds(routing.sticky) if routing.sticky else None
    points = {pool: share for pool, share in routing.points.items() if share}
    return points, rules, sticky
