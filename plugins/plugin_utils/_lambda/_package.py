# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The code of Lambda functions: from what ``deploy_revision`` names to zips and images."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import os
import posixpath
import shutil
import stat
import tempfile
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...module_utils import _appspec
from ...module_utils._appspec_lambda import is_lambda, load, parse_lambda_appspec
from ...module_utils._errors import ArchiveError, RevisionError
from ...module_utils._host import _archive
from .._revisions._cache import Cache
from .._revisions._git import SILENCE, describe, repository
from .._revisions._http import fetch
from .._revisions._prune import FRESH
from .._revisions._sources import (
    GitHubSource,
    GitSource,
    PathSource,
    S3Source,
    UrlSource,
    parse,
    sha256_of,
)
from .._revisions._tree import hash_of_file, read_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

FOLDER = "lambda"
APPSPEC_ENDS = (".yml", ".yaml", ".json")
# Lambda's own limits: of a request with the code in it, and of the unpacked code (developer guide,
# "Lambda quotas").
MOST_SENT = 50 * 1024**2
MOST_UNPACKED = 250 * 1024**2
# The earliest time that a zip can tell, so that the same files are the same bytes.
_EPOCH = (1980, 1, 1, 0, 0, 0)
_UNIX = 3
_CHUNK = 1024 * 1024


@dataclasses.dataclass(frozen=True)
class Code:
    """What a function runs.

    ``sha256`` is as Lambda tells it (base64 of a zip's, hexadecimal of an image's). ``place`` says
    where Lambda finds it itself (``S3Bucket`` …, or ``ImageUri``); empty for a zip that is sent.
    ``size`` is in bytes, 0 for an image.
    """

    sha256: str
    size: int = 0
    place: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Source:
    """Where packages come from: a folder, or one file; ``hooks`` are those of its AppSpec file.

    ``place`` is as in ``Code``, for a file that is in S3 itself.
    """

    path: Path
    shown: str
    description: str
    hooks: dict[str, str] = dataclasses.field(default_factory=dict)
    place: dict[str, str] = dataclasses.field(default_factory=dict)
    environment: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def is_appspec(self) -> bool:
        """Whether this is an AppSpec file by itself: its versions are published already."""
        return self.path.is_file() and self.shown.split("?")[0].endswith(APPSPEC_ENDS)


@contextlib.contextmanager
def opened(
    text: str, *, checksum: str, inside: str, several: bool, base: Path, cache: Path
) -> Iterator[Source]:
    """Give what ``deploy_revision`` names, while the block runs.

    :param checksum: ``sha256:…`` of an archive's file, needed for http(s)
    :param inside: the folder of the source that is meant
    :param several: the source holds packages, and is none itself
    :raises RevisionError: it cannot be found, fetched or verified
    :raises AppSpecError: its AppSpec file is refused
    """
    place = parse(text, checksum=checksum or None, ref=None, base=base)
    store = Cache(cache)
    store.prepare()
    with store.scratch() as folder:
        source = _fetched(place, store, folder, checksum)
        packed = source.path.is_file() and not source.is_appspec
        if inside or (packed and (several or not _is_zip(source))):
            source = _unpacked(source, folder, inside)
        yield dataclasses.replace(source, hooks=_hooks(source))


def package_of(source: Source, inside: str, cache: Path) -> Code:
    """Return the code of one function, kept in the cache as the zip that Lambda gets.

    :param inside: path of a zip or a folder in the source; empty for the whole source
    :raises RevisionError: there is no such path, or the package is larger than Lambda takes
    """
    path = _member(source, inside)
    if path.is_file():
        hexadecimal = hash_of_file(path)
        kept = kept_package(hexadecimal, cache)
        if kept.exists():
            # What was used last is kept longest.
            kept.touch()
        else:
            _keep(path, kept, cache)
    else:
        ignored = frozenset(_appspec_names(path)) if not inside else frozenset()
        made = _zipped(path, source.shown, ignored, cache)
        hexadecimal = hash_of_file(made)
        kept = kept_package(hexadecimal, cache)
        made.replace(kept)
    size = kept.stat().st_size
    place = dict(source.place) if path == source.path else {}
    if size > MOST_SENT and not place:
        raise RevisionError(
            f"The package of {source.shown} has {size // 1024**2} MB; Lambda takes at most "
            f"{MOST_SENT // 1024**2} MB in a request. Put the zip into S3 and deploy it from "
            "s3://…, or make it an image."
        )
    return Code(base64.b64encode(bytes.fromhex(hexadecimal)).decode(), size, place)


