"""Workers of one deployment, as processes of their own, share looks and orders in the record."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import (
    LeaseLostError,
    TrafficError,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._providers._desk import Desk
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Record
from support import records

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

WORKERS = 8
SUBJECT = "group g"


class Calls:
    """A remote service whose calls are lines of a file; a line is written in one go."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "calls"
        self._path.touch()

    def note(self, what: str, items: Sequence[str] = ()) -> None:
        with self._path.open("ab", buffering=0) as file:
            file.write((json.dumps([time.time(), what, list(items)]) + "\n").encode())

    def of(self, what: str) -> list[tuple[float, list[str]]]:
        lines = [json.loads(line) for line in self._path.read_text().splitlines()]
        return [(at, items) for at, kind, items in lines if kind == what]

    def change(self, items: list[str]) -> dict[str, str]:
        self.note("change", items)
        return {one: f"no {one}" for one in items if one.startswith("bad")}

    def ask(self) -> dict[str, Any]:
        """See what has been changed; an order's effect is seen by the next look."""
        self.note("ask")
        return {"members": sorted({one for _at, items in self.of("change") for one in items})}


def work(url: str, deployment: str, fence: int, name: str, calls: Calls, start: Any) -> None:
    """One worker: order something for itself, then see that it is so; tell by the exit status."""
    desk = Desk(Record.open(url, fence=fence), deployment)
    start.wait()
    try:
        desk.order(SUBJECT, "add", [name], calls.change)
    except TrafficError as error:
        os._exit(2 if str(error) == f"no {name}" else 3)
    seen = desk.look(SUBJECT, calls.ask, interval=0.5)
    os._exit(0 if name in seen["members"] else 1)


def test_orders_share_calls_and_looks_answer_for_all(url: str, tmp_path: Path) -> None:
    record = Record.open(url)
    names = [f"web-{number}" for number in range(WORKERS - 1)] + ["bad-1"]
    made = records.create(record, names)
    calls = Calls(tmp_path)
    # This process comes first and collects until all others have ordered, too.
    shared = Record.open(url, fence=made.fence).sharing(made.id)
    assert shared.place("0", SUBJECT, "add", '["web-x"]').collecting
    record.close()
    context = multiprocessing.get_context("fork")
    start = context.Barrier(WORKERS)
    workers = [
        context.Process(target=work, args=(url, made.id, made.fence, name, calls, start))
        for name in names
    ]
    for one in workers:
        one.start()
    begun = time.time()
    deadline = time.monotonic() + 60
    while len(taken := shared.take("0", SUBJECT, "add")) <= WORKERS:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    refused = calls.change([item for _name, items in taken for item in json.loads(items)])
    ended = {name: refused.get(json.loads(items)[0]) for name, items in taken}
    shared.complete("0", SUBJECT, "add", ended)
    for one in workers:
        one.join(300)
    lasted = time.time() - begun
    assert [one.exitcode for one in workers] == [0] * (WORKERS - 1) + [2]
    [(_at, changed)] = calls.of("change")
    assert sorted(changed) == sorted([*names, "web-x"])
    # Between two looks there is the interval, whoever looks.
    assert 1 <= len(calls.of("ask")) <= lasted / 0.5 + 1


def test_a_look_is_newer_than_one_s_own_order(url: str, tmp_path: Path) -> None:
    record = Record.open(url)
    made = records.create(record, ["web-1"])
    calls = Calls(tmp_path)
    one, other = (Desk(Record.open(url, fence=made.fence), made.id) for _ in range(2))
    assert one.look(SUBJECT, calls.ask, interval=0.5) == {"members": []}
    one.order(SUBJECT, "add", ["web-1"], calls.change)
    assert one.look(SUBJECT, calls.ask, interval=60.0) == {"members": ["web-1"]}
    assert other.look(SUBJECT, calls.ask, interval=60.0) == {"members": ["web-1"]}
    assert len(calls.of("ask")) == 2


def test_what_an_earlier_controller_ordered_is_not_carried_out(url: str, tmp_path: Path) -> None:
    record = Record.open(url)
    made = records.create(record, ["web-1", "web-2"])
    calls = Calls(tmp_path)
    shared = Record.open(url, fence=made.fence).sharing(made.id)
    assert shared.place("0-dead", SUBJECT, "remove", '["web-1"]').collecting
    later = record.take_over(made.id)
    desk = Desk(Record.open(url, fence=later.fence), made.id)
    desk.order(SUBJECT, "remove", ["web-2"], calls.change)
    assert [items for _at, items in calls.of("change")] == [["web-2"]]
    with pytest.raises(LeaseLostError):
        shared.take("0-dead", SUBJECT, "remove")


def test_nothing_is_kept_of_a_deployment_that_has_ended(url: str, tmp_path: Path) -> None:
    record = Record.open(url)
    made = records.create(record, ["web-1"])
    desk = Desk(Record.open(url, fence=made.fence), made.id)
    desk.look(SUBJECT, Calls(tmp_path).ask, interval=60.0)
    record.abandon(made.id)
    assert record.sharing(made.id).peek(SUBJECT, after=0, interval=60.0).verdict == "ask"


def test_a_look_that_fails_is_somebody_else_s_to_repeat(url: str, tmp_path: Path) -> None:
    record = Record.open(url)
    made = records.create(record, ["web-1"])
    one, other = (Desk(Record.open(url, fence=made.fence), made.id) for _ in range(2))

    def fail() -> None:
        raise TrafficError("not now")

    with pytest.raises(TrafficError, match="not now"):
        one.look(SUBJECT, fail, interval=0.1)
    assert other.look(SUBJECT, Calls(tmp_path).ask, interval=0.1) == {"members": []}
