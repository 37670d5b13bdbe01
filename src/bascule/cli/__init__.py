"""The command ``bascule``; what it can do is imported where an interrupt is answered already."""

from __future__ import annotations

import sys

# An import less before that.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status; without ``arguments`` it is the program's own."""
    program = arguments is None
    try:
        from bascule import _interrupts

        if program:
            _interrupts.install()
        from bascule.cli._command import run

        status = run(arguments)
        if program:
            _interrupts.finish()
    except KeyboardInterrupt:
        status = INTERRUPTED
        from contextlib import suppress

        with suppress(OSError):
            print("bascule: interrupted", file=sys.stderr, flush=True)
    if program:
        from bascule import _interrupts

        _interrupts.finish()
    return status
