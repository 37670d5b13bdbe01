# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The base of the actions that work on one target of a deployment."""

from __future__ import annotations

import typing as t

from ..module_utils._configuration import parse_duration
from ..module_utils._errors import RevisionError
from ..module_utils._host_options import HOST_OPTIONS
from ._action import DEPLOYMENT_OPTIONS, Arguments, BasculeAction, state_directory
from ._direct import run_on_host
from ._request import host_request
from ._revisions import load_revision

if t.TYPE_CHECKING:
    from ._action import Result, Variables
    from ._record import Deployment, Record, RevisionRow
    from ._revisions import Revision

TARGET_OPTIONS: dict[str, dict[str, t.Any]] = {
    **DEPLOYMENT_OPTIONS,
    "settings": {"type": "dict", "required": True, "options": HOST_OPTIONS},
}


class TargetAction(BasculeAction):
    """An action that sends one request to its target."""

    options = TARGET_OPTIONS

    def ask(
        self,
        arguments: Arguments,
        variables: Variables,
        revision: RevisionRow | Revision,
        *,
        bundle_path: str | None = None,
        more: dict[str, t.Any] | None = None,
    ) -> Result:
        """Send this action's request and return the host's answer."""
        request = host_request(
            self.phase,
            arguments["deployment"],
            revision,
            arguments["settings"],
            target=variables["inventory_hostname"],
            check=self.checking,
            diff=self.diffing,
            manifest=self._manifest(arguments) if self.checking else None,
        )
        reconnect = parse_duration(
            arguments["settings"]["reconnect_timeout"], "deploy_reconnect_timeout"
        )
        return run_on_host(
            self, variables, {**request, **(more or {})}, bundle_path, reconnect=reconnect
        )

    def recorded(self, arguments: Arguments, record: Record) -> Deployment:
        """Return the deployment as the record has it."""
        return record.deployment(arguments["deployment"]["id"])

    def cached(self, arguments: Arguments) -> Revision:
        """Return the revision from the controller's cache.

        :raises RevisionError: it is not there
        """
        cache = state_directory(arguments["state_directory"]) / "cache"
        digest = arguments["deployment"]["digest"]
        revision = load_revision(digest, cache=cache)
        if revision is None:
            raise RevisionError(
                f"The revision {digest[:12]} is neither on the target nor in this controller's "
                f"cache ({cache}). Deploy it again from its source."
            )
        return revision

    def _manifest(self, arguments: Arguments) -> list[dict[str, t.Any]]:
        return [dict(entry) for entry in self.cached(arguments).manifest]
