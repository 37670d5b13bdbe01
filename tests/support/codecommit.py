"""CodeCommit's git servers on loopback: TLS under their own name, SigV4 passwords, real git.

Whoever uses it as ``https_proxy`` reaches ``git-codecommit.REGION.amazonaws.com`` here, and nothing
else. A password is checked as AWS does: ``TIME + "Z" + signature`` of ``GIT PATH``, for 15 minutes;
the signature is computed here with nothing but HMAC (Signature Version 4). A policy decides who may
pull what. Behind that is ``git http-backend``.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import hmac
import http.server
import os
import re
import ssl
import subprocess
import threading
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support.authorization import ACCOUNT, allows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REGION = "eu-central-1"
HOST = f"git-codecommit.{REGION}.amazonaws.com"
_HOST = "git-codecommit.{}.amazonaws.com"
REPOSITORY = re.compile(r"/v1/repos/([^/]+)(/.*)")
VALID = datetime.timedelta(minutes=15)


def signature(secret: str, moment: str, path: str, region: str = REGION) -> str:
    """Sign ``GIT path`` (Signature Version 4), with the header ``host`` alone and no payload."""
    day = moment[:8]
    scope = f"{day}/{region}/codecommit/aws4_request"
    canonical = f"GIT\n{path}\n\nhost:{_HOST.format(region)}\n\nhost\n"
    text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{secret}".encode()
    for part in (day, region, "codecommit", "aws4_request", text):
        key = hmac.new(key, part.encode(), "sha256").digest()
    return key.hex()


class Server(http.server.ThreadingHTTPServer):
    """A proxy that answers CONNECT to CodeCommit itself, and refuses all others."""

    daemon_threads = True

    def __init__(self, root: Path, keys: dict[str, str], region: str = REGION) -> None:
        self.root, self.keys, self.region = root, keys, region
        self.host = _HOST.format(region)
        self.tokens: dict[str, str] = {}
        self.policy: dict[str, Any] | None = None
        self.served: list[str] = []
        self.passwords: list[str] = []
        self.authority = root / "authority.pem"
        self.tls = _tls(root, self.authority, self.host)
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def environment(self) -> dict[str, str]:
        """What leads git here, and makes it believe the certificate."""
        return {
            "https_proxy": f"http://127.0.0.1:{self.server_address[1]}",
            "GIT_SSL_CAINFO": str(self.authority),
        }


class Handler(http.server.BaseHTTPRequestHandler):
    """CONNECT, and then requests to a repository in the tunnel."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_arguments: object) -> None:
        """Keep the test's output quiet."""

    def finish(self) -> None:
        super().finish()
        self.connection.close()

    def do_CONNECT(self) -> None:
        if self.path != f"{self.server.host}:443":
            self._answer(502, b"")
            return
        self.send_response(200)
        self.end_headers()
        self.connection = self.server.tls.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", buffering=0)  # type: ignore[assignment]

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        body = self._body()
        path, _mark, query = self.path.partition("?")
        found = REPOSITORY.fullmatch(path)
        if found is None:
            self._answer(404, b"")
            return
        given = self.headers.get("Authorization", "")
        if not given:
            self._answer(401, b"", {"WWW-Authenticate": 'Basic realm="CodeCommit"'})
            return
        name = found.group(1)
        resource = f"arn:aws:codecommit:{self.server.region}:{ACCOUNT}:{name}"
        allowed = self.server.policy is None or allows(
            self.server.policy, "codecommit:GitPull", resource
        )
        if not self._knows(given, f"/v1/repos/{name}") or not allowed:
            self._answer(403, b"")
            return
        self.server.served.append(path)
        self._backend(f"/{name}{found.group(2)}", query, body)

    def _knows(self, given: str, path: str) -> bool:
        user, _colon, password = base64.b64decode(given.split()[1]).decode().partition(":")
        self.server.passwords.append(password)
        key, _percent, token = user.partition("%")
        moment, _zulu, signed = password.partition("Z")
        secret = self.server.keys.get(key)
        if secret is None or token != self.server.tokens.get(key, ""):
            return False
        at = datetime.datetime.strptime(moment, "%Y%m%dT%H%M%S").replace(tzinfo=datetime.UTC)
        if abs(datetime.datetime.now(datetime.UTC) - at) > VALID:
            return False
        return hmac.compare_digest(signature(secret, moment, path, self.server.region), signed)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _backend(self, path: str, query: str, body: bytes) -> None:
        done = subprocess.run(
            ["git", "http-backend"],
            input=body,
            env={
                **os.environ,
                "GIT_PROJECT_ROOT": str(self.server.root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            },
            check=True,
            capture_output=True,
        )
        head, _blank, content = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self._answer(int(fields.pop("Status", "200 OK").split()[0]), content, fields)

    def _answer(self, status: int, content: bytes, fields: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(fields or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def _tls(folder: Path, authority: Path, host: str) -> ssl.SSLContext:
    """Make a certificate of CodeCommit's host, signed by itself, and write it to ``authority``."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    authority.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret = folder / "key.pem"
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority, secret)
    return context


@contextlib.contextmanager
def serving(root: Path, keys: dict[str, str], region: str = REGION) -> Iterator[Server]:
    """Serve the bare repositories under ``root`` as a region's until the block ends.

    :param keys: secrets by access key
    """
    with Server(root, keys, region) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
