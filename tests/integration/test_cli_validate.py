"""``bascule validate``: 0 accepted, 1 rejected, 2 nothing to check."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BASCULE = Path(sys.executable).parent / "bascule"
EXAMPLE = Path(__file__).parents[2] / "examples" / "hello"
MISTYPED = """\
version: 0.0
os: linux
hooks:
  AfterInstal:
    - location: stop.sh
"""


def validate(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BASCULE, "validate", *arguments], capture_output=True, text=True, timeout=300, check=False
    )


def test_the_example_is_accepted_without_a_word() -> None:
    done = validate(EXAMPLE)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{EXAMPLE}: accepted\n", "")


def test_a_hazard_is_told_with_its_place_and_accepted(tmp_path: Path) -> None:
    (tmp_path / "appspec.yml").write_text(MISTYPED)
    done = validate(tmp_path)
    first, *_, last = done.stdout.splitlines()
    assert (done.returncode, last) == (0, f"{tmp_path}: accepted")
    assert first.startswith("warning: line 5, column ")
    assert first.endswith("Did you mean AfterInstall? [unknown-event]")


def test_a_bundle_that_is_refused_is_status_1(tmp_path: Path) -> None:
    done = validate(tmp_path)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "error: The revision has no AppSpec file at its top. Add appspec.yml there; see the "
        "AppSpec reference of CodeDeploy's user guide. [appspec-missing]",
        f"{tmp_path}: rejected",
    ]


def test_json(tmp_path: Path) -> None:
    (tmp_path / "appspec.yml").write_text("version: 0.0\nos: plan9\n")
    done = validate(tmp_path, "--format", "json")
    told = json.loads(done.stdout)
    assert done.returncode == 1
    assert (told["path"], told["accepted"]) == (str(tmp_path), False)
    assert [set(finding) for finding in told["findings"]] == [
        {"severity", "code", "line", "column", "message"}
    ]
    assert told["findings"][0]["severity"] == "error"


@pytest.mark.parametrize("strict", ["agent-v1", "agent-v2"])
def test_the_strictness_of_an_agent_is_passed_on(strict: str) -> None:
    assert validate(EXAMPLE, "--strict", strict).returncode == 0


def test_what_is_not_there_or_not_asked_for_is_status_2(tmp_path: Path) -> None:
    done = validate(tmp_path / "nothing")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"bascule: There is no file or folder {tmp_path / 'nothing'}.\n"
    assert validate(EXAMPLE, "--strict", "agent-v3").returncode == 2
