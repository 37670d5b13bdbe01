# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the text that a person gives to a verified revision in the cache."""

from __future__ import annotations

import dataclasses
import posixpath
from pathlib import Path

from ...module_utils._errors import RevisionError
from ._bundle import parsed, store_archive, store_folder
from ._cache import Cache
from ._git import SILENCE, describe, repository
from ._http import fetch
from ._model import Origin, Revision, Stored
from ._sources import GitHubSource, GitSource, PathSource, S3Source, UrlSource, parse, sha256_of
from ._tree import hash_of_file

Found = tuple[Stored, Origin]


def resolve(
    source: str,
    *,
    cache: Path,
    checksum: str | None = None,
    subdirectory: str | None = None,
    ref: str | None = None,
    base: Path | None = None,
    silence: float = SILENCE,
    github: tuple[str, str] = ("", ""),
) -> Revision:
    """Find a revision, verify it and put it into the cache.

    :param source: a folder, an archive (tar, tgz, zip), a commit (``git+https://…#REF`` and so on,
        or a repository's path with ``#REF``), ``s3://BUCKET/KEY``,
        ``github://OWNER/REPOSITORY@COMMIT``, ``codecommit://REPOSITORY@REF``, or an http(s) URL
        with a checksum
    :param cache: the cache's folder; made for this user only where it is missing
    :param checksum: ``sha256:…``; of an archive's file, or, for a folder and a commit, the digest
    :param subdirectory: the folder inside of the source that holds the AppSpec file
    :param ref: the branch, tag or commit, where the source does not name it
    :param base: where a relative path begins; the current folder by default
    :param silence: seconds without any progress after which a transfer is given up
    :param github: address of GitHub's API (github.com's by default), and a token for it
    :raises RevisionError: when it cannot be found, fetched or verified
    :raises AppSpecError: when it has no AppSpec file, or a refused one
    """
    inside = _inside(subdirectory)
    place = parse(source, checksum=checksum, ref=ref, base=base or Path.cwd())
    store = Cache(cache)
    store.prepare()
    if isinstance(place, GitSource):
        stored, origin = _from_git(store, place, inside, checksum, silence)
    elif isinstance(place, UrlSource):
        stored, origin = _from_url(store, place, inside, silence)
    elif isinstance(place, S3Source):
        stored, origin = _from_s3(store, place, inside)
    elif isinstance(place, GitHubSource):
        place = dataclasses.replace(place, api=github[0], token=github[1])
        stored, origin = _from_github(store, place, inside, checksum, silence)
    else:
        stored, origin = _from_path(store, place, inside, checksum)
    store.set_origin(stored.digest, origin)
    return _revision(stored, origin)


def _inside(subdirectory: str | None) -> str:
    text = posixpath.normpath(subdirectory) if subdirectory else "."
    if text.startswith(("/", "../")) or text == ".." or "\0" in text or ":" in text:
        raise RevisionError(
            f"The subdirectory {subdirectory!r} is not inside of the source. Give a relative path "
            "without '..'."
        )
    return "" if text == "." else text


def has_revision(digest: str, *, cache: Path) -> bool:
    """Tell whether the cache has the bundle of a revision, whatever its AppSpec file says."""
    return digest.isalnum() and Cache(cache).load(digest, verify=False) is not None


def load_revision(digest: str, *, cache: Path) -> Revision | None:
    """Give a revision that was resolved before, or None when the cache does not have it (any more).

    :raises AppSpecError: when its AppSpec file is refused
    """
    store = Cache(cache)
    stored = store.load(digest, verify=False) if digest.isalnum() else None
    origin = store.origin(digest) if stored else None
    if stored is None:
        return None
    return _revision(stored, origin or Origin(f"revision {digest[:12]}", ""))


def _revision(stored: Stored, origin: Origin) -> Revision:
    return Revision(
        digest=stored.digest,
        source=origin.source,
        description=origin.description,
        bundle_path=str(stored.bundle_path),
        bundle_sha256=stored.bundle_sha256,
        bundle_size=stored.bundle_size,
        bundle_type=stored.bundle_type,
        manifest=stored.manifest,
        appspec=parsed(stored.appspec_path, stored.appspec_text, origin.source),
        environment=origin.environment,
    )


def _shown(shown: str, inside: str) -> str:
    return f"{shown} ({inside})" if inside else shown


def _expect_digest(stored: Stored, checksum: str | None, shown: str) -> None:
    if checksum is None:
        return
    expected = sha256_of(checksum, shown)
    if stored.digest != expected:
        raise RevisionError(
            f"{shown} is not what was expected: digest expected {expected}, got {stored.digest}. "
            "Nothing was deployed. Find out whether the content or the checksum is wrong."
        )


