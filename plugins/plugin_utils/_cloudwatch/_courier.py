# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The side of ansible-playbook: hands lines over without ever waiting, and asks at the end."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# What waits here while the sender does not read; more is lost and counted.
MOST_BYTES = 64 * 1024 * 1024
# How much longer than its own patience the sender may take to answer.
ANSWER_SECONDS = 5.0
_MODULE = "ansible_collections.bascule.deploy.plugins.plugin_utils._cloudwatch._process"


class Courier:
    """A sender's process and the pipe to it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """Start the sender; see ``_process.Shipper`` for the settings."""
        self._patience = float(settings["patience"])
        self._owner = os.getpid()
        self._waiting = bytearray()
        self._told = 0
        self._refused = 0
        self._broken = False
        given = os.environ.get("PYTHONPATH")
        path = os.pathsep.join([*_collections(), *([given] if given else [])])
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed at the end
        # In a session of its own: Ctrl-C ends the deployment, and its log is to say so.
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter, our own module
            [sys.executable, "-c", f"import {_MODULE} as sender; sender.main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        os.set_blocking(self._pipe, False)
        self._hand(settings)

    @property
    def _pipe(self) -> int:
        stream = self._process.stdin
        if stream is None:
            raise RuntimeError("the sender has no standard input")
        return stream.fileno()

    def line(self, at: int, message: str) -> None:
        """Hand a line over, or keep it until the sender reads on."""
        self._told += 1
        if self._broken or len(self._waiting) > MOST_BYTES:
            self._refused += 1
            return
        self._hand({"at": at, "message": message})

    def metric(self, metric: dict[str, Any]) -> None:
        """Hand a metric over."""
        if not self._broken:
            self._hand({"metric": metric})

    def end(self) -> tuple[int, int, str]:
        """Wait for the rest to be sent, for a limited time; return sent, lost and why.

        Only the process that began may end; a forked one gives zeros.
        """
        if os.getpid() != self._owner:
            return 0, 0, ""
        deadline = time.monotonic() + self._patience
        self._hand({"end": True})
        while self._waiting and not self._broken and time.monotonic() < deadline:
            select.select([], [self._pipe], [], 0.2)
            self._flush()
        return self._answer(deadline + ANSWER_SECONDS)

    def _answer(self, deadline: float) -> tuple[int, int, str]:
        stream = self._process.stdout
        report: dict[str, Any] = {}
        if stream is not None and not self._waiting:
            ready, _out, _bad = select.select(
                [stream], [], [], max(0.1, deadline - time.monotonic())
            )
            with contextlib.suppress(ValueError):
                report = json.loads(stream.read()) if ready else {}
        self._process.kill()
        self._process.wait()
        if stream is not None:
            stream.close()
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        complaint = self._complaint()
        if not report:
            return 0, self._told, complaint or "the sender did not answer in time"
        return int(report["sent"]), int(report["lost"]) + self._refused, str(report["why"])

    def _complaint(self) -> str:
        """Return the last line that the sender wrote to its standard error."""
        self._complaints.seek(0)
        lines = self._complaints.read().decode("utf-8", "replace").split("\n")
        self._complaints.close()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def _hand(self, told: dict[str, Any]) -> None:
        self._waiting += json.dumps(told).encode() + b"\n"
        self._flush()

    def _flush(self) -> None:
        try:
            while self._waiting:
                written = os.write(self._pipe, self._waiting[:65536])
                del self._waiting[:written]
        except BlockingIOError:
            return
        except OSError:
            self._broken = True
            self._waiting.clear()


def _collections() -> list[str]:
    """Return where this collection is found, by Ansible or by Python alone."""
    folders = [Path(folder) for folder in sys.modules["ansible_collections"].__path__]
    return [str(folder.parent) for folder in folders if (folder / "bascule" / "deploy").is_dir()]
