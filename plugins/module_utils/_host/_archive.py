# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unpack a bundle that nobody has to trust.

The entries decide nothing about where they land: every folder on the way is opened by its
descriptor without following links, so that no entry can be written through a link another entry
made. Links are kept as they are written (bundles do carry ``logs -> /var/log/app``).
"""

from __future__ import annotations

import errno
import os
import stat
import time
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from .._errors import ArchiveError
from . import _links

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_ENTRIES = 500_000
# No honest archive makes the reader take more at once: names and extended headers are small.
MAX_SINGLE_READ = 4 * 1024 * 1024
MAX_LINK = 4096
BLOCK = 1024 * 1024
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Entry(NamedTuple):
    """One entry; ``kind`` is file, directory, link (symbolic) or hardlink."""

    parts: tuple[str, ...]
    kind: str
    mode: int | None
    size: int
    mtime: float
    target: str
    owner: tuple[str, int, str, int] | None
    data: Any


def detect(path: str) -> str:
    """Tell tgz, tar or zip by the first bytes.

    :raises ArchiveError: for anything else
    """
    with open(path, "rb") as file:
        start = file.read(512)
    if start.startswith(b"\x1f\x8b"):
        return "tgz"
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if start[257:262] == b"ustar" or (len(start) == 512 and _is_old_tar(start)):
        return "tar"
    raise ArchiveError(
        f"The bundle is no tgz, tar or zip archive ({_beginning(start)}). Name a folder or an"
        " archive, or pack the revision again."
    )


def _beginning(start: bytes) -> str:
    if not start:
        return "it is empty"
    text = start[:24].decode("ascii", "replace")
    shown = repr(text) if text.replace("\n", "").isprintable() and "\ufffd" not in text else ""
    return f"it begins with {shown or start[:8].hex(' ')}"


def _is_old_tar(header: bytes) -> bool:
    if not header.strip(b"\0"):
        return True
    digits = header[148:156].strip(b" \0")
    if not digits or any(digit not in b"01234567" for digit in digits):
        return False
    return int(digits, 8) == sum(header[:148]) + sum(header[156:]) + 8 * 32


def unpack(path: str, destination: str, *, limit: int, outside_links: bool = False) -> list[str]:
    """Unpack an archive into an existing empty folder.

    Modes are kept, and owners if the caller is root, as tar and unzip do for the agent.

    :param limit: how many bytes of content may be written
    :param outside_links: whether symbolic links may lead out of the archive
    :returns: warnings
    :raises ArchiveError: for an archive that is damaged or hostile; what was written stays
    """
    kind = detect(path)
    damage = _signs_of_damage()
    target = _Target(destination, limit)
    try:
        for entry in _zip_entries(path) if kind == "zip" else _tar_entries(path, kind == "tgz"):
            target.add(entry)
        names = [] if outside_links else _links.leaving(target.links)
        if names:
            raise ArchiveError(_links.refusal(names, target.links))
        target.finish()
    except damage as error:
        raise ArchiveError(f"The bundle is damaged: {error}.") from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise ArchiveError("The disk is (or was) full during extraction.") from error
        raise ArchiveError(f"The bundle cannot be unpacked: {error}.") from error
    finally:
        target.close()
    return target.warnings


def _signs_of_damage() -> tuple[type[Exception], ...]:
    """Return what tarfile, zipfile and zlib raise for an archive that is not what it says."""
    import tarfile
    import zipfile
    import zlib

    return (
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        ValueError,
        OverflowError,
    )


def split_name(name: str) -> tuple[str, ...]:
    """Return the parts of an entry's name.

    :raises ArchiveError: for an absolute name, one with ``..``, or one no file can have
    """
    if name.startswith("/"):
        raise ArchiveError(f"The bundle holds the absolute path {name!r}. Pack relative paths.")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise ArchiveError(f"The bundle holds the path {name!r}, which leaves it by '..'.")
    if "\0" in name or any(len(os.fsencode(part)) > 255 for part in parts) or len(parts) > 256:
        raise ArchiveError(f"The bundle holds a path that no file can have: {name[:200]!r}.")
    return parts


class _Target:
    """The folder that is filled."""

    def __init__(self, path: str, limit: int) -> None:
        self.warnings: list[str] = []
        self.links: dict[str, str] = {}
        self._root = os.open(path, _DIRECTORY_FLAGS)
        self._limit = limit
        self._written = 0
        self._count = 0
        self._kinds: dict[tuple[str, ...], str] = {(): "directory"}
        self._folders: list[Entry] = []
        self._open: tuple[tuple[str, ...], int] = ((), os.dup(self._root))
        self._is_root = os.geteuid() == 0
        self._ids: dict[tuple[str, str, int], int] = {}

    def close(self) -> None:
        os.close(self._open[1])
        os.close(self._root)

    def add(self, entry: Entry) -> None:
        self._count += 1
        if self._count > MAX_ENTRIES:
            raise ArchiveError(f"The bundle has more than {MAX_ENTRIES} entries.")
        if not entry.parts:
            if entry.kind != "directory":
                raise ArchiveError("The bundle holds a file without a name.")
            return
        self._check_kind(entry)
        folder = self._folder(entry.parts[:-1])
        name = entry.parts[-1]
        if entry.kind == "directory":
            if entry.parts not in self._kinds:
                os.mkdir(name, 0o700, dir_fd=folder)
            self._folders.append(entry._replace(data=None))
        elif entry.kind == "file":
            self._file(entry, name, folder)
        elif entry.kind == "link":
            os.symlink(entry.target, name, dir_fd=folder)
            self.links["/".join(entry.parts)] = entry.target
            self._own(entry, name, folder)
        else:
            self._hard_link(entry, name, folder)
        self._kinds[entry.parts] = "link" if entry.kind == "link" else _plain(entry.kind)

    def _check_kind(self, entry: Entry) -> None:
        path = "/".join(entry.parts)
        for depth in range(1, len(entry.parts)):
            kind = self._kinds.get(entry.parts[:depth])
            if kind not in (None, "directory"):
                raise ArchiveError(
                    f"The bundle puts {path!r} below {'/'.join(entry.parts[:depth])!r}, which it"
                    f" made a {kind} before."
                )
        before = self._kinds.get(entry.parts)
        if before is None or (before == entry.kind == "directory"):
            return
        if before != _plain(entry.kind) or before != "file":
            raise ArchiveError(
                f"The bundle holds {path!r} twice, as a {before} and as a {entry.kind}."
            )
        if entry.kind == "hardlink" and tuple(split_name(entry.target)) == entry.parts:
            return
        # The last one wins, as with tar; a new file, for the old one may have hard links.
        os.unlink(entry.parts[-1], dir_fd=self._folder(entry.parts[:-1]))
        self.warnings.append(f"The bundle holds {path!r} twice; the last one is used.")

    def _folder(self, parts: tuple[str, ...]) -> int:
        """Return a descriptor of a folder in the target; missing ones are made."""
        if self._open[0] == parts:
            return self._open[1]
        descriptor = os.dup(self._root)
        try:
            for depth, part in enumerate(parts, 1):
                if parts[:depth] not in self._kinds:
                    os.mkdir(part, 0o755, dir_fd=descriptor)
                    self._kinds[parts[:depth]] = "directory"
                inner = os.open(part, _DIRECTORY_FLAGS, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = inner
        except BaseException:
            os.close(descriptor)
            raise
        os.close(self._open[1])
        self._open = (parts, descriptor)
        return descriptor

    def _file(self, entry: Entry, name: str, folder: int) -> None:
        descriptor = os.open(name, _FILE_FLAGS, 0o600, dir_fd=folder)
        try:
            size = 0
            while True:
                block = entry.data.read(min(BLOCK, entry.size - size + 1))
                if not block:
                    break
                size += len(block)
                self._written += len(block)
                if size > entry.size:
                    raise ArchiveError(
                        f"The bundle's {'/'.join(entry.parts)!r} is larger than it says."
                    )
                if self._written > self._limit:
                    raise ArchiveError(
                        f"The bundle unpacks to more than the {self._limit} bytes that are free."
                    )
                view = memoryview(block)
                while view:
                    view = view[os.write(descriptor, view) :]
            if size < entry.size:
                raise ArchiveError(f"The bundle ends inside {'/'.join(entry.parts)!r}.")
            if entry.owner is not None and self._is_root:
                os.fchown(descriptor, *self._owner(entry.owner))
            mode = 0o644 if entry.mode is None else entry.mode
            os.fchmod(descriptor, mode)
            _set_time(descriptor, entry.mtime)
        finally:
            os.close(descriptor)
            entry.data.close()

    def _hard_link(self, entry: Entry, name: str, folder: int) -> None:
        target = split_name(entry.target)
        if target == entry.parts and self._kinds.get(target) == "file":
            return
        if self._kinds.get(target) != "file":
            raise ArchiveError(
                f"The bundle's hard link {'/'.join(entry.parts)!r} leads to {entry.target!r}, which"
                " is no file that it holds."
            )
        source = os.open("/".join(target[:-1]) or ".", _DIRECTORY_FLAGS, dir_fd=self._root)
        try:
            os.link(target[-1], name, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
        finally:
            os.close(source)

    def _own(self, entry: Entry, name: str, folder: int) -> None:
        if entry.owner is not None and self._is_root:
            user, group = self._owner(entry.owner)
            os.chown(name, user, group, dir_fd=folder, follow_symlinks=False)

    def _owner(self, owner: tuple[str, int, str, int]) -> tuple[int, int]:
        return self._id("user", owner[0], owner[1]), self._id("group", owner[2], owner[3])

    def _id(self, kind: str, name: str, number: int) -> int:
        """Return a numeric owner by name, by its own number where no such name is known."""
        key = (kind, name, number)
        if key not in self._ids:
            import grp
            import pwd

            try:
                if kind == "user":
                    self._ids[key] = pwd.getpwnam(name).pw_uid if name else number
                else:
                    self._ids[key] = grp.getgrnam(name).gr_gid if name else number
            except KeyError:
                self._ids[key] = number
        return self._ids[key]

    def finish(self) -> None:
        """Give folders their modes, the deepest first, for a mode may lock us out."""
        for entry in sorted(self._folders, key=lambda one: len(one.parts), reverse=True):
            parent = self._folder(entry.parts[:-1])
            descriptor = os.open(entry.parts[-1], _DIRECTORY_FLAGS, dir_fd=parent)
            try:
                if entry.owner is not None and self._is_root:
                    os.fchown(descriptor, *self._owner(entry.owner))
                os.fchmod(descriptor, 0o755 if entry.mode is None else entry.mode)
                _set_time(descriptor, entry.mtime)
            finally:
                os.close(descriptor)


def _plain(kind: str) -> str:
    return "file" if kind == "hardlink" else kind


def _set_time(descriptor: int, mtime: float) -> None:
    # A time that no file system can hold is no reason to refuse the content.
    if 0 <= mtime < 2**33:
        os.utime(descriptor, (mtime, mtime))


class _Bounded:
    """A stream that gives no more than a bounded piece at once, whatever a header asks for."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > MAX_SINGLE_READ:
            raise ArchiveError(
                f"The bundle has a header of {size} bytes, which no honest archive needs."
            )
        return self._stream.read(size)

    def seek(self, position: int, whence: int = 0) -> int:
        return self._stream.seek(position, whence)

    def tell(self) -> int:
        return self._stream.tell()


