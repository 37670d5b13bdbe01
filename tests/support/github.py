"""A stand-in of GitHub's API and of the host that serves its archives, on loopback."""

from __future__ import annotations

import contextlib
import http.server
import io
import tarfile
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = "gh-token-0815"  # noqa: S105 - invented; the stand-in knows it
BUNDLE = {"appspec.yml": "version: 0.0\nos: linux\n", "VERSION": "7\n"}


def archive(commit: str, files: dict[str, str]) -> bytes:
    """A tarball as GitHub packs it: one top folder, named after owner, repository and commit."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as made:
        for name, text in files.items():
            info = tarfile.TarInfo(f"shop-web-{commit[:7]}/{name}")
            info.size = len(text.encode())
            made.addfile(info, io.BytesIO(text.encode()))
    return packed.getvalue()


class StandIn(http.server.ThreadingHTTPServer):
    """Knows one commit of the repository ``shop/web``, which is tagged ``v1.0``.

    ``asked`` has the path and the credentials of each request.
    """

    daemon_threads = True

    def __init__(self, commit: str, files: dict[str, str] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.commit, self.packed = commit, archive(commit, files or BUNDLE)
        self.asked: list[tuple[str, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server: Any = self.server
        token = self.headers.get("Authorization")
        server.asked.append((self.path, token))
        if self.path == "/archive?signed=1":
            return self._answer(200, server.packed)
        if token != f"Bearer {TOKEN}":
            return self._answer(404, b"{}")
        if self.path == "/repos/shop/web/commits/v1.0":
            return self._answer(200, server.commit.encode())
        if self.path == f"/repos/shop/web/tarball/{server.commit}":
            self.send_response(302)
            # Another host, as codeload.github.com is another than api.github.com.
            self.send_header("Location", f"http://localhost:{server.server_port}/archive?signed=1")
            self.end_headers()
            return None
        return self._answer(422 if "/commits/" in self.path else 404, b"{}")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_unused: object) -> None:
        pass


@contextlib.contextmanager
def serving(commit: str, files: dict[str, str] | None = None) -> Iterator[StandIn]:
    """Serve a commit with these files until the block ends."""
    server = StandIn(commit, files)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
