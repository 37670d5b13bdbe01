# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A routing as data: which share of the traffic, and which requests, reach which pool.

    {"weights": {"blue": 95.0, "green": 5.0},
     "match":  [{"pool": "green", "header": "X-Bascule-Test", "value": "green"},
                {"pool": "green", "cookie": "pool", "value": "green"},
                {"pool": "green", "listener": "arn:aws:…:listener/app/shop/1/2"}],
     "sticky": {"salt": "d-ABC", "cookie": "visitor", "ttl": 86400.0},
     "mirror": {"pool": "shadow", "share": 50.0}}

Shares are percent with two decimals; a pool at 0 stays attached. The first rule that matches wins;
what no rule matches is shared by weight, for sticky users by a salted hash that every provider
computes alike. A rule by listener is for all that comes to another listener than the users'.
This file also runs on hosts: Python 3.8 and the standard library only.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from ._capabilities import require, sticky_wishes
from ._errors import UsageError

# Shares are whole hundredths of a percent: the finest that nginx's split_clients takes.
WHOLE = 10000

# RFC 9110, token: the characters of a header's name, and RFC 6265 of a cookie's. A value is what
# every provider can compare without quoting.
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")
_VALUE = re.compile(r"[A-Za-z0-9._~:@/+=-]{1,256}\Z")
_POOL = re.compile(r"[A-Za-z0-9_.-]{1,128}\Z")


class Match(NamedTuple):
    """Requests whose header or cookie has this value go to this pool, or those to a listener."""

    pool: str
    value: str
    header: str | None = None
    cookie: str | None = None
    listener: str | None = None

    def describe(self) -> str:
        """Return the rule for people."""
        if self.listener:
            return f"test listener {self.listener.rpartition(':')[2]}: {self.pool}"
        by = "header" if self.header else "cookie"
        return f"{by} {self.header or self.cookie}={self.value}: {self.pool}"


class Sticky(NamedTuple):
    """A user is known by a header or a cookie and stays with a pool.

    :ivar ttl: seconds for which the proxy gives a cookie to users who have none; ``None``: it gives
        none, and requests without the header or cookie are shared at random
    :ivar rest: of three pools the one that gives its share away; the other two then only ever grow
    """

    salt: str
    header: str | None = None
    cookie: str | None = None
    ttl: float | None = None
    rest: str | None = None


class Mirror(NamedTuple):
    """A copy of this share (percent) of the requests goes to this pool; its answers are dropped."""

    pool: str
    share: float


class Routing(NamedTuple):
    """A routing that was checked.

    :ivar points: hundredths of a percent by pool, summing to ``WHOLE``
    """

    points: dict[str, int]
    match: tuple[Match, ...] = ()
    sticky: Sticky | None = None
    mirror: Mirror | None = None

    def as_data(self) -> dict[str, Any]:
        """Return the routing as the plain data it is read from."""
        return {
            "weights": {pool: points / 100 for pool, points in self.points.items()},
            "match": [_plain(rule) for rule in self.match],
            "sticky": _plain(self.sticky) if self.sticky else None,
            "mirror": _plain(self.mirror) if self.mirror else None,
        }

    def pools(self) -> list[str]:
        """Name every pool that may get a request."""
        named = [*self.points, *(rule.pool for rule in self.match)]
        return list(dict.fromkeys([*named, *([self.mirror.pool] if self.mirror else [])]))

    def wishes(self) -> list[str]:
        """Return the capabilities that a provider needs for this routing."""
        return [
            "weights",
            *(["match"] if any(not rule.listener for rule in self.match) else []),
            *(["listener"] if any(rule.listener for rule in self.match) else []),
            *sticky_wishes(self.sticky._asdict() if self.sticky else None),
            *(["mirror"] if self.mirror else []),
        ]