def _tar_entries(path: str, compressed: bool) -> Iterator[Entry]:
    import tarfile

    with open(path, "rb") as raw:
        stream: Any = raw
        if compressed:
            import gzip

            stream = gzip.GzipFile(fileobj=raw)
        with tarfile.open(
            fileobj=_Bounded(stream),  # type: ignore[call-overload]  # read, seek, tell suffice
            mode="r:",
            errors="surrogateescape",
            bufsize=BLOCK,
        ) as archive:
            yield from _members(archive)


def _members(archive: Any) -> Iterator[Entry]:
    while True:
        member = archive.next()
        if member is None:
            break
        # tarfile keeps every header it has read; a bundle may have very many.
        archive.members = []
        if member.isreg() and member.sparse is None:
            kind = "file"
        elif member.isdir():
            kind = "directory"
        elif member.issym():
            kind = "link"
        elif member.islnk():
            kind = "hardlink"
        else:
            what = "sparse file" if member.isreg() else "device, pipe or other special file"
            raise ArchiveError(
                f"The bundle holds {member.name!r}, a {what}. Pack files, folders and links only."
            )
        if kind in ("link", "hardlink"):
            check_link(member.name, member.linkname)
        yield Entry(
            parts=split_name(member.name),
            kind=kind,
            mode=stat.S_IMODE(member.mode),
            size=member.size if kind == "file" else 0,
            mtime=float(member.mtime),
            target=member.linkname if kind in ("link", "hardlink") else "",
            owner=(member.uname, _id(member.uid), member.gname, _id(member.gid)),
            data=archive.extractfile(member) if kind == "file" else None,
        )
    # tarfile ends at a damaged header as if it were the end of the archive.
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(512).strip(b"\0"):
        raise ArchiveError(f"The bundle is damaged at byte {archive.offset}.")


