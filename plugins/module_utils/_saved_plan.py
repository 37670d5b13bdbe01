# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan that is kept in a file, and whether the world is still as it was when it was made.

Pure. A saved plan is a dict of plain data:

``format`` (1), ``made`` {"at": epoch seconds, "by", "from"}, ``salt``;
``strategy``, ``application``, ``group``, ``revision`` {"digest", "source", "description"},
``plan`` and ``plan_hash``; ``run`` {"inventory": [source], "limit", "base": folder, "variables":
{name: value}, "withheld": {name: seal}};
``settings`` {name: value} and ``sealed`` {name: seal}: the public variables as they were;
``targets`` {name: {"name", "address", "port", "zone", "variables"}}, ``routing`` {target:
{"in_service": bool, "where": text}}, ``record`` {"revision": digest or None, "newest": id or None,
"told": text, "targets": {name: {"health", "digest"}}}.

A value that may be secret is not in the file: its seal is a salted scrypt hash, which tells whether
the same value is given again.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from ._errors import PlanError
from ._plan_hash import plan_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

FORMAT = 1
_PARTS = {
    "strategy": str, "application": str, "group": str, "revision": dict, "plan": dict,
    "plan_hash": str, "run": dict, "settings": dict, "sealed": dict, "targets": dict,
    "routing": dict, "record": dict, "made": dict, "salt": str,
}  # fmt: skip
# Public variables that hold what must not be read: hooks and gates get passwords.
SECRET = frozenset(
    {
        "deploy_hook_environment",
        "deploy_github_token",
        "deploy_gates",
        "deploy_health_gates",
        "deploy_judge",
        "deploy_notifications",
        "deploy_record",
    }
)
# What names the plan itself, or how the run is carried out.
OWN = frozenset({"deploy_plan", "deploy_plan_output", "deployment_id"})
_CREDENTIALS = re.compile(r"://[^/\s@]*@|https?://\S*\?")

Saved = dict[str, Any]


def seal(name: str, value: Any, salt: str) -> str:
    """Return what tells a value from others without telling the value."""
    text = json.dumps([name, value], sort_keys=True, default=str).encode()
    return hashlib.scrypt(text, salt=salt.encode(), n=2**14, r=8, p=1, dklen=32).hex()


def may_be_kept(name: str, value: Any, public: Mapping[str, Any]) -> bool:
    """Tell whether a variable's value can be written to a file.

    Of a user's own variable nobody knows; of ours, those that hold secrets cannot, and no value
    with an address that carries a password or a signature.
    """
    return name in public and name not in SECRET and not any(_texts_with_credentials(value))


