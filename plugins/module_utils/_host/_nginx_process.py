# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One nginx: its files changed only if it accepts them, its reload seen, and nobody cut.

A reload closes the idle connections of the old workers. A client that sends its next request on
such a connection just then loses it. Two ways keep that from happening:

- the configuration asks for a file ``closing`` and answers with ``Connection: close`` while it is
  there. We put it there, and reload once no connection rests any more that was open before: those
  in use end with their next answer, the others with nginx's ``keepalive_timeout``.
- nginx 1.27.4 and later have ``keepalive_min_timeout``: old workers keep idle connections open.

A reload takes seconds, and a bad version must lose its users at once. So the configuration also
asks, for each pool, for a file ``only-UPSTREAM``; while it is there every request goes to that
upstream, from the next one on and in every worker. ``only`` writes it, the reload follows.

The workers are told apart by ``/proc``: those of an old configuration call themselves "shutting
down", those of the present one began after its files were written.

This file runs on hosts: Python 3.8 and the standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .._errors import TrafficError, UsageError
from ._connections import resting
from ._eds import locked, replace_file
from ._nginx_files import keepalive_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TEST_SECONDS = 60.0
# Many who change a server at once stand in line, and each lets nginx test its configuration.
LOCK_SECONDS = 60.0
RELOAD_LOCK_SECONDS = 120.0
# proc(5) tells a process's beginning in ticks of 10 ms.
CLOCK_SLACK = 0.02
# States in /proc/net/tcp (include/net/tcp_states.h).
ESTABLISHED, LISTEN = "01", "0A"
# For how long a request that no worker has read may hold a reload back.
READ_SECONDS = 5.0
# How often resting connections are counted.
LOOK_SECONDS = 0.1
ONLY = "only-"

LOSSY = (
    "nginx is reloaded for each change of the traffic, and its configuration has neither the "
    "location that {closing} asks for nor keepalive_min_timeout (nginx 1.27.4): a reload can cut "
    "a client that keeps its connection alive. docs/load-balancers.md shows both."
)
RESTING = (
    "nginx lets a client's connection rest for up to {kept:g} s (keepalive_timeout), and a reload "
    "waits for it for {wait:g} s (deploy_nginx_reload_wait): a client that has rested for longer "
    "and sends in the very moment of the reload loses that request. Lower keepalive_timeout below "
    "the wait, or raise the wait."
)
CACHED = (
    "nginx remembers whether files exist (open_file_cache), so it sees those that Bascule writes "
    "for it late. Set 'open_file_cache off;' in the servers that pass requests to the pools."
)


class Worker(NamedTuple):
    """A worker process; ``began`` is in epoch seconds."""

    pid: int
    began: float
    ending: bool


class Socket(NamedTuple):
    """A row of /proc/net/tcp; ``unread`` is the size of its receive queue."""

    local: str
    remote: str
    state: str
    unread: int
    inode: str


