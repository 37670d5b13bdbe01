# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which instances belong to a deployment group, by CodeDeploy's tag filters.

A filter names a key, a value or both. A list of filters (``ec2TagFilters``, or one group of
``ec2TagSet``) is met by an instance that meets any of them; a list of such lists
(``ec2TagSet.ec2TagSetList``) by one that meets all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ._errors import UsageError

TYPES = ("KEY_ONLY", "VALUE_ONLY", "KEY_AND_VALUE")
_NAMES = ("key", "value", "type")


def is_tagged(tags: Mapping[str, Any], wanted: Any) -> bool:
    """Tell whether an instance with these tags is wanted; an empty ``wanted`` wants none.

    :param wanted: a list of filters, or a list of lists of filters; a filter has ``Key``,
        ``Value`` and ``Type`` as at AWS (``Type`` may be left out)
    :raises UsageError: ``wanted`` is none of them
    """
    groups = tag_groups(wanted)
    return bool(groups) and all(any(_meets(tags, one) for one in group) for group in groups)


def tag_groups(wanted: Any) -> list[list[dict[str, str]]]:
    """Return filters as groups of which each has to be met by one of its filters.

    :raises UsageError: they cannot be read
    """
    if isinstance(wanted, Mapping):
        wanted = [wanted]
    if not isinstance(wanted, Sequence) or isinstance(wanted, str):
        raise UsageError(
            "Tag filters are a list of filters with Key and Value, or a list of such lists."
        )
    nested = [isinstance(one, Sequence) and not isinstance(one, str) for one in wanted]
    if any(nested) and not all(nested):
        raise UsageError("Tag filters and lists of tag filters do not stand beside each other.")
    groups = list(wanted) if any(nested) else [wanted]
    return [[tag_filter(one) for one in group] for group in groups if group]


def tag_filter(given: Any) -> dict[str, str]:
    """Return one filter with ``key``, ``value`` and ``type``.

    :raises UsageError: it says too little, or something unknown
    """
    if not isinstance(given, Mapping):
        raise UsageError(f"A tag filter has Key, Value or both, this is {given!r}.")
    known = {str(name).lower(): str(value) for name, value in given.items() if value is not None}
    unknown = sorted(set(known) - set(_NAMES))
    if unknown:
        raise UsageError(f"A tag filter has Key, Value and Type, and not {unknown[0]}.")
    kind = known.get("type") or _implied(known)
    if kind not in TYPES:
        raise UsageError(f"A tag filter has the Type {', '.join(TYPES)}, and not {kind}.")
    for name, needed_by in (("key", "VALUE_ONLY"), ("value", "KEY_ONLY")):
        if kind != needed_by and name not in known:
            raise UsageError(f"A tag filter of the Type {kind} needs {name.capitalize()}.")
    return {"key": known.get("key", ""), "value": known.get("value", ""), "type": kind}


def _implied(known: Mapping[str, str]) -> str:
    if "key" in known:
        return "KEY_AND_VALUE" if "value" in known else "KEY_ONLY"
    return "VALUE_ONLY"


def _meets(tags: Mapping[str, Any], wanted: Mapping[str, str]) -> bool:
    if wanted["type"] == "KEY_ONLY":
        return wanted["key"] in tags
    if wanted["type"] == "VALUE_ONLY":
        return wanted["value"] in [str(value) for value in tags.values()]
    return wanted["key"] in tags and str(tags[wanted["key"]]) == wanted["value"]


def origin(file: Any, folder: Any, instance: str, tags: Any) -> str:
    """Return where a target of an inventory comes from, for a person.

    :param file: file of the inventory that has it, ``folder`` the folder of that file
    :param instance: its id at EC2, ``tags`` its tags there
    """
    source = str(file or "")
    parent = str(folder or "").rstrip("/").rpartition("/")[0]
    if parent and source.startswith(f"{parent}/"):
        source = source[len(parent) + 1 :]
    told = [source] if source else []
    if instance.startswith("i-"):
        group = tags.get("aws:autoscaling:groupName") if isinstance(tags, Mapping) else None
        told.append(f"Auto Scaling group {group}" if group else "EC2")
    return ", ".join(told)