def _texts_with_credentials(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if _CREDENTIALS.search(value):
            yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _texts_with_credentials(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _texts_with_credentials(one)


def read_saved(text: str, where: str) -> Saved:
    """Read a saved plan.

    Raises PlanError if the text is none, if another version has written it, or if the plan in it
    was changed.
    """
    again = "Make it again with `bascule plan … -o FILE`."
    try:
        saved = json.loads(text)
    except ValueError as error:
        raise PlanError(f"{where} is no saved plan: {error}. {again}") from None
    if not isinstance(saved, dict) or "format" not in saved:
        raise PlanError(f"{where} is no saved plan. {again}")
    if saved["format"] != FORMAT:
        raise PlanError(
            f"{where} is a plan of format {saved['format']!r}; this Bascule reads format {FORMAT}. "
            f"{again}"
        )
    for part, kind in _PARTS.items():
        if not isinstance(saved.get(part), kind):
            raise PlanError(f"{where} is damaged: its {part} is missing or wrong. {again}")
    if plan_hash(saved["plan"], str(saved["revision"].get("digest"))) != saved["plan_hash"]:
        raise PlanError(
            f"The plan in {where} is not the one that was written to it: its hash is another one. "
            f"Plans are not edited; change the variables. {again}"
        )
    return dict(saved)


def first_difference(saved: Saved, now: Saved) -> str:
    """Return what has changed since the plan was saved, the first thing by name; empty if nothing.

    ``now`` is a saved plan that would be made at this moment with the same ``salt``; what the plan
    itself would be is left to ``plan_difference``.
    """
    looks: tuple[Callable[[Saved, Saved], str], ...] = (
        _what_is_run,
        _given,
        _inventory,
        _settings,
        _revision,
        _record,
        _routing,
    )
    return next((told for look in looks if (told := look(saved, now))), "")


def _what_is_run(saved: Saved, now: Saved) -> str:
    for part, word in (
        ("strategy", "strategy"),
        ("application", "application"),
        ("group", "group"),
    ):
        if saved[part] != now[part]:
            return f"it is a plan for the {word} {saved[part]}, and this run is for {now[part]}"
    return ""


def _given(saved: Saved, now: Saved) -> str:
    """Compare the variables given by -e whose values are not in the file."""
    before, after = saved["run"]["withheld"], now["run"]["withheld"]
    missing = sorted(before.keys() - after.keys() - now["run"]["variables"].keys())
    if missing:
        several = len(missing) > 1
        return (
            f"the variable{'s' if several else ''} {', '.join(missing)} "
            f"{'were' if several else 'was'} given to the plan, which does not keep values that "
            f"may be secret: give {'them' if several else 'it'} again with -e"
        )
    for name in sorted(after.keys() - before.keys()):
        return f"the variable {name} was not given to the plan"
    for name in sorted(before.keys() & after.keys()):
        if before[name] != after[name]:
            return f"the variable {name} has another value"
    return ""


def _inventory(saved: Saved, now: Saved) -> str:
    before, after = saved["targets"], now["targets"]
    for name in after:
        if name not in before:
            return f"the inventory has a new target {name}"
    for name in before:
        if name not in after:
            return f"the inventory has no target {name} any more"
    for name, was in before.items():
        for part in ("address", "port", "zone", "name"):
            if was[part] != after[name][part]:
                word = "name at the load balancer" if part == "name" else part
                return (
                    f"the inventory's target {name}: its {word} was {was[part]!r} and is "
                    f"{after[name][part]!r}"
                )
        told = _differing(was["variables"], after[name]["variables"])
        if told:
            return f"the inventory's target {name}: {told}"
    return ""


def _settings(saved: Saved, now: Saved) -> str:
    told = _differing(saved["settings"], now["settings"])
    if told:
        return told
    for name in sorted(saved["sealed"].keys() | now["sealed"].keys()):
        if saved["sealed"].get(name) != now["sealed"].get(name):
            return f"the variable {name} has another value"
    return ""


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    for name in sorted(before.keys() | after.keys()):
        if name not in after:
            return f"the variable {name} was {_shown(before[name])} and is not set any more"
        if name not in before:
            return f"the variable {name} was not set and is {_shown(after[name])}"
        if before[name] != after[name]:
            return f"the variable {name} was {_shown(before[name])} and is {_shown(after[name])}"
    return ""


def _revision(saved: Saved, now: Saved) -> str:
    was, found = saved["revision"], now["revision"]
    if was["digest"] == found["digest"]:
        return ""
    return f"the revision {was['source']} moved from {was['digest'][:12]} to {found['digest'][:12]}"


def _record(saved: Saved, now: Saved) -> str:
    was, found = saved["record"], now["record"]
    if was["newest"] != found["newest"]:
        if found["newest"] is None:
            return f"the record does not have the deployment {was['newest']} any more"
        return f"the deployment {found['newest']} ran since ({found['told']})"
    if was["revision"] != found["revision"]:
        return (
            f"the revision of the group was {_short(was['revision'])} and is "
            f"{_short(found['revision'])} in the record"
        )
    for name in sorted(was["targets"].keys() | found["targets"].keys()):
        before, after = was["targets"].get(name), found["targets"].get(name)
        if before != after:
            return f"the record has {name} as {_state(after)}; it was {_state(before)}"
    return ""


def _routing(saved: Saved, now: Saved) -> str:
    for name, was in saved["routing"].items():
        found = now["routing"].get(name)
        if found is None:
            return f"routing: nothing is known of {name} any more"
        if was["in_service"] and not found["in_service"]:
            return f"routing: {name} is not in service any more ({found['where']})"
        if found["in_service"] and not was["in_service"]:
            return f"routing: {name} is in service again ({found['where']})"
    for name in now["routing"]:
        if name not in saved["routing"]:
            return f"routing: {name} was not looked at by the plan"
    return ""


def plan_difference(saved: Saved, plan: Mapping[str, Any]) -> str:
    """Return that another plan would be made now, and in what; empty if it would be the same."""
    made = json.loads(json.dumps(plan))
    parts = [
        name
        for name in sorted(saved["plan"].keys() | made.keys())
        if saved["plan"].get(name) != made.get(name)
    ]
    if not parts:
        return ""
    return f"the plan would be another one now ({', '.join(parts)})"


def _state(state: Mapping[str, Any] | None) -> str:
    if state is None:
        return "unknown"
    return f"{state['health']} with revision {_short(state['digest'])}"


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "unknown"


def _shown(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
