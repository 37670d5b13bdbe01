# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the record tells a person while it waits for something."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def _on_stderr(text: str) -> None:
    sys.stderr.write(f"bascule: {text}\n")
    sys.stderr.flush()


_listeners: list[Callable[[str], None]] = [_on_stderr]


def listen(listener: Callable[[str], None]) -> None:
    """Have this process's notices go to ``listener``, and no more to the standard error."""
    _listeners[:] = [listener]


def tell(text: str) -> None:
    """Tell a person one sentence."""
    for listener in _listeners:
        listener(text)
