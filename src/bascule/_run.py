"""Run a playbook of the collection by ansible-runner, and hand its events on as they come."""

from __future__ import annotations

import os
import re
import signal
import tempfile
import threading
import time
import typing as t
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.bascule.deploy.plugins.plugin_utils._pausing import VARIABLE, want_pause

from bascule import _interrupts
from bascule._environment import environment
from bascule._events import EventStream
from bascule._processes import Offspring

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ansible_collections.bascule.deploy.plugins.plugin_utils._progress_events import Event

# How long ansible-playbook may take to put down its work after an interrupt.
GRACE_SECONDS = 30.0
POLL_SECONDS = 0.5
# What ansible-runner calls the status of a process that a signal has ended.
KILLED = 254
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_ERROR = re.compile(r"^\[?ERROR\]?!?:?\s*", re.MULTILINE)
_CANCELLED = "cancelled by the program that runs it"
_UNPARSED = "Failed to parse inventory with 'auto' plugin:"
# What Ansible says, and what a person can do about it.
_ADVICE = (
    (
        "Completely failed to parse inventory source",
        "Wanted is a YAML or INI file of hosts, a folder of such files, or that of an inventory "
        "plugin; `ansible-inventory -i INVENTORY --graph` shows what is read.",
    ),
    (
        "leaves us with no hosts to target",
        "`bascule targets -i INVENTORY` shows which hosts there are.",
    ),
    (
        "Unable to create local directories",
        "Ansible keeps temporary files there: set HOME, or ANSIBLE_HOME, to a folder of your own.",
    ),
    (
        "command was not found or was not executable: ansible-playbook",
        "Install it where bascule is installed: pip install ansible-core.",
    ),
)


@dataclass(frozen=True)
class Request:
    """What to run. ``inventory`` holds paths, host lists (``a,b,``) or is a mapping.

    ``pausable``: the playbook carries a deployment out, so an interrupt first lets it pause.
    """

    strategy: str
    inventory: tuple[str, ...] | Mapping[str, t.Any]
    variables: Mapping[str, t.Any] = field(default_factory=dict)
    limit: str | None = None
    check: bool = False
    diff: bool = False
    verbosity: int = 0
    record: str | None = None
    pausable: bool = True
    folder: Path = field(default_factory=Path.cwd)


@dataclass(frozen=True)
class Outcome:
    """How a run ended: ansible-playbook's status, and its words when it told no event.

    ``interrupted``: it was asked to end early, by pausing or at once.
    """

    status: int
    interrupted: bool
    complaint: str

    @property
    def killed(self) -> bool:
        """Whether ansible-playbook was ended by a signal (runner has no status of its own then)."""
        return self.status == KILLED


def run(
    request: Request,
    *,
    on_event: Callable[[Event], None],
    cancel: Callable[[], bool] | None = None,
    notice: Callable[[str], None] | None = None,
) -> Outcome:
    """Run the playbook to its end; events arrive in order, in the calling thread.

    An error raised by ``on_event`` does not stop the deployment; it is raised when that has ended.
    The first interrupt (SIGINT, SIGTERM, or ``cancel``) pauses the deployment: no further target is
    begun, those in flight finish. The second one breaks it off at once, the third one kills
    ansible-playbook. A terminal that is closed (SIGHUP) pauses it and does no more.
    ``notice`` is told what an interrupt leads to.
    """
    watch = _Watch(request, on_event, cancel, notice or (lambda _text: None))
    status = KILLED
    # The folder, too, is made and removed undisturbed: secrets may be in it.
    with watch.interruptible(), tempfile.TemporaryDirectory(prefix="bascule-") as private:
        if not watch.called_off():
            status = _run_ansible(request, watch, private)
    watch.close()
    if watch.failure is not None:
        raise watch.failure
    return Outcome(status=status, interrupted=watch.asked, complaint=watch.complaint())


