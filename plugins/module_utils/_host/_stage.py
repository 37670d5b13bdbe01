# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The operation stage: bring a revision to a host and find out whether it can be installed.

Nothing live is touched. What is refused here is refused before any traffic or service moved.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, cast

from .._errors import ArchiveError, HostError, InstallError, UsageError
from . import _context, _events, _files, _room, _tree
from ._journal import Journal
from ._lock import GroupLock

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._context import Context
    from ._tree import Tree

_BLOCK = 1024 * 1024
# The events whose scripts a deployment needs, in their order. A missing stop script, for example,
# blocks the next deployment only, and is warned of.
_NEEDED = ("BeforeInstall", "AfterInstall", "ApplicationStart", "ValidateService")


def run(request: dict[str, Any], bundle: BinaryIO | None) -> dict[str, Any]:
    """Stage a revision; with ``check`` only say what would be done.

    :returns: ``{"changed", "staged", "current", "needs_bundle", "seconds", "free_bytes",
        "previous": {"deployment_id", "digest", "hooks"} | None, "diff"?, "warnings": [...],
        "release": {"path", "again": whether it is there and nothing is copied} | None,
        "events"?: of a target that is current by this very deployment, what came of each}``
    :raises BasculeError: for a revision that cannot be staged or installed here
    """
    begun = time.monotonic()
    context = _context.Context(request)
    result: dict[str, Any] = {
        "changed": False,
        "staged": False,
        "current": False,
        "needs_bundle": False,
        "previous": _context.previous(context.layout),
        "warnings": [],
        "release": None,
    }
    try:
        _stage(context, bundle, result)
    except OSError as error:
        raise HostError(f"The revision cannot be staged on this host: {error}.") from error
    result["free_bytes"] = _room.free_bytes(context.layout.root)
    result["seconds"] = round(time.monotonic() - begun, 3)
    return result


def _stage(context: Context, bundle: BinaryIO | None, result: dict[str, Any]) -> None:
    if _context.is_current(context):
        result["current"] = True
        result["events"] = _context.told_again(context)
    elif context.check:
        _check(context, result)
    elif bundle is not None or _has_bundle(context):
        _deliver_locked(context, bundle, result)
    elif context.url:
        _pull(context, result)
    else:
        result["needs_bundle"] = True


def _deliver_locked(context: Context, bundle: BinaryIO | None, result: dict[str, Any]) -> None:
    context.prepare()
    with GroupLock(context.layout.lock, context.holder, context.patience):
        journal = Journal(context.layout.deployment.journal)
        try:
            deliver(context, bundle, journal, result)
        finally:
            journal.close()


def _pull(context: Context, result: dict[str, Any]) -> None:
    """Fetch the bundle; where that fails, ask the controller to send it."""
    from . import _pull

    try:
        source = _pull.Pulled(context.url)
        try:
            _deliver_locked(context, cast("BinaryIO", source), result)
        finally:
            source.close()
        result["pulled"] = True
    except (_pull.PullError, ArchiveError) as error:
        if _has_bundle(context):
            # It came, and is refused for what is in it.
            raise
        result["staged"] = False
        result["needs_bundle"] = True
        result["warnings"].append(f"The bundle was not pulled and has to be sent: {error}")


def _has_bundle(context: Context) -> bool:
    folder = context.layout.deployment
    staged = os.path.isdir(folder.archive) and Journal(folder.journal).digest == context.digest
    return staged or os.path.isfile(_cached(context))


def _cached(context: Context) -> str:
    digest = str(context.bundle.get("sha256") or context.digest).lower()
    if len(digest) != 64 or digest.strip("0123456789abcdef"):
        raise UsageError(f"The bundle's sha256 {digest!r} is no SHA-256 in hexadecimal.")
    return context.layout.cached(digest)


