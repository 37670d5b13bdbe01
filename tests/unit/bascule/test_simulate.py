"""``bascule simulate`` and ``bascule.simulate``: the same numbers, for people and for programs."""

from __future__ import annotations

import json

import pytest

import bascule
from bascule.cli import main

OPTIONS = [
    "simulate", "rolling", "--targets", "4", "--install", "10s", "--install-spread", "0",
    "--defect-hosts", "100%", "--runs", "2", "-e", "deploy_minimum_healthy_hosts=3",
    "--compare", "blue_green", "--compare", "in_place deploy_minimum_healthy_hosts=0",
]  # fmt: skip


def test_strategies_stand_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(OPTIONS) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "in_place (3): in_place deploy_minimum_healthy_hosts=0"
    assert "A revision as good as the one before, 2 runs:" in said
    bad = said[said.index("The revision with the defect, 2 runs:") :]
    rows = {line.split("  ")[0]: line.split() for line in bad[2:]}
    assert list(rows) == ["rolling", "blue_green", "in_place (3)"]
    assert "gates 100%" in " ".join(rows["rolling"])
    assert main([*OPTIONS, "--trace", "-e", "deploy_group=web"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "Not modelled: deploy_group." in said
    first = said.index("rolling, the first bad run:")
    assert said[first + 1].split() == ["0.0", "s", "Admitted", "target-0001", "InProgress"]
    assert "(rollback) Finished Succeeded" in said[-1]


def test_a_variable_may_be_a_list_or_true(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["-e", "deploy_stages=[1, '100%']", "-e", "deploy_judge=true"]
    assert main(["simulate", "rolling", "--runs", "1", *given, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = bascule.simulate(
        "rolling", variables={"deploy_stages": [1, "100%"], "deploy_judge": True}, runs=1
    )
    assert found == json.loads(json.dumps(expected))


def test_programs_get_the_same_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*OPTIONS, "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    found = bascule.simulate(
        "rolling",
        fleet={"targets": 4, "install": "10s", "install_spread": 0},
        defect={"hosts": 1.0},
        variables={"deploy_minimum_healthy_hosts": 3},
        compare=["blue_green", "in_place deploy_minimum_healthy_hosts=0"],
        runs=2,
    )
    assert json.loads(json.dumps(found)) == told
    assert [one["strategy"] for one in told["strategies"]] == ["rolling", "blue_green", "in_place"]
    assert told["strategies"][0]["bad"]["lowest_in_service"] == 3


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--runs", "0"], "0 runs are nothing"),
        (["--compare", ""], "Nothing to compare with"),
        (["--compare", "rolling 'x"], "cannot be read"),
        (["--compare", "rolling fast"], "'fast' of 'rolling fast' sets nothing"),
        (["--compare", "rolling deploy_stages=["], "no YAML"),
        (["--install", "soon"], "install of fleet is 'soon'"),
    ],
)
def test_wrong_usage_is_said(
    capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    assert main(["simulate", "rolling", "--runs", "1", *more]) == 2
    assert words in capsys.readouterr().err
