# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""The audit's chains: how a link is sealed, and where a chain is broken.

A link is a row: ``FIELDS`` and ``hash``. Its hash is the SHA-256, in lowercase hexadecimal digits,
of its canonical form: the values of ``FIELDS`` in that order as one JSON array, without blanks, all
that is not ASCII escaped as ``\uXXXX`` (surrogate pairs above U+FFFF), numbers as the ``repr`` of
Python writes them (``sequence`` a whole number, ``at`` a float: 1700000000.0). ``previous_hash`` is
the hash of the link before, and the empty text in the first one; ``sequence`` counts from 1 without
gaps. ``detail`` is JSON in the same form with sorted keys, but counts here as the text it is.

There is a chain for each deployment, named by its id, and the chain ``main`` for the record as a
whole. ``main`` has a link for the beginning of every other chain, and one for the end of every
deployment, which holds length and hash of that deployment's chain.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAIN = "main"
FIELDS = (
    "chain", "sequence", "at", "actor", "origin", "action", "application", "deployment_group",
    "deployment_id", "target", "digest", "plan_hash", "why", "detail", "previous_hash",
)  # fmt: skip
COLUMNS = (*FIELDS, "hash")
# The first link of a chain has no link before it.
START = ""

# Links of ``main`` that begin a chain (of the deployment they name), and those that end it.
BEGINNINGS = ("DeploymentCreated", "DeploymentAdopted")
ENDING = "DeploymentEnded"

Link = dict[str, Any]


@dataclass(frozen=True)
class Head:
    """Where a chain ends: how many links it has, and the hash of the last one."""

    length: int
    hash: str


@dataclass(frozen=True)
class Broken:
    """The first link of a chain that is not as it was written.

    ``field`` is the column that was changed, where that can be told; ``sequence`` is None where no
    single link is to blame.
    """

    chain: str
    sequence: int | None
    field: str | None
    message: str

    def text(self) -> str:
        """Say it in one sentence."""
        where = f"chain {self.chain}"
        if self.sequence is not None:
            where += f", link {self.sequence}"
        if self.field is not None:
            where += f", field {self.field}"
        return f"{where}: {self.message}"

    def as_dict(self) -> dict[str, Any]:
        """Return the same as plain data, for JSON."""
        return asdict(self)


