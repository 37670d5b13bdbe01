# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a revision is: its manifest, its digest, and the record that the cache keeps of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

FORMAT = b"bascule revision 1\n"


class Entry(TypedDict):
    """One path of a revision.

    ``mode`` holds the permission bits (0 to 0o7777; always 0o777 for a link), ``size`` is in bytes,
    ``sha256`` is empty except for files, ``target`` is empty except for links.
    """

    path: str
    type: str
    mode: int
    size: int
    sha256: str
    target: str


@dataclass(frozen=True)
class Revision:
    """A bundle in the cache.

    ``digest`` names the content and is the same for a folder, its tar and its zip.
    ``bundle_sha256`` and ``bundle_size`` are of the one file that is sent to the hosts.
    ``source`` and ``description`` are for people and hold no credentials. ``environment`` is what
    hooks get besides the usual variables (``BUNDLE_COMMIT`` for a commit).
    """

    digest: str
    source: str
    description: str
    bundle_path: str
    bundle_sha256: str
    bundle_size: int
    bundle_type: str
    manifest: list[Entry]
    appspec: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Origin:
    """Where a revision came from, as it was resolved last."""

    source: str
    description: str
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stored:
    """What the cache knows of a digest, wherever it came from."""

    digest: str
    bundle_path: Path
    bundle_sha256: str
    bundle_size: int
    bundle_type: str
    manifest: list[Entry]
    appspec_path: str
    appspec_text: bytes


def digest_of(manifest: Iterable[Entry]) -> str:
    """Name a content: SHA-256 over type, mode, path and content of every entry, sorted by path.

    Times are left out: the same content built twice is the same revision.
    """
    total = hashlib.sha256(FORMAT)
    for entry in sorted(manifest, key=lambda entry: entry["path"]):
        content = entry["target"] if entry["type"] == "link" else entry["sha256"]
        fields = (entry["type"], f"{entry['mode']:04o}", entry["path"], content)
        total.update("".join(f"{text}\0" for text in fields).encode("utf-8", "surrogateescape"))
    return total.hexdigest()
