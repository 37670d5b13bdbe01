"""Write ``group-variables.json`` from the documentation of the variables."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.bascule.deploy.plugins.plugin_utils._settings import public_variables

from bascule.schemas._variables import as_text, group_variables

Path(__file__).with_name("group-variables.json").write_text(
    as_text(group_variables(public_variables())), encoding="utf-8"
)
