# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One thing that was found in a revision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._appspec_yaml import Node


@dataclass(frozen=True)
class Finding:
    """A finding with its place in the AppSpec file, counted from 1; 0 where it has none.

    ``severity`` is ``error`` (the revision is rejected), ``warning`` or ``info``. ``code`` is a
    stable short name for programs.
    """

    severity: str
    code: str
    line: int
    column: int
    message: str


def at(node: Node, severity: str, code: str, message: str) -> Finding:
    """Make a finding at the place of a value."""
    return Finding(severity, code, node.line, node.column, message)
