"""Imports run only downward; the floors are those of docs/architecture.md."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ROOT / "plugins"
COLLECTION = "ansible_collections.bascule.deploy.plugins."

# What each floor may import, beside the standard library and itself.
RULES: dict[str, tuple[str, ...]] = {
    "module_utils/_host": (
        "module_utils._host",
        "module_utils._errors",
        "module_utils._capabilities",
        "module_utils._routing_data",
    ),
    "module_utils": ("module_utils", "yaml"),
    "plugin_utils": (
        "module_utils",
        "plugin_utils",
        "sqlalchemy",
        "alembic",
        "yaml",
        "rich",
        "psycopg",
        "boto3",
        "botocore",
        "scipy",
        "numpy",
    ),
    "modules": ("module_utils", "ansible"),
    "adapters": ("module_utils", "plugin_utils", "ansible"),
    "src": ("module_utils", "plugin_utils", "bascule", "ansible_runner", "yaml", "rich"),
}
# What the adapters share knows Ansible; and a revision that CodeDeploy's agent installed is read
# with the host's own PyYAML, where it has one.
EXCEPTIONS: dict[str, tuple[str, ...]] = {
    "module_utils/_module.py": ("ansible.module_utils",),
    "module_utils/_host/_context.py": ("module_utils._appspec",),
    "plugin_utils/_action.py": ("ansible",),
    "plugin_utils/_at_proxies.py": ("ansible",),
    "plugin_utils/_direct.py": ("ansible",),
    "plugin_utils/_observer.py": ("ansible",),
    "plugin_utils/_reconnect.py": ("ansible",),
    "plugin_utils/_target.py": ("ansible",),
}


def floor_of(path: Path) -> str:
    if path.is_relative_to(ROOT / "src"):
        return "src"
    parts = path.relative_to(PLUGINS).parts
    if parts[:2] == ("module_utils", "_host"):
        return "module_utils/_host"
    if parts[0] in ("module_utils", "plugin_utils", "modules"):
        return parts[0]
    return "adapters"


def imports_of(path: Path) -> set[str]:
    """Return the modules a file imports, those of the collection named from ``plugins`` on."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            home = path.parent
            for _step in range(node.level - 1):
                home = home.parent
            if path.is_relative_to(ROOT / "src"):
                found.add("bascule")
                continue
            package = ".".join(home.relative_to(PLUGINS).parts)
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found.update(f"{package}.{name}".lstrip(".") for name in names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return {name.removeprefix(COLLECTION) for name in found}


def allowed(name: str, path: Path) -> bool:
    if name.split(".")[0] in sys.stdlib_module_names:
        return True
    rules = RULES[floor_of(path)]
    if path.is_relative_to(PLUGINS):
        rules = (*rules, *EXCEPTIONS.get(str(path.relative_to(PLUGINS)), ()))
    return any(name == rule or name.startswith(f"{rule}.") for rule in rules)


def sources() -> list[Path]:
    return sorted([*PLUGINS.rglob("*.py"), *(ROOT / "src").rglob("*.py")])


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_from_the_floors_below(path: Path) -> None:
    upward = sorted(name for name in imports_of(path) if not allowed(name, path))
    assert upward == []


def test_the_rule_catches_an_import_upward() -> None:
    path = PLUGINS / "module_utils" / "_spans.py"
    assert not allowed("plugin_utils._record", path)
    assert not allowed("sqlalchemy", path)
    assert not allowed("yaml", PLUGINS / "module_utils" / "_host" / "_entry.py")
    assert not allowed("ansible.errors", PLUGINS / "plugin_utils" / "_opening.py")
    assert not allowed("ansible.cli", ROOT / "src" / "bascule" / "__init__.py")
