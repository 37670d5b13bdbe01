#!/usr/bin/env python3
"""hello: a small web application that can be deployed. Python 3.8 and nothing else.

    server.py start | stop | check | validate | run

/ answers the version, /health says whether it feels well, /slow?seconds=2 takes its time.

It listens on $HELLO_LISTEN, or on what ``etc/hello/listen`` says (``ADDRESS:PORT``, default
``:8080``). To be seen failing, /health answers 500 where ``etc/hello/broken`` lists the version,
and everywhere if the release holds a file ``app/BROKEN``. Its process id is in
``var/run/hello/hello.pid``, its log in ``var/log/hello/hello.log``. All of these are below the
folder that holds ``opt/hello/server.py``: the sysroot, or ``/`` on a host of its own.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

PROGRAM = Path(__file__).resolve()
# It is installed as opt/hello/server.py, on a host of its own or below a sysroot.
ROOT = PROGRAM.parents[2]
VERSION = PROGRAM.with_name("VERSION").read_text().strip()
CONFIGURATION = ROOT / "etc/hello"
PID_FILE = ROOT / "var/run/hello/hello.pid"
LOG_FILE = ROOT / "var/log/hello/hello.log"
START_SECONDS = 20.0
STOP_SECONDS = 50.0


def listen_address() -> tuple[str, int]:
    """Read where to listen."""
    text = os.environ.get("HELLO_LISTEN", "")
    if not text:
        try:
            text = (CONFIGURATION / "listen").read_text().strip()
        except FileNotFoundError:
            text = ":8080"
    address, colon, port = text.rpartition(":")
    if not colon or not port.isdigit():
        sys.exit(
            f"hello cannot listen on {text!r}, wanted ADDRESS:PORT; see {CONFIGURATION}/listen"
        )
    return address, int(port)


def is_broken() -> bool:
    """Tell whether this release is one that fails, here or everywhere."""
    if PROGRAM.with_name("BROKEN").exists():
        return True
    try:
        return VERSION in (CONFIGURATION / "broken").read_text().split()
    except FileNotFoundError:
        return False


class Handler(BaseHTTPRequestHandler):
    """One connection, which stays open for more requests."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "hello/" + VERSION
    # One packet an answer; two would wait for each other (Nagle and delayed acknowledgement).
    wbufsize = -1
    disable_nagle_algorithm = True
    timeout = 75

    def do_GET(self) -> None:
        """Answer."""
        url = urlsplit(self.path)
        if url.path == "/":
            self.answer(200, f"hello {VERSION}\n")
        elif url.path == "/health":
            self.answer(500, "not well\n") if is_broken() else self.answer(200, "well\n")
        elif url.path == "/slow":
            try:
                seconds = float(parse_qs(url.query).get("seconds", ["1"])[0])
            except ValueError:
                self.answer(400, "seconds must be a number\n")
                return
            time.sleep(min(max(seconds, 0.0), 30.0))
            self.answer(200, f"hello {VERSION} after {seconds:g} s\n")
        else:
            self.answer(404, "there is /, /health and /slow?seconds=N\n")

    def answer(self, status: int, text: str) -> None:
        """Send an answer; the last one says so when the server is stopping."""
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Version", VERSION)
        if self.server.stopping:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Keep quiet about what went well."""
        if str(code) >= "500":
            super().log_request(code, size)


class Server(ThreadingHTTPServer):
    """A thread a connection; stopping waits for the requests in flight and for nothing else."""

    daemon_threads = False
    request_queue_size = 256

    def __init__(self) -> None:
        """Open the port."""
        self.stopping = False
        self.connections: set[socket.socket] = set()
        super().__init__(listen_address(), Handler)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection, and know it while it is open."""
        self.connections.add(request)
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.connections.discard(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a connection that a client broke off in one line, anything else in full."""
        if isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            print(f"{client_address} went away", file=sys.stderr)
        else:
            super().handle_error(request, client_address)

    def stop(self) -> None:
        """Take no more requests: what was received is answered, idle connections are closed."""
        self.stopping = True
        self.shutdown()
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RD)


def run() -> None:
    """Serve until SIGTERM."""
    with Server() as server:
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.stop).start())
        partial = PID_FILE.with_suffix(".new")
        partial.write_text(f"{os.getpid()}\n")
        partial.replace(PID_FILE)
        server.serve_forever(poll_interval=0.05)
    # Closing the server has waited for its threads.
    if running() == os.getpid():
        PID_FILE.unlink()


def running() -> int:
    """Return the process id of the running server, or 0."""
    try:
        pid = int(PID_FILE.read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return 0
    # A process id may be somebody else's by now.
    return pid if str(PROGRAM).encode() in command else 0


def start() -> None:
    """Start a server in a session of its own, and return when its port is open."""
    if running():
        sys.exit(f"hello runs already, as process {running()}")
    PID_FILE.unlink(missing_ok=True)
    with LOG_FILE.open("ab") as log:
        before = log.tell()
        pid = os.fork()
        if pid == 0:
            # CodeDeploy waits until nobody has the hook's output open any more.
            os.setsid()
            with Path(os.devnull).open("rb") as nothing:
                os.dup2(nothing.fileno(), 0)
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            os.chdir("/")
            os.execv(sys.executable, [sys.executable, str(PROGRAM), "run"])  # noqa: S606 - ourselves
    deadline = time.monotonic() + START_SECONDS
    while running() != pid:
        if os.waitpid(pid, os.WNOHANG)[0] or time.monotonic() > deadline:
            with LOG_FILE.open("rb") as log:
                log.seek(before)
                sys.stderr.write(log.read()[-2000:].decode(errors="replace"))
            sys.exit(f"hello {VERSION} did not start; see {LOG_FILE}")
        time.sleep(0.02)
    print(f"hello {VERSION} runs as process {pid}")


def stop() -> None:
    """Ask the server to stop and wait until it has."""
    pid = running()
    if not pid:
        print("hello does not run")
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while Path(f"/proc/{pid}").exists() and running() == pid:
        if time.monotonic() > deadline:
            sys.exit(f"hello, process {pid}, did not stop within {STOP_SECONDS:.0f} s")
        time.sleep(0.02)
    print(f"hello, process {pid}, has stopped")


def check() -> None:
    """Say where this release will listen."""
    address, port = listen_address()
    print(f"hello {VERSION} will listen on {address}:{port}")


def validate() -> None:
    """Ask the running server for its version."""
    address, port = listen_address()
    connection = http.client.HTTPConnection(address or "127.0.0.1", port, timeout=10)
    connection.request("GET", "/")
    seen = connection.getresponse().getheader("X-Version")
    connection.close()
    if seen != VERSION:
        sys.exit(f"port {port} answers as version {seen}, wanted {VERSION}")
    print(f"hello {VERSION} answers on port {port}")


if __name__ == "__main__":
    commands = {"run": run, "start": start, "stop": stop, "check": check, "validate": validate}
    if len(sys.argv) != 2 or sys.argv[1] not in commands:
        sys.exit(f"usage: {sys.argv[0]} {'|'.join(commands)}")
    commands[sys.argv[1]]()
