# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HAProxy between backends: one entry of a map is the whole routing, and is set at once.

HAProxy's own converters have no hash that nginx has, too, and cannot name a header at run time, so
a small Lua program (``roles/deploy/files/bascule.lua``, where the format of the entry is written
down) reads the entry. It is set over the runtime API, and written into the map's file so that a
reload keeps it.

Sources: HAProxy 2.6 management guide, 9.3 (``show map``, ``set map``, ``add map``, ``show stat``,
``show table``).

This file runs on hosts: Python 3.8 and the standard library only.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._errors import TrafficError, UsageError
from .._routing_data import Routing, arms, parse_routing
from ._balancer import read_options
from ._eds import locked, replace_file
from ._haproxy import ANSWERS, RuntimeApi, parse_socket, parse_stat
from ._router import Counters, Router, pool_names

if TYPE_CHECKING:
    from collections.abc import Iterable

LATENCY_TABLE = "bascule_latency"
# bascule.lua: the upper bound of a bucket is this to the power of its number, in microseconds.
BUCKET_RATIO = 1.1

_ENTRY = re.compile(r"key=(?P<key>\S+):(?P<bucket>\d+) .*\bgpc0=(?P<count>\d+)")


def connect(options: dict[str, Any]) -> HAProxyRouter:
    """Return the map behind these options; nothing is asked yet.

    :raises UsageError: an option that is missing, unknown or malformed
    """
    read = read_options(
        "haproxy",
        options,
        required=("pools",),
        optional={
            "socket": "/run/haproxy/admin.sock",
            "map_path": "/etc/haproxy/bascule.map",
            "map_key": "routing",
        },
    )
    backends = pool_names(read["pools"], "backend", "haproxy")
    path, key = str(read["map_path"]), str(read["map_key"])
    for name in (path, key, *backends.values()):
        # A name with a separator would be read as another command, field or record.
        if any(character in " ;\\\n\t,>" for character in name):
            raise UsageError(f"{name!r} cannot be a name in HAProxy.")
    return HAProxyRouter(RuntimeApi(parse_socket(str(read["socket"]))), path, key, backends)


class HAProxyRouter(Router):
    """One entry of one map of one HAProxy process."""

    def __init__(self, api: RuntimeApi, path: str, key: str, backends: dict[str, str]) -> None:
        self._api = api
        self._path = path
        self._key = key
        self._backends = backends
        self._before: str | None = None
        self._given = ""
        self._told = ""
        self.where = f"HAProxy map {path} ({api.place})"

    def shown(self) -> Routing | None:
        """Read the entry over the runtime API."""
        value = self._entries().get(self._key)
        return read_entry(value, self._backends) if value else None

    def same(self, shown: Routing, wanted: Routing) -> bool:
        """Tell whether HAProxy has the routing, and its file, too: we may have been stopped."""
        return shown == wanted and self._written() in (write_entry(wanted, self._backends), None)

    def order(self, routing: Routing) -> None:
        """Set the entry, in the process and in the file."""
        known = self._known()
        plain = [name for name in self._backends.values() if known.get(name) == "tcp"]
        if plain:
            raise TrafficError(
                f"{self.where}: the backend {', '.join(plain)} is of mode tcp, and traffic is "
                "shared between pools by request: give it and its frontend 'mode http'. Targets "
                "of a tcp backend can be taken out and put back (deploy_haproxy_backend)."
            )
        unknown = [name for name in self._backends.values() if name not in known]
        if unknown:
            raise TrafficError(
                f"{self.where}: HAProxy has no backend {', '.join(unknown)}; it has "
                f"{', '.join(sorted(known)) or 'none'}. Check deploy_traffic_pools."
            )
        self._before = self._entries().get(self._key, "")
        self._given = write_entry(routing, self._backends)
        self._set(self._given)
        try:
            self._write(self._given)
        except TrafficError as error:
            # The way back of a bad version does not wait for a disk that has room again.
            if len([points for points in routing.points.values() if points]) > 1:
                raise
            self._told = f"HAProxy has the new routing, but would lose it with a reload: {error}"

    def missing(self, routing: Routing) -> str:
        """Compare the entry that the runtime API shows."""
        value = self._entries().get(self._key)
        wanted = write_entry(routing, self._backends)
        return "" if value == wanted else f"its entry {self._key} is {value or 'not there'}"

    def take_back(self) -> None:
        """Set the former entry, unless somebody has set another since."""
        if self._before and self._entries().get(self._key) == self._given:
            self._set(self._before)
            self._write(self._before)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Say that the routing would not outlive a reload."""
        return (self._told,) if self._told else ()

    def measure(self) -> dict[str, Counters]:
        """Read what each backend has answered, and how fast."""
        rows = {row["pxname"]: row for row in parse_stat(self._api.ask("show stat -1 2 -1"))}
        missing = [name for name in self._backends.values() if name not in rows]
        if missing:
            raise TrafficError(
                f"{self.where}: HAProxy has no backend {', '.join(missing)}; it has "
                f"{', '.join(sorted(rows)) or 'none'}. Check deploy_traffic_pools."
            )
        buckets = parse_table(self._api.ask(f"show table {LATENCY_TABLE}"))
        return {
            pool: Counters(
                # With the answers that HAProxy gave itself because no server did.
                sum(int(rows[backend][column] or 0) for column in ANSWERS),
                int(rows[backend]["hrsp_5xx"] or 0),
                None if buckets is None else histogram(buckets.get(backend, {})),
            )
            for pool, backend in self._backends.items()
        }

    def _known(self) -> dict[str, str]:
        """Return the mode of each backend by its name."""
        rows = parse_stat(self._api.ask("show stat -1 2 -1"))
        return {str(row["pxname"]): str(row.get("mode") or "") for row in rows}

    def _entries(self) -> dict[str, str]:
        answer = self._api.ask(f"show map {self._path}")
        if "nknown map" in answer:
            raise TrafficError(
                f"HAProxy at {self._api.place} has no map {self._path}. Name it with "
                "'setenv BASCULE_MAP' before 'lua-load-per-thread' in the global section, and "
                "check deploy_haproxy_map_path; docs/load-balancers.md shows the configuration."
            )
        rows = (line.split(" ", 2) for line in answer.splitlines() if line.startswith("0x"))
        return {row[1]: row[2] for row in rows if len(row) == 3}

    def _set(self, value: str) -> None:
        verb = "set" if self._key in self._entries() else "add"
        answer = self._api.ask(f"{verb} map {self._path} {self._key} {value}").strip()
        if answer:
            raise TrafficError(
                f"{self.where} refused the new entry: {answer} "
                + (
                    "Give the socket 'level admin' in the global section."
                    if "ermission" in answer
                    else "Look at the proxy's configuration."
                )
            )

    def _written(self) -> str | None:
        """Return the entry that the file has; None where it cannot be read."""
        try:
            lines = Path(self._path).read_text(encoding="utf-8").splitlines()
        except OSError:
            return None
        found = [line.partition(" ")[2] for line in lines if line.split(" ", 1)[0] == self._key]
        return found[-1] if found else ""

    def _write(self, value: str) -> None:
        """Write the entry into the map's file, for the next reload."""
        with locked(str(Path(self._path).parent)):
            try:
                lines = Path(self._path).read_text(encoding="utf-8").splitlines()
            except OSError as error:
                raise TrafficError(
                    f"The map file {self._path} cannot be read: {error.strerror}. Check "
                    "deploy_haproxy_map_path."
                ) from error
            kept = [line for line in lines if line.split(" ", 1)[0] != self._key]
            replace_file(self._path, "\n".join([*kept, f"{self._key} {value}"]) + "\n", "map file")


