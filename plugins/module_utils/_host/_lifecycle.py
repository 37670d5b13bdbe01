# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The operation lifecycle: run a span of lifecycle events, going on where an earlier call ended."""

from __future__ import annotations

import os
import signal
import time
from typing import Any, BinaryIO

from .._errors import BasculeError, HostError, InstallError, UsageError
from . import _cleanup, _context, _events, _files, _retention, _tree
from ._journal import Journal
from ._layout import Folder, read_pointer, write_file
from ._lock import GroupLock
from ._scriptlog import ScriptLog

# systemd's search path, under which the agent runs its scripts.
_SEARCHED = (
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
)


def run(request: dict[str, Any], bundle: BinaryIO | None) -> dict[str, Any]:
    """Run the request's ``events`` in their order; ``final`` writes the End.

    An event that the journal has as finished is not run again; its result is returned again.

    :returns: ``{"changed", "failed", "msg", "events": [{"event", "status", "started", "ended",
        "error_code", "script", "message", "log"}], "error": {"code", "event", "script", "message",
        "log"} | None}``; times are seconds since the epoch
    :raises BasculeError: for a request that cannot be begun
    """
    context = _context.Context(request)
    events = _wanted(request, context)
    if context.check:
        return {
            "changed": True,
            "failed": False,
            "msg": "Would run " + ", ".join(events) + ".",
            "events": [_result(event, "Pending") for event in events],
            "error": None,
        }
    context.prepare()
    # The agent runs under systemd's umask, whatever the shell of the user who connects has.
    mask = os.umask(0o022)
    try:
        with GroupLock(context.layout.lock, context.holder, context.patience), _Signals():
            return _Run(context, bundle).span(events, bool(request.get("final")))
    except OSError as error:
        raise HostError(f"The lifecycle cannot be gone on with on this host: {error}.") from error
    finally:
        os.umask(mask)


def _wanted(request: dict[str, Any], context: _context.Context) -> list[str]:
    events: list[str] = []
    for event in request.get("events") or ():
        if not isinstance(event, str) or not event or event in events:
            raise UsageError(f"The events of a request are different names, not {event!r} (again).")
        events.append(event)
        if event == "ValidateService" and context.gates:
            events.append(_events.GATE)
    if not events:
        raise UsageError("The request names no events to run.")
    return events


def _result(event: str, status: str, **more: Any) -> dict[str, Any]:
    result = {
        "event": event,
        "status": status,
        "started": None,
        "ended": None,
        "error_code": None,
        "script": "",
        "message": "",
        "log": "",
    }
    result.update(more)
    return result


