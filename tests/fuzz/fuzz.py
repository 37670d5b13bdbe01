"""Coverage-guided fuzzing of AppSpec texts and archives: ``make fuzz FUZZ_SECONDS=3600``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports():
    from ansible_collections.bascule.deploy.plugins.module_utils import (  # noqa: F401
        _appspec,
        _findings,
        _findings_appspec,
        _findings_files,
    )
    from ansible_collections.bascule.deploy.plugins.module_utils._host import (  # noqa: F401
        _archive,
        _tree,
    )
    from ansible_collections.bascule.deploy.plugins.plugin_utils._revisions import (  # noqa: F401
        _bundle,
    )

import properties


def main() -> None:
    """Fuzz one target: ``fuzz.py appspec|archive|revision [options of libFuzzer]``."""
    target, *options = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="bascule-fuzz-", dir=_memory()) as folder:
        home = Path(folder) / "home"

        def run(data: bytes) -> None:
            if target == "appspec":
                properties.appspec(data)
            elif target == "archive":
                properties.archive(data, home)
            else:
                properties.revision(data, home)

        atheris.Setup([sys.argv[0], *options], run)
        atheris.Fuzz()


def _memory() -> str | None:
    shared = Path("/dev/shm")  # noqa: S108 - a private folder is made in it
    return str(shared) if shared.is_dir() else None


if __name__ == "__main__":
    main()
