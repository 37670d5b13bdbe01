# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading the audit: verify it, export it, show the newest of it. Nothing is made or changed.

Each reads one state of the record, also while deployments go on. ``url`` is as in Record.open.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ...module_utils._audit_file import event_of, lines_of, verify_file
from ...module_utils._errors import RecordError
from . import _audit
from ._location import locate, release, retain, snapshot, version
from ._schema import check_version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ...module_utils._audit import Broken, Link
    from ._session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """What a look at the whole audit has found.

    ``source`` is the record's address or the file. ``broken`` is the first link that is not as it
    was written, None if all are. ``links`` are the links of the ``chains`` that were found whole.
    ``head`` is the hash of the last link of the chain ``main``, and ``length`` how many that has:
    whoever keeps both elsewhere can tell later that the record was not made anew.
    """

    source: str
    broken: Broken | None
    chains: int
    links: int
    head: str
    length: int

    def as_dict(self) -> dict[str, Any]:
        """Return the same as plain data, for JSON."""
        return asdict(self)


@contextlib.contextmanager
def _opened(url: str | None) -> Iterator[tuple[str, Session]]:
    location = locate(url)
    retain(location)
    try:
        found = version(location)
        if found is None:
            raise RecordError(
                f"There is no record at {location.shown}, and so no audit. See that "
                "BASCULE_RECORD or --record names the one you mean."
            )
        check_version(location.shown, found)
        with snapshot(location) as session:
            yield location.shown, session
    finally:
        release(location)


def verify_audit(url: str | None = None) -> AuditReport:
    """Look at every link of a record's audit; raises RecordError if the record cannot be read."""
    with _opened(url) as (shown, session):
        broken, lengths, head = _audit.verify(session)
    return AuditReport(
        source=shown, broken=broken, chains=len(lengths), links=sum(lengths.values()),
        head=head.hash if head else "", length=head.length if head else 0,
    )  # fmt: skip


def verify_audit_file(content: bytes, name: str) -> AuditReport:
    """Look at every line of an exported file; raises UsageError if it is none."""
    broken, seal = verify_file(content)
    heads = {} if broken else {row[0]: row for row in seal["heads"]}
    main = heads.get("main", ["main", 0, 0, ""])
    return AuditReport(
        source=name, broken=broken, chains=len(heads), links=0 if broken else seal["lines"],
        head=main[3], length=main[2],
    )  # fmt: skip


def export_audit(
    write: Callable[[str], object],
    *,
    deployment: str | None = None,
    since: float | None = None,
    url: str | None = None,
) -> None:
    """Call ``write`` with each line of the audit, in the shape of CloudTrail's events.

    :param deployment: only the chain of this deployment
    :param since: epoch seconds; each chain from its first link of that time on
    :raises RecordError: the record has no audit of that deployment
    """
    with _opened(url) as (shown, session):
        if deployment is None:
            names = _audit.chains(session)
        else:
            names = [deployment]
            if not _audit.links(session, deployment, limit=1):
                raise RecordError(_unknown(deployment, shown))
        chains = ((name, _audit.since(session, name, since)) for name in names)
        for line in lines_of(chains, {"deployment": deployment, "since": since}):
            write(line)


def newest_audit(
    *, deployment: str | None = None, limit: int = 20, url: str | None = None
) -> list[dict[str, Any]]:
    """Return the newest links as events in CloudTrail's shape, the newest last.

    :param deployment: only those of the chain of this deployment
    :raises RecordError: the record has no audit of that deployment
    """
    with _opened(url) as (shown, session):
        found: list[Link] = _audit.newest(session, deployment, limit)
        if deployment is not None and not found:
            raise RecordError(_unknown(deployment, shown))
    return [event_of(link) for link in reversed(found)]


def _unknown(deployment: str, shown: str) -> str:
    return (
        f"The record {shown} has no audit of a deployment {deployment}: there is none of this id, "
        "or it ended before the record had an audit. `bascule history` lists what there is."
    )
