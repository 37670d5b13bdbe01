"""Interrupts of the command: one sentence and the status for it, never a traceback.

A signal comes between any two instructions. As KeyboardInterrupt it ends whatever goes on, and what
it puts down must not be interrupted again: for a while, further ones change nothing.
"""

from __future__ import annotations

import signal
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

NUMBERS = (signal.SIGINT, signal.SIGTERM)
# How long what an interrupt has ended may take to be put down before the next one ends that, too.
PATIENCE_SECONDS = 10.0
# An interrupt that the interpreter has lost comes again after this time.
AGAIN_SECONDS = 0.01


class _Answers:
    """How the command answers interrupts."""

    def __init__(self) -> None:
        self.held = False
        self.noted = False
        self._ended: float | None = None

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        if self.held and not self.noted:
            self.noted = True
            return
        now = time.monotonic()
        again = number == signal.SIGALRM
        if self._ended is None or again or now - self._ended > PATIENCE_SECONDS:
            self._ended = now
            raise KeyboardInterrupt


_answers = _Answers()


def install() -> None:
    """Answer SIGINT and SIGTERM as a command does; a library leaves that to who uses it."""
    for number in NUMBERS:
        # Who ignores a signal, as a shell does for what it runs beside it, knows better.
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _answers)
    sys.unraisablehook = _lost


def hold() -> None:
    """From now on only note the first interrupt: what is told at the end must not be lost by it."""
    _answers.held = True


def noted() -> bool:
    """Tell whether an interrupt was noted."""
    return _answers.noted


def finish() -> None:
    """Let nothing interrupt the end of the interpreter: all is told, and the status is known."""
    for number in NUMBERS:
        signal.signal(number, signal.SIG_IGN)


def _lost(about: sys.UnraisableHookArgs) -> None:
    """Bring an interrupt back that came in a callback of the interpreter, which drops errors."""
    if about.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(about)
        return
    signal.signal(signal.SIGALRM, _answers)
    signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