def kept_package(hexadecimal: str, cache: Path) -> Path:
    """Return where the zip with this SHA-256 is kept."""
    return cache / FOLDER / f"{hexadecimal}.zip"


def prune_packages(cache: Path, keep: int, needed: Callable[[], Collection[str]]) -> list[str]:
    """Remove the kept zips that were used longest ago, and return the SHA-256 of each.

    :param keep: how many there may be; 0 is without end
    :param needed: asked only if there are more; returns the SHA-256 (as Lambda tells it) of those
        that are never removed
    """
    if keep <= 0:
        return []
    found: list[tuple[float, Path]] = []
    for path in (cache / FOLDER).glob("*"):
        with contextlib.suppress(OSError):
            found.append((path.stat().st_mtime, path))
    stale = time.time() - FRESH
    packages = sorted((one for one in found if one[1].suffix == ".zip"), reverse=True)
    # What a process that was killed has begun has no such name.
    going = [path for used, path in found if path.suffix != ".zip" and used < stale]
    removed = []
    if len(packages) > keep:
        wanted = {base64.b64decode(one).hex() for one in needed()}
        old = [path for used, path in packages[keep:] if used < stale and path.stem not in wanted]
        going += old
        removed = [path.stem for path in old]
    for path in going:
        path.unlink(missing_ok=True)
    return removed


def image_of(address: str) -> Code:
    """Return the code of an image, pinned to its digest.

    :raises RevisionError: the registry does not know the tag, or does not answer
    """
    name, _mark, digest = address.partition("@sha256:")
    if not digest:
        name, digest = address, _digest_of_tag(address)
        name = name.rpartition(":")[0] if ":" in name.rpartition("/")[2] else name
    return Code(digest, 0, {"ImageUri": f"{name}@sha256:{digest}"})


def arguments_of(code: Code, cache: Path) -> dict[str, Any]:
    """Return how UpdateFunctionCode is told of a code.

    :raises RevisionError: the zip is not in this controller's cache
    """
    if code.place:
        return dict(code.place)
    path = kept_package(base64.b64decode(code.sha256).hex(), cache)
    if not path.is_file():
        raise RevisionError(
            f"The package {code.sha256} is neither a version of the function any more nor in this "
            f"controller's cache ({path.parent}). Deploy it again from its source."
        )
    return {"ZipFile": path.read_bytes()}


def _digest_of_tag(address: str) -> str:
    from botocore.exceptions import BotoCoreError, ClientError

    from .._aws import client, reason

    registry, _slash, rest = address.partition("/")
    repository_name, _colon, tag = rest.partition(":")
    # ACCOUNT.dkr.ecr.REGION.amazonaws.com
    account, _dkr, _ecr, region = registry.split(".")[:4]
    try:
        told = client("ecr", region=region).describe_images(
            registryId=account,
            repositoryName=repository_name,
            imageIds=[{"imageTag": tag or "latest"}],
        )
    except (BotoCoreError, ClientError) as error:
        raise RevisionError(
            f"The image {address} cannot be looked up: {reason(error)} Name it by its digest "
            "(…@sha256:…) to deploy it without asking the registry."
        ) from error
    return str(told["imageDetails"][0]["imageDigest"]).removeprefix("sha256:")


def _fetched(
    place: GitSource | UrlSource | S3Source | GitHubSource | PathSource,
    store: Cache,
    folder: Path,
    checksum: str,
) -> Source:
    if isinstance(place, PathSource):
        if place.path.is_file() and checksum:
            expected, got = sha256_of(checksum, place.shown), hash_of_file(place.path)
            if got != expected:
                raise RevisionError(
                    f"{place.shown} is not what was expected: sha256 expected {expected}, got "
                    f"{got}. Nothing was deployed."
                )
        return Source(place.path, place.shown, place.path.resolve().name)
    if isinstance(place, UrlSource):
        target = folder / "fetched"
        fetch(place, target, SILENCE)
        return Source(target, place.shown, posixpath.basename(place.url.split("?", 1)[0]))
    if isinstance(place, S3Source):
        return _from_s3(place, folder)
    if isinstance(place, GitHubSource):
        return _from_github(place, folder)
    with repository(store, place, SILENCE) as (git, commit):
        archive = folder / "commit.tar"
        git.must("archive", "--format=tar", commit, output=archive)
        told = {"BUNDLE_COMMIT": commit}
        return Source(archive, place.shown, describe(git, commit), environment=told)


