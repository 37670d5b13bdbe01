"""Archives come over http(s) from real servers, verified, or not at all."""

from __future__ import annotations

import base64
import datetime
import hashlib
import http.server
import io
import socket
import ssl
import tarfile
import threading
import time
from typing import TYPE_CHECKING

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import RevisionError
from ansible_collections.bascule.deploy.plugins.plugin_utils._revisions import _http, resolve
from support.twopools import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

APPSPEC = b"version: 0.0\nos: linux\n"


def bundle() -> bytes:
    """Make a small bundle."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        info = tarfile.TarInfo("appspec.yml")
        info.size = len(APPSPEC)
        archive.addfile(info, io.BytesIO(APPSPEC))
    return packed.getvalue()


BUNDLE = bundle()
SUM = hashlib.sha256(BUNDLE).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Answers by path; ``served`` lists path and credentials of every request."""

    daemon_threads = True

    def __init__(self) -> None:
        self.served: list[tuple[str, str | None]] = []
        self.busy = 0
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    """The answers, good and bad."""

    server: Server

    def log_message(self, *_arguments: object) -> None:
        """Keep the test's output quiet."""

    def do_GET(self) -> None:
        """Answer."""
        path = self.path.partition("?")[0]
        self.server.served.append((self.path, self.headers.get("Authorization")))
        if path == "/silent.tgz":
            time.sleep(3)
        elif path == "/moved.tgz":
            self._answer(
                302, b"", {"Location": f"http://localhost:{self.server.server_port}/a.tgz"}
            )
        elif path == "/file.tgz":
            self._answer(302, b"", {"Location": "file:///etc/passwd"})
        elif path == "/cut.tgz":
            self._answer(200, BUNDLE[:40], {"Content-Length": str(len(BUNDLE))})
        elif path == "/busy.tgz" and self.server.busy > 0:
            self.server.busy -= 1
            self._answer(503, b"busy", {})
        elif path in ("/a.tgz", "/busy.tgz"):
            self._answer(200, BUNDLE, {})
        elif path == "/page.tgz":
            self._answer(200, b"<html>log in</html>", {})
        else:
            self._answer(403 if path == "/private.tgz" else 404, b"", {})

    def _answer(self, status: int, body: bytes, fields: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **fields}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serve on loopback, without a proxy, and retry without long pauses."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(_http, "PAUSES", (0.01, 0.01))
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_a_verified_archive_is_fetched_once(server: Server, tmp_path: Path) -> None:
    source = f"{server.url}/a.tgz#sha256={SUM}"
    revision = resolve(source, cache=tmp_path)
    assert (revision.bundle_sha256, revision.bundle_type) == (SUM, "tgz")
    assert (revision.source, revision.description) == (f"{server.url}/a.tgz", "a.tgz")
    assert resolve(f"{server.url}/a.tgz", checksum=f"sha256:{SUM}", cache=tmp_path) == revision
    assert len(server.served) == 1


def test_credentials_go_to_the_server_and_nowhere_else(server: Server, tmp_path: Path) -> None:
    host = server.url.removeprefix("http://")
    source = f"http://me:s3cr3t@{host}/moved.tgz?sign=s3cr3t#sha256={SUM}"
    revision = resolve(source, cache=tmp_path)
    header = "Basic " + base64.b64encode(b"me:s3cr3t").decode()
    assert server.served == [("/moved.tgz?sign=s3cr3t", header), ("/a.tgz", None)]
    assert revision.source == f"{server.url}/moved.tgz?…"
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"s3cr3t" not in kept


def test_another_content_is_refused_with_both_sums(server: Server, tmp_path: Path) -> None:
    with pytest.raises(RevisionError, match=rf"expected {'0' * 64}, got {SUM}"):
        resolve(f"{server.url}/a.tgz", checksum="sha256:" + "0" * 64, cache=tmp_path)
    page = hashlib.sha256(b"<html>log in</html>").hexdigest()
    with pytest.raises(
        RevisionError, match=r"page\.tgz cannot be used\. The bundle is no tgz, tar or zip"
    ):
        resolve(f"{server.url}/page.tgz", checksum=page, cache=tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".new-")]


def test_a_server_that_is_busy_for_a_moment_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.busy = 2
    assert resolve(f"{server.url}/busy.tgz", checksum=SUM, cache=tmp_path).bundle_sha256 == SUM
    server.busy = 3
    with pytest.raises(RevisionError, match=r"busy\.tgz answers 503 Service Unavailable"):
        resolve(f"{server.url}/busy.tgz", checksum="0" * 64, cache=tmp_path)


@pytest.mark.parametrize(
    ("path", "why", "requests"),
    [
        ("missing.tgz", r"answers 404 Not Found\. Check the URL", 1),
        ("private.tgz", r"answers 403 Forbidden\. Check the access rights", 1),
        ("file.tgz", r"answers 302 .* not allowed", 1),
        ("cut.tgz", r"cannot be fetched: .*40", 3),
        ("silent.tgz", r"sent nothing for 0\.5 s, 3 times", 3),
    ],
)
def test_what_goes_wrong_is_told(
    server: Server, tmp_path: Path, path: str, why: str, requests: int
) -> None:
    host = server.url.removeprefix("http://")
    with pytest.raises(RevisionError, match=why) as caught:
        resolve(
            f"http://me:s3cr3t@{host}/{path}", checksum=SUM, cache=tmp_path,
            silence=0.5 if path == "silent.tgz" else 60.0,
        )  # fmt: skip
    assert "s3cr3t" not in str(caught.value)
    # Who asked last may not wait until the server knows of it.
    until(lambda: len(server.served) >= requests)
    assert len(server.served) == requests


@pytest.mark.usefixtures("server")
def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}/a.tgz"
        with pytest.raises(RevisionError, match=r"a\.tgz cannot be fetched: .*refused"):
            resolve(closed, checksum=SUM, cache=tmp_path)
    with pytest.raises(RevisionError, match="names a host that is not known here"):
        resolve("http://nothing.invalid/a.tgz", checksum=SUM, cache=tmp_path)


def self_signed(folder: Path) -> Path:
    """Make a certificate that nobody trusts."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


def test_a_certificate_must_be_trusted(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    source = f"https://localhost:{server.server_port}/a.tgz#sha256={SUM}"
    with pytest.raises(RevisionError, match=r"TLS certificate of .* is refused: self.signed"):
        resolve(source, cache=tmp_path / "cache")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert resolve(source, cache=tmp_path / "cache").bundle_sha256 == SUM
    with pytest.raises(RevisionError, match=r"redirects from https to http, which is refused"):
        resolve(source.replace("/a.tgz", "/moved.tgz"), cache=tmp_path / "other")
