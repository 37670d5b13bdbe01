# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sources on the controller: a connection, a command, a person."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
from typing import TYPE_CHECKING, Any

from ...module_utils import _approval
from ...module_utils._gate_rules import FAILED, PENDING, SUCCESSFUL, judge_values
from ._http import seen_values
from ._model import Measurement, SourceError

if TYPE_CHECKING:
    from ...module_utils._gate_spec import Gate
    from ._model import Moment

_SAID = 300


def measure_tcp(gate: Gate, _moment: Moment) -> Measurement:
    """Connect."""
    try:
        address = (str(gate.options.get("host") or "127.0.0.1"), int(gate.options["port"]))
        with socket.create_connection(address, gate.timeout):
            return Measurement(SUCCESSFUL, "connected")
    except (OSError, ValueError) as error:
        return Measurement(FAILED, f"{type(error).__name__}: {error}")


def measure_command(gate: Gate, moment: Moment) -> Measurement:
    """Run a command on the controller: status 0 means yes, or its last line is the number.

    It gets ``BASCULE_DEPLOYMENT``, ``BASCULE_STEP``, ``BASCULE_APPLICATION`` and
    ``BASCULE_GROUP``, with canaries among the targets ``BASCULE_CANARY_TARGETS`` and
    ``BASCULE_BASELINE_TARGETS`` (names, with commas between); its whole process group is ended
    when its time is up.
    """
    status, said = _run_command(gate.options["command"], gate, moment)
    lines = said.strip().splitlines()
    last = lines[-1][:_SAID] if lines else ""
    data: dict[str, Any] = {"status": status}
    if gate.success is None and gate.failure is None:
        seen = f"status {status}" + (f", last line {last!r}" if last else "")
        return Measurement(SUCCESSFUL if status == 0 else FAILED, seen, {**data, "said": last})
    if status != 0:
        raise SourceError(f"the command ended with status {status}, last line {last!r}")
    try:
        values = [float(last)] if last else []
    except ValueError:
        raise SourceError(f"the command's last line is no number: {last!r}") from None
    phase = judge_values(values, gate.success, gate.failure)
    return Measurement(phase, seen_values(values, gate), {**data, "values": values})


def output_of(command: Any, gate: Gate, moment: Moment) -> str:
    """Return what a command prints; raises SourceError unless it ends with status 0."""
    status, said = _run_command(command, gate, moment)
    if status != 0:
        raise SourceError(f"the command ended with status {status}: {said.strip()[-_SAID:]!r}")
    return said


def _run_command(command: Any, gate: Gate, moment: Moment) -> tuple[int, str]:
    """Run a command with what it is told of the deployment."""
    words = (
        ["/bin/sh", "-c", command] if isinstance(command, str) else [str(one) for one in command]
    )
    about = moment.deployment
    environment = {
        **os.environ,
        **{str(key): str(value) for key, value in gate.options.get("environment", {}).items()},
        "BASCULE_DEPLOYMENT": str(about.get("id") or ""),
        "BASCULE_APPLICATION": str(about.get("application") or ""),
        "BASCULE_GROUP": str(about.get("group") or ""),
        "BASCULE_STEP": moment.step,
        **{
            f"BASCULE_{arm.upper()}_TARGETS": ",".join(
                str(one.get("target") or one["name"]) for one in targets
            )
            for arm, targets in moment.pools.arms.items()
        },
    }
    return _run(words, environment, gate.timeout)


def _run(words: list[str], environment: dict[str, str], timeout: float) -> tuple[int, str]:
    """Run a command with its own process group; returns its status and what it said.

    :raises SourceError: it cannot be run, or does not end in time
    """
    try:
        process = subprocess.Popen(  # noqa: S603 - the user's own command, that is what it is for
            words,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise SourceError(f"{shlex.quote(words[0])}: {error.strerror}") from error
    try:
        said, _nothing = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        raise SourceError(f"the command did not end within {timeout:g} s") from None
    finally:
        _end_group(process)
    return process.returncode, said.decode("utf-8", "replace")


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout:
        process.stdout.close()


def measure_approval(gate: Gate, moment: Moment) -> Measurement:
    """Ask a person; ``timeout`` is how long they have, ``on_timeout`` what follows then."""
    on_timeout = str(gate.options.get("on_timeout") or _approval.STOP)
    name = moment.step if gate.name == gate.type else f"{moment.step}, {gate.name}"
    identifier = str(moment.deployment["id"])
    asked = moment.record.ask_person(identifier, name, gate.timeout)
    data: dict[str, Any] = {"number": asked.number, "status": asked.status}
    if asked.status == _approval.APPROVED:
        by = f"{asked.decided_by}@{asked.decided_from}"
        data |= {"by": by, "why": asked.why}
        return Measurement(SUCCESSFUL, f"approved by {by}", data)
    if asked.status == _approval.TIMED_OUT and on_timeout == _approval.CONTINUE:
        return Measurement(SUCCESSFUL, "nobody answered in time, goes on", data)
    if asked.status != _approval.WAITING:
        return Measurement(FAILED, asked.status, data)
    if asked.until is not None and moment.now >= asked.until:
        moment.record.time_out_approval(identifier, on_timeout)
        data["status"] = _approval.TIMED_OUT
        if on_timeout == _approval.CONTINUE:
            return Measurement(SUCCESSFUL, "nobody answered in time, goes on", data)
        return Measurement(FAILED, "nobody answered in time", data)
    return Measurement(PENDING, "nobody has answered yet", data)
