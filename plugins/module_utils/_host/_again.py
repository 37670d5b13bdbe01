# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the old version is started again after a failure, and what is said about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._errors import UsageError

if TYPE_CHECKING:
    from ._journal import Journal

# Never; after an installation that was refused; after every failure that left all files unchanged,
# that of a BeforeInstall script, too: it may have changed what only its author knows.
POLICIES = ("refused", "unchanged", "never")
_REFUSED_IN = ("DownloadBundle", "Install")


def policy(value: Any) -> str:
    """Return the policy a request asks for.

    :raises UsageError: for a word that is none
    """
    chosen = value or POLICIES[0]
    if chosen not in POLICIES:
        raise UsageError(f"start_again is one of {', '.join(POLICIES)}, not {value!r}.")
    return str(chosen)


def stopped(chosen: str, journal: Journal, failed: str, *, installed: bool) -> str | None:
    """Return the folder of the deployment to start again, None for none.

    :param failed: the event that failed
    :param installed: whether Install has come to its end in this deployment
    """
    if chosen == "never" or installed or journal.touched or failed == "ApplicationStop":
        return None
    if chosen == "refused" and failed not in _REFUSED_IN:
        return None
    return journal.stopped


def told(deployment_id: str, result: dict[str, Any]) -> str:
    """Say what came of the start, so that it can stand after the reason of the failure."""
    who = f"The old version (deployment {deployment_id})"
    if result["status"] == "Succeeded":
        return f"{who} was started again."
    if result["status"] == "Skipped":
        return (
            f"{who} has no script for ApplicationStart: if its ApplicationStop has ended it, start"
            " it by hand."
        )
    return f"{who} could not be started again: {result['message']}"
