# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Envoy by its endpoint file (EDS): a cluster's endpoints are drained and made healthy again.

The file is changed under a lock and replaced by a rename, which is what Envoy watches for; what
came of it is read from the administration's ``/clusters``. Measured on Envoy 1.40: ``rq_active``
counts a host's open requests and not its kept-alive connections, ``rq_pending_active`` those that
wait for a connection to it (older versions have that for the cluster only). Everything in the file
that is not the health status of a named endpoint stays as it is, in either spelling that protobuf's
JSON has (``lb_endpoints`` or ``lbEndpoints``).

This file runs on hosts: Python 3.8 and the standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import ipaddress
import json
import os
import socket
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from .._errors import TrafficError, UsageError
from ._balancer import ABSENT, Balancer, Seen, Target, read_options

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# envoy.config.core.v3.HealthStatus by number, as protobuf's JSON may have it.
HEALTH_STATUS = ("UNKNOWN", "HEALTHY", "UNHEALTHY", "DRAINING", "TIMEOUT", "DEGRADED")
SERVING = ("UNKNOWN", "HEALTHY", "DEGRADED")

# Health flags of /clusters that keep requests away from a host.
FAILING = {
    "failed_active_health_check": "fails its health check",
    "failed_outlier_check": "ejected as an outlier",
    "pending_active_hc": "waits for its first health check",
    "excluded_via_immediate_hc_fail": "asked to be left out",
}

ADMIN_SECONDS = 5.0
LOCK_SECONDS = 10.0

# cluster.proto, CommonLbConfig.update_merge_window: Envoy may hold changes of health back from its
# workers for up to this long, while /clusters shows them at once. (Changes of the endpoint file
# were not seen to be held back by 1.40, but nothing promises that.)
DEFAULT_MERGE_WINDOW = 1.0
WORKER_SECONDS = 0.25


class Endpoint(NamedTuple):
    """Where an endpoint listens, as Envoy writes it."""

    address: str
    port: int


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


