"""Lambda for tests: functions that run, aliases that route, and metrics of what happened."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.aws import Aws, wait_for
from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(__file__).parents[1]
ALIAS = "live"

# A handler that says which build it is, and fails where it is told to.
HANDLER = """
import os

BUILD = {build!r}
SHARE_OF_ERRORS = {errors!r}
count = 0


def handler(event, context):
    global count
    count += 1
    if event.get("always"):
        raise RuntimeError("asked to fail")
    if int(count * SHARE_OF_ERRORS) > int((count - 1) * SHARE_OF_ERRORS):
        raise RuntimeError("build " + BUILD + " is broken")
    return {{"build": BUILD, "version": context.function_version,
            "greeting": os.environ.get("GREETING", "")}}
"""


def package(build: str, errors: float = 0.0) -> bytes:
    """Return a package whose handler fails ``errors`` of its invocations."""
    return packed({"app.py": HANDLER.format(build=build, errors=errors)})


def packed(files: dict[str, str]) -> bytes:
    """Return a zip of files, the same bytes every time."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, text in files.items():
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, text)
    return made.getvalue()


class LambdaPlane(Aws):
    """A running service."""

    def settings(self, **seconds: Any) -> None:
        """Set how long things take; see ``Settings`` of the server."""
        self._post("settings", seconds)

    def image(self, uri: str, content: bytes) -> None:
        """Say which package an image holds."""
        self._post("image", {"uri": uri, "zip": base64.b64encode(content).decode()})

    def log(self) -> dict[str, list[dict[str, Any]]]:
        """Return every change of an alias, and every invocation."""
        with urllib.request.urlopen(f"{self.url}/plane/log", timeout=30) as answer:  # noqa: S310
            told: dict[str, list[dict[str, Any]]] = json.load(answer)
        return told

    def weights(self, function: str) -> list[tuple[str, dict[str, float]]]:
        """Return what the function's alias was set to, in order."""
        return [
            (one["version"], one["weights"])
            for one in self.log()["aliases"]
            if one["function"] == function
        ]

    def reset(self) -> None:
        """Forget everything."""
        self._post("reset", {})
        super().reset()

    def create(
        self, function: str, code: bytes, *, alias: str | None = ALIAS, **configuration: Any
    ) -> str:
        """Make a function; with an alias also its first version, whose number is returned."""
        client, iam = self.client("lambda"), self.client("iam")
        with contextlib.suppress(iam.exceptions.EntityAlreadyExistsException):
            iam.create_role(RoleName="runs", AssumeRolePolicyDocument="{}")
        given = {
            "Runtime": "python3.12",
            "Handler": "app.handler",
            # A machine that does much else may take long for an answer.
            "Timeout": 60,
            "Code": {"ZipFile": code},
            **configuration,
        }
        role = iam.get_role(RoleName="runs")["Role"]["Arn"]
        client.create_function(FunctionName=function, Role=role, **given)
        client.get_waiter("function_active_v2").wait(
            FunctionName=function, WaiterConfig={"Delay": 1}
        )
        if alias is None:
            return ""
        version: str = client.publish_version(FunctionName=function)["Version"]
        client.create_alias(FunctionName=function, Name=alias, FunctionVersion=version)
        return version

    def alias(self, function: str, name: str = ALIAS) -> tuple[str, dict[str, float]]:
        """Return the version that the alias leads to, and its weights."""
        told = self.client("lambda").get_alias(FunctionName=function, Name=name)
        return told["FunctionVersion"], (told.get("RoutingConfig") or {}).get(
            "AdditionalVersionWeights", {}
        )

    def invoke(self, function: str, event: Any = None, qualifier: str = ALIAS) -> dict[str, Any]:
        """Invoke the function; ``{"version", "failed", "payload"}``."""
        answer = self.client("lambda").invoke(
            FunctionName=function, Qualifier=qualifier, Payload=json.dumps(event or {})
        )
        return {
            "version": answer["ExecutedVersion"],
            "failed": "FunctionError" in answer,
            "payload": json.loads(answer["Payload"].read()),
        }

    def _post(self, name: str, told: dict[str, Any]) -> None:
        request = urllib.request.Request(  # noqa: S310
            f"{self.url}/plane/{name}", data=json.dumps(told).encode(), method="POST"
        )
        urllib.request.urlopen(request, timeout=30).close()  # noqa: S310


@contextlib.contextmanager
def running(folder: Path) -> Iterator[LambdaPlane]:
    """Run the service on a free port of loopback until the block ends."""
    port = free_port()
    log = folder / "lambda-plane.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "support.lambda_plane_server", str(port)],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=TESTS,
        )
    plane = LambdaPlane(port, server)
    try:
        wait_for(server, f"{plane.url}/plane/log", log)
        yield plane
    finally:
        server.terminate()
        server.wait(timeout=60)
