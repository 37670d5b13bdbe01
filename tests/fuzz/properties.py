"""What must hold for any AppSpec text and any archive, whoever made it.

No exception but BasculeError, nothing written outside of the destination, no unbounded output.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import shutil
import sys
import tarfile
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible_collections.bascule.deploy.plugins.module_utils import (
    _appspec,
    _appspec_yaml,
    _findings_appspec,
)
from ansible_collections.bascule.deploy.plugins.module_utils._errors import BasculeError
from ansible_collections.bascule.deploy.plugins.module_utils._findings import validate
from ansible_collections.bascule.deploy.plugins.module_utils._host import _archive, _tree
from ansible_collections.bascule.deploy.plugins.plugin_utils._revisions import _bundle
from ansible_collections.bascule.deploy.plugins.plugin_utils._revisions._cache import Cache

if TYPE_CHECKING:
    from collections.abc import Iterator

STRICT = (None, "agent-v1", "agent-v2")
LIMIT = 4 * 1024 * 1024
# Keys that only Bascule knows are checked, though the agents pass them over.
OWN_KEYS = ("run_on", "retries", "arguments", "environment")
# What a text may grow to when it is parsed: aliases, for example, must not multiply it.
MOST_SCALARS = 200_000
_TYPES = (
    tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE,
    tarfile.CHRTYPE, tarfile.GNUTYPE_SPARSE, tarfile.CONTTYPE,
)  # fmt: skip
# What the interpreter says before it opens, makes, links, moves or changes a path: which of its
# arguments are the paths.
_PATHS = {
    "open": (0,),
    "os.mkdir": (0,),
    "os.symlink": (1,),
    "os.link": (0, 1),
    "os.rename": (0, 1),
    "os.remove": (0,),
    "os.rmdir": (0,),
    "os.chmod": (0,),
    "os.chown": (0,),
    "os.utime": (0,),
    "os.truncate": (0,),
}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class _Watch:
    """Sees every path that is written to, wherever it is."""

    def __init__(self) -> None:
        self._inside = ""
        self._strayed: list[str] = []
        # A hook of the interpreter stays until its end, so there is one.
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._inside or event not in _PATHS:
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & _WRITING):
            return
        for index in _PATHS[event]:
            if not isinstance(arguments[index], (str, bytes)):
                continue
            path = os.fsdecode(arguments[index])
            absolute = path.startswith("/")
            outside = absolute and not path.startswith(self._inside)
            # What is relative has to be one name in a folder that is held open.
            if outside or ".." in path.split("/") or (not absolute and "/" in path):
                self._strayed.append(f"{event} {path!r}")

    @contextlib.contextmanager
    def inside(self, home: Path) -> Iterator[None]:
        """Raise if anything is written outside of a folder; temporary files go there, too."""
        self._strayed.clear()
        before, tempfile.tempdir = tempfile.tempdir, str(home)
        self._inside = f"{home}/"
        try:
            yield
        finally:
            self._inside = ""
            tempfile.tempdir = before
        if self._strayed:
            raise AssertionError(f"written outside: {self._strayed}")


WATCH = _Watch()


def appspec(text: bytes) -> str:
    """Parse a text as all three agents would, and look for hazards; return what came of it."""
    came = []
    own = False
    for strict in STRICT:
        try:
            parsed = _appspec.parse_appspec(text, strict=strict)
        except BasculeError as error:
            if not str(error):
                raise AssertionError("a refusal without a word") from error
            if len(str(error)) > 1000 + 20 * len(text):
                raise AssertionError("a short text has a huge refusal") from error
            came.append("refused")
            own = own or any(key in str(error) for key in OWN_KEYS)
            continue
        if set(parsed) < {"hooks", "files", "permissions"}:
            raise AssertionError(f"sections are missing: {sorted(parsed)}")
        json.dumps(parsed, allow_nan=False)
        if _size(parsed) > MOST_SCALARS:
            raise AssertionError("a short text became a huge tree")
        root = _appspec_yaml.load(text)
        for finding in _findings_appspec.hazards(text, root, parsed, "appspec.yml"):
            if finding.line < 0 or finding.column < 0 or not finding.message:
                raise AssertionError(f"a finding without a place or a word: {finding}")
        came.append("accepted")
    # Who is strict refuses more, never less, than the one who takes what either agent takes.
    if came[0] == "refused" and "accepted" in came[1:] and not own:
        raise AssertionError(f"refused, though an agent takes it: {came}")
    return came[0]


def _size(data: object) -> int:
    if isinstance(data, dict):
        return sum(1 + _size(value) for value in data.values())
    if isinstance(data, list):
        return sum(1 + _size(value) for value in data)
    return 1


def archive(data: bytes, home: Path) -> str:
    """Unpack an archive into ``home/around/in``; return what came of it."""
    shutil.rmtree(home, ignore_errors=True)
    around = home / "around"
    destination = around / "in"
    destination.mkdir(parents=True)
    (around / "neighbour").write_text("untouched")
    (home / "secret").write_text("secret")
    path = home / "bundle"
    path.write_bytes(shaped(data))
    try:
        # Links that lead out are taken every other time: nothing may be written through them.
        with WATCH.inside(around):
            links = len(data) % 2 == 1
            _archive.unpack(str(path), str(destination), limit=LIMIT, outside_links=links)
            _tree.scan(str(destination))
        came = "accepted"
    except BasculeError as error:
        if not str(error):
            raise AssertionError("a refusal without a word") from error
        came = "refused"
    _nothing_outside(home, around)
    written = sum(
        (Path(folder) / name).lstat().st_size
        for folder, _folders, names in os.walk(destination, onerror=None)
        for name in names
        if not (Path(folder) / name).is_symlink()
    )
    if written > LIMIT:
        raise AssertionError(f"{written} bytes were written, {LIMIT} are allowed")
    return came


def revision(data: bytes, home: Path) -> str:
    """Take an archive into the controller's cache, and validate it; return what came of it."""
    shutil.rmtree(home, ignore_errors=True)
    (home / "work").mkdir(parents=True)
    path = home / "bundle"
    path.write_bytes(shaped(data))
    cache = Cache(home / "work" / "cache")
    came = "accepted"
    with WATCH.inside(home / "work"):
        cache.prepare()
        for subdirectory in ("", "a"):
            try:
                _bundle.store_archive(cache, path, "bundle", subdirectory=subdirectory)
            except BasculeError as error:
                if not str(error):
                    raise AssertionError("a refusal without a word") from error
                came = "refused"
        if validate(path).appspec is None and came == "accepted":
            raise AssertionError("the cache takes what is not valid")
    return came


