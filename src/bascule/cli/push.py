"""The command that uploads a revision: push."""

from __future__ import annotations

import typing as t

from ansible_collections.bascule.deploy.plugins.plugin_utils._progress_text import size

from bascule._push import push
from bascule.cli._output import say, say_json
from bascule.result import DONE

if t.TYPE_CHECKING:
    import argparse


def add_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
) -> None:
    """Add the commands of this file."""
    pushing = commands.add_parser(
        "push", parents=[common], help="bundle a directory and upload it with its digest"
    )
    pushing.add_argument("path", metavar="PATH", help="directory, archive, git ref or address")
    pushing.add_argument(
        "--to", required=True, metavar="PLACE", help="s3://BUCKET/FOLDER/ or s3://BUCKET/NAME.tgz"
    )
    pushing.add_argument("--subdirectory", metavar="FOLDER", help="the part that is the bundle")
    pushing.add_argument("--checksum", metavar="sha256:…", help="what the source must be")
    pushing.add_argument(
        "--application", metavar="NAME", help="register it in the record, for 'revisions list'"
    )
    pushing.set_defaults(run=run_push)


def run_push(options: argparse.Namespace) -> int:
    """Upload a revision and say how to deploy it."""
    pushed = push(
        options.path,
        options.to,
        checksum=options.checksum,
        subdirectory=options.subdirectory,
        application=options.application,
        record=options.record,
    )
    if options.format == "json":
        say_json(pushed.to_dict())
        return DONE
    done = f"{size(pushed.size)} sent" if pushed.sent else "it was there already"
    say(f"{pushed.source}  (revision {pushed.digest[:12]}, {done})")
    if pushed.application:
        say(f"The record knows it as a revision of {pushed.application}.")
    else:
        say("The record does not know it; with --application NAME 'bascule revisions' lists it.")
    say(f"Deploy it with: bascule deploy STRATEGY --revision '{pushed.source}'")
    return DONE
