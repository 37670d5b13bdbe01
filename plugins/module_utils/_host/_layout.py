# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where things are on a host: CodeDeploy's layout under the deployment root.

``<root>/<group-id>/<deployment-id>/{deployment-archive,logs,bundle.tar}`` and
``<root>/deployment-instructions/<group-id>…`` are the agent's own, so that a host the agent used
before goes on from where it is. The journal, the stored AppSpec and the cache are Bascule's.
"""

from __future__ import annotations

import os

from .._errors import UsageError

DEFAULT_ROOT = "/opt/codedeploy-agent/deployment-root"
INSTRUCTIONS = "deployment-instructions"
LOGS = "deployment-logs"
CACHE = "bundle-cache"


def check_name(name: str, what: str) -> str:
    """Refuse a name that would not be one plain folder.

    :raises UsageError: for an empty name, a path, or one of the root's own folders
    """
    if not name or "/" in name or "\0" in name or "\n" in name or name.startswith("."):
        raise UsageError(f"The {what} {name!r} cannot be the name of a folder on the host.")
    if name in (INSTRUCTIONS, LOGS, CACHE, "ongoing-deployment"):
        raise UsageError(f"The {what} {name!r} is a folder of the deployment root itself.")
    return name


class Layout:
    """The paths of one deployment of one group; makes nothing by itself."""

    def __init__(self, root: str, group_id: str, deployment_id: str) -> None:
        """Name the places of a deployment.

        :raises UsageError: for names that are no folders, or a root that is not absolute
        """
        if not os.path.isabs(root):
            raise UsageError(f"The deployment root must be an absolute path, not {root!r}.")
        self.root = os.path.normpath(root)
        self.group_id = check_name(group_id, "deployment group id")
        self.deployment_id = check_name(deployment_id, "deployment id")
        self.group = os.path.join(self.root, group_id)
        self.instructions = os.path.join(self.root, INSTRUCTIONS)
        self.deployment_log = os.path.join(self.root, LOGS, "codedeploy-agent-deployments.log")
        self.cache = os.path.join(self.root, CACHE)
        prefix = os.path.join(self.instructions, group_id)
        self.cleanup = prefix + "-cleanup"
        self.install = prefix + "-install.json"
        self.last_successful = prefix + "_last_successful_install"
        self.most_recent = prefix + "_most_recent_install"
        self.latest_attempt = prefix + "_latest_attempt"
        self.lock = prefix + ".lock"
        self.deployment = Folder(os.path.join(self.group, deployment_id))

    def cached(self, digest: str) -> str:
        """Return where the bundle of this SHA-256 is kept."""
        return os.path.join(self.cache, digest)


class Folder:
    """One deployment's folder, this deployment's or an earlier one's."""

    def __init__(self, path: str) -> None:
        """Name the places inside a deployment's folder."""
        self.path = path
        self.archive = os.path.join(path, "deployment-archive")
        self.bundle = os.path.join(path, "bundle.tar")
        self.journal = os.path.join(path, "journal.jsonl")
        self.revision = os.path.join(path, "revision.json")
        self.seal = os.path.join(path, "installed.json")
        self.script_log = os.path.join(path, "logs", "scripts.log")

    @property
    def deployment_id(self) -> str:
        """The deployment's id is the name of its folder."""
        return os.path.basename(self.path)


def read_pointer(path: str) -> Folder | None:
    """Return the deployment folder a pointer file names; None for none, or one that is gone."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            target = file.read(8192).strip()
    except FileNotFoundError:
        return None
    return Folder(target) if target and os.path.isdir(target) else None


def write_file(path: str, text: str, *, sync: bool = True) -> None:
    """Replace a file by one rename; with ``sync`` it is durable before it is visible."""
    temporary = path + ".new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
        if sync:
            file.flush()
            os.fsync(file.fileno())
    os.replace(temporary, path)
