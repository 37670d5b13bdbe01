# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit in the record: links are added in the transaction of what they tell, and read again.

The chain of a deployment is written with the deployment's row locked, so it costs nobody a wait.
``main`` is locked last in a transaction, and only where a deployment begins or ends or a revision
is marked.
"""

from __future__ import annotations

import functools
import json
import os
from typing import TYPE_CHECKING, Any

from ...module_utils._audit import (
    BEGINNINGS,
    COLUMNS,
    MAIN,
    START,
    Broken,
    Head,
    Link,
    broken_set,
    canonical_json,
    pins_of,
    seal,
    verify_chain,
)
from ...module_utils._errors import RecordError
from ._holder import host
from ._session import DuplicateError, Query

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._session import Adder, Session

_TAMPERED = "It was changed by something else than Bascule; `bascule audit verify` tells where."


@functools.cache
def actor() -> str:
    """Return the user whose process this is, by its id and not by what the environment says."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


@functools.cache
def origin() -> str:
    """Return this machine and, in a session over SSH, the address that it comes from."""
    client = os.environ.get("SSH_CONNECTION", "").split(" ")[0]
    return f"{host()} (from {client})" if client else host()


def entry(
    action: str, now: float, *, detail: dict[str, Any] | None = None, **fields: str | None
) -> Link:
    """Return what a link tells; ``fields`` are columns of it, what is missing is empty."""
    told: Link = {name: value or "" for name, value in fields.items()}
    given = canonical_json(detail or {})
    return {
        "at": now,
        "actor": actor(),
        "origin": origin(),
        "action": action,
        "detail": given,
    } | told


def more(link: Link, detail: dict[str, Any]) -> None:
    """Add to the detail of a link that is not sealed yet."""
    if detail:
        link["detail"] = canonical_json({**json.loads(link["detail"]), **detail})


def begin(session: Adder, action: str, now: float, detail: dict[str, Any]) -> None:
    """Write the first link of ``main`` into a record that has none."""
    first = seal(entry(action, now, detail=detail), MAIN, Head(0, START))
    session.insert("audit", [first])
    session.insert("audit_heads", [{"chain": MAIN, "length": 1, "hash": first["hash"]}])


def append(session: Session, chain: str, entries: Sequence[Link]) -> Head:
    """Add links to a chain, and return its new head; nobody else may write to it meanwhile.

    :raises RecordError: the chain was tampered with
    """
    query = Query(table="audit_heads", columns=("length", "hash"), equals={"chain": chain})
    # The chain of a deployment is locked with the deployment's row.
    found = session.locked(query) if chain == MAIN else session.rows(query)
    if chain == MAIN and not found:
        raise RecordError(f"The audit of the record has no chain {MAIN} any more. {_TAMPERED}")
    head = Head(found[0]["length"], found[0]["hash"]) if found else Head(0, START)
    links = []
    for one in entries:
        links.append(seal(one, chain, head))
        head = Head(head.length + 1, links[-1]["hash"])
    try:
        session.insert("audit", links)
        if found:
            session.update("audit_heads", {"length": head.length, "hash": head.hash}, chain=chain)
        else:
            new = {"chain": chain, "length": head.length, "hash": head.hash}
            session.insert("audit_heads", [new])
    except DuplicateError as error:
        raise RecordError(
            f"The audit's chain {chain} is longer than it should be. {_TAMPERED}"
        ) from error
    return head


def links(session: Session, chain: str, after: int = 0, limit: int | None = None) -> list[Link]:
    """Return the links of a chain whose sequence is above ``after``, in order."""
    query = Query(
        table="audit", columns=COLUMNS, equals={"chain": chain}, above=("sequence", after),
        order=("sequence",), limit=limit,
    )  # fmt: skip
    return session.rows(query)


def newest(session: Session, chain: str | None, limit: int) -> list[Link]:
    """Return the last links of a chain (None: of all chains), the newest first."""
    equals = {} if chain is None else {"chain": chain}
    order = ("-at", "-chain", "-sequence") if chain is None else ("-sequence",)
    return session.rows(
        Query(table="audit", columns=COLUMNS, equals=equals, order=order, limit=limit)
    )


def chains(session: Session) -> list[str]:
    """Return the names of all chains, ``main`` first, the others in the order they were begun."""
    begun = Query(table="audit", columns=("deployment_id",), among=("action", BEGINNINGS),
                  equals={"chain": MAIN}, order=("sequence",))  # fmt: skip
    known = [MAIN, *(row["deployment_id"] for row in session.rows(begun))]
    every = {
        row["chain"]
        for table in ("audit", "audit_heads")
        for row in session.rows(Query(table=table, columns=("chain",), tally=True))
    }
    return [name for name in dict.fromkeys(known) if name in every] + sorted(every - {*known})


def since(session: Session, chain: str, moment: float | None) -> list[Link]:
    """Return the links of a chain from the first one of ``moment`` or later on (None: all)."""
    found = links(session, chain)
    if moment is None:
        return found
    begins = next((place for place, one in enumerate(found) if one["at"] >= moment), len(found))
    return found[begins:]


def verify(session: Session) -> tuple[Broken | None, dict[str, int], Head | None]:
    """Look for the first broken link of the record.

    :returns: it, or None; how many links each whole chain has; the head of ``main``
    """
    heads = {
        row["chain"]: Head(row["length"], row["hash"])
        for row in session.rows(Query(table="audit_heads"))
    }
    names = chains(session)
    lengths: dict[str, int] = {}
    pins: dict[str, dict[int, str]] = {}
    for name in [MAIN, *(one for one in names if one != MAIN)]:
        found = links(session, name)
        broken = verify_chain(name, found, heads.get(name), pins=pins.get(name))
        if broken is None and name == MAIN:
            pins = pins_of(found)
            broken = _beside_the_record(session, found)
        if broken is not None:
            return broken, lengths, heads.get(MAIN)
        lengths[name] = len(found)
    return broken_set(pins, names), lengths, heads.get(MAIN)


def _beside_the_record(session: Session, main: Sequence[Link]) -> Broken | None:
    """Compare ``main`` with the deployments that the record has."""
    base = int(json.loads(main[0]["detail"]).get("deployments", 0)) if main else 0
    if not main or main[0]["action"] not in ("RecordCreated", "RecordUpgraded"):
        return Broken(MAIN, 1, None, "it does not tell of the beginning of the record.")
    created = {one["deployment_id"]: one for one in main if one["action"] == BEGINNINGS[0]}
    query = Query(table="deployments", columns=("number", "id", "digest", "plan_hash"))
    there = {row["id"]: row for row in session.rows(query)}
    for name, row in there.items():
        if row["number"] > base and name not in created:
            return Broken(MAIN, None, None, f"it does not know of the deployment {name}.")
    for name, link in created.items():
        if name not in there:
            return Broken(
                MAIN, link["sequence"], None, f"the record has no deployment {name} any more."
            )
        for column in ("digest", "plan_hash"):
            if (there[name][column] or "") != link[column]:
                return Broken(
                    MAIN, link["sequence"], column,
                    f"the record has another value for {name}: {there[name][column]}.",
                )  # fmt: skip
    return None
