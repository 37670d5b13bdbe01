"""What Ctrl-C does to the command itself: one line and status 4, at whatever moment it comes."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

HEAD = """\
import signal, sys, time
from bascule.cli import main
sys.argv = ["bascule", "completion", "bash"]

def interrupt(number=signal.SIGINT):
    signal.raise_signal(number)
"""
# While the commands are imported.
IMPORTING = """
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "bascule.cli.deployments":
            interrupt()

sys.meta_path.insert(0, Finder())
"""
TERMINATED = IMPORTING.replace("interrupt()", "interrupt(signal.SIGTERM)")
# Where the interpreter drops every error; it comes again.
LOST = """
import weakref
from bascule.cli import _command

def run(_arguments):
    thing = type("Thing", (), {})()
    told = weakref.ref(thing, lambda _: interrupt())
    del thing
    time.sleep(60)
    return 0

_command.run = run
"""
# The second one comes while the first one is being put down.
TWICE = """
from bascule.cli import _command

def run(_arguments):
    try:
        interrupt()
    finally:
        interrupt()
        interrupt(signal.SIGTERM)
        print("put down")
    return 0

_command.run = run
"""
# What ends is told; only the second one ends the telling.
HELD = """
from bascule import _interrupts
from bascule.cli import _command

def run(_arguments):
    _interrupts.hold()
    interrupt()
    print("told")
    TWICE
    return 0

_command.run = run
"""
ENDING = """
import atexit
atexit.register(interrupt)
"""


def ran(program: str) -> tuple[int, str, str]:
    done = subprocess.run(  # noqa: S603 - our own interpreter and program
        [sys.executable, "-c", f"{HEAD}{program}\nsys.exit(main())\n"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (IMPORTING, ""),
        (TERMINATED, ""),
        (LOST, ""),
        (TWICE, "put down\n"),
        (HELD.replace("TWICE", "interrupt()"), "told\n"),
    ],
    ids=["importing", "terminated", "lost", "twice", "held and again"],
)
def test_an_interrupt_is_one_line_and_status_four(program: str, said: str) -> None:
    assert ran(program) == (4, said, "bascule: interrupted\n")


@pytest.mark.parametrize(
    "program", [HELD.replace("TWICE", "pass"), ENDING], ids=["held", "at the very end"]
)
def test_an_interrupt_at_the_end_changes_nothing(program: str) -> None:
    status, said, complaint = ran(program)
    assert (status, complaint) == (0, "")
    assert said


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    ignored = f"{IMPORTING}\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    assert ran(ignored)[0] == 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
