# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep the controller's cache of revisions from growing for ever."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ._cache import RECORD

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
# What was used in this time another run may be about to deploy (seconds).
FRESH = 24 * 3600.0


def note_use(digest: str, *, cache: Path) -> None:
    """Remember that a revision is used now: what was used last is kept longest."""
    with contextlib.suppress(OSError):
        (cache / digest / RECORD).touch()


def prune(cache: Path, keep: int, needed: Callable[[], Collection[str]]) -> list[str]:
    """Remove the revisions that were used longest ago, and return their digests.

    :param keep: how many there may be; 0 is without end
    :param needed: asked only if there are more; returns the digests that are never removed
    """
    if keep <= 0:
        return []
    found: list[tuple[float, str]] = []
    with contextlib.suppress(OSError):
        for folder in cache.iterdir():
            if _DIGEST.match(folder.name):
                with contextlib.suppress(OSError):
                    found.append(((folder / RECORD).stat().st_mtime, folder.name))
    if len(found) <= keep:
        return []
    wanted = set(needed())
    fresh = time.time() - FRESH
    removed = []
    for used, digest in sorted(found, reverse=True)[keep:]:
        if digest not in wanted and used < fresh and _remove(cache, digest):
            removed.append(digest)
    if removed:
        _forget(cache, set(removed))
    return removed


def _remove(cache: Path, digest: str) -> bool:
    """Move a revision away in one step, so that nobody sees half of it, and remove that."""
    try:
        # Of the name that scratch folders have: if we are killed here, it is swept up.
        away = Path(tempfile.mkdtemp(prefix=".new-", dir=cache))
        (cache / digest).rename(away / digest)
    except OSError:
        return False
    shutil.rmtree(away, ignore_errors=True)
    return True


def _forget(cache: Path, digests: set[str]) -> None:
    """Remove the notes which commit or archive had such a content."""
    with contextlib.suppress(OSError):
        for note in (cache / "index").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if note.read_text(encoding="ascii").strip() in digests:
                    note.unlink()
