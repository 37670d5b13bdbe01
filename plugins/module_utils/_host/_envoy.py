# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Envoy by its endpoint file (EDS): a cluster's endpoints are drained and made healthy again.

The file is changed under a lock and replaced by a rename, which is what Envoy watches for; what
came of it is read from the administration's ``/clusters``. Measured on Envoy 1.40: ``rq_active``
counts a host's open requests and not its kept-alive connections, ``rq_pending_active`` those that
wait for a connection to it (older versions have that for the cluster only).

This file runs on hosts: Python 3.8 and the standard library only.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._errors import TrafficError
from ._balancer import ABSENT, Balancer, Seen, Target, read_options
from ._eds import (
    SERVING,
    Endpoint,
    endpoint_statuses,
    find_assignment,
    locked,
    set_status,
    socket_address,
)
from ._envoy_admin import Admin, parse_admin_url
from ._spare import replace_at_need

if TYPE_CHECKING:
    from collections.abc import Sequence

# Health flags of /clusters that keep requests away from a host.
FAILING = {
    "failed_active_health_check": "fails its health check",
    "failed_outlier_check": "ejected as an outlier",
    "pending_active_hc": "waits for its first health check",
    "excluded_via_immediate_hc_fail": "asked to be left out",
}

# cluster.proto, CommonLbConfig.update_merge_window: Envoy may hold changes of health back from its
# workers for up to this long, while /clusters shows them at once. (Changes of the endpoint file
# were not seen to be held back by 1.40, but nothing promises that.)
DEFAULT_MERGE_WINDOW = 1.0
WORKER_SECONDS = 0.25


def connect(options: dict[str, Any], targets: Sequence[Target]) -> Envoy:
    """Return the cluster behind these options; nothing is asked yet.

    :raises UsageError: an option that is missing, unknown or malformed
    """
    read = read_options(
        "envoy",
        options,
        required=("eds_path", "cluster"),
        optional={"admin_url": "http://127.0.0.1:9901", "service_name": None},
    )
    address = parse_admin_url(str(read["admin_url"]))
    cluster = str(read["cluster"])
    return Envoy(
        str(read["eds_path"]), cluster, str(read["service_name"] or cluster), address, targets
    )


