"""Two target groups behind one listener of a test load balancer, for whole deployments."""

from __future__ import annotations

import random
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from support import alb, proxies
from support.alb.site import Site

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

# What the API is told reaches the traffic so much later, as with AWS itself; and what the
# deployments wait for it.
PROPAGATION = 2.0
WAITED = "2.5s"
# Longer than any request of these tests.
DEREGISTRATION_SECONDS = 2


@dataclass
class Balancer(proxies.Proxy):
    """The load balancer as a proxy; ``ids`` are the instances of the targets by name."""

    service: alb.Alb
    site: Site
    ids: dict[str, str]

    def stop(self) -> None:
        """Leave the end to ``alb_pools``."""


def addresses(names: Sequence[str]) -> dict[str, str]:
    """Return an address on loopback for each target: members of a group share one port."""
    block = f"127.{random.randrange(1, 255)}.{random.randrange(0, 255)}"  # noqa: S311 - no secret
    return {name: f"{block}.{number}" for number, name in enumerate(names, 1)}


@contextmanager
def alb_pools(
    folder: Path, endpoints: Mapping[str, Sequence[proxies.Endpoint]]
) -> Iterator[Balancer]:
    """Start a load balancer whose listener forwards to the first pool alone."""
    with alb.running(folder / "service", propagation=PROPAGATION) as service:
        site = Site(service)
        port = next(iter(endpoints.values()))[0].port
        groups = {
            pool: site.group(f"shop-{pool}", delay=DEREGISTRATION_SECONDS, Port=port)
            for pool in endpoints
        }
        url = site.listen({next(iter(groups.values())): 1}).rstrip("/")
        options: dict[str, Any] = {
            "listener": site.listener,
            "propagation": WAITED,
            "pools": {pool: {"target_group": arn} for pool, arn in groups.items()},
        }
        ids = {
            one.name: site.instance(one.name, one.address)
            for some in endpoints.values()
            for one in some
        }
        yield Balancer("elbv2", url, options, service.process, service, site, ids)
