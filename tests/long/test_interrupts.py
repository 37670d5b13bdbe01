"""Ctrl-C and SIGTERM at many moments of every long command, with and without a terminal.

Whatever goes on when a signal comes: the command ends with the status that docs/command.md has for
it, says no traceback, leaves no process and no file of its own behind, and what it was doing can be
gone on with or given up. ``INTERRUPTS`` is how many moments of each command are tried (8), and
``INTERRUPTS_SEED`` which ones; ``make test-interrupts`` runs it.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import pty
import random
import re
import select
import signal
import subprocess
import termios
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.bundles import files
from support.rollout import BIN, ROOT, local_inventory
from support.twopools import until

import bascule

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

COUNT = int(os.environ.get("INTERRUPTS", "8"))
SEED = int(os.environ.get("INTERRUPTS_SEED", "1"))
HOSTS = ("one", "two", "three")
# What is sent, and how many seconds after the one before.
KINDS = {
    "Ctrl-C": ((signal.SIGINT, 0.0),),
    "SIGTERM": ((signal.SIGTERM, 0.0),),
    "Ctrl-C twice": ((signal.SIGINT, 0.0), (signal.SIGINT, 0.15)),
    "Ctrl-C twice, slowly": ((signal.SIGINT, 0.0), (signal.SIGINT, 1.2)),
    "Ctrl-C three times": ((signal.SIGINT, 0.0), (signal.SIGINT, 0.7), (signal.SIGINT, 0.7)),
}
KIND = pytest.mark.parametrize("kind", KINDS)
Signals = tuple[tuple[signal.Signals, float], ...]
# What nobody should ever read.
UGLY = ("Traceback", "reentrant", "Exception ignored", "Fatal Python error", "internal")
# The lines of a traceback that are ours; until the two files are imported that have nothing in them
# but the way to the rest, Python alone answers.
OURS = re.compile(r"ansible_collections|/bascule/(?!__init__|cli/__init__)")


@dataclass(frozen=True)
class Ending:
    """How a command ended: its status, what it said, and how long that took."""

    status: int
    said: str
    seconds: float

    def check(self, about: str) -> bool:
        """See that it ended in an orderly way; False if Python itself was still beginning."""
        before_ours = not self.said.strip() or "KeyboardInterrupt" in self.said
        if before_ours and not OURS.search(self.said.replace(str(BIN), "")):
            assert self.status in (-signal.SIGINT, -signal.SIGTERM, 1), about
            return False
        seen = [word for word in UGLY if word in self.said]
        assert not seen, f"{about}: {self.said}"
        assert self.status in (0, 4), f"{about}: {self.status}: {self.said}"
        hidden = [self.said.rfind(code) for code in ("\x1b[?25l", "\x1b[?25h")]
        assert hidden[0] <= hidden[1], f"{about}: the cursor stays hidden: {self.said}"
        return True


class Place:
    """A folder for all that a command writes, and a mark by which its processes are found."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.temporary = folder / "tmp"
        for name in ("tmp", "home"):
            (folder / name).mkdir(parents=True)
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder / "home"),
            "TMPDIR": str(self.temporary),
            "LC_ALL": "C.UTF-8",
            "TERM": "xterm",
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "BASCULE_STATE": str(folder / "state"),
        }

    def run(
        self, argv: Sequence[str | Path], signals: Signals = (), *, at: float = 0.0,
        terminal: bool = False,
    ) -> Ending:  # fmt: skip
        """Run a command, and send it signals from a moment on (seconds after its start)."""
        begun = time.monotonic()
        ours, theirs = pty.openpty() if terminal else os.pipe()

        def own_terminal() -> None:
            fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

        process = subprocess.Popen(  # noqa: S603 - our own command
            [str(BIN / argv[0]), *map(str, argv[1:])],
            stdin=theirs if terminal else subprocess.DEVNULL, stdout=theirs, stderr=theirs,
            cwd=self.folder, env=self.environment, start_new_session=True,
            preexec_fn=own_terminal if terminal else None,
        )  # fmt: skip
        os.close(theirs)
        said: list[bytes] = []
        reader = threading.Thread(target=read_all, args=(ours, said, process))
        reader.start()
        time.sleep(at)
        for number, pause in signals:
            time.sleep(pause)
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    # As the terminal does: everybody in the foreground gets it.
                    if number == signal.SIGINT:
                        os.killpg(process.pid, number)
                    else:
                        process.send_signal(number)
        try:
            process.wait(300)
        finally:
            process.kill()
            reader.join()
        seconds = time.monotonic() - begun
        return Ending(process.returncode, b"".join(said).decode(errors="replace"), seconds)

    def living(self) -> list[str]:
        """Return the processes that belong to this place."""
        mark = f"TMPDIR={self.temporary}\0".encode()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (process / "environ").read_bytes():
                    words = (process / "cmdline").read_bytes().replace(b"\0", b" ")
                    found.append(f"{process.name} {words.decode(errors='replace')[:200]}")
        return found

    def check(self, about: str) -> None:
        """See that nothing is left: scripts on targets that were going on end by themselves."""
        until(lambda: not self.living(), 180)
        left = [path.name for path in self.temporary.glob("bascule-*") if "demo" not in path.name]
        assert left == [], about


