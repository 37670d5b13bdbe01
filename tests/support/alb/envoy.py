"""A real Envoy that does what the plane says: routes, weights and endpoints as xDS files."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

from support.alb.plane import Answer, Forward, Listener, Rule, cluster_of
from support.ports import free_port
from support.proxies import envoy_binary

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

API = "type.googleapis.com/envoy"
# A user of a group stays with it by this cookie (its value is the pool's own affair).
COOKIE = "AWSALBTG"


class Envoy:
    """The proxy, and the files that it watches."""

    def __init__(self, folder: Path, address: str) -> None:
        self._folder = folder
        self._address = address
        self._written: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self.access_log = folder / "access.jsonl"

    def start(self) -> None:
        """Start it without any listener."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self.access_log.touch()
        self.apply((), {})
        bootstrap = {
            "node": {"id": "alb", "cluster": "alb"},
            "admin": {"address": socket_address("127.0.0.1", free_port())},
            "dynamic_resources": {
                "lds_config": watched(self._folder / "lds.json"),
                "cds_config": watched(self._folder / "cds.json"),
            },
        }
        path = self._folder / "envoy.json"
        path.write_text(json.dumps(bootstrap))
        with (self._folder / "envoy.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", envoy_binary(), "-c", str(path),
                 "--concurrency", "2", "--disable-hot-restart", "--log-level", "warning"],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def stop(self) -> None:
        """End it."""
        if self._process:
            self._process.kill()
            self._process.wait()

    def apply(
        self,
        listeners: Iterable[Listener],
        endpoints: dict[str, dict[tuple[str, int], str]],
    ) -> None:
        """Write what has changed; endpoints before clusters, clusters before routes."""
        some = list(listeners)
        for name, places in endpoints.items():
            self._write(f"eds-{cluster_of(name)}.json", [assignment(cluster_of(name), places)])
        self._write("cds.json", [self._cluster(cluster_of(name)) for name in endpoints])
        for one in some:
            if one.http:
                self._write(f"rds-{one.port}.json", [routes(one, endpoints)])
        self._write("lds.json", [self._listener(one) for one in some if usable(one, endpoints)])

    def _write(self, name: str, resources: list[dict[str, Any]]) -> None:
        text = json.dumps({"resources": resources})
        if self._written.get(name) != text:
            path = self._folder / name
            fresh = path.with_suffix(".new")
            fresh.write_text(text)
            fresh.rename(path)
            self._written[name] = text

    def _cluster(self, name: str) -> dict[str, Any]:
        return {
            "@type": f"{API}.config.cluster.v3.Cluster",
            "name": name,
            "type": "EDS",
            "connect_timeout": "5s",
            "eds_cluster_config": {"eds_config": watched(self._folder / f"eds-{name}.json")},
            "common_lb_config": {
                "healthy_panic_threshold": {"value": 0},
                "update_merge_window": "0s",
            },
        }

    def _listener(self, one: Listener) -> dict[str, Any]:
        filters = self._http(one) if one.http else tcp(one)
        return {
            "@type": f"{API}.config.listener.v3.Listener",
            "name": str(one.port),
            "address": socket_address(self._address, one.port),
            "filter_chains": [{"filters": [filters]}],
        }

    def _http(self, one: Listener) -> dict[str, Any]:
        manager = f"{API}.extensions.filters.network.http_connection_manager.v3"
        log = {
            "name": "file",
            "typed_config": {
                "@type": f"{API}.extensions.access_loggers.file.v3.FileAccessLog",
                "path": str(self.access_log),
                "log_format": {
                    "json_format": {
                        "cluster": "%UPSTREAM_CLUSTER_RAW%",
                        "status": "%RESPONSE_CODE%",
                        "flags": "%RESPONSE_FLAGS%",
                        "milliseconds": "%DURATION%",
                    }
                },
            },
        }
        return {
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": f"{manager}.HttpConnectionManager",
                "stat_prefix": str(one.port),
                "access_log": [log],
                "access_log_options": {"flush_access_log_on_new_request": False},
                "rds": {
                    "route_config_name": str(one.port),
                    "config_source": watched(self._folder / f"rds-{one.port}.json"),
                },
                "http_filters": [
                    {
                        "name": "envoy.filters.http.router",
                        "typed_config": {
                            "@type": f"{API}.extensions.filters.http.router.v3.Router"
                        },
                    }
                ],
            },
        }