def parse_routing(value: Any, pools: Any = None, *, provider: str = "") -> Routing:
    """Check a routing.

    :param pools: the names that ``deploy_traffic_pools`` has, if they are known
    :param provider: refuse what this provider cannot do
    :raises UsageError: what is wrong and what is wanted, or a capability that the provider lacks
    """
    given = _mapping(value, "routing")
    _no_others(given, ("weights", "match", "sticky", "mirror"), "routing")
    rules = given.get("match") or []
    if not isinstance(rules, (list, tuple)):
        raise UsageError(f"routing: match is {rules!r}, wanted a list of rules.")
    routing = Routing(
        points=_points(_mapping(given.get("weights"), "routing: weights")),
        match=tuple(_match(rule, f"routing: match {n}") for n, rule in enumerate(rules, 1)),
        sticky=_sticky(given["sticky"]) if given.get("sticky") else None,
        mirror=_mirror(given["mirror"]) if given.get("mirror") else None,
    )
    if pools is not None:
        unknown = [pool for pool in routing.pools() if pool not in pools]
        if unknown:
            raise UsageError(
                f"routing: there is no pool {', '.join(unknown)}; deploy_traffic_pools has "
                f"{', '.join(pools) or 'none'}."
            )
    if routing.sticky and routing.sticky.rest and routing.sticky.rest not in routing.points:
        raise UsageError(f"routing: sticky: rest is {routing.sticky.rest!r}, wanted a pool.")
    if provider:
        require(provider, routing.wishes())
    return routing


def describe(routing: Routing | None) -> str:
    """Return the routing as lines for people and for a difference."""
    if routing is None:
        return "no routing between pools\n"
    lines = [f"{pool}: {points / 100:g} %" for pool, points in sorted(routing.points.items())]
    lines += [rule.describe() for rule in routing.match]
    if routing.sticky:
        by = routing.sticky
        lines.append(
            f"sticky by {'header' if by.header else 'cookie'} {by.header or by.cookie}, salt "
            f"{by.salt}" + (f", given for {by.ttl:g} s" if by.ttl else "")
        )
    if routing.mirror:
        lines.append(f"mirrored to {routing.mirror.pool}: {routing.mirror.share:g} %")
    return "\n".join(lines) + "\n"


def arms(routing: Routing) -> list[tuple[str, int]]:
    """Return (pool, points) in the order in which hash values are given away, from 0 on.

    Of two pools each only grows or only shrinks at the border, whatever their order: a user that
    has come to a pool stays while its share grows. Of three, ``sticky.rest`` stands in the middle,
    so that the others grow from the two ends. (As GrowthBook's fixed segments do.)
    """
    names = sorted(routing.points)
    rest = routing.sticky.rest if routing.sticky else None
    if rest in names and len(names) > 2:
        names.remove(str(rest))
        names.insert(1, str(rest))
    return [(name, routing.points[name]) for name in names]


def borders(routing: Routing) -> list[tuple[str, int]]:
    """Return (pool, border) of the pools with a share: a hash below the border is the pool's.

    The borders are those of nginx's split_clients: hundredths of a percent of ``0xffffffff``; what
    is beyond the last one is the last pool's, which therefore has the border ``2 ** 32``.
    """
    found: list[tuple[str, int]] = []
    border = 0
    for pool, points in arms(routing):
        if points:
            border += points * 0xFFFFFFFF // WHOLE
            found.append((pool, border))
    found[-1] = (found[-1][0], 1 << 32)
    return found


def hash_of(salt: str, identity: str) -> int:
    """Return the 32 bits by which a user is given a pool: MurmurHash2, seed 0, of salt and name."""
    return murmur_hash2(f"{salt}:{identity}".encode("utf-8", "surrogateescape"))


def arm_of(routing: Routing, identity: str) -> str:
    """Return the pool that a sticky user gets at every provider that hashes.

    :raises UsageError: a routing that is not sticky
    """
    if routing.sticky is None:
        raise UsageError("routing: it is not sticky, so users have no pool of their own.")
    value = hash_of(routing.sticky.salt, identity)
    return next(pool for pool, border in borders(routing) if value < border)


def murmur_hash2(data: bytes) -> int:
    """Return MurmurHash2 (32 bits, seed 0) as nginx's split_clients computes it."""
    factor, mask = 0x5BD1E995, 0xFFFFFFFF
    value = len(data) & mask
    whole = len(data) // 4 * 4
    for at in range(0, whole, 4):
        word = int.from_bytes(data[at : at + 4], "little") * factor & mask
        word = (word ^ word >> 24) * factor & mask
        value = (value * factor & mask) ^ word
    if whole < len(data):
        value = (value ^ int.from_bytes(data[whole:], "little")) * factor & mask
    value = (value ^ value >> 13) * factor & mask
    return value ^ value >> 15