class Envoy(Balancer):
    """One cluster of one Envoy process."""

    def __init__(
        self,
        path: str,
        cluster: str,
        service_name: str,
        address: tuple[str, int],
        targets: Sequence[Target],
    ) -> None:
        self._path = path
        self._cluster = cluster
        self._service_name = service_name
        self._admin = Admin(address)
        self._targets = list(targets)
        self._resolved: dict[str, list[str]] = {}
        self._known: list[str] = []
        self._shown: dict[Endpoint, dict[str, Any]] = {}
        self.where = f"Envoy cluster {cluster} ({self._admin.place})"

    def observe(self) -> dict[str, Seen]:
        """Read the file and ask the administration, once each."""
        statuses = endpoint_statuses(self._read()[1])
        hosts = self._shown = self._hosts()
        self._known = [f"{address}:{port}" for address, port in sorted(set(statuses) | set(hosts))]
        seen = {}
        for target in self._targets:
            places = [place for place in self._places(target) if place in statuses]
            seen[target.name] = (
                read_host(statuses[places[0]], hosts.get(places[0])) if places else ABSENT
            )
        return seen

    def block(self, names: Sequence[str]) -> None:
        """Write DRAINING for these endpoints."""
        self.quiet_seconds = self._merge_window() + WORKER_SECONDS
        self._change(names, "DRAINING")

    def release(self, names: Sequence[str], *, untouched: bool = False) -> None:
        """Write HEALTHY for these endpoints; one that is not in the file is added."""
        del untouched
        self._change(names, "HEALTHY")

    def weights(self) -> dict[str, float]:
        """Return the endpoints' weights, where all of the cluster take turns."""
        priorities = {host.get("priority", 0) for host in self._shown.values()}
        try:
            turns = len(priorities) == 1 and by_turns(self._dump(), self._cluster)
        except TrafficError:
            turns = False
        if not turns:
            return {}
        found = {}
        for target in self._targets:
            hosts = [self._shown[place] for place in self._places(target) if place in self._shown]
            found[target.name] = float(hosts[0].get("weight", 1)) if hosts else 0.0
        return found

    def known_names(self) -> list[str]:
        """Name the endpoints."""
        return self._known

    def _places(self, target: Target) -> list[Endpoint]:
        """Return where the target may be: EDS names addresses, an inventory often names hosts."""
        if target.name not in self._resolved:
            self._resolved[target.name] = resolve(target.address)
        return [Endpoint(address, target.port) for address in self._resolved[target.name]]

    def _change(self, names: Sequence[str], status: str) -> None:
        with locked(str(Path(self._path).parent)):
            content, assignment = self._read()
            for target in self._targets:
                if target.name in names:
                    set_status(assignment, self._places(target), status, target.weight)
            text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
            # A bad version leaves the traffic, and a good one returns, on a full disk, too.
            told = replace_at_need(self._path, text, "endpoint file")
            self.warnings = (told,) if told else ()

    def _read(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the file's content and the cluster's assignment within it."""
        if Path(self._path).is_symlink():
            raise TrafficError(
                f"{self._path} is a symbolic link. Envoy only notices when the file it watches is "
                "replaced itself: make it a file, or name the file that Envoy watches."
            )
        try:
            content = json.loads(Path(self._path).read_text(encoding="utf-8"))
        except OSError as error:
            raise TrafficError(
                f"The endpoint file {self._path} cannot be read: {error.strerror}. Check "
                "deploy_envoy_eds_path and that the task runs on the proxy's host as a user who "
                "may read it."
            ) from error
        except ValueError as error:
            raise TrafficError(
                f"The endpoint file {self._path} is not JSON ({error}). Bascule rewrites this "
                "file and keeps to JSON; convert it if it is YAML."
            ) from error
        return content, find_assignment(content, self._service_name, self._path)

    def _hosts(self) -> dict[Endpoint, dict[str, Any]]:
        clusters = self._admin.get("/clusters?format=json").get("cluster_statuses", [])
        for cluster in clusters:
            if cluster.get("name") == self._cluster:
                return {
                    place: host
                    for host in cluster.get("host_statuses", [])
                    for place in [socket_address(host.get("address", {}))]
                    if place is not None
                }
        names = ", ".join(sorted(cluster.get("name", "?") for cluster in clusters))
        raise TrafficError(
            f"Envoy at {self._admin.place} has no cluster {self._cluster!r}; it has "
            f"{names or 'none'}. Set deploy_envoy_cluster, and see that its endpoint file was "
            "accepted."
        )

    def _merge_window(self) -> float:
        try:
            dump = self._dump()
        except TrafficError:
            return DEFAULT_MERGE_WINDOW
        return merge_window(dump, self._cluster)

    def _dump(self) -> dict[str, Any]:
        dump = self._admin.get("/config_dump?resource=dynamic_active_clusters")
        dump.setdefault("configs", []).extend(
            self._admin.get("/config_dump?resource=static_clusters").get("configs", [])
        )
        return dump


def read_host(ordered: str, host: dict[str, Any] | None) -> Seen:
    """Return an endpoint's state from the file's order and its entry of ``/clusters``."""
    drained = ordered not in SERVING
    if host is None:
        # In the file and not in Envoy: not taken up yet, or refused.
        return ABSENT._replace(
            known=True,
            drained=drained,
            held=drained,
            blocked=drained,
            state=f"{ordered} in the file, unknown to Envoy",
        )
    health = host.get("health_status", {})
    shown = health.get("eds_health_status", "UNKNOWN")
    failing = [words for flag, words in FAILING.items() if health.get(flag)]
    stats = {stat["name"]: int(stat.get("value", 0)) for stat in host.get("stats", [])}
    taken_up = drained == (shown not in SERVING)
    return Seen(
        known=True,
        drained=drained,
        held=drained,
        blocked=shown not in SERVING,
        in_service=not drained and shown in SERVING and not failing,
        state=", ".join([shown] + failing + ([] if taken_up else [f"{ordered} in the file"])),
        active=stats.get("rq_active", 0) + stats.get("rq_pending_active", 0),
        served=stats.get("rq_total", 0),
        answered=stats.get("rq_success", 0) + stats.get("rq_error", 0),
        errors=stats.get("rq_error", 0),
    )


def merge_window(dump: dict[str, Any], cluster: str) -> float:
    """Return the cluster's ``update_merge_window`` in seconds out of a configuration dump."""
    for config in dump.get("configs", []):
        inner = config.get("cluster", {})
        if inner.get("name") == cluster:
            window = inner.get("common_lb_config", {}).get("update_merge_window")
            return DEFAULT_MERGE_WINDOW if window is None else float(str(window).rstrip("s"))
    return DEFAULT_MERGE_WINDOW


def by_turns(dump: dict[str, Any], cluster: str) -> bool:
    """Tell whether a cluster's endpoints take turns by their weights, out of a configuration dump.

    Envoy's default, ROUND_ROBIN, is not in the dump; with zones or subsets it is not all.
    """
    for config in dump.get("configs", []):
        inner = config.get("cluster", {})
        if inner.get("name") == cluster:
            # An empty message is still a choice.
            other = {"load_balancing_policy", "lb_subset_config"} & set(inner)
            zoned = "locality_weighted_lb_config" in inner.get("common_lb_config", {})
            policy = inner.get("lb_policy", "ROUND_ROBIN")
            return bool(policy == "ROUND_ROBIN" and not other and not zoned)
    return False


def resolve(address: str) -> list[str]:
    """Return the addresses behind a name; an address stays itself.

    :raises TrafficError: a name that this host cannot resolve
    """
    with contextlib.suppress(ValueError):
        return [str(ipaddress.ip_address(address))]
    try:
        found = socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise TrafficError(
            f"The proxy's host cannot resolve {address!r} ({error}), and Envoy's endpoints are "
            "addresses. Set deploy_traffic_target_address to the target's IP address."
        ) from error
    # IPv4 first: where nothing is registered yet, the first one will be.
    addresses = sorted(found, key=lambda entry: entry[0] != socket.AF_INET)
    return list(dict.fromkeys(str(entry[4][0]) for entry in addresses))
