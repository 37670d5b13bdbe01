"""Make a new project that deploys as it is."""

from __future__ import annotations

import re
import typing as t
from importlib import resources
from pathlib import Path

from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError

from bascule import schemas

if t.TYPE_CHECKING:
    from importlib.resources.abc import Traversable

PLACEHOLDER = "PROJECT_NAME"
# Names that packaging and version control would take for their own while they are templates.
HIDDEN = {"gitignore": ".gitignore", "vscode": ".vscode"}
SCHEMAS = ("appspec-host", "group-variables")


def create(directory: Path) -> list[Path]:
    """Write a project into a folder, which may exist, and return the files, relative to it.

    :raises UsageError: if one of the files is there already, or cannot be written
    """
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"{directory} is a file. Name a folder for the new project.")
    files = contents(application_name(directory))
    there = [path for path in files if (directory / path).exists()]
    if there:
        names = ", ".join(str(directory / path) for path in there[:3])
        more = f" and {len(there) - 3} more" if len(there) > 3 else ""
        raise UsageError(
            f"{names}{more} would be overwritten; nothing was written. Name another folder, or move"
            " what is there."
        )
    try:
        for path, text in files.items():
            target = directory / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
            if path.suffix == ".sh":
                target.chmod(0o755)
    except OSError as error:
        raise UsageError(f"The project cannot be written: {error}.") from error
    return list(files)


def application_name(directory: Path) -> str:
    """Return a name for the application, of letters that every path and variable takes."""
    name = re.sub(r"[^a-z0-9-]+", "-", directory.resolve().name.lower()).strip("-")
    return name or "app"


def contents(name: str) -> dict[Path, str]:
    """Return the text of every file of a project by its path."""
    files = {
        path: text.replace(PLACEHOLDER, name)
        for path, text in _read(resources.files(__name__).joinpath("template"), Path())
    }
    for schema in SCHEMAS:
        files[Path(".vscode", "schemas", f"{schema}.json")] = schemas.text(schema)
    return dict(sorted(files.items()))


def _read(folder: Traversable, prefix: Path) -> t.Iterator[tuple[Path, str]]:
    for entry in folder.iterdir():
        path = prefix / HIDDEN.get(entry.name, entry.name)
        if entry.is_dir():
            yield from _read(entry, path)
        else:
            yield path, entry.read_text(encoding="utf-8")
