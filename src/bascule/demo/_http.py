"""As much of HTTP/1.1 as a client needs to know that an answer is whole (RFC 9112, section 6)."""

from __future__ import annotations

from typing import NamedTuple

LONGEST_VERSION = 64


class HttpError(ValueError):
    """What came is no answer."""


class Response(NamedTuple):
    """A whole answer; ``version`` is its header ``X-Version``, or a short body."""

    status: int
    version: str
    keep_alive: bool
    body: bytes


def parse_response(data: bytes | bytearray, *, closed: bool) -> Response | None:
    """Return the answer to a GET if it is there as a whole, None if more must come.

    :param closed: the server has closed the connection, nothing more will come
    :raises HttpError: no HTTP
    """
    start = 0
    while True:
        end = data.find(b"\r\n\r\n", start)
        if end < 0:
            if data[start : start + 5] != b"HTTP/"[: len(data) - start]:
                raise HttpError("no status line")
            return None
        lines = bytes(data[start:end]).decode("latin-1").split("\r\n")
        status = _status(lines[0])
        if status >= 200:
            break
        # 100 Continue and its kind come before the answer.
        start = end + 4
    headers = _headers(lines[1:])
    body = _body(bytes(data[end + 4 :]), status, headers, closed=closed)
    if body is None:
        return None
    content, framed = body
    connection = headers.get("connection", "").lower()
    keep = framed and "close" not in connection and not closed
    if lines[0].startswith("HTTP/1.0"):
        keep = keep and "keep-alive" in connection
    return Response(status, _version(headers, content), keep, content)


def _status(line: str) -> int:
    words = line.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
        raise HttpError(f"not a status line: {line[:80]!r}")
    return int(words[1])


def _headers(lines: list[str]) -> dict[str, str]:
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise HttpError(f"not a header: {line[:80]!r}")
        headers[name.strip().lower()] = value.strip()
    return headers


def _body(
    data: bytes, status: int, headers: dict[str, str], *, closed: bool
) -> tuple[bytes, bool] | None:
    """Return the body and whether its end was marked, or None if it is not whole yet."""
    if status in (204, 304):
        return b"", True
    if "chunked" in headers.get("transfer-encoding", "").lower():
        chunks = _chunks(data)
        return None if chunks is None else (chunks, True)
    if "content-length" in headers:
        if not headers["content-length"].isdigit():
            raise HttpError(f"not a length: {headers['content-length'][:80]!r}")
        length = int(headers["content-length"])
        return (data[:length], True) if len(data) >= length else None
    return (data, False) if closed else None


def _chunks(data: bytes) -> bytes | None:
    parts: list[bytes] = []
    at = 0
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            return None
        try:
            size = int(data[at:end].partition(b";")[0], 16)
        except ValueError as error:
            raise HttpError(f"not a chunk's size: {data[at:end][:80]!r}") from error
        if size == 0:
            # Trailers may stand between the last chunk and the empty line.
            done = data[end : end + 4] == b"\r\n\r\n" or data.find(b"\r\n\r\n", end) >= 0
            return b"".join(parts) if done else None
        at = end + 2
        if len(data) < at + size + 2:
            return None
        parts.append(data[at : at + size])
        at += size + 2


def _version(headers: dict[str, str], body: bytes) -> str:
    if "x-version" in headers:
        return headers["x-version"]
    text = body.strip()
    if 0 < len(text) <= LONGEST_VERSION:
        return text.decode("utf-8", "replace")
    return "unknown"