def _from_path(store: Cache, place: PathSource, inside: str, checksum: str | None) -> Found:
    path = place.path
    if path.is_dir():
        root = path / inside
        if not root.is_dir():
            raise RevisionError(
                f"{place.shown} has no folder {inside!r}. Correct the subdirectory."
            )
        stored = store_folder(store, root, str(root))
        _expect_digest(stored, checksum, place.shown)
        return stored, Origin(_shown(place.shown, inside), root.resolve().name)
    try:
        sha256 = hash_of_file(path)
    except OSError as error:
        raise RevisionError(
            f"{place.shown} cannot be read: {error.strerror or error}. Check its permissions."
        ) from error
    if checksum is not None and sha256_of(checksum, place.shown) != sha256:
        raise RevisionError(
            f"{place.shown} is not what was expected: sha256 expected "
            f"{sha256_of(checksum, place.shown)}, got {sha256}. Nothing was deployed. Find out "
            "whether the file or the checksum is wrong."
        )
    stored = _archive(store, path, place.shown, sha256, inside)
    return stored, Origin(_shown(place.shown, inside), path.name)


def _archive(store: Cache, path: Path, shown: str, sha256: str, inside: str) -> Stored:
    key = f"archive:{sha256}:{inside}"
    known = store.remembered(key)
    if known:
        return known
    stored = store_archive(store, path, shown, sha256=sha256, subdirectory=inside)
    store.remember(key, stored.digest)
    return stored


def _from_url(store: Cache, place: UrlSource, inside: str, silence: float) -> Found:
    stored = store.remembered(f"archive:{place.sha256}:{inside}")
    if stored is None:
        with store.scratch() as folder:
            target = folder / "fetched"
            fetch(place, target, silence)
            stored = _archive(store, target, place.shown, place.sha256, inside)
    name = posixpath.basename(place.url.split("?", 1)[0])
    return stored, Origin(_shown(place.shown, inside), name)


def _from_s3(store: Cache, place: S3Source, inside: str) -> Found:
    from ._s3 import download, pinned

    place = pinned(place)
    key = f"s3:{place.bucket}:{place.key}:{place.version}:{place.etag}:{inside}"
    stored = store.remembered(key)
    if stored is None or place.sha256:
        with store.scratch() as folder:
            target = folder / "fetched"
            sha256 = download(place, target)
            stored = _archive(store, target, place.shown, sha256, inside)
            store.remember(key, stored.digest)
    environment = {
        "BUNDLE_BUCKET": place.bucket,
        "BUNDLE_KEY": place.key,
        "BUNDLE_VERSION": place.version,
        "BUNDLE_ETAG": place.etag,
    }
    shown = f"{place.shown}?versionId={place.version}" if place.version else place.shown
    told = {name: value for name, value in environment.items() if value}
    return stored, Origin(_shown(shown, inside), posixpath.basename(place.key), told)


def _from_github(
    store: Cache, place: GitHubSource, inside: str, checksum: str | None, silence: float
) -> Found:
    from ._github import commit_of, download

    commit = commit_of(place, silence)
    key = f"github:{place.api}:{place.repository}:{commit}:{inside}"
    stored = store.remembered(key)
    if stored is None:
        with store.scratch() as folder:
            target = folder / "fetched"
            sha256 = download(place, commit, target, silence)
            stored = _archive(store, target, place.shown, sha256, inside)
            store.remember(key, stored.digest)
    _expect_digest(stored, checksum, place.shown)
    description = f"{place.repository} {place.ref if place.ref != commit else commit[:12]}"
    return stored, Origin(_shown(place.shown, inside), description, {"BUNDLE_COMMIT": commit})


def _from_git(
    store: Cache, place: GitSource, inside: str, checksum: str | None, silence: float
) -> Found:
    with repository(store, place, silence) as (git, commit):
        description = describe(git, commit)
        key = f"git:{commit}:{inside}"
        stored = store.remembered(key)
        if stored is None:
            with store.scratch() as folder:
                archive = folder / "commit.tar"
                git.must("archive", "--format=tar", commit, output=archive)
                stored = store_archive(store, archive, place.shown, subdirectory=inside)
            store.remember(key, stored.digest)
    _expect_digest(stored, checksum, place.shown)
    return stored, Origin(_shown(place.shown, inside), description, {"BUNDLE_COMMIT": commit})
