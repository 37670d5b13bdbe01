"""Releases of the application ``hello``, in the shape of AWS CodeDeploy's bundles."""

from __future__ import annotations

import shutil
from pathlib import Path

TEMPLATE = Path(__file__).with_name("hello")


def write_release(directory: Path, version: str, *, bad: bool = False) -> Path:
    """Write a release into a folder that does not exist yet, and return the folder.

    :param bad: make one that starts and answers, but whose ``/health`` says 500 on every target
    :raises FileExistsError: the folder is there already
    """
    shutil.copytree(TEMPLATE, directory, ignore=shutil.ignore_patterns("__pycache__"))
    (directory / "app/VERSION").write_text(f"{version}\n", encoding="utf-8")
    if bad:
        (directory / "app/BROKEN").write_text("not well on purpose\n", encoding="utf-8")
    return directory
