# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The base of Bascule's callbacks: what Ansible tells of a play, as Bascule's events.

A callback only looks on: no error of its own reaches the play.
"""

from __future__ import annotations

import abc
import functools
import time
import typing as t
from pathlib import Path

from ansible import context
from ansible.plugins.callback import CallbackBase

from ._progress_events import Observation, Translator, is_own

if t.TYPE_CHECKING:
    from ansible.executor.task_result import CallbackTaskResult
    from ansible.inventory.host import Host
    from ansible.playbook.task import Task

    from ._progress_events import Event

COLLECTION_ROOT = Path(__file__).resolve().parent.parent.parent
Method = t.TypeVar("Method", bound=t.Callable[..., None])


def only_looking(method: Method) -> Method:
    """Let no error of a callback reach the play: tell of it once, then go on."""

    @functools.wraps(method)
    def guarded(self: Observer, *args: t.Any, **kwargs: t.Any) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            self.apologise(error)

    return t.cast("Method", guarded)


class Observer(CallbackBase):
    """A callback that is told Bascule's events, one by one and in order, by ``event``."""

    purpose = "callback"

    def __init__(self) -> None:
        """Begin without a deployment."""
        super().__init__()
        self._translator: Translator | None = None
        self._apologised = False

    @abc.abstractmethod
    def event(self, event: Event) -> None:
        """Take an event."""

    def apologise(self, error: Exception) -> None:
        """Say once that something could not be done."""
        if not self._apologised:
            self._apologised = True
            self._display.warning(
                f"The {self.purpose} failed ({type(error).__name__}: {error}). The deployment "
                "goes on; 'bascule events' shows what happened."
            )

    @only_looking
    def v2_runner_on_start(self, host: Host, task: Task) -> None:
        """Take the beginning of a task."""
        self._tell(Observation(moment="start", host=host.get_name(), **self._about(task)))

    @only_looking
    def v2_runner_on_ok(self, result: CallbackTaskResult) -> None:
        """Take a result."""
        self.ended("ok", result)

    @only_looking
    def v2_runner_on_failed(self, result: CallbackTaskResult, ignore_errors: bool = False) -> None:
        """Take a failure."""
        self.ended("failed", result, ignored=ignore_errors)

    @only_looking
    def v2_runner_on_unreachable(self, result: CallbackTaskResult) -> None:
        """Take a host that is lost."""
        self.ended("unreachable", result, ignored=bool(result.task.ignore_unreachable))

    @only_looking
    def v2_runner_on_skipped(self, result: CallbackTaskResult) -> None:
        """Take a task that was not run."""
        self.ended("skipped", result)

    def ended(self, moment: str, result: CallbackTaskResult, ignored: bool = False) -> None:
        """Tell of a task that ended."""
        self._tell(
            Observation(
                moment=moment,
                host=result.host.get_name(),
                result=dict(result.result),
                ignored=ignored,
                **self._about(result.task),
            )
        )

    def _tell(self, seen: Observation) -> None:
        if self._translator is None:
            self._translator = Translator(differences=bool(context.CLIARGS.get("diff")))
        for event in self._translator.events(seen):
            self.event(event)

    def _about(self, task: Task) -> dict[str, t.Any]:
        return {
            "task": task.get_name().split(" : ", 1)[-1].strip(),
            "action": str(getattr(task, "resolved_action", None) or task.action),
            "own": is_own(task.get_path(), COLLECTION_ROOT),
            "at": time.time(),
        }
