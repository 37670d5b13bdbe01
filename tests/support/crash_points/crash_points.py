"""Kill the controller at named points of its record, from inside of it.

A callback that changes nothing but the record's transactions, and only in the controller that a
test starts. A point is a commit that writes events: right before it, and right after it. Each point
that is passed for the first time is written down; in the mode ``kill`` the controller is killed
there, or with a stride at every few of them only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from ansible.plugins.callback import CallbackBase
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import _sqlite
from ansible_collections.bascule.deploy.plugins.plugin_utils._record._session import Query

PASSED = "CRASH_POINTS_PASSED"
MODE = "CRASH_POINTS_MODE"
SIDES = "CRASH_POINTS_SIDES"
STRIDE = "CRASH_POINTS_STRIDE"


def controllers() -> list[int]:
    """Return this controller's processes: ansible-playbook and the workers that it forked."""
    token = f"{PASSED}={os.environ[PASSED]}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            variables = (folder / "environ").read_bytes().split(b"\0")
            if any(word.endswith(b"ansible-playbook") for word in words[:3]) and token in variables:
                found.append(int(folder.name))
    return found


def kill() -> None:
    """Kill the controller, this process last."""
    for pid in controllers():
        if pid != os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def passing(side: str, names: list[str]) -> None:
    """Write down what was not passed before, and be killed there if that is wanted.

    Events of one commit are one point with several names.
    """
    path = Path(os.environ[PASSED])
    known = path.read_text().splitlines()
    new = [point for name in names if (point := f"{side} {name}") not in known]
    if side not in os.environ[SIDES].split(",") or not new:
        return
    with path.open("a") as file:
        file.write("".join(f"{point}\n" for point in new))
    numbers = range(len(known), len(known) + len(new))
    if os.environ[MODE] == "kill" and any(one % int(os.environ[STRIDE]) == 0 for one in numbers):
        kill()


def install() -> None:
    """Watch the transactions of a SQLite record."""
    noted: list[str] = []
    insert, transaction = _sqlite.SqliteSession.insert, _sqlite.transaction

    def watched_insert(self, table, rows):  # type: ignore[no-untyped-def]
        insert(self, table, rows)
        if table == "events":
            query = Query(table="deployments", columns=("rollback_of",))
            for row in rows:
                found = self.rows(
                    Query(
                        table=query.table,
                        columns=query.columns,
                        equals={"id": row["deployment_id"]},
                    )
                )
                kind = "rollback" if found and found[0]["rollback_of"] else "deployment"
                noted.append(f"{kind} {row['event']} {row['target']}".strip())

    @contextlib.contextmanager
    def watched_transaction(path, *, writes, synced):  # type: ignore[no-untyped-def]
        noted.clear()
        with transaction(path, writes=writes, synced=synced) as session:
            yield session
            passing("before", noted)
        passing("after", noted)
        noted.clear()

    _sqlite.SqliteSession.insert = watched_insert  # type: ignore[method-assign]
    _sqlite.transaction = watched_transaction


class CallbackModule(CallbackBase):
    """Loaded once, before any worker is forked."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "crash_points"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        install()
