# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How whoever has started a run asks it to begin no further target.

It knows neither which deployment the run has opened nor where that is recorded; so it writes a file
that it has named in the environment, and the run pauses its own deployment.
"""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "BASCULE_PAUSE"


def pause_wanted() -> str | None:
    """Return why this run is to pause, None if it is to go on."""
    named = os.environ.get(VARIABLE)
    if not named:
        return None
    try:
        return Path(named).read_text(encoding="utf-8").strip()
    except OSError:
        return None


def want_pause(path: Path, why: str) -> None:
    """Ask the run that has ``path`` in its environment to pause."""
    part = path.with_suffix(".part")
    part.write_text(why, encoding="utf-8")
    part.replace(path)
