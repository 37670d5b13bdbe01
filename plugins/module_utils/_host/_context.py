# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stage and lifecycle are asked, checked once; and what a host remembers of a revision."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from .._errors import AppSpecError, HostError, UsageError
from . import _again, _cleanup, _files, _layout, _retention
from ._journal import Journal

if TYPE_CHECKING:
    from ._cleanup import Ground, Made
    from ._releases import Releases
    from ._tree import Tree

_NAMES = ("appspec.yml", "appspec.yaml")
# More is no AppSpec file.
_MOST = 1_048_577


class Context:
    """A request of the operations stage and lifecycle.

    ``{"root", "sysroot", "check", "diff", "target", "deployment": {"id", "group_id", "application",
    "group", "creator", "strategy"}, "revision": {"digest", "bundle": {"sha256", "size"},
    "appspec", "manifest", "environment"}, "options": {"file_exists_behavior", "retained_revisions",
    "ignore_application_stop_failures", "hook_environment", "redeploy", "lock_timeout": seconds,
    "layout": copy | release, "release_directory", "release_link", "shared_paths",
    "releases_to_keep", "pool", "start_again": refused | unchanged | never}, "gates": [...]}``
    """

    def __init__(self, request: dict[str, Any]) -> None:
        """Check a request.

        :raises UsageError: for what is missing or of the wrong kind
        """
        self.request = request
        self.check = bool(request.get("check"))
        self.diff = bool(request.get("diff"))
        self.deployment = _part(request, "deployment")
        self.revision = _part(request, "revision")
        self.options = request.get("options") or {}
        self.gates: list[dict[str, Any]] = list(request.get("gates") or ())
        self.target = str(request.get("target") or "")
        self.url = str(request.get("url") or "")
        self.sysroot = _sysroot(request.get("sysroot"))
        self.layout = _layout.Layout(
            request.get("root") or _layout.DEFAULT_ROOT,
            _text(self.deployment, "group_id"),
            _text(self.deployment, "id"),
        )
        self.digest = _text(self.revision, "digest")
        self.bundle = _part(self.revision, "bundle") if self.revision.get("bundle") else {}
        self.appspec = _part(self.revision, "appspec")
        self.existing = _files.behavior(self.appspec, self.options.get("file_exists_behavior"))
        self.outside_links = bool(self.options.get("outside_links"))
        self.redeploy = bool(self.options.get("redeploy"))
        self.forgiving = bool(self.options.get("ignore_application_stop_failures"))
        self.start_again = _again.policy(self.options.get("start_again"))
        self.patience = float(self.options.get("lock_timeout", 10.0))
        self.retained = _retained(self.options.get("retained_revisions"))
        self.releases = self._releases()

    def _releases(self) -> Releases | None:
        from . import _releases

        layout = self.options.get("layout") or "copy"
        if layout not in _releases.LAYOUTS:
            raise UsageError(f"The layout {layout!r} is none of {', '.join(_releases.LAYOUTS)}.")
        if layout == "copy":
            return None
        return _releases.Releases(self.options, self.sysroot)

    def earlier(self) -> tuple[list[Made], Ground]:
        """Return what the earlier installation made, and the host as it will be without it."""
        made = _cleanup.read(self.layout.cleanup, self.layout.install)
        if self.releases is not None:
            from . import _release_plan

            made = _release_plan.not_below(made, self.releases)
        return made, _cleanup.Ground(made)

    def leaving(self, made: list[Made], ground: Ground) -> list[str]:
        """Return the paths of the earlier installation, as they are seen on the host."""
        paths = [one.path for one in made if ground.key(one.path) in ground.gone]
        if self.releases is not None:
            from . import _release_plan

            installed = list(_cleanup.installed(self.layout.install))
            paths += _release_plan.leaving(self.releases, installed)
        return paths

    def release(self, journal: Journal) -> str | None:
        """Return the name of this deployment's release, None for copies; it never changes."""
        if self.releases is None:
            return None
        known = journal.release
        if known is not None:
            return known["name"]
        from . import _release_plan

        return _release_plan.choose(self, self.releases)

    def plan(
        self, tree: Tree, ground: Ground, release: str | None, missing: list[str] | None = None
    ) -> _files.Plan:
        """Plan the installation in the layout that is asked for.

        :param release: what :meth:`release` returned
        :param missing: as in :func:`_files.make`
        :raises InstallError: for an AppSpec that contradicts itself, its revision or the layout
        """
        if self.releases is not None and release is not None:
            from . import _release_plan

            return _release_plan.make(self, self.releases, tree, ground, release, missing)
        return _files.make(
            self.appspec,
            tree,
            ground,
            existing=self.existing,
            put=lambda path: _files.place(path, self.sysroot),
            missing=missing,
        )

    @property
    def is_rollback(self) -> bool:
        """Whether this deployment brings back an earlier revision."""
        deployment = self.deployment
        automatic = deployment.get("creator") == "codeDeployRollback"
        return automatic or deployment.get("strategy") == "rollback"

    @property
    def holder(self) -> str:
        """Name this run to another one that finds the group locked."""
        return f"deployment {self.layout.deployment_id}"

    def prepare(self) -> None:
        """Make the folders a deployment needs.

        :raises HostError: if they cannot be made
        """
        layout = self.layout
        try:
            for path in (layout.instructions, layout.group):
                os.makedirs(path, exist_ok=True)
            os.makedirs(layout.cache, mode=0o700, exist_ok=True)
        except OSError as error:
            raise HostError(
                f"Cannot make {error.filename} below the deployment root {layout.root}:"
                f" {error.strerror}. Run this as a user who may (become), or choose another root."
            ) from error


