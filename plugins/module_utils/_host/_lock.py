# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run at a time for a deployment group on a host."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from typing import TYPE_CHECKING

from .._errors import HostError

if TYPE_CHECKING:
    from types import TracebackType


class GroupLock:
    """An exclusive lock that the kernel lets go when its holder ends, however it ends."""

    def __init__(self, path: str, holder: str, patience: float = 10.0) -> None:
        """Name the lock file, who asks, and how many seconds to wait for another holder.

        A holder of the same name is waited for until it ends: it is an earlier call of the same
        deployment, whose connection was lost, and its scripts have their own deadlines.
        """
        self._path = path
        self._holder = holder
        self._patience = patience
        self._descriptor = -1
        self.waited = False

    def __enter__(self) -> None:
        """Take the lock.

        :raises HostError: naming the holder, if it is still held after the patience
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(self._path, flags, 0o600)
        deadline = time.monotonic() + self._patience
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
            holder = os.pread(self._descriptor, 400, 0).decode("utf-8", "replace").strip()
            if holder.startswith(f"{self._holder},"):
                self.waited = True
            elif time.monotonic() >= deadline:
                os.close(self._descriptor)
                raise HostError(
                    f"Another run holds this deployment group on the host: {holder}. Waited"
                    f" {self._patience:g} s for it. Wait until it ends, or end that process, and"
                    " run this again."
                )
            time.sleep(0.1)
        text = f"{self._holder}, process {os.getpid()}, since {time.strftime('%F %T')}\n"
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, text.encode("utf-8", "replace"), 0)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let the lock go; the file stays, so that two runs never lock two different files."""
        os.close(self._descriptor)
