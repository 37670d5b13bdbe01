"""A new project deploys as it is, with the command that ``bascule init`` prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft7Validator
from support.ports import free_port

from bascule import project


def bascule(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bascule", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def answer(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as reply:
        return str(reply.read().decode())


def test_a_new_project_deploys_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASCULE_STATE", str(tmp_path / "state"))
    told = json.loads(bascule(tmp_path, "init", "My Shop", "--format", "json").stdout)
    folder = tmp_path / "My Shop"
    assert told["directory"] == str(folder)
    command = told["command"]
    assert command[0] == "bascule"
    ports = [free_port(), free_port()]
    hosts = folder / "inventory" / "hosts.yml"
    text = hosts.read_text()
    for old, new in zip(("18191", "18192"), ports, strict=True):
        assert old in text
        text = text.replace(old, str(new))
    hosts.write_text(text)
    assert bascule(folder, "validate", "revision").returncode == 0
    try:
        done = bascule(folder, *command[1:])
        assert done.returncode == 0, done.stderr
        assert [("my-shop" in answer(port), "Version 1" in answer(port)) for port in ports] == [
            (True, True)
        ] * 2
        page = folder / "revision" / "app" / "index.html"
        page.write_text(page.read_text().replace("Version 1", "Version 2"))
        done = bascule(folder, *command[1:])
        assert done.returncode == 0, done.stderr
        assert ["Version 2" in answer(port) for port in ports] == [True, True]
    finally:
        for name in ("web-1", "web-2"):
            subprocess.run(
                ["sh", "revision/hooks/stop.sh"],
                cwd=folder,
                env={**os.environ, "SYSROOT": str(folder / ".fleet" / name)},
                timeout=30,
                check=True,
            )


def test_its_files_fit_its_schemas(tmp_path: Path) -> None:
    project.create(tmp_path / "shop")
    settings = json.loads((tmp_path / "shop/.vscode/settings.json").read_text())
    schemas = {
        Path(name).stem: json.loads((tmp_path / "shop" / name).read_text())
        for name in settings["yaml.schemas"]
    }
    for schema, name in (
        ("appspec-host", "revision/appspec.yml"),
        ("group-variables", "inventory/group_vars/targets.yml"),
    ):
        document = yaml.safe_load((tmp_path / "shop" / name).read_text())
        assert list(Draft7Validator(schemas[schema]).iter_errors(document)) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    (folder / "revision").mkdir(parents=True)
    (folder / "revision" / "appspec.yml").write_text("mine")
    done = bascule(tmp_path, "init", "shop")
    assert (done.returncode, done.stdout) == (2, "")
    assert "revision/appspec.yml would be overwritten" in done.stderr
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["appspec.yml"]
    (folder / "revision" / "appspec.yml").unlink()
    (folder / "LICENSE").write_text("mine")
    assert bascule(tmp_path, "init", "shop").returncode == 0
    assert (folder / "LICENSE").read_text() == "mine"
    assert bascule(tmp_path, "init", "shop/LICENSE").returncode == 2


@pytest.mark.parametrize(
    ("folder", "name"), [("Shop", "shop"), ("My Shop 2", "my-shop-2"), ("äöü", "app"), ("7", "7")]
)
def test_the_name_of_the_application(tmp_path: Path, folder: str, name: str) -> None:
    files = project.contents(project.application_name(tmp_path / folder))
    group = yaml.safe_load(files[Path("inventory/group_vars/targets.yml")])
    assert group["deploy_application"] == name
    assert not [path for path, text in files.items() if project.PLACEHOLDER in text]
