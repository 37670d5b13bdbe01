"""The command local: what codedeploy-local does, with its options."""

from __future__ import annotations

import typing as t
from pathlib import Path

from bascule.cli._output import complain, heard_or_not, say, say_json
from bascule.result import DONE, FAILED

if t.TYPE_CHECKING:
    import argparse

    from bascule.local import Releases, Result

# Where the agent's own configuration is, if this host has the agent.
AGENT = Path("/etc/codedeploy-agent/conf/codedeployagent.yml")
DESCRIPTION = """\
Deploy a bundle to this host: no inventory, no AWS, the options of codedeploy-local.

A second deployment of the same deployment group goes over the first one: the scripts for
ApplicationStop are those of the revision that is there, and what it installed is taken away.
"""
NOTES = """\
examples:
  bascule local                                    the bundle in this folder
  bascule local -l dist/app.tgz -t tgz -e ApplicationStop,DownloadBundle,Install,ApplicationStart
  bascule local -l ./dist --sysroot /tmp/try       try it without touching this host's own files
"""


def add_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
) -> None:
    """Add the commands of this file."""
    import argparse

    local = commands.add_parser(
        "local",
        parents=[common],
        help="deploy a bundle to this host, as codedeploy-local does",
        description=DESCRIPTION,
        epilog=NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = local.add_argument
    add(
        "-l",
        "--bundle-location",
        metavar="LOCATION",
        help="a folder, a tar, tgz or zip file, git+https://…#REF, or an https address and"
        " #sha256:…; the current folder by default",
    )
    add(
        "-t",
        "--type",
        choices=("tgz", "tar", "zip", "directory"),
        help="type of the bundle; it is looked at by default",
    )
    add(
        "-b",
        "--file-exists-behavior",
        metavar="DISALLOW|OVERWRITE|RETAIN",
        help="what happens to files that no deployment has put there (DISALLOW)",
    )
    add(
        "-g",
        "--deployment-group",
        metavar="ID",
        default="default-local-deployment-group",
        help="id of the deployment group, and name of its folder (%(default)s)",
    )
    add(
        "-d",
        "--deployment-group-name",
        metavar="NAME",
        default="LocalFleet",
        help="DEPLOYMENT_GROUP_NAME of the hooks (%(default)s)",
    )
    add(
        "-a",
        "--application-name",
        metavar="NAME",
        help="APPLICATION_NAME of the hooks; the location by default",
    )
    add(
        "-e",
        "--events",
        metavar="EVENT,…",
        help="lifecycle events to run, in this order, also your own; DownloadBundle and Install go"
        " before them where they are not named",
    )
    add(
        "-A",
        "--appspec-filename",
        metavar="NAME",
        help="name of the AppSpec file (appspec.yml, then appspec.yaml)",
    )
    add(
        "-c",
        "--agent-configuration-file",
        metavar="FILE",
        help="take root_dir and max_revisions from the agent's configuration (that of this host's"
        " agent, unless --root or --sysroot is given)",
    )
    add("--root", metavar="FOLDER", help="deployment root (/opt/codedeploy-agent/deployment-root)")
    add("--sysroot", metavar="FOLDER", help="prefix of all destinations, and of the default root")
    add(
        "--layout",
        choices=("copy", "release"),
        default="copy",
        help="copy files to their destinations (%(default)s), or make a release and link to it",
    )
    add(
        "--release-directory",
        metavar="FOLDER",
        help="folder of releases/ and shared/, for --layout release",
    )
    add(
        "--release-link",
        metavar="PATH",
        help="the link to the live release (current in the folder of the releases)",
    )
    add(
        "--shared-path",
        metavar="PATH",
        action="append",
        default=[],
        help="path in the release that all releases share, with / at its end a folder; may be"
        " given again",
    )
    add(
        "--releases-to-keep",
        metavar="NUMBER",
        type=int,
        default=5,
        help="how many releases are kept, the live one included (%(default)s)",
    )
    add(
        "--strict",
        choices=("agent-v1", "agent-v2"),
        help="refuse every AppSpec file that this CodeDeploy agent refuses",
    )
    add(
        "--start-again",
        choices=("refused", "unchanged", "never"),
        help="after which failures the old version that was stopped is started again: an"
        " installation that was refused (the default), any failure before it, or never (the"
        " default with --strict)",
    )
    add(
        "--refuse-outside-links",
        action="store_true",
        help="refuse archives with symbolic links that lead out of them, as other deployments do",
    )
    local.set_defaults(run=run_local)


def run_local(options: argparse.Namespace) -> int:
    """Deploy here: 0 succeeded, 1 failed."""
    from bascule.local import deploy

    text = options.format == "text"
    configuration = options.agent_configuration_file
    if configuration is None and not (options.root or options.sysroot) and AGENT.is_file():
        configuration = str(AGENT)
    configured = read_configuration(configuration)
    root = options.root or configured["root"]
    result = deploy(
        options.bundle_location or str(Path.cwd()),
        kind=options.type,
        events=options.events,
        file_exists_behavior=options.file_exists_behavior,
        group_id=options.deployment_group,
        group=options.deployment_group_name,
        application=options.application_name,
        appspec_filename=options.appspec_filename,
        root=str(Path(root).absolute()) if root else None,
        sysroot=str(Path(options.sysroot).absolute()) if options.sysroot else "",
        strict=options.strict,
        retained=configured["retained"],
        outside_links=not options.refuse_outside_links,
        releases=releases_of(options),
        start_again=options.start_again,
        begin=_begin if text else lambda _folder: None,
    )
    for warning in result["warnings"]:
        complain(f"warning: {warning}")
    with heard_or_not():
        if text:
            conclude(result)
        else:
            say_json(result)
    return DONE if result["error"] is None else FAILED


def releases_of(options: argparse.Namespace) -> Releases | None:
    """Return the layout of releases, None for copies.

    :raises UsageError: for options of the other layout
    """
    if options.layout == "release":
        return {
            "release_directory": options.release_directory or "",
            "release_link": options.release_link or "",
            "shared_paths": options.shared_path,
            "releases_to_keep": options.releases_to_keep,
        }
    from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError

    if options.release_directory or options.release_link or options.shared_path:
        raise UsageError(
            "--release-directory, --release-link and --shared-path are for --layout release. Add"
            " it, or leave them out."
        )
    return None


def conclude(result: Result) -> None:
    """Say how it ended, with the end of the failed script's output."""
    error = result["error"]
    if Path(result["log"]).exists():
        say(f"See the deployment log at {result['log']} for more details")
    if error is None:
        say("AppSpec file valid. Local deployment successful")
        return
    lines = [f"{result['deployment_id']} failed at {error['event']}: {error['message']}"]
    lines += [f"    {line}" for line in error["log"].splitlines()[-20:]]
    complain("\n".join(lines))


def read_configuration(name: str | None) -> dict[str, t.Any]:
    """Return ``{"root", "retained"}`` of an agent's configuration file, None where it says nothing.

    :raises UsageError: if it cannot be read
    """
    from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError

    if name is None:
        return {"root": None, "retained": None}
    import yaml

    try:
        loaded = yaml.safe_load(Path(name).read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"The agent's configuration {name} cannot be read: {error}") from error
    if not isinstance(loaded, dict):
        raise UsageError(
            f"The agent's configuration {name} must be a map, as in ':root_dir: /srv'."
        )
    settings = {str(key).strip(":"): value for key, value in loaded.items()}
    return {"root": settings.get("root_dir"), "retained": settings.get("max_revisions")}


def _begin(folder: str) -> None:
    with heard_or_not():
        say(f"Starting to execute deployment from within folder {folder}")
