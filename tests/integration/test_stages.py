"""The stages of ``make test``: all are run, none passes that failed, and the end tells why."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from support.rollout import ROOT

if TYPE_CHECKING:
    from pathlib import Path

MAKEFILE = """\
good:
\t@echo all is well
tests:
\t@echo FAILED tests/unit/test_it.py::test_it - assert 1 == 2
\t@echo 1 failed, 7 passed
\t@exit 1
wordless:
\t@exit 3
killed:
\t@kill -9 $$PPID
"""


def stages(folder: Path, *names: str) -> tuple[int, list[str]]:
    (folder / "Makefile").write_text(MAKEFILE)
    run = subprocess.run(
        [sys.executable, ROOT / "tools/stages.py", "2", *names],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return run.returncode, run.stdout.splitlines()


def test_what_passes_is_shown_and_listed_with_its_seconds(tmp_path: Path) -> None:
    status, said = stages(tmp_path, "good")
    assert status == 0
    assert "all is well" in said
    assert said[-2].split()[0::7] == ["good", "passed"]
    assert said[-1].startswith("together")


def test_what_fails_is_told_last_and_keeps_nothing_from_running(tmp_path: Path) -> None:
    status, said = stages(tmp_path, "tests", "wordless", "killed", "good")
    assert status == 1
    listed = [line.partition(" s of CPU") for line in said if " s of CPU" in line]
    verdicts = {about.split()[0]: verdict.strip() for about, _, verdict in listed}
    assert verdicts.pop("together") == ""
    assert verdicts.pop("good") == "passed"
    assert set(verdicts) == {"tests", "wordless", "killed"}
    assert all(told.startswith("FAILED with status") for told in verdicts.values())
    end = said[said.index("tests failed:") :]
    assert "  FAILED tests/unit/test_it.py::test_it - assert 1 == 2" in end
    assert any("Error 3" in line for line in said[said.index("wordless failed:") :])
