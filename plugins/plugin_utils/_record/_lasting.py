# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of the record that outlasts deployments: revisions, groups, what targets have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _history, _known
from ._rows import ClaimedError
from ._transactions import Transactions

if TYPE_CHECKING:
    from ._rows import BundleHolder, RevisionRow, TargetState
    from ._session import Session


class _TakenBackError(Exception):
    """Ends a transaction whose changes are not wanted."""


class LastingRecord(Transactions):
    """Each method is a transaction of its own, as are those of ``Record``."""

    def last_known_good(self, application: str, group: str) -> RevisionRow | None:
        """Return the revision of the group's newest successful deployment, unless marked bad."""
        found = self.good_deployment(application, group)
        return found.revision if found else None

    def good_deployment(self, application: str, group: str) -> _known.GoodDeployment | None:
        """Return the newest successful deployment whose revision is not marked bad."""
        return self._read(lambda session: _known.good_deployment(session, application, group))

    def group_state(self, application: str, group: str) -> _known.GroupState | None:
        """Return the group's revision, None where nothing has succeeded yet."""
        return self._read(lambda session: _known.group_state(session, application, group))

    def bad_revisions(self, application: str) -> dict[str, str]:
        """Return the digests that are marked bad, each with the reason."""
        return self._read(lambda session: _known.bad_revisions(session, application))

    def needed_digests(self, newest: int = 5) -> set[str]:
        """Return the revisions that are deployed or may be gone back to."""
        return self._read(lambda session: _known.needed_digests(session, newest))

    def revisions(self, application: str | None = None) -> list[_known.KnownRevision]:
        """Return the revisions of an application (or of all): first those never deployed."""
        return self._read(lambda session: _known.revisions(session, application))

    def register_revision(
        self,
        application: str,
        digest: str,
        *,
        source: str,
        description: str = "",
        check: bool = False,
    ) -> None:
        """Make a revision known that was pushed to ``source``, before it is deployed.

        :param check: take everything back again; only what would be refused is raised
        """

        def register(session: Session, _unsure: bool) -> None:
            _history.register_revision(
                session, application, digest, source=source, description=description
            )
            if check:
                raise _TakenBackError

        while True:
            try:
                return self._write(register, synced=True)
            except ClaimedError:
                # Somebody else has just made the same known: now it is there.
                continue
            except _TakenBackError:
                return None

    def mark_revision(self, application: str, digest: str, *, bad: bool, why: str = "") -> None:
        """Mark a revision as bad, so that no rollback goes to it, or take the mark back."""
        self._write(
            lambda session, _unsure: _history.mark_revision(
                session, application, digest, bad=bad, why=why
            ),
            synced=True,
        )

    def target_states(self, application: str, group: str) -> dict[str, TargetState]:
        """Return what is known of each target of the group, by its name."""
        return self._read(lambda session: _history.target_states(session, application, group))

    def has_bundle(self, application: str, group: str, target: str, digest: str) -> bool:
        """Whether the bundle was delivered to the target before (the host may have lost it)."""
        return self._read(
            lambda session: _history.has_bundle(session, application, group, target, digest)
        )

    def revision_holders(self, digest: str) -> list[BundleHolder]:
        """Return the targets that the bundle was delivered to."""
        return self._read(lambda session: _history.revision_holders(session, digest))
