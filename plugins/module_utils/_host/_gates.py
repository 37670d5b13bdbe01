# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Health gates: questions a host must answer yes, without a break, for a while.

A gate is ``{"type": "http" | "tcp" | "command", ...}`` with, in seconds, ``interval`` (2),
``timeout`` of one attempt (5), ``hold`` (0: one yes is enough) and ``deadline`` (300):

- http: ``url``, or ``port``, ``path`` (/) and ``host`` (127.0.0.1); ``status`` (a list, any of 200
  to 399 without), ``body`` (a regular expression that must be found), ``verify`` (true, for https)
- tcp: ``port`` and ``host`` (127.0.0.1)
- command: ``command``, a list, or a text for ``/bin/sh -c``

Nomad's rule: any no starts the time to hold anew.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from .._errors import GateError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_BODY = 1_048_576


class Answer:
    """One attempt: yes or no, and what was seen."""

    __slots__ = ("ok", "seen")

    def __init__(self, ok: bool, seen: str) -> None:
        """Keep an answer."""
        self.ok = ok
        self.seen = seen


class _Watch:
    """One gate while it is asked again and again."""

    def __init__(self, gate: dict[str, Any], now: float) -> None:
        self.gate = gate
        self.ask = probe(gate)
        self.interval = max(0.05, _seconds(gate, "interval", 2.0))
        self.hold = _seconds(gate, "hold", 0.0)
        self.deadline = now + _seconds(gate, "deadline", 300.0)
        self.next = now
        self.since: float | None = None
        self.attempts = self.passed = self.flaps = 0
        self.last = "nothing yet"

    def attempt(self, clock: Callable[[], float]) -> None:
        begun = clock()
        answer = self.ask(max(0.1, _seconds(self.gate, "timeout", 5.0)))
        self.attempts += 1
        self.last = answer.seen
        if answer.ok:
            self.passed += 1
            if self.since is None:
                self.since = begun
        elif self.since is not None:
            self.since = None
            self.flaps += 1
        self.next = begun + self.interval

    def held(self, now: float) -> bool:
        return self.since is not None and now - self.since >= self.hold

    def failure(self) -> str:
        gate = self.gate
        hold = f" for {self.hold:g} s without a break" if self.hold else ""
        flaps = f", it fell back {self.flaps} times" if self.flaps else ""
        return (
            f"The health gate {describe(gate)} was not passed{hold} within"
            f" {_seconds(gate, 'deadline', 300.0):g} s: {self.passed} of {self.attempts} attempts"
            f" passed{flaps}; the last answer was {self.last}."
        )


