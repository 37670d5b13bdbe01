# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Load balancers that know their targets as members of pools, and tell each member's health.

A target leaves and enters all pools together. Each pool is asked once for all its members.
"""

from __future__ import annotations

import abc
import time
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from ...module_utils._errors import TrafficCallError, TrafficError
from ...module_utils._host._balancer import ABSENT, Balancer, Seen, Target
from ._calls import parts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ._desk import Desk

# What a member is: it gets requests, it will when it is found healthy, its last requests end,
# or it is none (any more).
SERVING, WAITING, ENDING, GONE = "serving", "waiting", "ending", "gone"
# What a target that could not be put back means to users.
LEFT_OUT = " and gets no traffic from there until a deployment puts it back"

# A look at a pool answers for all targets in flight, so it need not be often.
LOOK_SECONDS = 2.0
# An order that can never lead to service is given up after this time.
HOPELESS_SECONDS = 15.0


class Member(NamedTuple):
    """What a pool says of a member: one of the words above, the pool's own words, and a verdict.

    :ivar hopeless: why it will never be in service as the load balancer is set up; mostly empty
    """

    kind: str
    state: str
    hopeless: str = ""


class Pool(NamedTuple):
    """A pool: its id at the service, its name for people, and what the provider keeps of it."""

    id: str
    name: str
    about: dict[str, Any]


class Members(Balancer):
    """The common part of ELB's generations; a provider has the last five methods."""

    quiet_seconds = 0.0
    interval = 1.0
    # The service ends a drain by its own clock; the plan's may run out at the same second.
    slack = 30.0
    kind: ClassVar[str]

    def __init__(self, targets: Sequence[Target], desk: Desk, propagation: float) -> None:
        """Keep what is asked for; ``propagation`` is how long an order may take to be obeyed."""
        self._targets = list(targets)
        self._desk = desk
        self._propagation = propagation
        self._ordered: dict[str, float] = {}
        self._known: list[str] = []
        self._hopeless: dict[str, str] = {}

    def observe(self) -> dict[str, Seen]:
        """Look at each pool once and put together what they say of each target."""
        found: dict[str, dict[str, Member]] = {target.name: {} for target in self._targets}
        known: set[str] = set()
        for pool in self.pools():
            members: dict[str, list[str]] = self._desk.look(
                f"{self.kind} {pool.id}", partial(self.ask, pool), interval=LOOK_SECONDS
            )
            known |= set(members)
            for target in self._targets:
                given = members.get(self.member(pool, target))
                found[target.name][pool.name] = (
                    Member(*given) if given else Member(GONE, "not registered")
                )
        self._known = sorted(known)
        return {name: self._put_together(name, pools) for name, pools in found.items()}

    def block(self, names: Sequence[str]) -> None:
        """Take the targets out of every pool they are in."""
        self._order(names, "remove", (SERVING, WAITING))

    def release(self, names: Sequence[str], *, untouched: bool = False) -> None:
        """Put the targets into every pool they are not in."""
        del untouched
        self._order(names, "add", (ENDING, GONE))

    def advance(self) -> None:
        """Give up on what the load balancer's own settings keep out of service."""
        for name, why in self._hopeless.items():
            if time.monotonic() - self._ordered.get(name, time.monotonic()) > HOPELESS_SECONDS:
                raise TrafficError(f"{self.where}: {name} will not come into service: {why}")

    def known_names(self) -> list[str]:
        """Name the members."""
        return self._known

    def _order(self, names: Sequence[str], what: str, kinds: tuple[str, ...]) -> None:
        wanted = [target for target in self._targets if target.name in names]
        for pool in self.pools():
            members = [
                self.member(pool, target)
                for target in wanted
                if self._last[target.name][pool.name].kind in kinds
            ]
            if members:
                change = partial(self.remove if what == "remove" else self.add, pool)
                self._desk.order(f"{self.kind} {pool.id}", what, members, change)
        self._ordered.update(dict.fromkeys(names, time.monotonic()))

    def _put_together(self, name: str, pools: dict[str, Member]) -> Seen:
        self._last = {**getattr(self, "_last", {}), name: pools}
        kinds = {member.kind for member in pools.values()}
        self._hopeless.pop(name, None)
        for member in pools.values():
            if member.hopeless:
                self._hopeless[name] = member.hopeless
        if kinds <= {GONE} and name not in self._ordered:
            return ABSENT._replace(counted=False)
        out = kinds <= {ENDING, GONE}
        states = [f"{pool} {member.state}" for pool, member in pools.items()]
        settling = time.monotonic() - self._ordered.get(name, -1e9) < self._propagation
        return Seen(
            known=True,
            drained=out,
            held=bool(kinds & {ENDING, GONE}),
            blocked=out,
            in_service=kinds <= {SERVING},
            state=states[0].partition(" ")[2] if len(states) == 1 else ", ".join(states),
            active=0,
            served=0,
            ending=out and (ENDING in kinds or settling),
            counted=False,
        )

    @abc.abstractmethod
    def pools(self) -> list[Pool]:
        """Return the pools that were named."""

    @abc.abstractmethod
    def member(self, pool: Pool, target: Target) -> str:
        """Return the id that a target has in a pool."""

    @abc.abstractmethod
    def ask(self, pool: Pool) -> dict[str, list[str]]:
        """Ask the service for a pool's members: each one's ``Member`` as a list."""

    @abc.abstractmethod
    def add(self, pool: Pool, members: list[str]) -> dict[str, str]:
        """Put members in; returns those that were refused, and why."""

    @abc.abstractmethod
    def remove(self, pool: Pool, members: list[str]) -> dict[str, str]:
        """Take members out; returns as ``add``."""


def one_by_one(
    members: list[str], change: Callable[[list[str]], None], *, code: str, size: int
) -> dict[str, str]:
    """Change members together; those of a call that is refused for one of them, one by one.

    :param code: AWS's code for a member that there is not
    :param size: how many members a call may have
    :returns: the members that were refused, and why
    """
    refused: dict[str, str] = {}
    for some in parts(members, size):
        try:
            change(some)
        except TrafficCallError as error:
            if error.code != code:
                raise
            if len(some) == 1:
                refused[some[0]] = str(error)
            else:
                refused.update(one_by_one(some, change, code=code, size=1))
    return refused


def instance_of(target: Target) -> str:
    """Return the id of a target's instance.

    :raises TrafficError: neither its name nor ``instance_id`` is one
    """
    for given in (target.name, target.instance):
        if given.startswith("i-"):
            return given
    raise TrafficError(
        f"The target {target.name} is registered as an instance, and its id is not known: the "
        "inventory amazon.aws.aws_ec2 sets instance_id; without it set deploy_traffic_target_name "
        "to the id (i-…)."
    )
