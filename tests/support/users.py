"""Users of an application under test: steady load, and its report."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from support.proxies import wait_for_handler

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def start_users(
    url: str, rate: float, report: Path, started: list[subprocess.Popen[bytes]], *options: str
) -> Callable[[], dict[str, Any]]:
    """Start users; the function that is returned ends them and gives their report.

    :param rate: requests a second
    :param report: file that the report is written to
    :param started: gets the process, for whoever ends what a failed test has left
    :param options: more options of the load generator
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "bascule.demo.loadgen", url,
         "--rate", str(rate), "--json", str(report), *options],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    started.append(process)
    wait_for_handler(process, signal.SIGTERM)

    def end() -> dict[str, Any]:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
        content: dict[str, Any] = json.loads(report.read_text())
        return content

    return end
