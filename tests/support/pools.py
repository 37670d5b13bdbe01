"""Pools of applications behind one real proxy, and the host program's view of them."""

from __future__ import annotations

import contextlib
import http.client
from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ansible_collections.bascule.deploy.plugins.module_utils._host import _traffic
from support import proxies
from support.users import start_users

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

START: dict[str, Callable[[Path, Mapping[str, list[proxies.Endpoint]]], proxies.Proxy]] = {
    "envoy": proxies.start_envoy_pools,
    "haproxy": proxies.start_haproxy_pools,
    "nginx": proxies.start_nginx_pools,
}


class Pools:
    """Applications in pools behind one proxy; each answers with the name of its pool.

    :ivar endpoints: the targets of each pool, by name of pool and target
    """

    def __init__(self, provider: str, directory: Path, names: tuple[str, ...], size: int) -> None:
        self.provider = provider
        self.directory = directory
        self.endpoints = {
            pool: {
                f"{pool}-{number}": proxies.Endpoint(
                    f"{pool}-{number}", "127.0.0.1", proxies.free_port()
                )
                for number in range(1, size + 1)
            }
            for pool in names
        }
        self.applications: dict[str, subprocess.Popen[bytes]] = {}
        self.loads: list[subprocess.Popen[bytes]] = []
        self._proxy: proxies.Proxy | None = None

    @property
    def proxy(self) -> proxies.Proxy:
        if self._proxy is None:
            self._proxy = START[self.provider](
                self.directory,
                {pool: list(targets.values()) for pool, targets in self.endpoints.items()},
            )
        return self._proxy

    def open(self) -> Pools:
        """Start everything; the first pool has all the traffic."""
        for pool, targets in self.endpoints.items():
            for name, endpoint in targets.items():
                self.applications[name] = proxies.start_backend(endpoint.port, pool)
        for pool in self.endpoints:
            self.targets("restore", pool)
        return self

    def pool_options(self, pool: str) -> dict[str, Any]:
        """Return the provider's options for the targets of a pool."""
        options = {k: v for k, v in self.proxy.options.items() if k not in ("pools", *ROUTE_ONLY)}
        return {**options, **self.proxy.options["pools"][pool]}

    def targets(self, action: str, pool: str, *names: str, **more: Any) -> dict[str, Any]:
        """Observe, drain or restore targets of a pool, all if none is named."""
        return _traffic.run(
            {
                "operation": "traffic",
                "action": action,
                "provider": self.provider,
                "provider_options": self.pool_options(pool),
                "targets": [
                    {"name": name, "address": endpoint.address, "port": endpoint.port}
                    for name, endpoint in self.endpoints[pool].items()
                    if name in names or not names
                ],
                "drain_timeout": 30,
                "restore_timeout": 60,
                **more,
            }
        )

    def route(self, routing: dict[str, Any], *, check: bool = False) -> dict[str, Any]:
        """Make a routing so and return the answer."""
        return _traffic.run(
            {
                "operation": "traffic",
                "action": "route",
                "check": check,
                "provider": self.provider,
                "provider_options": self.proxy.options,
                "routing": routing,
            }
        )

    def share(self, **weights: float) -> dict[str, Any]:
        """Share the traffic by weight alone."""
        return self.route({"weights": weights})

    def measure(self) -> dict[str, dict[str, Any]]:
        """Return the pools' counters."""
        answer = _traffic.run(
            {
                "operation": "traffic",
                "action": "measure",
                "provider": self.provider,
                "provider_options": self.proxy.options,
            }
        )
        pools: dict[str, dict[str, Any]] = answer["pools"]
        return pools

    def ask(self, count: int = 1, path: str = "/", **headers: str) -> Counter[str]:
        """Send requests one after another on one connection; count who answered."""
        seen: Counter[str] = Counter()
        with contextlib.closing(self.connection()) as connection:
            for _request in range(count):
                seen[self.ask_on(connection, path, headers)[0]] += 1
        return seen

    def connection(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.proxy.url)
        return http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)

    def ask_on(
        self,
        connection: http.client.HTTPConnection,
        path: str = "/",
        headers: Mapping[str, str] | None = None,
    ) -> tuple[str, list[str]]:
        """Return who answered, and the cookies that were set."""
        connection.request("GET", path, headers=dict(headers or {}))
        with contextlib.closing(connection.getresponse()) as answer:
            body = answer.read().decode()
            return body if answer.status == 200 else f"status {answer.status}", (
                answer.headers.get_all("Set-Cookie") or []
            )

    def load(self, rate: float, path: str = "/") -> Callable[[], dict[str, Any]]:
        """Start users; the function that is returned ends them and gives their report."""
        report = self.directory / f"load-{len(self.loads)}.json"
        return start_users(self.proxy.url + path, rate, report, self.loads)

    def close(self) -> None:
        for process in [*self.loads, *self.applications.values()]:
            proxies.stop(process)
        if self._proxy is not None:
            self._proxy.stop()


# Options that only the routing has, which a pool's targets do not take.
ROUTE_ONLY = ("routes_path", "map_path", "log_path")


@contextlib.contextmanager
def pools(provider: str, directory: Path, *names: str, size: int = 1) -> Iterator[Pools]:
    """Start pools, ``blue`` and ``green`` if none is named, behind a proxy; stop them all."""
    made = Pools(provider, directory / provider, names or ("blue", "green"), size)
    try:
        yield made.open()
    finally:
        made.close()
