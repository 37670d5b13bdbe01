# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where those who want the same from a remote service at the same moment share a call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._record import Record


class Desk:
    """Looks and orders, shared by all workers of one deployment if there is a record."""

    def __init__(self, record: Record | None = None, deployment: str = "") -> None:
        """Keep where to share; nothing is asked yet."""
        self._record = record
        self._deployment = deployment

    def look(self, subject: str, ask: Callable[[], Any], *, interval: float) -> Any:
        """Return what ``ask`` says of a subject (plain JSON data), at most ``interval`` s old.

        It is newer than all orders on the subject that this desk has seen carried out.
        """
        del subject, interval
        return ask()

    def order(
        self, subject: str, kind: str, items: Sequence[str], carry_out: Callable[[list[str]], None]
    ) -> None:
        """See these items carried out, in one call with what others order of the same kind.

        :raises TrafficError: what ``carry_out`` says of these items
        """
        del subject, kind
        carry_out(list(items))