def _part(data: dict[str, Any], name: str) -> dict[str, Any]:
    part = data.get(name)
    if not isinstance(part, dict):
        raise UsageError(f"The request holds no {name}.")
    return part


def _text(data: dict[str, Any], name: str) -> str:
    value = data.get(name)
    if not isinstance(value, str) or not value:
        raise UsageError(f"The request holds no {name}, or one that is no text: {value!r}.")
    return value


def _sysroot(value: Any) -> str:
    if not value:
        return ""
    if not isinstance(value, str) or not os.path.isabs(value):
        raise UsageError(f"sysroot must be an absolute path, not {value!r}.")
    return os.path.normpath(value).rstrip("/")


def _retained(value: Any) -> int:
    if value is None:
        return _retention.DEFAULT
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"retained_revisions must be a whole number from 1, not {value!r}.")
    return value


# -- what a host remembers -------------------------------------------------------------------------


def remember(folder: _layout.Folder, context: Context) -> None:
    """Keep a revision's AppSpec beside its archive, for the hooks a later deployment runs of it."""
    known: dict[str, Any] = {"digest": context.digest, "appspec": context.appspec}
    for name in (str(context.revision.get("appspec_file") or ""), *_NAMES):
        seen = _look(os.path.join(folder.archive, name)) if name else None
        if seen is not None:
            known["file"] = {"name": name, "sha256": seen}
            break
    _layout.write_file(folder.revision, json.dumps(known))


def recall(folder: _layout.Folder) -> dict[str, Any]:
    """Return ``{"digest", "appspec"}`` of a deployment, also of one the agent itself made.

    The agent reads the file again for every event. So a file that was changed in the archive, by a
    script or by hand, counts as it is now; without PyYAML on this host as it was staged.

    :raises AppSpecError: if its AppSpec is missing, refused, or cannot be read without PyYAML
    """
    try:
        with open(folder.revision, encoding="utf-8") as file:
            result: dict[str, Any] = json.load(file)
    except FileNotFoundError:
        pass
    except ValueError as error:
        raise AppSpecError(f"{folder.revision} is damaged: {error}.") from error
    else:
        changed = _changed(folder, result)
        return result if changed is None else {**result, "appspec": changed}
    for name in _NAMES:
        path = os.path.join(folder.archive, name)
        if os.path.isfile(path):
            return {"digest": None, "appspec": _parse(path)}
    raise AppSpecError(
        "The CodeDeploy agent did not find an AppSpec file within the unpacked revision directory"
        f' at revision-relative path "appspec.yml". The revision was unpacked to directory'
        f' "{folder.archive}".'
    )


