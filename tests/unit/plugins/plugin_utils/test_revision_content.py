# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A revision is named by its content: a folder, its tar and its zip are the same one."""

from __future__ import annotations

import os
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import (
    AppSpecError,
    RevisionError,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._revisions import (
    _tree,
    load_revision,
    resolve,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

APPSPEC = b"version: 0.0\nos: linux\nfiles:\n  - source: /app\n    destination: /opt/app\n"

NAMES = st.text("abcäö .-_'\"#\n", min_size=1, max_size=6).filter(lambda n: n not in {".", ".."})
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
MODES = st.sampled_from([0o600, 0o640, 0o644, 0o755, 0o4755, 0o777])
FILES = st.dictionaries(PATHS, st.tuples(st.binary(max_size=40), MODES), max_size=6)


def write_tree(root: Path, files: dict[str, tuple[bytes, int]]) -> None:
    """Write an AppSpec file and, as far as they do not contradict each other, the given files."""
    root.mkdir()
    (root / "appspec.yml").write_bytes(APPSPEC)
    for name, (content, mode) in files.items():
        path = root / name
        if path.exists() or any(parent.is_file() for parent in path.parents):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(mode)


def make_tar(root: Path, target: Path, *, mode: str = "w:gz", prefix: str = "") -> Path:
    """Pack a folder as tar does, with an entry for every folder."""
    with tarfile.open(target, mode) as archive:
        for item in sorted(root.iterdir()):
            archive.add(item, prefix + item.name)
    return target


def make_zip(root: Path, target: Path) -> Path:
    """Pack a folder as zip does, links as links."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
        for path in sorted(root.rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.is_symlink():
                info = zipfile.ZipInfo(name)
                info.create_system = 3
                info.external_attr = 0o120777 << 16
                archive.writestr(info, str(path.readlink()))
            else:
                archive.write(path, name)
    return target


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(files=FILES)
def test_folder_tar_and_zip_have_one_digest(
    files: dict[str, tuple[bytes, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    work = tmp_path_factory.mktemp("same")
    root = work / "tree"
    write_tree(root, files)
    (root / "link").symlink_to("appspec.yml")
    for number, path in enumerate(root.rglob("*")):
        os.utime(path, (10_000 + number, 400_000_000 + number), follow_symlinks=False)
    sources = [
        root,
        make_tar(root, work / "a.tar.gz"),
        make_tar(root, work / "a.tar", mode="w", prefix="./"),
        make_tar(root, work / "top.tgz", prefix="my-app-1.0/"),
    ]
    # Of a zip no setuid bits are taken, so one with them is another revision.
    if not any(path.lstat().st_mode & 0o7000 for path in root.rglob("*") if path.is_file()):
        sources.append(make_zip(root, work / "a.zip"))
    digests = {
        resolve(str(source), cache=work / f"cache-{number}").digest
        for number, source in enumerate(sources)
    }
    assert len(digests) == 1


CHANGES = {
    "content": lambda root: (root / "app/run").write_bytes(b"#!/bin/sh\nexit 1\n"),
    "mode": lambda root: (root / "app/run").chmod(0o700),
    "name": lambda root: (root / "app/run").rename(root / "app/start"),
    "one file more": lambda root: (root / "app/more").write_bytes(b""),
    "one folder more": lambda root: (root / "app/empty").mkdir(),
    "folder mode": lambda root: (root / "app").chmod(0o700),
    "link": lambda root: (root / "app/link").symlink_to("run"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_every_change_of_content_is_another_revision(
    tmp_path: Path, change: Callable[[Path], object]
) -> None:
    root = tmp_path / "tree"
    write_tree(root, {"app/run": (b"#!/bin/sh\nexit 0\n", 0o755)})
    before = resolve(str(root), cache=tmp_path / "cache").digest
    change(root)
    assert resolve(str(root), cache=tmp_path / "cache").digest != before


def test_times_and_gits_own_files_do_not_count(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    write_tree(root, {"app/run": (b"run", 0o755)})
    before = resolve(str(root), cache=tmp_path / "cache")
    os.utime(root / "app/run", (1, 1))
    (root / ".git").mkdir()
    (root / ".git/HEAD").write_text("ref: refs/heads/main\n")
    assert resolve(str(root), cache=tmp_path / "cache") == before


def test_result_describes_the_bundle_and_its_content(tmp_path: Path) -> None:
    root = tmp_path / "shop"
    write_tree(root, {"app/run": (b"run", 0o4750)})
    os.utime(root / "app/run", (1_000_000_000, 1_000_000_000))
    revision = resolve("shop", cache=tmp_path / "state/cache", base=tmp_path)
    assert (revision.source, revision.description) == (str(root), "shop")
    assert revision.environment == {}
    assert [(e["path"], e["type"], oct(e["mode"]), e["size"]) for e in revision.manifest] == [
        ("app", "directory", "0o755", 0),
        ("app/run", "file", "0o4750", 3),
        ("appspec.yml", "file", "0o644", len(APPSPEC)),
    ]
    assert revision.appspec["files"][0]["destination"] == "/opt/app"
    with tarfile.open(revision.bundle_path, "r:gz") as bundle:
        assert bundle.getnames() == ["app", "app/run", "appspec.yml"]
        run = bundle.getmember("app/run")
        assert (run.mode, run.mtime, run.uid, run.gid) == (0o4750, 1_000_000_000, 0, 0)
    assert load_revision(revision.digest, cache=tmp_path / "state/cache") == revision
    assert load_revision("0" * 64, cache=tmp_path / "state/cache") is None


def test_an_archive_is_sent_as_it_is(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    write_tree(root, {"app/run": (b"run", 0o755)})
    archive = make_zip(root, tmp_path / "shop.zip")
    revision = resolve(str(archive), cache=tmp_path / "cache")
    assert revision.bundle_type == "zip"
    assert Path(revision.bundle_path).read_bytes() == archive.read_bytes()


def test_a_subdirectory_is_a_revision_of_its_own(tmp_path: Path) -> None:
    root = tmp_path / "mono"
    root.mkdir()
    write_tree(root / "shop", {"app/run": (b"run", 0o755)})
    (root / "README").write_text("two services")
    wanted = resolve(str(root / "shop"), cache=tmp_path / "cache").digest
    for source in (
        root,
        make_tar(root, tmp_path / "mono.tgz"),
        make_tar(root, tmp_path / "top.tgz", prefix="mono-main/"),
        make_zip(root, tmp_path / "mono.zip"),
    ):
        found = resolve(str(source), cache=tmp_path / "other", subdirectory="shop")
        assert found.digest == wanted
        assert found.source == f"{source} (shop)"
    with pytest.raises(RevisionError, match=r"no folder 'shopp'; its folders are shop"):
        resolve(str(tmp_path / "mono.tgz"), cache=tmp_path / "cache", subdirectory="shopp")
    with pytest.raises(RevisionError, match=r"not inside of the source"):
        resolve(str(root), cache=tmp_path / "cache", subdirectory="../mono")


@pytest.mark.parametrize(
    ("where", "hint"),
    [
        (None, r"found app, notes\.txt\. Name the folder"),
        ("service", r"found app, notes\.txt, service\. There is one at service/appspec\.yaml"),
    ],
)
def test_a_bundle_without_an_appspec_file_says_what_was_found(
    tmp_path: Path, where: str | None, hint: str
) -> None:
    root = tmp_path / "tree"
    (root / "app").mkdir(parents=True)
    (root / "notes.txt").write_text("")
    if where:
        (root / where).mkdir()
        (root / where / "appspec.yaml").write_bytes(APPSPEC)
    with pytest.raises(AppSpecError, match=rf"tree has no appspec\.yml or .*root; {hint}"):
        resolve(str(root), cache=tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").iterdir() if len(path.name) == 64]


def test_both_names_of_the_appspec_file_and_a_link_to_it_are_read(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    write_tree(root, {})
    (root / "conf").mkdir()
    (root / "appspec.yml").rename(root / "conf/production.yml")
    (root / "appspec.yaml").symlink_to("conf/production.yml")
    revision = resolve(str(root), cache=tmp_path / "cache")
    assert revision.appspec["files"][0]["source"] == "/app"


def test_a_refused_appspec_file_is_named(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    write_tree(root, {})
    (root / "appspec.yml").write_text("version: 0.1\nos: linux\n")
    with pytest.raises(AppSpecError, match=r"tree, appspec\.yml: .*version"):
        resolve(str(root), cache=tmp_path / "cache")


def tar_of(target: Path, *infos: tarfile.TarInfo) -> Path:
    """Write a tar of bare headers beside an AppSpec file."""
    import io

    with tarfile.open(target, "w") as archive:
        good = tarfile.TarInfo("appspec.yml")
        good.size = len(APPSPEC)
        archive.addfile(good, io.BytesIO(APPSPEC))
        for info in infos:
            archive.addfile(info, io.BytesIO(b"x" * info.size))
    return target


def info(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0
) -> tarfile.TarInfo:
    """Make a tar header."""
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, link, size
    return made


HOSTILE = {
    "absolute": (info("/etc/passwd"), "absolute path"),
    "upwards": (info("a/../../b"), "leaves it by"),
    "device": (info("null", tarfile.CHRTYPE), "a device"),
    "pipe": (info("pipe", tarfile.FIFOTYPE), "pipe"),
    "hard link to nothing": (info("hard", tarfile.LNKTYPE, "missing"), "'missing'"),
    "below a file": (info("appspec.yml/x"), "below 'appspec.yml'"),
}


@pytest.mark.parametrize(("entry", "why"), HOSTILE.values(), ids=HOSTILE.keys())
def test_what_hosts_refuse_is_refused_before_it_is_sent(
    tmp_path: Path, entry: tarfile.TarInfo, why: str
) -> None:
    archive = tar_of(tmp_path / "bad.tar", entry)
    with pytest.raises(RevisionError, match=rf"bad\.tar cannot be used\. .*{why}"):
        resolve(str(archive), cache=tmp_path / "cache")
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"index", "git"}


def test_more_than_a_revision_may_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "tree"
    write_tree(root, {"app/run": (b"run", 0o755)})
    monkeypatch.setattr(_tree, "MAX_ENTRIES", 2)
    with pytest.raises(RevisionError, match=r"tree holds more than a revision may: 2 files"):
        resolve(str(root), cache=tmp_path / "cache")


def test_hard_links_inside_become_files(tmp_path: Path) -> None:
    real = info("app/run", size=3)
    archive = tar_of(tmp_path / "good.tar", real, info("app/same", tarfile.LNKTYPE, "app/run"))
    manifest = {e["path"]: e for e in resolve(str(archive), cache=tmp_path / "cache").manifest}
    assert manifest["app/same"]["type"] == "file"
    assert manifest["app/same"]["sha256"] == manifest["app/run"]["sha256"]


def test_links_stay_as_they_are_written(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    write_tree(root, {})
    (root / "logs").symlink_to("/var/log/app")
    (root / "here").symlink_to("./app//run")
    links = {e["path"]: e["target"] for e in resolve(str(root), cache=tmp_path).manifest}
    assert links == {"appspec.yml": "", "logs": "/var/log/app", "here": "./app//run"}


def test_an_appspec_file_outside_of_the_bundle_is_not_read(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    (tmp_path / "appspec.yml").write_bytes(APPSPEC)
    (root / "appspec.yml").symlink_to("../appspec.yml")
    with pytest.raises(AppSpecError, match=r"tree has no appspec\.yml"):
        resolve(str(root), cache=tmp_path / "cache")


def test_a_folder_with_a_pipe_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    write_tree(root, {})
    os.mkfifo(root / "pipe")
    with pytest.raises(RevisionError, match=r"'pipe' is a device, a socket or a pipe"):
        resolve(str(root), cache=tmp_path / "cache")


def test_what_is_no_archive_or_is_damaged_is_said(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    write_tree(root, {"app/data": (os.urandom(50_000), 0o644)})
    text = tmp_path / "notes.tgz"
    text.write_text("not an archive")
    with pytest.raises(
        RevisionError, match=r"notes\.tgz cannot be used\. The bundle is no tgz, tar or zip"
    ):
        resolve(str(text), cache=tmp_path / "cache")
    for archive in (
        make_tar(root, tmp_path / "cut.tgz"),
        make_tar(root, tmp_path / "cut.tar", mode="w"),
        make_zip(root, tmp_path / "cut.zip"),
    ):
        archive.write_bytes(archive.read_bytes()[:20_000])
        with pytest.raises(
            RevisionError, match=r"cut\.\w+ cannot be used\. The bundle (is damaged|ends inside)"
        ):
            resolve(str(archive), cache=tmp_path / "cache")


def test_a_wrong_path_names_what_is_near(tmp_path: Path) -> None:
    for name in ("shop-1.0", "shop-2.0", "zebra"):
        (tmp_path / name).mkdir()
    with pytest.raises(
        RevisionError, match=r"no revision at .*shop-2\.O: did you mean .*shop-2\.0"
    ):
        resolve("shop-2.O", cache=tmp_path / "cache", base=tmp_path)
    with pytest.raises(RevisionError, match=r"has shop-1\.0, shop-2\.0, zebra\."):
        resolve(str(tmp_path / "qqq/deep"), cache=tmp_path / "cache")


def test_a_checksum_must_fit(tmp_path: Path) -> None:
    import hashlib

    root = tmp_path / "tree"
    write_tree(root, {})
    archive = make_tar(root, tmp_path / "a.tgz")
    right = hashlib.sha256(archive.read_bytes()).hexdigest()
    cache = tmp_path / "cache"
    digest = resolve(str(archive), cache=cache, checksum=f"sha256:{right}").digest
    assert resolve(str(root), cache=cache, checksum=f"sha256:{digest}").digest == digest
    for source, got in ((archive, right), (root, digest)):
        with pytest.raises(RevisionError, match=rf"expected {'0' * 64}, got {got}"):
            resolve(str(source), cache=cache, checksum="sha256:" + "0" * 64)
    with pytest.raises(RevisionError, match=r"wanted sha256: and 64 hexadecimal digits"):
        resolve(str(archive), cache=cache, checksum="md5:123")
