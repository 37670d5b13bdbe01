"""Make the checkout a collection for an editable install.

A wheel carries the collection as files (``force-include`` in ``pyproject.toml``). An editable
install instead gets a real folder of relative links, so that every edit is seen at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

CONTENT = ("galaxy.yml", "meta", "playbooks", "plugins", "roles")
HOME = "collections/ansible_collections/bascule/deploy"


class CollectionHook(BuildHookInterface):
    """Link the collection's content into ``collections/`` of the checkout."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Create the links when the build is an editable one."""
        if version != "editable":
            return
        root = Path(self.root)
        home = root / HOME
        home.mkdir(parents=True, exist_ok=True)
        for name in CONTENT:
            link = home / name
            link.unlink(missing_ok=True)
            link.symlink_to(Path("../../../..") / name)
        # A non-empty map keeps hatchling from copying the force-include files.
        build_data["force_include_editable"] = {
            str(root / "README.md"): "bascule-editable.md",
        }
