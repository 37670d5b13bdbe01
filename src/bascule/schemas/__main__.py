"""Write ``group-variables.json`` and the page of the variables from their documentation."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.bascule.deploy.plugins.plugin_utils._settings import public_variables

from bascule.schemas._variables import as_text, group_variables, page

variables = public_variables()
Path(__file__).with_name("group-variables.json").write_text(
    as_text(group_variables(variables)), encoding="utf-8"
)
docs = Path(__file__).resolve().parents[3] / "docs"
if docs.is_dir():
    (docs / "variables.md").write_text(page(variables), encoding="utf-8")
