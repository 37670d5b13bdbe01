"""The command ``bascule demo``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def add_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
) -> None:
    """Add the command."""
    demo = commands.add_parser(
        "demo",
        parents=[common],
        help="watch a fleet on this machine deploy, fail and come back",
    )
    demo.set_defaults(run=run_demo)


def run_demo(_options: argparse.Namespace) -> int:
    """Run the demonstration."""
    from bascule.demo import main

    return int(main() or 0)