def wait(
    gates: list[dict[str, Any]],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[str]:
    """Ask all gates until every one of them holds at the same moment.

    :returns: one line a gate, what was seen last
    :raises GateError: when a gate's deadline passes; counts its attempts
    :raises UsageError: for a gate that cannot be asked
    """
    watches = [_Watch(gate, clock()) for gate in gates]
    while True:
        for watch in watches:
            if clock() >= watch.next:
                watch.attempt(clock)
        now = clock()
        if all(watch.held(now) for watch in watches):
            return [
                f"{describe(one.gate)}: {one.last} ({one.passed} of {one.attempts} attempts passed)"
                for one in watches
            ]
        for watch in watches:
            if now >= watch.deadline and not watch.held(now):
                raise GateError(watch.failure())
        wake = [one.next for one in watches]
        wake += [one.deadline for one in watches if one.deadline > now]
        wake += [one.since + one.hold for one in watches if one.since is not None]
        sleep(max(0.01, min(moment for moment in wake if moment > now) - now))


def once(gates: list[dict[str, Any]]) -> bool:
    """Ask every gate one time."""
    return all(probe(gate)(_seconds(gate, "timeout", 5.0)).ok for gate in gates)


def describe(gate: dict[str, Any]) -> str:
    """Name a gate for a person."""
    if gate["type"] == "http":
        return "http " + _url(gate)
    if gate["type"] == "tcp":
        return f"tcp {gate.get('host') or '127.0.0.1'}:{gate['port']}"
    command = gate["command"]
    return "command " + (command if isinstance(command, str) else " ".join(command))


def probe(gate: dict[str, Any]) -> Callable[[float], Answer]:
    """Return the function that asks a gate once, given a timeout in seconds.

    :raises UsageError: for a gate that cannot be asked
    """
    probes = {"http": (_http, ("url", "port")), "tcp": (_tcp, ("port",))}
    probes["command"] = (_command, ("command",))
    kind = gate.get("type")
    if kind not in probes:
        raise UsageError(f"A gate has the type {kind!r}, wanted one of {', '.join(probes)}.")
    ask, needed = probes[kind]
    if not any(gate.get(field) for field in needed):
        raise UsageError(f"A gate of type {kind} needs {' or '.join(needed)}.")
    return lambda timeout: ask(gate, timeout)


def _seconds(gate: dict[str, Any], field: str, default: float) -> float:
    value = gate.get(field)
    if value is None:
        return default
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise UsageError(f"A gate's {field} must be a number of seconds, not {value!r}.")
    return seconds


def _url(gate: dict[str, Any]) -> str:
    if gate.get("url"):
        return str(gate["url"])
    path = str(gate.get("path") or "/")
    return f"http://{gate.get('host') or '127.0.0.1'}:{gate['port']}{path}"


def _http(gate: dict[str, Any], timeout: float) -> Answer:
    import http.client
    from urllib.parse import urlsplit

    url = urlsplit(_url(gate))
    wanted = [int(status) for status in gate.get("status") or ()]
    host = url.hostname or "127.0.0.1"
    connection = http.client.HTTPConnection(host, url.port, timeout=timeout)
    if url.scheme == "https":
        connection = _https(host, url.port, timeout, bool(gate.get("verify", True)))
    target = (url.path or "/") + ("?" + url.query if url.query else "")
    try:
        connection.request("GET", target, headers={"User-Agent": "bascule-gate"})
        response = connection.getresponse()
        body = response.read(_MAX_BODY)
    except (OSError, http.client.HTTPException) as error:
        return Answer(False, f"{type(error).__name__}: {error}")
    finally:
        connection.close()
    seen = f"HTTP {response.status}"
    if response.status not in (wanted or range(200, 400)):
        told = " or ".join(map(str, wanted)) or "200 to 399"
        return Answer(False, f"{seen}, wanted {told}")
    if gate.get("body"):
        import re

        if not re.search(gate["body"], body.decode("utf-8", "replace")):
            return Answer(False, f"{seen} without {gate['body']!r} in its body")
    return Answer(True, seen)


def _https(host: str, port: int | None, timeout: float, verify: bool) -> Any:
    import http.client
    import ssl

    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(host, port, timeout=timeout, context=context)


def _tcp(gate: dict[str, Any], timeout: float) -> Answer:
    import socket

    try:
        address = (gate.get("host") or "127.0.0.1", int(gate["port"]))
        with socket.create_connection(address, timeout):
            return Answer(True, "connected")
    except OSError as error:
        return Answer(False, f"{type(error).__name__}: {error}")


def _command(gate: dict[str, Any], timeout: float) -> Answer:
    import os

    from . import _process

    command = gate["command"]
    arguments = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
    lines: list[bytes] = []

    def keep(line: bytes) -> None:
        lines[:] = [line.rstrip(b"\n")]

    try:
        ending = _process.run(arguments, dict(os.environ), timeout, keep)
    except OSError as error:
        return Answer(False, f"{error.strerror}: {arguments[0]}")
    seen = f"{ending.how} {ending.number}" if ending.how != "timeout" else f"timeout {timeout:g} s"
    if lines:
        said = lines[0].partition(b"]")[2].decode("utf-8", "replace")[:200]
        seen += f", last line {said!r}"
    return Answer(ending.how == "exit" and ending.number == 0, seen)