class Nginx:
    """One nginx and the directory that Bascule writes in.

    :ivar name: what the names of our variables begin with: the directory's own name
    :ivar told: what a reload has come to that a person should know
    """

    def __init__(
        self,
        directory: str,
        command: str,
        pid_path: str,
        closing_seconds: float,
        wait_seconds: float,
    ) -> None:
        self.directory = Path(directory)
        self.name = re.sub(r"\W", "_", self.directory.name)
        self.place = directory
        self._pid_path = pid_path
        self._closing_seconds = closing_seconds
        self._wait_seconds = max(wait_seconds, closing_seconds)
        self.told: list[str] = []
        try:
            self._command = shlex.split(command)
        except ValueError as error:
            raise UsageError(f"deploy_nginx_command is {command!r}: {error}.") from error
        self._configuration: list[str] | None = None

    @property
    def closing(self) -> Path:
        """The file that lets clients' connections end with their next answer."""
        return self.directory / "closing"

    def read(self, file: str) -> str:
        """Return the text of a file in the directory.

        :raises TrafficError: it cannot be read
        """
        try:
            return (self.directory / file).read_text(encoding="utf-8")
        except OSError as error:
            raise TrafficError(
                f"The file {self.directory / file} cannot be read: {error.strerror}. Check "
                "deploy_nginx_directory and deploy_traffic_pools, and that the task runs on the "
                "proxy's host; docs/load-balancers.md shows the files."
            ) from error

    def change(self, file: str, edit: Callable[[str], str]) -> str:
        """Replace a file's text if nginx accepts the whole configuration with it; return the old.

        nginx does not know of it before the next ``reload``.

        :raises TrafficError: nginx refuses it, in its own words; the file is as it was
        """
        path = str(self.directory / file)
        with locked(str(self.directory), LOCK_SECONDS):
            before = self.read(file)
            after = edit(before)
            if after == before:
                return before
            replace_file(path, after, "file")
            refused = self._test()
            if refused:
                replace_file(path, before, "file")
                raise TrafficError(
                    f"nginx refuses its configuration with the new {path}, which was put back as "
                    f"it was: {refused}"
                )
        return before

    def reload(self, file: str) -> None:
        """Let nginx read its files, unless another's reload has done so since ``file`` was written.

        :raises TrafficError: nginx does not run, or may not be told
        """
        with self._reloading():
            if self.taken_up(file):
                self._end_closing()
                return
            loss_free = self.configured(self._closing_pattern)
            try:
                if loss_free:
                    self._let_go()
                before = time.time()
                os.kill(self._master(), signal.SIGHUP)
                deadline = time.monotonic() + 10.0
                while not self._all_new(before) and time.monotonic() < deadline:
                    time.sleep(0.02)
            except PermissionError as error:
                raise TrafficError(
                    f"nginx may not be reloaded by this user: {error.strerror}. Set become."
                ) from error
            except ProcessLookupError as error:
                raise TrafficError(self._away()) from error
            finally:
                self._end_closing()

    def taken_up(self, file: str) -> bool:
        """Tell whether every worker that takes requests began after this file was written."""
        return self._all_new((self.directory / file).stat().st_mtime)

    def connections(self, places: set[tuple[str, int]]) -> int:
        """Return how many connections this host has to these places, (address, port).

        Once no new worker has a server, these are the old workers' open requests: they close their
        idle connections when they are told to end.
        """
        return sum(
            row.state == ESTABLISHED and _place(row.remote) in places for row in self._sockets()
        )

    def only(self) -> dict[str, tuple[int, int]]:
        """Return the upstreams that a file gives all requests to, with what tells a newer file."""
        found = {}
        with contextlib.suppress(OSError):
            for entry in os.scandir(str(self.directory)):
                if entry.name.startswith(ONLY):
                    with contextlib.suppress(OSError):
                        seen = entry.stat()
                        found[entry.name[len(ONLY) :]] = (seen.st_ino, seen.st_mtime_ns)
        return found

    def send_all(self, upstream: str) -> None:
        """Give all requests to one upstream, from the next on, where the configuration asks for it.

        A file of another upstream is renamed, so that there is none without one in between.

        :raises TrafficError: the directory cannot be written
        """
        wanted = self.directory / f"{ONLY}{upstream}"
        try:
            for other in self.only():
                if other != upstream:
                    (self.directory / f"{ONLY}{other}").replace(wanted)
            wanted.touch()
        except OSError as error:
            raise self._unwritable(wanted, error) from error

    def send_as_written(self, seen: dict[str, tuple[int, int]]) -> None:
        """Take those files away again that are still what was ``seen``: a newer order has its own.

        :raises TrafficError: one cannot be removed
        """
        now = self.only()
        for upstream, known in seen.items():
            if now.get(upstream) == known:
                path = self.directory / f"{ONLY}{upstream}"
                try:
                    path.unlink()
                except OSError as error:
                    raise self._unwritable(path, error) from error

    def asks_for_only(self, upstreams: list[str]) -> bool:
        """Tell whether the configuration asks for the file of each of these upstreams."""
        return all(
            self.configured(
                rf"-f\s+\S*/{ONLY}{re.escape(one)}\s*\)\s*\{{\s*"
                rf"set\s+\${self.name}_only\s+{re.escape(one)}\s*;"
            )
            for one in upstreams
        )

    def warnings(self) -> tuple[str, ...]:
        """Return what a person should know before nginx is reloaded."""
        found = []
        if not self.configured(rf"{self._closing_pattern}|\bkeepalive_min_timeout\b"):
            found.append(LOSSY.format(closing=self.closing))
        elif self.configured(self._closing_pattern):
            kept = keepalive_seconds(self._parts())
            if kept > self._wait_seconds:
                found.append(RESTING.format(kept=kept, wait=self._wait_seconds))
        if self.configured(r"\bopen_file_cache\s+(?!off\b)") and not self.configured(
            r"\bopen_file_cache\s+off\b"
        ):
            found.append(CACHED)
        with contextlib.suppress(OSError):
            since = time.time() - self.closing.stat().st_mtime
            if since > RELOAD_LOCK_SECONDS:
                found.append(
                    f"The file {self.closing} has been there for {since:.0f} s, so no client keeps "
                    "its connection: a reload was cut short. The next one removes it."
                )
        return tuple(found)

    def configured(self, pattern: str) -> bool:
        """Tell whether nginx's configuration, without what we have rendered, has this pattern."""
        return any(re.search(pattern, text) for text in self._parts())

    @property
    def _closing_pattern(self) -> str:
        return rf"-f\s+\S*{re.escape(self.closing.name)}\b"

    def _parts(self) -> list[str]:
        """Return the files of nginx's configuration, without comments and what we have rendered.

        :raises TrafficError: nginx refuses it as it is
        """
        if self._configuration is None:
            done = self._run("-T")
            if done.returncode:
                raise TrafficError(
                    f"nginx refuses its configuration as it is now: {_words(done.stderr)}. Mend "
                    "that first: nothing was changed."
                )
            # ``nginx -T`` writes a comment with the name before each file.
            parts = re.split(r"^# configuration file (.+):$", done.stdout, flags=re.M)
            ours = str(self.directory / "routing.conf")
            self._configuration = [
                re.sub(r"^\s*#.*$", "", text, flags=re.M)
                for file, text in zip(parts[1::2], parts[2::2])  # noqa: B905 (Python 3.8)
                if file != ours
            ]
        return self._configuration

    def _test(self) -> str:
        """Return why nginx refuses its configuration, or nothing."""
        done = self._run("-t")
        return _words(done.stderr) if done.returncode else ""

    def _run(self, option: str) -> subprocess.CompletedProcess[str]:
        try:
            # The command is the group's own setting.
            return subprocess.run(  # noqa: S603
                [*self._command, option],
                capture_output=True,
                stdin=subprocess.DEVNULL,
                text=True,
                timeout=TEST_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise TrafficError(
                f"{shlex.join(self._command)} cannot be run: {error}. Check deploy_nginx_command."
            ) from error

    def _master(self) -> int:
        try:
            return int(Path(self._pid_path).read_text(encoding="ascii"))
        except (OSError, ValueError) as error:
            raise TrafficError(self._away()) from error

    def _away(self) -> str:
        return (
            f"nginx does not run: {self._pid_path} names no process. Start it, or check "
            "deploy_nginx_pid_path and that the task runs on the proxy's host."
        )

    def _workers(self) -> list[Worker]:
        master = self._master()
        found = []
        booted = _boot_time()
        for entry in _children(master):
            with contextlib.suppress(OSError, IndexError, ValueError):
                stat = Path(f"/proc/{entry}/stat").read_text(encoding="utf-8", errors="replace")
                # proc(5): the name, in parentheses, may hold anything; then state and parent.
                fields = stat.rpartition(")")[2].split()
                if int(fields[1]) != master:
                    continue
                title = Path(f"/proc/{entry}/cmdline").read_bytes()
                if title.startswith(b"nginx: worker"):
                    began = booted + int(fields[19]) / os.sysconf("SC_CLK_TCK")
                    found.append(Worker(int(entry), began, b"shutting down" in title))
        if not found and not Path(f"/proc/{master}").exists():
            raise TrafficError(self._away())
        return found

    def _let_go(self) -> None:
        """Let the connections end that clients keep alive, as far as there is time for it.

        :raises TrafficError: the file cannot be written
        """
        ports = self._ports()
        self._write_closing()
        began = time.monotonic()
        try:
            # Who has begun to rest since was answered with 'Connection: close'.
            held = resting(ports)
            time.sleep(self._closing_seconds)
            while held and time.monotonic() - began < self._wait_seconds:
                held &= resting(ports)
                time.sleep(LOOK_SECONDS if held else 0.0)
        except OSError:
            # A kernel without sock_diag: whatever rests is waited for.
            held = set()
            time.sleep(max(0.0, self._wait_seconds - (time.monotonic() - began)))
        if held:
            self.told.append(
                f"{len(held)} connections of clients rested for longer than "
                f"{self._wait_seconds:g} s when nginx was reloaded, which has closed them. "
                "docs/load-balancers.md tells what that can cost."
            )
        self._wait_for_readers(ports)

    def _ports(self) -> set[int]:
        """Return the ports that nginx listens on."""
        mine = set()
        with contextlib.suppress(OSError):
            for entry in Path(f"/proc/{self._master()}/fd").iterdir():
                with contextlib.suppress(OSError):
                    mine.add(os.readlink(str(entry)))
        return {
            _place(row.local)[1]
            for row in self._sockets()
            if row.state == LISTEN and f"socket:[{row.inode}]" in mine
        }

    def _wait_for_readers(self, ports: set[int]) -> None:
        """Wait until no client's request lies unread: a worker that is told to end drops those."""
        deadline = time.monotonic() + READ_SECONDS
        while time.monotonic() < deadline:
            if not any(
                row.state == ESTABLISHED and row.unread and _place(row.local)[1] in ports
                for row in self._sockets()
            ):
                return
            time.sleep(0.02)

    def _sockets(self) -> list[Socket]:
        found = []
        for table in ("tcp", "tcp6"):
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{self._master()}/net/{table}").read_text(encoding="ascii")
                found += [_socket(row.split()) for row in text.splitlines()[1:]]
        return found

    def _all_new(self, since: float) -> bool:
        serving = [worker for worker in self._workers() if not worker.ending]
        return bool(serving) and all(worker.began > since - CLOCK_SLACK for worker in serving)

    def _end_closing(self) -> None:
        with contextlib.suppress(OSError):
            self.closing.unlink()

    def _write_closing(self) -> None:
        try:
            self.closing.touch()
        except OSError as error:
            raise self._unwritable(self.closing, error) from error

    def _unwritable(self, path: Path, error: OSError) -> TrafficError:
        return TrafficError(
            f"The file {path} cannot be written: {error.strerror}. The task's user needs write "
            f"permission on the directory {self.directory}, or become."
        )

    @contextlib.contextmanager
    def _reloading(self) -> Iterator[None]:
        """Hold the lock of who reloads: those who wait are often done by the one before them."""
        deadline = time.monotonic() + RELOAD_LOCK_SECONDS
        try:
            file: Any = open(self._pid_path, encoding="ascii")  # noqa: SIM115 (closed below)
        except OSError as error:
            raise TrafficError(self._away()) from error
        try:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() >= deadline:
                        raise TrafficError(
                            f"Another process has reloaded nginx for {RELOAD_LOCK_SECONDS:g} s. "
                            "Look for a hanging deployment on this host (fuser names it)."
                        ) from error
                    time.sleep(0.02)
            yield
        finally:
            file.close()


def _socket(row: list[str]) -> Socket:
    # sl local rem st tx_queue:rx_queue tr:when retrnsmt uid timeout inode …
    return Socket(row[1], row[2], row[3], int(row[4].partition(":")[2], 16), row[9])


def _children(parent: int) -> list[str]:
    """Return the ids of those who may be a process's children; its own list where there is one."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii").split()
    return [entry for entry in os.listdir("/proc") if entry.isdigit()]


def _words(stderr: str) -> str:
    """Return nginx's messages without the notices."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    grave = [line for line in lines if "[emerg]" in line or "[alert]" in line or "[crit]" in line]
    return "; ".join(grave or lines)


def _boot_time() -> float:
    """Return when the clock of process times began, in epoch seconds."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def _place(text: str) -> tuple[str, int]:
    """Return (address, port) of an entry of /proc/net/tcp: words of 32 bits in host order."""
    address, _colon, port = text.partition(":")
    raw = b"".join(
        int(address[at : at + 8], 16).to_bytes(4, "little") for at in range(0, len(address), 8)
    )
    found: Any = ipaddress.ip_address(raw)
    return str(getattr(found, "ipv4_mapped", None) or found), int(port, 16)
