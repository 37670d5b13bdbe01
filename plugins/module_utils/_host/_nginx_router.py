# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""nginx between upstreams: a rendered file that is tested and read by a reload, and an access log.

A routing that gives everything to one pool is in force at once, by a file that the configuration
asks for (see ``_nginx_process``), and the reload follows: the way back of a bad version waits for
nothing.

nginx counts nothing by upstream, so requests are counted out of an access log of their own. What
was read of it is kept beside it, so that each look reads only what is new.

This file runs on hosts: Python 3.8 and the standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from typing import TYPE_CHECKING, Any, BinaryIO

from .._errors import TrafficError, UsageError
from .._routing_data import Routing, parse_routing
from ._balancer import read_options
from ._nginx import OPTIONS, open_nginx
from ._nginx_files import (
    at_once_to,
    bucket_of,
    histogram,
    read_line,
    read_routing,
    write_routing,
)
from ._router import Counters, Router, everything_to, pool_names

if TYPE_CHECKING:
    from ._nginx_process import Nginx

FILE = "routing.conf"
ERROR = 500
# For how long a log that was rotated may still be written.
FORMER_SECONDS = 60.0
_NEW: dict[str, Any] = {"inode": 0, "offset": 0, "former": None, "upstreams": {}}

SLOW_WAY_BACK = (
    "nginx's configuration does not ask for the files {files}: bringing all traffic to one pool "
    "takes a reload, which is seconds. docs/load-balancers.md shows the lines that make it "
    "immediate."
)


def connect(options: dict[str, Any]) -> NginxRouter:
    """Return the routing between the upstreams of these options; nginx's configuration is read.

    :raises UsageError: an option that is missing, unknown or malformed
    """
    read = read_options(
        "nginx",
        options,
        required=("pools",),
        optional={**OPTIONS, "log_path": "/var/log/nginx/bascule.log"},
    )
    upstreams = pool_names(read["pools"], "upstream", "nginx")
    for upstream in upstreams.values():
        if "/" in upstream or upstream.startswith("."):
            raise UsageError(f"{upstream!r} cannot be the name of an upstream's file.")
    return NginxRouter(open_nginx(read), upstreams, str(read["log_path"]))


class NginxRouter(Router):
    """The routing of one nginx."""

    take_up_seconds = 30.0

    def __init__(self, nginx: Nginx, upstreams: dict[str, str], log_path: str) -> None:
        self._nginx = nginx
        self._upstreams = upstreams
        self._log_path = log_path
        self._before: str | None = None
        self._written = ""
        self._only: dict[str, tuple[int, int]] = {}
        self._ours: dict[str, tuple[int, int]] = {}
        self._at_once = ""
        self._late = ""
        self.where = f"nginx routing ({nginx.place})"

    @property
    def warnings(self) -> tuple[str, ...]:
        """Say what a person should know; nginx's configuration is read for it."""
        if self._late:
            return (self._late,)
        found = [*self._nginx.warnings(), *self._nginx.told]
        if not self._nginx.asks_for_only(self._names):
            files = ", ".join(str(self._nginx.directory / f"only-{one}") for one in self._names)
            found.append(SLOW_WAY_BACK.format(files=files))
        return tuple(found)

    def shown(self) -> Routing | None:
        """Read the files, if nginx has taken them up."""
        text = self._nginx.read(FILE)
        if not self._nginx.taken_up(FILE):
            return None
        # Of several nginx takes the one that its configuration asks for last: we do not know it.
        only = [one for one in self._nginx.only() if one in at_once_to(text)]
        pools = [pool for pool, upstream in self._upstreams.items() if [upstream] == only]
        if only:
            shares = {pool: 100.0 if pool in pools else 0.0 for pool in self._upstreams}
            return parse_routing({"weights": shares}) if pools else None
        return read_routing(text, self._upstreams)

    def same(self, shown: Routing, wanted: Routing) -> bool:
        """Tell whether the routing is the wanted one, and no file is left over."""
        return shown == wanted and not self._nginx.only()

    def order(self, routing: Routing) -> None:
        """Give all requests to one upstream at once if that is meant; write, test and reload."""
        self._only = self._ours = self._nginx.only()
        everything = self._everything(routing)
        if everything:
            text = self._nginx.read(FILE)
            if everything in at_once_to(text) and self._nginx.taken_up(FILE):
                self._nginx.send_all(everything)
                self._ours = self._nginx.only()
                self._at_once = everything
        try:
            self._write(routing)
        except TrafficError as error:
            if not self._at_once:
                raise
            self._late = (
                f"All requests go to {self._at_once} by the file only-{self._at_once}, but "
                f"{FILE} could not follow: {error}"
            )

    def _write(self, routing: Routing) -> None:
        """Write the file, let nginx test it, reload, and end what a file has said before."""
        self._refuse_unused(routing)
        self._written = write_routing(
            routing,
            self._upstreams,
            self._nginx.name,
            at_once=self._nginx.asks_for_only(self._names),
        )
        self._before = self._nginx.change(FILE, lambda _text: self._written)
        self._nginx.reload(FILE)
        self._nginx.send_as_written(self._ours)

    def missing(self, routing: Routing) -> str:
        """Look whether every worker that takes requests has the new file."""
        if self._late:
            return ""
        if read_routing(self._nginx.read(FILE), self._upstreams) != routing:
            return f"{FILE} was changed by somebody else"
        return "" if self._nginx.taken_up(FILE) else "its workers have not read the new files"

    def take_back(self) -> None:
        """Put the former files back and reload, unless somebody has changed them since."""
        before = self._before
        if before is None or self._nginx.read(FILE) != self._written:
            return
        for upstream in self._only:
            self._nginx.send_all(upstream)
        self._nginx.change(FILE, lambda text: before if text == self._written else text)
        self._nginx.reload(FILE)

    @property
    def _names(self) -> list[str]:
        return list(self._upstreams.values())

    def _everything(self, routing: Routing) -> str:
        """Return the upstream that gets all requests, or nothing if not a single one does."""
        return self._upstreams.get(everything_to(routing), "")

    def measure(self) -> dict[str, Counters]:
        """Count what is new in the access log."""
        counts = read_log(self._log_path)
        return {
            pool: Counters(
                seen["requests"],
                seen["errors"],
                histogram({int(number): count for number, count in seen["buckets"].items()}),
            )
            for pool, upstream in self._upstreams.items()
            for seen in [counts.get(upstream, _nothing())]
        }

    def _refuse_unused(self, routing: Routing) -> None:
        """Refuse a routing that the configuration has no place for.

        :raises TrafficError: an upstream, or a variable of ours, that is not used
        """
        name = self._nginx.name
        wanted = [
            (rf"proxy_pass\s+\S*\${name}_upstream", f"'proxy_pass http://${name}_upstream;'"),
            *[
                (rf"\bupstream\s+{upstream}\s*\{{", f"an upstream {upstream!r}")
                for upstream in self._upstreams.values()
            ],
        ]
        if routing.sticky and routing.sticky.ttl:
            wanted.append((rf"\${name}_cookie", f"'add_header Set-Cookie ${name}_cookie;'"))
        if routing.mirror:
            wanted.append((rf"proxy_pass\s+\S*\${name}_mirror", f"a mirror to ${name}_mirror"))
        for pattern, words in wanted:
            if not self._nginx.configured(pattern):
                raise TrafficError(
                    f"{self.where}: nginx's configuration has no {words}. Add it: "
                    "docs/load-balancers.md shows the whole; the pools are "
                    f"{', '.join(self._upstreams.values())}."
                )