def write_entry(routing: Routing, backends: dict[str, str]) -> str:
    """Return the map's value of a routing (the format is told in ``bascule.lua``)."""
    records = [f"a,{backends[pool]},{points}" for pool, points in arms(routing)]
    records += [
        f"{'h' if rule.header else 'c'},{rule.header or rule.cookie},{rule.value},"
        f"{backends[rule.pool]}"
        for rule in routing.match
    ]
    by = routing.sticky
    if by:
        ttl = int(by.ttl) if by.ttl else ""
        kind = "h" if by.header else "c"
        rest = backends[by.rest] if by.rest else ""
        records.append(f"s,{kind},{by.header or by.cookie},{by.salt},{ttl},{rest}")
    return ">".join(records)


def read_entry(value: str, backends: dict[str, str]) -> Routing | None:
    """Return the routing of a map's value; ``None`` is one that we do not understand."""
    pools = {backend: pool for pool, backend in backends.items()}
    weights: dict[str, float] = {}
    rules: list[dict[str, Any]] = []
    sticky: dict[str, Any] | None = None
    kinds = {"h": "header", "c": "cookie"}
    try:
        for kind, *fields in (record.split(",") for record in value.split(">")):
            if kind == "a":
                weights[pools[fields[0]]] = int(fields[1]) / 100
            elif kind == "s":
                by, name, salt, ttl, rest = fields
                sticky = {"salt": salt, kinds[by]: name}
                sticky.update(_filled(("ttl", ttl), ("rest", pools[rest] if rest else "")))
            else:
                name, text, backend = fields
                rules.append({kinds[kind]: name, "value": text, "pool": pools[backend]})
        return parse_routing({"weights": weights, "match": rules, "sticky": sticky})
    except (UsageError, KeyError, ValueError, IndexError):
        return None


def _filled(*pairs: tuple[str, str]) -> Iterable[tuple[str, str]]:
    return (pair for pair in pairs if pair[1])


def parse_table(text: str) -> dict[str, dict[int, int]] | None:
    """Return answers by backend and bucket out of ``show table``; ``None``: there is no table."""
    if not text.startswith("# table"):
        return None
    found: dict[str, dict[int, int]] = {}
    for entry in _ENTRY.finditer(text):
        found.setdefault(entry["key"], {})[int(entry["bucket"])] = int(entry["count"])
    return found


def histogram(buckets: dict[int, int]) -> list[tuple[float, int]]:
    """Return (upper bound in seconds, answers up to it), rising."""
    found: list[tuple[float, int]] = []
    count = 0
    for number in sorted(buckets):
        lower = round(BUCKET_RATIO ** (number - 1) / 1e6, 9)
        if not found or number - 1 not in buckets:
            found.append((lower, count))
        count += buckets[number]
        found.append((round(BUCKET_RATIO**number / 1e6, 9), count))
    return found
