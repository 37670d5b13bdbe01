"""Health gates against real servers and commands."""

from __future__ import annotations

import http.server
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import GateError, UsageError
from ansible_collections.bascule.deploy.plugins.module_utils._host import _gates
from support.host_program import Host

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Server(http.server.ThreadingHTTPServer):
    """Answers with the next status of a list, at the end always with its last one."""

    statuses: list[int]
    asked = 0
    daemon_threads = True


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        status = server.statuses[min(server.asked, len(server.statuses) - 1)]
        server.asked += 1
        self.send_response(status)
        self.end_headers()
        self.wfile.write(f"path {self.path}".encode())

    def log_message(self, *_args: Any) -> None:
        """Keep quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server(("127.0.0.1", 0), Handler)
    running.statuses = [200]
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


class Clock:
    """A clock that goes on only while somebody sleeps: no machine is too slow for it."""

    now = 0.0

    def read(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def gate(server: Server, **changes: Any) -> dict[str, Any]:
    """Make a quick gate on a server."""
    return {"type": "http", "port": server.server_port, "interval": 0.05, "deadline": 60, **changes}


def test_one_yes_is_enough_without_hold(server: Server) -> None:
    server.statuses = [503, 503, 200]
    seen = _gates.wait([gate(server, path="/health?x=1", body=r"path /health\?x=1$")])
    assert server.asked == 3
    assert "HTTP 200 (1 of 3 attempts passed)" in seen[0]


def test_a_flap_starts_the_time_to_hold_anew(server: Server) -> None:
    server.statuses = [200, 200, 200, 500, 200]
    clock = Clock()
    _gates.wait([gate(server, hold=0.4)], clock=clock.read, sleep=clock.sleep)
    # Three times yes, one no, and yes from 0.2 s on until it has held for 0.4 s.
    assert 0.59 < clock.now < 0.7
    assert server.asked > 10


def test_a_gate_that_keeps_flapping_says_so(server: Server) -> None:
    server.statuses = [200, 500] * 500
    clock = Clock()
    with pytest.raises(GateError) as caught:
        _gates.wait([gate(server, hold=0.3, deadline=1)], clock=clock.read, sleep=clock.sleep)
    text = str(caught.value)
    assert f"http http://127.0.0.1:{server.server_port}/" in text
    assert "for 0.3 s without a break within 1 s" in text
    assert "attempts passed, it fell back" in text
    assert "the last answer was HTTP" in text


@pytest.mark.parametrize(
    ("status", "changes", "words"),
    [
        (404, {}, "HTTP 404, wanted 200 to 399"),
        (204, {"status": [200, 201]}, "HTTP 204, wanted 200 or 201"),
        (200, {"body": "nothing like it"}, "without 'nothing like it'"),
    ],
)
def test_what_is_wrong_is_told(
    server: Server, status: int, changes: dict[str, Any], words: str
) -> None:
    server.statuses = [status]
    with pytest.raises(GateError, match=words):
        _gates.wait([gate(server, deadline=0.1, **changes)])


@pytest.mark.parametrize("status", [200, 204, 302, 399])
def test_a_redirection_is_an_answer_and_not_followed(server: Server, status: int) -> None:
    server.statuses = [status]
    assert _gates.once([gate(server)])
    assert server.asked == 1


def test_tcp_and_command(server: Server, tmp_path: Path) -> None:
    port = server.server_port
    assert _gates.once([{"type": "tcp", "port": port}])
    server.shutdown()
    server.socket.close()
    assert not _gates.once([{"type": "tcp", "port": port}])
    flag = tmp_path / "flag"
    command = {"type": "command", "command": f"echo looking; test -e {flag}", "interval": 0.05}
    with pytest.raises(GateError, match="exit 1, last line 'looking'"):
        _gates.wait([{**command, "deadline": 0.1}])
    flag.write_text("")
    assert _gates.once([command, {"type": "command", "command": ["test", "-e", str(flag)]}])
    slow = {"type": "command", "command": ["sleep", "9"], "timeout": 0.2, "deadline": 0.1}
    with pytest.raises(GateError, match="timeout"):
        _gates.wait([slow])
    assert not _gates.once([{"type": "command", "command": ["/no/such"]}])


def test_all_gates_must_hold_at_the_same_moment(server: Server, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    server.statuses = [200] * 3 + [500] * 3 + [200]

    def turn_yes_when_the_other_says_no() -> None:
        while server.asked < 5:
            time.sleep(0.005)
        flag.write_text("")

    thread = threading.Thread(target=turn_yes_when_the_other_says_no)
    thread.start()
    other = {"type": "command", "command": f"test -e {flag}", "interval": 0.05, "deadline": 60}
    _gates.wait([gate(server), other])
    thread.join()
    assert server.asked > 6


@pytest.mark.parametrize(
    "bad",
    [
        {"type": "ping"},
        {},
        {"type": "http"},
        {"type": "tcp"},
        {"type": "command"},
        {"type": "tcp", "port": 1, "hold": "x"},
        {"type": "tcp", "port": 1, "interval": -1},
    ],
)
def test_gates_that_cannot_be_asked(bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        _gates.wait([bad])


def test_gates_come_after_validate_service(server: Server, tmp_path: Path) -> None:
    host = Host(tmp_path)
    files = {"appspec.yml": "version: 0.0\nos: linux\n"}
    good = host.deploy(files, gates=[gate(server)])
    assert [event["event"] for event in good["events"]][-2:] == ["ValidateService", "HealthGate"]
    assert "HTTP 200" in good["events"][-1]["message"]
    server.statuses = [503]
    files["more"] = "x"
    bad = host.deploy(files, gates=[gate(server, deadline=0.2)])
    assert bad["failed"]
    assert bad["error"]["event"] == "HealthGate"
    assert bad["error"]["code"] == "HealthGateFailed"
    assert not host.run(host.request(files)[0])["current"]
