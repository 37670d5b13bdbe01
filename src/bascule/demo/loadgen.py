"""Users at a steady rate: an open-loop HTTP load generator.

``python -m bascule.demo.loadgen http://127.0.0.1:8080/ --rate 200 --seconds 10 --json load.json``

Open loop means that a request is due at its time whether or not the earlier ones were answered, and
that its latency counts from that time: a server that stalls for a second is seen as a second of
slow answers, not as one. Connections are kept alive and used in turn. Nothing is retried: each
request that was due is counted once, as answered or as failed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import time
from array import array
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from bascule.demo._http import HttpError, Response, parse_response

PERCENTILES = (50, 90, 99)
KEPT_FAILURES = 20
# A proxy's threads each have connections of their own: one connection would see only one of them.
SPREAD = 8
CLOSE = "Connection: close\r\n"


@dataclass
class Report:
    """What happened to the requests.

    :ivar started: epoch seconds
    :ivar latencies: seconds from the moment a request was due to the end of its answer
    :ivar first_failures: (seconds since the start, reason) of the first failures
    """

    url: str
    rate: float
    started: float = field(default_factory=time.time)
    seconds: float = 0.0
    sent: int = 0
    ok: int = 0
    connections: int = 0
    cpu_seconds: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    latencies: array[float] = field(default_factory=lambda: array("d"))
    first_failures: list[tuple[float, str]] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """Requests that got no answer, or one with a status of 500 or more."""
        return sum(self.failures.values())

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain data; latencies are in milliseconds."""
        ordered = sorted(self.latencies)
        latency = {f"p{share}": percentile(ordered, share) for share in PERCENTILES}
        latency["max"] = ordered[-1] if ordered else 0.0
        return {
            "url": self.url,
            "rate": self.rate,
            "started": self.started,
            "seconds": round(self.seconds, 3),
            "sent": self.sent,
            "ok": self.ok,
            "failed": self.failed,
            "failures": dict(self.failures),
            "statuses": dict(self.statuses),
            "versions": dict(self.versions),
            "latency_ms": {name: round(value * 1000, 2) for name, value in latency.items()},
            "connections": self.connections,
            "cpu_seconds": round(self.cpu_seconds, 3),
            "first_failures": [
                {"after": round(after, 3), "reason": reason}
                for after, reason in self.first_failures
            ],
        }


