# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HAProxy by its runtime API: a backend's servers are drained and made ready.

Sources: HAProxy 2.6 management guide, sections 9.1 (``show stat``) and 9.3 (``set server``,
``show servers state``). Measured on 2.6: ``scur`` counts requests on their way (a kept-alive
connection without one is in ``srv_icur``); a drained server whose check fails shows ``DOWN`` in
``show stat``, so the order itself is read from ``srv_admin_state``; a server that leaves ``maint``
is up at once, whatever its application does.

This file runs on hosts: Python 3.8 and the standard library only.
"""

from __future__ import annotations

import csv
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

from .._errors import TrafficError, UsageError
from ._balancer import ABSENT, Balancer, Seen, Target, read_options

if TYPE_CHECKING:
    from collections.abc import Sequence

DRAIN_WITH = ("auto", "drain", "maint")

# srv_admin_state is a sum of flags (``show servers state``): forced maintenance and forced drain
# are orders of this API; the others come from the configuration, from DNS or from a tracked server.
FORCED_MAINTENANCE = 0x01
FORCED_DRAIN = 0x08

# srv_check_state: the server has a health check, which maintenance only pauses. ``show stat`` is
# silent on paused checks.
CHECK_ENABLED = 0x04

SOCKET_SECONDS = 5.0

# Columns of ``show stat``: answers by their status, and requests that got none.
ANSWERS = ("hrsp_1xx", "hrsp_2xx", "hrsp_3xx", "hrsp_4xx", "hrsp_5xx", "hrsp_other")
FAILURES = ("econ", "eresp")
# Values of ``algo`` with which servers get requests by their weights; others go by load or hash.
BY_TURNS = ("roundrobin", "static-rr")


class Orders(NamedTuple):
    """A server's administrative flags, and whether it is checked."""

    admin: int
    checked: bool


def connect(options: dict[str, Any], targets: Sequence[Target]) -> HAProxy:
    """Return the backend behind these options; nothing is asked yet.

    :raises UsageError: an option that is missing, unknown or malformed
    """
    read = read_options(
        "haproxy",
        options,
        required=("backend",),
        optional={"socket": "/run/haproxy/admin.sock", "drain_with": "auto"},
    )
    if read["drain_with"] not in DRAIN_WITH:
        raise UsageError(
            f"drain_with is {read['drain_with']!r}, wanted one of {', '.join(DRAIN_WITH)}."
        )
    for name in [str(read["backend"])] + [target.name for target in targets]:
        # A name with a separator would be read as another command.
        if not name or any(character in " ;\\\n\t/" for character in name):
            raise UsageError(f"{name!r} cannot be a name in HAProxy.")
    return HAProxy(
        parse_socket(str(read["socket"])), str(read["backend"]), str(read["drain_with"]), targets
    )


def parse_socket(text: str) -> str | tuple[str, int]:
    """Return a path or (host, port); HAProxy's own prefixes (``unix@``, ``ipv4@``) are understood.

    :raises UsageError: neither a path nor host:port
    """
    rest = text
    for prefix in ("unix@", "unix://", "ipv4@", "ipv6@", "tcp@", "tcp://"):
        if rest.startswith(prefix):
            rest = rest[len(prefix) :]
            break
    if rest.startswith("/"):
        return rest
    host, colon, port = rest.rpartition(":")
    if not colon or not host or not port.isdigit():
        raise UsageError(
            f"deploy_haproxy_socket is {text!r}, wanted the path of the stats socket or host:port."
        )
    return host.strip("[]"), int(port)


class RuntimeApi:
    """The socket of one HAProxy process.

    :ivar place: its address, for messages
    """

    def __init__(self, address: str | tuple[str, int]) -> None:
        self._address = address
        self.place = address if isinstance(address, str) else f"{address[0]}:{address[1]}"

    def _connect(self) -> socket.socket:
        if not isinstance(self._address, str):
            return socket.create_connection(self._address, timeout=SOCKET_SECONDS)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(SOCKET_SECONDS)
            connection.connect(self._address)
        except OSError:
            connection.close()
            raise
        return connection

    def ask(self, command: str) -> str:
        """Send one command and return its answer."""
        try:
            with self._connect() as connection:
                connection.sendall(command.encode("utf-8") + b"\n")
                parts: list[bytes] = []
                while True:
                    part = connection.recv(65536)
                    if not part:
                        return b"".join(parts).decode("utf-8", "replace")
                    parts.append(part)
        except OSError as error:
            raise TrafficError(
                f"HAProxy's runtime API at {self.place} does not answer: {error}. Check that "
                "HAProxy runs, that its global section has 'stats socket' at this address with "
                "'level admin', and that this user may open it."
            ) from error