def renew(context: Context) -> None:
    """Take the AppSpec of the revision that is being deployed as its file is now.

    :raises AppSpecError: if a script has made a file of it that is refused
    """
    folder = context.layout.deployment
    try:
        with open(folder.revision, encoding="utf-8") as file:
            changed = _changed(folder, json.load(file))
    except (FileNotFoundError, ValueError):
        return
    if changed is not None:
        context.appspec = changed
        context.existing = _files.behavior(changed, context.options.get("file_exists_behavior"))


def _changed(folder: _layout.Folder, known: dict[str, Any]) -> dict[str, Any] | None:
    """Return the AppSpec anew if its file was changed and can be read, else None."""
    file = known.get("file")
    if file is None:
        return None
    path = os.path.join(folder.archive, file["name"])
    if _look(path) in (None, file["sha256"]):
        return None
    try:
        return _read(path)
    except ImportError:
        return None


def _look(path: str) -> str | None:
    """Return the SHA-256 of a file, None for none."""
    import hashlib

    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read(_MOST)).hexdigest()
    except OSError:
        return None


def _read(path: str) -> dict[str, Any]:
    from .._appspec import parse_appspec

    with open(path, "rb") as file:
        return parse_appspec(file.read(_MOST))


def _parse(path: str) -> dict[str, Any]:
    try:
        return _read(path)
    except ImportError:
        raise AppSpecError(
            f"{path} was installed by CodeDeploy's agent; running its scripts needs PyYAML on this"
            " host for this one time. Install it (python3-yaml), or remove the pointer file"
            " …_last_successful_install to go on without them."
        ) from None


def previous(layout: _layout.Layout) -> dict[str, Any] | None:
    """Return ``{"deployment_id", "digest", "hooks": {event: number of scripts}}``."""
    folder = _layout.read_pointer(layout.last_successful)
    if folder is None:
        return None
    result: dict[str, Any] = {"deployment_id": folder.deployment_id, "digest": None, "hooks": {}}
    try:
        known = recall(folder)
    except AppSpecError:
        return result
    result["digest"] = known["digest"]
    result["hooks"] = {event: len(scripts) for event, scripts in known["appspec"]["hooks"].items()}
    return result


def _is_in_layout(context: Context, journal: Journal) -> bool:
    """Tell whether the revision is where the layout has it: the link leads to its release."""
    releases, release = context.releases, journal.release
    if releases is None or release is None:
        return releases is None and release is None
    wanted = (release["link"], release["path"])
    live = releases.live()
    return live is not None and (releases.link, releases.path(live)) == wanted


def told_again(context: Context) -> list[dict[str, Any]]:
    """Return what came of the events of this deployment, if it was the newest here.

    Its controller may have died before it heard of the last ones.
    """
    folder = _layout.read_pointer(context.layout.latest_attempt)
    if folder is None or folder.deployment_id != context.layout.deployment_id:
        return []
    return Journal(folder.journal).results()


def is_current(context: Context) -> bool:
    """Tell whether the group's newest deployment here brought this very revision to its End."""
    if context.redeploy:
        return False
    folder = _layout.read_pointer(context.layout.latest_attempt)
    if folder is None:
        return False
    journal = Journal(folder.journal)
    if not journal.ended or journal.digest != context.digest:
        return False
    if not _is_in_layout(context, journal):
        return False
    if context.gates:
        from . import _gates

        return _gates.once(context.gates)
    return True
