"""Commits from CodeCommit, over TLS from a server that checks passwords as AWS does."""

from __future__ import annotations

import datetime
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import RevisionError
from ansible_collections.bascule.deploy.plugins.module_utils._permissions import policy
from ansible_collections.bascule.deploy.plugins.plugin_utils._revisions import (
    _codecommit,
    resolve,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._revisions._cache import Cache
from ansible_collections.bascule.deploy.plugins.plugin_utils._revisions._git import repository
from ansible_collections.bascule.deploy.plugins.plugin_utils._revisions._sources import (
    GitSource,
    parse,
)
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

    # The repository's own address is enough; where nobody signs it is told what is wanted.
    plain = f"git+https://{codecommit.HOST}/v1/repos/shop#main"
    assert policy({"deploy_revision": plain}) == {
        **server.policy,
        "Statement": [{
            **server.policy["Statement"][0],
            "Resource": [f"arn:aws:codecommit:{codecommit.REGION}:*:shop"],
        }],
    }  # fmt: skip
    assert resolve(plain, cache=tmp_path / "fourth").digest == revision.digest
    with monkeypatch.context() as nobody:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            nobody.delenv(name)
        nobody.setenv("AWS_CONFIG_FILE", os.devnull)
        nobody.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        nobody.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with pytest.raises(RevisionError, match="CodeCommit wants a password that AWS credentials"):
            resolve(plain, cache=tmp_path / "fifth")

    assert len(server.passwords) >= 8
    arguments = seen.read_text()
    assert "fetch" in arguments
    kept = [path for cache in ("cache", "elsewhere", "third")
            for path in (tmp_path / cache).rglob("*") if path.is_file()]  # fmt: skip
    assert kept
    for secret in (SECRET, *server.passwords):
        assert secret not in arguments, "whoever lists the processes sees it"
        assert not any(secret.encode() in path.read_bytes() for path in kept)


def test_a_password_is_signed_when_git_begins(
    server: codecommit.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A revision that was named long before it is fetched: the first password is worth nothing."""
    source = parse("codecommit://shop@main", checksum=None, ref=None, base=tmp_path)
    assert isinstance(source, GitSource)
    cache = Cache(tmp_path / "cache")
    cache.prepare()
    real, offset = _codecommit.credentials_for, [datetime.timedelta(hours=-1)]

    def at(host: str, path: str, region: str, keys: Any, now: Any) -> tuple[str, str]:
        return real(host, path, region, keys, now + offset[0])

    monkeypatch.setattr(_codecommit, "credentials_for", at)
    refusal = pytest.raises(RevisionError, match="credentials are wrong or have expired")
    with refusal, repository(cache, source, 30.0):
        pass
    offset[0] = datetime.timedelta()
    with repository(cache, source, 30.0) as (_git, commit):
        assert len(commit) == 40
    # A password is of a second: who signs twice may have two.
    assert len(set(server.passwords)) >= 2


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
