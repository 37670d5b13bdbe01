"""Load balancers of AWS for tests: moto's API with real proxies, checks and delays behind it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.aws import IMAGES, REGION, Aws
from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

TESTS = Path(__file__).parents[2]
START_SECONDS = 90.0


class Alb(Aws):
    """A running service."""

    def __init__(self, port: int, server: subprocess.Popen[bytes], address: str) -> None:
        super().__init__(port, server)
        self.address = address
        self.url = f"http://{address}:{port}"

    def calls(self, service: str = "") -> list[dict[str, Any]]:
        """Return the calls that were made: ``at``, ``service``, ``action``, ``mutating``, …"""
        with urllib.request.urlopen(f"{self.url}/alb/calls", timeout=30) as answer:  # noqa: S310
            told: list[dict[str, Any]] = json.load(answer)
        return [one for one in told if service in ("", one["service"])]

    def forget_calls(self) -> None:
        """Count from now on."""
        self._post("forget", {})

    def throttle(self, share: float) -> None:
        """Refuse this share of the calls to load balancers with Throttling."""
        self._post("settings", {"throttle": share})

    def tell_late(self, seconds: float) -> None:
        """Let CloudWatch hear of requests so much later, with the time at which they came."""
        self._post("settings", {"late": seconds})

    def stall(self, action: str = "", *, done: bool = False) -> None:
        """Leave the next call of an action without an answer until this is called again.

        :param done: what it asks for is done all the same
        """
        self._post("settings", {"stall": {"action": action, "done": done} if action else None})

    def stalled(self) -> bool:
        """Tell whether a call waits for its answer."""
        with urllib.request.urlopen(f"{self.url}/alb/stalled", timeout=30) as answer:  # noqa: S310
            told: bool = json.load(answer)
        return told

    def _post(self, name: str, told: dict[str, Any]) -> None:
        request = urllib.request.Request(  # noqa: S310
            f"{self.url}/alb/{name}", data=json.dumps(told).encode(), method="POST"
        )
        urllib.request.urlopen(request, timeout=30).close()  # noqa: S310


@contextmanager
def running(
    folder: Path,
    *,
    propagation: float = 0.0,
    hurry: float = 5.0,
    address: str = "127.0.0.1",
    port: int | None = None,
    hooks: Sequence[str] = (),
    popen: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen,
    inside: Callable[[Callable[[], Any]], Any] = lambda work: work(),
) -> Iterator[Alb]:
    """Run it until the block ends.

    :param propagation: seconds until the traffic goes by what the API was told
    :param hurry: by how much health checks are more often than their interval says
    :param hooks: ``module:function`` that are called with the plane before the service starts
    :param popen: starts the process, for instance in a fleet's namespace
    :param inside: calls a function where the service can be reached
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    log = folder / "service.log"
    command = [
        sys.executable, "-m", "support.alb.server", "--address", address, "--port", str(port),
        "--folder", str(folder / "envoy"), "--region", REGION, "--propagation", str(propagation),
        "--hurry", str(hurry),
        *(part for hook in hooks for part in ("--hook", hook)),
    ]  # fmt: skip
    with log.open("wb") as output:
        environment = {**os.environ, **IMAGES}
        server = popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=TESTS, env=environment)
    alb = Alb(port, server, address)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not inside(lambda: _answers(alb)):
            if server.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the service did not start:\n{log.read_text()}")
            time.sleep(0.1)
        yield alb
    finally:
        server.terminate()
        server.wait(timeout=60)


def _answers(alb: Alb) -> bool:
    try:
        urllib.request.urlopen(f"{alb.url}/moto-api/", timeout=5).close()  # noqa: S310
    except OSError:
        return False
    return True
