"""Stop what a demonstration has started if that itself is killed.

Runs beside it (``python -m bascule.demo._guard DIRECTORY``), reads from a pipe that only the
demonstration holds, and has nothing to do as long as that is open, or when it was told ``done``.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from bascule.demo._processes import end_marked

# What the killed demonstration was just starting is seen a little later.
LOOKS = 10
PAUSE_SECONDS = 0.5


def main() -> None:
    """Wait for the end of the pipe; stop everything unless ``done`` was said."""
    if sys.stdin.read().strip() == "done":
        return
    for _look in range(LOOKS):
        end_marked(Path(sys.argv[1]))
        time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    main()
