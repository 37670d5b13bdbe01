"""Which permissions at AWS a deployment group needs."""

from __future__ import annotations

import json
import typing as t

from bascule import _permissions
from bascule.cli._options import add_inventory, add_variables, read_variables
from bascule.cli._output import say
from bascule.result import DONE

if t.TYPE_CHECKING:
    import argparse


def add_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
) -> None:
    """Add the commands of this file."""
    wanted = commands.add_parser(
        "iam-policy", parents=[common], help="the least IAM policy that a group's settings need"
    )
    wanted.add_argument("group", metavar="GROUP", help="group or pattern of the inventory")
    add_inventory(wanted)
    wanted.add_argument(
        "--revision", metavar="SOURCE", help="what is deployed, such as s3://BUCKET/FOLDER/*"
    )
    wanted.add_argument(
        "--push", metavar="s3://BUCKET/FOLDER/", help="where bascule push puts revisions"
    )
    wanted.add_argument(
        "--log-group", metavar="NAME", help="log group of the callback bascule.deploy.cloudwatch"
    )
    add_variables(wanted)
    wanted.set_defaults(run=run_policy)


def run_policy(options: argparse.Namespace) -> int:
    """Print the policy; it is JSON in any format, to be handed to IAM."""
    made = _permissions.iam_policy(
        options.group,
        inventory=options.inventory or None,
        revision=options.revision,
        push=options.push,
        log_group=options.log_group,
        variables=read_variables(options.extra_vars),
    )
    say(json.dumps(made, indent=2))
    return DONE
