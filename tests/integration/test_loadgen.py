"""The load generator against servers that behave well and badly."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from support import proxies

from bascule.demo import loadgen

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1"


async def against(
    handler: Handler, *, rate: float, seconds: float, timeout: float, keep_alive: bool
) -> loadgen.Report:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await handler(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    report = await loadgen.generate(
        url, rate=rate, seconds=seconds, timeout=timeout, keep_alive=keep_alive
    )
    server.close()
    handlers = asyncio.all_tasks() - {asyncio.current_task()}
    if handlers:
        _done, pending = await asyncio.wait(handlers, timeout=60)
        assert not pending, "the load generator left connections open"
    return report


def answering(answer: Callable[[int], bytes], pause: Callable[[int], float]) -> Handler:
    """Return a handler that numbers the requests from 1; an empty answer closes the connection."""
    count = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        while True:
            await reader.readuntil(b"\r\n\r\n")
            count += 1
            number = count
            await asyncio.sleep(pause(number))
            if not answer(number):
                return
            writer.write(answer(number))

    return handle


def run(
    handler: Handler,
    *,
    rate: float = 100,
    seconds: float = 1,
    timeout: float = 60,
    keep_alive: bool = True,
) -> loadgen.Report:
    report = asyncio.run(
        against(handler, rate=rate, seconds=seconds, timeout=timeout, keep_alive=keep_alive)
    )
    assert report.sent == report.ok + report.failed
    return report


def test_each_request_has_a_connection_of_its_own_where_that_is_asked_for() -> None:
    report = run(answering(lambda _n: OK, lambda _n: 0), keep_alive=False)
    assert (report.sent, report.ok) == (100, 100)
    assert report.connections >= 100


def test_the_rate_is_kept_and_connections_are_used_again() -> None:
    report = run(answering(lambda _n: OK, lambda _n: 0), rate=200, seconds=3)
    assert (report.sent, report.ok) == (600, 600)
    assert report.seconds > 2.9
    # A machine that is busy answers later, so that more requests are on their way at once.
    assert loadgen.SPREAD <= report.connections < report.sent
    assert report.versions == {"1": 600}
    # An eighth of a core at this rate is ten times what it needs.
    assert report.cpu_seconds < 1.5


def test_answers_of_500_and_more_are_failures() -> None:
    bad = b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"
    report = run(answering(lambda n: bad if n % 4 == 0 else OK, lambda _n: 0))
    assert report.failures == {"status 503": 25}
    assert report.statuses == {"200": 75, "503": 25}
    assert report.ok == 75
    assert report.first_failures[0][1] == "status 503"


def test_a_connection_that_is_cut_is_a_failure_and_is_not_tried_again() -> None:
    report = run(answering(lambda n: b"" if n % 10 == 0 else OK, lambda _n: 0))
    assert report.failures == {"reset": 10}
    assert report.ok == 90


def test_half_an_answer_is_a_failure() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK[:-1])

    assert run(handle, rate=20).failures == {"reset": 20}


def test_a_connection_that_is_to_be_closed_is_not_used_again() -> None:
    closing = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\n1"
    report = run(answering(lambda _n: closing, lambda _n: 0))
    assert report.ok == 100
    assert report.connections >= 100


def test_a_stall_is_seen_by_every_request_that_was_due() -> None:
    """Closed-loop generators wait with the server and see one slow answer."""

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            begun.append(time.monotonic())
            await asyncio.sleep(max(0.0, begun[0] + 1.0 - time.monotonic()))
            writer.write(OK)

    begun: list[float] = []
    report = run(stall, rate=100, seconds=1.5)
    assert report.failed == 0
    slow = [value for value in report.latencies if value > 0.25]
    assert len(slow) > 50
    assert report.as_dict()["latency_ms"]["p50"] > 100


def test_an_answer_that_does_not_come_is_a_timeout() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        while True:
            await reader.readuntil(b"\r\n\r\n")
            asked += 1
            if asked == 5:
                # Until whoever asks gives up.
                await reader.read()
            writer.write(OK)

    asked = 0
    report = run(handle, rate=20, timeout=6)
    assert report.failures == {"timeout": 1}
    assert report.ok == 19


def test_nobody_listening_is_a_connect_error() -> None:
    report = asyncio.run(
        loadgen.generate(f"http://127.0.0.1:{proxies.free_port()}/", rate=50, seconds=0.4)
    )
    assert report.failures == {"connect error": 20}


@pytest.mark.parametrize("url", ["https://x/", "127.0.0.1:80", "http:///x"])
def test_other_urls_are_refused(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        loadgen.main([url, "--seconds", "1"])
    assert ended.value.code == 2
    assert "wanted is http://HOST" in capsys.readouterr().err


def test_percentiles_are_of_the_nearest_rank() -> None:
    assert loadgen.percentile([1.0, 2.0, 3.0, 4.0], 50) == 2.0
    assert loadgen.percentile([float(n) for n in range(1, 101)], 99) == 99.0
    assert loadgen.percentile([], 99) == 0.0


def test_sigterm_ends_the_program_with_its_report(tmp_path: Path) -> None:
    port = proxies.free_port()
    report = tmp_path / "load.json"
    with proxies.backend(port, "7.0"):
        process = subprocess.Popen(
            [sys.executable, "-m", "bascule.demo.loadgen", f"http://127.0.0.1:{port}/slow/0.3",
             "--rate", "50", "--json", str(report)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            proxies.wait_for_handler(process, signal.SIGTERM)
            proxies.wait_under_way(5, port)
            process.send_signal(signal.SIGTERM)
            output, _none = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0
    content = json.loads(report.read_text())
    # What was asked before is waited for.
    assert content["sent"] == content["ok"] >= 5
    assert content["versions"] == {"7.0": content["sent"]}
    assert f"{content['sent']} requests" in output
    assert list(tmp_path.iterdir()) == [report]
