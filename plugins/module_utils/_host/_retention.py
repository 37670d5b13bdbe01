# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep the newest deployments of a group, and the bundles that any of them still has."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from . import _layout

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._layout import Layout

DEFAULT = 5
DAY = 86_400


def prune(layout: Layout, keep: int) -> list[str]:
    """Remove a group's oldest deployments but ``keep``, this one included; return their ids.

    The last successful and the most recent deployment always stay: their scripts will be run.
    """
    protected = {layout.deployment.path}
    for pointer in (layout.last_successful, layout.most_recent):
        folder = _layout.read_pointer(pointer)
        if folder is not None:
            protected.add(os.path.normpath(folder.path))
    folders = []
    with os.scandir(layout.group) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append((entry.stat(follow_symlinks=False).st_mtime_ns, entry.path))
    folders.sort()
    excess = len(folders) - max(keep, 1)
    removed = []
    for _time, path in folders:
        if excess <= 0:
            break
        if os.path.normpath(path) not in protected:
            _remove_all([path])
            removed.append(os.path.basename(path))
            excess -= 1
    _prune_cache(layout.cache)
    return removed


def _prune_cache(cache: str) -> None:
    """Remove bundles that no deployment of any group has a hard link to."""
    try:
        with os.scandir(cache) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                # A part still being received is young; one a crash left behind is not.
                is_part = entry.name.endswith(".part")
                if status.st_nlink == 1 and (not is_part or time.time() - status.st_mtime > DAY):
                    os.unlink(entry.path)
    except FileNotFoundError:
        return


def _remove_all(paths: Iterable[str]) -> None:
    import shutil

    for path in paths:
        shutil.rmtree(path, ignore_errors=True)
