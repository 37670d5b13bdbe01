"""How the command speaks: tables and sentences for people, JSON for programs, errors to stderr."""

from __future__ import annotations

import json
import sys
import time
import typing as t

from ansible_collections.bascule.deploy.plugins.plugin_utils._progress_text import duration

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    from bascule.result import Deployment


def say(text: str = "") -> None:
    """Write a line to standard output."""
    sys.stdout.write(f"{text}\n")


def complain(text: str) -> None:
    """Write one clear message to standard error."""
    sys.stderr.write(f"bascule: {text}\n")
    sys.stderr.flush()


def say_json(data: t.Any) -> None:
    """Write data as JSON: indented on a terminal, one line in a pipe."""
    indent = 2 if sys.stdout.isatty() else None
    say(json.dumps(data, indent=indent, default=str))


def columns(rows: Sequence[Sequence[str]], header: Sequence[str]) -> list[str]:
    """Return rows as aligned columns; the last is as long as it likes."""
    every = [list(header), *[list(row) for row in rows]]
    widths = [max(len(row[index]) for row in every) for index in range(len(header))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in every
    ]


def moment(epoch: float | None) -> str:
    """Return a time as people write it, in their zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(epoch)) if epoch is not None else ""


def took(deployment: Deployment) -> str:
    """Return how long a deployment took; nothing while it has not ended."""
    if deployment.created_at is None or deployment.finished_at is None:
        return ""
    return duration(deployment.finished_at - deployment.created_at)


def overview(deployment: Deployment) -> str:
    """Return how many targets are in which status."""
    return ", ".join(f"{count} {status}" for status, count in deployment.overview.items() if count)


def revision_text(deployment: Deployment) -> str:
    """Return the revision by what it was called and its short digest."""
    revision = deployment.revision
    digest = revision.digest.removeprefix("sha256:")[:12]
    label = revision.description or revision.source
    return f"{label} ({digest})" if label and digest else label or digest
