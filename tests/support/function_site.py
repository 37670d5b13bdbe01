"""A deployment group of Lambda functions: the service, its users, and a controller."""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

from support import lambda_plane
from support.lambda_plane import LambdaPlane, package
from support.rollout import BIN, ROOT, Controller

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

# How long anything may take on a machine that does much else.
DEADLINE = 300.0


RETURNS = """
import os

def handler(event, context):
    assert sorted(event) == ["DeploymentId", "LifecycleEventHookExecutionId"], event
    return {"status": os.environ["STATUS"]}
"""
# One that neither answers nor calls anybody.
SILENT = "def handler(event, context): return 'done'\n"


def shares(plane: LambdaPlane, function: str) -> list[tuple[float, dict[str, float]]]:
    """Return when the function's alias was changed, and the percent of each version since."""
    found = []
    for one in plane.log()["aliases"]:
        if one["function"] == function:
            weights = {name: round(100 * share, 6) for name, share in one["weights"].items()}
            rest = round(100 - sum(weights.values()), 6)
            found.append((one["at"], {one["version"]: rest, **weights}))
    return found


def within_binomial(seen: int, draws: int, share: float) -> bool:
    """Tell whether so many of so many draws fit a share, at five standard deviations."""
    spread = math.sqrt(draws * share * (1 - share))
    return abs(seen - draws * share) <= 5 * spread + 1


class Users:
    """Who invokes a function by its alias, again and again, until the block ends."""

    def __init__(self, plane: LambdaPlane, functions: Sequence[str], workers: int = 2) -> None:
        self.seen: list[dict[str, Any]] = []
        self._plane, self._functions = plane, functions
        self._done = threading.Event()
        self._threads = [
            threading.Thread(target=self._invoke, args=(number,)) for number in range(workers)
        ]

    def __enter__(self) -> Users:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _invoke(self, number: int) -> None:
        client = self._plane.client("lambda")
        while not self._done.is_set():
            function = self._functions[len(self.seen) % len(self._functions)]
            begun = time.time()
            try:
                answer = client.invoke(
                    FunctionName=function, Qualifier=lambda_plane.ALIAS, Payload=b"{}"
                )
                version = answer["ExecutedVersion"]
                failed = "FunctionError" in answer
                answer["Payload"].read()
            except Exception as error:
                version, failed = f"none: {error}", True
            self.seen.append(
                {"at": begun, "until": time.time(), "function": function, "version": version,
                 "failed": failed, "user": number}
            )  # fmt: skip
            time.sleep(0.06)


class FunctionSite:
    """Functions with a first version each, and what deploys to them."""

    def __init__(
        self, plane: LambdaPlane, folder: Path, functions: Sequence[str], *, errors: float = 0.0
    ) -> None:
        """Make the functions; so many invocations of their first version fail."""
        self.plane, self.folder, self.functions = plane, folder, list(functions)
        folder.mkdir(parents=True, exist_ok=True)
        for name in functions:
            plane.create(name, package("1", errors))
        inventory = folder / "hosts.json"
        hosts = {
            name: {"deploy_lambda_package": f"{name}.zip"} if len(functions) > 1 else {}
            for name in functions
        }
        inventory.write_text(json.dumps({"all": {"children": {"targets": {"hosts": hosts}}}}))
        variables = {"deploy_application": "shop", "deploy_compute_platform": "lambda"}
        self.controller = Controller(
            inventory, folder / "state", variables, environment=plane.environment, timeout=900.0
        )

    def revision(self, build: str, errors: float = 0.0) -> Path:
        """Write packages of a build, of which so many invocations fail."""
        if len(self.functions) == 1:
            file = self.folder / f"{build}.zip"
            file.write_bytes(package(build, errors))
            return file
        folder = self.folder / build
        folder.mkdir(exist_ok=True)
        for name in self.functions:
            (folder / f"{name}.zip").write_bytes(package(f"{name} {build}", errors))
        return folder

    def hook(self, name: str, source: str, **variables: str) -> None:
        """Make a function that checks deployments."""
        self.plane.create(
            name, lambda_plane.packed({"app.py": source}), alias=None, Timeout=60,
            Environment={"Variables": variables},
        )  # fmt: skip

    def begin(self, strategy: str, **variables: Any) -> subprocess.Popen[bytes]:
        """Start a controller in a session of its own, which can be killed as a whole."""
        said = json.dumps(self.controller.variables | variables, default=str)
        with (self.folder / "begun.log").open("wb") as log:
            return subprocess.Popen(
                [BIN / "ansible-playbook", "-i", self.controller.inventory,
                 f"bascule.deploy.{strategy}", "-e", said],
                cwd=ROOT, start_new_session=True, stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT,
                env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                     "BASCULE_STATE": str(self.controller.state), **self.plane.environment},
            )  # fmt: skip

    def wait(self, until: Callable[[], bool], what: str) -> None:
        """Look until it is so."""
        deadline = time.monotonic() + DEADLINE
        while not until():
            assert time.monotonic() < deadline, f"{what}: {self.plane.log()['aliases']}"
            time.sleep(0.05)

    def everything_written(self) -> str:
        """Return all text that the controller has left in its state folder."""
        return "".join(
            path.read_bytes().decode("utf-8", "replace")
            for path in self.controller.state.rglob("*")
            if path.is_file() and path.suffix != ".zip"
        )


@contextlib.contextmanager
def running(folder: Path) -> Iterator[LambdaPlane]:
    """Run the service for all tests of a file."""
    with lambda_plane.running(folder) as plane:
        yield plane
