"""How long the old version is waited for after a gate has failed: from the verdict to users.

``python benchmarks/verdict.py --provider envoy --runs 20`` deploys a bad revision blue/green again
and again behind a real proxy: 20 % of the traffic comes to it, a gate fails, and the traffic is
brought back. Users ask 100 times a second meanwhile. What is measured is the time from the verdict
in the record to the first answer after which only the old version answers.
"""

from __future__ import annotations

import argparse
import http.client
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.twopools import TwoPools, two_pools

PERIOD = 0.01
BAD, GOOD = "2.0", "1.0"


class Users:
    """Ask again and again, and keep when which version has answered."""

    def __init__(self, url: str) -> None:
        """Begin to ask."""
        self.seen: list[tuple[float, str]] = []
        self._url = urlsplit(url)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask no more."""
        self._end.set()
        self._thread.join()

    def _ask(self) -> None:
        connection = http.client.HTTPConnection(str(self._url.hostname), self._url.port, timeout=30)
        while not self._end.wait(PERIOD):
            connection.request("GET", "/")
            answer = connection.getresponse()
            answer.read()
            self.seen.append((time.time(), answer.headers.get("X-Version") or str(answer.status)))
        connection.close()


def measure(site: TwoPools, revision: Path) -> float:
    """Deploy the bad revision; return the seconds from the verdict to the first good answer."""
    gate = {
        "type": "proxy", "metric": "error_rate", "pool": "blue", "success": "< 0.01",
        "interval": "500ms", "count": 3,
    }  # fmt: skip
    users = Users(site.proxy.url)
    site.controller.playbook(
        "blue_green", deploy_revision=revision, deploy_schedule=[{"shift": "20%"}, {"gate": gate}]
    )
    users.stop()
    failed = next(one for one in site.controller.deployments() if one.strategy == "blue_green")
    if failed.error_code != "GATE_FAILED":
        raise SystemExit(f"The gate did not fail: {failed.error_code} {failed.error_message}")
    events = site.controller.events(failed.id)
    verdict = next(one.at for one in events if one.event == "GatesDecided")
    last_bad = max((at for at, version in users.seen if version == BAD), default=verdict)
    first = next(at for at, version in users.seen if at > last_bad and version == GOOD)
    return max(0.0, first - verdict)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--provider", default="envoy", choices=["envoy", "haproxy", "nginx"])
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pools = {"blue": ["b1"], "green": ["g1"]}
        with two_pools(options.provider, Path(folder) / "site", pools) as site:
            first = site.controller.playbook("blue_green", deploy_revision=site.revision(GOOD))
            if first.status:
                raise SystemExit(first.said)
            bad = site.revision(BAD, bad=True)
            taken = []
            for run in range(options.runs):
                taken.append(measure(site, bad))
                print(f"{run + 1}: {taken[-1]:.2f} s", flush=True)
    print(
        f"{options.provider}, {len(taken)} runs: median {statistics.median(taken):.2f} s, "
        f"maximum {max(taken):.2f} s"
    )


if __name__ == "__main__":
    main()
