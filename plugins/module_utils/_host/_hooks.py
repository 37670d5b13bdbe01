# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the scripts of a lifecycle event (hook_executor.rb, linux_util.rb; agent 1.8.1)."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._scriptlog import ScriptLog

_RUN_BITS = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH
MISSING, NOT_EXECUTABLE, TIMED_OUT, FAILED, LEFT_OPEN = 1, 2, 3, 4, 6


class Outcome(NamedTuple):
    """The agent's number (0 for success), the script that failed, and what to say about it."""

    number: int
    script: str
    message: str


SUCCESS = Outcome(0, "", "Succeeded")


def run_event(
    event: str,
    scripts: list[dict[str, Any]],
    archive: str,
    environment: dict[str, str],
    log: ScriptLog,
    started: Callable[[int], None],
    *,
    failed: str = "",
) -> Outcome:
    """Run scripts in their order until the first fails, then those that run after a failure.

    :param started: is told the process number of every script
    :param failed: an earlier event that failed: only what runs after a failure is run
    :returns: the first failure of these scripts, or success
    """
    log.begin()
    log.add(b"LifecycleEvent - " + os.fsencode(event) + b"\n")
    result = SUCCESS
    for script in scripts:
        when = script.get("run_on", "success")
        if when == ("success" if failed else "failure"):
            continue
        if failed:
            environment = dict(environment, FAILED_EVENT=failed)
        outcome = _run_script(script, archive, environment, log, started)
        if outcome.number:
            failed = failed or event
            result = result if result.number else outcome
    return result


def _run_script(
    script: dict[str, Any],
    archive: str,
    environment: dict[str, str],
    log: ScriptLog,
    started: Callable[[int], None],
) -> Outcome:
    outcome = SUCCESS
    for attempt in range(script.get("retries", 0) + 1):
        note = f" (retry {attempt})" if attempt else ""
        outcome = _attempt(script, archive, environment, log, started, note)
        if outcome.number in (0, MISSING, NOT_EXECUTABLE):
            break
    return outcome


def _attempt(
    script: dict[str, Any],
    archive: str,
    environment: dict[str, str],
    log: ScriptLog,
    started: Callable[[int], None],
    note: str,
) -> Outcome:
    from . import _process

    location = script["location"]
    path = archive + ("" if location.startswith("/") else "/") + location
    # A directory is something to run, too, as far as the agent looks; then it cannot be started.
    if not os.path.exists(path):
        place = os.path.normpath(path)
        return Outcome(MISSING, location, f"Script does not exist at specified location: {place}")
    if not _make_executable(path):
        return Outcome(
            NOT_EXECUTABLE,
            location,
            f"Unable to set script at specified location: {location} as executable",
        )
    log.add(os.fsencode(f"Script - {location}{note}\n"))
    timeout = script["timeout"]
    as_user = f" run as user {script['runas']}" if script["runas"] else ""
    where = f"Script at specified location: {location}"
    try:
        ending = _process.run(
            command(script, path, _my_name()),
            dict(environment, **script.get("environment", {})),
            timeout,
            log.add,
            started,
        )
    except OSError as error:
        kind = "Errno::" + (_errno_name(error) or "EIO")
        return Outcome(
            FAILED,
            location,
            f"{where}{as_user} failed with error {kind} with message {error.strerror}"
            f" - {error.filename or path}",
        )
    if ending.how == "timeout":
        return Outcome(TIMED_OUT, location, f"{where} failed to complete in {timeout} seconds")
    if ending.how == "open":
        return Outcome(
            LEFT_OPEN,
            location,
            f"{where} failed to close {ending.stream}: a program that it left running still has it"
            f" after {timeout} seconds. Start that program with >/dev/null 2>&1 </dev/null &",
        )
    if ending.how == "signal":
        return Outcome(FAILED, location, f"{where}{as_user} was ended by signal {ending.number}")
    if ending.number:
        return Outcome(FAILED, location, f"{where}{as_user} failed with exit code {ending.number}")
    return SUCCESS


def command(script: dict[str, Any], path: str, me: str) -> list[str]:
    """Return the command of a script: the agent's, as a list, so that names may hold anything.

    Root needs no sudo: ``sudo`` would only drop the variables.
    """
    arguments = [path, *script.get("arguments", ())]
    user = script["runas"]
    if user and user != me:
        import shlex

        arguments = ["su", user, "-c", " ".join(shlex.quote(part) for part in arguments)]
    if script["sudo"] and os.geteuid() != 0:
        arguments = ["sudo", "-n", *arguments]
    return arguments


def _my_name() -> str:
    """Return the name of the user this runs as; root goes through su, even to itself."""
    if os.geteuid() == 0:
        return ""
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return ""


def _make_executable(path: str) -> bool:
    mode = os.stat(path).st_mode
    # For root any run bit will do; another user is asked about its own.
    if mode & 0o111 if os.geteuid() == 0 else os.access(path, os.X_OK):
        return True
    try:
        os.chmod(path, stat.S_IMODE(mode) | _RUN_BITS)
    except OSError:
        return False
    return True


def _errno_name(error: OSError) -> str | None:
    import errno

    return errno.errorcode.get(error.errno or 0)
