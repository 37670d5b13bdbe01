# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One process that asks a database server for all the workers of a controller.

Ansible forks a worker for each task of each target. If each of them logs in to the server, that
takes it longer than its question: a new session of PostgreSQL and what it has to load cost some
20 ms of CPU, and an admission 3. So the controller of a deployment has a clerk, which keeps a few
sessions open. Nothing depends on it: a worker that does not find it asks the server itself.

It listens at an abstract Unix socket (Linux) whose name follows from the controller's process and
the record's address, talks to processes of the same user only, and ends with its controller.
One line of JSON is a question, and answers are lines, too: any number of notices, then the answer.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...module_utils._errors import BasculeError
from . import _holder
from ._notice import listen

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._location import Location

# What a worker may ask of a clerk: each may be asked again if the answer is lost.
METHODS = frozenset(
    {
        "add_events", "admit", "beat", "deployment", "has_bundle", "lose_absent", "note_current",
        "note_staged", "set_in_service", "settle", "targets",
    }
)  # fmt: skip
# How many questions are before the server at a time; those about one deployment take turns anyway.
SESSIONS = 4
_LOOK_SECONDS = 1.0
_MODULE = "ansible_collections.bascule.deploy.plugins.plugin_utils._record._clerk"
_PEER = struct.Struct("3i")


def address_of(location: Location, controller: _holder.Holder) -> str | None:
    """Return where the clerk of a controller listens; None where there can be none."""
    if location.path is not None or not sys.platform.startswith("linux"):
        return None
    about = [location.url, controller.boot, controller.pid, controller.started, os.getuid()]
    return "\0bascule-clerk-" + hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]


def is_ours(line: socket.socket) -> bool:
    """Tell whether the process at the other end belongs to the user of this one."""
    packed = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    return bool(_PEER.unpack(packed)[1] == os.getuid())


def employ(location: Location) -> None:
    """Start the clerk of this process's controller; returns when it can be asked.

    Where it cannot be started workers go without; it is started once for a controller.
    """
    controller = _holder.this_controller()
    if address_of(location, controller) is None:
        return
    given = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([*_collections(), *([given] if given else [])])
    orders = {"url": location.url, "controller": dataclasses.asdict(controller)}
    with contextlib.suppress(OSError):
        # In a session of its own: after Ctrl-C targets in flight are still to be written down.
        process = subprocess.Popen(  # noqa: S603 - this interpreter, our own module
            [sys.executable, "-c", f"import {_MODULE} as clerk; clerk.main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        if process.stdin is not None and process.stdout is not None:
            with process.stdin as told, process.stdout as said:
                # By the pipe, because the URL may hold a password.
                told.write(json.dumps(orders).encode() + b"\n")
                told.flush()
                said.readline()
        # It outlives this worker; its own parent is nobody's business then.
        process.returncode = 0


def main() -> None:
    """Serve the controller that the first line of standard input names, as long as it lives."""
    from ._location import locate
    from ._server import keep_sessions

    orders = json.loads(sys.stdin.readline())
    controller = _holder.Holder(**orders["controller"])
    location = locate(orders["url"])
    address = address_of(location, controller)
    _holder.work_for(controller)
    keep_sessions(SESSIONS)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        try:
            door.bind(address or "")
        except OSError:
            return  # the controller has one already
        door.listen(128)
        door.settimeout(_LOOK_SECONDS)
        sys.stdout.write("ready\n")
        sys.stdout.close()
        _serve(door, location.url)


def _serve(door: socket.socket, url: str) -> None:
    clerk = Clerk(url)
    listen(clerk.notice)
    while not _holder.is_orphaned():
        with contextlib.suppress(TimeoutError):
            line, _name = door.accept()
            line.settimeout(None)
            threading.Thread(target=clerk.serve, args=(line,), daemon=True).start()


class Clerk:
    """Answers questions, each line's in a thread of its own."""

    def __init__(self, url: str) -> None:
        """Take the record's address."""
        self._url = url
        self._sessions = threading.Semaphore(SESSIONS)
        self._here = threading.local()

    def notice(self, text: str) -> None:
        """Pass on what a person should hear to who has asked."""
        say: Callable[[dict[str, Any]], None] | None = getattr(self._here, "say", None)
        if say is not None:
            say({"notice": text})

    def serve(self, line: socket.socket) -> None:
        """Answer all that one worker asks."""
        # The worker may end at any time.
        with line, contextlib.suppress(OSError, ValueError), line.makefile("rwb") as stream:
            if not is_ours(line):
                return

            def say(told: dict[str, Any]) -> None:
                stream.write(json.dumps(told).encode() + b"\n")
                stream.flush()

            self._here.say = say
            for asked in stream:
                say(self.answer(json.loads(asked)))

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Do what a question wants; what goes wrong is told as data."""
        from ._store import Record

        if asked["method"] not in METHODS:
            return {"unknown": asked["method"]}
        try:
            with self._sessions:
                record = Record.open(self._url, fence=asked["fence"], patience=asked["patience"])
                done = getattr(record, asked["method"])(*asked["given"], **asked["named"])
        except BasculeError as error:
            unsure = getattr(error, "unsure", None)
            return {"error": type(error).__name__, "message": str(error), "unsure": unsure}
        return {"answer": _plain(done)}


def _plain(answer: Any) -> Any:
    if isinstance(answer, list):
        return [_plain(one) for one in answer]
    if dataclasses.is_dataclass(answer) and not isinstance(answer, type):
        return dataclasses.asdict(answer)
    return answer


def _collections() -> list[str]:
    """Return where this collection is found, by Ansible or by Python alone."""
    folders = [Path(folder) for folder in sys.modules["ansible_collections"].__path__]
    return [str(folder.parent) for folder in folders if (folder / "bascule" / "deploy").is_dir()]
