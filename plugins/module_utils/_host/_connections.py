# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which connections rest: the kernel's own list of sockets, with when each was last used.

A server's connection that has last sent something is kept alive for a next request; one that has
last received something has a request under way. ``sock_diag(7)`` and ``struct tcp_info`` of
``linux/tcp.h`` tell both times, in milliseconds, for every socket of the network namespace.

This file runs on hosts: Python 3.8 and the standard library only.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Iterator, NamedTuple  # noqa: UP035 (Python 3.8 evaluates NamedTuple's)

# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h, include/net/tcp_states.h.
_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY = 4, 20
_REQUEST_DUMP = 0x301
_ERROR, _DONE = 2, 3
_INET_DIAG_INFO = 2
_ESTABLISHED = 1
_HEAD = struct.Struct("=IHHII")
_ANSWER_TIMEOUT = 5.0
# Of struct inet_diag_msg: the ports (network order), the addresses, and its size.
_PORTS, _ADDRESSES, _MESSAGE = 4, 8, 72
# Of struct tcp_info: tcpi_last_data_sent, tcpi_last_data_recv and tcpi_data_segs_out (Linux 4.6).
_LAST_SENT, _LAST_RECEIVED, _SEGMENTS_SENT = 44, 52, 156


class Connection(NamedTuple):
    """An established connection; ``rests``: its last data went from us to the client."""

    key: bytes
    port: int
    rests: bool


def resting(ports: set[int]) -> set[bytes]:
    """Return the connections to these local ports that wait for a next request.

    :raises OSError: the kernel does not tell
    """
    return {
        one.key
        for family in (socket.AF_INET, socket.AF_INET6)
        for one in _established(family)
        if one.port in ports and one.rests
    }


def _established(family: int) -> Iterator[Connection]:
    body = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 1 << (_INET_DIAG_INFO - 1), 0,
                       1 << _ESTABLISHED) + bytes(48)  # fmt: skip
    head = _HEAD.pack(_HEAD.size + len(body), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as asked:
        asked.settimeout(_ANSWER_TIMEOUT)
        asked.send(head + body)
        while True:
            data = asked.recv(1 << 18)
            while len(data) >= _HEAD.size:
                size, kind, _flags, _sequence, _port = _HEAD.unpack_from(data)
                message = data[_HEAD.size : size]
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    number = -struct.unpack_from("=i", message)[0]
                    raise OSError(number, os.strerror(number))
                yield _connection(message)
                data = data[(size + 3) & ~3 :]


def _connection(message: bytes) -> Connection:
    (port,) = struct.unpack_from(">H", message, _PORTS)
    rests = False
    at = _MESSAGE
    while at + 4 <= len(message):
        size, kind = struct.unpack_from("=HH", message, at)
        if kind == _INET_DIAG_INFO and size >= 4 + _SEGMENTS_SENT + 4:
            (sent,) = struct.unpack_from("=I", message, at + 4 + _LAST_SENT)
            (received,) = struct.unpack_from("=I", message, at + 4 + _LAST_RECEIVED)
            (segments,) = struct.unpack_from("=I", message, at + 4 + _SEGMENTS_SENT)
            # Before anything is sent, the time is that of the connection's beginning.
            rests = bool(segments) and sent <= received
        at += max((size + 3) & ~3, 4)
    # Ports and both addresses; what follows them is a cookie that no other connection ever has.
    return Connection(message[_PORTS : _ADDRESSES + 32 + 12], port, rests)
