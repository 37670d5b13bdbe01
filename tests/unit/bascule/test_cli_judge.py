"""``bascule judge`` as a person or a pipeline calls it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from bascule.cli import main

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = "metrics:\n  - {name: errors, kind: rate, critical: true}\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "judge.yml"
    path.write_text(CONFIG)
    return path


def data(folder: Path, bad: int) -> Path:
    step = {"canary": {"bad": bad, "total": 2000}, "baseline": {"bad": 180, "total": 18000}}
    path = folder / "measured.json"
    path.write_text(json.dumps({"metrics": {"errors": {"steps": [step]}}}))
    return path


def test_a_bad_canary_fails(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["judge", "decide", str(data(tmp_path, 60)), "--config", str(config)]) == 1
    said = capsys.readouterr().out
    assert "Fail: The critical metric errors is bad: 60 of 2000 requests" in said
    assert "errors  Bad" in said


def test_what_is_open_waits_for_a_person(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["judge", "decide", str(data(tmp_path, 20)), "--config", str(config)]
    assert main([*arguments, "--format", "json"]) == 3
    assert json.loads(capsys.readouterr().out)["verdict"] == "Continue"
    assert main([*arguments, "--final", "--format", "json"]) == 3
    assert json.loads(capsys.readouterr().out)["verdict"] == "Inconclusive"


def test_evidence_takes_time(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["judge", "evidence", "--rate", "0.01", "--effect", "0.02", "--share", "0.1"]
    assert main([*arguments, "--traffic", "200", "--format", "json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    for one in told.values():
        assert one["seconds"] == one["requests"] / 200
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert f"points is found after {told['to_fail']['requests']} requests in 9 cases" in said
    # One metric alone has all of the error, and needs less.
    assert main([*arguments, "--config", str(config), "--format", "json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert alone["to_fail"]["requests"] < told["to_fail"]["requests"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["decide", "nowhere.json", "--config", "judge.yml"], "nowhere.json: the file cannot"),
        (["evidence", "--rate", "2", "--effect", "0.1", "--share", "0.1"], "The rate is a part"),
        (
            ["evidence", "--rate", "0", "--effect", "0.1", "--share", "0.1", "--traffic", "0"],
            "requests a second, above 0",
        ),
    ],
)
def test_wrong_usage_is_one_message(
    arguments: list[str],
    message: str,
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(config.parent)
    assert main(["judge", *arguments]) == 2
    assert message in capsys.readouterr().err
