"""The AppSpec that a host goes by: as it was staged, and as it is now."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._appspec import parse_appspec
from ansible_collections.bascule.deploy.plugins.module_utils._errors import AppSpecError
from ansible_collections.bascule.deploy.plugins.module_utils._host import _context, _layout

HEAD = "version: 0.0\nos: linux\n"
STAGED = HEAD + "hooks: {ApplicationStop: [{location: a.sh}]}\n"
CHANGED = HEAD + "hooks: {ApplicationStop: [{location: b.sh}]}\n"


class Staged:
    """What :func:`_context.remember` wants to know."""

    digest = "d"
    appspec = parse_appspec(STAGED)
    revision: dict[str, Any]

    def __init__(self, file: str | None) -> None:
        self.revision = {"appspec_file": file}


def staged(folder: Path, name: str, file: str | None = None) -> tuple[_layout.Folder, Path]:
    """Return a deployment's folder as staging leaves it, and its AppSpec file."""
    path = folder / "deployment-archive" / name
    path.parent.mkdir(parents=True)
    path.write_text(STAGED)
    found = _layout.Folder(str(folder))
    _context.remember(found, Staged(file))  # type: ignore[arg-type]  # all that it looks at
    return found, path


def script(folder: _layout.Folder) -> str:
    """Return the script of ApplicationStop."""
    return str(_context.recall(folder)["appspec"]["hooks"]["ApplicationStop"][0]["location"])


@pytest.mark.parametrize(
    ("name", "file"), [("appspec.yml", None), ("appspec.yaml", None), ("my.yml", "my.yml")]
)
def test_a_changed_file_counts(tmp_path: Path, name: str, file: str | None) -> None:
    folder, path = staged(tmp_path, name, file)
    assert script(folder) == "a.sh"
    path.write_text(CHANGED)
    assert script(folder) == "b.sh"
    path.unlink()
    assert script(folder) == "a.sh"


def test_a_file_that_was_broken(tmp_path: Path) -> None:
    folder, path = staged(tmp_path, "appspec.yml")
    path.write_text("version: 1.0\n")
    with pytest.raises(AppSpecError, match="invalid version value"):
        script(folder)


def test_without_pyyaml_the_staged_one_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, path = staged(tmp_path, "appspec.yml")
    path.write_text(CHANGED)
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert script(folder) == "a.sh"


def test_what_an_earlier_release_has_written(tmp_path: Path) -> None:
    folder, path = staged(tmp_path, "appspec.yml")
    Path(folder.revision).write_text(json.dumps({"digest": "d", "appspec": Staged.appspec}))
    path.write_text(CHANGED)
    assert script(folder) == "a.sh"