def read_all(descriptor: int, said: list[bytes], process: subprocess.Popen[bytes]) -> None:
    """Read what is said until all have closed it, or for a second after the end of the program."""
    ended: float | None = None
    while ended is None or time.monotonic() - ended < 1:
        if ended is None and process.poll() is not None:
            ended = time.monotonic()
        if not select.select([descriptor], [], [], 0.05)[0]:
            continue
        try:
            data = os.read(descriptor, 65_536)
        except OSError:
            break
        if not data:
            break
        said.append(data)
    os.close(descriptor)


def moments(seconds: float, kind: str, count: int = COUNT) -> list[float]:
    """Return moments of a command that takes so long: most near its begin and its end."""
    draw = random.Random(f"{SEED} {kind}")  # noqa: S311
    third = count // 3
    first = [draw.uniform(0.02, min(0.6, seconds)) for _ in range(third)]
    last = [seconds - draw.uniform(0.0, min(0.8, seconds)) for _ in range(third)]
    between = [draw.uniform(0.0, seconds) for _ in range(count - 2 * third)]
    return sorted([*first, *between, *last])


class Fleet(Place):
    """Three local targets, and two revisions that take turns."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        sysroots = {name: folder / "hosts" / name for name in HOSTS}
        for sysroot in sysroots.values():
            sysroot.mkdir(parents=True)
        self.inventory = local_inventory(folder / "hosts.yml", sysroots)
        self.record = f"sqlite:///{folder / 'state' / 'record.db'}"
        hooks = {"ApplicationStop": "sleep 0.1\n", "ApplicationStart": "sleep 0.2\n"}
        self.revisions = itertools.cycle(
            files(folder / name, {"VERSION": f"{name}\n"}, hooks) for name in ("1.0", "2.0")
        )
        given = {"deploy_application": "shop", "deploy_group": "web", "deploy_targets": "web"}
        self.options: list[str | Path] = ["-i", self.inventory, "-e", json.dumps(given)]
        self.both()

    def deploy(self) -> list[str | Path]:
        """Return the command that brings the other revision."""
        revision = next(self.revisions)
        return ["bascule", "deploy", "rolling", "--revision", revision, *self.options]

    def both(self) -> None:
        """Deploy one revision and the other: one to go back to, and one to go back from."""
        for _ in range(2):
            deployed = self.run(self.deploy())
            assert deployed.status == 0, deployed.said

    def newest(self) -> bascule.Deployment:
        return bascule.history(record=self.record)[0]

    def settle(self, about: str, *, resume: bool) -> None:
        """Go on with what was interrupted, or give it up; then the group is free again."""
        for one in bascule.history(record=self.record):
            if one.exit_code != 4:
                continue
            words = ["resume", one.id, *self.options] if resume else ["abandon", one.id]
            done = self.run(["bascule", *map(str, words)])
            assert done.status in ((0, 1) if resume else (0,)), f"{about}: {done}"
            ended = bascule.status(str(one.id), record=self.record)
            assert ended.finished_at is not None, f"{about}: {ended}"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    made = Fleet(tmp_path_factory.mktemp("fleet"))
    yield made
    made.check("all")


def attempts(kind: str, seconds: float) -> Iterator[tuple[str, Signals, float, bool]]:
    """Yield moments of a kind's own: what it is called, the signals, when, with a terminal."""
    for place, at in enumerate(moments(seconds, kind)):
        terminal = place % 2 == 0
        about = f"{kind} after {at:.3f} s of {seconds:.1f} s, terminal: {terminal}"
        yield about, KINDS[kind], at, terminal


