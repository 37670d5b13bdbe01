"""A fleet, a load balancer and users on one machine, to see a deployment at work."""

from __future__ import annotations


def main() -> int:
    """Run the demonstration; see ``bascule.demo._story``."""
    from bascule.demo._story import main as tell

    return tell()
