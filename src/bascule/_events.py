"""How ansible-runner's events become Bascule's."""

from __future__ import annotations

import datetime
import re
import time
import typing as t
from pathlib import Path

from ansible_collections.bascule.deploy.plugins.plugin_utils import _progress_events
from ansible_collections.bascule.deploy.plugins.plugin_utils._progress_events import (
    Event,
    Observation,
    Translator,
    is_own,
)

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# How ``_action.py`` marks what it tells while it waits.
NOTICE = "bascule: "
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_MOMENTS = {
    "runner_on_start": "start",
    "runner_on_ok": "ok",
    "runner_on_failed": "failed",
    "runner_on_unreachable": "unreachable",
    "runner_on_skipped": "skipped",
}


def collection_root() -> Path:
    """Return the folder of the collection that this package came with."""
    return Path(_progress_events.__file__).resolve().parent.parent.parent


class EventStream:
    """Turn ansible-runner's event dictionaries into ``Event``, in order."""

    def __init__(self, *, differences: bool = False) -> None:
        """Begin a stream; ``differences`` asks for ``diff`` events (a run with ``--diff``)."""
        self._translator = Translator(differences=differences)
        self._root = collection_root()
        self._warned: set[str] = set()

    def read(self, raw: Mapping[str, t.Any]) -> Iterator[Event]:
        """Yield the events that one of runner's events stands for."""
        if raw.get("event") == "verbose":
            yield from self._notice(raw)
        moment = _MOMENTS.get(str(raw.get("event")))
        about = raw.get("event_data") or {}
        if moment is None or "host" not in about:
            return
        answer = about.get("res") or {}
        seen = Observation(
            moment=moment,
            host=str(about["host"]),
            task=str(about.get("task") or "").split(" : ", 1)[-1].strip(),
            action=str(about.get("resolved_action") or about.get("task_action") or ""),
            at=_epoch(raw.get("created")),
            result=answer,
            own=is_own(about.get("task_path"), self._root),
            ignored=bool(about.get("ignore_errors")),
        )
        yield from self._warnings(seen)
        yield from self._translator.events(seen)

    def _notice(self, raw: Mapping[str, t.Any]) -> Iterator[Event]:
        """Yield what an action tells while it waits, for instance for its record."""
        text = " ".join(_COLOUR.sub("", str(raw.get("stdout") or "")).split())
        if text.startswith(NOTICE) and text not in self._warned:
            self._warned.add(text)
            yield Event(
                kind="notice",
                deployment_id=self._translator.deployment_id,
                target=None,
                name="",
                status="",
                message=text.removeprefix(NOTICE),
                at=_epoch(raw.get("created")),
            )

    def _warnings(self, seen: Observation) -> Iterator[Event]:
        for warning in seen.result.get("warnings") or ():
            text = str(warning)
            if text not in self._warned:
                self._warned.add(text)
                yield Event(
                    kind="warning",
                    deployment_id=self._translator.deployment_id,
                    target=seen.host,
                    name=seen.task,
                    status="",
                    message=text,
                    at=seen.at,
                )


def _epoch(created: t.Any) -> float:
    try:
        return datetime.datetime.fromisoformat(str(created)).timestamp()
    except ValueError:
        return time.time()
