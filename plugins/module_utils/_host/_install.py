# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carry out a planned installation, so that it can be repeated after any interruption."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING, Any

from .._errors import InstallError
from . import _cleanup, _grants, _room, _steps
from ._layout import write_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._cleanup import Ground, Made
    from ._files import Plan
    from ._layout import Layout
    from ._tree import Tree


def carry_out(
    plan: Plan,
    tree: Tree,
    archive: str,
    made: list[Made],
    ground: Ground,
    layout: Layout,
    touch: Callable[[], None],
) -> None:
    """Install, then take away what the earlier installation made and this one does not.

    A release is built before anything else is touched, and becomes live once everything else is
    there. Files beside it, and all files in the layout of copies, are replaced by one rename each.
    The clean-up file grows before every copy and after every new directory, and loses the earlier
    installation's lines at the end: whenever this stops, the next run knows everything that either
    of the two made.

    :param touch: is told before anything is changed that was there: until then a failure has left
        the earlier installation whole
    :raises InstallError: for a file or permission that cannot be written
    """
    release = plan.release
    grants = plan.grants if release is None else plan.grants + release.grants
    for check in _grants.CHECKS:
        check(grants)
    written = plan if release is None else release.shown
    if release is None or not release.again:
        _room.want_for(written.sizes(tree), "the revision's files; nothing was replaced")
    if release is not None:
        from . import _release_install

        _release_install.build(release, tree, archive)
    keep = _in_both(plan, ground)
    blocking = _blocking(plan, ground, made)
    if blocking or any(one.kind == "semanage" for one in made):
        touch()
    _grants.unlabel(made)
    _cleanup.remove(blocking, ground, keep)
    lines = []
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    record = os.open(layout.cleanup, flags, 0o644)
    try:
        _end_line(layout.cleanup, record)
        for number, step in enumerate(plan.steps):
            line = _cleanup.line(step.kind, step.path)
            lines.append(line)
            try:
                if step.kind == "copy":
                    os.write(record, line)
                    _steps.copy(step, tree, archive, touch)
                else:
                    _steps.mkdir(step, tree, touch)
                    os.write(record, line)
            except InstallError as error:
                done = sum(one.kind == "copy" for one in plan.steps[:number])
                raise InstallError(f"{error} {_left(done, len(plan.copies))}") from error
        if plan.grants:
            touch()
        for grant in plan.grants:
            _grants.give(grant)
        for grant in grants:
            labelled = _grants.label(grant)
            if labelled is not None:
                lines.append(_cleanup.line("semanage", labelled))
                os.write(record, lines[-1])
        stays = {ground.key(path) for step in plan.steps for path in (step.path, step.onto) if path}
        if release is not None:
            link = release.releases.link
            stays.add(ground.key(link))
            lines.append(_cleanup.line("link", link))
            os.write(record, lines[-1])
            touch()
            _release_install.switch(release, ground)
        touch()
        _cleanup.remove(made, ground, stays)
    finally:
        os.close(record)
    write_file(layout.install, json.dumps({"instructions": instructions(plan, archive)}))
    write_file(layout.cleanup, os.fsdecode(b"".join(lines)))


def _left(done: int, total: int) -> str:
    return (
        f"{done} of {total} files are in place, the others are as they were. Once the cause is"
        " gone, deploying again, or back, completes this."
    )


def instructions(plan: Plan, archive: str) -> list[dict[str, Any]]:
    """Return the plan as the agent writes it to ``<group>-install.json``; it knows no links."""
    result: list[dict[str, Any]] = []
    inside = plan.release
    for step in plan.steps if inside is None else plan.steps + inside.recorded():
        if step.kind == "copy":
            source = os.path.join(archive, step.source or "")
            result.append({"type": "copy", "source": source, "destination": step.path})
        elif step.kind == "link":
            result.append({"type": "link", "destination": step.path})
        else:
            result.append({"type": "mkdir", "directory": step.path})
    for path, permission in plan.grants if inside is None else plan.grants + inside.grants:
        if permission["owner"] or permission["group"]:
            result.append(
                {
                    "type": "chown",
                    "owner": permission["owner"],
                    "group": permission["group"],
                    "file": path,
                }
            )
        if permission["mode"]:
            result.append({"type": "chmod", "mode": permission["mode"], "file": path})
        if permission["acls"]:
            result.append({"type": "setfacl", "acl": permission["acls"], "file": path})
        if permission["context"]:
            result.append({"type": "semanage", "context": permission["context"], "file": path})
    return result


def _in_both(plan: Plan, ground: Ground) -> set[str]:
    """Return what goes away and comes again as the same kind: it is replaced, not removed."""
    keep = set()
    for step in plan.steps:
        key = ground.key(step.path)
        if key in ground.gone:
            is_directory = stat.S_ISDIR(os.lstat(key).st_mode)
            if is_directory == (step.kind == "mkdir"):
                keep.add(key)
    return keep


def _blocking(plan: Plan, ground: Ground, made: list[Made]) -> list[Made]:
    """Return what must go first: a file where a directory comes, or the other way round."""
    wanted = {ground.key(step.path) for step in plan.steps}
    keep = _in_both(plan, ground)
    bad = {key for key in wanted if key in ground.gone and key not in keep}
    if not bad:
        return []
    return [
        one
        for one in made
        if one.kind != "semanage"
        and any(
            ground.key(one.path) == key or ground.key(one.path).startswith(key + "/") for key in bad
        )
    ]


def _end_line(path: str, descriptor: int) -> None:
    """Cut off a line that an interruption left unfinished, so that nothing is glued to it."""
    with open(path, "rb") as file:
        content = file.read()
    if content and not content.endswith(b"\n"):
        os.ftruncate(descriptor, content.rfind(b"\n") + 1)
