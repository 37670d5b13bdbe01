"""A Lambda service that outlives the command that starts it, for the Molecule scenario.

``python lambda_scenario.py start FOLDER`` runs it on a free port, makes the function ``greet``, and
writes ``aws.cfg``, which leads boto3 there; ``stop FOLDER`` ends it, if it runs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.aws import REGION
from support.lambda_plane import TESTS, LambdaPlane, package
from support.ports import free_port

SERVER = "support.lambda_plane_server"
CONFIGURATION = """\
[default]
region = {region}
endpoint_url = {url}
aws_access_key_id = testing
aws_secret_access_key = testing
"""


def start(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    with (folder / "service.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", SERVER, str(port)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=TESTS,
        )  # fmt: skip
    (folder / "service.pid").write_text(str(server.pid))
    plane = LambdaPlane(port, server)
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{plane.url}/plane/log", timeout=5).close()  # noqa: S310
            break
        time.sleep(0.1)
    plane.create("greet", package("1"))
    (folder / "aws.cfg").write_text(CONFIGURATION.format(region=REGION, url=plane.url))
    # The service is left running on purpose.
    server.returncode = 0


def stop(folder: Path) -> None:
    file = folder / "service.pid"
    if not file.exists():
        return
    process = int(file.read_text())
    with contextlib.suppress(ProcessLookupError):
        command = Path(f"/proc/{process}/cmdline").read_bytes() if Path("/proc").exists() else b""
        if SERVER.encode() in command:
            os.kill(process, signal.SIGTERM)
    file.unlink()


if __name__ == "__main__":
    {"start": start, "stop": stop}[sys.argv[1]](Path(sys.argv[2]))
