# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show a deployment while it runs: plain lines for logs, a live table for terminals.

One place for both who show: the callback ``bascule.deploy.progress`` and the command ``bascule``.
"""

from __future__ import annotations

import threading
import time
import typing as t

from ._progress_model import Progress
from ._progress_table import table
from ._progress_text import event_lines, outcome

if t.TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

    from rich.console import Console
    from rich.live import Live

    from ._progress_events import Event

REFRESH_SECONDS = 0.25
# In the live table these say nothing that the table does not say.
TABLED = frozenset(
    {"opened", "started", "staged", "admitted", "current", "refused", "traffic", "settled"}
)


class Renderer(t.Protocol):
    """Whoever shows events."""

    progress: Progress

    def event(self, event: Event) -> None:
        """Show an event."""

    def close(self) -> None:
        """Show how it all ended, and give the terminal back."""


class PlainRenderer:
    """One line for every event that ended something; for pipes, files and build logs."""

    def __init__(
        self,
        write: Callable[[str], None],
        *,
        plan: bool = False,
        verbose: bool = False,
        timestamps: bool = False,
        quiet: bool = False,
        refusals: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Write lines (without their ends) by ``write``.

        ``plan`` shows the plan's text too; without ``refusals``, the caller tells why a deployment
        cannot begin, or is paused.
        """
        self.progress = Progress()
        self._write = write
        self._plan, self._verbose, self._timestamps = plan, verbose, timestamps
        self._quiet, self._refusals = quiet, refusals
        self._clock = clock

    def event(self, event: Event) -> None:
        """Write the lines of an event."""
        self.progress.apply(event)
        if self._quiet or (refused(event) and not self._refusals):
            return
        for line in event_lines(event, self.progress, verbose=self._verbose):
            self._line(line, event.at)
        if event.kind == "opened" and self._plan and event.message:
            self._write(event.message.rstrip("\n"))

    def close(self) -> None:
        """Write the outcome."""
        if self._plan:
            return
        for line in outcome(self.progress, self._clock()):
            self._write(line)

    def _line(self, line: str, at: float) -> None:
        stamp = time.strftime("%H:%M:%S  ", time.localtime(at)) if self._timestamps else ""
        self._write(stamp + line)


class LiveRenderer:
    """A table that is drawn again as things happen; failures and warnings scroll above it."""

    def __init__(
        self,
        console: Console,
        lock: contextlib.AbstractContextManager[t.Any] | None = None,
        *,
        verbose: bool = False,
        refusals: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Draw on ``console``, holding ``lock`` (so that no process is forked midway)."""
        self.progress = Progress()
        self._console = console
        self._lock = lock if lock is not None else threading.RLock()
        self._verbose, self._refusals = verbose, refusals
        self._clock = clock
        self._live: Live | None = None
        self._stopped = threading.Event()
        self._drawer: threading.Thread | None = None

    def event(self, event: Event) -> None:
        """Take an event in; print what the table has no room for."""
        with self._lock:
            if event.kind == "opened":
                self._end_table()
            self.progress.apply(event)
            self._print(event)
            if event.kind == "opened":
                self._begin_table()
            elif event.kind == "closed":
                self._end_table()
            elif self._live is not None:
                self._draw()

    def close(self) -> None:
        """Leave the last table standing and print the outcome below it."""
        with self._lock:
            self._end_table()
            for line in outcome(self.progress, self._clock()):
                self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _print(self, event: Event) -> None:
        failed = event.status in ("Failed", "failed", "unreachable")
        if refused(event) and not self._refusals:
            return
        tabled = event.kind in TABLED or event.kind in ("lifecycle", "closed")
        if event.kind in ("lifecycle", "traffic"):
            tabled = self._has_a_line(event)
        if tabled and not (failed and event.kind in ("lifecycle", "staged")):
            return
        for index, line in enumerate(event_lines(event, self.progress, verbose=self._verbose)):
            style = "red" if index == 0 and (failed or event.kind == "error") else None
            self._console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)

    def _has_a_line(self, event: Event) -> bool:
        """Tell whether the table shows it: not of the old pool, nor of a target that is done."""
        deployment = self.progress.current
        target = deployment.targets.get(event.target or "") if deployment else None
        return target is not None and not target.done

    def _begin_table(self) -> None:
        from rich.live import Live

        self._live = Live(console=self._console, auto_refresh=False, transient=False)
        self._live.start()
        self._stopped = threading.Event()
        self._drawer = threading.Thread(
            target=self._keep_drawing, args=(self._stopped,), daemon=True
        )
        self._draw()
        self._drawer.start()

    def _end_table(self) -> None:
        if self._live is None:
            return
        self._stopped.set()
        self._draw()
        self._live.stop()
        self._live = None

    def _draw(self) -> None:
        deployment = self.progress.current
        if self._live is not None and deployment is not None:
            width, height = self._console.size
            self._live.update(table(deployment, self._clock(), width, height), refresh=True)

    def _keep_drawing(self, stopped: threading.Event) -> None:
        """Let the clocks of the table run on while nothing happens."""
        while not stopped.wait(REFRESH_SECONDS):
            with self._lock:
                if not stopped.is_set():
                    self._draw()


def refused(event: Event) -> bool:
    """Tell whether this is why a deployment could not begin, or does not go on by itself."""
    return event.kind == "error" and (event.deployment_id is None or event.status == "paused")


def live_console(stream: t.TextIO) -> Console | None:
    """Return a console where the stream is a capable terminal and rich is installed."""
    try:
        from rich.console import Console
    except ImportError:
        return None
    console = Console(file=stream, highlight=False)
    return console if console.is_terminal and not console.is_dumb_terminal else None
