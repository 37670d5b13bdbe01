"""The properties that are fuzzed, on found inputs and on a few new ones each time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fuzz import properties
from hypothesis import given
from hypothesis import strategies as st

CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus"
PIECES = [
    piece.encode().decode("unicode_escape").encode("latin-1")
    for line in (CORPUS.parent / "appspec.dict").read_text().splitlines()
    for piece in [line.strip('"')]
]


@pytest.mark.parametrize("path", sorted((CORPUS / "appspec").iterdir()), ids=lambda path: path.name)
def test_texts_that_were_found(path: Path) -> None:
    properties.appspec(path.read_bytes())


@pytest.mark.parametrize("path", sorted((CORPUS / "archive").iterdir()), ids=lambda path: path.name)
def test_archives_that_were_found(path: Path, tmp_path: Path) -> None:
    properties.archive(path.read_bytes(), tmp_path / "home")
    properties.revision(path.read_bytes(), tmp_path / "home")


@given(st.lists(st.sampled_from([*PIECES, b"\n", b"\n  ", b": ", b"- ", b"'"]), max_size=30))
def test_texts_of_pieces(pieces: list[bytes]) -> None:
    properties.appspec(b"version: 0.0\nos: linux\n" + b"".join(pieces))


@given(st.binary(max_size=200), st.integers(0, 4))
def test_archives_of_any_bytes(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, kind: int
) -> None:
    home = tmp_path_factory.getbasetemp() / f"home-{os.getpid()}"
    properties.archive(bytes([kind]) + data, home)
    properties.revision(bytes([kind]) + data, home)


def test_an_archive_that_climbs_out_would_be_seen(tmp_path: Path) -> None:
    home = tmp_path / "home"
    properties.archive(b"", home)
    (home / "around" / "escaped").touch()
    with pytest.raises(AssertionError, match="written outside"):
        properties._nothing_outside(home, home / "around")


@pytest.mark.parametrize("where", ["../escaped", "in/../../escaped", "/{home}/escaped"])
def test_a_write_anywhere_else_would_be_seen(tmp_path: Path, where: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    path = where.format(home=str(tmp_path).lstrip("/"))
    with pytest.raises(AssertionError, match="written outside"), properties.WATCH.inside(home):
        (home / path).mkdir(parents=True)
