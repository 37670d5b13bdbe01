"""Commits become revisions, from real repositories here and behind a real git server."""

from __future__ import annotations

import base64
import http.server
import os
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import RevisionError
from ansible_collections.bascule.deploy.plugins.plugin_utils._revisions import resolve
from support.resolving import digests_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

USER, PASSWORD = "deployer", "s3cr3t-Wort"


def git(directory: Path, *arguments: str) -> str:
    """Run git as somebody with a name, at a fixed time."""
    environment = {
        **os.environ,
        "GIT_CONFIG_GLOBAL": os.devnull,
        **{f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER")
           for what, value in (("NAME", "T"), ("EMAIL", "t@example.com"),
                               ("DATE", "2026-01-02T03:04:05Z"))},
    }  # fmt: skip
    done = subprocess.run(
        ["git", "-C", str(directory), *arguments],
        env=environment, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout.strip()


def commit(directory: Path, version: str) -> str:
    """Commit a version of a small application and return the commit's id."""
    app = directory / "app"
    app.mkdir(exist_ok=True)
    (directory / "appspec.yml").write_text("version: 0.0\nos: linux\n")
    (app / "run").write_text(f"#!/bin/sh\necho {version}\n")
    (app / "run").chmod(0o755)
    for path in (directory / "appspec.yml", app):
        path.chmod(0o755 if path.is_dir() else 0o644)
    git(directory, "add", "--all")
    git(directory, "commit", "--quiet", "--message", f"Release {version}\n\nWith a body.")
    return git(directory, "rev-parse", "HEAD")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Make a repository with two commits, a tag and a branch."""
    repository = tmp_path / "srv/shop"
    repository.mkdir(parents=True)
    git(repository, "init", "--quiet", "--initial-branch=main")
    commit(repository, "1.0")
    git(repository, "tag", "v1.0")
    commit(repository, "2.0")
    git(repository, "branch", "release/two")
    commit(repository, "3.0")
    return repository


class Server(http.server.ThreadingHTTPServer):
    """The git server that comes with git, behind a password; it counts the requests."""

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        self.root = root
        self.served: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(http.server.BaseHTTPRequestHandler):
    """One request to ``git http-backend`` by CGI."""

    server: Server

    def log_message(self, *_arguments: object) -> None:
        """Keep the test's output quiet."""

    def do_GET(self) -> None:
        """Serve discovery."""
        self._serve()

    def do_POST(self) -> None:
        """Serve a fetch."""
        self._serve()

    def _serve(self) -> None:
        wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.headers.get("Authorization") != wanted:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        path, _mark, query = self.path.partition("?")
        self.server.served.append(path)
        done = subprocess.run(
            ["git", "http-backend"],
            input=self.rfile.read(int(self.headers.get("Content-Length") or 0)),
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
        head, _blank, body = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send_response(int(fields.pop("Status", "200 OK").split()[0]))
        for name, value in {**fields, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server(work: Path) -> Iterator[Server]:
    """Serve the repository's folder on loopback."""
    with Server(work.parent) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def address(server: Server, ref: str = "", userinfo: str = f"{USER}:{PASSWORD}@") -> str:
    """Write the server's address as a revision."""
    return f"git+http://{userinfo}127.0.0.1:{server.server_port}/shop/.git{ref}"


def test_a_local_commit_is_the_same_revision_as_its_checkout(work: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    head = git(work, "rev-parse", "HEAD")
    wanted = resolve(str(work), cache=cache).digest
    for source in (f"git+file://{work}#main", f"{work}#HEAD", f"{work}/.git#{head[:9]}"):
        revision = resolve(source, cache=cache)
        assert revision.digest == wanted
        assert revision.environment == {"BUNDLE_COMMIT": head}
        assert revision.description == f"Release 3.0 ({head[:7]})"
    assert resolve("srv/shop", ref="v1.0", base=tmp_path, cache=cache).digest != wanted


def test_every_kind_of_ref_is_fetched(server: Server, work: Path, tmp_path: Path) -> None:
    local = {ref: resolve(f"{work}#{ref}", cache=tmp_path / "local").digest
             for ref in ("v1.0", "release/two", "main", "main~1")}  # fmt: skip
    assert len(set(local.values())) == 3
    for ref, digest in local.items():
        assert resolve(address(server, f"#{ref}"), cache=tmp_path / "cache").digest == digest
    two = git(work, "rev-parse", "release/two")
    for ref in (two, two[:8]):
        found = resolve(address(server, f"#{ref}"), cache=tmp_path / f"cache-{len(ref)}")
        assert found.digest == local["release/two"]
        assert found.environment == {"BUNDLE_COMMIT": two}


def test_a_branch_is_followed_and_a_known_commit_asks_nobody(
    server: Server, work: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    first = resolve(address(server, "#main"), cache=cache)
    new = commit(work, "4.0")
    second = resolve(address(server, "#main"), cache=cache)
    assert first.digest != second.digest
    assert second.environment == {"BUNDLE_COMMIT": new}
    asked = len(server.served)
    again = resolve(address(server, f"#{new}"), cache=cache)
    assert again.digest == second.digest
    assert len(server.served) == asked


def test_only_what_is_needed_is_fetched(server: Server, work: Path, tmp_path: Path) -> None:
    resolve(address(server, "#main"), cache=tmp_path / "cache")
    (mirror,) = (tmp_path / "cache/git").glob("*.git")
    known = git(mirror, "rev-list", "--all", "--count")
    assert known == "1"
    assert git(work, "rev-list", "--count", "main") == "3"


def test_credentials_are_nowhere_to_be_found(server: Server, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    revision = resolve(address(server, "#v1.0"), cache=cache)
    assert revision.source == address(server, "#v1.0", userinfo="")
    for path in cache.rglob("*"):
        if path.is_file():
            assert PASSWORD.encode() not in path.read_bytes(), path
    with pytest.raises(RevisionError) as caught:
        resolve(address(server, "#nothing"), cache=cache)
    assert PASSWORD not in str(caught.value)
    assert USER not in str(caught.value)


def test_an_unknown_ref_names_the_near_ones(server: Server, work: Path, tmp_path: Path) -> None:
    for source in (address(server), str(work)):
        with pytest.raises(
            RevisionError, match=r"no branch, tag or commit 'v1\.1'; did you mean v1"
        ):
            resolve(f"{source}#v1.1", cache=tmp_path / "cache")


@pytest.mark.parametrize("userinfo", ["", "deployer:wrong@"])
def test_refused_access_is_said_at_once(server: Server, tmp_path: Path, userinfo: str) -> None:
    with pytest.raises(RevisionError, match=r"git cannot get git\+http://127.*Authentication failed"
                       r"|could not read Username"):  # fmt: skip
        resolve(address(server, "#main", userinfo), cache=tmp_path / "cache")


def test_a_server_that_is_not_there_is_said(server: Server, tmp_path: Path) -> None:
    port = server.server_port
    with pytest.raises(RevisionError, match=r"git cannot get .*#main: fatal: .*not found"):
        resolve(address(server, "#main").replace("/shop/", "/shoe/"), cache=tmp_path / "cache")
    server.server_close()
    with pytest.raises(
        RevisionError, match=rf"cannot get git\+http://127.0.0.1:{port}/.*: .*onnect"
    ):
        resolve(address(server, "#main"), cache=tmp_path / "cache")


def test_a_subdirectory_of_a_commit(work: Path, server: Server, tmp_path: Path) -> None:
    service = work / "services/web"
    service.mkdir(parents=True)
    for path in (service.parent, service):
        path.chmod(0o755)
    (service / "appspec.yml").write_text("version: 0.0\nos: linux\n")
    (service / "appspec.yml").chmod(0o644)
    git(work, "add", "--all")
    git(work, "commit", "--quiet", "--message", "A service")
    wanted = resolve(str(service), cache=tmp_path / "cache").digest
    for source in (address(server, "#main"), f"{work}#main"):
        found = resolve(source, subdirectory="services/web/", cache=tmp_path / "other")
        assert found.digest == wanted
        assert found.bundle_type == "tgz"


def test_many_processes_fetch_the_same_commit_at_once(server: Server, tmp_path: Path) -> None:
    digests = digests_of(address(server, "#main"), tmp_path / "cache", rounds=2)
    assert len(set(digests)) == 1
