# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The variables of a hook: CodeDeploy's and more, over those of the revision and of the group."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from . import _context

if TYPE_CHECKING:
    from ._journal import Journal
    from ._layout import Folder

# systemd's search path, under which the agent runs its scripts.
_SEARCHED = (
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
)


def of_hook(
    context: _context.Context,
    journal: Journal,
    event: str,
    folder: Folder,
    release: dict[str, Any] | None,
) -> dict[str, str]:
    """Return the environment of a script.

    :param folder: the deployment that the script comes from
    :param release: that deployment's, in the release layout: ``{"path", "link", "shared"}``
    """
    deployment = context.deployment
    environment = dict(os.environ, PATH=_search_path(os.environ.get("PATH", "")))
    for source in (
        context.revision.get("environment"),
        context.options.get("hook_environment"),
    ):
        for name, value in (source or {}).items():
            if value is not None:
                environment[name] = str(value)
    if journal.digest is None:
        before = (_context.previous(context.layout) or {}).get("digest")
    else:
        before = journal.previous
    environment.update(
        {
            "LIFECYCLE_EVENT": event,
            "HOOK_ATTEMPT": str(journal.attempts(event)),
            "DEPLOYMENT_ID": context.layout.deployment_id,
            "APPLICATION_NAME": str(deployment.get("application") or ""),
            "DEPLOYMENT_GROUP_NAME": str(deployment.get("group") or ""),
            "DEPLOYMENT_GROUP_ID": context.layout.group_id,
            "ARCHIVE_DIRECTORY": folder.archive,
            "REVISION_DIGEST": context.digest,
            "PREVIOUS_REVISION": before or "",
            "TARGET_NAME": context.target,
            "IS_ROLLBACK": "true" if context.is_rollback else "false",
            "SYSROOT": context.sysroot,
            "TARGET_POOL": str(context.options.get("pool") or ""),
        }
    )
    if release is not None:
        environment["RELEASE_DIRECTORY"] = release["path"]
        environment["RELEASE_LINK"] = release["link"]
        environment["SHARED_DIRECTORY"] = release["shared"]
    return environment


def _search_path(path: str) -> str:
    """Return the search path with systemd's folders: scripts count on them, ssh may lack them."""
    folders = [folder for folder in path.split(os.pathsep) if folder]
    return os.pathsep.join(folders + [one for one in _SEARCHED if one not in folders])
