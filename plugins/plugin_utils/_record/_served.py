# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record as a worker uses it: the controller's clerk asks the server for it, if there is one.

See ``_clerk``. The meaning is that of ``Record``; whatever a clerk does not do, and everything
where there is none or it has gone, the worker does itself.
"""

from __future__ import annotations

import contextlib
import functools
import json
import socket
from typing import TYPE_CHECKING, Any

from ...module_utils import _errors
from ._clerk import METHODS, address_of, employ, is_ours
from ._holder import is_orphaned, this_controller
from ._location import locate
from ._notice import tell
from ._rows import Admission, Deployment, RevisionRow, Target
from ._store import Record

if TYPE_CHECKING:
    from collections.abc import Callable


def employ_clerk(url: str | None = None) -> None:
    """Have a clerk ask the record for the workers of this controller; ``url`` as in Record.open."""
    employ(locate(url))


class _GoneError(Exception):
    """The clerk has not answered: the question may have been done or not."""


class ServedRecord(Record):
    """A record of which the questions of a worker are asked by the clerk of its controller."""

    def __init__(
        self, url: str | None = None, *, fence: int | None = None, patience: float = 0.0
    ) -> None:
        """Find the clerk; where there is none, this is a record as any other."""
        self._line: _Line | None = None
        location = locate(url)
        address = address_of(location, this_controller())
        if address is not None and not is_orphaned():
            self._line = _Line.to(address)
        if self._line is None:
            super().__init__(url, fence=fence, patience=patience)
        else:
            self._location, self._fence, self._patience = location, fence, patience
            self._retained = False

    def close(self) -> None:
        """Let the clerk go, and close this process's own connection to the server."""
        if self._line is not None:
            self._line.close()
            self._line = None
        super().close()

    def ask(self, method: str, *given: Any, **named: Any) -> Any:
        """Have a method of ``Record`` done by the clerk, or by ourselves."""
        if self._line is not None:
            try:
                return self._line.ask(method, given, named, self._fence, self._patience)
            except _GoneError:
                self._line.close()
                self._line = None
                super().__init__(self._location.url, fence=self._fence, patience=self._patience)
        return getattr(super(), method)(*given, **named)


class _Line:
    """A connection to a clerk."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._stream = connection.makefile("rwb")

    @classmethod
    def to(cls, address: str) -> _Line | None:
        """Connect; None if nobody of ours listens there."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(address)
            if is_ours(connection):
                return cls(connection)
        except OSError:
            pass
        connection.close()
        return None

    def ask(
        self,
        method: str,
        given: tuple[Any, ...],
        named: dict[str, Any],
        fence: int | None,
        patience: float,
    ) -> Any:
        asked = {
            "method": method, "given": [_listed(one) for one in given], "named": named,
            "fence": fence, "patience": patience,
        }  # fmt: skip
        try:
            self._stream.write(json.dumps(asked).encode() + b"\n")
            self._stream.flush()
            while "notice" in (told := json.loads(self._stream.readline())):
                tell(told["notice"])
        except (OSError, ValueError) as error:
            raise _GoneError from error
        if "error" in told:
            raise _error_of(told)
        if "answer" not in told:
            raise _GoneError
        return _ANSWERS.get(method, _as_it_is)(told["answer"])

    def close(self) -> None:
        # What could not be sent to a clerk that has gone is still in the stream.
        with contextlib.suppress(OSError):
            self._stream.close()
        self._connection.close()


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, (tuple, set, frozenset)) else value


def _error_of(told: dict[str, Any]) -> _errors.BasculeError:
    kind = getattr(_errors, told["error"], _errors.RecordError)
    if kind is _errors.RecordAwayError:
        return _errors.RecordAwayError(told["message"], unsure=bool(told["unsure"]))
    made = kind(told["message"])
    return made if isinstance(made, _errors.BasculeError) else _errors.RecordError(told["message"])


def _as_it_is(answer: Any) -> Any:
    return answer


def _deployment(answer: dict[str, Any]) -> Deployment:
    return Deployment(**{**answer, "revision": RevisionRow(**answer["revision"])})


_ANSWERS: dict[str, Callable[[Any], Any]] = {
    "admit": lambda answer: Admission(**answer),
    "deployment": _deployment,
    "targets": lambda answer: [Target(**one) for one in answer],
}


def _served(method: str) -> Callable[..., Any]:
    @functools.wraps(getattr(Record, method))
    def ask(record: ServedRecord, *given: Any, **named: Any) -> Any:
        return record.ask(method, *given, **named)

    return ask


for _method in METHODS:
    setattr(ServedRecord, _method, _served(_method))
