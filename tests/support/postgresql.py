"""A PostgreSQL server of a test's own: a fresh cluster on a free port of 127.0.0.1.

Needs Debian's package ``postgresql`` (other systems: ``initdb`` and ``postgres`` on the PATH); says
so and fails where it is missing. PostgreSQL refuses to run as root: then it runs as ``postgres``,
or as ``nobody`` where there is no such user.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

PASSWORD = "sesame-open"  # noqa: S105 - of a server that lives as long as one test


@dataclass
class Server:
    """A running server; ``url`` names one of its databases."""

    port: int
    folder: Path
    identity: dict[str, Any]
    durable: bool
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, at its port, and wait until it answers."""
        log = self.folder / "log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [_programs() / "postgres", "-D", self.folder / "data", "-p", str(self.port),
                 "-k", self.folder, "-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200",
                 "-c", f"fsync={'on' if self.durable else 'off'}"],
                cwd=self.folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                **self.identity,
            )  # fmt: skip
        _wait_until_ready(self, self.process, log)

    def stop(self, *, at_once: bool = False) -> None:
        """Stop it as an administrator does, or ``at_once``, as a crash does."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGQUIT if at_once else signal.SIGINT)
        try:
            self.process.wait(120)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def socket_url(self, database: str) -> str:
        """The URL by the server's socket, which is reached from every network namespace."""
        where = f"host={self.folder}&port={self.port}"
        return f"postgresql://bascule:{PASSWORD}@/{database}?{where}"

    def url(self, database: str) -> str:
        return f"postgresql://bascule:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def create(self, database: str) -> str:
        """Make an empty database and return its URL."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
        return self.url(database)

    def end_connections(self, database: str) -> None:
        """Cut off everybody who uses a database."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                [database],
            )


@contextlib.contextmanager
def server(*, durable: bool = False) -> Iterator[Server]:
    """Start a server; stop it and remove its files at the end.

    Unless it is ``durable``, a commit does not wait for the disk: only a crash of the whole machine
    could tell the difference.
    """
    programs = _programs()
    # Not below pytest's tmp_path: that is closed to other users.
    folder = Path(tempfile.mkdtemp(prefix="bascule-postgresql-"))
    try:
        identity = _identity()
        if identity:
            shutil.chown(folder, identity["user"], identity["group"])
        _make_cluster(programs / "initdb", folder, identity)
        running = Server(free_port(), folder, identity, durable)
        try:
            running.start()
            yield running
        finally:
            running.stop(at_once=True)  # the files are removed anyway
    finally:
        shutil.rmtree(folder)


def _programs() -> Path:
    def version(path: Path) -> int:
        return int(re.sub(r"\D", "", path.parents[1].name) or 0)

    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=version)
    on_path = shutil.which("initdb")
    if not found and on_path is None:
        message = "PostgreSQL is missing: apt-get install postgresql (this test needs initdb)."
        raise RuntimeError(message)
    return (found[-1] if found else Path(str(on_path)).resolve()).parent


def _identity() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    message = "There is neither a user postgres nor nobody to run PostgreSQL as."
    raise RuntimeError(message)


def _make_cluster(initdb: Path, folder: Path, identity: dict[str, Any]) -> None:
    secret = folder / "password"
    secret.write_text(PASSWORD)
    secret.chmod(0o644)
    made = subprocess.run(
        [initdb, "-D", folder / "data", "-U", "bascule", "-A", "scram-sha-256", "-E", "UTF8",
         "--locale=C", "--no-sync", f"--pwfile={secret}"],
        cwd=folder, capture_output=True, text=True, check=False, timeout=300, **identity,
    )  # fmt: skip
    if made.returncode:
        message = f"initdb failed: {made.stdout}{made.stderr}"
        raise RuntimeError(message)


def _wait_until_ready(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            psycopg.connect(server.url("postgres")).close()
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                message = f"PostgreSQL did not start: {log.read_text(errors='replace')}"
                raise RuntimeError(message) from None
            time.sleep(0.1)
        else:
            return
