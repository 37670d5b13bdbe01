# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Symbolic links that lead out of a bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# As many as Linux follows.
MAX_HOPS = 40


def leaving(links: Mapping[str, str]) -> list[str]:
    """Return the links that lead out of the bundle, by themselves or through one another.

    :param links: target by path, both with ``/``; paths are relative to the bundle's root
    """
    return [name for name in sorted(links) if _leaves(name, links)]


def refusal(names: list[str], links: Mapping[str, str]) -> str:
    """Return the message for links that leave the bundle."""
    first = names[0]
    more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
    return (
        f"The bundle's link {first!r} leads to {links[first]!r}, which is outside of the bundle"
        f"{more}. Pack what it leads to, make the link in a hook, or allow such links with "
        "deploy_allow_outside_links."
    )


def _leaves(name: str, links: Mapping[str, str]) -> bool:
    rest = name.split("/")
    seen: list[str] = []
    hops = 0
    climbs = False
    while rest:
        part = rest.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            if not seen:
                return True
            seen.pop()
            continue
        seen.append(part)
        target = links.get("/".join(seen))
        if target is None:
            continue
        hops += 1
        climbs = climbs or ".." in target.split("/")
        if target.startswith("/"):
            return True
        if hops > MAX_HOPS:
            # A ring of links leads nowhere, but not everybody who follows one climbing agrees.
            return climbs
        seen.pop()
        rest = target.split("/") + rest
    return False
