# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Work that outlives the terminal it was begun below."""

from __future__ import annotations

import json
import os
import traceback
from typing import TYPE_CHECKING, Any, NoReturn

from .._errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable


def run(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what ``work`` returns; below a terminal it is done in a session of its own.

    A lost connection hangs its terminal up, and sudo ends what it has started on it. The work goes
    on all the same, and whoever asks again finds its result.

    :raises HostError: the work ended without a result
    """
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return work()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _work_apart(work, reader, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        answer = file.read()
    os.waitpid(pid, 0)
    if not answer:
        raise HostError("The host program ended without a result; its output says why.")
    result: dict[str, Any] = json.loads(answer)
    return result


def _work_apart(work: Callable[[], dict[str, Any]], reader: int, writer: int) -> NoReturn:
    status = 1
    try:
        os.close(reader)
        os.setsid()
        answer = json.dumps(work()).encode()
        with os.fdopen(writer, "wb") as file:
            file.write(answer)
        status = 0
    except BrokenPipeError:
        # Who asked has gone with the connection; the journal has the result.
        status = 0
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        # Nothing of the parent's, such as its temporary files, may be cleaned up twice.
        os._exit(status)