def _from_github(place: GitHubSource, folder: Path) -> Source:
    """Fetch a commit; the token, if it needs one, is that of the environment."""
    from .._revisions._github import commit_of, download

    commit = commit_of(place, SILENCE)
    target = folder / "fetched"
    download(place, commit, target, SILENCE)
    return Source(target, place.shown, place.shown, environment={"BUNDLE_COMMIT": commit})


def _from_s3(place: S3Source, folder: Path) -> Source:
    from .._revisions._s3 import download, pinned

    place = pinned(place)
    target = folder / "fetched"
    download(place, target)
    found = {"S3Bucket": place.bucket, "S3Key": place.key}
    if place.version:
        found["S3ObjectVersion"] = place.version
    shown = f"{place.shown}?versionId={place.version}" if place.version else place.shown
    return Source(target, shown, posixpath.basename(place.key), place=found)


def _is_zip(source: Source) -> bool:
    try:
        return _archive.detect(str(source.path)) == "zip"
    except ArchiveError:
        return False


def _unpacked(source: Source, folder: Path, inside: str) -> Source:
    """Return a source as a folder: what an archive holds, or the folder inside of it."""
    top = source.path
    if top.is_file():
        top = folder / "unpacked"
        top.mkdir()
        _archive.unpack(str(source.path), str(top), limit=4 * MOST_UNPACKED)
    if inside:
        top = _member(dataclasses.replace(source, path=top), inside)
    return dataclasses.replace(source, path=top, place={})


def _member(source: Source, inside: str) -> Path:
    if not inside:
        return source.path
    text = posixpath.normpath(inside)
    if text.startswith(("/", "../")) or text == ".." or "\0" in text:
        raise RevisionError(f"The package {inside!r} is not inside of the revision.")
    found = source.path / text
    if source.path.is_file() or not found.exists():
        raise RevisionError(
            f"{source.shown} has no {inside!r}. Correct deploy_lambda_package, or leave it empty "
            "if the revision is the package itself."
        )
    return found


def _appspec_names(folder: Path) -> list[str]:
    """Return the name of the folder's AppSpec file, if it has one for Lambda."""
    file = _appspec.find_appspec(folder)
    if file is None and (folder / "appspec.json").is_file():
        file = folder / "appspec.json"
    return [file.name] if file is not None and is_lambda(load(file.read_bytes())) else []


def _hooks(source: Source) -> dict[str, str]:
    """Return the hooks of the AppSpec file that comes with a package."""
    if not source.path.is_dir():
        return {}
    names = _appspec_names(source.path)
    if not names:
        return {}
    text = (source.path / names[0]).read_bytes()
    hooks: dict[str, str] = parse_lambda_appspec(text, published=False)["hooks"]
    return hooks


def _zipped(root: Path, shown: str, ignored: frozenset[str], cache: Path) -> Path:
    """Make a zip of a folder: the same bytes for the same paths, rights and contents."""
    members = [one for one in read_tree(root, shown) if one.path.split("/")[0] not in ignored]
    if sum(one.size for one in members) > MOST_UNPACKED:
        raise RevisionError(
            f"{shown} is larger than {MOST_UNPACKED // 1024**2} MB, the most that Lambda takes. "
            "Leave out what the function does not need, or make it an image."
        )
    target = _making(cache)
    with zipfile.ZipFile(target, "w") as archive:
        for member in members:
            if member.type == "directory":
                continue
            told = zipfile.ZipInfo(member.path, _EPOCH)
            told.create_system = _UNIX
            kind = stat.S_IFLNK if member.type == "link" else stat.S_IFREG
            told.external_attr = (kind | member.mode) << 16
            told.compress_type = zipfile.ZIP_DEFLATED
            if member.type == "link":
                archive.writestr(told, member.target)
                continue
            with (root / member.path).open("rb") as file, archive.open(told, "w") as into:
                shutil.copyfileobj(file, into, _CHUNK)
    return target


def _making(cache: Path) -> Path:
    folder = cache / FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=".new-", dir=folder)
    os.close(descriptor)
    return Path(name)


def _keep(path: Path, kept: Path, cache: Path) -> None:
    making = _making(cache)
    shutil.copyfile(path, making)
    making.replace(kept)
