"""Unpacking: honest bundles come out as they went in, hostile ones leave nothing outside."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import ArchiveError
from ansible_collections.bascule.deploy.plugins.module_utils._host import _archive, _tree
from hypothesis import given, settings
from hypothesis import strategies as st
from support.host_program import pack

LIMIT = 10_000_000


def unpack(folder: Path, data: bytes, limit: int = LIMIT) -> tuple[Path, list[str]]:
    """Unpack an archive in a folder; return where, and the warnings."""
    path = folder / "bundle"
    path.write_bytes(data)
    top = folder / "archive"
    top.mkdir()
    return top, _archive.unpack(str(path), str(top), limit=limit)


def tar(*members: tuple[str, bytes, str, bytes]) -> bytes:
    """Make a tar of ``(name, type, link name, content)``."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind, link, content in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            member.linkname = link
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


REG, DIR, SYM, LNK = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


@pytest.mark.parametrize("kind", ["tgz", "tar", "zip"])
def test_files_modes_and_links_come_out_as_they_went_in(tmp_path: Path, kind: str) -> None:
    files = {
        "appspec.yml": "x",
        "bin/run": ("#!/bin/sh", 0o4755),
        "bin/link": Path("run"),
        "bin/dangling": Path("no/where"),
        "näme with 'quotes'\n": "y",
        "empty": "",
    }
    top, warnings = unpack(tmp_path, pack(files, kind))
    assert warnings == []
    assert (top / "bin/run").read_text() == "#!/bin/sh"
    # As with unzip and tar: only a tar brings more than rwx.
    assert stat.S_IMODE((top / "bin/run").stat().st_mode) == (0o755 if kind == "zip" else 0o4755)
    assert str((top / "bin/link").readlink()) == "run"
    assert str((top / "bin/dangling").readlink()) == "no/where"
    assert (top / "näme with 'quotes'\n").read_text() == "y"
    assert (top / "empty").read_bytes() == b""


def test_times_and_folder_modes_are_kept(tmp_path: Path) -> None:
    top, _warnings = unpack(
        tmp_path, pack({"d": (None, 0o750), "d/f": "x", "./e": (None, 0o500), "e/g": "y"})
    )
    assert stat.S_IMODE((top / "d").stat().st_mode) == 0o750
    assert stat.S_IMODE((top / "e").stat().st_mode) == 0o500
    assert (top / "d/f").stat().st_mtime == 1_700_000_000
    (top / "e").chmod(0o700)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([("/etc/x", REG, "", b"x")], "absolute"),
        ([("../x", REG, "", b"x")], "leaves it by '..'"),
        ([("a/../../x", REG, "", b"x")], "leaves it by '..'"),
        ([("a", SYM, "/etc", b""), ("a/x", REG, "", b"x")], "made a link before"),
        ([("a", SYM, "..", b""), ("a/b/x", REG, "", b"x")], "made a link before"),
        ([("a", REG, "", b"1"), ("a/x", REG, "", b"x")], "made a file before"),
        ([("a", SYM, "/etc/passwd", b""), ("a", REG, "", b"x")], "twice"),
        ([("a", DIR, "", b""), ("a", SYM, "/", b"")], "twice"),
        ([("a", REG, "", b"x"), ("a", DIR, "", b"")], "twice"),
        ([("a", LNK, "/etc/passwd", b"")], "absolute"),
        ([("a", LNK, "../x", b"")], "'..'"),
        ([("a", LNK, "b", b"")], "no file that it holds"),
        ([("b", SYM, "/etc/passwd", b""), ("a", LNK, "b", b"")], "no file that it holds"),
        ([("a", SYM, "", b"")], "no link can have"),
        ([("a", tarfile.CHRTYPE, "", b"")], "special file"),
        ([("a", tarfile.BLKTYPE, "", b"")], "special file"),
        ([("a", tarfile.FIFOTYPE, "", b"")], "special file"),
        ([("/".join(["d"] * 300), REG, "", b"")], "no file can have"),
        ([("n" * 256, REG, "", b"")], "no file can have"),
        ([("./", REG, "", b"x")], "without a name"),
    ],
)
def test_hostile_tars(
    tmp_path: Path, members: list[tuple[str, bytes, str, bytes]], words: str
) -> None:
    with pytest.raises(ArchiveError, match=words):
        unpack(tmp_path, tar(*members))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "bundle"]


