# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A record that is open, and the transactions that all its parts are made of."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ._again import Answer, repeated
from ._change import Change, check_fence
from ._location import locate, prepare, reading, release, retain, writing

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from ._session import Session


class Transactions:
    """What the parts of ``_store.Record`` read and change the record with.

    Each method of a part is a transaction of its own, safe in forked processes and with several
    controllers.
    """

    def __init__(
        self, url: str | None = None, *, fence: int | None = None, patience: float = 0.0
    ) -> None:
        """Find the record and, if there is none yet, create it."""
        self._location = locate(url)
        self._fence = fence
        self._patience = patience
        self._retained = True
        retain(self._location)
        try:
            # Whoever has no fence has begun nothing yet: a wrong address is told at once.
            repeated(
                lambda _unsure: prepare(self._location),
                0.0 if fence is None else patience,
                self._location.shown,
            )
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(
        cls, url: str | None = None, *, fence: int | None = None, patience: float = 0.0
    ) -> Self:
        """Open the record at ``url``.

        None means $BASCULE_RECORD, else ``record.db`` in the state folder: $BASCULE_STATE or
        ``${XDG_STATE_HOME:-~/.local/state}/bascule``. A SQLite file is created with mode 0600.

        :param fence: that of the deployment which this controller carries out (see
            ``Deployment.fence``); None for whoever is no controller: a stop, a tool, a test
        :param patience: for how many seconds a transaction is tried again while the record is away
        """
        return cls(url, fence=fence, patience=patience)

    @property
    def url(self) -> str:
        """The record's address, without a password."""
        return self._location.shown

    def close(self) -> None:
        """Close this process's connection to a server; it is opened again when needed."""
        if self._retained:
            self._retained = False
            release(self._location)

    def __enter__(self) -> Self:
        """Give the record itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def _read(self, work: Callable[[Session], Answer]) -> Answer:
        """Read one state of the record."""

        def attempt(_unsure: bool) -> Answer:
            with reading(self._location) as session:
                return work(session)

        return repeated(attempt, self._patience, self._location.shown)

    def _write(self, work: Callable[[Session, bool], Answer], *, synced: bool = False) -> Answer:
        """Write; ``work`` is called with True if it may have been done already (``repeated``)."""

        def attempt(unsure: bool) -> Answer:
            with writing(self._location, synced=synced) as session:
                return work(session, unsure)

        return repeated(attempt, self._patience, self._location.shown)

    def _change(
        self,
        deployment_id: str,
        work: Callable[[Change], Answer],
        *,
        synced: bool = False,
        now: float | None = None,
    ) -> Answer:
        """Change one deployment, with its row locked (``synced``: see ``writing``).

        ``work`` is called again if the record goes away before the change is committed; it must
        not do anything but change the record.
        """
        moment = time.time() if now is None else now
        before: list[tuple[Change, Answer]] = []

        def attempt(session: Session, unsure: bool) -> Answer:
            change = Change(session, deployment_id, moment, fence=None if unsure else self._fence)
            if unsure and before and before[-1][0].was_written(session):
                return before[-1][1]
            check_fence(change.deployment, self._fence)
            answer = work(change)
            change.write()
            before.append((change, answer))
            return answer

        return self._write(attempt, synced=synced)
