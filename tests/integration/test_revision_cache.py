"""The cache stays whole under many processes, damage and a full disk, and answers fast."""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import RevisionError
from ansible_collections.bascule.deploy.plugins.plugin_utils._revisions import resolve
from ansible_collections.bascule.deploy.plugins.plugin_utils._revisions._cache import Cache
from support.resolving import digests_of


def make_bundle(root: Path, files: int = 200, size: int = 25_000) -> Path:
    """Write a bundle of half-compressible files, 5 MB by default."""
    source = random.Random(1)  # noqa: S311 - the same content every time
    for number in range(files):
        path = root / f"app/{number % 10}/{number}.dat"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.randbytes(size // 2) + b"text " * (size // 10))
    (root / "appspec.yml").write_text("version: 0.0\nos: linux\n")
    return root


def test_many_processes_may_resolve_the_same_revision_at_once(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", files=20)
    digests = digests_of(str(bundle), tmp_path / "cache")
    assert len(set(digests)) == 1
    left = [path.name for path in (tmp_path / "cache").iterdir()]
    assert sorted(left) == sorted([digests[0], "index", "git"])


def test_the_cache_belongs_to_one_user(tmp_path: Path) -> None:
    revision = resolve(str(make_bundle(tmp_path / "bundle", files=2)), cache=tmp_path / "cache")
    for path in [tmp_path / "cache", *(tmp_path / "cache").rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path
    assert Path(revision.bundle_path).parent == tmp_path / "cache" / revision.digest


@pytest.mark.parametrize("damage", ["bundle", "record", "both gone"])
def test_a_damaged_revision_is_made_again(tmp_path: Path, damage: str) -> None:
    bundle = make_bundle(tmp_path / "bundle", files=2)
    first = resolve(str(bundle), cache=tmp_path / "cache")
    path = Path(first.bundle_path)
    if damage == "bundle":
        content = bytearray(path.read_bytes())
        content[-20] ^= 1
        path.write_bytes(content)
    elif damage == "record":
        (path.parent / "revision.json").write_text("{")
    else:
        shutil.rmtree(path.parent)
        path.parent.mkdir()
    assert resolve(str(bundle), cache=tmp_path / "cache") == first


def test_what_killed_processes_left_is_removed_after_a_day(tmp_path: Path) -> None:
    old, young = tmp_path / "cache/.new-old", tmp_path / "cache/.new-young"
    for folder in (old, young):
        folder.mkdir(parents=True)
    os.utime(old, (time.time() - 90_000,) * 2)
    resolve(str(make_bundle(tmp_path / "bundle", files=1)), cache=tmp_path / "cache")
    assert not old.exists()
    assert young.exists()


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    cache.prepare()
    with pytest.raises(
        RevisionError, match=r"disk of the revision cache .*/cache is full \(\d+ MiB"
    ):
        cache.store(
            "0" * 64, [], ("appspec.yml", b""), "tgz",
            lambda _bundle: print(Path("/dev/full").write_bytes(b"x")),
        )  # fmt: skip
    assert not list((tmp_path / "cache").glob(".new-*"))


def test_a_cache_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    bundle = make_bundle(tmp_path / "bundle", files=1)
    with pytest.raises(RevisionError, match=r"state/cache cannot be written: Not a directory"):
        resolve(str(bundle), cache=tmp_path / "state/cache")


def test_a_file_that_changes_meanwhile_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle(tmp_path / "bundle", files=3)
    load = Cache.load

    def change_then_load(self: Cache, digest: str, *, verify: bool = True) -> object:
        path = bundle / "app/1/1.dat"
        path.write_bytes(path.read_bytes()[::-1])
        return load(self, digest, verify=verify)

    monkeypatch.setattr(Cache, "load", change_then_load)
    with pytest.raises(RevisionError, match=r"changed while it was read \(app/1/1\.dat\)"):
        resolve(str(bundle), cache=tmp_path / "cache")


def test_five_megabytes_are_packed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    packed = []
    store = Cache.store

    def store_and_count(self: Cache, digest: str, *more: object) -> object:
        packed.append(digest)
        return store(self, digest, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(Cache, "store", store_and_count)
    found = {resolve(str(bundle), cache=tmp_path / "cache").digest for _attempt in range(3)}
    assert len(found) == 1
    assert packed == [*found], "looking again is reading again, and no more"
