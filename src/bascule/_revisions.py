"""The revisions of the record, and the mark of the bad ones."""

from __future__ import annotations

import typing as t

from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError

from bascule import _recorded

if t.TYPE_CHECKING:
    from ansible_collections.bascule.deploy.plugins.plugin_utils._record import (
        BundleHolder,
        KnownRevision,
    )


def revisions(application: str | None = None, *, record: str | None = None) -> list[KnownRevision]:
    """Return the revisions that were registered or deployed, the newest first.

    :param application: only those of this application
    :raises UsageError: the record has revisions, but none of this application
    """
    with _recorded.opened(record) as book:
        found = book.revisions(application)
        if application is not None and not found and (every := book.revisions()):
            known = [one.application for one in every]
            raise UsageError(
                _recorded.unknown("application", application, known, f"the record {book.url}")
            )
        return found


def revision(
    name: str, *, application: str | None = None, record: str | None = None
) -> tuple[KnownRevision, list[BundleHolder]]:
    """Return a revision, and the targets that its bundle was delivered to.

    :param name: a digest, at least its first 6 characters, or the id of a deployment
    :raises UsageError: no revision or several have that name
    """
    from ansible_collections.bascule.deploy.plugins.plugin_utils._revision_names import find_known

    with _recorded.opened(record) as book:
        found = find_known(book, name, application)
        return found, book.revision_holders(found.digest)


def mark_revision(
    name: str,
    *,
    bad: bool,
    why: str = "",
    application: str | None = None,
    record: str | None = None,
) -> KnownRevision:
    """Mark a revision bad, so that it is neither deployed nor gone back to, or good again.

    :param name: a digest, at least its first 6 characters, or the id of a deployment
    :raises UsageError: no revision or several have that name
    """
    from ansible_collections.bascule.deploy.plugins.plugin_utils._revision_names import find_known

    with _recorded.opened(record) as book:
        found = find_known(book, name, application)
        book.mark_revision(found.application, found.digest, bad=bad, why=why)
        return find_known(book, found.digest, found.application)
