# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One base error and one class a phase.

Every message says what was seen, what was wanted and what to do. This file also runs on hosts:
Python 3.8 and the standard library only.
"""

from __future__ import annotations


class BasculeError(Exception):
    """Base of all errors that a person is meant to read."""

    kind = "internal"


class UsageError(BasculeError):
    """A variable, an option or a path that cannot be worked with; nothing was changed."""

    kind = "usage"


class RevisionError(BasculeError):
    """A revision that cannot be found, fetched or verified."""

    kind = "revision"


class ArchiveError(BasculeError):
    """A bundle that cannot be unpacked, or that must not be."""

    kind = "archive"


class AppSpecError(BasculeError):
    """An AppSpec file that is missing or refused."""

    kind = "appspec"


class InstallError(BasculeError):
    """Files or permissions that could not be planned or written on a host."""

    kind = "install"


class HookError(BasculeError):
    """A hook that failed; the code is CodeDeploy's (hook_executor.rb of agent 1.8.1)."""

    kind = "hook"


class PlanError(BasculeError):
    """A plan that cannot be made from the given targets and configuration."""

    kind = "plan"


class TrafficError(BasculeError):
    """A load balancer that cannot be reached or does not do as asked."""

    kind = "traffic"


class TrafficCallError(TrafficError):
    """A call that AWS refused; ``code`` is AWS's own."""

    def __init__(self, message: str, code: str) -> None:
        """Keep the code."""
        super().__init__(message)
        self.code = code


class FunctionError(BasculeError):
    """A Lambda function that cannot be published, or an answer of one that means failure."""

    kind = "function"


class FunctionCallError(FunctionError):
    """A call that Lambda refused; ``code`` is AWS's own."""

    def __init__(self, message: str, code: str) -> None:
        """Keep the code."""
        super().__init__(message)
        self.code = code


class GateError(BasculeError):
    """A gate that was answered no, or not answered before its deadline."""

    kind = "gate"


class RecordError(BasculeError):
    """The record cannot be opened, or refuses a change."""

    kind = "record"


class HostError(BasculeError):
    """A target that cannot be reached, or on which the host program cannot run."""

    kind = "host"


class RecordAwayError(RecordError):
    """The record does not answer for the moment.

    ``unsure``: it was lost while a change was committed, which may have been written or not.
    """

    def __init__(self, message: str, *, unsure: bool = False) -> None:
        """Keep whether the change may have been written."""
        super().__init__(message)
        self.unsure = unsure


class LeaseHeldError(RecordError):
    """A living controller holds the deployment: ``holder`` on ``host``, ``since`` and ``until``.

    Both times are seconds since the epoch. Each heartbeat moves ``until`` on. ``certain``: it is a
    process of this machine that was seen to run, so there is nothing to wait for.
    """

    kind = "lease"

    def __init__(
        self,
        message: str,
        *,
        holder: str,
        host: str,
        since: float,
        until: float,
        certain: bool = False,
    ) -> None:
        """Keep what the message says as data."""
        super().__init__(message)
        self.holder, self.host = holder, host
        self.since, self.until = since, until
        self.certain = certain


class LeaseLostError(RecordError):
    """Another controller has taken the deployment over; this one may not write any more."""

    kind = "lease"
