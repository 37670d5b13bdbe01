"""JSON Schemas (draft 7) of what people write: AppSpec files and group variables.

``appspec-host.json``, ``appspec-lambda.json`` and ``appspec-ecs.json`` are written by hand,
``group-variables.json`` comes from the documentation of the variables: ``python -m
bascule.schemas`` writes it anew, and in a checkout ``docs/variables.md``, too.
"""

from __future__ import annotations

import json
import typing as t
from importlib import resources

from bascule.schemas._variables import group_variables, page

__all__ = ["NAMES", "group_variables", "page", "read", "text"]

NAMES = ("appspec-host", "appspec-lambda", "appspec-ecs", "group-variables")


def text(name: str) -> str:
    """Return a schema as its file holds it."""
    return resources.files(__name__).joinpath(f"{name}.json").read_text(encoding="utf-8")


def read(name: str) -> dict[str, t.Any]:
    """Return a schema as data."""
    return t.cast("dict[str, t.Any]", json.loads(text(name)))
