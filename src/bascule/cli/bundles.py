"""Commands on bundles: validate."""

from __future__ import annotations

import dataclasses
import typing as t
from pathlib import Path

from bascule.cli._output import complain, say, say_json
from bascule.result import DONE, FAILED, USAGE

if t.TYPE_CHECKING:
    import argparse


def add_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
) -> None:
    """Add the commands of this file."""
    validate = commands.add_parser(
        "validate", parents=[common], help="check a bundle's AppSpec, hooks and files"
    )
    validate.add_argument("path", metavar="PATH", help="a bundle's folder, or an AppSpec file")
    validate.add_argument(
        "--strict",
        choices=("agent-v1", "agent-v2"),
        help="judge as this CodeDeploy agent would, warnings as well",
    )
    validate.set_defaults(run=run_validate)


def run_validate(options: argparse.Namespace) -> int:
    """Check a bundle: 0 accepted, 1 rejected, 2 there is nothing to check."""
    from ansible_collections.bascule.deploy.plugins.module_utils._findings import validate

    path = Path(options.path)
    if not path.exists():
        complain(f"There is no file or folder {path}.")
        return USAGE
    validation = validate(path, strict=options.strict)
    findings = [_plain(finding) for finding in validation.findings]
    if options.format == "json":
        say_json({"path": str(path), "accepted": validation.accepted, "findings": findings})
    else:
        for finding in findings:
            say(_line(finding))
        say(f"{path}: {'accepted' if validation.accepted else 'rejected'}")
    return DONE if validation.accepted else FAILED


def _plain(finding: t.Any) -> dict[str, t.Any]:
    return dataclasses.asdict(finding)


def _line(finding: dict[str, t.Any]) -> str:
    place = finding.get("line")
    where = f"line {place}: " if place else ""
    return f"{finding.get('severity', 'error')}: {where}{finding.get('message', '')}"
