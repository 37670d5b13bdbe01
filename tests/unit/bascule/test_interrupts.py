"""What signals do to a run: they are noted at once, and answered where no line is being written."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from bascule._run import Request, _Watch, run

if TYPE_CHECKING:
    from pathlib import Path

    from bascule import Event


class Heard:
    """A run with somebody who watches it; ``told`` is what an interrupt is answered with."""

    def __init__(self, folder: Path) -> None:
        self.told: list[str] = []
        self.watch = _Watch(
            Request(strategy="rolling", inventory=("hosts",)), self.show, None, self.told.append
        )
        self.pause = self.watch.listen(folder)

    def show(self, event: Event) -> None:
        """Be interrupted while an event is shown."""
        signal.raise_signal(signal.SIGINT)
        assert (event.kind, self.told) == ("started", [])


STARTED = {
    "event": "runner_on_start",
    "created": "2026-01-02T03:04:05.500000+00:00",
    "event_data": {"host": "web1", "task": "Wait", "task_action": "ansible.builtin.pause"},
}


def test_a_signal_while_a_line_is_written_waits_for_its_end(tmp_path: Path) -> None:
    heard = Heard(tmp_path)
    with heard.watch.interruptible():
        heard.watch.event(STARTED)
    assert heard.watch.failure is None
    assert [line.partition(":")[0] for line in heard.told] == ["Pausing"]
    assert heard.pause.exists()


def test_a_signal_is_noted_at_once_and_answered_at_the_next_look(tmp_path: Path) -> None:
    heard = Heard(tmp_path)
    with heard.watch.interruptible():
        signal.raise_signal(signal.SIGINT)
        assert (heard.told, heard.pause.exists()) == ([], False)
        assert not heard.watch.cancelled()
    assert heard.told == [
        "Pausing: no further target is begun; waiting for those in flight. Interrupt again to "
        "break off at once."
    ]
    assert heard.pause.exists()
    assert heard.watch.asked


def test_the_second_signal_breaks_off_and_the_third_kills(tmp_path: Path) -> None:
    heard = Heard(tmp_path)
    # Nothing runs yet that could put its work down.
    with heard.watch.interruptible():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert heard.watch.cancelled()
    assert [line.partition(":")[0] for line in heard.told] == ["Pausing", "Breaking off"]


def test_what_was_called_off_before_it_began_is_not_begun(tmp_path: Path) -> None:
    told: list[str] = []
    outcome = run(
        Request(strategy="rolling", inventory=("hosts",), folder=tmp_path),
        on_event=lambda _event: None, cancel=lambda: True, notice=told.append,
    )  # fmt: skip
    assert (outcome.interrupted, outcome.complaint, told) == (True, "", [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_after_the_last_look_is_answered_at_the_end(
    tmp_path: Path, number: signal.Signals
) -> None:
    heard = Heard(tmp_path)
    # Under nohup it would be ignored, and stay so.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with heard.watch.interruptible():
            signal.raise_signal(number)
    finally:
        signal.signal(signal.SIGHUP, before)
    heard.watch.close()
    heard.watch.close()
    assert heard.told == ["Interrupted when the run had ended already."]
    assert heard.watch.asked
