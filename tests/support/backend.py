"""A small HTTP application for tests: ``python backend.py PORT VERSION``; run it as a program.

``/`` answers at once, ``/slow/SECONDS`` after that time, ``/status/NUMBER`` with that status and
``/health`` with 200. Every answer has the
version in ``X-Version`` and in the body. It speaks HTTP/1.1 with connections that are kept alive.
"""

from __future__ import annotations

import asyncio
import sys


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, version: str) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            path = head.split(b" ", 2)[1].decode()
            if path.startswith("/slow/"):
                await asyncio.sleep(float(path.rpartition("/")[2]))
            status = b"200 OK"
            if path.startswith("/status/"):
                status = path.rpartition("/")[2].encode() + b" As Asked"
            body = version.encode()
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
    server = await asyncio.start_server(
        lambda reader, writer: answer(reader, writer, version), "127.0.0.1", port, backlog=512
    )
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2]))
