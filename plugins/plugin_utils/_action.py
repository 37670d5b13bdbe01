# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The base of Bascule's action plugins: arguments in, one result shape out, errors as messages."""

from __future__ import annotations

import abc
import contextlib
import os
import typing as t
from pathlib import Path

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ..module_utils._errors import BasculeError
from ._heartbeat import Heartbeat

if t.TYPE_CHECKING:
    from ._record import Record

Arguments = dict[str, t.Any]
Variables = dict[str, t.Any]
Result = dict[str, t.Any]

# How a line begins that tells what Bascule is waiting for.
NOTICE = "bascule: "

DEPLOYMENT_OPTIONS: dict[str, dict[str, t.Any]] = {
    "deployment": {"type": "dict", "required": True},
    "record": {"type": "str", "default": "", "no_log": True},
    "state_directory": {"type": "str", "default": ""},
}


class BasculeAction(ActionBase):
    """An action with a phase; ``act`` does the work, a ``BasculeError`` becomes the result."""

    phase: t.ClassVar[str]
    options: t.ClassVar[dict[str, dict[str, t.Any]]] = {}
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: Variables | None = None) -> Result:
        """Validate the arguments, act, and return the result with its ``bascule`` key."""
        variables = task_vars or {}
        result: Result = super().run(tmp, variables)
        result.pop("invocation", None)
        try:
            _validation, arguments = self.validate_argument_spec(argument_spec=self.options)
            with self._heartbeat(arguments):
                answer = self.act(arguments, variables)
        except BasculeError as error:
            answer = self.refuse(error, variables)
        answer["bascule"] = {"phase": self.phase, **answer.get("bascule", {})}
        result.update(answer)
        return result

    def _heartbeat(self, arguments: Arguments) -> contextlib.AbstractContextManager[object]:
        """Keep the lease of the deployment that this is done for; watch its alarms and hooks."""
        if self.checking or fence_of(arguments) is None:
            return contextlib.nullcontext()
        deployment = arguments["deployment"]
        kept = contextlib.ExitStack()
        kept.enter_context(Heartbeat(lambda: open_record(arguments), deployment["id"]))
        if deployment.get("alarms"):
            from ._alarms import AlarmWatch

            watch = AlarmWatch(
                lambda: open_record(arguments), deployment["id"], deployment["alarms"]
            )
            kept.enter_context(watch)
        if deployment.get("scaling"):
            from ._hook_watch import HookWatch

            kept.enter_context(
                HookWatch(lambda: open_record(arguments), deployment["id"], deployment["scaling"])
            )
        return kept

    @abc.abstractmethod
    def act(self, arguments: Arguments, variables: Variables) -> Result:
        """Do the work of the action and return its result without the phase."""

    def refuse(self, error: BasculeError, variables: Variables) -> Result:
        """Return the result of an expected failure."""
        seen = {"kind": error.kind, "message": str(error)}
        target = variables.get("inventory_hostname")
        return {
            "failed": True,
            "changed": False,
            "msg": str(error),
            "bascule": {"target": target, "error": seen},
        }

    @property
    def checking(self) -> bool:
        """Tell whether the play runs with ``--check``."""
        return bool(self._task.check_mode)

    @property
    def diffing(self) -> bool:
        """Tell whether the play runs with ``--diff``."""
        return bool(self._task.diff)


def failure_of(result: Result) -> dict[str, str]:
    """Return kind, code and message of a failed result, that of a loop's first failed item.

    The result may be of any action: a task of a user's own can fail in between, too.
    """
    failed = [item for item in result.get("results") or [] if item.get("failed")]
    seen = failed[0] if failed else result
    error = (seen.get("bascule") or {}).get("error") or {}
    message = str(error.get("message") or seen.get("msg") or "no reason given")
    kind = str(error.get("kind") or "host")
    return {"kind": kind, "code": str(error.get("code") or kind), "message": message}


def state_directory(configured: str | None) -> Path:
    """Return the controller's state folder: the setting, ``BASCULE_STATE`` or the user's own."""
    if configured:
        return Path(configured).expanduser()
    if os.environ.get("BASCULE_STATE"):
        return Path(os.environ["BASCULE_STATE"]).expanduser()
    home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local/state")
    return Path(home) / "bascule"


def open_record(arguments: Arguments) -> Record:
    """Open the record named by an action's arguments (see ``DEPLOYMENT_OPTIONS``).

    With the fence of the deployment that they name, if any: then the record refuses what a
    controller wants to write that has lost it.
    """
    from ._record import PATIENCE_SECONDS, Record, ServedRecord, listen

    listen(tell)
    fence = fence_of(arguments)
    # Whoever works for a deployment that runs is one of many.
    kind = Record if fence is None else ServedRecord
    return kind.open(record_url(arguments), fence=fence, patience=PATIENCE_SECONDS)


def record_url(arguments: Arguments) -> str | None:
    """Return the address of the record that arguments name; None for that of the environment."""
    if not arguments["record"] and arguments["state_directory"]:
        return f"sqlite:///{state_directory(arguments['state_directory']) / 'record.db'}"
    return arguments["record"] or None


def fence_of(arguments: Arguments) -> int | None:
    """Return the fence of the deployment that an action is run for; None if it is for none."""
    fence = (arguments.get("deployment") or {}).get("fence")
    return None if fence is None else int(fence)


def tell(text: str) -> None:
    """Tell a person at once what is waited for."""
    # A worker has no standard error, and a warning is only told when its task has ended.
    Display().display(f"{NOTICE}{text}", stderr=True)
