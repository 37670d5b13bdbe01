"""A small HTTP application for tests: ``python backend.py PORT VERSION``; run it as a program.

``/`` answers at once, ``/slow/SECONDS`` after that time, ``/held`` once somebody has asked for
``/release``, ``/status/NUMBER`` with that status and ``/health`` with 200. Every answer has the
version in ``X-Version`` and in the body; the body of ``/under-way`` is how many requests wait for
their answers. It speaks HTTP/1.1 with connections that are kept alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Held:
    """The requests that wait for their answers."""

    def __init__(self) -> None:
        self.count = 0
        self.released = asyncio.Event()

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1


async def answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, version: str, held: Held
) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            path = head.split(b" ", 2)[1].decode()
            if path.startswith("/slow/"):
                with held.one():
                    await asyncio.sleep(float(path.rpartition("/")[2]))
            elif path == "/held":
                with held.one():
                    await held.released.wait()
            elif path == "/release":
                held.released.set()
            status = b"200 OK"
            if path.startswith("/status/"):
                status = path.rpartition("/")[2].encode() + b" As Asked"
            body = (str(held.count) if path == "/under-way" else version).encode()
            writer.write(
                b"HTTP/1.1 %b\r\nContent-Type: text/plain\r\nX-Version: %b\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (status, body, len(body), body)
            )
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def serve(port: int, version: str) -> None:
    held = Held()
    server = await asyncio.start_server(
        lambda reader, writer: answer(reader, writer, version, held),
        "127.0.0.1", port, backlog=512,
    )  # fmt: skip
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2]))
