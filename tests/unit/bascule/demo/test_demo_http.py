from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bascule.demo._http import HttpError, Response, parse_response

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Version: 2.0\r\n\r\nbody"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;note=x\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: 1\r\n\r\n"
)
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
CONTINUED = b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN
WHOLE = {
    PLAIN: Response(200, "2.0", keep_alive=True, body=b"body"),
    CHUNKED: Response(200, "abcde", keep_alive=True, body=b"abcde"),
    EMPTY: Response(204, "unknown", keep_alive=True, body=b""),
    CONTINUED: Response(200, "2.0", keep_alive=True, body=b"body"),
}


@pytest.mark.parametrize("data", WHOLE)
def test_a_whole_answer_is_read(data: bytes) -> None:
    assert parse_response(data, closed=False) == WHOLE[data]


@given(st.sampled_from(sorted(WHOLE)), st.data())
def test_a_part_of_an_answer_is_no_answer(data: bytes, draw: st.DataObject) -> None:
    part = data[: draw.draw(st.integers(0, len(data) - 1))]
    assert parse_response(part, closed=False) is None
    assert parse_response(part, closed=True) is None


@pytest.mark.parametrize(
    ("head", "keep"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: Close", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive", True),
    ],
)
def test_whether_the_connection_stays(head: bytes, keep: bool) -> None:
    response = parse_response(head + b"\r\n\r\n", closed=False)
    assert response is not None
    assert response.keep_alive is keep


def test_an_answer_may_end_with_its_connection() -> None:
    data = b"HTTP/1.1 503 Service Unavailable\r\n\r\nno healthy upstream"
    assert parse_response(data, closed=False) is None
    response = parse_response(data, closed=True)
    assert response == Response(503, "no healthy upstream", keep_alive=False, body=data[-19:])


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    ],
)
def test_what_is_no_http_is_refused(data: bytes) -> None:
    with pytest.raises(HttpError):
        parse_response(data, closed=False)


def test_a_long_body_is_not_taken_for_a_version() -> None:
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 65\r\n\r\n" + b"x" * 65
    response = parse_response(data, closed=False)
    assert response is not None
    assert response.version == "unknown"
