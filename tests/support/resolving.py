"""Several processes that resolve one revision at the same moment."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """\
import sys
from pathlib import Path
from ansible_collections.bascule.deploy.plugins.plugin_utils._revisions import resolve
for _round in range(int(sys.argv[3])):
    print(resolve(sys.argv[1], cache=Path(sys.argv[2])).digest)
"""


def digests_of(source: str, cache: Path, *, processes: int = 4, rounds: int = 3) -> list[str]:
    """Resolve in processes of their own, all started at once; return every digest they saw."""
    command = [sys.executable, "-c", PROGRAM, source, str(cache), str(rounds)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    digests = []
    for process in running:
        output, _nothing = process.communicate(timeout=300)
        assert process.returncode == 0
        digests += output.split()
    assert len(digests) == processes * rounds
    return digests
