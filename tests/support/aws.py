"""A moto server over HTTP, as a process of its own, and the environment that leads to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

REGION = "eu-central-1"
# That of the fixture ``s3``.
BUCKET = "releases"
# moto knows hundreds of images, which take it seconds at the first call of EC2; tests launch one.
IMAGES = {"MOTO_AMIS_PATH": str(Path(__file__).with_name("images.json"))}


class Aws:
    """A running server."""

    def __init__(self, port: int, server: subprocess.Popen[bytes]) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._server = server
        self._enforces = False

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The server."""
        return self._server

    @property
    def environment(self) -> dict[str, str]:
        """What makes boto3 and aws_ec2 talk to this server, and to nobody else."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Lead this process to the server."""
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)

    def client(self, service: str, region: str = REGION) -> Any:
        """Return a client for the test's own use."""
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=region,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",  # noqa: S106 - moto takes any
        )

    def enforce_permissions(self, *, unasked: int = 0) -> None:
        """Let only those calls through that a policy allows, from now on.

        :param unasked: so many calls pass before that
        """
        self._enforces = True
        self._ask_from(str(unasked))

    def _ask_from(self, count: str) -> None:
        request = urllib.request.Request(  # noqa: S310
            f"{self.url}/moto-api/reset-auth",
            data=count.encode(),
            headers={"Content-Type": "text/plain"},
        )
        urllib.request.urlopen(request, timeout=60).close()  # noqa: S310

    def guard(self, policy: dict[str, Any] | None, key: str = "testing") -> None:
        """Let an access key do what a policy allows, and forget what was asked for before."""
        self._guard("policies", {"key": key, "policy": policy})

    def asked_for(self) -> list[dict[str, Any]]:
        """Return what the guard was asked for: ``action``, ``resource``, ``allowed``."""
        told: list[dict[str, Any]] = self._guard("calls", {})
        return told

    def refuse(self, *faults: dict[str, Any]) -> None:
        """Let these calls fail from now on, and no others (see ``support.guard``)."""
        self._guard("faults", {"faults": list(faults)})

    def _guard(self, name: str, told: dict[str, Any]) -> Any:
        request = urllib.request.Request(  # noqa: S310
            f"{self.url}/guard/{name}", data=json.dumps(told).encode(), method="POST"
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return json.load(answer)

    def kill(self) -> None:
        """End the server as a crash would."""
        self._server.kill()
        self._server.wait()

    def reset(self) -> None:
        """Forget everything."""
        if self._enforces:
            self._ask_from("inf")
            self._enforces = False
        request = urllib.request.Request(f"{self.url}/moto-api/reset", method="POST")  # noqa: S310
        urllib.request.urlopen(request, timeout=60).close()  # noqa: S310


class Servers:
    """Servers that all tests of a process share: each is started once, which takes it seconds."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self._known: dict[str, Aws] = {}

    def fresh(self, module: str = "moto.server") -> Aws:
        """Return a server that knows nothing; a new one if a test has killed it."""
        known = self._known.get(module)
        if known is None or known.process.poll() is not None:
            folder = Path(tempfile.mkdtemp(dir=self._folder))
            self._known[module] = self._stack.enter_context(running(folder, module))
        else:
            known.reset()
        return self._known[module]


@contextmanager
def running(
    folder: Path, module: str = "moto.server", more: dict[str, str] | None = None
) -> Iterator[Aws]:
    """Run a server on a free port of loopback until the block ends.

    :param module: what runs moto, for instance with more truth in it
    :param more: more of the server's environment
    """
    port = free_port()
    log = folder / "moto.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", module, "-H", "127.0.0.1", "-p", str(port)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
                **IMAGES,
                **(more or {}),
            },
        )
    aws = Aws(port, server)
    try:
        wait_for(server, f"{aws.url}/moto-api/", log)
        yield aws
    finally:
        server.terminate()
        server.wait(timeout=60)


def wait_for(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Wait until a server that was started answers; fail with its log if it does not."""
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()  # noqa: S310
            return
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{url} does not answer:\n{log.read_text()}") from None
            time.sleep(0.05)