def read_log(path: str) -> dict[str, dict[str, Any]]:
    """Return ``{upstream: {"requests", "errors", "buckets"}}``, counted since the log began.

    A log that was rotated is read to its end under its new name, and for a while after, because
    nginx's workers change to the new one each in its own time.

    :raises TrafficError: the log cannot be read
    """
    counts_path = f"{path}.counts"
    with _counts(counts_path) as kept:
        state = _state(kept)
        try:
            log = open(path, "rb")  # noqa: SIM115 (closed below)
        except OSError as error:
            # Between its rename and nginx's reopening there is no log of this name.
            if not isinstance(error, FileNotFoundError) or not state["inode"]:
                raise TrafficError(
                    f"The access log {path} cannot be read: {error.strerror}. Check "
                    "deploy_nginx_log_path; docs/load-balancers.md shows the log_format."
                ) from error
            _read_former(path, state, [state["inode"], state["offset"], time.time()])
        else:
            with log:
                _read_both(path, log, state)
        if kept is not None:
            # What does not fit on a full disk is counted anew with the next look.
            with contextlib.suppress(OSError):
                size = os.pwrite(kept.fileno(), json.dumps(state).encode(), 0)
                os.ftruncate(kept.fileno(), size)
        found: dict[str, dict[str, Any]] = state["upstreams"]
        return found


def _read_both(path: str, log: BinaryIO, state: dict[str, Any]) -> None:
    """Count on in the log, and in the one that was there before."""
    status = os.fstat(log.fileno())
    if state["inode"] not in (0, status.st_ino):
        state["former"] = [state["inode"], state["offset"], time.time()]
        state["offset"] = 0
    state["inode"] = status.st_ino
    if state["former"]:
        _read_former(path, state, state["former"])
    offset = state["offset"] if state["offset"] <= status.st_size else 0
    state["offset"] = _count(log, offset, state["upstreams"])


def _read_former(path: str, state: dict[str, Any], former: list[Any]) -> None:
    """Count on in a log that has another name now; forget it when nobody writes it any more."""
    inode, offset, since = former
    if time.time() - since > FORMER_SECONDS:
        state["former"] = None
        return
    with contextlib.suppress(OSError), os.scandir(os.path.dirname(path) or ".") as entries:
        for entry in entries:
            if entry.inode() != inode or not entry.is_file(follow_symlinks=False):
                continue
            with open(entry.path, "rb") as log:
                end = _count(log, offset, state["upstreams"])
            if state["inode"] == inode:
                state["offset"] = end
            else:
                state["former"] = [inode, end, since]
            return


def _count(log: BinaryIO, offset: int, upstreams: dict[str, Any]) -> int:
    """Add the whole lines from an offset on; return the offset behind them."""
    log.seek(offset)
    for raw in log:
        if not raw.endswith(b"\n"):
            break
        offset += len(raw)
        line = read_line(raw.decode("utf-8", "replace"))
        if line is None:
            continue
        seen = upstreams.setdefault(line.upstream, _nothing())
        seen["requests"] += 1
        seen["errors"] += line.status >= ERROR
        number = str(bucket_of(line.seconds))
        seen["buckets"][number] = seen["buckets"].get(number, 0) + 1
    return offset


def _nothing() -> dict[str, Any]:
    return {"requests": 0, "errors": 0, "buckets": {}}


@contextlib.contextmanager
def _counts(path: str) -> Any:
    """Open and lock the file of counts; None where this user may not write one."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError:
        yield None
        return
    with os.fdopen(descriptor, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _state(kept: BinaryIO | None) -> dict[str, Any]:
    """Return what was kept, or nothing where it cannot be read: then the log is read anew."""
    if kept is not None:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            state: dict[str, Any] = json.loads(kept.read())
            if isinstance(state["upstreams"], dict):
                return {**_NEW, **state}
    return {**_NEW, "upstreams": {}}
