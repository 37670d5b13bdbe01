# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A deployment's journal on its host: one JSON line a fact, so that a repeated call continues."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

from ._events import START_OLD

if TYPE_CHECKING:
    from collections.abc import Callable

# What an event must have come to so that a repeated call passes it over.
DONE = ("Succeeded", "Skipped")


class Journal:
    """The facts of one deployment. A line that a crash cut short never happened."""

    def __init__(self, path: str) -> None:
        """Read the journal at a path; a missing one is empty."""
        self.path = path
        self._descriptor = -1
        self._end = 0
        self.lines: list[dict[str, Any]] = []
        try:
            with open(path, "rb") as file:
                content = file.read()
        except FileNotFoundError:
            return
        for line in content.split(b"\n")[:-1]:
            try:
                entry = json.loads(line)
            except ValueError:
                break
            if not isinstance(entry, dict):
                break
            self.lines.append(entry)
            self._end += len(line) + 1

    def append(self, entry: dict[str, Any], *, sync: bool = True) -> None:
        """Add a fact. With ``sync`` it, and every fact before it, outlives a power cut."""
        if self._descriptor < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(self.path, flags, 0o600)
            os.ftruncate(self._descriptor, self._end)
            os.lseek(self._descriptor, self._end, os.SEEK_SET)
        entry = dict(entry, at=round(time.time(), 3))
        data = (json.dumps(entry, separators=(",", ":")) + "\n").encode("ascii")
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
            if sync:
                os.fsync(self._descriptor)
        except OSError:
            # Nothing may be glued to a fact that a full disk cut short.
            os.ftruncate(self._descriptor, self._end)
            os.lseek(self._descriptor, self._end, os.SEEK_SET)
            raise
        self._end += len(data)
        self.lines.append(entry)

    def close(self) -> None:
        """Make everything durable and let go of the file."""
        if self._descriptor >= 0:
            os.fsync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def finished(self, event: str, calls: frozenset[str] = frozenset()) -> dict[str, Any] | None:
        """Return the result of an event that need not run again.

        Once the old version was started again, everything has to, ApplicationStop first.

        :param calls: names of calls whose failures count, too; whoever asks has not seen them yet
        """
        for line in reversed(self.lines):
            if _starts_old(line) and line.get("call") not in calls:
                return None
            if line.get("event") == event:
                result = line.get("result")
                if result and (
                    result["status"] in DONE or line.get("forgiven") or line.get("call") in calls
                ):
                    return dict(result)
                return None
        return None

    def results(self) -> list[dict[str, Any]]:
        """Return the newest result of each event, in the order in which they came to their end."""
        newest: dict[str, dict[str, Any]] = {}
        for line in self.lines:
            if line.get("event") and line.get("result"):
                newest.pop(line["event"], None)
                newest[line["event"]] = dict(line["result"])
        return list(newest.values())

    def attempts(self, event: str) -> int:
        """Count how often an event's scripts were begun."""
        return sum("started" in line for line in self.lines if line.get("event") == event)

    def has(self, calls: frozenset[str]) -> bool:
        """Tell whether one of the named calls brought an event to its end."""
        return any(line.get("call") in calls for line in self.lines)

    @property
    def last_call(self) -> str:
        """The name of the call that brought the newest event to its end; empty for none."""
        for line in reversed(self.lines):
            if "result" in line:
                return str(line.get("call") or "")
        return ""

    def unfinished(
        self, event: str, birth: Callable[[int], int | None], boot: str | None
    ) -> list[int]:
        """Return the scripts of an event that still run, left by a call that was killed.

        :param birth: tells when the process of a number began; none that began later is meant
        :param boot: which start of the host this is; the numbers of another mean nothing now
        """
        left = []
        for line in reversed(self.lines):
            if line.get("event") != event:
                continue
            if "process" not in line:
                break
            known = line["birth"] is not None and line.get("boot") == boot
            if known and birth(line["process"]) == line["birth"]:
                left.append(int(line["process"]))
        return left

    @property
    def ended(self) -> bool:
        """Whether the deployment came to its End on this host."""
        return any(line.get("end") for line in self.lines)

    @property
    def digest(self) -> str | None:
        """The digest of the revision that was staged for this deployment."""
        for line in self.lines:
            if "staged" in line:
                return str(line["staged"])
        return None

    @property
    def previous(self) -> str | None:
        """The digest of the revision that was installed when this one was staged."""
        for line in self.lines:
            if "staged" in line:
                return line.get("previous")
        return None

    def after_failure(self, event: str) -> dict[str, Any] | None:
        """Return what came of an event's scripts for failures since the newest failure."""
        for line in reversed(self.lines):
            if line.get("event") == event and "after_failure" in line:
                return dict(line["after_failure"])
            failed = "result" in line and line["result"]["status"] == "Failed"
            if failed and line["event"] != START_OLD:
                return None
        return None

    @property
    def stopped(self) -> str | None:
        """The folder of the old deployment whose ApplicationStop has run, and which stands still.

        None if it was none but this deployment's own, or if it was started again.
        """
        for line in reversed(self.lines):
            if line.get("event") == START_OLD and "result" in line:
                return None
            if line.get("event") == "ApplicationStop" and "of" in line:
                return str(line["of"])
        return None

    @property
    def touched(self) -> bool:
        """Whether Install began to change what was installed before."""
        return any(line.get("touched") for line in self.lines)

    @property
    def release(self) -> dict[str, str] | None:
        """The release that this deployment makes or goes back to: name, path, link, shared."""
        for line in reversed(self.lines):
            if "release" in line:
                return dict(line["release"])
        return None

    @property
    def begun(self) -> bool:
        """Whether any event was begun."""
        return any("event" in line for line in self.lines)


def _starts_old(line: dict[str, Any]) -> bool:
    """Tell whether a line says that the old version's start begins or has ended."""
    return line.get("event") == START_OLD and ("started" in line or "result" in line)