def _check(context: Context, result: dict[str, Any]) -> None:
    manifest = context.revision.get("manifest")
    if not manifest:
        raise UsageError("The check of a stage needs the revision's manifest in the request.")
    tree = _tree.from_manifest(manifest)
    _preflight(context, tree, None, result)
    result["changed"] = True


def deliver(
    context: Context, bundle: BinaryIO | None, journal: Journal, result: dict[str, Any]
) -> None:
    """Unpack the revision into its deployment's folder and check it, unless that was done.

    The caller holds the group's lock.

    :raises BasculeError: for a revision that cannot be staged or installed here
    """
    folder = context.layout.deployment
    if journal.digest not in (None, context.digest):
        raise UsageError(
            f"Deployment {folder.deployment_id} was staged on this host with the revision"
            f" {journal.digest}, not {context.digest}. Start a new deployment."
        )
    result["staged"] = True
    if journal.digest is not None and os.path.isdir(folder.archive):
        return
    is_new = not os.path.isdir(folder.path)
    os.makedirs(folder.path, exist_ok=True)
    part = folder.archive + ".part"
    try:
        if not os.path.isfile(_cached(context)):
            _receive(context, bundle)
        else:
            _reuse(context)
        _unpack(context, part, result)
        _preflight(context, _tree.scan(part), part, result)
        _remove(folder.archive)
        os.rename(part, folder.archive)
    except BaseException:
        _remove(folder.path if is_new else part)
        raise
    _context.remember(folder, context)
    before = result["previous"] or {}
    journal.append({"staged": context.digest, "previous": before.get("digest")})
    result["changed"] = True


def _reserve(context: Context) -> int:
    """Return the room to leave: a way back is not refused for the want of a reserve."""
    return 0 if context.is_rollback else _room.RESERVE


def _remove(path: str) -> None:
    if os.path.lexists(path):
        import shutil

        shutil.rmtree(path, ignore_errors=True)


# -- the bundle ------------------------------------------------------------------------------------


def _receive(context: Context, bundle: BinaryIO | None) -> None:
    """Read the bundle from the controller, to its end or its size, and check its digest."""
    import hashlib

    cached = _cached(context)
    if bundle is None:
        raise HostError(
            "The bundle is not on this host, and the request brought none. Send it along."
        )
    size = context.bundle.get("size")
    needed = 2 * int(size or 0)
    _room.want(context.layout.root, needed, "the bundle and its content", _reserve(context))
    part = f"{cached}.{os.getpid()}.part"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(part, flags, 0o600)
    try:
        digest = hashlib.sha256()
        received = 0
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            while size is None or received < size:
                wanted = _BLOCK if size is None else min(_BLOCK, size - received)
                block = bundle.read(wanted)
                if not block:
                    break
                digest.update(block)
                received += len(block)
                view = memoryview(block)
                while view:
                    view = view[file.write(view) :]
        _check_received(os.path.basename(cached), digest.hexdigest(), received, size)
        # Linked before it is in the cache: what has a second name is never pruned from it.
        _link(part, context.layout.deployment.bundle)
        os.replace(part, cached)
    except OSError as error:
        raise HostError(f"Cannot store the bundle at {part}: {error.strerror}.") from error
    finally:
        if os.path.exists(part):
            os.unlink(part)


def _reuse(context: Context) -> None:
    """Take the bundle from the cache, if it is still what it was."""
    import hashlib

    cached = _cached(context)
    digest = hashlib.sha256()
    with open(cached, "rb", buffering=0) as file:
        while True:
            block = file.read(_BLOCK)
            if not block:
                break
            digest.update(block)
    if digest.hexdigest() != os.path.basename(cached):
        os.unlink(cached)
        raise HostError(
            f"The host's copy of the bundle, {cached}, was damaged and is removed. Run this again:"
            " the bundle will be sent anew."
        )
    _link(cached, context.layout.deployment.bundle)