def _nothing_outside(home: Path, around: Path) -> None:
    for folder, expected in ((home, {"around", "bundle", "secret"}), (around, {"in", "neighbour"})):
        found = {path.name for path in folder.iterdir()}
        if found != expected:
            raise AssertionError(f"written outside: {found - expected or expected - found}")
    if (around / "neighbour").read_text() != "untouched":
        raise AssertionError("the neighbour was overwritten")
    if (home / "secret").read_text() != "secret" or (home / "secret").stat().st_nlink != 1:
        raise AssertionError("the secret was overwritten or linked")


def shaped(data: bytes) -> bytes:
    """Return bytes as an archive of the kind that the first byte says, or as they are."""
    if not data:
        return data
    kind, rest = data[0] % 5, data[1:]
    if kind == 1:
        return gzip.compress(rest, mtime=0)
    if kind == 2:
        return _tar(rest)
    if kind == 3:
        return _zip(rest)
    if kind == 4:
        return gzip.compress(_tar(rest), mtime=0)
    return rest


def _words(data: bytes) -> list[tuple[int, str, str]]:
    """Cut bytes into members: a number, a name and a target."""
    found = []
    for chunk in data.split(b"\xff")[:64]:
        number = chunk[0] if chunk else 0
        name, _separator, target = chunk[1:].partition(b"\xfe")
        found.append((number, name.decode("latin-1"), target.decode("latin-1")))
    return found


def _tar(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as made:
        for number, name, target in _words(data):
            member = tarfile.TarInfo(name)
            member.type = _TYPES[number % len(_TYPES)]
            member.mode = number << 4
            member.linkname = target
            content = target.encode("latin-1") if member.isreg() else b""
            member.size = len(content)
            try:
                made.addfile(member, io.BytesIO(content))
            except (ValueError, OSError, tarfile.TarError):
                continue
    return buffer.getvalue()


def _zip(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        # The same name twice is what an attacker would write, too.
        warnings.simplefilter("ignore")
        for number, name, target in _words(data):
            info = zipfile.ZipInfo(name or "x")
            info.create_system = 3
            kind = (0o100000, 0o120000, 0o040000, 0o010000)[number % 4]
            info.external_attr = (kind | 0o755) << 16
            try:
                made.writestr(info, target)
            except (ValueError, OSError, zipfile.LargeZipFile):
                continue
    return buffer.getvalue()
