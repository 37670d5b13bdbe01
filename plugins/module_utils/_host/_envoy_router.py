# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Envoy between pools: a route file (RDS) that is replaced, and the administration's numbers.

Measured on Envoy 1.40: a replaced file is taken up within 20 ms and without a reload;
``/config_dump`` shows the main thread's view, the workers follow within a moment. A refused file
raises ``update_rejected`` and leaves the routes that were there.

This file runs on hosts: Python 3.8 and the standard library only.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .._errors import TrafficError
from ._balancer import read_options
from ._eds import locked, replace_file
from ._envoy_admin import Admin, parse_admin_url
from ._envoy_routes import has_lua, read_routes, write_routes
from ._router import Counters, RefusedError, Router, everything_to, pool_names
from ._spare import keep_spare, replace_at_need

if TYPE_CHECKING:
    from .._routing_data import Routing

FILE = "route file"
WORKER_SECONDS = 0.25
ROUTES = "/config_dump?resource=dynamic_route_configs"

# Connections that were not made, and requests that Envoy gave up before a target had them, are in
# upstream_rq_5xx already: Envoy answers them itself, with 503.
REQUESTS, ERRORS, LATENCY = "upstream_rq_completed", "upstream_rq_5xx", "upstream_rq_time"


def connect(options: dict[str, Any]) -> EnvoyRouter:
    """Return the routes between the pools behind these options; nothing is asked yet.

    :raises UsageError: an option that is missing, unknown or malformed
    """
    read = read_options(
        "envoy",
        options,
        required=("routes_path", "pools"),
        optional={
            "admin_url": "http://127.0.0.1:9901",
            "eds_path": None,
            "cluster": None,
            "service_name": None,
        },
    )
    clusters = pool_names(read["pools"], "cluster", "envoy")
    return EnvoyRouter(
        str(read["routes_path"]), clusters, Admin(parse_admin_url(str(read["admin_url"])))
    )


