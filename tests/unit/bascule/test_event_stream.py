from __future__ import annotations

from typing import Any

from bascule._events import EventStream, collection_root

CREATED = "2026-01-02T03:04:05.500000+00:00"


def raw(event: str, **data: Any) -> dict[str, Any]:
    """Return an event as ansible-runner gives it."""
    about = {"host": "web1", "task": "bascule.deploy.roll : Wait for a free slot", **data}
    return {"event": event, "created": CREATED, "event_data": about}


def test_a_result_of_runner_becomes_an_event() -> None:
    answer = {"phase": "admit", "target": "web1", "verdict": "admitted", "waited": 1.5}
    (event,) = EventStream().read(
        raw("runner_on_ok", resolved_action="bascule.deploy.admit", res={"bascule": answer})
    )
    assert (event.kind, event.target, event.status) == ("admitted", "web1", "admitted")
    assert event.at == 1767323045.5
    assert event.data == answer


def test_a_start_carries_the_name_of_the_task_without_its_role() -> None:
    (event,) = EventStream().read(
        raw("runner_on_start", task_action="bascule.deploy.admit", task_path="/x/site.yml:1")
    )
    assert (event.kind, event.message) == ("started", "Wait for a free slot")


def test_our_own_bookkeeping_is_not_told() -> None:
    path = f"{collection_root()}/roles/roll/tasks/main.yml:7"
    stream = EventStream()
    assert list(stream.read(raw("runner_on_ok", task_action="meta", task_path=path))) == []
    told = list(stream.read(raw("runner_on_ok", task_action="meta", task_path="/x/site.yml:1")))
    assert [event.kind for event in told] == ["task"]


def test_warnings_are_told_once() -> None:
    stream = EventStream()
    seen = raw("runner_on_ok", task_action="ansible.builtin.ping", res={"warnings": ["beware"]})
    told = [event.message for _time in range(2) for event in stream.read(seen)]
    assert told == ["beware", "", ""]


def test_other_events_are_passed_over() -> None:
    stream = EventStream()
    assert list(stream.read({"event": "verbose", "stdout": "x"})) == []
    assert list(stream.read(raw("playbook_on_stats"))) == []


def test_a_time_that_cannot_be_read_is_now() -> None:
    seen = {**raw("runner_on_start", task_action="x"), "created": "soon"}
    (event,) = EventStream().read(seen)
    assert event.at > 1767323045.5
