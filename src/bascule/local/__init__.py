"""Deploy a bundle to this very host: no inventory, no record, no Ansible.

The same host program that deployments to a fleet send to their targets runs here in process, with
CodeDeploy's layout below the deployment root.
"""

from __future__ import annotations

import os
import secrets
import socket
import string
import typing as t
from pathlib import Path

from ansible_collections.bascule.deploy.plugins.module_utils._errors import (
    ArchiveError,
    BasculeError,
    HostError,
    RevisionError,
)
from ansible_collections.bascule.deploy.plugins.module_utils._host import (
    _context,
    _entry,
    _events,
    _layout,
    _retention,
    _tree,
)
from ansible_collections.bascule.deploy.plugins.module_utils._host._journal import Journal
from ansible_collections.bascule.deploy.plugins.plugin_utils._revisions._model import digest_of
from ansible_collections.bascule.deploy.plugins.plugin_utils._revisions._tree import read_tree

from bascule.local import _delivery
from bascule.local._delivery import TYPES
from bascule.local._order import check_hooks, choose

__all__ = ["GROUP", "GROUP_ID", "TYPES", "Releases", "Result", "deploy"]

GROUP_ID = "default-local-deployment-group"
GROUP = "LocalFleet"
# Until the bundle has been looked at.
_BLANK: dict[str, t.Any] = {"hooks": {}, "files": [], "permissions": [], "os": "linux"}


class Result(t.TypedDict):
    """How a local deployment ended.

    ``status`` is Succeeded or Failed; ``events`` and ``error`` ({code, event, script, message,
    log} or None) are as the host program tells them; ``log`` is where the scripts' output is.
    """

    deployment_id: str
    status: str
    events: list[dict[str, t.Any]]
    error: dict[str, t.Any] | None
    log: str
    warnings: list[str]


class Releases(t.TypedDict):
    """The layout of releases, as the variables ``deploy_…`` of the same names describe it."""

    release_directory: str
    release_link: str
    shared_paths: list[str]
    releases_to_keep: int


def deploy(
    location: str,
    *,
    kind: str | None = None,
    events: str | None = None,
    file_exists_behavior: str | None = None,
    group_id: str = GROUP_ID,
    group: str = GROUP,
    application: str | None = None,
    appspec_filename: str | None = None,
    root: str | None = None,
    sysroot: str = "",
    strict: str | None = None,
    retained: int | None = None,
    outside_links: bool = True,
    releases: Releases | None = None,
    start_again: str | None = None,
    begin: t.Callable[[str], None] = lambda _folder: None,
) -> Result:
    """Deploy a bundle here and return how it ended.

    What no script can change (a damaged archive, a refused AppSpec file, an AppSpec file that
    contradicts itself) is found before the first script runs; the failed event is the one at which
    CodeDeploy's agent finds it.

    :param location: a folder, an archive, a commit (``git+https://…#REF``) or an archive behind
        https with its checksum
    :param kind: tgz, tar, zip or directory; None to see for ourselves
    :param events: lifecycle events with commas between them; None for all
    :param root: the deployment root; by default CodeDeploy's own, below the sysroot
    :param strict: ``agent-v1`` or ``agent-v2`` to accept only the AppSpec files that agent does
    :param retained: how many deployments to keep, this one included
    :param outside_links: whether an archive's symbolic links may lead out of it, as they may with
        codedeploy-local
    :param releases: the layout of releases; None to copy files to their destinations
    :param start_again: as ``deploy_start_again``; None for ``refused``, with ``strict`` for
        ``never``, as the agent has it
    :param begin: is told the deployment's folder before anything is done
    :raises BasculeError: for what cannot be begun; nothing was changed
    """
    names = choose(events)
    bundle = _delivery.find(location, kind)
    request: dict[str, t.Any] = {
        "operation": "lifecycle",
        "root": root or f"{sysroot.rstrip('/')}{_layout.DEFAULT_ROOT}",
        "sysroot": sysroot,
        "target": socket.gethostname(),
        "deployment": {
            "id": new_id(),
            "group_id": group_id,
            "application": location if application is None else application,
            "group": group,
            "creator": "user",
        },
        "revision": {"digest": "unknown", "appspec": _BLANK, "environment": {}},
        "options": {
            "file_exists_behavior": file_exists_behavior,
            "retained_revisions": retained,
            "outside_links": outside_links,
            "start_again": start_again or ("never" if strict else "refused"),
            **({"layout": "release", **releases} if releases else {}),
        },
        "events": names,
        "final": True,
    }
    context = _context.Context(request)
    _check_place(bundle, context.layout)
    # The agent runs under systemd's umask, whatever the shell of the user here has.
    mask = os.umask(0o022)
    try:
        context.prepare()
        begin(context.layout.deployment.path)
        return _Deployment(request, context, names).run(location, bundle, appspec_filename, strict)
    finally:
        os.umask(mask)


