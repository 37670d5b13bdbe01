# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Refuse, while a plan is made, a routing that its provider would refuse in the middle of it.

``_capabilities`` says what a provider can do at all; here are its limits, as the provider's own
code has them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _alb_routing
from ._host._nginx_files import write_routing
from ._routing_data import Routing, parse_routing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def _alb(routing: Routing) -> None:
    _alb_routing.forward(routing, {pool: pool for pool in routing.points})


def _nginx(routing: Routing) -> None:
    write_routing(routing, {pool: pool for pool in routing.pools()}, "plan")


_LIMITS: dict[str, Callable[[Routing], None]] = {"elbv2": _alb, "nginx": _nginx}


def refuse_beyond(provider: str, routing: Mapping[str, Any]) -> None:
    """Refuse a routing that this provider cannot have.

    :raises UsageError: what is wrong, and what the provider has instead
    """
    parsed = parse_routing(dict(routing), provider=provider)
    if provider in _LIMITS:
        _LIMITS[provider](parsed)
