# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Revisions on the controller: found, verified, named by their content and kept in a cache."""

from __future__ import annotations

from ._model import Entry, Revision
from ._presigned import bundle_address
from ._prune import note_use, prune
from ._resolve import has_revision, load_revision, resolve

__all__ = [
    "Entry",
    "Revision",
    "bundle_address",
    "has_revision",
    "load_revision",
    "note_use",
    "prune",
    "resolve",
]
