"""Access control entries and SELinux ranges."""

from __future__ import annotations

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._host import _acl


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("u:bob:rw", "user:bob:rw-"),
        ("user:bob:6", "user:bob:rw-"),
        ("bob:r", "user:bob:r--"),
        ("g:ops:rwx", "group:ops:rwx"),
        ("m::5", "mask::r-x"),
        ("m:5", "mask::r-x"),
        ("mask:rw-", "mask::rw-"),
        ("d:u:bob:0", "default:user:bob:---"),
        ("default:g::rx", "default:group::r-x"),
        ("d:o:4", "default:other::r--"),
        ("d:bob:x", "default:user:bob:--x"),
        # Only m and o are kinds without a third part, and no right is no right.
        ("g:7", "user:g:rwx"),
        ("d:7", "user:d:rwx"),
        ("u:bob:", "user:bob:---"),
    ],
)
def test_entries(text: str, written: str) -> None:
    assert _acl.parse_entry(text).text() == written


@pytest.mark.parametrize(
    "text",
    [
        "rw",
        "u:bob:8",
        "u:bob:q",
        "u::rw",
        "o:4",
        "m:bob:7",
        "d:o:bob:7",
        "x:bob:7",
        "u:bob:rw:x",
        "a:u:bob:rw",
        "d:u:bob:rw:x",
        ":bob:7",
    ],
)
def test_entries_that_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        _acl.parse_entry(text)


def test_base_entries_come_from_each_paths_own_mode() -> None:
    entries = [_acl.parse_entry("u:bob:rw"), _acl.parse_entry("d:g:ops:rx")]

    def full(mode: int) -> list[str]:
        return [entry.text() for entry in _acl.full_set(entries, mode)]

    assert full(0o754) == [
        "user:bob:rw-",
        "default:group:ops:r-x",
        "user::rwx",
        "group::r-x",
        "other::r--",
        "mask::r-x",
        "default:user::rwx",
        "default:group::r-x",
        "default:other::r--",
        "default:mask::r-x",
    ]
    assert "group::---" in full(0o604)
    assert "group::r-x" in full(0o754)
    assert len(entries) == 2


def test_a_mask_that_is_given_stays() -> None:
    entries = [_acl.parse_entry("u:bob:rw"), _acl.parse_entry("m:7")]
    texts = [entry.text() for entry in _acl.full_set(entries, 0o640)]
    assert texts.count("mask::rwx") == 1
    assert not any(text.startswith("mask::r--") for text in texts)


def test_the_default_mask_is_the_groups_default_entry() -> None:
    entries = [_acl.parse_entry("d:u:bob:rwx"), _acl.parse_entry("d:g::rwx")]
    texts = [entry.text() for entry in _acl.full_set(entries, 0o640)]
    assert "default:mask::rwx" in texts
    assert texts.count("default:group::rwx") == 1
    texts = [entry.text() for entry in _acl.full_set(entries[:1], 0o640)]
    assert "default:mask::r--" in texts


@pytest.mark.parametrize("text", ["s0", "s0-s3", "s0:c1", "s0-s3:c0.c5,c9", "s15:c1023"])
def test_ranges(text: str) -> None:
    plain = _acl.check_range(text)
    assert _acl.check_range(plain) == plain


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("s0", "s0"),
        ("s00-s0", "s0"),
        ("s0-s3:c9,c0.c5", "s0-s3:c0.c5,c9"),
        ("s0:c3,c1,c2,c7", "s0:c1.c3,c7"),
        ("s0:,", "s0:"),
    ],
)
def test_the_plain_form_of_a_range(text: str, plain: str) -> None:
    assert _acl.check_range(text) == plain


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "s",
        "s0-",
        "s3-s0",
        "s0:",
        "s0:c",
        "s0:c1024",
        "s0:c5.c1",
        "s0:c1,c1",
        "s0:c0.c4,c3",
        "s0:c99999999999",
        "s0;",
        "s\u0661",
    ],
)
def test_ranges_that_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        _acl.check_range(text)
