"""Watches from outside how many targets a load balancer has in service, and keeps every sample.

Run as a program beside the load balancer (it needs nothing but the standard library):

    python floor.py envoy URL CLUSTER FILE      URL of Envoy's admin interface
    python floor.py haproxy SOCKET BACKEND FILE  path of the socket, or ADDRESS:PORT

One line of JSON a sample: ``{"at": epoch seconds, "in_service": [names]}``, or ``error`` where the
load balancer did not answer. `read` and `Samples` are for the test that reads the file.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import socket
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INTERVAL = 0.1


def envoy(admin_url: str, cluster: str) -> list[str]:
    """The endpoints ``address:port`` that Envoy would send a request to."""
    url = f"{admin_url.rstrip('/')}/clusters?format=json"
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - the test's own Envoy
        return envoy_in_service(json.load(answer), cluster)


def envoy_in_service(clusters: dict[str, Any], cluster: str) -> list[str]:
    """Read ``/clusters?format=json``: healthy by EDS, and failed by no check of Envoy's own."""
    names = []
    for status in clusters.get("cluster_statuses", []):
        if status["name"] != cluster:
            continue
        for host in status.get("host_statuses", []):
            health = dict(host.get("health_status", {}))
            if health.pop("eds_health_status", "HEALTHY") in ("HEALTHY", "UNKNOWN") and not health:
                address = host["address"]["socket_address"]
                names.append(f"{address['address']}:{address['port_value']}")
    return sorted(names)


def haproxy(address: str, backend: str) -> list[str]:
    """The servers of a backend that HAProxy would send a request to."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        connection = socket.create_connection((host, int(port)), timeout=10)
    else:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(10)
        connection.connect(address)
    with connection:
        connection.sendall(b"show stat\n")
        text = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    return haproxy_in_service(text, backend)


def haproxy_in_service(text: str, backend: str) -> list[str]:
    """Read ``show stat``: up, or not checked at all, and with a weight."""
    rows = csv.DictReader(io.StringIO(text.removeprefix("# ")))
    return sorted(
        row["svname"]
        for row in rows
        if row["pxname"] == backend
        and row["svname"] not in ("BACKEND", "FRONTEND")
        and (row["status"].startswith("UP") or row["status"] == "no check")
        and row["weight"] != "0"
    )


@dataclass(frozen=True)
class Samples:
    """What was seen: pairs of epoch seconds and the names in service, in order of time."""

    seen: tuple[tuple[float, tuple[str, ...]], ...]
    errors: tuple[str, ...]

    def between(self, start: float, end: float) -> Samples:
        """Only what was seen in that time."""
        return Samples(tuple(s for s in self.seen if start <= s[0] <= end), self.errors)

    @property
    def minimum(self) -> int:
        """The smallest number in service that was seen."""
        return min(len(names) for _, names in self.seen)

    @property
    def longest_gap(self) -> float:
        """Seconds between the two samples that lie farthest apart."""
        times = [at for at, _ in self.seen]
        return max((b - a for a, b in itertools.pairwise(times)), default=float("inf"))


def read(path: Path) -> Samples:
    """Every whole line of a sampler's file."""
    text = path.read_text().splitlines(keepends=True)
    lines = [json.loads(line) for line in text if line.endswith("\n")]
    return Samples(
        tuple((line["at"], tuple(line["in_service"])) for line in lines if "in_service" in line),
        tuple(line["error"] for line in lines if "error" in line),
    )


def main(kind: str, where: str, what: str, path: str) -> None:
    """Sample until killed."""
    look = {"envoy": envoy, "haproxy": haproxy}[kind]
    with Path(path).open("a", buffering=1) as log:
        while True:
            at = time.time()
            try:
                line: dict[str, Any] = {"at": at, "in_service": look(where, what)}
            except (OSError, ValueError) as error:
                line = {"at": at, "error": str(error)}
            log.write(json.dumps(line) + "\n")
            time.sleep(max(0.0, at + INTERVAL - time.time()))


if __name__ == "__main__":
    main(*sys.argv[1:])
