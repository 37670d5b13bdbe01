"""A fleet on this machine: a folder for a host, a port on loopback for its application."""

from __future__ import annotations

import http.client
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bascule.demo._processes import end_foreign

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

GROUP = "targets"


@dataclass(frozen=True)
class Host:
    """A target: its file system is ``sysroot``, its application listens on ``port``."""

    name: str
    sysroot: Path
    port: int

    def break_health(self, version: str) -> None:
        """Let the health check of this version fail on this target only."""
        (self.sysroot / "etc/hello/broken").write_text(f"{version}\n", encoding="utf-8")

    def version(self) -> str:
        """Ask the application, past the load balancer; empty where none answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/")
            return connection.getresponse().headers.get("X-Version") or ""
        except (OSError, http.client.HTTPException):
            return ""
        finally:
            connection.close()

    def stop_application(self) -> None:
        """End the application, whatever a deployment has left running."""
        pid_file = self.sysroot / "var/run/hello/hello.pid"
        try:
            pid = int(pid_file.read_text(encoding="utf-8"))
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return
        if str(self.sysroot).encode() in command:
            end_foreign(pid)


class Fleet:
    """The targets and the inventory that names them."""

    def __init__(self, directory: Path, ports: Sequence[int]) -> None:
        """Name the targets ``web-1`` and so on; nothing is written yet."""
        self.directory = directory
        self.hosts = [
            Host(f"web-{number}", directory / f"web-{number}", port)
            for number, port in enumerate(ports, start=1)
        ]
        self.inventory = directory / "inventory"

    def write(self, variables: Mapping[str, Any]) -> None:
        """Write the targets' configuration and the inventory.

        :param variables: what is the same on every target
        """
        import yaml

        for host in self.hosts:
            configuration = host.sysroot / "etc/hello"
            configuration.mkdir(parents=True)
            (configuration / "listen").write_text(f"127.0.0.1:{host.port}\n", encoding="utf-8")
        hosts = {
            host.name: {
                "deploy_sysroot": str(host.sysroot),
                "deploy_traffic_target_port": host.port,
            }
            for host in self.hosts
        }
        everywhere = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "deploy_traffic_target_address": "127.0.0.1",
            **variables,
        }
        folder = self.inventory / "group_vars"
        folder.mkdir(parents=True)
        for path, content in (
            (self.inventory / "hosts.yml", {GROUP: {"hosts": hosts}}),
            (folder / f"{GROUP}.yml", everywhere),
        ):
            path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")

    def versions(self) -> dict[str, str]:
        """Ask every application for its version."""
        return {host.name: host.version() for host in self.hosts}

    def stop(self) -> None:
        """End every application."""
        for host in self.hosts:
            host.stop_application()
