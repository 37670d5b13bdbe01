# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Functions that check a deployment, asked as CodeDeploy asks them.

A hook is invoked with ``{"DeploymentId", "LifecycleEventHookExecutionId"}``. It answers by what it
returns (``{"status": "Succeeded"}`` or ``"Failed"``, or the word alone), or, as functions that were
written for CodeDeploy do, by ``PutLifecycleEventHookExecutionStatus``: for these an endpoint with
this one operation is open while the hook is awaited. Whoever calls it must know the execution id,
which only the function was told.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import secrets
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ...module_utils._errors import UsageError
from .._aws import client, reason
from ._service import region_of

SUCCEEDED, FAILED = "Succeeded", "Failed"
TARGET = "CodeDeploy_20141006.PutLifecycleEventHookExecutionStatus"
# CodeDeploy's limit of a hook, and Lambda's of an invocation.
LIMIT_SECONDS = 3600.0
_INVOCATION_SECONDS = 900.0
# An answer may still come after the function has returned; then this is how often it is looked for.
_LOOK_SECONDS = 0.2
_MOST_BYTES = 65536
_MOST_SHOWN = 300


@dataclass(frozen=True)
class Outcome:
    """How a hook ended; ``message`` says why it failed, in words."""

    status: str
    message: str
    started: float
    ended: float


class Answers:
    """What hooks have said through the endpoint, by execution id; safe between threads."""

    def __init__(self) -> None:
        """Expect nothing yet."""
        self._lock = threading.Condition()
        self._expected: dict[str, str] = {}
        self._said: dict[str, str] = {}

    def expect(self, deployment_id: str) -> str:
        """Return a new execution id that may be answered once."""
        execution = f"{uuid.uuid4()}-{secrets.token_hex(16)}"
        with self._lock:
            self._expected[execution] = deployment_id
        return execution

    def put(self, deployment_id: str, execution: str, status: str) -> str | None:
        """Take an answer; return the code of CodeDeploy's error if it cannot be taken."""
        with self._lock:
            if self._expected.get(execution) != deployment_id:
                return "InvalidLifecycleEventHookExecutionIdException"
            if status not in (SUCCEEDED, FAILED):
                return "InvalidLifecycleEventHookExecutionStatusException"
            if execution in self._said:
                return "LifecycleEventAlreadyCompletedException"
            self._said[execution] = status
            self._lock.notify_all()
        return None

    def wait(self, execution: str, seconds: float) -> str | None:
        """Return the answer, after at most so many seconds; None if there is none."""
        with self._lock:
            self._lock.wait_for(lambda: execution in self._said, timeout=max(0.0, seconds))
            return self._said.get(execution)


@contextlib.contextmanager
def endpoint(listen: str, answers: Answers) -> Iterator[str]:
    """Offer ``PutLifecycleEventHookExecutionStatus`` while the block runs.

    :param listen: ``ADDRESS:PORT``; port 0 takes a free one; empty offers nothing
    :returns: the address that functions call, empty if nothing is offered
    :raises UsageError: it cannot be listened to
    """
    if not listen:
        yield ""
        return
    host, _colon, port = listen.rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(
            f"deploy_lambda_hook_listen is {listen!r}; wanted is ADDRESS:PORT, as 0.0.0.0:8700."
        )
    try:
        server = _Server((host.strip("[]"), int(port)), answers)
    except OSError as error:
        raise UsageError(
            f"deploy_lambda_hook_listen is {listen}, and it cannot be listened to: "
            f"{error.strerror or error}. Choose another port, or end what uses it."
        ) from error
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def run_hook(
    function: str,
    deployment_id: str,
    answers: Answers,
    *,
    offered: bool,
    limit: float = LIMIT_SECONDS,
) -> Outcome:
    """Invoke a hook and return how it ended; it is not invoked twice.

    :param offered: whether the function can answer through the endpoint
    :param limit: seconds after which it has failed
    """
    started = time.time()
    deadline = time.monotonic() + limit
    execution = answers.expect(deployment_id)
    event = {"DeploymentId": deployment_id, "LifecycleEventHookExecutionId": execution}
    returned: list[tuple[Any, str]] = []
    thread = threading.Thread(target=lambda: returned.append(_invoke(function, event)), daemon=True)
    thread.start()
    while True:
        left = deadline - time.monotonic()
        said = answers.wait(execution, min(_LOOK_SECONDS, left))
        if said is None and returned:
            value, failure = returned[0]
            said = None if failure else status_of(value)
            if failure:
                return _ended(FAILED, f"{function} failed: {failure}", started)
            if said is None and not offered:
                return _ended(FAILED, _no_answer(function, value), started)
        if said is not None:
            message = "" if said == SUCCEEDED else f"{function} answered {said}."
            return _ended(said, message, started)
        if left <= 0:
            after = "returned, but did not answer" if returned else "did not answer"
            message = f"{function} {after} within {limit:g} s; a hook that says nothing has failed."
            return _ended(FAILED, message, started)


