# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Aliases of Lambda functions: traffic is shared between two versions by weight.

The pools are ``old``, what each alias led to when the deployment published its version, and
``new``, that version. The record says which these are. A deployment of several functions moves all
of them together, or one after the other: then its plan has a ladder, which says for each share of
all traffic the share of each function.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from ...module_utils._aliases import NEW, OLD, Alias, alias_for, is_same, share_of
from ...module_utils._errors import BasculeError, TrafficError
from ...module_utils._host._router import Counters, RefusedError, Router
from ...module_utils._routing_data import WHOLE, Routing
from .._lambda._metrics import counted
from .._lambda._service import Service, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._record import FunctionVersion, Record

_POINTS = WHOLE / 100


def connect_router(
    options: Mapping[str, Any], record: Record | None, deployment: str
) -> AliasRouter:
    """Return the aliases that a deployment moves; nothing is asked of Lambda yet.

    :param record: None where nothing is written, as in check mode: then there are none
    """
    del options
    if record is None or not deployment:
        return AliasRouter({}, {})
    found = record.deployment(deployment)
    functions = record.functions(deployment)
    if not functions and found.rollback_of:
        # A rollback by traffic alone publishes nothing; its pools are those of what failed.
        functions = record.functions(found.rollback_of)
    pools = found.plan.get("pools") or {}
    full_since = [
        change.at
        for change in record.routing_changes(deployment)
        if ((change.after or {}).get("weights") or {}).get(NEW) == 100
    ]
    return AliasRouter(
        functions, pools.get("ladder") or {}, full_since=full_since[0] if full_since else None
    )


class AliasRouter(Router):
    """The aliases of the functions of one deployment."""

    where = "Lambda"

    def __init__(
        self,
        functions: Mapping[str, FunctionVersion],
        ladder: Mapping[str, Mapping[str, float]],
        *,
        full_since: float | None = None,
        service: Service | None = None,
    ) -> None:
        """Keep what is moved.

        :param ladder: by share of all traffic (``"12.5"``) the percent of each target's new version
        :param full_since: when everything was moved to the new versions (epoch seconds)
        """
        self._functions = dict(functions)
        self._ladder = {round(float(share), 2): dict(own) for share, own in ladder.items()}
        self._full_since = full_since
        self._service = service or Service()
        self._seen: dict[str, Alias | None] = {}
        self._trouble: dict[str, BasculeError] = {}
        self._moved: dict[str, Alias | None] = {}
        # Where each alias led before it was moved: a look that comes too soon may still show it.
        self._before: dict[str, Alias | None] = {}
        if functions:
            names = ", ".join(f"{short(one.function)}:{one.alias}" for one in functions.values())
            self.where = f"alias {names}"

    def shown(self) -> Routing | None:
        """Look at each alias; None where they do not have one share in common.

        An alias that cannot be told is none to stop at here: others may have to go home.
        """
        own: dict[str, float] = {}
        for target in self._functions:
            try:
                own[target] = self._look(target)
            except BasculeError as error:
                self._trouble[target] = error
        if not self._functions or self._trouble:
            return None
        for share, wanted in self._rungs(own):
            if all(abs(own[target] - wanted[target]) < 0.005 for target in own):
                points = round(share * _POINTS)
                return Routing({OLD: WHOLE - points, NEW: points})
        return None

    def order(self, routing: Routing) -> None:
        """Move each alias that is not there yet, unless somebody else has moved it.

        Forward all are moved or none. On the way home one that cannot be moved keeps no other.
        """
        home = not routing.points.get(NEW, 0)
        if self._trouble and not home:
            raise next(iter(self._trouble.values()))
        for target, alias in self._wanted(routing).items():
            if target in self._trouble:
                continue
            try:
                self._move(target, alias, keep=home)
            except BasculeError as error:
                if not home:
                    raise
                self._trouble[target] = error
        if self._trouble:
            others = [one for one in self._functions if one not in self._trouble]
            told = [str(error) for error in self._trouble.values()]
            if others:
                told.append(f"All traffic of {', '.join(others)} is on the version before.")
            raise TrafficError(" ".join(told))

    def _move(self, target: str, alias: Alias | None, *, keep: bool) -> None:
        """Move an alias; with ``keep`` it stays there whatever becomes of others."""
        one, before = self._functions[target], self._seen[target]
        if is_same(before, alias):
            return
        self._before[target] = before
        if not keep:
            self._moved[target] = before
        self._seen[target] = self._service.move_alias(one.function, one.alias, alias, before)

    def missing(self, routing: Routing) -> str:
        """Look again.

        :raises RefusedError: somebody else has moved an alias since
        """
        for target, wanted in self._wanted(routing).items():
            one = self._functions[target]
            now = self._service.alias(one.function, one.alias)
            if is_same(now, wanted):
                continue
            if now is not None and not (
                target in self._before and is_same(now, self._before[target])
            ):
                raise RefusedError(_moved_by_others(one, now))
            return f"{short(one.function)}:{one.alias} leads to {shown(now)}"
        return ""

    def take_back(self) -> None:
        """Move back what was moved by this order, and by nobody else since."""
        for target, before in reversed(self._moved.items()):
            one = self._functions[target]
            with contextlib.suppress(TrafficError):
                self._service.move_alias(one.function, one.alias, before, self._seen[target])

    def measure(self) -> dict[str, Counters]:
        """Return what CloudWatch has counted of all functions since they were published."""
        found = {OLD: Counters(0, 0), NEW: Counters(0, 0)}
        for one in self._functions.values():
            for pool, more in counted(one, full_since=self._full_since).items():
                have = found[pool]
                # Quantiles of several functions are not added up: those of the busiest are told.
                busier = more.requests > have.requests
                found[pool] = Counters(
                    have.requests + more.requests,
                    have.errors + more.errors,
                    more.histogram if busier or have.histogram is None else have.histogram,
                )
        return found

    def _look(self, target: str) -> float:
        one = self._functions[target]
        alias = self._service.alias(one.function, one.alias)
        self._seen[target] = alias
        if alias is None:
            if one.old_version is not None:
                self._service.describe(one.function)
                raise TrafficError(
                    f"The alias {one.alias} of {one.function} is gone. Make it again with version "
                    f"{one.old_version}, and deploy again."
                )
            return 0.0
        share = share_of(alias, one.old_version, one.version)
        if share is None:
            raise TrafficError(_moved_by_others(one, alias))
        return share

    def _wanted(self, routing: Routing) -> dict[str, Alias | None]:
        share = routing.points.get(NEW, 0) / _POINTS
        own = self._ladder.get(round(share, 2)) or {}
        return {
            target: alias_for(own.get(target, share), one.old_version, one.version)
            for target, one in self._functions.items()
        }

    def _rungs(self, own: Mapping[str, float]) -> list[tuple[float, Mapping[str, float]]]:
        """Return the shares that these may be, each with what every function has at it."""
        if self._ladder:
            return [(0.0, dict.fromkeys(own, 0.0)), *self._ladder.items()]
        share = next(iter(own.values()))
        return [(share, dict.fromkeys(own, share))]


def _moved_by_others(one: FunctionVersion, alias: Alias) -> str:
    return (
        f"The alias {one.alias} of {one.function} leads to {alias.text()}, but this deployment "
        f"moves it between version {one.old_version or 'none'} and version {one.version}: somebody "
        "else has moved it. It is left as it is. Find out who did it, set it back by hand if need "
        "be, and deploy again."
    )


def short(function: str) -> str:
    """Return a function's name out of its ARN."""
    return function.rpartition(":function:")[2]
