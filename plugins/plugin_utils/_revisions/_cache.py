# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The content-addressed cache: ``<cache>/<digest>/{bundle.*,*.json}``.

A revision appears whole, by one rename, or not at all; so any number of processes may write the
same one at once. ``index/`` remembers which content a commit or a checked archive has, so that
neither is fetched nor read again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import shutil
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ...module_utils._errors import RevisionError
from ._model import Entry, Origin, Stored
from ._tree import hash_of_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FULL = (errno.ENOSPC, errno.EDQUOT)
STALE = 24 * 3600.0
RECORD = "revision.json"
ORIGIN = "origin.json"


class Cache:
    """A folder of revisions that belongs to one user."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def prepare(self) -> None:
        """Make the cache's folders, for this user only.

        :raises RevisionError: when they cannot be made
        """
        try:
            for folder in (self.root, self.root / "index", self.root / "git"):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.root.chmod(0o700)
        except OSError as error:
            raise self.failure(error) from error

    def failure(self, error: OSError) -> RevisionError:
        """Say why the cache cannot be written."""
        if error.errno in FULL:
            free = ""
            with contextlib.suppress(OSError):
                free = f" ({shutil.disk_usage(self.root).free // 1024**2} MiB are free)"
            return RevisionError(
                f"The disk of the revision cache {self.root} is full{free}. Free some space "
                "there, or set BASCULE_STATE to a folder with more."
            )
        return RevisionError(
            f"The revision cache {self.root} cannot be written: {error.strerror or error}. "
            "Correct its owner and permissions, or set BASCULE_STATE to a folder of your own."
        )

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Lend a private folder on the cache's file system, and remove it at the end.

        :raises RevisionError: when the disk is full or the cache cannot be written
        """
        try:
            self._sweep()
            folder = Path(tempfile.mkdtemp(prefix=".new-", dir=self.root))
        except OSError as error:
            raise self.failure(error) from error
        try:
            yield folder
        except OSError as error:
            raise self.failure(error) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what processes that were killed left behind."""
        for left in self.root.glob(".new-*"):
            with contextlib.suppress(OSError):
                if time.time() - left.stat().st_mtime > STALE:
                    shutil.rmtree(left, ignore_errors=True)

    def load(self, digest: str, *, verify: bool = True) -> Stored | None:
        """Give a stored revision, or None when it is missing or no longer what it was.

        :param verify: read the whole bundle; without it only its size is compared, which is enough
            where the receiver verifies it
        """
        folder = self.root / digest
        try:
            data = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            bundle = folder / f"bundle.{data['bundle_type']}"
            if bundle.stat().st_size != data["bundle_size"]:
                return None
            if verify and hash_of_file(bundle) != data["bundle_sha256"]:
                return None
            manifest: list[Entry] = data["manifest"]
            return Stored(
                digest=digest,
                bundle_path=bundle,
                bundle_sha256=data["bundle_sha256"],
                bundle_size=data["bundle_size"],
                bundle_type=data["bundle_type"],
                manifest=manifest,
                appspec_path=data["appspec_path"],
                appspec_text=data["appspec_text"].encode("utf-8", "surrogateescape"),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def store(
        self,
        digest: str,
        manifest: list[Entry],
        appspec: tuple[str, bytes],
        bundle_type: str,
        write: Callable[[Path], None],
    ) -> Stored:
        """Add a revision; where another process was faster, take its copy.

        :param write: writes the bundle to the path that it gets
        :raises RevisionError: when the disk is full or the cache cannot be written
        """
        with self.scratch() as folder:
            bundle = folder / f"bundle.{bundle_type}"
            write(bundle)
            bundle.chmod(0o600)
            record = {
                "digest": digest,
                "bundle_sha256": hash_of_file(bundle),
                "bundle_size": bundle.stat().st_size,
                "bundle_type": bundle_type,
                "manifest": manifest,
                "appspec_path": appspec[0],
                "appspec_text": appspec[1].decode("utf-8", "surrogateescape"),
            }
            _write(folder / RECORD, json.dumps(record, indent=1))
            self._publish(folder, digest)
        stored = self.load(digest)
        if stored is None:
            raise RevisionError(
                f"The revision {digest[:12]} was written to {self.root} but cannot be read back. "
                "Check that disk, remove the folder and deploy again."
            )
        return stored

    def _publish(self, folder: Path, digest: str) -> None:
        home = self.root / digest
        for _attempt in range(3):
            try:
                folder.rename(home)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                    raise
                if self.load(digest):
                    return
                # A damaged copy makes room; whoever moves it first does so for all.
                with contextlib.suppress(FileNotFoundError):
                    home.rename(Path(tempfile.mkdtemp(prefix=".new-", dir=self.root)) / "damaged")
            else:
                return

    def remembered(self, key: str) -> Stored | None:
        """Give the revision that a commit or a checked archive is known to have."""
        try:
            digest = self._note(key).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return None
        return self.load(digest) if digest.isalnum() else None

    def remember(self, key: str, digest: str) -> None:
        """Note which content a commit or a checked archive has."""
        with self.scratch() as folder:
            _write(folder / "note", digest).replace(self._note(key))

    def origin(self, digest: str) -> Origin | None:
        """Give where a revision came from last."""
        try:
            data = json.loads((self.root / digest / ORIGIN).read_text(encoding="utf-8"))
            return Origin(**data)
        except (OSError, ValueError, TypeError):
            return None

    def set_origin(self, digest: str, origin: Origin) -> None:
        """Note where a revision came from."""
        if self.origin(digest) != origin:
            with self.scratch() as folder:
                text = json.dumps(asdict(origin))
                _write(folder / ORIGIN, text).replace(self.root / digest / ORIGIN)

    def _note(self, key: str) -> Path:
        return (
            self.root / "index" / hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
        )


def _write(path: Path, text: str) -> Path:
    """Write a file that only its owner may read, on any umask."""
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
    return path