def _id(number: int) -> int:
    return number if 0 <= number < 2**32 - 1 else 0


def check_link(name: str, target: str) -> None:
    """Refuse a link whose target no system would take.

    :raises ArchiveError: naming the link
    """
    if not target or "\0" in target or len(os.fsencode(target)) >= MAX_LINK:
        raise ArchiveError(f"The bundle's link {name!r} has a target that no link can have.")


def _zip_entries(path: str) -> Iterator[Entry]:
    import zipfile

    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            yield _zip_entry(archive, info)


def _zip_entry(archive: Any, info: Any) -> Entry:
    name = info.filename
    unix = info.create_system == 3
    if info.flag_bits & 0x1:
        raise ArchiveError(f"The bundle's {name!r} is encrypted. Pack it without a password.")
    if unix and not info.flag_bits & 0x800:
        # Zip on Unix stores the bytes of the name; zipfile reads them as code page 437.
        try:
            name = name.encode("cp437").decode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            name = info.filename
    if not unix:
        name = name.replace("\\", "/")
    mode = info.external_attr >> 16 if unix else _dos_mode(info)
    target = ""
    kind = "directory" if name.endswith("/") or stat.S_ISDIR(mode) else "file"
    if stat.S_ISLNK(mode):
        kind = "link"
        if info.file_size >= MAX_LINK:
            raise ArchiveError(f"The bundle's link {name!r} has a target that no link can have.")
        target = os.fsdecode(archive.read(info))
        check_link(name, target)
    elif stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ArchiveError(
            f"The bundle holds {name!r}, a device, pipe or other special file. Pack files, folders"
            " and links only."
        )
    return Entry(
        parts=split_name(name),
        kind=kind,
        # As unzip does it: setuid, setgid and the sticky bit are not taken from a zip.
        mode=mode & 0o777 if mode else None,
        size=info.file_size if kind == "file" else 0,
        mtime=_zip_time(info.date_time),
        target=target,
        owner=None,
        data=archive.open(info) if kind == "file" else None,
    )


def _dos_mode(info: Any) -> int:
    """Return the mode that unzip makes of MS-DOS attributes.

    Zip programs that say MS-DOS may have Unix modes beside; they count where both agree.
    """
    folder = info.filename.endswith(("/", "\\")) or bool(info.external_attr & 0x10)
    bits = 0o4 | (0 if info.external_attr & 0x1 else 0o2) | (0o1 if folder else 0)
    mode = info.external_attr >> 16 & 0o777 if info.create_system == 0 else 0
    if mode & 0o700 != bits << 6:
        mode = (0o444 | bits << 6 | bits << 3 | bits) & ~0o022
    return mode | (stat.S_IFDIR if folder else stat.S_IFREG)


def _zip_time(parts: tuple[int, ...]) -> float:
    try:
        return time.mktime((*parts, 0, 0, -1))  # type: ignore[arg-type]  # six numbers and three
    except (OverflowError, ValueError):
        return -1.0
