# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The AppSpec file for hosts: where it is, and what it says as plain JSON data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _appspec_rules, _appspec_yaml

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

DEFAULT_NAME = "appspec.yml"
LocatedError = _appspec_yaml.LocatedError


def parse_appspec(text: bytes | str, *, strict: str | None = None) -> dict[str, Any]:
    """Return the tree of an AppSpec file for hosts.

    ``{"version": 0.0, "os": "linux", "file_exists_behavior": str | None,
    "hooks": {event: [{"location", "timeout" (seconds), "runas", "sudo", ...}]},
    "files": [{"source", "destination"}],
    "permissions": [{"object", "pattern", "except", "type", "owner", "group", "mode" ("0644"),
    "acls", "context": {"name", "type", "range"} | None}]}``

    A script may also carry Bascule's own ``arguments``, ``environment``, ``retries`` and
    ``run_on`` (``success``, ``failure``, ``always``), each only where it was written.

    :param strict: ``agent-v1`` or ``agent-v2`` for exactly what that agent accepts; the default
        accepts what either of them does
    :raises AppSpecError: with the line and column where there are any
    """
    _appspec_rules.check_strict(strict)
    if strict == "agent-v1" and _has_byte_order_mark(text):
        raise LocatedError(
            "The AppSpec file begins with a byte order mark, which CodeDeploy's agent 1 refuses"
            " (unsupported operating system ()). Save it without one.",
            1,
            1,
            "byte-order-mark",
        )
    root = _appspec_yaml.load(text, ruby=strict == "agent-v1")
    return _appspec_rules.build(root, strict)


def _has_byte_order_mark(text: bytes | str) -> bool:
    if isinstance(text, str):
        return text.startswith("\ufeff")
    return text.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"))


def appspec_name(names: Collection[str]) -> str | None:
    """Choose the AppSpec file among the names at the top of a revision: yml before yaml."""
    return next((name for name in (DEFAULT_NAME, "appspec.yaml") if name in names), None)


def find_appspec(directory: Path) -> Path | None:
    """Return the AppSpec file of an unpacked revision, or None."""
    name = appspec_name({entry.name for entry in directory.iterdir() if entry.is_file()})
    return directory / name if name else None
