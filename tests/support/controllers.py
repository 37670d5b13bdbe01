"""Controllers as processes of their own: they hold deployments, compete for a group, and die.

As a program: ``python -m support.controllers hold URL`` opens a deployment of the targets a and b,
prints its id and holds it until its standard input ends; ``fork URL`` does so with a worker that
was forked as Ansible forks its own (see ``fork``); ``race URL BUNDLE CACHE ROUNDS`` lets two
controllers open a deployment of one group at the same moment, again and again; ``take URL ID``
takes a deployment over.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible_collections.bascule.deploy.plugins.module_utils._errors import (
    BasculeError,
    LeaseHeldError,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._opening import open_deployment
from ansible_collections.bascule.deploy.plugins.plugin_utils._planning import Endpoint
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import (
    ActiveDeploymentError,
    Record,
    warm,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._settings import public_variables
from support.records import create, in_processes

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(__file__).resolve().parents[1]


def program(*arguments: object) -> subprocess.Popen[str]:
    """Start this file as a program."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "support.controllers", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextlib.contextmanager
def holding(url: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a controller that holds a deployment; gives the process and the deployment's id."""
    with program("hold", url) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def hold(url: str) -> None:
    print(create(Record.open(url), ["a", "b"]).id, flush=True)
    sys.stdin.read()


def take(url: str, deployment_id: str) -> None:
    """Take a deployment over, print the fence or the refusal, and live on."""
    try:
        print(Record.open(url).take_over(deployment_id).fence, flush=True)
    except LeaseHeldError as error:
        print(error, flush=True)
    sys.stdin.read()


def fork(url: str) -> None:
    """Open a deployment; a forked worker then does what it is told on its standard input.

    Prints the id and the worker's process number, and after each word one line: what the record
    said. The words are ``admit``, ``settle``, ``events`` and ``beat``; the worker outlives us.
    """
    deployment = create(Record.open(url), ["a", "b"])
    record = Record.open(url, fence=deployment.fence)
    record.admit(deployment.id, "a")
    orders = os.dup(0)
    worker = multiprocessing.get_context("fork").Process(
        target=_work, args=(record, deployment.id, orders)
    )
    worker.start()
    print(deployment.id, worker.pid, flush=True)
    worker.join()


def _work(record: Record, deployment_id: str, orders: int) -> None:
    done: dict[str, Any] = {
        "admit": lambda: record.admit(deployment_id, "b").verdict,
        "settle": lambda: record.settle(deployment_id, "a", "Succeeded"),
        "events": lambda: record.set_in_service(deployment_id, "a", in_service=False),
        "beat": lambda: record.beat(deployment_id),
    }
    with open(orders, encoding="utf-8") as lines:
        for line in lines:
            try:
                said = str(done[line.strip()]())
            except BasculeError as error:
                said = f"{type(error).__name__}: {error}"
            os.write(1, f"{said}\n".encode())


def race(url: str, bundle: str, cache: str, rounds: int) -> None:
    """Let two processes open a deployment of one group at the same moment, again and again.

    Prints one JSON line an attempt: {"round", "pid", "id"} for the winner, {"round", "pid",
    "refused"} else.
    """
    warm(url)
    record = Record.open(url)
    settings = {name: spec.get("default") for name, spec in public_variables().items()}
    settings |= {"deploy_application": "shop", "deploy_group": "web", "deploy_revision": bundle}
    endpoints = [Endpoint(name, name, "10.0.0.1", 80, "") for name in ("a", "b")]
    barrier = _Barrier(2)

    def work(index: int) -> None:
        for number in range(rounds):
            barrier.wait(index)
            told: dict[str, Any] = {"round": number, "pid": os.getpid()}
            try:
                opened = open_deployment(
                    "rolling", settings, endpoints, record=record, cache=Path(cache),
                    base=Path.cwd(), check=False,
                )  # fmt: skip
                told["id"] = opened.deployment["id"]
            except ActiveDeploymentError as error:
                told["refused"] = str(error)
            os.write(1, (json.dumps(told) + "\n").encode())
            barrier.wait(index)
            if "id" in told:
                record.abandon(told["id"])

    if any(in_processes(work, 2)):
        sys.exit(1)


class _Barrier:
    """Where forked processes meet: each tells all others, and waits to hear from each."""

    def __init__(self, number: int) -> None:
        self.pipes = [os.pipe() for _ in range(number)]

    def wait(self, index: int) -> None:
        others = len(self.pipes) - 1
        for place, (_reader, writer) in enumerate(self.pipes):
            if place != index:
                os.write(writer, b".")
        heard = 0
        while heard < others:
            heard += len(os.read(self.pipes[index][0], others - heard))


if __name__ == "__main__":
    command, record_url, *rest = sys.argv[1:]
    if command == "race":
        race(record_url, rest[0], rest[1], int(rest[2]))
    elif command == "take":
        take(record_url, rest[0])
    else:
        {"hold": hold, "fork": fork}[command](record_url)
