"""Bascule: self-hosted deployments on Ansible.

>>> import bascule
>>> deployment = bascule.deploy("rolling", inventory="inventories/prod", revision="./dist")
>>> deployment.raise_for_status()
"""

from __future__ import annotations

import importlib

# What is imported here is imported before the command can answer an interrupt.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from bascule import api as api
    from bascule import judge as judge
    from bascule import result as result
    from bascule._names import *  # noqa: F403 - it lists them
else:

    def __getattr__(name: str) -> object:
        """Import the names of the package when they are needed."""
        if name.startswith("_") and name != "__all__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            return importlib.import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise
        names = importlib.import_module(f"{__name__}._names")
        found = names.__all__ if name == "__all__" else getattr(names, name)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        """List the names that the package offers."""
        return sorted(__getattr__("__all__"))
