"""Commands on bundles: validate."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from bascule.cli._output import complain, say, say_json
from bascule.result import DONE, FAILED, USAGE

if TYPE_CHECKING:
    import argparse

    from ansible_collections.bascule.deploy.plugins.module_utils._findings_model import Finding


def add_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
) -> None:
    """Add the commands of this file."""
    validate = commands.add_parser(
        "validate", parents=[common], help="check a bundle's AppSpec, hooks and files"
    )
    validate.add_argument(
        "path", metavar="PATH", help="a bundle's folder or archive, or an AppSpec file"
    )
    validate.add_argument(
        "--strict",
        choices=("agent-v1", "agent-v2"),
        help="refuse exactly what this CodeDeploy agent refuses",
    )
    validate.set_defaults(run=run_validate)


def run_validate(options: argparse.Namespace) -> int:
    """Check a bundle: 0 accepted, 1 rejected, 2 there is nothing to check."""
    from ansible_collections.bascule.deploy.plugins.module_utils._findings import validate

    path = Path(options.path)
    if not path.exists():
        complain(f"There is no file or folder {path}.")
        return USAGE
    try:
        validation = validate(path, strict=options.strict)
    except OSError as error:
        complain(f"{path} cannot be read: {error.strerror}.")
        return USAGE
    findings = [dataclasses.asdict(finding) for finding in validation.findings]
    if options.format == "json":
        say_json(
            {
                "path": str(path),
                "accepted": validation.accepted,
                "findings": findings,
                "appspec": validation.appspec,
            }
        )
    else:
        for finding in validation.findings:
            say(finding_line(finding))
        say(f"{path}: {'accepted' if validation.accepted else 'rejected'}")
    return DONE if validation.accepted else FAILED


def finding_line(finding: Finding) -> str:
    """Return a finding for a person, with its place in the AppSpec file where it has one."""
    place = f"line {finding.line}, column {finding.column}: " if finding.line else ""
    return f"{finding.severity}: {place}{finding.message} [{finding.code}]"
