"""Applications behind a real proxy, and the host program's view of them."""

from __future__ import annotations

import contextlib
import urllib.request
from typing import TYPE_CHECKING, Any

from ansible_collections.bascule.deploy.plugins.module_utils._host import _traffic
from support import proxies
from support.users import start_users

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

START = {
    "envoy": proxies.start_envoy,
    "haproxy": proxies.start_haproxy,
    "nginx": proxies.start_nginx,
}
# The page's checks are every 2 s; tests have less time.
QUICK = {
    "envoy": {"interval: 2s": "interval: 0.2s"},
    "nginx": {},
    "haproxy": {"inter 2s fastinter 500ms downinter 500ms": "inter 200ms"},
}


class Site:
    """Some applications behind one proxy."""

    def __init__(self, provider: str, directory: Path, count: int, changes: dict[str, str]) -> None:
        self.endpoints = {
            name: proxies.Endpoint(name, "127.0.0.1", proxies.free_port())
            for name in (f"web-{number}" for number in range(1, count + 1))
        }
        self.applications: dict[str, subprocess.Popen[bytes]] = {}
        self.loads: list[subprocess.Popen[bytes]] = []
        self.directory = directory
        self.provider = provider
        self.changes = {**QUICK[provider], **changes}
        self._proxy: proxies.Proxy | None = None

    @property
    def proxy(self) -> proxies.Proxy:
        if self._proxy is None:
            self._proxy = START[self.provider](
                self.directory, list(self.endpoints.values()), changes=self.changes
            )
        return self._proxy

    def open(self) -> Site:
        for name in self.endpoints:
            self.start(name, "1")
        self.call("restore", *self.endpoints)
        return self

    def request(self, action: str, *names: str, **more: Any) -> dict[str, Any]:
        return {
            "operation": "traffic",
            "action": action,
            "provider": self.provider,
            "provider_options": self.proxy.options,
            "targets": [
                {"name": name, "address": endpoint.address, "port": endpoint.port}
                for name, endpoint in self.endpoints.items()
                if name in names
            ],
            "drain_timeout": 60,
            "restore_timeout": 60,
            **more,
        }

    def call(self, action: str, *names: str, **more: Any) -> dict[str, Any]:
        return _traffic.run(self.request(action, *names, **more))

    def state(self, name: str) -> dict[str, Any]:
        state: dict[str, Any] = self.call("observe", name)["targets"][name]
        return state

    def start(self, name: str, version: str) -> None:
        self.applications[name] = proxies.start_backend(self.endpoints[name].port, version)

    def kill(self, name: str) -> None:
        proxies.stop(self.applications[name])

    def load(self, path: str, rate: float) -> Callable[[], dict[str, Any]]:
        """Start users; the function that is returned ends them and gives their report."""
        report = self.directory / f"load-{len(self.loads)}.json"
        return start_users(self.proxy.url + path, rate, report, self.loads)

    def ports(self, *names: str) -> list[int]:
        """Return the ports of these applications, of all if none is named."""
        return [self.endpoints[name].port for name in names or self.endpoints]

    def get(self, path: str = "/") -> str:
        with urllib.request.urlopen(self.proxy.url + path, timeout=60) as answer:  # noqa: S310
            return str(answer.read().decode())

    def close(self) -> None:
        for process in [*self.loads, *self.applications.values()]:
            proxies.stop(process)
        if self._proxy is not None:
            self._proxy.stop()


@contextlib.contextmanager
def sites(directory: Path) -> Iterator[Callable[..., Site]]:
    """Give a function that makes sites: ``(provider, count=2, changes=None)``; stop them all."""
    made: list[Site] = []

    def make(provider: str, count: int = 2, changes: dict[str, str] | None = None) -> Site:
        made.append(Site(provider, directory / provider, count, changes or {}))
        return made[-1].open()

    try:
        yield make
    finally:
        for site in made:
            site.close()