class EnvoyRouter(Router):
    """The routes to some clusters of one Envoy process."""

    settle_seconds = WORKER_SECONDS

    def __init__(self, path: str, clusters: dict[str, str], admin: Admin) -> None:
        self._path = path
        self._clusters = clusters
        self._admin = admin
        self._before: str | None = None
        self._version = self._written = ""
        self._told = ""
        self._rejected = 0
        self.where = f"Envoy routes {path} ({admin.place})"

    @property
    def warnings(self) -> tuple[str, ...]:
        """Say that the disk is full."""
        return (self._told,) if self._told else ()

    def shown(self) -> Routing | None:
        """Ask the administration for the routes."""
        return read_routes(self._dump()[1], self._clusters, self.where)

    def order(self, routing: Routing) -> None:
        """Replace the file.

        What gives everything to one pool may use the room that is kept on a full disk; nothing else
        may, so that there is some for the way back.
        """
        if routing.sticky and not has_lua(self._listeners()):
            raise TrafficError(
                f"{self.where}: sticky users need the filter envoy.filters.http.lua among the "
                "listener's http_filters, before envoy.filters.http.router. Add it: "
                "docs/load-balancers.md shows it."
            )
        # Envoy would take routes to a cluster that it does not have, and answer them with 503.
        known = self._known()
        unknown = [name for name in self._clusters.values() if name not in known]
        if unknown:
            raise TrafficError(
                f"{self.where}: Envoy has no cluster {', '.join(unknown)}; it has "
                f"{', '.join(sorted(known)) or 'none'}. Check deploy_traffic_pools."
            )
        self._rejected = self._rejections()
        with locked(str(Path(self._path).parent)):
            self._before = self._read()
            try:
                content = json.loads(self._before)
            except ValueError as error:
                raise TrafficError(
                    f"The route file {self._path} is not JSON ({error}). Bascule rewrites this "
                    "file and keeps to JSON; convert it if it is YAML."
                ) from error
            changed = write_routes(content, self._clusters, routing, self._path)
            self._version = changed["version_info"]
            self._written = _text(changed)
            if everything_to(routing):
                self._told = replace_at_need(self._path, self._written, FILE)
            else:
                keep_spare(self._path, self._written, FILE)
                replace_file(self._path, self._written, FILE)

    def missing(self, routing: Routing) -> str:
        """Compare the version that Envoy shows, and look for a refusal."""
        del routing
        version, _content = self._dump()
        if version == self._version:
            return ""
        if self._rejections() > self._rejected:
            raise RefusedError(
                f"{self.where} refused the new routes; its log says why. The file was taken back."
            )
        return f"Envoy has the version {version or 'none'}, wanted {self._version}"

    def take_back(self) -> None:
        """Write the file's former content, unless somebody has changed it since."""
        if self._before is not None:
            with locked(str(Path(self._path).parent)):
                if self._read() == self._written:
                    replace_at_need(self._path, self._before, FILE)

    def measure(self) -> dict[str, Counters]:
        """Read each cluster's counters and its histogram of answer times."""
        return {pool: self._counters(cluster) for pool, cluster in self._clusters.items()}

    def _counters(self, cluster: str) -> Counters:
        pattern = f"^cluster\\.{_escaped(cluster)}\\.({REQUESTS}|{ERRORS}|{LATENCY})$"
        stats = self._admin.get(
            f"/stats?format=json&histogram_buckets=detailed&filter={quote(pattern)}"
        ).get("stats", [])
        numbers: dict[str, int] = {}
        histogram = None
        for stat in stats:
            if "name" in stat:
                numbers[str(stat["name"]).rpartition(".")[2]] = int(stat.get("value", 0))
            for entry in stat.get("histograms", {}).get("details", []):
                histogram = read_histogram(entry.get("totals", []))
        return Counters(numbers.get(REQUESTS, 0), numbers.get(ERRORS, 0), histogram)

    def _known(self) -> set[str]:
        statuses = self._admin.get("/clusters?format=json").get("cluster_statuses", [])
        return {str(status.get("name")) for status in statuses}

    def _rejections(self) -> int:
        stats = self._admin.get(
            "/stats?format=json&filter=" + quote(r"\.rds\..*\.update_rejected$")
        ).get("stats", [])
        return sum(int(stat.get("value", 0)) for stat in stats)

    def _listeners(self) -> dict[str, Any]:
        return {
            name: self._admin.get(f"/config_dump?resource={name}")
            for name in ("static_listeners", "dynamic_listeners")
        }

    def _dump(self) -> tuple[str, dict[str, Any]]:
        """Return version and content, as in a file, of the route configuration to the pools."""
        configs = self._admin.get(ROUTES).get("configs", [])
        names = []
        for config in configs:
            route_config = config.get("route_config", {})
            names.append(str(route_config.get("name", "?")))
            content = {"resources": [route_config]}
            text = json.dumps(route_config)
            if any(json.dumps(cluster) in text for cluster in self._clusters.values()):
                return str(config.get("version_info", "")), content
        raise TrafficError(
            f"{self.where}: Envoy has no dynamic routes to {', '.join(self._clusters.values())}; "
            f"it has the route configurations {', '.join(names) or 'none'}. Let the listener read "
            "deploy_envoy_routes_path with 'rds', and see in Envoy's log that it was accepted."
        )

    def _read(self) -> str:
        if Path(self._path).is_symlink():
            raise TrafficError(
                f"{self._path} is a symbolic link. Envoy only notices when the file it watches is "
                "replaced itself: make it a file, or name the file that Envoy watches."
            )
        try:
            return Path(self._path).read_text(encoding="utf-8")
        except OSError as error:
            raise TrafficError(
                f"The route file {self._path} cannot be read: {error.strerror}. Check "
                "deploy_envoy_routes_path and that the task runs on the proxy's host as a user "
                "who may read it."
            ) from error


def read_histogram(totals: list[dict[str, Any]]) -> list[tuple[float, int]]:
    """Return (seconds, requests up to it) of ``/stats?histogram_buckets=detailed``.

    Envoy lists only buckets that are not empty, with ``lower_bound`` and ``width`` in milliseconds.
    """
    found: list[tuple[float, int]] = []
    count = 0
    for bucket in totals:
        lower = float(bucket["lower_bound"]) / 1000
        if lower > (found[-1][0] if found else 0.0):
            found.append((round(lower, 9), count))
        count += int(bucket["count"])
        found.append((round(lower + float(bucket["width"]) / 1000, 9), count))
    return found


def _text(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _escaped(text: str) -> str:
    return "".join(c if c.isalnum() or c in "_-" else "\\" + c for c in text)
