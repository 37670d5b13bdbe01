# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How people name a revision of the record: by a digest, its beginning, or a deployment."""

from __future__ import annotations

import typing as t

from ..module_utils._errors import UsageError
from ._history import SHORTEST_DIGEST

if t.TYPE_CHECKING:
    from ._record import KnownRevision, Record


def find_known(record: Record, name: str, application: str | None = None) -> KnownRevision:
    """Return the one revision that a name means.

    :param name: a digest, at least its first 6 characters, or the id of a deployment
    :raises UsageError: no revision or several have that name
    :raises RecordError: there is no such deployment
    """
    every = record.revisions(application)
    if name.startswith("d-"):
        deployment = record.deployment(name)
        wanted = (deployment.application, deployment.revision.digest)
        found = [one for one in every if (one.application, one.digest) == wanted]
    else:
        begin = name.removeprefix("sha256:")
        long_enough = len(begin) >= SHORTEST_DIGEST
        found = [one for one in every if long_enough and one.digest.startswith(begin)]
    if len(found) == 1:
        return found[0]
    where = f" of {application}" if application else ""
    if found:
        several = ", ".join(f"{one.application} {one.digest[:16]}" for one in found[:5])
        raise UsageError(
            f"Several revisions are called {name}: {several}. Give more of the digest, or name the "
            "application."
        )
    known = ", ".join(f"{one.digest[:12]} ({one.application})" for one in every[:5]) or "none"
    raise UsageError(
        f"The record has no revision {name}{where}. Wanted is a digest (or its first "
        f"{SHORTEST_DIGEST} characters or more) or the id of a deployment; known are {known}."
    )
