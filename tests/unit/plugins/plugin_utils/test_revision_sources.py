# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the text of a source means, and what of it may be shown."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import RevisionError
from ansible_collections.bascule.deploy.plugins.plugin_utils._revisions._sources import (
    GitSource,
    PathSource,
    UrlSource,
    parse,
    safe_text,
)
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from pathlib import Path

SUM = "ab" * 32


@pytest.mark.parametrize(
    ("source", "ref", "url", "wanted", "shown"),
    [
        ("git+https://h/r.git#v1", None, "https://h/r.git", "v1", "git+https://h/r.git#v1"),
        ("git+https://h/r.git", None, "https://h/r.git", "HEAD", "git+https://h/r.git#HEAD"),
        ("git+https://h/r", "main", "https://h/r", "main", "git+https://h/r#main"),
        ("git+ssh://git@h:22/r#a/b", None, "ssh://git@h:22/r", "a/b", "git+ssh://h:22/r#a/b"),
        ("git+ssh://u:secret@h/r#x", None, "ssh://u@h/r", "x", "git+ssh://h/r#x"),
    ],
)
def test_git_sources(
    tmp_path: Path, source: str, ref: str | None, url: str, wanted: str, shown: str
) -> None:
    place = parse(source, checksum=None, ref=ref, base=tmp_path)
    assert isinstance(place, GitSource)
    assert (place.url, place.ref, place.shown) == (url, wanted, shown)


def test_credentials_leave_the_url_and_become_a_header(tmp_path: Path) -> None:
    source = f"https://me:p%40ss@h:8443/a.tgz?token=abc#sha256={SUM}"
    place = parse(source, checksum=None, ref=None, base=tmp_path)
    assert isinstance(place, UrlSource)
    assert place.url == "https://h:8443/a.tgz?token=abc"
    assert place.shown == "https://h:8443/a.tgz?…"
    assert base64.b64decode(place.authorization.split()[1]) == b"me:p@ss"
    assert place.sha256 == SUM


WRONG = {
    "": "is empty; wanted a folder",
    "ftp://host/key": "has the scheme 'ftp'; wanted a folder",
    "s3://bucket": "bucket or key is missing",
    "ssh://git@h/r.git": r"Write git\+ssh://h/r\.git",
    "git@host.example:shop/web.git": r"Write git\+ssh://git@host\.example/shop/web\.git",
    "https://me:secret@h/a.tgz": r"https://h/a\.tgz has no checksum",
    "https://me:secret@h/a.git": r"Write git\+https://h/a\.git#REF",
    "https://me:secret@h:port/a.tgz#sha256=" + SUM: "cannot be read",
    "https:///a.tgz#sha256=" + SUM: "names no host",
    "https://h/a.tgz#sha256=12": "wanted sha256: and 64 hexadecimal digits",
    "git+https://me:secret@h/r#--upload-pack=x": "cannot be used; wanted a branch",
    "git+https://me:secret@h/r#a b": "cannot be used; wanted a branch",
    "git+https://me:secret@h/r#a:b": "cannot be used; wanted a branch",
    "git+ssh://-oProxyCommand=x/r#main": "names no host",
}


@pytest.mark.parametrize(("source", "why"), WRONG.items())
def test_wrong_sources_are_explained_without_secrets(tmp_path: Path, source: str, why: str) -> None:
    with pytest.raises(RevisionError, match=why) as caught:
        parse(source, checksum=None, ref=None, base=tmp_path)
    assert "secret" not in str(caught.value)


def test_contradictions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RevisionError, match="two checksums that differ"):
        parse(f"https://h/a#sha256={SUM}", checksum="sha256:" + "0" * 64, ref=None, base=tmp_path)
    with pytest.raises(
        RevisionError, match="names the git ref 'v1', the variable for it says 'v2'"
    ):
        parse("git+https://h/r#v1", checksum=None, ref="v2", base=tmp_path)


def test_a_path_with_a_number_sign_is_a_path_where_it_exists(tmp_path: Path) -> None:
    (tmp_path / "c#").mkdir()
    assert parse("c#", checksum=None, ref=None, base=tmp_path) == PathSource(
        tmp_path / "c#", str(tmp_path / "c#")
    )
    (tmp_path / "plain").mkdir()
    with pytest.raises(RevisionError, match="is no git repository"):
        parse("plain#main", checksum=None, ref=None, base=tmp_path)


@given(
    st.sampled_from(["https", "git+https", "git+ssh", "http"]),
    st.text("abcXYZ0189!$%&'()*+,;=:@_.~-", min_size=1),
)
def test_user_and_password_are_never_shown(scheme: str, password: str) -> None:
    secret = f"Pw{password}Wp"
    assert "Pw" not in safe_text(f"{scheme}://user:{secret}@host.example:443/r.git?sig={secret}#v")
