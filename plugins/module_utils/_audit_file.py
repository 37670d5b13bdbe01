# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit as a file: JSON lines in the shape of CloudTrail's events, and a last line that seals.

Each line follows from its link and nothing else, so that a line can be made again from what is read
in it and must be the same to the byte. Chains come one after the other, ``main`` first.
"""

from __future__ import annotations

import hashlib
import json
import time
from typing import TYPE_CHECKING, Any

from ._audit import (
    COLUMNS,
    MAIN,
    Broken,
    Head,
    Link,
    broken_set,
    canonical_json,
    pins_of,
    verify_chain,
)
from ._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

EVENT_VERSION = "1.08"
SEAL = "AuditExported"
# Where a line has the fields of a link: those that CloudTrail has a place for, and the others.
_PARAMETERS = {
    "application": "applicationName", "deployment_group": "deploymentGroupName",
    "deployment_id": "deploymentId", "target": "target", "digest": "revisionDigest",
    "plan_hash": "planHash", "why": "why",
}  # fmt: skip
_ADDITIONAL = {
    "chain": "chain", "sequence": "sequence", "at": "at", "previous_hash": "previousHash",
    "hash": "hash",
}  # fmt: skip


def event_of(link: Mapping[str, Any]) -> dict[str, Any]:
    """Return a link in the shape of an event of CloudTrail."""
    return {
        "eventVersion": EVENT_VERSION,
        "userIdentity": {"type": "Unknown", "userName": link["actor"]},
        "eventTime": _iso(link["at"]),
        "eventSource": "bascule",
        "eventName": link["action"],
        "sourceIPAddress": link["origin"],
        "userAgent": "bascule",
        "requestParameters": {there: link[here] for here, there in _PARAMETERS.items()},
        "responseElements": _elements(link["detail"]),
        "additionalEventData": {there: link[here] for here, there in _ADDITIONAL.items()},
        "requestID": f"{link['chain']}/{link['sequence']}",
        "eventID": _identity(str(link["hash"])),
        "eventType": "BasculeRecordChange",
        "eventCategory": "Management",
        "managementEvent": True,
        "readOnly": False,
    }


def link_of(event: Mapping[str, Any]) -> Link:
    """Return the link that an event was made of.

    :raises KeyError: it is no such event (or TypeError)
    """
    parameters, additional = event["requestParameters"], event["additionalEventData"]
    elements = event["responseElements"]
    return {
        "actor": event["userIdentity"]["userName"], "origin": event["sourceIPAddress"],
        "action": event["eventName"],
        "detail": elements if isinstance(elements, str) else canonical_json(elements),
        **{here: parameters[there] for here, there in _PARAMETERS.items()},
        **{here: additional[there] for here, there in _ADDITIONAL.items()},
    }  # fmt: skip


def _iso(at: object) -> str:
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(float(str(at))))
    except (ValueError, OverflowError, OSError):
        return str(at)


def _elements(detail: object) -> Any:
    """Return what ``detail`` says; as the text it is, where that could not be got back."""
    try:
        read = json.loads(str(detail))
    except ValueError:
        return detail
    return read if isinstance(read, dict) and canonical_json(read) == detail else detail


def _identity(text: str) -> str:
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:32]))


def lines_of(
    chains: Iterable[tuple[str, Iterable[Mapping[str, Any]]]], scope: Mapping[str, Any]
) -> Iterator[str]:
    """Write chains as lines, each with its end of line, and the line that seals them.

    :param chains: the name of each chain and its links
    :param scope: what was asked for: ``{"deployment": id or None, "since": seconds or None}``
    """
    digest = hashlib.sha256()
    heads = []
    count = 0
    for name, links in chains:
        first: int | None = None
        last: Mapping[str, Any] = {}
        for link in links:
            line = _line(event_of(link))
            digest.update(line.encode("ascii"))
            count += 1
            first = link["sequence"] if first is None else first
            last = link
            yield line
        if first is not None:
            heads.append([name, first, last["sequence"], last["hash"]])
    yield _line(_seal({"scope": dict(scope), "heads": heads, "lines": count}, digest.hexdigest()))


def _line(event: Mapping[str, Any]) -> str:
    return json.dumps(event, separators=(",", ":"), default=repr) + "\n"


def _seal(summary: dict[str, Any], digest: str) -> dict[str, Any]:
    """Return the last line: where each chain begins and ends, and a hash of all that is in it."""
    content = {**summary, "sha256": digest}
    hashed = hashlib.sha256(canonical_json(content).encode("ascii")).hexdigest()
    return {
        "eventVersion": EVENT_VERSION,
        "eventSource": "bascule",
        "eventName": SEAL,
        "additionalEventData": {**content, "hash": hashed},
    }


def verify_file(content: bytes) -> tuple[Broken | None, dict[str, Any]]:
    """Judge a file that was exported: where it is broken, and what its last line says.

    :returns: None and the last line's ``{"scope", "heads": [[chain, first, last, hash]], "lines",
        "sha256", "hash"}``; or where it is broken, and what can be said of it
    :raises UsageError: the file is no such export at all
    """
    *lines, rest = content.split(b"\n")
    if not lines or b'"eventName"' not in content:
        raise UsageError(
            "This is no export of the audit: wanted are JSON lines as `bascule audit export` "
            "writes them."
        )
    *events, last = lines
    links: list[Link] = []
    for number, line in enumerate(events, 1):
        link = _read(line)
        if link is None:
            name = _name_of(links)
            return Broken(*name, None, f"line {number} of the file is not as it was written."), {}
        links.append(link)
    chains: dict[str, list[Link]] = {}
    for link in links:
        chains.setdefault(str(link["chain"]), []).append(link)
    seal = _read_seal(last)
    if rest or seal is None:
        broken = _first_broken(chains, {})
        gone = Broken(
            *_name_of(links), None,
            "the last line of the file, which seals it, is missing or not as it was written.",
        )  # fmt: skip
        return broken or gone, {}
    heads = {}
    for name, first, end, digest in seal["heads"]:
        heads[str(name)] = (int(first), Head(int(end), digest))
    broken = _first_broken(chains, heads) or _broken_whole(chains, heads, seal)
    joined = hashlib.sha256(b"".join(line + b"\n" for line in events)).hexdigest()
    if broken is None and (joined != seal["sha256"] or len(events) != seal["lines"]):
        broken = Broken(MAIN, None, None, "the lines of the file are not in the order they had.")
    return broken, seal


def _name_of(links: list[Link]) -> tuple[str, int]:
    """Return the chain and the sequence that what comes after these links should have."""
    return (str(links[-1]["chain"]), int(links[-1]["sequence"]) + 1) if links else (MAIN, 1)


def _first_broken(
    chains: Mapping[str, list[Link]], heads: Mapping[str, tuple[int, Head]]
) -> Broken | None:
    main = chains.get(MAIN, [])
    pins: dict[str, dict[int, str]] = {}
    for name, links in chains.items():
        first, head = heads.get(name, (int(links[0]["sequence"]), None))
        known = pins.get(name, {})
        broken = verify_chain(name, links, head, pins=known, first=first)
        if broken is not None and (head is not None or broken.sequence is not None):
            return broken
        if name == MAIN:
            pins = pins_of(main)
    return None


def _broken_whole(
    chains: Mapping[str, list[Link]],
    heads: Mapping[str, tuple[int, Head]],
    seal: Mapping[str, Any],
) -> Broken | None:
    """Look whether chains are missing or too many."""
    for name in heads:
        if name not in chains:
            return Broken(name, heads[name][0], None, "the whole chain is missing from the file.")
    scope = seal["scope"]
    if scope["deployment"] is None and scope["since"] is None:
        return broken_set(pins_of(chains.get(MAIN, [])), list(chains))
    return None


def _read(line: bytes) -> Link | None:
    """Return the link of a line; None if the line is not what that link is written as."""
    try:
        link = link_of(json.loads(line))
        same = _line(event_of(link)).encode("ascii") == line + b"\n"
        numbered = isinstance(link["sequence"], int)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return {name: link[name] for name in COLUMNS} if same and numbered else None


def _read_seal(line: bytes) -> dict[str, Any] | None:
    try:
        data = json.loads(line)["additionalEventData"]
        summary = {name: data[name] for name in ("scope", "heads", "lines")}
        made = _line(_seal(summary, data["sha256"])).encode("ascii")
    except (ValueError, KeyError, TypeError):
        return None
    return dict(data) if made == line + b"\n" else None
