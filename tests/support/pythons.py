"""The Pythons of this machine that a target may have."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def pythons() -> dict[str, str]:
    """Return one Python of each version from 3.8 on: ``{"3.08": path}``, in their order."""
    candidates = [sys.executable, *map(str, sorted(Path("/usr/bin").glob("python3.*[0-9]")))]
    home = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates += map(str, sorted(home.glob("versions/3.*/bin/python")))
    found: dict[str, str] = {}
    for candidate in candidates:
        version = subprocess.run(
            [candidate, "-c", "import sys; print('%d.%02d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()
        if version >= "3.08":
            found.setdefault(version, candidate)
    return {version: found[version] for version in sorted(found)}
