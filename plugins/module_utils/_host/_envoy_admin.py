# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Envoy's administration: questions over HTTP to an address or a unix socket.

This file runs on hosts: Python 3.8 and the standard library only.
"""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any
from urllib.parse import urlsplit

from .._errors import TrafficError, UsageError

ADMIN_SECONDS = 5.0


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


class Admin:
    """One Envoy's administration.

    :ivar place: its address, for messages
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        host, port = address
        self.place = f"{host}:{port}" if port else host

    def get(self, path: str) -> dict[str, Any]:
        """Return the JSON object behind a path."""
        connection = _AdminConnection(self._address)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
            if response.status != http.client.OK:
                raise TrafficError(
                    f"Envoy's administration at {self.place} answered {response.status} to "
                    f"{path}: {body[:200].decode('utf-8', 'replace').strip()}. Check "
                    "deploy_envoy_admin_url."
                )
            content = json.loads(body)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise TrafficError(
                f"Envoy's administration at {self.place} does not answer: {error}. Check that "
                "Envoy runs, that its configuration has 'admin' at this address, and that the "
                "task runs on the proxy's host."
            ) from error
        finally:
            connection.close()
        if not isinstance(content, dict):
            raise TrafficError(
                f"{self.place} answered something else than Envoy's administration. Check "
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
