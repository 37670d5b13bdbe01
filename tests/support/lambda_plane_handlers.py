"""Handlers of functions: each published version's runs in processes of its own."""

from __future__ import annotations

import io
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.lambda_plane_functions import revision

if TYPE_CHECKING:
    from moto.awslambda.models import LambdaFunction

WORKER = Path(__file__).with_name("lambda_plane_worker.py")
START_SECONDS = 60.0
IMAGES: dict[str, bytes] = {}
LOCK = threading.RLock()


class Worker:
    """A process that runs one version's handler."""

    def __init__(self, function: LambdaFunction) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="lambda-")
        package = IMAGES.get(function.code.get("ImageUri", ""))
        content = package if package is not None else function.code_bytes
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            archive.extractall(self._folder.name)
        self._timeout = float(function.timeout)
        environment = {
            **{name: os.environ[name] for name in ("PATH", "LC_ALL") if name in os.environ},
            "LAMBDA_TASK_ROOT": self._folder.name,
            "AWS_LAMBDA_FUNCTION_NAME": function.function_name,
            "AWS_LAMBDA_FUNCTION_VERSION": str(function.version),
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_size),
            "AWS_REGION": function.region,
            "AWS_DEFAULT_REGION": function.region,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_EC2_METADATA_DISABLED": "true",
            **function.environment_vars,
        }
        self._process = subprocess.Popen(
            [sys.executable, str(WORKER), function.handler or "app.handler"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True,
            cwd=self._folder.name,
        )  # fmt: skip
        self._used = False

    def ask(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Run the handler; ``{"payload"}`` or ``{"error"}``, which ends the worker if it died."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        limit = self._timeout if self._used else max(self._timeout, START_SECONDS)
        self._used = True
        try:
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
        except OSError:
            return self._died()
        ready, _, _ = select.select([self._process.stdout], [], [], limit)
        if not ready:
            self.end()
            message = f"{asked['request']} Task timed out after {self._timeout:.2f} seconds"
            return {"error": {"errorMessage": message, "errorType": "Sandbox.Timedout"}}
        line = self._process.stdout.readline()
        told: dict[str, Any] = json.loads(line) if line else self._died()
        return told

    def _died(self) -> dict[str, Any]:
        self.end()
        status = self._process.returncode
        message = f"Runtime exited with error: exit status {status}"
        return {"error": {"errorMessage": message, "errorType": "Runtime.ExitError"}}

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()


IDLE: dict[str, list[Worker]] = {}


def run_handler(function: LambdaFunction, asked: dict[str, Any]) -> dict[str, Any]:
    """Run the handler in a worker of its version that is free, or in a new one."""
    key = f"{function.function_arn} {revision(function)}"
    with LOCK:
        idle = IDLE.setdefault(key, [])
        worker = idle.pop() if idle else None
    if worker is None:
        worker = Worker(function)
    told = worker.ask(asked)
    if worker.lives:
        with LOCK:
            IDLE.setdefault(key, []).append(worker)
    return told


def end_workers() -> None:
    with LOCK:
        for workers in IDLE.values():
            for worker in workers:
                worker.end()
        IDLE.clear()