def _run_ansible(request: Request, watch: _Watch, private: str) -> int:
    """Run ansible-playbook and return its status."""
    from ansible_runner.interface import run as run_ansible

    asking = watch.listen(Path(private))
    try:
        runner = run_ansible(
            private_data_dir=private,
            # The working folder, so that relative paths and ansible.cfg mean what they mean there.
            project_dir=str(request.folder),
            playbook=f"bascule.deploy.{request.strategy}",
            inventory=_inventory(request),
            # Written to env/extravars with mode 0600; never part of a command line.
            extravars=dict(request.variables) or None,
            limit=_limit(request.limit),
            cmdline=_options(request) or None,
            verbosity=request.verbosity or None,
            envvars={**_environment(request), VARIABLE: str(asking)},
            settings={"pexpect_timeout": POLL_SECONDS, "suppress_output_file": True},
            quiet=request.verbosity < 2,
            event_handler=watch.event,
            cancel_callback=watch.cancelled,
        )
        return int(runner.rc if runner.rc is not None else KILLED)
    finally:
        watch.clear()


class _Watch:
    """What goes on while ansible-playbook runs: events out, interrupts in."""

    def __init__(
        self,
        request: Request,
        on_event: Callable[[Event], None],
        cancel: Callable[[], bool] | None,
        notice: Callable[[str], None],
    ) -> None:
        self.failure: Exception | None = None
        # Why somebody wanted the run to end, each time.
        self._reasons: list[str] = []
        self._heard = 0
        self._stream = EventStream(differences=request.diff)
        self._on_event, self._cancel, self._notice = on_event, cancel, notice
        self._pausable = request.pausable and not request.check
        self._pause: Path | None = None
        self._pid: int | None = None
        self._broken_off: float | None = None
        self._offspring: Offspring | None = None
        self._kill = False
        self._words: list[str] = []

    def called_off(self) -> bool:
        """Tell whether somebody wants the run to end that has not begun."""
        if _interrupts.noted() or (self._cancel is not None and self._cancel()):
            self.interrupt(_CANCELLED)
        self._heard = len(self._reasons)
        return self.asked

    def listen(self, folder: Path) -> Path:
        """Return the file in a folder by which the run will be asked to pause."""
        asking = folder / "pause"
        self._pause = asking if self._pausable else None
        return asking

    def event(self, raw: dict[str, t.Any]) -> bool:
        """Take one of runner's events; tell runner not to keep it in a file."""
        self._pid = self._pid or raw.get("pid")
        if raw.get("stdout"):
            self._words = [*self._words[-200:], str(raw["stdout"])]
        for event in self._stream.read(raw):
            try:
                self._on_event(event)
            except Exception as error:
                self.failure = self.failure or error
        self._hear()
        return False

    def cancelled(self) -> bool:
        """Tell runner whether to kill ansible-playbook now."""
        if not self._reasons and self._cancel is not None and self._cancel():
            self.interrupt(_CANCELLED)
        self._hear()
        if self._broken_off is None:
            return self._kill
        return self._kill or time.monotonic() - self._broken_off > GRACE_SECONDS

    @property
    def asked(self) -> bool:
        """Whether somebody wanted the run to end."""
        return bool(self._reasons)

    def interrupt(self, why: str = "interrupted from the keyboard or by a signal") -> None:
        """Note that the run shall end.

        Signals come here between any two instructions, in the middle of a line that is being
        written too: what is noted is done where nothing else goes on (``_hear``).
        """
        self._reasons.append(why)

    def _hear(self) -> None:
        """Let the deployment pause; the second time, break it off; the third time, kill it."""
        while self._heard < len(self._reasons):
            why = self._reasons[self._heard]
            self._heard += 1
            if self._pause is not None and self._heard == 1:
                self._ask_to_pause(self._pause, why)
            elif self._broken_off is None:
                self._break_off()
            else:
                self._kill = True

    def _ask_to_pause(self, asking: Path, why: str) -> None:
        try:
            want_pause(asking, why)
        except OSError as error:
            # A full disk, for instance; an interrupt must not be lost by it.
            self._say(f"It cannot be asked to pause: {asking} cannot be written ({error}).")
            self._break_off()
            return
        self._say(
            "Pausing: no further target is begun; waiting for those in flight. Interrupt again "
            "to break off at once."
        )

    def hang_up(self) -> None:
        """Let the deployment pause; a shell may say more than once that its terminal is gone."""
        if not self._reasons:
            self.interrupt("the terminal was closed")

    def _say(self, text: str) -> None:
        # Where this would be read may be gone; that must not end what goes on here.
        with suppress(OSError):
            self._notice(text)

    def _break_off(self) -> None:
        self._broken_off = time.monotonic()
        self._say("Breaking off: waiting for ansible-playbook to put its work down.")
        if self._pid is None:
            self._kill = True
            return
        self._offspring = Offspring(self._pid)
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGINT)

    def clear(self) -> None:
        """End what ansible-playbook left running when it was broken off."""
        if self._offspring is not None:
            self._offspring.end()

    def close(self) -> None:
        """Answer who asked when nothing was left to pause."""
        if self._heard < len(self._reasons):
            self._heard = len(self._reasons)
            self._say("Interrupted when the run had ended already.")

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Pass SIGINT, SIGTERM and SIGHUP on while in the block (in the main thread only)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before: dict[signal.Signals, t.Any] = {}
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, lambda *_: self.interrupt())
            # Under nohup it stays ignored.
            if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
                before[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda *_: self.hang_up())
            yield
        finally:
            # SIGINT last: what comes then may be an exception, and nothing is left to do.
            for number in reversed(before):
                signal.signal(number, before[number])

    def complaint(self) -> str:
        """Return the last error message that ansible-playbook printed itself, on one line."""
        text = _COLOUR.sub("", "\n".join(self._words)).replace("\r", "")
        parts = _ERROR.split(text)
        if len(parts) < 2:
            return " ".join(text.split())[-500:]
        complaint = _first_paragraph(parts[-1])
        # Which plugin said what about a source of the inventory is only in a warning.
        reasons = [_reason(part) for part in text.split(_UNPARSED)[1:]]
        advice = [told for words, told in _ADVICE if words in complaint]
        if reasons:
            return f"{complaint.rstrip('.')}: {reasons[0]}"
        return " ".join([f"{complaint.rstrip('.')}.", *advice]) if advice else complaint


