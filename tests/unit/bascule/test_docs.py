"""What the pages show can be typed: variables that there are, commands, functions, links."""

from __future__ import annotations

import re
import shlex
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

import bascule
from bascule import schemas
from bascule.cli._command import make_parser

ROOT = Path(__file__).resolve().parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Variables of the runs themselves, beside those of a deployment group.
OTHERS = {"deployment_id"}
# Signs of a synopsis, or of a part that was left out: nobody can type that.
NO_COMMAND = re.compile(r"[\[\]…|<]|^bascule [a-z ]+ …")


def blocks(page: Path) -> list[str]:
    """Return what a page shows as code: fenced blocks, and those that are indented."""
    text = page.read_text(encoding="utf-8")
    fenced = re.findall(r"^ *```\w*\n(.*?)^ *```$", text, re.S | re.M)
    text = re.sub(r"^ *```\w*\n.*?^ *```$", "", text, flags=re.S | re.M)
    indented = re.findall(r"(?:^ {4}.*\n(?:\n(?= {4}))?)+", text, re.M)
    return [textwrap.dedent(block) for block in [*fenced, *indented]]


def settings(page: Path) -> list[dict[str, Any]]:
    """Return each setting of a page's examples; a page may show several for one variable."""
    found = []
    for block in blocks(page):
        for part in re.split(r"^(?=deploy_\w+:)", block, flags=re.M):
            if part.startswith("deploy_"):
                # The setting ends where something else begins in its column.
                lines = part.splitlines()
                end = next(
                    (at for at, line in enumerate(lines[1:], 1) if re.match(r"[^\s#-]", line)),
                    len(lines),
                )
                found.append(yaml.safe_load("\n".join(lines[:end])))
    return found


def commands(page: Path) -> list[str]:
    """Return the commands that a page shows as they are typed."""
    found = []
    for block in blocks(page):
        text = block.replace("\\\n", " ")
        for line in text.splitlines():
            typed = line.removeprefix("$ ").removeprefix("sudo ")
            typed = re.split(r" {3,}| #", typed)[0].strip()
            if typed.startswith("bascule ") and not NO_COMMAND.search(typed):
                found.append(typed)
    return found


EVERY_SETTING = [(page.name, one) for page in PAGES for one in settings(page)]
EVERY_COMMAND = sorted({one for page in PAGES for one in commands(page)})


def test_enough_is_found() -> None:
    assert len(EVERY_SETTING) > 80
    assert len(EVERY_COMMAND) > 40


@pytest.mark.parametrize(("page", "setting"), EVERY_SETTING)
def test_a_variable_of_an_example_is_one_and_its_value_fits(
    page: str, setting: dict[str, Any]
) -> None:
    validator = Draft7Validator(schemas.read("group-variables"))
    assert [error.message for error in validator.iter_errors(setting)] == [], page


@pytest.mark.parametrize("command", EVERY_COMMAND)
def test_a_command_of_an_example_can_be_given(command: str) -> None:
    make_parser().parse_args(shlex.split(command)[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_of_variables_playbooks_and_functions_are_those_that_there_are(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    known = set(schemas.read("group-variables")["properties"]) | OTHERS
    given = set(re.findall(r"\bdeploy_[a-z0-9_]+\b(?![*…])", text))
    assert {name for name in given if name not in known and not name.endswith("_")} == set()
    books = {path.stem for path in (ROOT / "playbooks").glob("*.yml")}
    run = set(re.findall(r"ansible-playbook bascule\.deploy\.([a-z_]+)", text))
    assert run <= books
    called = set(re.findall(r"\bbascule\.([a-z_]+)\(", text))
    assert {name for name in called if not hasattr(bascule, name)} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        path, _mark, anchor = target.partition("#")
        other = page.parent / path if path else page
        assert other.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.*)$", other.read_text(encoding="utf-8"), re.M)
            slugs = {re.sub(r"[^\w\- ]", "", head).lower().replace(" ", "-") for head in heads}
            assert anchor in slugs, target
