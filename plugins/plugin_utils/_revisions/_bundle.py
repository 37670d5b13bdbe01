# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a reader to a cached bundle: manifest, AppSpec file, digest, one archive."""

from __future__ import annotations

import gzip
import posixpath
import shutil
import tarfile
from typing import IO, TYPE_CHECKING, Any

from ...module_utils._appspec import parse_appspec
from ...module_utils._errors import AppSpecError, RevisionError
from ._members import APPSPEC_NAMES, Member, below, normalise, without_single_folder
from ._model import Entry, digest_of
from ._readers import FolderReader, guarded, hash_of_file, open_archive

if TYPE_CHECKING:
    from pathlib import Path

    from ._cache import Cache
    from ._model import Stored
    from ._readers import Reader

# Level 1 packs 5 MB of text in a fifth of the time of level 9 and is a tenth larger.
LEVEL = 1
MAX_APPSPEC = 1024 * 1024


def store_folder(cache: Cache, root: Path, name: str) -> Stored:
    """Put a folder into the cache as a tgz.

    :raises RevisionError: when it cannot be read, or changes meanwhile
    :raises AppSpecError: when there is no AppSpec file, or it is refused
    """
    reader = FolderReader(root, name)
    members = guarded(name, lambda: normalise(reader.members(), name))
    return _store(cache, reader, members, name, None)


def store_archive(
    cache: Cache, path: Path, name: str, *, sha256: str = "", subdirectory: str = ""
) -> Stored:
    """Put an archive into the cache: as it is, or, for a part of it, as a tgz of that part.

    :param sha256: what the archive was seen to be; empty for one that only this process writes,
        which is packed anew

    :raises RevisionError: when it is refused or cannot be read
    :raises AppSpecError: when there is no AppSpec file, or it is refused
    """
    kind, reader = open_archive(path, name)
    try:
        members = guarded(name, lambda: normalise(reader.members(), name))
        if subdirectory:
            members = below(without_top(members, subdirectory), subdirectory, name)
        else:
            members = without_single_folder(members)
        keep = None if subdirectory or not sha256 else (kind, path, sha256)
        return _store(cache, reader, members, name, keep)
    finally:
        reader.close()


def without_top(members: list[Member], subdirectory: str) -> list[Member]:
    """Let a subdirectory be named with or without the archive's only top folder."""
    tops = {member.path.split("/", 1)[0] for member in members}
    if len(tops) == 1 and subdirectory.split("/", 1)[0] not in tops:
        return below(members, tops.pop(), "")
    return members


def _store(
    cache: Cache,
    reader: Reader,
    members: list[Member],
    name: str,
    keep: tuple[str, Path, str] | None,
) -> Stored:
    by_path = {member.path: member for member in members}
    appspec = _read_appspec(reader, by_path, name)
    parsed(appspec[0], appspec[1], name)
    manifest: list[Entry] = [member.entry() for member in members]
    digest = digest_of(manifest)
    known = cache.load(digest)
    if known:
        return known
    if keep is None:
        return cache.store(
            digest, manifest, appspec, "tgz", lambda bundle: _pack(reader, members, bundle)
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


def _read_appspec(reader: Reader, members: dict[str, Member], name: str) -> tuple[str, bytes]:
    for candidate in APPSPEC_NAMES:
        member = members.get(candidate)
        for _hop in range(8):
            if member is None or member.type != "link":
                break
            folder = posixpath.dirname(member.path)
            member = members.get(posixpath.normpath(posixpath.join(folder, member.target)))
        if member and member.type == "file" and member.size <= MAX_APPSPEC:
            with reader.open(member) as stream:
                return candidate, stream.read()
    tops = sorted({path.split("/", 1)[0] for path in members})
    shown = ", ".join(tops[:8]) + (f" and {len(tops) - 8} more" if len(tops) > 8 else "")
    deeper = sorted(path for path in members if posixpath.basename(path) in APPSPEC_NAMES)
    hint = (
        f" There is one at {deeper[0]}: name its folder as the subdirectory."
        if deeper and "/" in deeper[0]
        else " Name the folder that has it at its root, or add one."
    )
    raise AppSpecError(
        f"{name} has no appspec.yml or appspec.yaml at its root; found {shown or 'nothing'}.{hint}"
    )


def _copy(path: Path, bundle: Path, name: str, sha256: str) -> None:
    shutil.copyfile(path, bundle)
    if hash_of_file(bundle) != sha256:
        raise RevisionError(f"{name} changed while it was read. Deploy again when it is complete.")


def _pack(reader: Reader, members: list[Member], bundle: Path) -> None:
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
                with reader.open(member) as stream:
                    archive.addfile(info, _Checked(stream, member, reader.name))


class _Checked:
    """A file's content that must still be what was hashed before."""

    def __init__(self, stream: IO[bytes], member: Member, name: str) -> None:
        import hashlib

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
