# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Envoy's endpoint file (EDS) as data: find a cluster in it, set a health status, replace it.

Everything in the file that is not the health status of a named endpoint stays as it is, in either
spelling that protobuf's JSON has (``lb_endpoints`` or ``lbEndpoints``).

This file runs on hosts: Python 3.8 and the standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .._errors import TrafficError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# envoy.config.core.v3.HealthStatus by number, as protobuf's JSON may have it.
HEALTH_STATUS = ("UNKNOWN", "HEALTHY", "UNHEALTHY", "DRAINING", "TIMEOUT", "DEGRADED")
SERVING = ("UNKNOWN", "HEALTHY", "DEGRADED")

LOCK_SECONDS = 10.0


class Endpoint(NamedTuple):
    """Where an endpoint listens, as Envoy writes it."""

    address: str
    port: int


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
        name = get_field(inner, "cluster_name", "")
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
            endpoint[spelling(endpoint, "health_status")] = status
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
    localities[0].setdefault(spelling(localities[0], "lb_endpoints"), []).append(added)


@contextlib.contextmanager
def locked(directory: str, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold the lock that all writers of a directory share.

    The directory itself is locked: a lock file would be one more file in a folder Envoy watches.

    :raises TrafficError: another process keeps the lock, or this user may not read the directory
    """
    deadline = time.monotonic() + seconds
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError as error:
        raise TrafficError(
            f"The directory {directory} cannot be opened: {error.strerror}. "
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
                        f"Another process has kept {directory} locked for {seconds:g} s. "
                        "Look for a hanging deployment on this host (fuser names it)."
                    ) from error
                time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def replace_file(path: str, text: str, what: str = "endpoint file") -> None:
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
            f"The {what} {path} cannot be replaced: {error.strerror}. The task's user "
            f"needs write permission on the directory {directory}, or become."
        ) from error


def _endpoints(assignment: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for locality in assignment.get("endpoints", []):
        yield from get_field(locality, "lb_endpoints", [])


def _place(endpoint: dict[str, Any]) -> Endpoint | None:
    return socket_address(endpoint.get("endpoint", {}).get("address", {}))


def socket_address(address: dict[str, Any]) -> Endpoint | None:
    """Return (address, port), or None for a pipe or an internal address."""
    found = get_field(address, "socket_address", {})
    port = get_field(found, "port_value", None)
    if "address" not in found or port is None:
        return None
    text = str(found["address"])
    with contextlib.suppress(ValueError):
        text = str(ipaddress.ip_address(text))
    return Endpoint(text, int(port))


def _status(endpoint: dict[str, Any]) -> str:
    status = get_field(endpoint, "health_status", "UNKNOWN")
    if isinstance(status, int):
        return HEALTH_STATUS[status] if 0 <= status < len(HEALTH_STATUS) else str(status)
    return str(status)


def spelling(data: dict[str, Any], name: str) -> str:
    """Return the spelling that the data uses: ``lb_endpoints`` or ``lbEndpoints``."""
    first, *rest = name.split("_")
    camel = first + "".join(word.capitalize() for word in rest)
    return camel if camel in data else name


def get_field(data: dict[str, Any], name: str, default: Any) -> Any:
    """Return a field of protobuf's JSON in either spelling."""
    return data.get(spelling(data, name), default)
