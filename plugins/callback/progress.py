# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show a deployment while it runs."""

from __future__ import annotations

DOCUMENTATION = r"""
name: progress
type: stdout
short_description: Show a Bascule deployment while it runs
version_added: 0.1.0
author:
  - Bascule contributors (@bascule)
description:
  - On a terminal, a live table of the targets, what each of them does or waits for, the progress
    of the whole and the time left. Into a file, a pipe or a build log, one line for everything
    that has ended.
  - A failed hook is shown once, with the last lines of its output.
  - With C(--check --diff), the plan and the differences of each host.
  - Tasks that are not Bascule's are shown briefly, as the default callback would.
  - This plugin only looks on. A deployment is the same without it.
requirements:
  - set as C(stdout_callback) in the configuration
  - the Python package C(rich) on the controller, for the live table
options:
  live:
    description:
      - Whether to draw the live table. By default it is drawn when the output is a terminal.
    type: str
    choices: [auto, never]
    default: auto
    env:
      - name: BASCULE_PROGRESS_LIVE
    ini:
      - section: callback_bascule_progress
        key: live
  timestamps:
    description:
      - Whether each plain line begins with the time of day.
    type: bool
    default: false
    env:
      - name: BASCULE_PROGRESS_TIMESTAMPS
    ini:
      - section: callback_bascule_progress
        key: timestamps
"""

EXAMPLES = r"""
# In ansible.cfg:
# [defaults]
# stdout_callback = bascule.deploy.progress

# For one run, with the time of day before each line:
# ANSIBLE_STDOUT_CALLBACK=bascule.deploy.progress BASCULE_PROGRESS_TIMESTAMPS=1 \
#   ansible-playbook bascule.deploy.rolling -e deploy_revision=./dist | tee deployment.log
"""

import atexit
import os
import sys
import typing as t

from ansible import context
from ansible_collections.bascule.deploy.plugins.module_utils._advice import ways_on
from ansible_collections.bascule.deploy.plugins.plugin_utils._observer import Observer, only_looking
from ansible_collections.bascule.deploy.plugins.plugin_utils._progress import (
    LiveRenderer,
    PlainRenderer,
    Renderer,
    live_console,
)

if t.TYPE_CHECKING:
    from ansible.executor.stats import AggregateStats
    from ansible.executor.task_result import CallbackTaskResult
    from ansible_collections.bascule.deploy.plugins.plugin_utils._progress_events import Event


class CallbackModule(Observer):
    """The stdout callback ``bascule.deploy.progress``."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "bascule.deploy.progress"
    purpose = "progress display"

    def __init__(self) -> None:
        super().__init__()
        self._show: Renderer | None = None
        self._ended = False
        # Not told of an interrupt; the end of the process comes in any case.
        atexit.register(self._say_how_to_go_on, os.getpid())

    def event(self, event: Event) -> None:
        self._renderer().event(event)

    def _say_how_to_go_on(self, process: int) -> None:
        if self._ended or self._show is None or process != os.getpid():
            return
        left = [one.id for one in self._show.progress.deployments if one.closed is None and one.id]
        if left and not context.CLIARGS.get("check"):
            self._show.close()
            self._say(f"{left[-1]} is not finished. {ways_on(left[-1])}")

    @only_looking
    def v2_runner_retry(self, result: CallbackTaskResult) -> None:
        tried, allowed = result.result.get("attempts", 0), result.result.get("retries", 0)
        self._say(f"{result.host.get_name()}  retrying: {result.task_name} ({tried} of {allowed})")

    @only_looking
    def v2_playbook_on_no_hosts_matched(self) -> None:
        # Bascule's own plays are empty where nothing is to be done, such as a rollback.
        if not self._renderer().progress.deployments:
            self._say("no hosts matched")

    @only_looking
    def v2_playbook_on_stats(self, stats: AggregateStats) -> None:
        self._ended = True
        progress = self._renderer().progress
        self._renderer().close()
        if not progress.deployments and progress.refusal is None:
            for host in sorted(stats.processed):
                self._say(_recap(host, stats.summarize(host)))

    def ended(self, moment: str, result: CallbackTaskResult, ignored: bool = False) -> None:
        self._handle_warnings(result.result)
        super().ended(moment, result, ignored=ignored)

    def _say(self, line: str) -> None:
        self._display.display(line)

    def _renderer(self) -> Renderer:
        """Return who shows: chosen at the first event, when options and terminal are known."""
        if self._show is None:
            self._show = self._choose()
        return self._show

    def _choose(self) -> Renderer:
        verbose = self._display.verbosity > 0
        checking = bool(context.CLIARGS.get("check"))
        if self.get_option("live") == "auto" and not checking and self._display.verbosity < 2:
            console = live_console(sys.stdout)
            if console is not None:
                # Ansible forks its workers holding this lock: none starts while a line is drawn.
                return LiveRenderer(console, self._display._lock, verbose=verbose)
        return PlainRenderer(
            self._say,
            plan=checking,
            verbose=verbose,
            timestamps=bool(self.get_option("timestamps")),
        )


def _recap(host: str, counts: t.Mapping[str, int]) -> str:
    shown = ("ok", "changed", "unreachable", "failures", "skipped", "rescued", "ignored")
    return f"{host}  " + ", ".join(f"{counts[key]} {key}" for key in shown if counts.get(key))
