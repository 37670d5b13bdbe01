"""Commits from GitHub, by a local stand-in of its API; and the way to CodeCommit."""

from __future__ import annotations

import datetime
import hashlib
import hmac
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import RevisionError
from ansible_collections.bascule.deploy.plugins.plugin_utils._revisions import resolve
from ansible_collections.bascule.deploy.plugins.plugin_utils._revisions._codecommit import (
    credentials_for,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._revisions._sources import (
    GitSource,
    parse,
)
from support.github import TOKEN, StandIn, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def github() -> Iterator[StandIn]:
    with serving(COMMIT) as server:
        yield server


@pytest.mark.parametrize("ref", [COMMIT, "v1.0"])
def test_a_commit_by_a_local_stand_in_of_the_archive_endpoint(
    github: StandIn, tmp_path: Path, ref: str
) -> None:
    found = resolve(
        f"github://shop/web@{ref}", cache=tmp_path / "cache", github=(github.url, TOKEN)
    )
    assert found.environment == {"BUNDLE_COMMIT": COMMIT}
    assert found.source == f"github://shop/web@{ref}"
    assert {entry["path"] for entry in found.manifest} == {"appspec.yml", "VERSION"}
    told = dict(github.asked)
    assert told[f"/repos/shop/web/tarball/{COMMIT}"] == f"Bearer {TOKEN}"
    assert told["/archive?signed=1"] is None
    before = len(github.asked)
    again = resolve(
        f"github://shop/web@{COMMIT}", cache=tmp_path / "cache", github=(github.url, TOKEN)
    )
    assert again.digest == found.digest
    assert len(github.asked) == before, "a commit that is in the cache is not fetched again"


def test_what_the_stand_in_refuses_is_told_without_the_token(
    github: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_TOKEN", raising=False)
    cases = {
        (f"github://shop/web@{COMMIT}", "wrong"): "404",
        (f"github://shop/web@{COMMIT}", ""): "deploy_github_token may read it",
        ("github://shop/web@v9", TOKEN): "no such commit, branch or tag",
    }
    for (source, token), said in cases.items():
        with pytest.raises(RevisionError, match=said) as told:
            resolve(source, cache=tmp_path / "cache", github=(github.url, token))
        assert TOKEN not in str(told.value)
        assert "wrong" not in str(told.value)


def test_the_token_of_the_environment_and_a_dead_address(
    github: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    assert resolve("github://shop/web@v1.0", cache=tmp_path / "cache", github=(github.url, ""))
    with pytest.raises(RevisionError, match="deploy_github_url"):
        resolve(
            f"github://shop/api@{COMMIT}", cache=tmp_path / "cache",
            github=("http://127.0.0.1:9", TOKEN),
        )  # fmt: skip


@pytest.mark.parametrize(
    "source",
    ["github://shop@v1", "github://shop/web", "github://a/b/c@v1", "github://shop/web@-x",
     "codecommit://shop", "codecommit://a/b/c@main"],
)  # fmt: skip
def test_addresses_that_are_none(source: str) -> None:
    with pytest.raises(RevisionError):
        parse(source, checksum=None, ref=None, base=Path())


def test_a_codecommit_repository_is_git_whose_password_is_signed_when_it_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    found = parse("codecommit://shop@main", checksum=None, ref=None, base=Path())
    assert isinstance(found, GitSource)
    assert found.url == "https://git-codecommit.eu-central-1.amazonaws.com/v1/repos/shop"
    assert (found.ref, found.shown) == ("main", "codecommit://shop@main")
    # The password holds for minutes: git gets it when it begins.
    assert (found.signed, found.authorization) == (True, "")
    elsewhere = parse("codecommit://us-east-1/shop@main", checksum=None, ref=None, base=Path())
    assert isinstance(elsewhere, GitSource)
    assert "git-codecommit.us-east-1." in elsewhere.url


def test_the_password_is_signature_version_4() -> None:
    class Keys:
        access_key, secret_key, token = "AKIDEXAMPLE", "wJalrXUtnFEMI", "session"

    now = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    host, path, region = (
        "git-codecommit.eu-central-1.amazonaws.com",
        "/v1/repos/shop",
        "eu-central-1",
    )
    user, password = credentials_for(host, path, region, Keys(), now)
    assert user == "AKIDEXAMPLE%session"

    # The same by hand, from AWS's description of the signature.
    scope = f"20260102/{region}/codecommit/aws4_request"
    canonical = hashlib.sha256(f"GIT\n{path}\n\nhost:{host}\n\nhost\n".encode()).hexdigest()
    text = f"AWS4-HMAC-SHA256\n20260102T030405\n{scope}\n{canonical}"
    key = b"AWS4wJalrXUtnFEMI"
    for part in ("20260102", region, "codecommit", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    assert password == f"20260102T030405Z{signature}"