def status_of(value: Any) -> str | None:
    """Return the status that a hook's return value means; None if it means none."""
    if isinstance(value, Mapping):
        found = {str(key).lower(): one for key, one in value.items()}
        value = found.get("status", found.get("lifecycleeventhookexecutionstatus"))
    text = value.strip().lower() if isinstance(value, str) else ""
    return {"succeeded": SUCCEEDED, "failed": FAILED}.get(text)


def _invoke(function: str, event: dict[str, str]) -> tuple[Any, str]:
    """Return what the function returned, and how it failed, if it did."""
    from botocore.exceptions import BotoCoreError, ClientError

    # An invocation that is tried again would run the check twice.
    service = client(
        "lambda", region=region_of(function), attempts=1, read=_INVOCATION_SECONDS + 60
    )
    try:
        answer = service.invoke(
            FunctionName=function,
            InvocationType="RequestResponse",
            Payload=json.dumps(event).encode(),
        )
        text = answer["Payload"].read()
    except (BotoCoreError, ClientError) as error:
        return None, reason(error)
    try:
        value = json.loads(text or b"null")
    except ValueError:
        value = text.decode("utf-8", "replace")
    if answer.get("FunctionError"):
        told = value if isinstance(value, dict) else {}
        kind, message = told.get("errorType"), told.get("errorMessage")
        return None, _short(f"{kind}: {message}" if kind else str(value))
    return value, ""


def _no_answer(function: str, value: Any) -> str:
    return (
        f"{function} returned {_short(json.dumps(value))}, which is no answer. Let it return "
        '{"status": "Succeeded"}; or, if it calls PutLifecycleEventHookExecutionStatus, set '
        "deploy_lambda_hook_listen and let its AWS_ENDPOINT_URL_CODEDEPLOY lead there."
    )


def _short(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "…"


def _ended(status: str, message: str, started: float) -> Outcome:
    return Outcome(status, message, started, time.time())


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], answers: Answers) -> None:
        self.answers = answers
        super().__init__(address, _Handler)


class _Handler(http.server.BaseHTTPRequestHandler):
    """JSON 1.1 with one operation, as botocore speaks it."""

    server: _Server
    timeout = 30
    server_version = "Bascule"
    sys_version = ""

    def do_POST(self) -> None:
        """Take an answer."""
        try:
            size = int(self.headers.get("Content-Length") or 0)
        except ValueError:
            size = -1
        if not 0 <= size <= _MOST_BYTES:
            self.close_connection = True
            self._say(413, {"__type": "RequestEntityTooLarge", "message": "Too large."})
            return
        body = self.rfile.read(size)
        if self.headers.get("X-Amz-Target") != TARGET:
            self._say(400, {"__type": "UnknownOperationException", "message": f"Only {TARGET}."})
            return
        try:
            asked = json.loads(body or b"{}")
        except ValueError:
            asked = None
        if not isinstance(asked, dict):
            self._say(400, {"__type": "SerializationException", "message": "JSON is wanted."})
            return
        execution = str(asked.get("lifecycleEventHookExecutionId") or "")
        refused = self.server.answers.put(
            str(asked.get("deploymentId") or ""), execution, str(asked.get("status") or "")
        )
        if refused:
            self._say(400, {"__type": refused, "message": "The answer was not taken."})
        else:
            self._say(200, {"lifecycleEventHookExecutionId": execution})

    def log_message(self, *_given: Any) -> None:
        """Write nothing: who calls is no news, and the id is a secret while it is awaited."""

    def _say(self, status: int, told: dict[str, str]) -> None:
        content = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