def test_a_file_that_comes_twice_is_the_last_one_and_warned_of(tmp_path: Path) -> None:
    top, warnings = unpack(
        tmp_path,
        tar(
            ("a", REG, "", b"1"),
            ("b", LNK, "a", b""),
            ("a", REG, "", b"2"),
            ("d", DIR, "", b""),
            ("d", DIR, "", b""),
        ),
    )
    assert ((top / "a").read_text(), (top / "b").read_text()) == ("2", "1")
    assert len(warnings) == 1
    assert "'a' twice" in warnings[0]


def test_hard_links_inside_are_hard_links(tmp_path: Path) -> None:
    top, _warnings = unpack(
        tmp_path, tar(("d/a", REG, "", b"1"), ("e/b", LNK, "d/a", b""), ("d/a", LNK, "d/a", b""))
    )
    assert (top / "e/b").stat().st_ino == (top / "d/a").stat().st_ino


def test_a_bomb_is_stopped_at_the_limit(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="more than the 1000000 bytes"):
        unpack(tmp_path, pack({"zeros": bytes(5_000_000)}), limit=1_000_000)
    assert (tmp_path / "archive/zeros").stat().st_size <= 1_000_000


def test_a_header_that_asks_for_much_memory_is_refused(tmp_path: Path) -> None:
    member = tarfile.TarInfo("x")
    member.type = tarfile.GNUTYPE_LONGNAME
    member.size = 2**33
    data = gzip.compress(member.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    with pytest.raises(ArchiveError, match="no honest archive"):
        unpack(tmp_path, data)


def test_too_many_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_archive, "MAX_ENTRIES", 3)
    with pytest.raises(ArchiveError, match="more than 3 entries"):
        unpack(tmp_path, pack({str(number): "" for number in range(4)}))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"\x1f\x8b" + b"x" * 100,
        b"PK\x03\x04" + b"x" * 100,
        pack({"a": "x" * 5000})[:-40],
        pack({"a": "x" * 5000}, "tar")[:1000],
        pack({"a": "x" * 500, "b": "y"}, "tar").replace(b"b\0\0\0\0", b"b\0c\0\0", 1),
        pack({"a": "x" * 5000}, "zip")[:-10],
        pack({"a": "x" * 5000}, "zip").replace(b"xxxx", b"yyyy", 1),
    ],
)
def test_damaged_archives(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ArchiveError):
        unpack(tmp_path, data)


def test_hostile_zips(tmp_path: Path) -> None:
    for number, (name, mode, words) in enumerate(
        [
            ("/abs", 0o100644, "absolute"),
            ("../x", 0o100644, "leaves it by '..'"),
            ("a", 0o010644, "special file"),
            ("a", 0o120777, "no link can have"),
        ]
    ):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            info = zipfile.ZipInfo(name)
            info.create_system = 3
            info.external_attr = mode << 16
            archive.writestr(info, "")
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(ArchiveError, match=words):
            unpack(folder, buffer.getvalue())


