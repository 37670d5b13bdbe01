# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a folder or an archive to a cached bundle: manifest, AppSpec file, digest, one archive."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import tarfile
import zipfile
import zlib
from typing import IO, TYPE_CHECKING, Any

from ...module_utils._appspec import parse_appspec
from ...module_utils._errors import AppSpecError, ArchiveError, RevisionError
from ...module_utils._host._archive import detect, unpack
from ._model import digest_of
from ._tree import MAX_BYTES, Member, hash_of_file, read_tree

if TYPE_CHECKING:
    from pathlib import Path

    from ._cache import Cache
    from ._model import Stored

APPSPEC_NAMES = ("appspec.yml", "appspec.yaml")
MAX_APPSPEC = 1024 * 1024
GIT = frozenset({".git"})
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError)
# Level 1 packs 5 MB of text in a fifth of the time of level 9 and is a tenth larger.
LEVEL = 1


def store_folder(cache: Cache, root: Path, name: str) -> Stored:
    """Put a folder into the cache as a tgz; what git keeps for itself is left out.

    :raises RevisionError: when it cannot be read, or changes meanwhile
    :raises AppSpecError: when there is no AppSpec file, or it is refused
    """
    return _store(cache, root, read_tree(root, name, ignored=GIT), name, None)


def store_archive(
    cache: Cache, path: Path, name: str, *, sha256: str = "", subdirectory: str = ""
) -> Stored:
    """Put an archive into the cache: as it is, or, for a part of it, as a tgz of that part.

    It is unpacked by the code that unpacks it on the hosts, so what they refuse is refused here.

    :param sha256: what the archive was seen to be; empty for one that only this process writes,
        which is packed anew
    :raises RevisionError: when it is refused or cannot be read
    :raises AppSpecError: when there is no AppSpec file, or it is refused
    """
    with cache.scratch() as scratch:
        tree = scratch / "tree"
        tree.mkdir(mode=0o700)
        free = shutil.disk_usage(scratch).free
        try:
            kind = detect(str(path))
            unpack(str(path), str(tree), limit=min(MAX_BYTES, free), outside_links=True)
        except ArchiveError as error:
            raise RevisionError(f"{name} cannot be used. {error}") from error
        except DAMAGED as error:
            raise RevisionError(f"{name} cannot be used. The bundle is damaged: {error}") from error
        root = _folder_in(tree, subdirectory, name) if subdirectory else without_top(tree)
        keep = (kind, path, sha256) if sha256 and not subdirectory else None
        return _store(cache, root, read_tree(root, name), name, keep)


def without_top(tree: Path) -> Path:
    """Step into an archive's only top folder where has the AppSpec file, as the agent does."""
    inside = list(tree.iterdir())
    if len(inside) != 1 or inside[0].is_symlink() or not inside[0].is_dir():
        return tree
    found = any("appspec" in item.name.lower() for item in inside[0].iterdir())
    return inside[0] if found else tree


def _folder_in(tree: Path, subdirectory: str, name: str) -> Path:
    """Find a subdirectory, named with or without the archive's only top folder."""
    inside = [item for item in tree.iterdir() if item.is_dir() and not item.is_symlink()]
    starts = [tree, *inside] if len(list(tree.iterdir())) == 1 else [tree]
    for start in starts:
        found = start / subdirectory
        if found.is_dir() and found.resolve().is_relative_to(tree.resolve()):
            return found
    names = ", ".join(sorted(item.name for item in inside)) or "none"
    raise RevisionError(
        f"{name} has no folder {subdirectory!r}; its folders are {names}. Correct the subdirectory."
    )


def _store(
    cache: Cache, root: Path, members: list[Member], name: str, keep: tuple[str, Path, str] | None
) -> Stored:
    appspec = _read_appspec(root, members, name)
    parsed(appspec[0], appspec[1], name)
    manifest = [member.entry() for member in members]
    digest = digest_of(manifest)
    known = cache.load(digest)
    if known:
        return known
    if keep is None:
        return cache.store(
            digest, manifest, appspec, "tgz", lambda bundle: _pack(root, members, bundle, name)
        )
    kind, path, sha256 = keep
    return cache.store(
        digest, manifest, appspec, kind, lambda bundle: _copy(path, bundle, name, sha256)
    )


def parsed(path: str, text: bytes, name: str) -> dict[str, Any]:
    """Parse an AppSpec file and name it in what is wrong with it.

    :raises AppSpecError: when it is refused
    """
    try:
        return parse_appspec(text)
    except AppSpecError as error:
        raise AppSpecError(f"{name}, {path}: {error}") from error


def _read_appspec(root: Path, members: list[Member], name: str) -> tuple[str, bytes]:
    for candidate in APPSPEC_NAMES:
        path = root / candidate
        inside = path.resolve().is_relative_to(root.resolve())
        if inside and path.is_file() and path.stat().st_size <= MAX_APPSPEC:
            return candidate, path.read_bytes()
    tops = sorted({member.path.split("/", 1)[0] for member in members})
    shown = ", ".join(tops[:8]) + (f" and {len(tops) - 8} more" if len(tops) > 8 else "")
    deeper = [m.path for m in members if m.path.rsplit("/", 1)[-1] in APPSPEC_NAMES]
    hint = "Name the folder that has it at its root, or add one."
    if deeper and "/" in deeper[0]:
        hint = f"There is one at {deeper[0]}: name its folder as the subdirectory."
    raise AppSpecError(
        f"{name} has no appspec.yml or appspec.yaml at its root; found {shown or 'nothing'}. {hint}"
    )


def _copy(path: Path, bundle: Path, name: str, sha256: str) -> None:
    shutil.copyfile(path, bundle)
    if hash_of_file(bundle) != sha256:
        raise RevisionError(f"{name} changed while it was read. Deploy again when it is complete.")


def _pack(root: Path, members: list[Member], bundle: Path, name: str) -> None:
    with (
        bundle.open("wb") as raw,
        gzip.GzipFile("", "wb", LEVEL, raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for member in members:
            info = tarfile.TarInfo(member.path)
            info.mode, info.mtime = member.mode, member.mtime
            if member.type == "directory":
                info.type = tarfile.DIRTYPE
                archive.addfile(info)
            elif member.type == "link":
                info.type, info.linkname = tarfile.SYMTYPE, member.target
                archive.addfile(info)
            else:
                info.size = member.size
                with _open(root / member.path, name) as stream:
                    archive.addfile(info, _Checked(stream, member, name))


def _open(path: Path, name: str) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise RevisionError(
            f"{name} changed while it was read ({path.name}: {error.strerror}). Deploy again when "
            "nothing writes there."
        ) from error


class _Checked:
    """A file's content that must still be what was hashed before."""

    def __init__(self, stream: IO[bytes], member: Member, name: str) -> None:
        self._stream = stream
        self._member = member
        self._name = name
        self._left = member.size
        self._hash = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._hash.update(data)
        self._left -= len(data)
        # tarfile asks for exactly the size that was announced.
        if len(data) < size or (self._left == 0 and self._hash.hexdigest() != self._member.sha256):
            raise RevisionError(
                f"{self._name} changed while it was read ({self._member.path}). Deploy again when "
                "nothing writes there."
            )
        return data