def new_id() -> str:
    """Return an id as codedeploy-local makes them: ``d-`` and nine of A-Z0-9 and ``-local``."""
    alphabet = string.ascii_uppercase + string.digits
    return f"d-{''.join(secrets.choice(alphabet) for _ in range(9))}-local"


def _check_place(bundle: _delivery.Bundle | None, layout: _layout.Layout) -> None:
    if bundle is None or bundle.kind != "directory":
        return
    if Path(layout.root).resolve().is_relative_to(bundle.path.resolve()):
        raise HostError(
            f"The deployment root {layout.root} is inside the bundle {bundle.path}, which would be"
            " copied into itself. Give another --root."
        )


class _Refusal(Exception):
    """An error found before any event was run, and the event at which the agent finds it."""

    def __init__(self, event: str, error: BasculeError) -> None:
        super().__init__(str(error))
        self.event = event
        self.code = _events.ERROR_CODES[5]


class _Deployment:
    """One deployment to this host."""

    def __init__(
        self, request: dict[str, t.Any], context: _context.Context, names: list[str]
    ) -> None:
        self._request = request
        self._context = context
        self._layout = context.layout
        self._names = names
        self._warnings: list[str] = []

    def run(
        self,
        location: str,
        bundle: _delivery.Bundle | None,
        appspec_filename: str | None,
        strict: str | None,
    ) -> Result:
        try:
            self._deliver(location, bundle)
            self._read(appspec_filename, strict)
        except _Refusal as refusal:
            _retention.prune(self._layout, self._context.retained)
            return self._refused(refusal)
        answer = _entry.run(self._request)
        if "events" not in answer:
            raise HostError(answer["msg"])
        return self._result(answer["events"], answer["error"])

    def _deliver(self, location: str, bundle: _delivery.Bundle | None) -> None:
        try:
            if bundle is None:
                bundle = _delivery.fetch(location)
            self._warnings += _delivery.deliver(
                bundle, self._layout, outside_links=self._context.outside_links
            )
            manifest = [
                member.entry()
                for member in read_tree(Path(self._layout.deployment.archive), location)
            ]
        except (ArchiveError, RevisionError) as error:
            raise _Refusal("DownloadBundle", error) from error
        except BasculeError as error:
            raise _Refusal(self._first_of_revision(), error) from error
        self._request["revision"]["digest"] = digest_of(manifest)
        self._request["revision"]["environment"] = bundle.environment

    def _read(self, appspec_filename: str | None, strict: str | None) -> None:
        """Read the AppSpec file, and write down what the journal of a staged deployment holds."""
        folder = self._layout.deployment
        try:
            appspec = _delivery.read_appspec(Path(folder.archive), appspec_filename, strict)
        except BasculeError as error:
            raise _Refusal(self._first_of_revision(), error) from error
        self._request["revision"]["appspec"] = appspec
        self._request["revision"]["appspec_file"] = appspec_filename
        self._context = _context.Context(self._request)
        try:
            check_hooks(appspec["hooks"], self._names)
            self._check_plan()
        except BasculeError as error:
            raise _Refusal("Install", error) from error
        _context.remember(folder, self._context)
        before = _context.previous(self._layout) or {}
        journal = Journal(folder.journal)
        journal.append({"staged": self._context.digest, "previous": before.get("digest")})
        journal.close()

    def _check_plan(self) -> None:
        """Refuse an AppSpec file that contradicts itself, unless a script may still change that.

        :raises InstallError: what Install would come to
        """
        if "BeforeInstall" in self._context.appspec["hooks"] and "BeforeInstall" in self._names:
            return
        context = self._context
        _made, ground = context.earlier()
        release = context.release(Journal(self._layout.deployment.journal))
        context.plan(_tree.scan(self._layout.deployment.archive), ground, release)

    def _first_of_revision(self) -> str:
        """Return the first event for which the agent reads the new revision's AppSpec file."""
        return self._names[self._names.index("DownloadBundle") + 1]

    def _refused(self, refusal: _Refusal) -> Result:
        message = str(refusal)
        results = []
        for name in self._names:
            failed = name == refusal.event
            results.append(
                {
                    "event": name,
                    "status": "Failed" if failed else "Skipped",
                    "started": None,
                    "ended": None,
                    "error_code": refusal.code if failed else None,
                    "script": "",
                    "message": message if failed else "",
                    "log": "",
                }
            )
        error = {
            "code": refusal.code,
            "event": refusal.event,
            "script": "",
            "message": message,
            "log": "",
        }
        return self._result(results, error)

    def _result(self, events: list[dict[str, t.Any]], error: dict[str, t.Any] | None) -> Result:
        return {
            "deployment_id": self._layout.deployment_id,
            "status": "Succeeded" if error is None else "Failed",
            "events": events,
            "error": error,
            "log": self._layout.deployment.script_log,
            "warnings": self._warnings,
        }