def percentile(ordered: list[float], share: float) -> float:
    """Return the nearest-rank percentile of sorted values; 0 of none."""
    if not ordered:
        return 0.0
    rank = -(-len(ordered) * share // 100)
    return ordered[max(0, int(rank) - 1)]


@dataclass(slots=True)
class _Request:
    due: float
    timer: asyncio.TimerHandle | None = None
    connection: _Connection | None = None
    done: bool = False


class _Connection(asyncio.Protocol):
    """One connection, kept alive, with at most one request on it."""

    def __init__(self, load: _Load) -> None:
        self.load = load
        self.request: _Request | None = None
        self.transport: asyncio.Transport | None = None
        self.buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self.transport = transport

    def send(self, request: _Request) -> None:
        self.request = request
        request.connection = self
        self.buffer.clear()
        if self.transport is not None:
            self.transport.write(self.load.message)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self._read(closed=False)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self.request is not None:
            self._read(closed=True)
        self.load.forget(self)

    def _read(self, *, closed: bool) -> None:
        if self.request is None:
            # An answer nobody asked for: this connection is not to be trusted any more.
            self.close()
            return
        try:
            response = parse_response(self.buffer, closed=closed)
        except HttpError:
            self._finish("malformed answer", None)
            return
        if response is not None:
            self._finish(None, response)
        elif closed:
            self._finish("reset", None)

    def _finish(self, reason: str | None, response: Response | None) -> None:
        request, self.request = self.request, None
        if request is None:
            return
        reusable = response is not None and response.keep_alive and self.load.keep
        if not reusable:
            self.close()
        self.load.finish(request, reason, response)
        if reusable:
            self.load.free(self)

    def close(self) -> None:
        self.load.forget(self)
        if self.transport is not None:
            self.transport.abort()


class _Load:
    """The loop's state: what is due, what is on its way, which connections are free."""

    def __init__(
        self,
        url: str,
        rate: float,
        timeout: float,
        limit: int,
        *,
        keep: bool = True,
        log: IO[str] | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"{url!r} is no URL to load; wanted is http://HOST[:PORT]/PATH")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self.host, self.port = parts.hostname, parts.port or 80
        self.message = (
            f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUser-Agent: bascule-loadgen\r\n"
            f"Accept: */*\r\n{'' if keep else CLOSE}\r\n"
        ).encode()
        self.report = Report(url, rate)
        self.timeout = timeout
        self.limit = limit
        self.log = log
        self.keep = keep
        self.loop = asyncio.get_running_loop()
        self.begun = self.loop.time()
        self.idle: deque[_Connection] = deque()
        self.open: set[_Connection] = set()
        self.waiting: deque[_Request] = deque()
        self.under_way = 0
        self.opening: set[asyncio.Task[None]] = set()

    def begin(self, due: float) -> None:
        """Send the request that is due now."""
        request = _Request(due)
        self.report.sent += 1
        self.under_way += 1
        request.timer = self.loop.call_at(due + self.timeout, self._late, request)
        if self.idle:
            self.idle.popleft().send(request)
            if len(self.open) < SPREAD:
                self._open_another()
            return
        self.waiting.append(request)
        self._open_another()

    def finish(self, request: _Request, reason: str | None, response: Response | None) -> None:
        """Count a request, once."""
        if request.done:
            return
        request.done = True
        self.under_way -= 1
        if request.timer is not None:
            request.timer.cancel()
        if response is not None:
            self.report.statuses[str(response.status)] += 1
            self.report.versions[response.version] += 1
            if response.status >= 500:
                reason = f"status {response.status}"
        now = self.loop.time()
        if self.log is not None:
            version = response.version if response is not None else ""
            self.log.write(f"{time.time():.3f}\t{version}\t{reason or 'ok'}\n")
        if reason is None:
            self.report.ok += 1
            self.report.latencies.append(now - request.due)
            return
        self.report.failures[reason] += 1
        if len(self.report.first_failures) < KEPT_FAILURES:
            self.report.first_failures.append((now - self.begun, reason))

    def free(self, connection: _Connection) -> None:
        """Give a free connection to the request that waits longest, or keep it."""
        while self.waiting:
            request = self.waiting.popleft()
            if not request.done:
                connection.send(request)
                return
        self.idle.append(connection)

    def forget(self, connection: _Connection) -> None:
        """Take a connection that is closed, or about to be, out of use."""
        self.open.discard(connection)
        with contextlib.suppress(ValueError):
            self.idle.remove(connection)
        if self.waiting:
            self._open_another()

    def _open_another(self) -> None:
        if len(self.open) + len(self.opening) < self.limit:
            task = self.loop.create_task(self._connect())
            self.opening.add(task)
            task.add_done_callback(self.opening.discard)

    async def _connect(self) -> None:
        try:
            _transport, connection = await self.loop.create_connection(
                lambda: _Connection(self), self.host, self.port
            )
        except OSError:
            while self.waiting:
                request = self.waiting.popleft()
                if not request.done:
                    self.finish(request, "connect error", None)
                    return
            return
        self.report.connections += 1
        self.open.add(connection)
        self.free(connection)

    def _late(self, request: _Request) -> None:
        if request.connection is not None and request.connection.request is request:
            request.connection.request = None
            request.connection.close()
        self.finish(request, "timeout", None)

    def close(self) -> None:
        """Close every connection."""
        self.waiting.clear()
        for task in list(self.opening):
            task.cancel()
        for connection in list(self.open):
            connection.close()


async def generate(
    url: str,
    *,
    rate: float,
    seconds: float | None = None,
    timeout: float = 10.0,
    max_connections: int = 256,
    keep_alive: bool = True,
    stop: asyncio.Event | None = None,
    log: IO[str] | None = None,
) -> Report:
    """Send ``rate`` requests a second until the time is over or ``stop`` is set.

    Without ``keep_alive`` every request has a connection of its own.

    Returns when the last request was answered or its ``timeout`` (seconds) is over, so ``sent`` is
    always ``ok`` plus ``failed``.

    :param log: gets a line for each request when it is answered or given up: epoch seconds,
        version, and ``ok`` or why it failed, with tabs between them
    :raises ValueError: not an http URL
    """
    load = _Load(url, rate, timeout, max_connections, keep=keep_alive, log=log)
    stop = stop or asyncio.Event()
    cpu = time.process_time()
    count = 0
    total = None if seconds is None else round(rate * seconds)
    while not stop.is_set() and (total is None or count < total):
        due = load.begun + count / rate
        pause = due - load.loop.time()
        if pause > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)
            continue
        load.begin(due)
        count += 1
        if count % 64 == 0:
            # Catching up must not keep answers from being read.
            await asyncio.sleep(0)
    load.report.seconds = load.loop.time() - load.begun
    while load.under_way:
        await asyncio.sleep(0.01)
    load.close()
    load.report.cpu_seconds = time.process_time() - cpu
    # Give the transports their turn to close.
    await asyncio.sleep(0)
    return load.report


def render(report: dict[str, Any]) -> str:
    """Return the report as lines for people."""
    latency = report["latency_ms"]
    lines = [
        f"{report['sent']} requests in {report['seconds']:.1f} s, {report['failed']} failed",
        "latency ms: " + ", ".join(f"{name} {value:g}" for name, value in latency.items()),
    ]
    lines += [f"version {name}: {count}" for name, count in sorted(report["versions"].items())]
    lines += [f"failed, {why}: {count}" for why, count in sorted(report["failures"].items())]
    return "\n".join(lines)


async def _main(options: argparse.Namespace) -> dict[str, Any]:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with contextlib.ExitStack() as stack:
        report = await generate(
            options.url,
            rate=options.rate,
            seconds=options.seconds,
            timeout=options.timeout,
            max_connections=options.connections,
            keep_alive=not options.close,
            stop=stop,
            log=stack.enter_context(options.log.open("w", buffering=1)) if options.log else None,
        )
    return report.as_dict()


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def main(arguments: list[str] | None = None) -> int:
    """Run the load generator as a program; SIGTERM and SIGINT end it early, with its report."""
    parser = argparse.ArgumentParser(prog="bascule.demo.loadgen", description=__doc__)
    parser.add_argument("url", metavar="URL")
    parser.add_argument("--rate", type=_positive, default=100.0, help="requests a second")
    parser.add_argument("--seconds", type=_positive, help="how long; until SIGTERM if not given")
    parser.add_argument("--timeout", type=_positive, default=10.0, help="seconds for one request")
    parser.add_argument("--connections", type=int, default=256, help="at most this many at once")
    parser.add_argument("--close", action="store_true", help="a connection for each request")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report here")
    parser.add_argument("--log", type=Path, metavar="FILE", help="write a line for each request")
    options = parser.parse_args(arguments)
    try:
        report = asyncio.run(_main(options))
    except ValueError as error:
        parser.error(str(error))
    if options.json:
        partial = options.json.with_name(options.json.name + ".part")
        partial.write_text(json.dumps(report, indent=2) + "\n")
        partial.replace(options.json)
    print(render(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
