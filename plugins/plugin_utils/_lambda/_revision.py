# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The revision of Lambda functions: code and configuration of each, under one digest.

A revision's ``appspec`` is ``{"platform": "lambda", "functions": {target: function}}`` with a
function as ``{"function", "alias", "code_sha256", "place", "configuration", "hooks",
"target_version"}``: ``place`` is where Lambda finds the code itself, ``configuration`` has no value
of an environment variable, ``target_version`` is set where the version was published by others.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from ...module_utils._appspec_lambda import parse_lambda_appspec
from ...module_utils._errors import RevisionError, UsageError
from ...module_utils._functions import (
    PLATFORM,
    FunctionSettings,
    image_address,
    recorded_configuration,
    revision_digest,
    seen_configuration,
)
from .._record import RevisionRow
from ._package import Code, Source, image_of, kept_package, opened, package_of
from ._service import Service, arn_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Settings = dict[str, Any]
Recorded = dict[str, Any]


def resolve_functions(
    settings: Settings,
    functions: Sequence[FunctionSettings],
    *,
    cache: Path,
    base: Path,
    service: Service,
) -> RevisionRow:
    """Return what is to be deployed to functions; they are looked at, nothing is changed.

    :param base: folder from which a relative path is looked up
    :raises BasculeError: something cannot be found, fetched, read or verified
    """
    text = str(settings["deploy_revision"] or "")
    common = image_address(text)
    images = {one.target: image_address(one.image or "") or common for one in functions}
    for one in functions:
        if one.image and images[one.target] is None:
            raise UsageError(
                f"deploy_lambda_image of {one.target} is {one.image!r}; wanted is an image in ECR, "
                "as 111122223333.dkr.ecr.eu-central-1.amazonaws.com/name:tag or …@sha256:…."
            )
    if all(images.values()):
        codes = {target: image_of(address or "") for target, address in images.items()}
        entries = {one.target: _entry(one, codes[one.target], {}, service) for one in functions}
        return _row(entries, shown=common or "images", description=common or "images", size=0)
    if not text:
        raise UsageError(
            "The variable deploy_revision is not set. Set it to the package of the function: a "
            "folder, a zip, s3://…, an image in ECR, or an AppSpec file."
        )
    with opened(
        text,
        checksum=settings["deploy_revision_checksum"],
        inside=settings["deploy_revision_subdirectory"],
        several=any(one.package for one in functions),
        base=base,
        cache=cache,
    ) as source:
        if source.is_appspec:
            return _from_appspec(source, functions, service)
        made = {
            one.target: image_of(address) if address else package_of(source, one.package, cache)
            for one in functions
            for address in [images[one.target]]
        }
        entries = {
            one.target: _entry(one, made[one.target], source.hooks, service) for one in functions
        }
    return _row(
        entries,
        shown=source.shown,
        description=source.description,
        size=sum(code.size for code in made.values()),
        path=_kept(next(iter(made.values())), cache) if len(made) == 1 else "",
        environment=source.environment,
    )


