# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plan an installation in the release layout: what goes into a release, and what beside it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .._errors import InstallError
from . import _files, _releases
from ._files import Plan, Step
from ._releases import Release, below

if TYPE_CHECKING:
    from ._cleanup import Ground, Made
    from ._context import Context
    from ._permissions import Grant
    from ._releases import Releases
    from ._tree import Tree


class Inside:
    """What goes into a release, with its paths on this host."""

    def __init__(self, releases: Releases, index: _releases.Index, release: Release) -> None:
        """Begin with an empty release."""
        self.releases = releases
        self.index = index
        self.release = release
        self.path = releases.path(release.name)
        self.steps: list[Step] = []
        self.grants: list[Grant] = []
        # Everything, also what goes beside the release, as it will be seen through the link.
        self.shown = Plan()

    @property
    def again(self) -> bool:
        """Whether the release is there already, as good as it was: nothing is copied into it."""
        return self.release.is_good

    def recorded(self) -> list[Step]:
        """Return what belongs to the deployment: not what is shared, but the links to it."""
        shared = [f"{self.path}/{path}" for path in self.releases.shared_paths]
        own = [s for s in self.steps if not any(below(s.path, top) for top in shared)]
        own += [Step("link", path, None) for path in shared]
        return [*own, Step("link", self.releases.link, None)]


class _Above:
    """The ground of an installation, with nothing at the link and below: releases begin empty."""

    def __init__(self, ground: Ground, link: str) -> None:
        self._ground = ground
        self._link = link

    def kind(self, path: str) -> str | None:
        return None if below(path, self._link) else self._ground.kind(path)

    def is_directory(self, path: str) -> bool:
        return not below(path, self._link) and self._ground.is_directory(path)


def choose(context: Context, releases: Releases) -> str:
    """Return the name of the release a deployment makes, or of the one a rollback goes back to.

    A rollback takes the release that is there if nothing in it has changed since its deployment
    ended. Every other deployment makes a release of its own.
    """
    layout = context.layout
    if context.is_rollback:
        index = _releases.Index(releases, layout.group_id)
        found = index.to_go_back_to(context.digest, layout)
        if found is not None:
            return found.name
    return _releases.name(layout.deployment_id, context.digest)


def make(
    context: Context,
    releases: Releases,
    tree: Tree,
    ground: Ground,
    name: str,
    missing: list[str] | None = None,
) -> Plan:
    """Plan what goes beside the release; ``release`` of the plan is what goes into it.

    :param name: what :func:`choose` returned for this deployment
    :param missing: as in :func:`_files.make`
    :raises InstallError: for an AppSpec that contradicts itself, its revision or the layout
    """
    whole = _files.make(
        context.appspec,
        tree,
        _Above(ground, releases.link),
        existing=context.existing,
        put=lambda path: _files.place(releases.logical(path), context.sysroot),
        missing=missing,
    )
    if releases.link not in whole.directories and not missing:
        raise InstallError(
            f"Nothing of the AppSpec's files goes to {releases.logical_link} or"
            f" {releases.logical_directory}, where the layout keeps its releases. Set"
            " deploy_release_directory (and deploy_release_link) to the destination, or"
            " deploy_layout to copy."
        )
    index = _releases.Index(releases, context.layout.group_id)
    known = index.find(name)
    shared = tuple(releases.shared_paths)
    own = Release(name, context.digest, context.layout.deployment_id, shared, is_good=False)
    inside = Inside(releases, index, known if known is not None and known.is_good else own)
    plan = _part(whole, inside)
    plan.release = inside
    plan.conflicts += _conflicts(context, inside, ground)
    return plan


def leaving(releases: Releases, installed: list[str]) -> list[str]:
    """Return the paths of the live release as they are seen through the link.

    :param installed: the paths of the earlier installation
    """
    name = releases.live()
    if name is None:
        return []
    top = releases.path(name)
    return [releases.link + path[len(top) :] for path in installed if below(path, top)]


def not_below(made: list[Made], releases: Releases) -> list[Made]:
    """Leave out what earlier copies made where the link leads to a release now."""
    if not os.path.islink(releases.link):
        return made
    return [one for one in made if one.path == releases.link or not below(one.path, releases.link)]


# -- what goes where -------------------------------------------------------------------------------


def _part(whole: Plan, inside: Inside) -> Plan:
    releases = inside.releases
    kept = _kept(whole, releases)
    shown, plan = inside.shown, Plan()
    plan.conflicts, plan.retained = whole.conflicts, whole.retained
    for step in whole.steps:
        if any(below(step.path, top) for top in kept):
            continue
        _note(shown, step)
        if below(step.path, releases.link):
            path = inside.path + step.path[len(releases.link) :]
            inside.steps.append(step._replace(path=path))
        elif not _is_ancestor(step, releases):
            _check_place(step, releases)
            _note(plan, step)
    for grant in whole.grants:
        if any(below(grant.path, top) for top in kept):
            continue
        shown.grants.append(grant)
        if below(grant.path, releases.link):
            path = inside.path + grant.path[len(releases.link) :]
            inside.grants.append(grant._replace(path=path))
        else:
            plan.grants.append(grant)
    for folder in _folders_of_shared(whole, releases):
        inside.steps.append(Step("mkdir", inside.path + folder[len(releases.link) :], None))
        shown.directories[folder] = None
    for path in releases.shared_paths:
        shown.links[f"{releases.link}/{path}"] = shared_target(releases, inside.release.name, path)
    shown.links[releases.link] = releases.target(inside.release.name)
    shown.directories.pop(releases.link, None)
    return plan


