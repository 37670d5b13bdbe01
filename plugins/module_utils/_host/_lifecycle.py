# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The operation lifecycle: run a span of lifecycle events, going on where an earlier call ended."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any, BinaryIO

from .._errors import BasculeError, HostError, InstallError, UsageError
from . import (
    _again,
    _cleanup,
    _context,
    _environment,
    _events,
    _files,
    _retention,
    _room,
    _tree,
)
from ._journal import Journal
from ._layout import Folder, read_pointer, write_file
from ._lock import GroupLock
from ._scriptlog import ScriptLog


def run(request: dict[str, Any], bundle: BinaryIO | None) -> dict[str, Any]:
    """Run the request's ``events`` in their order; ``final`` writes the End.

    After a failure only the scripts run that are there for it (``run_on``): those of the event
    itself, of the events after it, and of ``later``, the events of the spans that will not come.
    Where an installation fails that has changed nothing, the old version, if this deployment has
    stopped it, is started again: the event ``StartOldVersion``, told in the error's message.
    An event that the journal has as finished is not run again; its result is returned again.
    With ``aside`` the deployment does not change this target: the scripts are those of what is
    installed, and it is not the newest deployment here.

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
        lock = GroupLock(context.layout.lock, context.holder, context.patience)
        with lock, _Signals():
            run = _Run(context, bundle, str(request.get("call") or ""), waited=lock.waited)
            later = list(request.get("later") or ())
            return run.span(events, later, bool(request.get("final")))
    except OSError as error:
        raise HostError(
            "The lifecycle cannot be gone on with on this host:"
            f" {_room.reason(error, error.filename or context.layout.root)}."
        ) from error
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
    """While a span runs, SIGTERM ends it the orderly way, its script with it.

    A terminal that hangs up, as a lost connection is one, ends nothing.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        # A handler, since scripts would inherit that a signal is ignored.
        for number, handler in ((signal.SIGTERM, self._stop), (signal.SIGHUP, self._go_on)):
            # Who ignores a signal (nohup) or handles it knows better; threads may not ask at all.
            if signal.getsignal(number) is signal.SIG_DFL:
                try:
                    self._before[number] = signal.signal(number, handler)
                except ValueError:
                    return

    def __exit__(self, *_reason: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @staticmethod
    def _stop(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    @staticmethod
    def _go_on(_number: int, _frame: object) -> None:
        return


class _Run:
    """One call on one deployment."""

    def __init__(
        self, context: _context.Context, bundle: BinaryIO | None, call: str, *, waited: bool
    ) -> None:
        self._context = context
        self._call = call
        self._aside = bool(context.request.get("aside"))
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
        # The calls whose results nobody has heard yet: this one, sent before over a connection
        # that was lost, and one of this deployment that was just waited for.
        unheard = {call, self._journal.last_call if waited else ""}
        self._unheard = frozenset(unheard - {""})
        self._changed = self._journal.has(self._unheard)
        self._touched = self._journal.touched

    def span(self, events: list[str], later: list[str], final: bool) -> dict[str, Any]:
        results: list[dict[str, Any]] = []
        error = None
        try:
            for event in events:
                if error is not None:
                    skipped = self._after_failure(event, error["event"])
                    results.append(skipped or _result(event, "Skipped"))
                    continue
                result = self._journal.finished(event, self._unheard) or self._event(event)
                results.append(result)
                if result["status"] == "Failed" and not self._forgives(event):
                    if event == _events.GATE:
                        self._after_gate(result)
                    error = _error(result)
            for event in later:
                skipped = self._after_failure(event, error["event"]) if error else None
                if skipped is not None:
                    results.append(skipped)
            if error is not None:
                again = self._start_old(error["event"])
                if again is not None:
                    results.append(again)
                    error["message"] = f"{error['message']} {again['message']}"
            if final and error is None and not self._journal.ended:
                self._seal()
                self._keep_release()
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

    def _keep_release(self) -> None:
        """Write down that the release is good to go back to, and remove those too old for it."""
        releases, release = self._context.releases, self._journal.release
        if releases is None or release is None:
            return
        from . import _releases

        index = _releases.Index(releases, self._layout.group_id)
        known = index.find(release["name"])
        if known is not None:
            own = self._layout.deployment_id
            index.note(known._replace(is_good=True, deployment_id=own))
            index.prune()

    def _forgives(self, event: str) -> bool:
        return self._context.forgiving and event in _events.FORGIVABLE

    def _event(self, event: str) -> dict[str, Any]:
        if not self._journal.begun and not self._aside:
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
                "message": f"{event} failed on this host:"
                f" {_room.reason(error, error.filename or self._folder.path)}.",
            }
        result = _result(event, **more)
        result["started"] = started
        result["ended"] = round(time.time(), 3)
        line: dict[str, Any] = {"event": event, "result": result}
        if self._call:
            line["call"] = self._call
        if result["status"] == "Failed" and self._forgives(event):
            line["forgiven"] = True
        try:
            # An event that did nothing needs no fsync of its own: the next one, or the end, has it.
            self._journal.append(line, sync=bool(result["log"]) or event == "Install")
        except OSError as error:
            # What cannot be remembered has failed: a repeated call would do it again.
            result["status"] = "Failed"
            result["error_code"] = result["error_code"] or _events.ERROR_CODES[5]
            why = (
                f"{self._journal.path} cannot be written: {_room.reason(error, self._folder.path)}."
            )
            result["message"] = f"{result['message']} {why}".strip()
        return result

    def _begin(self, event: str, started: float, folder: Folder | None = None) -> None:
        line: dict[str, Any] = {"event": event, "started": started}
        if self._call:
            line["call"] = self._call
        if folder is not None and folder.path != self._folder.path:
            line["of"] = folder.path
        try:
            self._journal.append(line)
        except OSError:
            # A full disk, which an installation is refused for, must not keep the old version down.
            if event != _events.START_OLD:
                raise

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
        _context.renew(context)
        tree = _tree.scan(self._folder.archive)
        made, ground = context.earlier()
        plan = context.plan(tree, ground, self._release())
        if plan.conflicts:
            raise InstallError(plan.conflict_text())
        from . import _install

        _install.carry_out(
            plan, tree, self._folder.archive, made, ground, self._layout, self._touch
        )
        # As the agent does it: from now on this revision's stop script fits what is installed.
        write_file(self._layout.last_successful, self._folder.path)
        return {"status": "Succeeded", "message": _told(plan)}

    def _touch(self) -> None:
        """Remember that what was installed before is about to be changed."""
        if not self._touched:
            self._journal.append({"touched": True}, sync=False)
            self._touched = True

    def _release(self) -> str | None:
        """Return the name of this deployment's release, and remember which it is."""
        name = self._context.release(self._journal)
        releases = self._context.releases
        if name is not None and releases is not None and self._journal.release is None:
            release = {
                "name": name,
                "path": releases.path(name),
                "link": releases.link,
                "shared": releases.shared,
            }
            self._journal.append({"release": release})
        return name

    # -- hooks -----------------------------------------------------------------------------------

    def _hook(self, event: str, started: float) -> dict[str, Any]:
        folder = self._folder_of(event)
        scripts = self._scripts(event, folder)
        if folder is None or not scripts:
            return {"status": "Succeeded"}
        return self._run_scripts(event, folder, scripts, started)

    def _scripts(self, event: str, folder: Folder | None) -> list[dict[str, Any]]:
        if folder is None:
            return []
        if folder.path == self._folder.path:
            _context.renew(self._context)
            appspec = self._context.appspec
        else:
            appspec = _context.recall(folder)["appspec"]
        return list(appspec["hooks"].get(event) or ())

    def _run_scripts(
        self,
        event: str,
        folder: Folder,
        scripts: list[dict[str, Any]],
        started: float,
        failed: str = "",
    ) -> dict[str, Any]:
        from . import _hooks, _process

        boot = _process.boot()
        for name in (event, _events.START_OLD):
            for pid in self._journal.unfinished(name, _process.birth, boot):
                _process.kill(pid)
        self._begin(event, started, folder)
        environment = self._environment(event, folder)
        if event == _events.START_OLD:
            environment.update(LIFECYCLE_EVENT="ApplicationStart", FAILED_EVENT=failed)
            failed = ""

        def note(pid: int) -> None:
            line = {"event": event, "process": pid, "birth": _process.birth(pid), "boot": boot}
            # A script that runs by now must not be left alone because the disk is full.
            with contextlib.suppress(OSError):
                self._journal.append(line, sync=False)

        outcome = _hooks.run_event(
            event,
            scripts,
            folder.archive,
            environment,
            self._log,
            note,
            failed=failed,
        )
        status = "Succeeded" if outcome.number == 0 else "Failed"
        return {
            "status": status,
            "error_code": _events.ERROR_CODES[outcome.number],
            "script": outcome.script,
            "message": outcome.message,
            "log": self._log.tail(),
        }

    def _after_failure(
        self, event: str, failed: str, kinds: tuple[str, ...] = ("failure", "always")
    ) -> dict[str, Any] | None:
        """Run the scripts of an event that are there for a failure of an earlier one.

        :returns: the result, or None if there are none; it is Skipped, because what the event is
            for was not done, or Failed, because one of these scripts has failed
        """
        if event in _events.RESERVED or event == _events.GATE:
            return None
        known = self._journal.after_failure(event)
        if known is not None:
            return known
        started = round(time.time(), 3)
        more: dict[str, Any]
        scripts: list[dict[str, Any]] = []
        try:
            folder = self._folder_of(event)
            scripts = [s for s in self._scripts(event, folder) if s.get("run_on") in kinds]
            if folder is None or not scripts or not os.path.isdir(folder.archive):
                return None
            more = self._run_scripts(event, folder, scripts, started, failed)
        except (BasculeError, OSError) as error:
            more = {"status": "Failed", "error_code": _events.ERROR_CODES[5], "message": str(error)}
        if more["status"] == "Succeeded":
            ran = ", ".join(script["location"] for script in scripts)
            message = f"After the failure of {failed}: {ran}."
            more.update(status="Skipped", error_code=None, message=message)
        result = _result(event, **more)
        result["started"] = started
        result["ended"] = round(time.time(), 3)
        # Not as its result: a repeated call that gets further has still to run the event.
        with contextlib.suppress(OSError):
            self._journal.append({"event": event, "after_failure": result})
        return result

    def _after_gate(self, result: dict[str, Any]) -> None:
        """Run what ValidateService has for failures: the gates belong to what it is for."""
        after = self._after_failure("ValidateService", _events.GATE, ("failure",))
        if after is not None:
            result["log"] = after["log"]
            result["message"] += f" {after['message']}"

    # -- back to the old version -----------------------------------------------------------------

    def _start_old(self, failed: str) -> dict[str, Any] | None:
        """Start the old version again, if this deployment has stopped it and changed nothing.

        :param failed: the event that failed
        :returns: the result of the start, None if there is nothing to start
        """
        event = _events.START_OLD
        known = self._journal.finished(event, self._unheard)
        if known is not None:
            return known
        path = _again.stopped(
            self._context.start_again, self._journal, failed, installed=self._has("Install")
        )
        if path is None:
            return None
        self._changed = True
        folder = Folder(path)
        started = round(time.time(), 3)
        more: dict[str, Any]
        try:
            scripts = self._scripts("ApplicationStart", folder)
            if scripts:
                more = self._run_scripts(event, folder, scripts, started, failed)
            else:
                self._begin(event, started, folder)
                more = {"status": "Skipped"}
        except (BasculeError, OSError) as error:
            more = {"status": "Failed", "error_code": _events.ERROR_CODES[5], "message": str(error)}
        result = _result(event, **more)
        result["message"] = _again.told(folder.deployment_id, result)
        result["started"] = started
        result["ended"] = round(time.time(), 3)
        line: dict[str, Any] = {"event": event, "result": result}
        if self._call:
            line["call"] = self._call
        with contextlib.suppress(OSError):
            self._journal.append(line)
        return result

    def _has(self, event: str) -> bool:
        """Tell whether an event has come to a good end."""
        result = self._journal.finished(event, self._unheard)
        return result is not None and result["status"] != "Failed"

    def _folder_of(self, event: str) -> Folder | None:
        """Return the deployment whose script an event runs; None on a first deployment."""
        if self._aside:
            return read_pointer(self._layout.last_successful)
        downloaded = self._has("DownloadBundle")
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
        if folder.path == self._folder.path:
            self._release()
            release = self._journal.release
        else:
            release = Journal(folder.journal).release
        return _environment.of_hook(self._context, self._journal, event, folder, release)


def _told(plan: _files.Plan) -> str:
    """Say what an installation has done."""
    inside = plan.release
    if inside is not None and inside.again:
        return f"back to the release {inside.path}, nothing was copied into it"
    copies = plan.copies if inside is None else inside.shown.copies
    kept = f", {len(plan.retained)} existing ones kept" if plan.retained else ""
    where = "" if inside is None else f", {inside.path} is live"
    files = "1 file" if len(copies) == 1 else f"{len(copies)} files"
    return f"{files} installed{kept}{where}"


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
