# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each traffic provider can do. Generic code asks this table, never the provider's name.

This file also runs on hosts: Python 3.8 and the standard library only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# The words, and how a message says them.
MEANINGS: dict[str, str] = {
    "observe": "tell the state of a target",
    "drain": "take a target out of service",
    "restore": "put a target back in service",
    "register": "add a target that it does not know",
    "weights": "share the traffic between pools",
    "match": "choose a pool by a header or a cookie",
    "listener": "send what comes to a test listener to a pool",
    "sticky": "keep a user on one pool",
    "identity": "know a user by a header or a cookie that you name",
    "mirror": "send a copy of requests to a pool",
    "measure": "count requests, errors and latency of a pool",
    "count": "count requests and errors of each target",
}

_TARGETS = ("observe", "drain", "restore")
_ROUTING = ("weights", "match", "sticky", "measure")
# The cookie of an Application Load Balancer, by which it knows users, and by nothing else.
ALB_COOKIE = "AWSALBTG"

CAPABILITIES: dict[str, frozenset[str]] = {
    "envoy": frozenset((*_TARGETS, "register", *_ROUTING, "identity", "mirror", "count")),
    "haproxy": frozenset((*_TARGETS, *_ROUTING, "identity", "count")),
    "nginx": frozenset((*_TARGETS, "register", *_ROUTING, "identity", "mirror")),
    "elbv2": frozenset((*_TARGETS, "register", *_ROUTING, "listener")),
    "elb": frozenset((*_TARGETS, "register")),
    "lambda_alias": frozenset(("weights", "measure")),
}

# Providers whose counts come minutes late, and whole minutes at once, so that they tell of requests
# from before a shift when it has just been made: their own word for the share is taken instead.
LATE = frozenset(("elbv2", "lambda_alias"))
# Those of them that can tell of the minutes after a shift alone. Before something is done that
# cannot be undone these are waited for.
BY_MINUTE = frozenset(("elbv2",))

# Providers that read a change by a reload, which may cost something: a plan tells what they say.
RELOADED = frozenset(("nginx",))

# Providers whose work is done on the proxy's own host; the others are asked from the controller.
ON_HOST = frozenset(("envoy", "haproxy", "nginx"))


def sticky_wishes(sticky: Mapping[str, Any] | None) -> list[str]:
    """Return the capabilities that sticky users need; ``sticky`` as a routing has it."""
    if not sticky:
        return []
    return ["sticky", *([] if sticky.get("cookie") == ALB_COOKIE else ["identity"])]


def lacking(provider: str, wishes: Iterable[str]) -> list[str]:
    """Return those wishes that the provider cannot fulfil.

    :raises UsageError: a provider or a wish that does not exist
    """
    if provider not in CAPABILITIES:
        raise UsageError(
            f"deploy_traffic_provider is {provider!r}, wanted one of "
            f"{', '.join(sorted(CAPABILITIES))}."
        )
    wanted = list(dict.fromkeys(wishes))
    unknown = [wish for wish in wanted if wish not in MEANINGS]
    if unknown:
        raise UsageError(f"{unknown[0]!r} is not one of {', '.join(MEANINGS)}.")
    return [wish for wish in wanted if wish not in CAPABILITIES[provider]]


def require(provider: str, wishes: Iterable[str]) -> None:
    """Refuse what the provider cannot do, and name the providers that can do all of it.

    :raises UsageError: a wish that the provider lacks
    """
    wanted = list(dict.fromkeys(wishes))
    missing = lacking(provider, wanted)
    if not missing:
        return
    able = sorted(name for name, words in CAPABILITIES.items() if words.issuperset(wanted))
    raise UsageError(
        f"The traffic provider {provider} cannot "
        + ", nor ".join(f"{MEANINGS[wish]} ({wish})" for wish in missing)
        + ". "
        + (
            f"Set deploy_traffic_provider to one that can: {', '.join(able)}."
            if able
            else "No provider can do all that is asked for at once: "
            + "; ".join(
                f"{wish}: "
                + ", ".join(sorted(n for n, words in CAPABILITIES.items() if wish in words))
                for wish in wanted
            )
            + "."
        )
    )