def one_attempt(fleet: Fleet, argv: list[str | Path], attempt: tuple[str, Signals, float, bool],
                *, resume: bool) -> Ending:  # fmt: skip
    about, signals, at, terminal = attempt
    about = f"{' '.join(map(str, argv[:3]))}: {about}"
    before = fleet.newest().id
    ending = fleet.run(argv, signals, at=at, terminal=terminal)
    fleet.check(about)
    if ending.check(about):
        newest = fleet.newest()
        if ending.status == 0:
            assert newest.id != before or argv[1] == "resume", about
            assert newest.status == "Succeeded", f"{about}: {newest}: {ending.said}"
        elif newest.id != before and newest.status == "Succeeded" and len(signals) == 1:
            raise AssertionError(f"{about}: it has succeeded: {ending.said}")
        elif newest.exit_code == 4 and len(signals) == 1:
            ways = (f"bascule resume {newest.id}", "before anything was begun", ": interrupted")
            assert any(way in ending.said for way in ways), f"{about}: {ending.said}"
    fleet.settle(about, resume=resume)
    return ending


@KIND
def test_deployments_are_interrupted(fleet: Fleet, kind: str) -> None:
    undisturbed = fleet.run(fleet.deploy())
    for number, attempt in enumerate(attempts(kind, undisturbed.seconds)):
        one_attempt(fleet, fleet.deploy(), attempt, resume=number % 3 > 0)


@KIND
def test_rollbacks_are_interrupted(fleet: Fleet, kind: str) -> None:
    rollback = ["bascule", "rollback", "web", *fleet.options]
    fleet.both()
    undisturbed = fleet.run(rollback)
    assert undisturbed.status == 0, undisturbed.said
    for number, attempt in enumerate(attempts(kind, undisturbed.seconds)):
        fleet.both()
        one_attempt(fleet, rollback, attempt, resume=number % 2 > 0)


@KIND
def test_what_is_gone_on_with_is_interrupted(fleet: Fleet, kind: str) -> None:
    def left() -> str:
        """Leave a deployment that is not finished."""
        for at in itertools.count(2.0, 0.3):
            ending = fleet.run(fleet.deploy(), KINDS["Ctrl-C twice"], at=at % 4)
            if ending.status == 4 and fleet.newest().exit_code == 4:
                return str(fleet.newest().id)
            fleet.settle("left", resume=False)
        raise AssertionError

    undisturbed = fleet.run(["bascule", "resume", left(), *fleet.options])
    for number, attempt in enumerate(attempts(kind, undisturbed.seconds)):
        resume: list[str | Path] = ["bascule", "resume", left(), *fleet.options]
        one_attempt(fleet, resume, attempt, resume=number % 2 > 0)


@KIND
def test_bundles_for_this_host_are_interrupted(tmp_path: Path, kind: str) -> None:
    place = Place(tmp_path)
    hooks = dict.fromkeys(("BeforeInstall", "AfterInstall", "ApplicationStart"), "sleep 0.3\n")
    bundle = files(tmp_path / "bundle", {"VERSION": "1\n"}, hooks)
    local = ["bascule", "local", "-l", bundle, "--sysroot", tmp_path / "root", "-b", "OVERWRITE"]
    undisturbed = place.run(local)
    assert undisturbed.status == 0, undisturbed.said
    for about, signals, at, terminal in attempts(kind, undisturbed.seconds):
        place.run(local, signals, at=at, terminal=terminal).check(about)
        place.check(about)
        again = place.run(local)
        assert again.status == 0, f"{about}: {again.said}"


def demonstration(folder: Path) -> Place:
    """Return a place for the demonstration, which has a state of its own."""
    place = Place(folder)
    del place.environment["BASCULE_STATE"], place.environment["ANSIBLE_CONFIG"]
    return place


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Ending:
    ending = demonstration(tmp_path_factory.mktemp("told")).run(["bascule", "demo"])
    assert ending.status == 0, ending.said
    return ending


@KIND
def test_the_demonstration_is_interrupted(told: Ending, tmp_path: Path, kind: str) -> None:
    place = demonstration(tmp_path)
    for about, signals, at, terminal in attempts(kind, told.seconds):
        ending = place.run(["bascule", "demo"], signals, at=at, terminal=terminal)
        if ending.check(about) and ending.status == 4 and "Deploying" in ending.said:
            assert "everything that was started is stopped" in ending.said, f"{about}: {ending}"
        assert place.living() == [], about
        place.check(about)
