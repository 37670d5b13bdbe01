"""What is imported before it is needed makes every command slow."""

from __future__ import annotations

import subprocess
import sys

# Each takes long to import, and few commands need it.
SLOW = ("ansible", "ansible_runner", "rich", "scipy", "sqlalchemy", "sqlite3", "statistics", "yaml")
PORTS = "ansible_collections.bascule.deploy.plugins.plugin_utils."


def printed(program: str) -> list[str]:
    done = subprocess.run(  # noqa: S603 - our own interpreter and program
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.split()


def test_the_command_is_parsed_without_what_only_some_commands_need() -> None:
    program = (
        "import sys\n"
        "from bascule.cli import _command\n"
        "_command.make_parser().format_help()\n"
        f"slow = {{*{SLOW!r}, {PORTS!r} + '_record', {PORTS!r} + '_judge'}}\n"
        "print(*sorted(slow & set(sys.modules)))\n"
    )
    assert printed(program) == []


def test_the_names_of_the_package_are_there() -> None:
    program = "import bascule\nprint(*[n for n in bascule.__all__ if not hasattr(bascule, n)])\n"
    assert printed(program) == []
    assert {"deploy", "Deployment"} <= set(printed("import bascule\nprint(*dir(bascule))\n"))
