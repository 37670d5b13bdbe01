"""The group variables that the pages show are variables that there are, with values that fit."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft7Validator

from bascule import schemas

DOCS = Path(__file__).resolve().parents[3] / "docs"


def examples() -> list[str]:
    text = (DOCS / "load-balancers.md").read_text()
    blocks = re.findall(r"^ *```yaml\n(.*?)^ *```$", text, re.S | re.M)
    found = [textwrap.dedent(block) for block in blocks if "deploy_" in block]
    assert len(found) > 5
    return found


@pytest.mark.parametrize("text", examples())
def test_the_variables_of_an_example_fit(text: str) -> None:
    validator = Draft7Validator(schemas.read("group-variables"))
    assert [error.message for error in validator.iter_errors(yaml.safe_load(text))] == []
