# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every load balancer on a proxy host is to the code that waits: a few words and five methods.

This file runs on hosts: Python 3.8 and the standard library only.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any, NamedTuple

from .._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


class Target(NamedTuple):
    """One target as the balancer knows it.

    By name (HAProxy), by address and port (Envoy, ALB) or by the id of its instance (ALB, ELB).
    """

    name: str
    address: str
    port: int
    weight: int | None = None
    instance: str = ""


class Seen(NamedTuple):
    """One target's state as the balancer itself tells it.

    :ivar known: the balancer has this target
    :ivar drained: the order to send it no new request stands
    :ivar held: some such order stands, also a stronger or weaker one; restore lifts it
    :ivar blocked: the balancer is seen to obey: no new request is sent
    :ivar in_service: no such order, and the balancer finds the target healthy
    :ivar state: the balancer's own words, for people
    :ivar active: requests on their way now, those waiting in a queue included
    :ivar served: requests ever given to the target; a number that stands still means quiet
    :ivar ending: the balancer itself still waits for open requests to end, and does not count them
    :ivar counted: the balancer counts requests; ``active`` and ``served`` mean something
    :ivar answered: requests of the target that have ended, ``None``: not counted by target
    :ivar errors: those among them that it answered with 500 or more, or not at all
    """

    known: bool
    drained: bool
    held: bool
    blocked: bool
    in_service: bool
    state: str
    active: int
    served: int
    ending: bool = False
    counted: bool = True
    answered: int | None = None
    errors: int = 0


ABSENT = Seen(
    known=False,
    drained=True,
    held=True,
    blocked=True,
    in_service=False,
    state="not registered",
    active=0,
    served=0,
)


class Balancer(abc.ABC):
    """The methods a provider has; one instance serves one request.

    Everything may raise ``TrafficError``.

    :ivar where: the balancer and its place, for messages
    :ivar warnings: what a person should know before the balancer is told something
    :ivar quiet_seconds: how long a target must have been without a request to count as drained: a
        balancer's threads learn of an order a moment after its administration shows it
    :ivar interval: seconds that must lie between two looks, for a balancer that is asked remotely
    :ivar slack: seconds that are added to a drain's time, for a balancer that keeps time itself
    """

    where = ""
    warnings: tuple[str, ...] = ()
    quiet_seconds = 0.2
    interval = 0.0
    slack = 0.0

    @abc.abstractmethod
    def observe(self) -> dict[str, Seen]:
        """Ask the balancer once for all targets and return what it says, by target name."""

    @abc.abstractmethod
    def block(self, names: Sequence[str]) -> None:
        """Order that these targets get no new request; returns before it is observed."""

    @abc.abstractmethod
    def release(self, names: Sequence[str], *, untouched: bool = False) -> None:
        """Lift the order, or register the target; returns before it is observed.

        :param untouched: an order that was just given is taken back; the targets need no new proof
        """

    def advance(self) -> None:  # noqa: B027 - a step that most balancers do not have
        """Take the next step of a release that needs more than one; most need none."""

    def weights(self) -> dict[str, float]:
        """Return how many requests each target gets, as a multiple of any other's.

        After ``observe``; empty where the balancer goes by something else than turns and weights.
        """
        return {}

    @abc.abstractmethod
    def known_names(self) -> list[str]:
        """Name what the balancer has, for messages."""


def read_options(
    provider: str,
    given: dict[str, Any],
    required: Sequence[str],
    optional: dict[str, Any],
) -> dict[str, Any]:
    """Return the provider's options with defaults filled in.

    :raises UsageError: an unknown option, or a required one that is missing or empty
    """
    names = list(required) + list(optional)
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise UsageError(
            f"Unknown {provider} option {', '.join(unknown)}; it has {', '.join(names)}."
        )
    missing = [name for name in required if given.get(name) in (None, "")]
    if missing:
        raise UsageError(
            f"The {provider} provider needs the option {', '.join(missing)}: set "
            + ", ".join(f"deploy_{provider}_{name}" for name in missing)
            + "."
        )
    return {
        name: given[name] if given.get(name) not in (None, "") else optional.get(name)
        for name in names
    }
