# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which revision is deployed: the one named, the group's own, or the one to go back to."""

from __future__ import annotations

import typing as t

from ..module_utils._errors import ArchiveError, RevisionError, UsageError
from ..module_utils._functions import is_lambda
from ..module_utils._host._links import leaving, refusal
from ._history import rollback_revision
from ._lambda._revision import resolve_functions
from ._lambda._service import Service
from ._record import RevisionRow
from ._revisions import Revision, load_revision, resolve
from ._settings import require

if t.TYPE_CHECKING:
    from pathlib import Path

    from ..module_utils._functions import FunctionSettings
    from ._record import Record

Settings = dict[str, t.Any]
# The word for the group's revision, in ``deploy_revision``.
CURRENT = "current"


def find_revision(
    strategy: str,
    settings: Settings,
    *,
    record: Record,
    cache: Path,
    base: Path,
    expected: str | None = None,
    functions: t.Sequence[FunctionSettings] = (),
) -> RevisionRow:
    """Return the revision to deploy: the one that was named, or the one to go back to.

    :param expected: digest that a saved plan has. Where the source cannot give it any more, the
        cache may; what the source gives instead is for the caller to compare
    :param functions: the targets as Lambda functions, where they are
    :raises UsageError: none was named, there is none to go back to, or it is marked bad
    :raises RevisionError: it cannot be found
    """
    if strategy == "rollback":
        found = _to_go_back_to(settings, record, cache)
    elif settings["deploy_revision"] == CURRENT:
        found = _of_the_group(settings, record, cache)
    elif is_lambda(settings):
        found = resolve_functions(settings, functions, cache=cache, base=base, service=Service())
    else:
        found = _named(settings, cache, base, expected)
    if not settings["deploy_allow_bad_revision"]:
        refuse_bad(record, settings["deploy_application"], found.digest)
    return found


def refuse_bad(record: Record, application: str, digest: str) -> None:
    """Refuse a revision that is marked bad.

    :raises UsageError: with the reason of the mark
    """
    bad = record.bad_revisions(application)
    if digest in bad:
        why = f" ({bad[digest]})" if bad[digest] else ""
        raise UsageError(
            f"The revision {digest[:12]} of {application} is marked bad{why}. Deploy another one; "
            f"or take the mark back: `bascule revisions mark-good {digest[:12]}`; or deploy it all "
            "the same with deploy_allow_bad_revision: true."
        )


def refuse_outside_links(revision: Revision) -> None:
    """Refuse a revision with links that lead out of it, before any host has to.

    :raises ArchiveError: naming the first one
    """
    links = {entry["path"]: entry["target"] for entry in revision.manifest if entry["target"]}
    names = leaving(links)
    if names:
        raise ArchiveError(refusal(names, links))


def as_row(revision: Revision) -> RevisionRow:
    """Return a revision as the record keeps it: without its list of files."""
    return RevisionRow(
        digest=revision.digest,
        source=revision.source,
        description=revision.description,
        bundle_sha256=revision.bundle_sha256,
        bundle_size=revision.bundle_size,
        bundle_type=revision.bundle_type,
        bundle_path=revision.bundle_path,
        appspec=revision.appspec,
        environment=revision.environment,
    )


def _named(settings: Settings, cache: Path, base: Path, expected: str | None) -> RevisionRow:
    source = require(settings, "deploy_revision", "./shop, or --revision ./shop")
    try:
        revision = resolve(
            source,
            cache=cache,
            checksum=settings["deploy_revision_checksum"] or None,
            subdirectory=settings["deploy_revision_subdirectory"] or None,
            base=base,
            github=(settings["deploy_github_url"], settings["deploy_github_token"]),
        )
    except RevisionError:
        kept = load_revision(expected, cache=cache) if expected else None
        if kept is None:
            raise
        revision = kept
    if not settings["deploy_allow_outside_links"]:
        refuse_outside_links(revision)
    return as_row(revision)


def _of_the_group(settings: Settings, record: Record, cache: Path) -> RevisionRow:
    application, group = settings["deploy_application"], settings["deploy_group"]
    state = record.group_state(application, group)
    if state is None:
        raise UsageError(
            f"{application}/{group} has no current revision: no deployment of it has succeeded "
            "yet. Name the revision to deploy; a folder of the name 'current' is './current'."
        )
    return _kept(record.deployment(state.deployment_id).revision, cache)


def _to_go_back_to(settings: Settings, record: Record, cache: Path) -> RevisionRow:
    application, group = settings["deploy_application"], settings["deploy_group"]
    deployments = record.deployments(application, group, limit=1000)
    found = rollback_revision(
        deployments, to=settings["deploy_rollback_to"], bad=record.bad_revisions(application)
    )
    return _kept(found, cache)


def _kept(recorded: RevisionRow, cache: Path) -> RevisionRow:
    """Return a recorded revision with where its bundle is now, if this controller has it."""
    cached = load_revision(recorded.digest, cache=cache)
    return as_row(cached) if cached else recorded