class HAProxy(Balancer):
    """One backend of one HAProxy process."""

    def __init__(
        self,
        address: str | tuple[str, int],
        backend: str,
        drain_with: str,
        targets: Sequence[Target],
    ) -> None:
        self._api = RuntimeApi(address)
        self._backend = backend
        self._drain_with = drain_with
        self._targets = list(targets)
        self._rows: dict[str, dict[str, str]] = {}
        self._whole: dict[str, str] = {}
        self._orders: dict[str, Orders] = {}
        self._rising: set[str] = set()
        self.where = f"HAProxy backend {backend} ({self._api.place})"

    def observe(self) -> dict[str, Seen]:
        """Ask for the orders and the numbers of all servers of the backend."""
        orders = self._api.ask(f"show servers state {self._backend}")
        if not orders.startswith("1"):
            raise TrafficError(
                f"HAProxy at {self._api.place} has no backend {self._backend!r}; it has "
                f"{', '.join(self._backends()) or 'none'}. Set deploy_haproxy_backend."
            )
        self._rows = {row["svname"]: row for row in parse_stat(self._api.ask(self._show_stat()))}
        self._whole = self._rows.pop("BACKEND", {})
        self._orders = parse_servers_state(orders)
        return {
            target.name: read_server(
                self._rows[target.name],
                self._orders[target.name].admin,
                self._mode(target.name),
            )
            if target.name in self._rows and target.name in self._orders
            else ABSENT
            for target in self._targets
        }

    def block(self, names: Sequence[str]) -> None:
        """Order ``drain``, or ``maint`` where clients stick to servers."""
        for name in names:
            self._order(name, "state " + self._mode(name))

    def release(self, names: Sequence[str], *, untouched: bool = False) -> None:
        """Order ``ready``; a checked server that leaves maintenance first has to pass."""
        for name in names:
            maintained = self._rows[name]["status"].startswith("MAINT")
            if maintained and not untouched and self._orders[name].checked:
                self._order(name, "state drain")
                self._order(name, "health down")
                self._rising.add(name)
            else:
                self._order(name, "state ready")

    def advance(self) -> None:
        """Make ready what has passed its checks since it left maintenance."""
        for name in sorted(self._rising):
            if self._rows[name]["status"].startswith("DRAIN"):
                self._order(name, "state ready")
                self._rising.discard(name)

    def weights(self) -> dict[str, float]:
        """Return the servers' effective weights, if they take turns and clients stick to none."""
        if self._whole.get("algo") not in BY_TURNS or self._whole.get("cookie"):
            return {}
        rows = {target.name: self._rows.get(target.name, {}) for target in self._targets}
        return {name: float(row.get("weight") or 0) for name, row in rows.items()}

    def known_names(self) -> list[str]:
        """Name the backend's servers."""
        return sorted(self._rows)

    def _mode(self, name: str) -> str:
        """Return the order that keeps new requests away.

        A drained server still gets the clients whose cookie names it; only maintenance turns them
        to another server.
        """
        if self._drain_with != "auto":
            return self._drain_with
        return "maint" if self._rows.get(name, {}).get("cookie") else "drain"

    def _show_stat(self) -> str:
        # 2: the backend, 4: its servers.
        return f"show stat {self._backend} 6 -1"

    def _backends(self) -> list[str]:
        rows = self._api.ask("show servers state").splitlines()[2:]
        return sorted({row.split()[1] for row in rows if row.strip()})

    def _order(self, name: str, order: str) -> None:
        answer = self._api.ask(f"set server {self._backend}/{name} {order}").strip()
        if answer:
            raise TrafficError(
                f"{self.where} refused to set {name} to {order!r}: {answer} "
                + (
                    "Give the socket 'level admin' in the global section."
                    if "ermission" in answer
                    else "Look at the proxy's configuration."
                )
            )


def parse_stat(text: str) -> list[dict[str, str]]:
    """Return the rows of ``show stat`` by column name."""
    return list(csv.DictReader(text.lstrip("# ").strip().splitlines()))


def parse_servers_state(text: str) -> dict[str, Orders]:
    """Return what ``show servers state`` (format 1) says of each server."""
    lines = text.strip().splitlines()[1:]
    rows = csv.DictReader([line.lstrip("# ") for line in lines], delimiter=" ")
    return {
        row["srv_name"]: Orders(
            int(row["srv_admin_state"]), bool(int(row["srv_check_state"]) & CHECK_ENABLED)
        )
        for row in rows
        if row["srv_check_state"] is not None
    }


def read_server(row: dict[str, str], admin: int, mode: str) -> Seen:
    """Return a server's state from its row of ``show stat`` and its administrative flags."""
    status = row["status"]
    forced = admin & (FORCED_MAINTENANCE | FORCED_DRAIN)
    enough = FORCED_MAINTENANCE if mode == "maint" else FORCED_MAINTENANCE | FORCED_DRAIN
    words = [status]
    if admin & FORCED_DRAIN and not status.startswith("DRAIN"):
        words.append("drained")
    if row.get("check_status") and not row["check_status"].endswith("OK"):
        words.append(f"check {row['check_status']} {row.get('last_chk') or ''}".strip())
    return Seen(
        known=True,
        drained=bool(admin & enough),
        held=bool(forced),
        blocked=bool(admin),
        in_service=admin == 0 and status.startswith(("UP", "no check")) and row["weight"] != "0",
        state=", ".join(words),
        active=int(row["scur"] or 0) + int(row["qcur"] or 0),
        served=int(row["stot"] or 0),
        answered=sum(int(row.get(name) or 0) for name in (*ANSWERS, *FAILURES)),
        errors=sum(int(row.get(name) or 0) for name in ("hrsp_5xx", *FAILURES)),
    )