def canonical_json(value: object) -> str:
    """Return a value in the form that hashes are made of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=repr)


def hash_of(link: Mapping[str, Any]) -> str:
    """Return the hash that a link must have; what it has as ``hash`` is not looked at."""
    return _digest([link.get(name) for name in FIELDS])


def _digest(values: list[Any]) -> str:
    return hashlib.sha256(canonical_json(values).encode("ascii")).hexdigest()


def seal(link: Mapping[str, Any], chain: str, head: Head) -> Link:
    """Return the link as it follows the head of its chain; fields that it lacks are empty."""
    sealed = {name: link.get(name, "") for name in FIELDS}
    sealed["at"] = float(sealed["at"])
    sealed.update(chain=chain, sequence=head.length + 1, previous_hash=head.hash)
    return {**sealed, "hash": hash_of(sealed)}


def verify_chain(
    chain: str,
    links: Sequence[Mapping[str, Any]],
    head: Head | None,
    *,
    pins: Mapping[int, str] | None = None,
    first: int = 1,
) -> Broken | None:
    """Return where a chain is broken, None where it is whole.

    :param links: all links, in the order they are kept in
    :param head: where it ends as ``audit_heads`` has it, None if that has no such chain
    :param pins: hashes that links are known to have from another chain, by their sequence
    :param first: the sequence of the first of ``links``; above 1, what came before is not known
    """
    previous = START if first == 1 else str(links[0].get("previous_hash")) if links else START
    for index, link in enumerate(links):
        wanted = first + index
        after = links[index + 1] if index + 1 < len(links) else None
        claimed = after.get("previous_hash") if after else head.hash if head else None
        before = links[index - 1] if index else None
        broken = _broken_link(
            link, chain, wanted, previous, [one for one in (before, after) if one], claimed
        )
        if broken is not None:
            return broken
        pinned = (pins or {}).get(wanted)
        if pinned is not None and pinned != link["hash"]:
            return Broken(
                chain, wanted, None, f"chain {MAIN} says that this link has the hash {pinned}."
            )
        previous = link["hash"]
    return _broken_end(chain, first + len(links) - 1, previous, head, pins or {})


def _broken_link(
    link: Mapping[str, Any],
    chain: str,
    wanted: int,
    previous: str,
    neighbours: Sequence[Mapping[str, Any]],
    claimed: str | None,
) -> Broken | None:
    """Judge one link; ``claimed`` is the hash that what comes after it says it has."""
    if hash_of(link) == link.get("hash"):
        found = link.get("sequence")
        if link.get("chain") != chain:
            return Broken(chain, wanted, None, f"it belongs to the chain {link.get('chain')}.")
        if found != wanted:
            seen = f"link {found} stands where link {wanted} should be"
            missing = isinstance(found, int) and found > wanted
            reason = "one was removed or moved" if missing else "one was moved or doubled"
            return Broken(chain, wanted, None, f"{seen}: {reason}.")
        if link["previous_hash"] != previous:
            return Broken(
                chain, wanted, "previous_hash",
                "it does not follow the link before it: one of both was replaced.",
            )  # fmt: skip
        return None
    field = _changed_field(link, chain, wanted, previous, neighbours, claimed)
    message = (
        "it was changed after it was written"
        if field
        else ("its content does not fit its hash: one or more of its fields were changed")
    )
    return Broken(chain, wanted, field, f"{message}.")


def _changed_field(
    link: Mapping[str, Any],
    chain: str,
    wanted: int,
    previous: str,
    neighbours: Sequence[Mapping[str, Any]],
    claimed: str | None,
) -> str | None:
    """Tell which field was changed, by finding the value that makes the hash fit again."""
    if hash_of(link) == claimed:
        return "hash"
    guesses: list[tuple[str, Any]] = [
        ("previous_hash", previous), ("sequence", wanted), ("chain", chain),
        ("deployment_id", chain),
    ]  # fmt: skip
    guesses += [(name, one.get(name)) for name in FIELDS for one in neighbours]
    guesses += [(name, "") for name in FIELDS]
    for name, value in guesses:
        if hash_of({**link, name: value}) == link.get("hash"):
            return name
    return None


def _broken_end(
    chain: str, length: int, last: str, head: Head | None, pins: Mapping[int, str]
) -> Broken | None:
    if head is None:
        return Broken(chain, None, None, "its end is not written down any more.")
    if head.length > length:
        return Broken(
            chain, length + 1, None,
            f"it is missing: the chain had {head.length} links and has {length}.",
        )  # fmt: skip
    if head.length < length:
        return Broken(
            chain, head.length + 1, None,
            f"the chain has {length} links, but {head.length} when it was written to last.",
        )  # fmt: skip
    if head.hash != last:
        return Broken(chain, length, None, f"the end of the chain is said to be {head.hash}.")
    beyond = sorted(sequence for sequence in pins if sequence > length)
    if beyond:
        return Broken(chain, length + 1, None, f"chain {MAIN} knows of {beyond[-1]} links.")
    return None


def pins_of(links: Sequence[Mapping[str, Any]]) -> dict[str, dict[int, str]]:
    """Return the chains that the whole chain ``main`` knows, with the hashes it has of each."""
    known: dict[str, dict[int, str]] = {}
    for link in links:
        if link["action"] in BEGINNINGS:
            known.setdefault(link["deployment_id"], {})
        elif link["action"] == ENDING:
            end = json.loads(link["detail"])["chain"]
            known.setdefault(link["deployment_id"], {})[end["length"]] = end["hash"]
    return known


def broken_set(known: Mapping[str, Any], there: Sequence[str]) -> Broken | None:
    """Return the first chain that was removed as a whole, or that nobody has begun."""
    for chain in known:
        if chain not in there:
            return Broken(chain, 1, None, f"the whole chain is missing; chain {MAIN} knows it.")
    for chain in there:
        if chain != MAIN and chain not in known:
            return Broken(chain, 1, None, f"chain {MAIN} does not know this chain: it was added.")
    return None
