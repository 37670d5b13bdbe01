# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a rollback leads to, from what was deployed before."""

from __future__ import annotations

import typing as t

from ..module_utils._errors import UsageError

if t.TYPE_CHECKING:
    from ._record import Deployment, Record, RevisionRow

SHORTEST_DIGEST = 6


def rollback_revision(
    deployments: t.Sequence[Deployment], *, to: str = "", bad: t.Container[str] = ()
) -> RevisionRow:
    """Return the revision that a rollback brings back.

    :param deployments: those of one deployment group, newest first
    :param bad: digests that are marked bad; a rollback goes there only if ``to`` names one
    :param to: a digest, its beginning, or the id of a deployment; empty for the revision before
    :raises UsageError: there is no such revision
    """
    succeeded = [one for one in deployments if one.status == "Succeeded"]
    if to:
        for one in succeeded:
            if to == one.id or (len(to) >= SHORTEST_DIGEST and one.revision.digest.startswith(to)):
                return one.revision
        known = ", ".join(dict.fromkeys(one.revision.digest[:12] for one in succeeded)) or "none"
        raise UsageError(
            f"No deployment of this group has brought {to!r} in successfully. Wanted is a digest "
            f"(or its first {SHORTEST_DIGEST} characters or more) or the id of a deployment that "
            f"succeeded; these revisions have: {known}."
        )
    way = way_back(succeeded)
    # After a deployment that failed, the last good revision is itself the one to go back to.
    before = way[:-1] if _stands(deployments) else way
    good = [step for step in before if step.digest not in bad]
    if not good:
        marked = " and is not marked bad" if before else ""
        raise UsageError(
            "There is nothing to go back to: this deployment group has no earlier revision that "
            f"succeeded{marked}. 'bascule history' shows what was deployed."
        )
    return good[-1]


def way_back(succeeded: t.Sequence[Deployment]) -> list[RevisionRow]:
    """Return the revisions one can go back through, oldest first, the present one last.

    A rollback takes from the end of the way instead of adding to it: going back twice leads two
    revisions back, and never forward to the one that was left because it was bad.
    """
    way: list[RevisionRow] = []
    for one in reversed(succeeded):
        # Functions of Lambda that had a version before Bascule came.
        before = one.options.get("before")
        if before and before["digest"] not in [step.digest for step in way[-1:]]:
            # Importing the record takes longer than a command may that does not need it.
            from ._record import RevisionRow

            way.append(RevisionRow(**before))
        digests = [step.digest for step in way]
        if one.strategy == "rollback" and one.revision.digest in digests:
            del way[digests.index(one.revision.digest) + 1 :]
        elif not digests or digests[-1] != one.revision.digest:
            way.append(one.revision)
    return way


def _stands(deployments: t.Sequence[Deployment]) -> bool:
    """Tell whether the newest deployment that ended left the group on a good revision."""
    ended = [one for one in deployments if one.is_final]
    return bool(ended) and ended[0].status == "Succeeded"


def left_open(deployment: Deployment, record: Record) -> Deployment:
    """Return what there is to go on with.

    That is the rollback of a deployment that has failed already, and the deployment for which a
    baseline was made.
    """
    if deployment.is_final and deployment.rolled_back_by:
        rollback = record.deployment(deployment.rolled_back_by)
        return rollback if not rollback.is_final else deployment
    # Here, as it brings the whole record, which commands are parsed without.
    from ._fresh_baseline import follower_of, is_baseline

    if deployment.is_final and is_baseline(deployment):
        following = follower_of(deployment, record)
        return left_open(following, record) if following is not None else deployment
    return deployment