def _first_paragraph(text: str) -> str:
    return " ".join(re.split(r"\n\s*\n|\nOrigin:|\nTraceback \(", text.strip())[0].split())


def _reason(warning: str) -> str:
    """Return what a warning of an inventory plugin says, with the place in the file."""
    own = warning.partition("[WARNING]")[0]
    words = re.split(r"\n\s*(?:\n|Origin:|Failed to parse|<<<)", own.strip())[0]
    place = re.search(r"^Origin: (\S+:\d+:\d+)\s*$", own, re.MULTILINE)
    told = " ".join(words.split())
    return f"{place[1]}: {told}" if place else told


def _inventory(request: Request) -> list[str] | dict[str, t.Any] | None:
    if not isinstance(request.inventory, tuple):
        return dict(request.inventory)
    places = []
    for place in request.inventory:
        path = request.folder / Path(place).expanduser()
        places.append(str(path) if path.exists() else place)
    return places or None


def _limit(limit: str | None) -> str | None:
    """Return the limit with localhost in it, where a deployment opens and closes."""
    return f"{limit}:localhost" if limit and "," not in limit else limit and f"{limit},localhost"


def _options(request: Request) -> str:
    return " ".join(
        option
        for option, wanted in (("--check", request.check), ("--diff", request.diff))
        if wanted
    )


def _environment(request: Request) -> dict[str, str]:
    added = environment(folder=request.folder, given=dict(os.environ), record=request.record)
    if request.verbosity < 2:
        added["ANSIBLE_NOCOLOR"] = "1"
    return added
