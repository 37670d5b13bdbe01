"""Commits from CodeCommit, over TLS from a server that checks passwords as AWS does."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import RevisionError
from ansible_collections.bascule.deploy.plugins.module_utils._permissions import policy
from ansible_collections.bascule.deploy.plugins.plugin_utils._revisions import resolve
from support import codecommit
from support.bundles import files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY, SECRET = "AKIAEXAMPLE", "wJalrXUtnFEMI/K7MDENG"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[codecommit.Server]:
    """CodeCommit with the repository ``shop``, and the environment of whoever deploys from it."""
    root = tmp_path / "codecommit"
    root.mkdir()
    work = files(tmp_path / "work", {"VERSION": "1\n"})
    person = ["-c", "user.name=T", "-c", "user.email=t@example.com"]
    for arguments in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "First"],
                      ["clone", "-q", "--bare", ".", str(root / "shop")]):  # fmt: skip
        subprocess.run(["git", *person, *arguments], cwd=work, check=True)
    with codecommit.serving(root, {KEY: SECRET}) as running:
        given = {
            **running.environment,
            "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": codecommit.REGION, "AWS_DEFAULT_REGION": codecommit.REGION,
        }  # fmt: skip
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        yield running


def test_a_commit_is_fetched_with_a_signed_password(
    server: codecommit.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watched(tmp_path, monkeypatch)
    server.policy = policy({"deploy_revision": "codecommit://shop@main"})
    revision = resolve("codecommit://shop@main", cache=tmp_path / "cache")
    assert revision.description.startswith("First (")
    assert server.served == ["/v1/repos/shop/info/refs", "/v1/repos/shop/git-upload-pack",
                             "/v1/repos/shop/git-upload-pack"][: len(server.served)]  # fmt: skip
    assert len(server.served) >= 2
    same = resolve(f"codecommit://{codecommit.REGION}/shop@main", cache=tmp_path / "elsewhere")
    assert same.digest == revision.digest
    # With temporary credentials their token is part of the user's name.
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token/of+session==")
    server.tokens[KEY] = "token/of+session=="
    assert resolve("codecommit://shop@main", cache=tmp_path / "third").digest == revision.digest

    assert len(server.passwords) >= 6
    arguments = seen.read_text()
    assert "fetch" in arguments
    kept = [path for cache in ("cache", "elsewhere", "third")
            for path in (tmp_path / cache).rglob("*") if path.is_file()]  # fmt: skip
    assert kept
    for secret in (SECRET, *server.passwords):
        assert secret not in arguments, "whoever lists the processes sees it"
        assert not any(secret.encode() in path.read_bytes() for path in kept)


def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a git before git that writes down its arguments, as a process list shows them."""
    seen = tmp_path / "arguments"
    place = tmp_path / "bin"
    place.mkdir()
    wrapper = place / "git"
    wrapper.write_text(f'#!/bin/sh\necho "$@" >> {seen}\nexec {shutil.which("git")} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")
    return seen


@pytest.mark.parametrize("fault", ["secret", "key", "policy", "repository"])
def test_who_may_not_pull_is_told_what_is_wanted(
    server: codecommit.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    name = "shop"
    if fault == "secret":
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    elif fault == "key":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIANOBODY")
    elif fault == "policy":
        server.policy = policy({"deploy_revision": "codecommit://blog@main"})
    else:
        name = "absent"
    with pytest.raises(RevisionError) as caught:
        resolve(f"codecommit://{name}@main", cache=tmp_path / "cache")
    said = str(caught.value)
    if fault == "repository":
        assert "not found" in said
    else:
        assert said == (
            "CodeCommit refuses codecommit://shop@main (403). Either the AWS credentials are wrong "
            "or have expired, or codecommit:GitPull is not allowed on this repository; `bascule "
            "iam-policy` prints what a group needs."
        )
    for secret in (SECRET, *server.passwords):
        assert secret not in said