def _check_received(wanted: str, digest: str, received: int, size: int | None) -> None:
    if size is not None and received != size:
        raise ArchiveError(
            f"The bundle ended after {received} of {size} bytes. Was the connection cut?"
        )
    if digest != wanted:
        raise ArchiveError(
            f"Expected deployment artifact bundle sha256 {wanted} but was actually {digest}."
        )


def _link(source: str, target: str) -> None:
    temporary = target + ".new"
    for path in (temporary, target):
        if os.path.lexists(path):
            os.unlink(path)
    os.link(source, temporary)
    os.rename(temporary, target)


def _unpack(context: Context, part: str, result: dict[str, Any]) -> None:
    from . import _archive

    _remove(part)
    os.mkdir(part, 0o755)
    limit = _room.free_bytes(context.layout.root) - _reserve(context)
    result["warnings"] += _archive.unpack(
        context.layout.deployment.bundle,
        part,
        limit=max(limit, 0),
        outside_links=context.outside_links,
    )
    _tree.strip_wrapper(part)


# -- preflight -------------------------------------------------------------------------------------


def _preflight(context: Context, tree: Tree, archive: str | None, result: dict[str, Any]) -> None:
    """Find everything that would make the installation fail.

    What a script that runs before Install may still put right is only warned of: stop scripts and
    BeforeInstall are where old files are removed and users are created, and BeforeInstall is where
    bundles build into their own archive.
    """
    import sys

    platform = "windows" if sys.platform.startswith("win") else "linux"
    if context.appspec["os"] != platform:
        raise InstallError(
            f"The revision is for {context.appspec['os']}, this host runs {platform}."
        )
    _check_scripts(context, tree, result)
    before = result["previous"] or {"hooks": {}}
    builds = bool(context.appspec["hooks"].get("BeforeInstall"))
    may_change = builds or any(event in before["hooks"] for event in _events.OF_PREVIOUS)

    def refuse(message: str) -> NoReturn:
        raise InstallError(message)

    def warn(message: str) -> None:
        result["warnings"].append(
            f"{message} A script that runs before Install may change this; if none does, Install"
            " will fail."
        )

    complain: Callable[[str], None] = warn if may_change else refuse
    made, ground = context.earlier()
    release = context.release(Journal(context.layout.deployment.journal))
    _files.check_sources(context.appspec)
    missing: list[str] = []
    try:
        plan = context.plan(tree, ground, release, missing if builds else None)
    except InstallError as error:
        if not builds:
            raise
        warn(str(error))
        return
    for message in missing:
        warn(message)
    if plan.conflicts:
        complain(plan.conflict_text())
    from . import _grants

    shown = plan if plan.release is None else plan.release.shown
    for check in _grants.CHECKS:
        try:
            check(shown.grants)
        except InstallError as error:
            complain(str(error))
    if plan.release is not None:
        inside = plan.release
        result["release"] = {"path": inside.path, "again": inside.again}
    if plan.release is None or not plan.release.again:
        _room.want_for(shown.sizes(tree), "the revision's files", _reserve(context))
    if context.diff:
        from . import _diff

        leaving = context.leaving(made, ground)
        before_text, after_text = _diff.listing(shown, tree, archive, leaving)
        result["diff"] = {"before": before_text, "after": after_text}


def _check_scripts(context: Context, tree: Tree, result: dict[str, Any]) -> None:
    """Look for the scripts; whatever one of them may have made by then is only warned of."""
    earlier = False
    for event in _events.HOOKS:
        for script in context.appspec["hooks"].get(event, ()):
            path = os.path.normpath(script["location"].lstrip("/"))
            found = None if path.startswith("..") else tree.find(path)
            if found is None or tree.items[found].kind != "file":
                message = (
                    f"The hook {event} names the script {script['location']}, which the revision"
                    " does not hold."
                )
                if event in _NEEDED and not earlier:
                    raise InstallError(message + " Add it, or correct the AppSpec file.")
                if event in _NEEDED:
                    message += f" If no script before it makes it, {event} will fail."
                result["warnings"].append(message)
            earlier = earlier or event in _NEEDED