def _points(weights: dict[Any, Any]) -> dict[str, int]:
    points: dict[str, int] = {}
    for pool, weight in weights.items():
        if not _POOL.match(str(pool)):
            raise UsageError(
                f"routing: {pool!r} cannot be a pool's name: letters, digits, '_', '.' and '-'."
            )
        points[str(pool)] = round(_share(weight, f"routing: weights: {pool}") * 100)
    if sum(points.values()) != WHOLE:
        raise UsageError(
            f"routing: the weights are {', '.join(f'{p} {w / 100:g}' for p, w in points.items())}, "
            f"together {sum(points.values()) / 100:g}; they are percent, wanted is 100 together."
        )
    return points


def _match(value: Any, where: str) -> Match:
    rule = _mapping(value, where)
    if rule.get("listener"):
        _no_others(rule, ("pool", "listener"), where)
        return Match(_pool(rule, where), "", listener=str(rule["listener"]))
    _no_others(rule, ("pool", "header", "cookie", "value"), where)
    header, cookie = _by(rule, where)
    text = str(rule.get("value", ""))
    if not _VALUE.match(text):
        raise UsageError(
            f"{where}: value is {text!r}, wanted 1 to 256 of letters, digits and any of ._~:@/+=-"
        )
    return Match(_pool(rule, where), text, header, cookie)


def _sticky(value: Any) -> Sticky:
    where = "routing: sticky"
    given = _mapping(value, where)
    _no_others(given, ("salt", "header", "cookie", "ttl", "rest"), where)
    header, cookie = _by(given, where)
    salt = str(given.get("salt") or "")
    if not _VALUE.match(salt):
        raise UsageError(
            f"{where}: salt is {salt!r}, wanted a text that differs between deployments, "
            "so that it is not always the same users who are the first."
        )
    ttl = given.get("ttl")
    if ttl is not None:
        try:
            ttl = float(ttl)
        except (TypeError, ValueError):
            ttl = -1.0
        if not 1 <= ttl < 1e9 or header:
            raise UsageError(
                f"{where}: ttl is {given['ttl']!r}, wanted the seconds, 1 or more, for which the "
                "proxy gives users a cookie; a header has none."
            )
    return Sticky(salt, header, cookie, ttl, given.get("rest"))


def _mirror(value: Any) -> Mirror:
    where = "routing: mirror"
    given = _mapping(value, where)
    _no_others(given, ("pool", "share"), where)
    return Mirror(
        _pool(given, where), round(_share(given.get("share", 100.0), f"{where}: share"), 2)
    )


def _by(given: dict[str, Any], where: str) -> tuple[str | None, str | None]:
    header, cookie = given.get("header"), given.get("cookie")
    if bool(header) == bool(cookie):
        raise UsageError(f"{where}: wanted is the name of either a header or a cookie.")
    if not _TOKEN.match(str(header or cookie)):
        raise UsageError(f"{where}: {header or cookie!r} cannot be the name of a header or cookie.")
    return (str(header), None) if header else (None, str(cookie))


def _pool(given: dict[str, Any], where: str) -> str:
    pool = given.get("pool")
    if not isinstance(pool, str) or not _POOL.match(pool):
        raise UsageError(f"{where}: pool is {pool!r}, wanted a pool's name.")
    return pool


def _share(value: Any, where: str) -> float:
    try:
        share = -1.0 if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        share = -1.0
    if not 0 <= share <= 100:
        raise UsageError(f"{where} is {value!r}, wanted percent, 0 to 100.")
    return share


def _mapping(value: Any, where: str) -> dict[Any, Any]:
    if not isinstance(value, dict) or not value:
        raise UsageError(f"{where} is {value!r}, wanted a mapping.")
    return value


def _no_others(given: dict[Any, Any], names: tuple[str, ...], where: str) -> None:
    unknown = sorted(str(name) for name in given if name not in names)
    if unknown:
        raise UsageError(f"{where}: unknown {', '.join(unknown)}; it has {', '.join(names)}.")


def _plain(value: Any) -> dict[str, Any]:
    return {name: part for name, part in value._asdict().items() if part not in (None, "")}
