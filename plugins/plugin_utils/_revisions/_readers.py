# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Readers: a folder, a tar and a zip give their members and, a second time, their contents."""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

from ...module_utils._errors import RevisionError
from ._members import Budget, Member, clean_path, special

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHUNK = 1024 * 1024
IGNORED = ".git"
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError)


class Reader(Protocol):
    """A source that can be read twice: once for its members, once for their contents."""

    name: str

    def members(self) -> Iterator[Member]:
        """Give every member with the hash of its content, in the order of the source."""

    def open(self, member: Member) -> IO[bytes]:
        """Open a file's content again."""

    def close(self) -> None:
        """Let go of the source."""


def hash_of(stream: IO[bytes]) -> str:
    """Hash a stream to its end, in SHA-256."""
    total = hashlib.sha256()
    while chunk := stream.read(CHUNK):
        total.update(chunk)
    return total.hexdigest()


def hash_of_file(path: Path) -> str:
    """Hash a file, in SHA-256."""
    with path.open("rb") as stream:
        return hash_of(stream)


class FolderReader:
    """A folder; what git keeps for itself is left out."""

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        self.name = name

    def members(self) -> Iterator[Member]:
        budget = Budget(self.name)
        waiting = [("", self.root)]
        while waiting:
            prefix, folder = waiting.pop()
            with os.scandir(folder) as entries:
                for item in entries:
                    if item.name == IGNORED:
                        continue
                    member = self._member(prefix + item.name, item)
                    budget.spend(member.size)
                    if member.type == "directory":
                        waiting.append((f"{member.path}/", Path(item.path)))
                    yield member

    def _member(self, path: str, item: os.DirEntry[str]) -> Member:
        status = item.stat(follow_symlinks=False)
        mode, mtime = stat.S_IMODE(status.st_mode), int(status.st_mtime)
        if stat.S_ISLNK(status.st_mode):
            return Member(path, "link", 0o777, mtime=mtime, target=os.readlink(item.path))  # noqa: PTH115 - Path would change the text
        if stat.S_ISDIR(status.st_mode):
            return Member(path, "directory", mode, mtime=mtime)
        if not stat.S_ISREG(status.st_mode):
            raise special(path, "a device, a socket or a pipe", self.name)
        with Path(item.path).open("rb", buffering=0) as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return Member(path, "file", mode, status.st_size, mtime, digest, place=item.path)

    def open(self, member: Member) -> IO[bytes]:
        return Path(str(member.place)).open("rb")

    def close(self) -> None:
        pass


class TarReader:
    """A tar, compressed by gzip or not."""

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self.archive = tarfile.open(path, "r:*")  # noqa: SIM115 - closed by close()

    def members(self) -> Iterator[Member]:
        budget = Budget(self.name)
        for info in self.archive:
            budget.spend(info.size)
            path = clean_path(info.name, self.name)
            mode, mtime = info.mode & 0o7777, int(info.mtime)
            if info.issym():
                yield Member(path, "link", 0o777, mtime=mtime, target=info.linkname)
            elif info.isdir():
                yield Member(path, "directory", mode, mtime=mtime)
            elif info.isreg() or info.islnk():
                # A hard link has the content of what it names; it is sent as a file of its own.
                real = self._linked(info) if info.islnk() else info
                with self._content(real) as stream:
                    digest = hash_of(stream)
                yield Member(path, "file", mode, real.size, mtime, digest, place=real)
            else:
                raise special(info.name, "a device or a pipe", self.name)

    def _linked(self, info: tarfile.TarInfo) -> tarfile.TarInfo:
        clean_path(info.linkname, self.name)
        try:
            real = self.archive.getmember(info.linkname)
        except KeyError:
            real = info
        if not real.isreg():
            raise special(info.name, f"a hard link to {info.linkname!r}, no file here", self.name)
        return real

    def _content(self, info: tarfile.TarInfo) -> IO[bytes]:
        stream = self.archive.extractfile(info)
        if stream is None:
            raise special(info.name, "without content", self.name)
        return stream

    def open(self, member: Member) -> IO[bytes]:
        if not isinstance(member.place, tarfile.TarInfo):
            raise special(member.path, "without content", self.name)
        return self._content(member.place)

    def close(self) -> None:
        self.archive.close()


class ZipReader:
    """A zip; modes and links are those that Unix tools write into it."""

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self.archive = zipfile.ZipFile(path)

    def members(self) -> Iterator[Member]:
        budget = Budget(self.name)
        for info in self.archive.infolist():
            budget.spend(info.file_size)
            if info.flag_bits & 0x1:
                raise special(info.filename, "encrypted", self.name)
            yield self._member(info, clean_path(info.filename, self.name))

    def _member(self, info: zipfile.ZipInfo, path: str) -> Member:
        attributes = info.external_attr >> 16
        mtime = _zip_time(info)
        if info.is_dir() or stat.S_ISDIR(attributes):
            return Member(path, "directory", stat.S_IMODE(attributes) or 0o755, mtime=mtime)
        if stat.S_ISLNK(attributes):
            target = self.archive.read(info).decode("utf-8", "surrogateescape")
            return Member(path, "link", 0o777, mtime=mtime, target=target)
        if stat.S_IFMT(attributes) not in (0, stat.S_IFREG):
            raise special(info.filename, "a device, a socket or a pipe", self.name)
        with self.archive.open(info) as stream:
            digest = hash_of(stream)
        mode = stat.S_IMODE(attributes) or 0o644
        return Member(path, "file", mode, info.file_size, mtime, digest, place=info)

    def open(self, member: Member) -> IO[bytes]:
        if not isinstance(member.place, zipfile.ZipInfo):
            raise special(member.path, "without content", self.name)
        return self.archive.open(member.place)

    def close(self) -> None:
        self.archive.close()


def _zip_time(info: zipfile.ZipInfo) -> int:
    from calendar import timegm

    return max(0, timegm((*info.date_time, 0, 0, 0)))


def archive_type(path: Path) -> str | None:
    """Tell an archive by its first bytes: tgz, tar, zip, or None for anything else."""
    with path.open("rb") as stream:
        head = stream.read(512)
    if head.startswith(b"\x1f\x8b"):
        return "tgz"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    # The oldest tar format has no magic; its checksum field tells it.
    return "tar" if len(head) == 512 and tarfile.is_tarfile(path) else None


def open_archive(path: Path, name: str) -> tuple[str, Reader]:
    """Open an archive by its content, whatever it is called.

    :raises RevisionError: when it is none of tar, tgz and zip, or damaged
    """
    try:
        kind = archive_type(path)
        if kind == "zip":
            return kind, ZipReader(path, name)
        if kind:
            return kind, TarReader(path, name)
    except DAMAGED as error:
        raise damaged(name, error) from error
    raise RevisionError(
        f"{name} is neither a folder nor an archive that can be read; wanted a tar, a tar.gz or "
        "a zip."
    )


def damaged(name: str, error: BaseException) -> RevisionError:
    """Say that an archive ends early or holds nonsense."""
    return RevisionError(
        f"{name} cannot be read: {str(error) or type(error).__name__}. Build or fetch it again."
    )


def guarded(name: str, work: Callable[[], list[Member]]) -> list[Member]:
    """Read members; a damaged archive becomes one clear message.

    :raises RevisionError: when the archive cannot be read to its end
    """
    try:
        return work()
    except RevisionError:
        raise
    except DAMAGED as error:
        raise damaged(name, error) from error
