"""What must hold for any AppSpec text and any archive, whoever made it.

No exception but BasculeError, nothing written outside of the destination, no unbounded output.
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
import tarfile
import warnings
import zipfile
from pathlib import Path

from ansible_collections.bascule.deploy.plugins.module_utils import (
    _appspec,
    _appspec_yaml,
    _findings_appspec,
)
from ansible_collections.bascule.deploy.plugins.module_utils._errors import BasculeError
from ansible_collections.bascule.deploy.plugins.module_utils._host import _archive, _tree

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
            came.append("refused")
            own = own or any(key in str(error) for key in OWN_KEYS)
            continue
        if set(parsed) < {"hooks", "files", "permissions"}:
            raise AssertionError(f"sections are missing: {sorted(parsed)}")
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
        _archive.unpack(str(path), str(destination), limit=LIMIT)
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