def parse_admin_url(url: str) -> tuple[str, int]:
    """Return (host, port) of ``http://host:port``, or (path, 0) of ``unix:///path``.

    :raises UsageError: another kind of URL
    """
    try:
        parts = urlsplit(url)
        port = parts.port or 80
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme == "unix" and parts.path.startswith("/"):
        return parts.path, 0
    if parts.scheme == "http" and parts.hostname:
        return parts.hostname, port
    raise UsageError(f"deploy_envoy_admin_url is {url!r}, wanted http://HOST:PORT or unix:///PATH.")


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
        self._address = address
        self._targets = list(targets)
        self._resolved: dict[str, list[str]] = {}
        self._known: list[str] = []
        host, port = address
        self._place = f"{host}:{port}" if port else host
        self.where = f"Envoy cluster {cluster} ({self._place})"

    def observe(self) -> dict[str, Seen]:
        """Read the file and ask the administration, once each."""
        statuses = endpoint_statuses(self._read()[1])
        hosts = self._hosts()
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
            replace_file(self._path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

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
        clusters = self._get("/clusters?format=json").get("cluster_statuses", [])
        for cluster in clusters:
            if cluster.get("name") == self._cluster:
                return {
                    place: host
                    for host in cluster.get("host_statuses", [])
                    for place in [_socket_address(host.get("address", {}))]
                    if place is not None
                }
        names = ", ".join(sorted(cluster.get("name", "?") for cluster in clusters))
        raise TrafficError(
            f"Envoy at {self._place} has no cluster {self._cluster!r}; it has {names or 'none'}. "
            "Set deploy_envoy_cluster, and see that its endpoint file was accepted."
        )

    def _merge_window(self) -> float:
        try:
            dump = self._get("/config_dump?resource=dynamic_active_clusters")
            dump.setdefault("configs", []).extend(
                self._get("/config_dump?resource=static_clusters").get("configs", [])
            )
        except TrafficError:
            return DEFAULT_MERGE_WINDOW
        return merge_window(dump, self._cluster)

    def _get(self, path: str) -> dict[str, Any]:
        connection = _AdminConnection(self._address)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
            if response.status != http.client.OK:
                raise TrafficError(
                    f"Envoy's administration at {self._place} answered {response.status} to "
                    f"{path}: {body[:200].decode('utf-8', 'replace').strip()}. Check "
                    "deploy_envoy_admin_url."
                )
            content = json.loads(body)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise TrafficError(
                f"Envoy's administration at {self._place} does not answer: {error}. Check that "
                "Envoy runs, that its configuration has 'admin' at this address, and that the "
                "task runs on the proxy's host."
            ) from error
        finally:
            connection.close()
        if not isinstance(content, dict):
            raise TrafficError(
                f"{self._place} answered something else than Envoy's administration. Check "
                "deploy_envoy_admin_url."
            )
        return content


class _AdminConnection(http.client.HTTPConnection):
    """HTTP to an address, or to a unix socket where the port is 0."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._unix_path = "" if address[1] else address[0]
        super().__init__(*(("localhost", 80) if self._unix_path else address))
        self.timeout = ADMIN_SECONDS

    def connect(self) -> None:
        if not self._unix_path:
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(ADMIN_SECONDS)
        self.sock.connect(self._unix_path)


def find_assignment(content: Any, service_name: str, path: str) -> dict[str, Any]:
    """Return the ClusterLoadAssignment of this name out of a file's content.

    :raises TrafficError: another kind of file, or another cluster's
    """
    resources = content.get("resources") if isinstance(content, dict) else None
    if not isinstance(resources, list):
        raise TrafficError(
            f"{path} is not an endpoint file of Envoy: it has no list 'resources'. Check "
            "deploy_envoy_eds_path."
        )
    names = []
    for resource in resources:
        # A resource may be wrapped to carry a name of its own (discovery.v3.Resource).
        inner = resource.get("resource", resource)
        name = _get(inner, "cluster_name", "")
        if name == service_name:
            found: dict[str, Any] = inner
            return found
        names.append(name)
    raise TrafficError(
        f"{path} has no endpoints of {service_name!r}, but of {', '.join(names) or 'nothing'}. "
        "Check deploy_envoy_eds_path and deploy_envoy_cluster."
    )


def endpoint_statuses(assignment: dict[str, Any]) -> dict[Endpoint, str]:
    """Return the health status that the file gives each endpoint, by (address, port)."""
    return {
        place: _status(endpoint)
        for endpoint in _endpoints(assignment)
        for place in [_place(endpoint)]
        if place is not None
    }


def set_status(
    assignment: dict[str, Any], places: Sequence[Endpoint], status: str, weight: int | None
) -> None:
    """Give the endpoints at these places a status, in place; add the first one if none is there."""
    found = False
    for endpoint in _endpoints(assignment):
        if _place(endpoint) in places:
            endpoint[_key(endpoint, "health_status")] = status
            found = True
    if found:
        return
    address, port = places[0]
    added: dict[str, Any] = {
        "endpoint": {"address": {"socket_address": {"address": address, "port_value": port}}},
        "health_status": status,
    }
    if weight is not None:
        added["load_balancing_weight"] = weight
    localities = assignment.setdefault("endpoints", [])
    if not localities:
        localities.append({})
    localities[0].setdefault(_key(localities[0], "lb_endpoints"), []).append(added)


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
    )


def merge_window(dump: dict[str, Any], cluster: str) -> float:
    """Return the cluster's ``update_merge_window`` in seconds out of a configuration dump."""
    for config in dump.get("configs", []):
        inner = config.get("cluster", {})
        if inner.get("name") == cluster:
            window = inner.get("common_lb_config", {}).get("update_merge_window")
            return DEFAULT_MERGE_WINDOW if window is None else float(str(window).rstrip("s"))
    return DEFAULT_MERGE_WINDOW


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


@contextlib.contextmanager
def locked(directory: str) -> Iterator[None]:
    """Hold the lock that all writers of a directory share.

    The directory itself is locked: a lock file would be one more file in a folder Envoy watches.

    :raises TrafficError: another process keeps the lock, or this user may not read the directory
    """
    deadline = time.monotonic() + LOCK_SECONDS
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError as error:
        raise TrafficError(
            f"The directory {directory} of the endpoint file cannot be opened: {error.strerror}. "
            "The task's user needs read and write permission on it, or become."
        ) from error
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    raise TrafficError(
                        f"Another process has kept {directory} locked for {LOCK_SECONDS:g} s. "
                        "Look for a hanging deployment on this host (fuser names it)."
                    ) from error
                time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def replace_file(path: str, text: str) -> None:
    """Put text in place of a file, as a whole or not at all, with the file's owner and mode.

    :raises TrafficError: no permission, no space
    """
    directory = Path(path).parent
    temporary = ""
    try:
        before = Path(path).stat()
        descriptor, temporary = tempfile.mkstemp(prefix=f".{Path(path).name}.", dir=str(directory))
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), before.st_mode & 0o7777)
            with contextlib.suppress(PermissionError):
                os.fchown(file.fileno(), before.st_uid, before.st_gid)
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except OSError as error:
        if temporary:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
        raise TrafficError(
            f"The endpoint file {path} cannot be replaced: {error.strerror}. The task's user "
            f"needs write permission on the directory {directory}, or become."
        ) from error


def _endpoints(assignment: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for locality in assignment.get("endpoints", []):
        yield from _get(locality, "lb_endpoints", [])


def _place(endpoint: dict[str, Any]) -> Endpoint | None:
    return _socket_address(endpoint.get("endpoint", {}).get("address", {}))


def _socket_address(address: dict[str, Any]) -> Endpoint | None:
    """Return (address, port), or None for a pipe or an internal address."""
    found = _get(address, "socket_address", {})
    port = _get(found, "port_value", None)
    if "address" not in found or port is None:
        return None
    text = str(found["address"])
    with contextlib.suppress(ValueError):
        text = str(ipaddress.ip_address(text))
    return Endpoint(text, int(port))


def _status(endpoint: dict[str, Any]) -> str:
    status = _get(endpoint, "health_status", "UNKNOWN")
    if isinstance(status, int):
        return HEALTH_STATUS[status] if 0 <= status < len(HEALTH_STATUS) else str(status)
    return str(status)


def _key(data: dict[str, Any], name: str) -> str:
    """Return the spelling that the data uses: ``lb_endpoints`` or ``lbEndpoints``."""
    first, *rest = name.split("_")
    camel = first + "".join(word.capitalize() for word in rest)
    return camel if camel in data else name


def _get(data: dict[str, Any], name: str, default: Any) -> Any:
    return data.get(_key(data, name), default)