class _Signals:
    """While a span runs, SIGTERM and SIGHUP end it the orderly way, its script with it."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        for number in (signal.SIGTERM, signal.SIGHUP):
            # Who ignores a signal (nohup) or handles it knows better; threads may not ask at all.
            if signal.getsignal(number) is signal.SIG_DFL:
                try:
                    self._before[number] = signal.signal(number, self._stop)
                except ValueError:
                    return

    def __exit__(self, *_reason: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @staticmethod
    def _stop(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)


class _Run:
    """One call on one deployment."""

    def __init__(self, context: _context.Context, bundle: BinaryIO | None) -> None:
        self._context = context
        self._layout = context.layout
        self._folder = context.layout.deployment
        self._bundle = bundle
        os.makedirs(self._folder.path, exist_ok=True)
        self._journal = Journal(self._folder.journal)
        secrets = (context.options.get("hook_environment") or {}).values()
        self._log = ScriptLog(
            self._folder.script_log,
            self._layout.deployment_log,
            self._layout.deployment_id,
            secrets,
        )
        self._changed = False

    def span(self, events: list[str], final: bool) -> dict[str, Any]:
        results: list[dict[str, Any]] = []
        error = None
        try:
            for event in events:
                if error is not None:
                    results.append(_result(event, "Skipped"))
                    continue
                result = self._journal.finished(event) or self._event(event)
                results.append(result)
                if result["status"] == "Failed" and not self._forgives(event):
                    error = _error(result)
            if final and error is None and not self._journal.ended:
                self._seal()
                self._journal.append({"end": True}, sync=False)
                self._changed = True
        finally:
            self._log.close()
            self._journal.close()
        return {
            "changed": self._changed,
            "failed": error is not None,
            "msg": _message(results, error),
            "events": results,
            "error": error,
        }

    def _seal(self) -> None:
        """Write down how the installed files are when the deployment ends."""
        installed = self._journal.finished("Install")
        if installed is not None:
            from . import _seal

            paths = _cleanup.installed(self._layout.install)
            _seal.write(self._folder, paths, installed["started"])

    def _forgives(self, event: str) -> bool:
        return self._context.forgiving and event in _events.FORGIVABLE

    def _event(self, event: str) -> dict[str, Any]:
        if not self._journal.begun:
            write_file(self._layout.latest_attempt, self._folder.path, sync=False)
        self._changed = True
        started = round(time.time(), 3)
        more: dict[str, Any]
        try:
            more = self._work(event, started)
        except BasculeError as error:
            # The agent's number for everything but a script's own failure.
            code = "HealthGateFailed" if event == _events.GATE else _events.ERROR_CODES[5]
            more = {"status": "Failed", "error_code": code, "message": str(error)}
        except OSError as error:
            more = {
                "status": "Failed",
                "error_code": _events.ERROR_CODES[5],
                "message": f"{event} failed on this host: {error}.",
            }
        result = _result(event, **more)
        result["started"] = started
        result["ended"] = round(time.time(), 3)
        line: dict[str, Any] = {"event": event, "result": result}
        if result["status"] == "Failed" and self._forgives(event):
            line["forgiven"] = True
        # An event that did nothing needs no fsync of its own: the next one, or the end, has it.
        self._journal.append(line, sync=bool(result["log"]) or event == "Install")
        return result

    def _begin(self, event: str, started: float) -> None:
        self._journal.append({"event": event, "started": started})

    def _work(self, event: str, started: float) -> dict[str, Any]:
        if event == "DownloadBundle":
            return self._download()
        if event == "Install":
            self._begin(event, started)
            return self._install()
        if event == _events.GATE:
            from . import _gates

            return {"status": "Succeeded", "message": "; ".join(_gates.wait(self._context.gates))}
        if event in _events.RESERVED:
            return {"status": "Succeeded"}
        return self._hook(event, started)

    # -- the reserved events ---------------------------------------------------------------------

    def _download(self) -> dict[str, Any]:
        """Make sure that the revision is here; it becomes the most recent one, old ones go."""
        report: dict[str, Any] = {
            "warnings": [],
            "previous": _context.previous(self._layout),
        }
        if self._journal.digest is None or not os.path.isdir(self._folder.archive):
            from . import _stage

            _stage.deliver(self._context, self._bundle, self._journal, report)
        self._check_digest()
        write_file(self._layout.most_recent, self._folder.path, sync=False)
        _retention.prune(self._layout, self._context.retained)
        return {"status": "Succeeded", "message": " ".join(report["warnings"])}

    def _check_digest(self) -> None:
        if self._journal.digest != self._context.digest:
            raise UsageError(
                f"Deployment {self._folder.deployment_id} was staged on this host with the revision"
                f" {self._journal.digest}, not {self._context.digest}. Start a new deployment."
            )

    def _install(self) -> dict[str, Any]:
        context = self._context
        tree = _tree.scan(self._folder.archive)
        made = _cleanup.read(self._layout.cleanup, self._layout.install)
        ground = _cleanup.Ground(made)
        plan = _files.make(
            context.appspec, tree, ground, existing=context.existing, sysroot=context.sysroot
        )
        if plan.conflicts:
            raise InstallError(plan.conflict_text())
        from . import _install

        _install.carry_out(plan, tree, self._folder.archive, made, ground, self._layout)
        # As the agent does it: from now on this revision's stop script fits what is installed.
        write_file(self._layout.last_successful, self._folder.path)
        kept = f", {len(plan.retained)} existing ones kept" if plan.retained else ""
        return {"status": "Succeeded", "message": f"{len(plan.copies)} files installed{kept}"}

    # -- hooks -----------------------------------------------------------------------------------

    def _hook(self, event: str, started: float) -> dict[str, Any]:
        folder = self._folder_of(event)
        if folder is None:
            return {"status": "Succeeded"}
        if folder.path == self._folder.path:
            appspec = self._context.appspec
        else:
            appspec = _context.recall(folder)["appspec"]
        scripts = appspec["hooks"].get(event)
        if not scripts:
            return {"status": "Succeeded"}
        from . import _hooks, _process

        for pid in self._journal.unfinished(event, _process.birth):
            _process.kill(pid)
        self._begin(event, started)

        def note(pid: int) -> None:
            line = {"event": event, "process": pid, "birth": _process.birth(pid)}
            self._journal.append(line, sync=False)

        outcome = _hooks.run_event(
            event, scripts, folder.archive, self._environment(event, folder), self._log, note
        )
        status = "Succeeded" if outcome.number == 0 else "Failed"
        return {
            "status": status,
            "error_code": _events.ERROR_CODES[outcome.number],
            "script": outcome.script,
            "message": outcome.message,
            "log": self._log.tail(),
        }

    def _folder_of(self, event: str) -> Folder | None:
        """Return the deployment whose script an event runs; None on a first deployment."""
        downloaded = self._journal.finished("DownloadBundle") is not None
        own = self._folder
        deployment = self._context.deployment
        if self._context.is_rollback and deployment.get("style") == "BLUE_GREEN":
            if event in ("BeforeBlockTraffic", "AfterBlockTraffic"):
                return own if downloaded else read_pointer(self._layout.most_recent)
            if event in ("BeforeAllowTraffic", "AfterAllowTraffic"):
                return own if downloaded else read_pointer(self._layout.last_successful)
        if event in _events.OF_PREVIOUS and not downloaded:
            return read_pointer(self._layout.last_successful)
        return own

    def _environment(self, event: str, folder: Folder) -> dict[str, str]:
        context = self._context
        deployment = context.deployment
        environment = dict(os.environ, PATH=_search_path(os.environ.get("PATH", "")))
        for source in (
            context.revision.get("environment"),
            context.options.get("hook_environment"),
        ):
            for name, value in (source or {}).items():
                if value is not None:
                    environment[name] = str(value)
        if self._journal.digest is None:
            before = (_context.previous(self._layout) or {}).get("digest")
        else:
            before = self._journal.previous
        environment.update(
            {
                "LIFECYCLE_EVENT": event,
                "DEPLOYMENT_ID": self._layout.deployment_id,
                "APPLICATION_NAME": str(deployment.get("application") or ""),
                "DEPLOYMENT_GROUP_NAME": str(deployment.get("group") or ""),
                "DEPLOYMENT_GROUP_ID": self._layout.group_id,
                "ARCHIVE_DIRECTORY": folder.archive,
                "REVISION_DIGEST": context.digest,
                "PREVIOUS_REVISION": before or "",
                "TARGET_NAME": context.target,
                "IS_ROLLBACK": "true" if context.is_rollback else "false",
                "SYSROOT": context.sysroot,
            }
        )
        return environment


def _search_path(path: str) -> str:
    """Return the search path with systemd's folders: scripts count on them, ssh may lack them."""
    folders = [folder for folder in path.split(os.pathsep) if folder]
    return os.pathsep.join(folders + [one for one in _SEARCHED if one not in folders])


def _error(result: dict[str, Any]) -> dict[str, Any]:
    return {
        "code": result["error_code"],
        "event": result["event"],
        "script": result["script"],
        "message": result["message"],
        "log": result["log"],
    }


def _message(results: list[dict[str, Any]], error: dict[str, Any] | None) -> str:
    if error is not None:
        return f"{error['event']} failed: {error['message']}"
    done = [one["event"] for one in results]
    return f"{len(done)} lifecycle events done, {done[0]} to {done[-1]}."
