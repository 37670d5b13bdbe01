"""Ports for the servers of tests, which nobody else takes before they listen.

They lie below the range from which the kernel takes the ports of outgoing connections, and those of
whoever binds to port 0 (ip_local_port_range, ip(7)): a server that is away for a while finds its
own free again. Each is locked as long as the process lives that was given it, so tests that run
beside each other never have the same.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

LOWEST, HIGHEST = 15_000, 60_999
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_random = random.SystemRandom()
_given: set[int] = set()
_locks: list[int] = []


def free_port(address: str = "127.0.0.1") -> int:
    """Return a port of an address on which nobody listens, and which no other test is given."""
    highest = int(_RANGE.read_text().split()[0]) - 1
    if highest < LOWEST + 1000:
        # The kernel takes nearly all of them: then the lock alone keeps tests apart.
        highest = HIGHEST
    for _attempt in range(1000):
        port = _random.randint(LOWEST, highest)
        if port not in _given and _lock(port) and _is_free(address, port):
            _given.add(port)
            return port
    raise RuntimeError(f"no port from {LOWEST} to {highest} of {address} is free")


def _lock(port: int) -> bool:
    """Lock the byte of a port in a file that all tests of this user share."""
    if not _locks:
        path = Path(tempfile.gettempdir()) / f"bascule-test-ports-{os.getuid()}"
        _locks.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    try:
        fcntl.lockf(_locks[0], fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


def _is_free(address: str, port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