# What unzip 6.0 makes of system (0 MS-DOS, 11 NTFS) and attributes: Unix modes beside MS-DOS ones
# count where both say the same of the owner.
@pytest.mark.parametrize(
    ("name", "system", "attributes", "mode"),
    [
        ("a", 0, 0x20, 0o644),
        ("a", 0, 0x21, 0o444),
        ("a", 0, 0o600 << 16 | 0x20, 0o600),
        ("a", 0, 0o640 << 16 | 0x20, 0o640),
        ("a", 0, 0o444 << 16 | 0x21, 0o444),
        ("a", 0, 0o755 << 16 | 0x20, 0o644),
        ("a", 0, 0o120600 << 16 | 0x20, 0o600),
        ("a", 11, 0o600 << 16 | 0x20, 0o644),
        ("a", 11, 0x21, 0o444),
        ("d/", 0, 0x10, 0o755),
        ("d/", 0, 0o750 << 16 | 0x10, 0o750),
        ("d/", 0, 0x11, 0o555),
    ],
)
def test_modes_of_zips_from_elsewhere(
    tmp_path: Path, name: str, system: int, attributes: int, mode: int
) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.create_system = system
        info.external_attr = attributes
        archive.writestr(info, "")
    top, _warnings = unpack(tmp_path, buffer.getvalue())
    path = top / name
    assert not path.is_symlink()
    assert path.stat().st_mode & 0o7777 == mode


def test_zips_of_windows(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo("dir\\file.txt")
        info.create_system = 0
        archive.writestr(info, "x")
    top, _warnings = unpack(tmp_path, buffer.getvalue())
    assert (top / "dir/file.txt").read_text() == "x"


@pytest.mark.parametrize(
    ("names", "stripped"),
    [
        (["top/appspec.yml", "top/a/b"], True),
        (["top/MyAppSpec.json"], True),
        (["top/a/appspec.yml"], False),
        (["top/appspec.yml", "other"], False),
        (["appspec.yml"], False),
    ],
)
def test_a_single_top_folder_with_an_appspec_is_a_wrapping(
    tmp_path: Path, names: list[str], stripped: bool
) -> None:
    top, _warnings = unpack(tmp_path, pack(dict.fromkeys(names, "x")))
    _tree.strip_wrapper(str(top))
    manifest = [{"path": name, "type": "file", "sha256": "", "size": 1} for name in names]
    found = {path for path in _tree.scan(str(top)).items if path}
    assert found == {path for path in _tree.from_manifest(manifest).items if path}
    assert all(name.removeprefix("top/") in found for name in names) == (
        stripped or names == ["appspec.yml"]
    )


NAMES = st.lists(st.sampled_from(["a", "b", "c", "..", ".", "", "etc", "l"]), max_size=4).map(
    "/".join
)
MEMBERS = st.tuples(
    NAMES,
    st.sampled_from([REG, DIR, SYM, LNK, tarfile.FIFOTYPE]),
    NAMES | st.sampled_from(["/etc", "..", "../../outside", "a", "."]),
    st.binary(max_size=4),
)


@settings(max_examples=150, deadline=None)
@given(members=st.lists(MEMBERS, max_size=8))
def test_nothing_is_ever_written_outside(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[str, bytes, str, bytes]]
) -> None:
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "outside").mkdir()
    try:
        top, _warnings = unpack(folder, tar(*members))
    except ArchiveError:
        top = folder / "archive"
    assert {path.name for path in folder.iterdir()} == {"archive", "bundle", "outside"}
    assert not any((folder / "outside").iterdir())
    for path, _folders, files in os.walk(top):
        assert Path(path).resolve().is_relative_to(top.resolve())
        for name in files:
            status = (Path(path) / name).lstat()
            assert stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)


@settings(max_examples=100, deadline=None)
@given(
    position=st.integers(0, 3000), value=st.integers(0, 255), kind=st.sampled_from(["tar", "zip"])
)
def test_a_changed_byte_is_unpacked_or_refused(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int, kind: str
) -> None:
    data = bytearray(pack({"a": "content", "d/b": "x" * 100, "d/l": Path("b")}, kind))
    data[position % len(data)] = value
    try:
        unpack(tmp_path_factory.mktemp("changed"), bytes(data))
    except ArchiveError:
        return