def tcp(one: Listener) -> dict[str, Any]:
    """Return the filter of a Network Load Balancer's listener."""
    [rule] = one.rules
    assert isinstance(rule.action, Forward)
    return {
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": f"{API}.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": str(one.port),
            "cluster": cluster_of(rule.action.pools[0][0]),
        },
    }


def usable(one: Listener, endpoints: dict[str, Any]) -> bool:
    """Tell whether the pools of a listener exist any more."""
    actions = [rule.action for rule in one.rules]
    return all(
        name in endpoints for a in actions if isinstance(a, Forward) for name, _weight in a.pools
    )


def routes(one: Listener, endpoints: dict[str, Any]) -> dict[str, Any]:
    """Return the route configuration of a listener's rules."""
    found = [route for rule in one.rules for route in routes_of(rule, endpoints)]
    return {
        "@type": f"{API}.config.route.v3.RouteConfiguration",
        "name": str(one.port),
        "validate_clusters": False,
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": found}],
    }


def routes_of(rule: Rule, endpoints: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the routes of a rule: first those of users who stay, then that by weights."""
    match = {"prefix": "/", "headers": [matcher(*condition) for condition in rule.conditions]}
    action = rule.action
    if isinstance(action, Answer):
        body = {"inline_string": action.body}
        return [{"match": match, "direct_response": {"status": action.status, "body": body}}]
    pools = [(cluster_of(n), w) for n, w in action.pools if w and n in endpoints]
    if not pools:
        return [{"match": match, "direct_response": {"status": 503}}]
    found = []
    clusters = []
    for name, weight in pools:
        cluster: dict[str, Any] = {"name": name, "weight": weight}
        if action.sticky is not None:
            cookie = f"{COOKIE}={name}; Max-Age={int(action.sticky)}; Path=/"
            cluster["response_headers_to_add"] = [
                {"header": {"key": "set-cookie", "value": cookie}, "append_action": 0}
            ]
            stays = safe_regex("cookie", f"(?:.*; ?)?{COOKIE}={re.escape(name)}(?:;.*)?")
            found.append(
                {
                    "match": {**match, "headers": [*match["headers"], stays]},
                    "route": {"cluster": name, "timeout": "60s"},
                }
            )
        clusters.append(cluster)
    by_weight = {"weighted_clusters": {"clusters": clusters}, "timeout": "60s"}
    return [*found, {"match": match, "route": by_weight}]


def matcher(kind: str, name: str, patterns: tuple[str, ...]) -> dict[str, Any]:
    """Return Envoy's matcher of a condition: ``*`` and ``?`` are wildcards, case is ignored."""
    header = {"http-header": name.lower(), "host-header": ":authority", "path-pattern": ":path"}
    words = "|".join(re.escape(p).replace(r"\*", ".*").replace(r"\?", ".") for p in patterns)
    tail = r"(?:\?.*)?" if kind == "path-pattern" else ""
    case = "" if kind == "path-pattern" else "(?i)"
    return safe_regex(header[kind], f"{case}(?:{words}){tail}")


def safe_regex(header: str, pattern: str) -> dict[str, Any]:
    """Match a whole header."""
    return {"name": header, "string_match": {"safe_regex": {"regex": pattern}}}


def assignment(name: str, places: dict[tuple[str, int], str]) -> dict[str, Any]:
    """Return the endpoints of a cluster."""
    endpoints = [
        {"endpoint": {"address": socket_address(*place)}, "health_status": status}
        for place, status in sorted(places.items())
    ]
    return {
        "@type": f"{API}.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": name,
        "endpoints": [{"lb_endpoints": endpoints}],
    }


def socket_address(address: str, port: int) -> dict[str, Any]:
    """Return an address."""
    return {"socket_address": {"address": address, "port_value": port}}


def watched(path: Path) -> dict[str, Any]:
    """Return a source of configuration that is a file."""
    return {"path_config_source": {"path": str(path)}, "resource_api_version": "V3"}


class AccessLog:
    """Reads what has come since the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self._rest = b""

    def fresh(self) -> list[dict[str, Any]]:
        """Return the new lines; a line that is not whole yet is kept for later."""
        with self._path.open("rb") as file:
            file.seek(self._at)
            data = self._rest + file.read()
            self._at = file.tell()
        *lines, self._rest = data.split(b"\n")
        return [json.loads(line) for line in lines if line]
