"""Options that several commands have, and what is read of them."""

from __future__ import annotations

import argparse
import typing as t
from pathlib import Path

from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError


def add_inventory(parser: argparse.ArgumentParser) -> None:
    """Add the option that names inventories."""
    parser.add_argument(
        "-i",
        "--inventory",
        action="append",
        default=[],
        metavar="INVENTORY",
        help="inventory file, folder or host list (a,b,); may be repeated",
    )


def add_variables(parser: argparse.ArgumentParser) -> None:
    """Add the option that sets variables (see ``read_variables``)."""
    parser.add_argument(
        "-e",
        "--extra-vars",
        action="append",
        default=[],
        metavar="VAR=VALUE|@FILE",
        help="set a variable, or read variables from a YAML or JSON file; may be repeated",
    )


def run_options() -> argparse.ArgumentParser:
    """Return the options of every command that runs a strategy."""
    options = argparse.ArgumentParser(add_help=False)
    add_inventory(options)
    options.add_argument("--targets", metavar="PATTERN", help="group or pattern of the targets")
    add_variables(options)
    options.add_argument(
        "-v",
        "--verbose",
        action="count",
        default=0,
        help="show more; from -vv on, show ansible-playbook's own output",
    )
    options.add_argument("-q", "--quiet", action="store_true", help="show only how it ended")
    return options


def add_only_outdated(parser: argparse.ArgumentParser) -> None:
    """Add the option that leaves out what is up to date."""
    parser.add_argument(
        "--only-outdated",
        action="store_true",
        help="leave out targets that are healthy with this revision in the record",
    )


def add_check(
    parser: argparse.ArgumentParser, nothing: str = "change nothing, show the plan"
) -> None:
    """Add the options that only look; ``nothing`` tells what of ``--check``."""
    parser.add_argument("--check", action="store_true", help=nothing)
    parser.add_argument("--diff", action="store_true", help="show what changes in files")


def add_limit(parser: argparse.ArgumentParser) -> None:
    """Add the option that leaves targets out."""
    parser.add_argument("-l", "--limit", metavar="PATTERN", help="only these of the targets")


def read_variables(given: list[str]) -> dict[str, t.Any]:
    """Return the variables of ``-e`` options, the later ones winning.

    :raises UsageError: an option is neither VAR=VALUE nor @FILE nor a JSON object, or its file
        cannot be read
    """
    variables: dict[str, t.Any] = {}
    for option in given:
        if option.startswith("@"):
            variables |= _load(option[1:], _read(option[1:]))
        elif option.lstrip().startswith("{"):
            variables |= _load("-e", option)
        else:
            name, equals, value = option.partition("=")
            if not equals or not name.isidentifier():
                raise UsageError(f"-e {option}: write it as VAR=VALUE, or as @FILE for a file.")
            variables[name] = value
    return variables


def run_arguments(options: argparse.Namespace) -> dict[str, t.Any]:
    """Return what ``run_options`` say, as the functions of the API that run a strategy take it.

    :raises UsageError: see ``read_variables``
    """
    return {
        "inventory": options.inventory or None,
        "targets": options.targets,
        "variables": read_variables(options.extra_vars),
        "record": options.record,
        "verbosity": verbosity(options),
    }


def plan_arguments(options: argparse.Namespace) -> dict[str, t.Any]:
    """Return the same of the commands that make a plan: with revision, limit, only outdated."""
    arguments = run_arguments(options)
    if options.only_outdated:
        arguments["variables"]["deploy_only_outdated"] = True
    return {**arguments, "revision": options.revision, "limit": options.limit}


def verbosity(options: argparse.Namespace) -> int:
    """Return how much ansible-playbook is to say; its own words would spoil JSON."""
    return min(options.verbose, 1) if options.format == "json" else int(options.verbose)


def _read(name: str) -> str:
    try:
        return Path(name).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"-e @{name}: the file cannot be read: {why}") from error


def yaml_trouble(error: Exception) -> str:
    """Return what a parser of YAML says, in one line and without the text, which may be secret."""
    where = getattr(error, "problem_mark", None)
    told = getattr(error, "problem", None) or type(error).__name__
    return f"line {where.line + 1}, column {where.column + 1}: {told}." if where else f"{told}."


def _load(name: str, text: str) -> dict[str, t.Any]:
    import yaml

    try:
        loaded = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{name}: this is neither YAML nor JSON: {yaml_trouble(error)}") from error
    if not isinstance(loaded, dict):
        raise UsageError(f"{name}: a mapping of variables is wanted, as in 'name: value'.")
    return loaded