def _note(plan: Plan, step: Step) -> None:
    plan.steps.append(step)
    if step.kind == "copy":
        plan.copies[step.path] = step.source or ""
    else:
        plan.directories[step.path] = step.source


def shared_target(releases: Releases, name: str, path: str) -> str:
    """Return what a release's link to something shared says."""
    where = os.path.dirname(f"{releases.path(name)}/{path}")
    return os.path.relpath(f"{releases.shared}/{path}", where)


def _kept(whole: Plan, releases: Releases) -> list[str]:
    """Return the paths for which shared content is there: the revision's own is left out.

    :raises InstallError: if the revision has a file where a shared directory, or its parent, is
    """
    kept = []
    for path, is_directory in releases.shared_paths.items():
        top = f"{releases.link}/{path}"
        if os.path.lexists(f"{releases.shared}/{path}"):
            kept.append(top)
        elif is_directory and top in whole.copies:
            raise InstallError(
                f"The shared path {path}/ is a directory, but the revision installs a file there."
                " Write it without the slash, or correct the AppSpec file."
            )
        for folder in _parents(top, releases.link):
            if folder in whole.copies:
                raise InstallError(
                    f"The shared path {path} cannot be in {folder}, which the revision installs as"
                    " a file. Correct shared_paths or the AppSpec file."
                )
    return kept


def _parents(path: str, top: str) -> list[str]:
    """Return the folders between a path and the top, from above."""
    found: list[str] = []
    folder = os.path.dirname(path)
    while folder != top:
        found.insert(0, folder)
        folder = os.path.dirname(folder)
    return found


def _folders_of_shared(whole: Plan, releases: Releases) -> list[str]:
    folders: list[str] = []
    for path in releases.shared_paths:
        for folder in _parents(f"{releases.link}/{path}", releases.link):
            if folder not in whole.directories and folder not in folders:
                folders.append(folder)
    return folders


def _is_ancestor(step: Step, releases: Releases) -> bool:
    """Tell whether a directory is there only for the releases: they outlive each deployment."""
    tops = (releases.link, releases.directory)
    return step.source is None and any(below(top, step.path) for top in tops)


def _check_place(step: Step, releases: Releases) -> None:
    for top in (releases.releases, releases.shared):
        if below(step.path, top):
            raise InstallError(
                f"The AppSpec installs {step.path}, but {top} is where the layout keeps its"
                f" {os.path.basename(top)}. Install it below {releases.link}."
            )


# -- what stands in the way ------------------------------------------------------------------------


def _conflicts(context: Context, inside: Inside, ground: Ground) -> list[str]:
    releases, found = inside.releases, []
    if inside.index.group_id != context.layout.group_id:
        found.append(
            f"{releases.directory} holds the releases of another deployment group"
            f" ({inside.index.group_id}). Set deploy_release_directory to a folder of this one's"
        )
    for path, is_directory in releases.shared_paths.items():
        there = f"{releases.shared}/{path}"
        if is_directory and os.path.lexists(there) and not os.path.isdir(there):
            found.append(f"The shared path {path}/ is a directory, but {there} is none")
    for folder in (releases.releases, releases.shared, os.path.dirname(releases.link)):
        found += _not_writable(folder)
    kind = ground.kind(releases.link)
    if kind == "directory":
        found.append(
            f"{releases.link} has to become a link to the release, but it is a directory with"
            f" something in it that no deployment has put there, {_foreign(releases.link, ground)}."
            f" Move it away, or to {releases.shared} and name it in deploy_shared_paths"
        )
    elif kind is not None and context.existing != "OVERWRITE":
        found.append(
            f"{releases.link} has to become a link to the release, but there is a {kind} that no"
            " deployment has put there. Move it away, or let it be replaced with"
            " deploy_file_exists_behavior OVERWRITE"
        )
    return found


def _not_writable(folder: str) -> list[str]:
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    if not os.path.isdir(folder):
        return [f"{folder} has to be a directory for the releases, and it is none"]
    if not os.access(folder, os.W_OK | os.X_OK):
        return [
            f"{folder} cannot be written to by user number {os.geteuid()}, and the releases and"
            " the link to them are there. Give it to that user, or deploy as another (become)"
        ]
    return []


def _foreign(folder: str, ground: Ground) -> str:
    """Return the first path in a folder that stays when the earlier installation is gone."""
    for name in sorted(os.listdir(folder)):
        path = f"{folder}/{name}"
        if ground.key(path) not in ground.gone:
            is_folder = os.path.isdir(path) and not os.path.islink(path)
            return _foreign(path, ground) if is_folder and os.listdir(path) else path
    return folder
