# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The logs of hook scripts, in the agent's places and format (hook_executor.rb, log.rb)."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

TAIL = 2048
ROTATE_BYTES = 64 * 1024 * 1024
ROTATE_KEEP = 8
# A program that never ends its line must not fill the memory.
MAX_LINE = 65_536
# A shorter value, such as 1 or prod, is no secret and would be struck out of every line.
SECRET_LENGTH = 6
MASK = b"********"
# What Ruby's strip takes: the agent strips the entries of the host's log, and only those.
_BLANKS = b"\0\t\n\v\f\r "


class ScriptLog:
    """Writes a deployment's ``scripts.log`` and the host's log of all deployments.

    The files are opened with the first entry, so that an event without scripts leaves none.
    """

    def __init__(
        self, path: str, shared: str, deployment_id: str, secrets: Iterable[object] = ()
    ) -> None:
        """Name the two files, the deployment the lines are of, and what no line may hold."""
        self._secrets = _masked(secrets)
        self._path = path
        self._shared = shared
        self._prefix = f"[{deployment_id}]".encode("utf-8", "surrogateescape")
        self._files: tuple[int, int] | None = None
        self._entries: list[bytes] = []
        self._size = 0

    def begin(self) -> None:
        """Forget the tail: it is kept for one event."""
        self._entries = []
        self._size = 0

    def add(self, entry: bytes) -> None:
        """Write one entry, a line with its end.

        The last line of a script may have none: as with the agent, the next entry of scripts.log
        follows on the same line. In the log of the host every entry has a line of its own.
        """
        for secret in self._secrets:
            entry = entry.replace(secret, MASK)
        # A script that works must not be ended because its words have no room on a full disk; the
        # last of them still go to the controller.
        with contextlib.suppress(OSError):
            self._write(entry)
        self._entries.append(entry[-TAIL:])
        self._size += len(self._entries[-1])
        while self._size >= TAIL and len(self._entries) > 1:
            self._size -= len(self._entries.pop(0))

    def _write(self, entry: bytes) -> None:
        if self._files is None:
            self._files = (self._open(self._path), self._open_shared())
        now = time.time()
        second = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now)).encode()
        milli = b".%03d" % int(now % 1 * 1000)
        _write(self._files[0], second + b" " + entry)
        stripped = entry.strip(_BLANKS) + b"\n"
        _write(self._files[1], b"[" + second + milli + b"] " + self._prefix + stripped)

    def tail(self) -> str:
        """Return the last entries of the event, less than 2 KB; of a longer one, its end."""
        return b"".join(self._entries).decode("utf-8", "replace")

    def close(self) -> None:
        """Close both files."""
        if self._files is not None:
            for descriptor in self._files:
                os.close(descriptor)
            self._files = None

    @staticmethod
    def _open(path: str) -> int:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(path, flags, 0o644)

    def _open_shared(self) -> int:
        try:
            if os.stat(self._shared).st_size > ROTATE_BYTES:
                for number in range(ROTATE_KEEP - 2, -1, -1):
                    older = f"{self._shared}.{number}" if number else self._shared
                    if os.path.exists(older):
                        os.replace(older, f"{self._shared}.{number + 1}")
        except FileNotFoundError:
            pass
        return self._open(self._shared)


def _masked(secrets: Iterable[object]) -> list[bytes]:
    """Return the lines of the secrets, the longest first: one may be a part of another."""
    lines = {
        os.fsencode(line.strip())
        for secret in secrets
        if secret is not None
        for line in str(secret).splitlines()
    }
    return sorted((line for line in lines if len(line) >= SECRET_LENGTH), key=len, reverse=True)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
