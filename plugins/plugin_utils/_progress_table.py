# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A deployment as a live table: targets, what each does now, progress and time left."""

from __future__ import annotations

import typing as t

from ._progress_model import waits_for
from ._progress_text import counts, duration

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Group

    from ._progress_model import DeploymentProgress, TargetProgress

STYLES = {
    "Succeeded": "green",
    "Current": "green",
    "Failed": "bold red",
    "Refused": "yellow",
    "Skipped": "dim",
    "Pending": "dim",
    "Waiting": "cyan",
    "InProgress": "bold cyan",
}
WORDS = {
    "Succeeded": "succeeded",
    "Current": "had it already",
    "Failed": "failed",
    "Refused": "not started",
    "Skipped": "not touched",
    "Pending": "pending",
    "Waiting": "waiting",
    "InProgress": "in progress",
}
HEADER = ("TARGET", "STATE", "STEP", "LAST EVENT", "TIME")
STEP = HEADER.index("STEP")
# Widths that hardly any text exceeds, so that the columns stand still while the table lives.
USUAL = (0, 11, 56, 28, 6)
GAP = 2
Row = tuple[str, str, str, str, str]
BAR_WIDTH = 40
# Lines of the table that are no targets: heading, header, bar, the line for those left out.
FRAME = 7
# What a reader looks for first when not all targets fit: trouble, then what moves, then what ended.
ORDER = ("Failed", "InProgress", "Waiting", "Pending", "Refused", "Skipped", "Succeeded", "Current")


def table(deployment: DeploymentProgress, now: float, width: int, height: int) -> Group:
    """Return what a terminal of ``width`` by ``height`` shows of a deployment at ``now``."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    shown, hidden = visible(deployment, max(3, height - FRAME))
    cells = [row(deployment, target, now) for target in shown]
    widths = column_widths(cells, width)
    grid = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="dim")
    for name, wide in zip(HEADER, widths, strict=True):
        side: t.Literal["left", "right"] = "right" if name == "TIME" else "left"
        grid.add_column(name, no_wrap=True, min_width=wide, justify=side)
    for target, (name, state, step, event, time) in zip(shown, cells, strict=True):
        grid.add_row(
            name,
            Text(state, STYLES.get(target.state, "")),
            Text(shortened(step, widths[STEP])),
            Text(event, "red" if target.event.endswith("Failed") else ""),
            time,
        )
    parts: list[t.Any] = [_heading(deployment), grid]
    if hidden:
        parts.append(Text(f"… and {hidden} more targets ({counts(deployment)})", "dim"))
    parts.append(_bar(deployment, now))
    return Group(*parts)


def row(deployment: DeploymentProgress, target: TargetProgress, now: float) -> Row:
    """Return the cells of a target's line."""
    return (
        target.name,
        WORDS.get(target.state, target.state),
        step_text(deployment, target),
        target.event,
        time_text(target, now),
    )


def column_widths(cells: Sequence[Row], width: int) -> list[int]:
    """Return how wide each column is: the usual width, or what is there on a narrow terminal.

    The steps give way where even that is too much.
    """
    longest = [max(len(line[index]) for line in (HEADER, *cells)) for index in range(len(HEADER))]
    usual = [max(pair) for pair in zip(longest, USUAL, strict=True)]
    room = width - GAP * len(HEADER)
    widths = usual if sum(usual) <= room else longest
    over = max(0, sum(widths) - room)
    widths[STEP] = max(len(HEADER[STEP]), widths[STEP] - over)
    return widths


def shortened(text: str, room: int) -> str:
    """Return a text that has at most ``room`` characters."""
    return text if len(text) <= room else text[: room - 1] + "…"


def visible(deployment: DeploymentProgress, room: int) -> tuple[list[TargetProgress], int]:
    """Return the targets to show, in plan order, and how many are left out."""
    every = list(deployment.targets.values())
    if len(every) <= room:
        return every, 0
    by_interest = sorted(every, key=lambda target: (ORDER.index(target.state), target.position))
    chosen = sorted(by_interest[:room], key=lambda target: target.position)
    return chosen, len(every) - len(chosen)


def step_text(deployment: DeploymentProgress, target: TargetProgress) -> str:
    """Return what a target does now, what it waits for, or why it failed."""
    if target.state == "Waiting":
        return waits_for(deployment, target)
    if target.done:
        return target.message.splitlines()[0] if target.state == "Failed" and target.message else ""
    return target.doing


def time_text(target: TargetProgress, now: float) -> str:
    """Return how long a target has been at it, or took from its admission to its end."""
    if target.state == "Pending":
        return ""
    if target.done:
        return duration(target.since - target.began) if target.began is not None else ""
    return duration(max(0.0, now - target.since))


def progress_text(deployment: DeploymentProgress, now: float) -> str:
    """Return the words beside the progress bar."""
    total = len(deployment.targets)
    words = f"{deployment.decided} of {total}, {duration(deployment.seconds(now))}"
    left = deployment.seconds_left(now)
    return f"{words}, about {duration(left)} left" if left is not None else words


def _heading(deployment: DeploymentProgress) -> t.Any:
    from rich.text import Text

    verb = "rollback" if deployment.rollback_of else deployment.strategy
    verb = "fresh baseline of" if deployment.is_baseline else verb
    heading = Text.assemble(
        (deployment.id or "", "bold"),
        f"  {verb} {deployment.application}/{deployment.group}",
    )
    if deployment.revision:
        heading.append(f" to {deployment.revision}")
    if deployment.closed is not None:
        heading.append(f"  {deployment.status}", STYLES.get(deployment.status, "bold"))
    return heading


def _bar(deployment: DeploymentProgress, now: float) -> t.Any:
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    total = max(1, len(deployment.targets))
    failed = deployment.count("Failed")
    style = "red" if failed else "green"
    drawn = ProgressBar(
        total=total,
        completed=deployment.decided,
        width=BAR_WIDTH,
        complete_style=style,
        finished_style=style,
    )
    row = Table.grid(padding=(0, 2, 0, 0))
    row.add_row(drawn, progress_text(deployment, now))
    return row
