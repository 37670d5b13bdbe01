# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""nginx by the file of an upstream: servers are marked as down, and nginx reads it again.

nginx without its commercial parts has neither health checks nor counts of open requests, so both
are done here: a target is put in service once it answers this host, and one that is down in every
new worker is drained when this host has no connection to it any more (those left are requests that
the old workers finish).

This file runs on hosts: Python 3.8 and the standard library only.
"""

from __future__ import annotations

import contextlib
import http.client
from typing import TYPE_CHECKING, Any

from .._errors import TrafficError, UsageError
from ._balancer import ABSENT, Balancer, Seen, Target, read_options
from ._envoy import resolve
from ._nginx_files import Server, servers_of, set_down
from ._nginx_process import Nginx

if TYPE_CHECKING:
    from collections.abc import Sequence

CHECK_SECONDS = 5.0
CLOSING_SECONDS = 0.5
OPTIONS = {
    "directory": "/etc/nginx/bascule",
    "command": "/usr/sbin/nginx",
    "pid_path": "/run/nginx.pid",
    "reload_wait": 6.0,
}


def connect(options: dict[str, Any], targets: Sequence[Target]) -> NginxUpstream:
    """Return the upstream behind these options; nginx's configuration is read.

    :raises UsageError: an option that is missing, unknown or malformed
    :raises TrafficError: nginx refuses its configuration as it is
    """
    read = read_options(
        "nginx",
        options,
        required=("upstream",),
        optional={**OPTIONS, "health_path": "", "log_path": None},
    )
    upstream, path = str(read["upstream"]), str(read["health_path"] or "")
    if "/" in upstream or upstream.startswith("."):
        raise UsageError(f"{upstream!r} cannot be the name of an upstream's file.")
    if path and not path.startswith("/"):
        raise UsageError(f"deploy_nginx_health_path is {path!r}, wanted a path such as /health.")
    return NginxUpstream(open_nginx(read), upstream, path, targets)


def open_nginx(read: dict[str, Any]) -> Nginx:
    """Return the nginx of these options."""
    return Nginx(
        str(read["directory"]),
        str(read["command"]),
        str(read["pid_path"]),
        CLOSING_SECONDS,
        float(read["reload_wait"]),
    )


class NginxUpstream(Balancer):
    """One upstream of one nginx."""

    def __init__(
        self, nginx: Nginx, upstream: str, health_path: str, targets: Sequence[Target]
    ) -> None:
        self._nginx = nginx
        self._upstream = upstream
        self._file = f"{upstream}.conf"
        self._health_path = health_path
        self._targets = list(targets)
        self._rising: set[str] = set()
        self._failing: dict[str, str] = {}
        self._known: list[str] = []
        self.where = f"nginx upstream {upstream} ({nginx.place})"
        self.warnings = nginx.warnings()

    def observe(self) -> dict[str, Seen]:
        """Read the file, look at nginx's workers and, for targets in service, ask them."""
        servers = servers_of(self._nginx.read(self._file), self._upstream, self._file)
        self._known = [f"{server.address}:{server.port}" for server in servers]
        taken_up = self._nginx.taken_up(self._file)
        found = {}
        for target in self._targets:
            places = self._places(target)
            mine = [server for server in servers if (server.address, server.port) in places]
            found[target.name] = self._seen(target, mine[0], taken_up) if mine else ABSENT
        return found

    def block(self, names: Sequence[str]) -> None:
        """Mark the servers as down and reload."""
        self._write(names, down=True)

    def release(self, names: Sequence[str], *, untouched: bool = False) -> None:
        """Put back at once what was just taken out; the others once they answer."""
        if untouched:
            self._write(names, down=False)
        else:
            self._rising |= set(names)
            self.advance()

    def advance(self) -> None:
        """Put the targets that answer back in service."""
        self._failing = {
            target.name: self._answers(self._places(target)[0][0], target.port)
            for target in self._targets
            if target.name in self._rising
        }
        risen = [name for name, why in self._failing.items() if not why]
        if risen:
            self._rising -= set(risen)
            self._write(risen, down=False)

    def known_names(self) -> list[str]:
        """Name the upstream's servers."""
        return self._known

    def _seen(self, target: Target, server: Server, taken_up: bool) -> Seen:
        words = ["down" if server.down else "up"]
        if not taken_up:
            words.append("nginx was not reloaded since")
        # The file may name a host, the kernel's table has addresses.
        places = {*self._places(target), (server.address, server.port)}
        active = self._nginx.connections(places) if server.down else 0
        failing = (
            self._failing.get(target.name, "")
            if server.down
            else self._answers(server.address, server.port)
        )
        if failing:
            words.append(failing)
        return Seen(
            known=True,
            # An order that nginx was not told of, since we were stopped in between, is given anew.
            drained=server.down and taken_up,
            held=server.down or not taken_up,
            blocked=server.down and taken_up,
            in_service=not server.down and taken_up and not failing,
            state=", ".join(words),
            active=active,
            served=0,
            counted=server.down,
        )

    def _write(self, names: Sequence[str], *, down: bool) -> None:
        def edit(text: str) -> str:
            for target in self._targets:
                if target.name in names:
                    text = set_down(text, self._places(target), down=down, weight=target.weight)
            return text

        self._nginx.change(self._file, edit)
        self._nginx.reload(self._file)
        self.warnings = (*self.warnings, *self._nginx.told)
        self._nginx.told.clear()

    def _places(self, target: Target) -> list[tuple[str, int]]:
        """Return where the target may be: by the name that the inventory has, or by address."""
        with contextlib.suppress(TrafficError):
            addresses = resolve(target.address)
            return [(address, target.port) for address in [*addresses, target.address]]
        return [(target.address, target.port)]

    def _answers(self, address: str, port: int) -> str:
        """Ask the target itself; return why it is not healthy, or nothing."""
        connection = http.client.HTTPConnection(address, port, timeout=CHECK_SECONDS)
        try:
            if not self._health_path:
                connection.connect()
                return ""
            connection.request("GET", self._health_path, headers={"Connection": "close"})
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            return f"does not answer this host ({getattr(error, 'strerror', None) or error})"
        finally:
            connection.close()
        return "" if status < 400 else f"answers {self._health_path} with {status}"