def resolved_configuration(one: FunctionSettings, seen: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of a function with what is to be set; it holds secrets.

    :param seen: what Lambda tells of the function
    """
    found = seen_configuration(seen)
    if seen.get("PackageType") == "Image":
        found.update(handler=None, runtime=None, layers=[])
    return {**found, **one.configuration}


def before_row(entries: dict[str, Recorded]) -> RevisionRow:
    """Return what was there before the first deployment as a revision of its own."""
    versions = ", ".join(
        f"{target} version {entry['target_version']}" for target, entry in entries.items()
    )
    return _row(entries, shown="published before", description=versions, size=0)


def functions_of(revision: RevisionRow) -> dict[str, Recorded]:
    """Return the functions of a revision by target.

    :raises RevisionError: it is a revision for hosts
    """
    if revision.appspec.get("platform") != PLATFORM:
        raise RevisionError(
            f"The revision {revision.digest[:12]} is one for hosts, not for Lambda. Deploy it with "
            "deploy_compute_platform: server, or name another revision."
        )
    found: dict[str, Recorded] = revision.appspec["functions"]
    return found


def function_in(revision: RevisionRow, target: str) -> Recorded:
    """Return what a revision has for a target.

    :raises RevisionError: it has nothing for it
    """
    found = functions_of(revision).get(target)
    if found is None:
        raise RevisionError(
            f"The revision {revision.digest[:12]} has nothing for {target}. Deploy it anew, so "
            "that it is resolved for all targets."
        )
    return found


def _entry(one: FunctionSettings, code: Code, hooks: dict[str, str], service: Service) -> Recorded:
    seen = service.describe(one.function)
    is_image = seen.get("PackageType") == "Image"
    if is_image != ("ImageUri" in code.place):
        has, got = ("an image", "a zip") if is_image else ("a zip", "an image")
        raise UsageError(
            f"{one.function} is made of {has}, and the revision is {got}: Lambda cannot change "
            "that of a function. Deploy what fits, or make another function."
        )
    configuration = resolved_configuration(one, seen)
    return {
        "function": arn_of(seen),
        "alias": one.alias,
        "code_sha256": code.sha256,
        "place": code.place,
        "configuration": recorded_configuration(configuration, arn_of(seen)),
        "hooks": {**hooks, **one.hooks},
        "target_version": None,
    }


def _from_appspec(
    source: Source, functions: Sequence[FunctionSettings], service: Service
) -> RevisionRow:
    """Return the revision of an AppSpec file alone: its version is published already."""
    appspec = parse_lambda_appspec(source.path.read_bytes())
    arns = {one.target: arn_of(service.describe(one.function)) for one in functions}
    wanted = arn_of(service.describe(appspec["function"]))
    matching = [
        one for one in functions if arns[one.target] == wanted and one.alias == appspec["alias"]
    ]
    if len(functions) != 1 or len(matching) != 1:
        names = ", ".join(f"{one.function}:{one.alias}" for one in functions)
        raise UsageError(
            f"{source.shown} is for {appspec['function']}:{appspec['alias']}, and the targets are "
            f"{names}. An AppSpec file deploys one function: limit the deployment to its target."
        )
    one = matching[0]
    now = service.alias(wanted, one.alias)
    if now is None or set(now.shares) != {appspec["current_version"]}:
        leads = now.text() if now else "nothing: there is no such alias"
        raise UsageError(
            f"CurrentVersion of {source.shown} is {appspec['current_version']}, but the alias "
            f"{one.alias} of {appspec['function']} leads to {leads}. Correct the file or the alias."
        )
    seen = service.describe(wanted, appspec["target_version"])
    entry = {
        "function": wanted,
        "alias": one.alias,
        "code_sha256": seen["CodeSha256"],
        "place": {},
        "configuration": recorded_configuration(seen_configuration(seen), wanted),
        "hooks": {**one.hooks, **appspec["hooks"]},
        "target_version": appspec["target_version"],
    }
    return _row(
        {one.target: entry},
        shown=source.shown,
        description=f"{appspec['function']} version {appspec['target_version']}",
        size=int(seen.get("CodeSize") or 0),
    )


def _row(
    entries: dict[str, Recorded],
    *,
    shown: str,
    description: str,
    size: int,
    path: str = "",
    environment: dict[str, str] | None = None,
) -> RevisionRow:
    first = next(iter(entries.values()))["code_sha256"]
    return RevisionRow(
        digest=revision_digest(entries),
        source=shown,
        description=description,
        bundle_sha256=first if len(entries) == 1 else "",
        bundle_size=size,
        bundle_type=PLATFORM,
        bundle_path=path,
        appspec={"platform": PLATFORM, "functions": entries},
        environment=environment or {},
    )


def _kept(code: Code, cache: Path) -> str:
    if "ImageUri" in code.place:
        return ""
    return str(kept_package(base64.b64decode(code.sha256).hex(), cache))
