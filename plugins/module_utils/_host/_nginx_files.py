# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""nginx's files as data: servers of an upstream, the rendered routing, an access log's lines.

This file runs on hosts: Python 3.8 and the standard library only.
"""

from __future__ import annotations

import json
import math
import re
from typing import NamedTuple

from .._errors import TrafficError, UsageError
from .._routing_data import Routing, arms, parse_routing

# server ADDRESS[:PORT] [parameter ...]; at the beginning of a line or after a brace.
_SERVER = re.compile(
    r"(?P<before>(?:^|(?<=[;{]))[ \t]*)server\s+(?P<place>[^\s;{]+)(?P<rest>[^;{]*);", re.M
)
_MARK = "# routing: "
_AT_ONCE = "# at once: "
EMPTY = '""'
# ngx_http_core_module: keepalive_timeout where nothing else is said.
KEEPALIVE_SECONDS = 75.0
_TOKEN = re.compile(r"""(?P<quoted>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|[{};]|[^\s{};"']+""")
_TIME = re.compile(r"(\d+)(ms|s|m|h|d|)")
_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

# Upper bounds of the buckets of answer times are powers of this, in milliseconds.
BUCKET_RATIO = 1.1


class Server(NamedTuple):
    """A server of an upstream."""

    address: str
    port: int
    down: bool


def servers_of(text: str, upstream: str, path: str) -> list[Server]:
    """Return the servers that an upstream's file has.

    :raises TrafficError: another upstream's file, or none
    """
    body = _body(text, upstream, path)
    return [
        Server(*_split(found["place"]), "down" in found["rest"].split())
        for found in _SERVER.finditer(body)
        if not found["place"].startswith("unix:")
    ]


def set_down(text: str, places: list[tuple[str, int]], *, down: bool, weight: int | None) -> str:
    """Mark the servers at these places as down, or as not down any more; add one that is missing.

    What else a ``server`` line says stays.
    """
    seen = False

    def changed(found: re.Match[str]) -> str:
        nonlocal seen
        if found["place"].startswith("unix:") or _split(found["place"]) not in places:
            return found[0]
        seen = True
        words = [word for word in found["rest"].split() if word != "down"]
        rest = " ".join([found["place"], *words, *(["down"] if down else [])])
        return f"{found['before']}server {rest};"

    changed_text = _SERVER.sub(changed, text)
    if seen:
        return changed_text
    address, port = places[0]
    host = f"[{address}]" if ":" in address else address
    words = [f"server {host}:{port}", *([f"weight={weight}"] if weight is not None else [])]
    line = " ".join([*words, *(["down"] if down else [])])
    start = changed_text.index("{") + 1
    return f"{changed_text[:start]}\n    {line};{changed_text[start:]}"


def keepalive_seconds(files: list[str]) -> float:
    """Return for how long nginx lets a client's connection rest, where it does so for longest.

    :param files: the texts of its configuration's files, without comments
    """
    known: list[float] = []
    defaults: list[float] = []
    servers = 0
    for text in files:
        blocks: list[str] = []
        words: list[str] = []
        for token in _TOKEN.finditer(text):
            if token[0] == "{":
                blocks.append(words[0] if words else "")
                servers += blocks[-1] == "server"
            elif token[0] == "}":
                del blocks[-1:]
            elif token[0] != ";":
                words.append(token[0])
                continue
            # An upstream has a directive of the same name, for the other side.
            elif words[:1] == ["keepalive_timeout"] and "upstream" not in blocks:
                # A file without a block around it is included in one; so it is a default there.
                at_top = blocks[-1:] in ([], ["http"])
                (defaults if at_top else known).append(_seconds(words[1] if words[1:] else ""))
            words = []
    whole = [one for one in known if one]
    if not defaults and (not whole or servers > 1):
        return KEEPALIVE_SECONDS
    return max([*defaults, *whole])


def _seconds(text: str) -> float:
    """Return a time of nginx in seconds, which may have several units as in ``1m 30s``."""
    return sum(int(number) * _UNITS[unit] for number, unit in _TIME.findall(text))


def write_routing(
    routing: Routing, upstreams: dict[str, str], name: str, *, at_once: bool = False
) -> str:
    """Return the file of a routing: variables that say where a request goes.

    ``$NAME_upstream`` is the upstream, ``$NAME_mirror`` the one of the copy or empty,
    ``$NAME_cookie`` the value of a ``Set-Cookie`` header or empty.

    :param at_once: ``$NAME_only`` is set by the configuration and, where it is not empty, comes
        before all else
    :raises UsageError: a header that nginx cannot name
    """
    lines = [
        "# Written by Bascule: what is changed here is lost.",
        _MARK + json.dumps(routing.as_data(), sort_keys=True),
        *([_AT_ONCE + " ".join(sorted(upstreams.values()))] if at_once else []),
    ]
    chosen = []
    for number, rule in enumerate(routing.match, 1):
        variable = f"${name}_rule_{number}"
        pattern = (
            f'"~^{_quoted(rule.value)}$"'
            if rule.header
            else f'"~{_cookie(str(rule.cookie))}{_quoted(rule.value)}\\s*(?:;|$)"'
        )
        source = _header(rule.header) if rule.header else "$http_cookie"
        lines += _map(source, variable, {"default": '""', pattern: upstreams[rule.pool]})
        chosen.append(variable)
    lines += _split_clients("$request_id", f"${name}_drawn", _shares(routing, upstreams))
    cookie, last = '""', f"${name}_drawn"
    by = routing.sticky
    if by:
        user = f"${name}_user"
        if by.header:
            lines += _map(_header(by.header), user, {"default": _header(by.header)})
        else:
            pattern = f'"~{_cookie(str(by.cookie))}(?<{name}_value>[^;]+)"'
            lines += _map("$http_cookie", user, {"default": '""', pattern: f"${name}_value"})
        if by.ttl:
            given = f"${name}_given"
            lines += _map(user, given, {"default": user, '""': "$request_id"})
            attributes = f"; Max-Age={int(by.ttl)}; Path=/; HttpOnly; SameSite=Lax"
            cookie = f"{by.cookie}=$request_id{attributes}"
            lines += _map(user, f"${name}_cookie", {"default": '""', '""': f'"{cookie}"'})
            user = given
        stuck = f"${name}_stuck"
        lines += _split_clients(f"{by.salt}:{user}", stuck, _shares(routing, upstreams))
        last = f"${name}_shared"
        lines += _map(user, last, {"default": stuck, '""': f"${name}_drawn"})
    if not (by and by.ttl):
        lines += _map('""', f"${name}_cookie", {"default": '""'})
    for variable in reversed(chosen):
        lines += _map(variable, f"{variable}_or", {"default": variable, '""': last})
        last = f"{variable}_or"
    copied = EMPTY
    if routing.mirror and routing.mirror.share:
        share = (upstreams[routing.mirror.pool], round(routing.mirror.share * 100))
        copied = f"${name}_copied"
        lines += _split_clients("mirror:$request_id", copied, [share, (EMPTY, 0)])
    if at_once:
        only = f"${name}_only"
        lines += _map(only, f"${name}_upstream", {"default": only, EMPTY: last})
        lines += _map(only, f"${name}_mirror", {"default": EMPTY, EMPTY: copied})
    else:
        lines += _map(EMPTY, f"${name}_upstream", {"default": last})
        lines += _map(EMPTY, f"${name}_mirror", {"default": copied})
    return "\n".join(lines) + "\n"


def at_once_to(text: str) -> list[str]:
    """Return the upstreams that a rendered file gives all requests to at once, by a file."""
    for line in text.splitlines():
        if line.startswith(_AT_ONCE):
            return line[len(_AT_ONCE) :].split()
    return []


def read_routing(text: str, upstreams: dict[str, str]) -> Routing | None:
    """Return the routing that a file was rendered from; ``None`` is a file of somebody else.

    The file that a person writes first, as docs/load-balancers.md says, names one upstream.
    """
    for line in text.splitlines():
        if line.startswith(_MARK):
            try:
                return parse_routing(json.loads(line[len(_MARK) :]))
            except (UsageError, ValueError):
                return None
    first = re.findall(r"_upstream\s*\{\s*default\s+([^\s;]+)\s*;", text)
    for pool, upstream in upstreams.items():
        if first == [upstream]:
            return parse_routing({"weights": {pool: 100}})
    return None


class LogLine(NamedTuple):
    """A request in the access log."""

    upstream: str
    status: int
    seconds: float


def read_line(line: str) -> LogLine | None:
    """Return what a line of the log format of docs/load-balancers.md says; ``None`` if not it.

    ``$msec $NAME_upstream $status $upstream_response_time``; where several servers were tried, the
    last has their times with commas and colons between them (ngx_http_upstream_module).
    """
    try:
        _when, upstream, status, *times = line.split()
        spent = [float(time.strip(",:")) for time in times if time not in ("-", ":", "-,")]
        return LogLine(upstream, int(status), sum(spent))
    except ValueError:
        return None


def bucket_of(seconds: float) -> int:
    """Return the number of the bucket that a time falls in; the first holds all below 1 ms."""
    return max(0, math.ceil(math.log(max(seconds * 1000, 1.0), BUCKET_RATIO) - 1e-9))


def histogram(buckets: dict[int, int]) -> list[tuple[float, int]]:
    """Return (upper bound in seconds, requests up to it), rising."""
    found: list[tuple[float, int]] = []
    count = 0
    for number in sorted(buckets):
        if number and (not found or number - 1 not in buckets):
            found.append((_bound(number - 1), count))
        count += buckets[number]
        found.append((_bound(number), count))
    return found


def _bound(number: int) -> float:
    return round(BUCKET_RATIO**number / 1000, 9)


def _shares(routing: Routing, upstreams: dict[str, str]) -> list[tuple[str, int]]:
    return [(upstreams[pool], points) for pool, points in arms(routing) if points]


def _map(source: str, variable: str, values: dict[str, str]) -> list[str]:
    rows = [f"    {key} {value};" for key, value in values.items()]
    return [f"map {source} {variable} {{", *rows, "}"]


def _split_clients(source: str, variable: str, shares: list[tuple[str, int]]) -> list[str]:
    """Return the block; the last share is what is left, which also catches hash 0xffffffff."""
    rows = [f"    {points / 100:.2f}% {value};" for value, points in shares[:-1]]
    return [f'split_clients "{source}" {variable} {{', *rows, f"    * {shares[-1][0]};", "}"]


def _header(name: str | None) -> str:
    if not re.fullmatch(r"[A-Za-z0-9-]+", str(name)):
        raise UsageError(
            f"routing: nginx cannot name the header {name!r}: letters, digits and '-' only."
        )
    return "$http_" + str(name).lower().replace("-", "_")


def _cookie(name: str) -> str:
    return rf"(?:^|;)\s*{_quoted(name)}="


def _quoted(text: str) -> str:
    """Return PCRE's pattern of a text, without a character that nginx's parser would read."""
    return "".join(c if c.isalnum() or c in "_-" else f"\\x{ord(c):02x}" for c in text)


def _body(text: str, upstream: str, path: str) -> str:
    names = re.findall(r"\bupstream\s+([^\s{]+)\s*\{", text)
    if names != [upstream]:
        raise TrafficError(
            f"{path} has the upstreams {', '.join(names) or 'none'}, wanted {upstream} and no "
            "other. Give each upstream a file in deploy_nginx_directory, named after it."
        )
    return text


def _split(place: str) -> tuple[str, int]:
    """Return (address, port) of ``ADDRESS[:PORT]``; nginx's default is port 80."""
    address, colon, port = place.rpartition(":")
    if not colon or not port.isdigit():
        address, port = place, "80"
    return address.strip("[]"), int(port)
