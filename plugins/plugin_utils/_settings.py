# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The public variables: which there are, and what a deployment group has set them to."""

from __future__ import annotations

import copy
import difflib
import functools
import typing as t
from pathlib import Path

import yaml

from ..module_utils._configuration import parse_duration
from ..module_utils._errors import UsageError
from ..module_utils._notifications import parse_channels
from ..module_utils._routing import pools_of

PREFIX = "deploy_"
Spec = dict[str, dict[str, t.Any]]


def public_variables() -> Spec:
    """Return the options of the role ``bascule.deploy.variables``: all public variables.

    They are the caller's own: Ansible's validator writes into what it is given.
    """
    return copy.deepcopy(_documented())


@functools.cache
def _documented() -> Spec:
    collection = Path(__file__).resolve().parent.parent.parent
    path = collection / "roles" / "variables" / "meta" / "argument_specs.yml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    return t.cast("Spec", document["argument_specs"]["main"]["options"])


def refuse_unknown(names: t.Iterable[str], known: t.Collection[str], target: str = "") -> None:
    """Refuse names that begin like a public variable and are none.

    :param target: whose variables they are, where they are those of one target
    :raises UsageError: naming each unknown variable and the known one that is closest to it
    """
    unknown = sorted(name for name in names if name.startswith(PREFIX) and name not in known)
    if not unknown:
        return
    told = []
    for name in unknown:
        close = difflib.get_close_matches(name, known, n=1)
        told.append(f"{name} (did you mean {close[0]}?)" if close else name)
    plural = "variables" if len(unknown) > 1 else "variable"
    whose = f" of {target}" if target else ""
    raise UsageError(
        f"Unknown {plural}{whose} {', '.join(told)}. Names that begin with {PREFIX} belong to "
        "Bascule; "
        "'ansible-doc -t role bascule.deploy.variables' lists them all."
    )


def as_data(name: str, value: t.Any, spec: t.Mapping[str, t.Any]) -> t.Any:
    """Return a value as it is meant: ``-e deploy_stages=[1,2]`` comes as a text.

    :param spec: the option of this name
    :raises UsageError: a text that begins as a list or a mapping, and is none; or a list or a
        mapping for what is a text
    """
    if spec.get("type") == "str" and isinstance(value, (list, dict)):
        # Ansible would make a text of it.
        kind = "list" if isinstance(value, list) else "mapping"
        raise UsageError(f"{name} is a {kind}; wanted is a text.")
    if spec.get("type") not in ("list", "dict", "raw") or not isinstance(value, str):
        return value
    if not value.lstrip().startswith(("[", "{")):
        return value
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        # Its text is not repeated: it may hold a secret.
        seen = getattr(error, "problem", None) or "it is no YAML"
        raise UsageError(
            f"{name} is a text that begins as a list or a mapping and cannot be read as one: {seen}"
            ". Write it as JSON, or keep it in a file and give -e @FILE."
        ) from error


def unfit(messages: t.Sequence[str]) -> str:
    """Return in words of ours what Ansible finds wrong with values of variables."""
    told = []
    for message in messages:
        unknown, wanted, known = message.partition(". Supported parameters include: ")
        if wanted:
            message = f"Unknown: {unknown}. There are: {known.rstrip('.')}"
        told.append(message.rstrip("."))
    return f"{'. '.join(told)}."


def require(settings: dict[str, t.Any], name: str, example: str) -> str:
    """Return a setting that must not be empty.

    :raises UsageError: saying which variable is missing and how to set it
    """
    value = str(settings.get(name) or "")
    if not value:
        raise UsageError(
            f"The variable {name} is not set. Set it, for example: -e {name}={example}"
        )
    return value


def host_settings(settings: dict[str, t.Any]) -> None:
    """Check what is only used once a target is asked.

    :raises UsageError: a time that cannot be read, or a folder that is not named from ``/``
    """
    for name in ("deploy_sysroot", "deploy_root"):
        folder = str(settings[name] or "")
        # The default root lies below the sysroot.
        if folder and not folder.startswith("/"):
            raise UsageError(
                f"{name} is {folder!r}; wanted is an absolute path on the targets. Begin it with "
                "/, or with {{ inventory_dir }}/ where the targets are on this machine."
            )
    parse_duration(settings["deploy_reconnect_timeout"], "deploy_reconnect_timeout")
    parse_channels(settings["deploy_notifications"])


def scaling_settings(settings: dict[str, t.Any]) -> None:
    """Check that instances that leave can be taken out of the traffic by whoever notices it.

    :raises UsageError: the traffic provider is reached on its own hosts, or there is no group
    """
    if not settings["deploy_auto_scaling_termination_hook"]:
        return
    provider = settings["deploy_traffic_provider"]
    if provider not in ("none", "elb", "elbv2"):
        raise UsageError(
            "deploy_auto_scaling_termination_hook goes with the traffic providers elbv2 and elb, "
            f"and without one; deploy_traffic_provider is {provider}."
        )
    if not settings["deploy_auto_scaling_groups"]:
        raise UsageError(
            "deploy_auto_scaling_termination_hook needs deploy_auto_scaling_groups: set it beside."
        )


def fleet_settings(settings: dict[str, t.Any]) -> None:
    """Check what copying an Auto Scaling group needs.

    :raises UsageError: naming what is missing
    """
    copies = settings["deploy_green_fleet"] == "copy_auto_scaling_group"
    if settings["deploy_retire"] == "terminate" and not copies:
        raise UsageError(
            "deploy_retire is terminate, which ends the old pool's Auto Scaling group: set "
            "deploy_green_fleet to copy_auto_scaling_group as well, or take keep or drain."
        )
    if not copies:
        return
    parse_duration(settings["deploy_green_fleet_timeout"], "deploy_green_fleet_timeout")
    if settings["deploy_traffic_provider"] != "elbv2":
        raise UsageError(
            "deploy_green_fleet copies an Auto Scaling group for a pool of an Application Load "
            "Balancer: set deploy_traffic_provider to elbv2."
        )
    for name in ("deploy_green_fleet_group", "deploy_elbv2_listener", "deploy_traffic_pools"):
        if not settings[name]:
            raise UsageError(f"deploy_green_fleet needs {name}: set it beside.")


def traffic_settings(settings: dict[str, t.Any]) -> None:
    """Check that the settings of the chosen traffic provider are complete.

    :raises UsageError: naming the variables that are missing
    """
    provider = settings["deploy_traffic_provider"]
    needed = {
        "envoy": ("deploy_envoy_eds_path", "deploy_envoy_cluster", "deploy_envoy_admin_url"),
        "haproxy": ("deploy_haproxy_socket", "deploy_haproxy_backend"),
        "nginx": ("deploy_nginx_upstream",),
        "elbv2": ("deploy_elbv2_target_groups",),
        "elb": ("deploy_elb_names",),
    }
    if settings.get("deploy_traffic_pools"):
        pools_of(settings["deploy_traffic_pools"], provider)
        # Each pool names its own cluster, backend or target group.
        needed = {}
    missing = [name for name in needed.get(provider, ()) if not settings.get(name)]
    if missing:
        raise UsageError(
            f"The traffic provider {provider} needs {', '.join(missing)}: set "
            f"{'it' if len(missing) == 1 else 'them'} beside deploy_traffic_provider."
        )
