"""What the command ``bascule`` can do: each group of commands is a file, ``run`` dispatches."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
import typing as t

import bascule.cli.audit as audit
import bascule.cli.bundles as bundles
import bascule.cli.completion as completion
import bascule.cli.control as control
import bascule.cli.demo as demo
import bascule.cli.deployments as deployments
import bascule.cli.drift as drift
import bascule.cli.groups as groups
import bascule.cli.importing as importing
import bascule.cli.init as init
import bascule.cli.judge as judge
import bascule.cli.local as local
import bascule.cli.permissions as permissions
import bascule.cli.plans as plans
import bascule.cli.push as push
import bascule.cli.record as record
import bascule.cli.records as records
import bascule.cli.revisions as revisions
import bascule.cli.simulate as simulate
import bascule.cli.targets as targets
from bascule.cli._output import OutputError, be_silent, complain, flush, say, say_json, stand_in
from bascule.result import DONE, FAILED, USAGE

if t.TYPE_CHECKING:
    from collections.abc import Sequence

DESCRIPTION = """\
Deploy with Ansible: plan before, watch while, look back after, and return at any moment.

Exit status: 0 done, 1 the deployment failed or was rolled back, 2 wrong usage or configuration,
3 stopped or waiting for a person, 4 interrupted and resumable.
"""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    stand_in()
    try:
        status = _run(_parsed(arguments))
        flush()
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        be_silent()
        return DONE
    except OutputError as error:
        complain(str(error))
        be_silent()
        return FAILED
    return status


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    try:
        return make_parser().parse_args(arguments)
    except SystemExit:
        flush()
        raise


def _run(options: argparse.Namespace) -> int:
    from ansible_collections.bascule.deploy.plugins.module_utils._errors import BasculeError

    debug = options.debug or bool(os.environ.get("BASCULE_DEBUG"))
    try:
        return int(options.run(options))
    except (BrokenPipeError, OutputError):
        raise
    except BasculeError as error:
        if debug:
            raise
        return _refused(str(error), error.kind, USAGE, options)
    except ModuleNotFoundError as error:
        if debug:
            raise
        told = (
            f"The Python package {error.name} is not installed in {sys.prefix}, where bascule "
            "runs. Install Bascule there again, with all that it needs: pip install bascule."
        )
        return _refused(told, "usage", USAGE, options)
    except Exception as error:
        if debug:
            raise
        told = f"{type(error).__name__}: {error} (--debug shows where this comes from)"
        return _refused(told, "internal", FAILED, options)


def _refused(message: str, kind: str, status: int, options: argparse.Namespace) -> int:
    """Say why a command did nothing: to people, and to programs that read JSON."""
    complain(message)
    if options.format == "json":
        say_json({"error": {"kind": kind, "message": message}, "exit_code": status})
    return status


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command."""
    parser: argparse.ArgumentParser = _Parser(
        prog="bascule",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-V", "--version", action=_Version, nargs=0, help="show the version and exit"
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    common = common_options()
    for group in (
        deployments,
        plans,
        control,
        drift,
        records,
        groups,
        targets,
        permissions,
        revisions,
        record,
        audit,
        bundles,
        push,
        judge,
        simulate,
        local,
        importing,
        init,
        demo,
        completion,
    ):
        group.add_commands(commands, common)
    _describe(commands)
    return parser


def _describe(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Let the help of each command begin with what the list of commands says of it."""
    for listed in commands._choices_actions:
        command, told = commands.choices[listed.dest], str(listed.help)
        command.description = command.description or f"{told[0].upper()}{told[1:]}."
        for action in command._actions:
            if isinstance(action, argparse._SubParsersAction):
                _describe(action)


def common_options() -> argparse.ArgumentParser:
    """Return the options that every command has."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--format",
        choices=("text", "json"),
        default="text",
        help="text for people (the default) or json with stable field names",
    )
    common.add_argument(
        "--record",
        metavar="URL",
        help="address of the record; better set BASCULE_RECORD if it holds a password",
    )
    common.add_argument("--debug", action="store_true", help="show a traceback for an error")
    return common


class _Parser(argparse.ArgumentParser):
    """Tells a command that there is not by the nearest one, instead of by all of them."""

    def error(self, message: str) -> t.NoReturn:
        unknown = re.match("argument COMMAND: invalid choice: '([^']*)'", message)
        if unknown:
            known = [
                name
                for action in self._actions
                if isinstance(action, argparse._SubParsersAction)
                for name in action.choices
            ]
            near = difflib.get_close_matches(unknown[1], known, n=1)
            meant = f" Did you mean {near[0]}?" if near else ""
            message = f"there is no command {unknown[1]}.{meant} `{self.prog} --help` lists all."
        super().error(message)


class _Version(argparse.Action):
    """Look the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: t.Any, **__: t.Any) -> None:
        from importlib.metadata import version

        say(f"bascule {version('bascule')}")
        parser.exit()
