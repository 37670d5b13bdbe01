"""How the command speaks: tables and sentences for people, JSON for programs, errors to stderr."""

from __future__ import annotations

import io
import json
import os
import sys
import time
import typing as t
from contextlib import contextmanager, suppress
from pathlib import Path

from ansible_collections.bascule.deploy.plugins.module_utils._errors import BasculeError
from ansible_collections.bascule.deploy.plugins.plugin_utils._progress_text import duration

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bascule.result import Deployment


class OutputError(BasculeError):
    """What a command has to say cannot be written; what it did is done."""

    kind = "output"


def say(text: str = "") -> None:
    """Write a line to standard output; see ``write``."""
    write(f"{text}\n")


def write(text: str) -> None:
    """Write a text to standard output.

    :raises BrokenPipeError: nobody reads it any more
    :raises OutputError: it cannot be written, for instance since a disk is full
    """
    _output(lambda: sys.stdout.write(text))


def flush() -> None:
    """Write what was only kept so far; errors as of ``write``."""
    _output(sys.stdout.flush)


def _output(work: t.Callable[[], object]) -> None:
    try:
        work()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(
            f"The output cannot be written: {error.strerror}. Make room, or let it go elsewhere."
        ) from error


def aside(text: str) -> None:
    """Write a line to standard error, if anybody can hear it; nothing ends because of it."""
    with suppress(OSError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def complain(text: str) -> None:
    """Write one clear message to standard error."""
    aside(f"bascule: {text}")


def be_silent() -> None:
    """Let everything said from now on go nowhere, also what the interpreter flushes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def heard_or_not() -> Iterator[None]:
    """Say inside how something ended: whether that is heard is no part of how it ended."""
    try:
        yield
        flush()
    except BrokenPipeError:
        be_silent()
    except OutputError as error:
        complain(str(error))
        be_silent()


def stand_in() -> None:
    """Make the standard streams ready for anything that is said.

    What the shell has closed (``>&-``) is opened, so that no other file gets its number. A letter
    that the locale does not have, or a file's name that is none of its texts, becomes ``?``.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - it stays open
            setattr(sys, name, nowhere)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")


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
