# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The AppSpec's access control entries and SELinux ranges (agent 1.8.1: ace_info, range_info)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_KINDS = {
    "u": "user",
    "user": "user",
    "g": "group",
    "group": "group",
    "m": "mask",
    "mask": "mask",
    "o": "other",
    "other": "other",
}
_BITS = ((4, "r"), (2, "w"), (1, "x"))


class Entry(NamedTuple):
    """One access control entry; ``name`` is empty for the owner, the group, mask and others."""

    default: bool
    kind: str
    name: str
    permissions: str

    def text(self) -> str:
        """Return the entry as setfacl reads it."""
        prefix = "default:" if self.default else ""
        return f"{prefix}{self.kind}:{self.name}:{self.permissions}"


def parse_entry(text: str) -> Entry:
    """Read ``[d:]{u|g|m|o}:name:perm`` as the agent does: two to four parts.

    Only m and o are kinds without a third part: ``u:r`` is the user named u.

    :raises ValueError: with the agent's reason, for an entry that it refuses
    """
    parts = text.split(":")
    default = parts[0] in ("d", "default") and len(parts) > 2
    kind_text = parts[1] if default and len(parts) == 4 else parts[0]
    has_kind = len(parts) - default == 3
    if (
        not 2 <= len(parts) <= 4
        or (len(parts) == 4 and not default)
        or (has_kind and (not kind_text or kind_text not in _KINDS))
    ):
        raise ValueError(f"Invalid acl entry ({text}).")
    name = parts[-2]
    kind = _KINDS[kind_text] if has_kind else "user"
    if not has_kind and name in ("m", "mask", "o", "other"):
        kind, name = _KINDS[name], ""
    if kind in ("mask", "other") and name:
        raise ValueError(f"Invalid acl entry ({text}).")
    if not default and not name and kind != "mask":
        raise ValueError(f"Use mode to set the base acl entry ({text}).")
    return Entry(default, kind, name, rights(parts[-1]))


def rights(text: str) -> str:
    """Return ``rwx`` form for one octal digit or letters out of ``rwx-``; none is ``---``.

    :raises ValueError: for another letter
    """
    if len(text) == 1 and text in "01234567":
        number = int(text)
        return "".join(letter if number & bit else "-" for bit, letter in _BITS)
    for letter in text:
        if letter not in "rwx-":
            raise ValueError(f"It contains an invalid character ({letter}).")
    return "".join(letter if letter in text else "-" for _bit, letter in _BITS)


def full_set(entries: list[Entry], mode: int) -> list[Entry]:
    """Complete the entries of one path with its base entries, made from its own mode.

    A mask that is not written is the group's entry of the same list (install_instruction.rb).
    The list is new for every path: in the agent the base entries of the first file leak into all
    later files of the same permission.
    """
    user, group, other = (rights(str(mode >> shift & 7)) for shift in (6, 3, 0))
    result = list(entries)

    def has(default: bool, kind: str) -> bool:
        return any(e.default == default and e.kind == kind and not e.name for e in entries)

    def named(default: bool) -> bool:
        return any(e.default == default and e.name for e in entries)

    result.append(Entry(False, "user", "", user))
    result.append(Entry(False, "group", "", group))
    result.append(Entry(False, "other", "", other))
    if named(False) and not has(False, "mask"):
        result.append(Entry(False, "mask", "", group))
    if any(entry.default for entry in entries):
        for kind, permissions in (("user", user), ("group", group), ("other", other)):
            if not has(True, kind):
                result.append(Entry(True, kind, "", permissions))
        if named(True) and not has(True, "mask"):
            # The group's default entry, whether it was written or made from the mode just now.
            written = (e for e in result if e.default and e.kind == "group" and not e.name)
            result.append(Entry(True, "mask", "", next(written).permissions))
    return result


def check_range(text: str) -> str:
    """Check an SELinux range, ``s0``, ``s0-s3`` or ``s0-s3:c0.c5,c9``, and return its plain form.

    That is how the agent gives it to semanage: ``s0-s0:c1,c2,c3`` becomes ``s0:c1.c3``.

    :raises ValueError: with the reason
    """
    levels, colon, categories = text.partition(":")
    low, dash, high = levels.partition("-")
    bounds = [_number(part, "s") for part in ((low, high) if dash else (low,))]
    if dash and bounds[0] > bounds[1]:
        raise ValueError(f"the sensitivity {low} is above {high}")
    plain = f"s{bounds[0]}" + (f"-s{bounds[-1]}" if bounds[0] != bounds[-1] else "")
    if not colon:
        return plain
    if not categories:
        raise ValueError("nothing follows the colon")
    seen: set[int] = set()
    # Ruby's split drops what is empty at the end.
    for part in categories.rstrip(",").split(",") if categories.rstrip(",") else ():
        first, dot, last = part.partition(".")
        start = _number(first, "c")
        end = _number(last, "c") if dot else start
        if end < start or end > 1023:
            raise ValueError(f"{part!r} is no range of categories up to c1023")
        for number in range(start, end + 1):
            if number in seen:
                raise ValueError(f"the category c{number} is given twice")
            seen.add(number)
    return f"{plain}:{','.join(_runs(sorted(seen)))}"


def _runs(numbers: list[int]) -> Iterator[str]:
    """Name sorted categories, neighbours as one run."""
    index = 0
    while index < len(numbers):
        first = last = numbers[index]
        while index < len(numbers) and numbers[index] - last <= 1:
            last = numbers[index]
            index += 1
        yield f"c{first}" if first == last else f"c{first}.c{last}"


def _number(text: str, letter: str) -> int:
    digits = text[1:]
    if text[:1] != letter or not (digits.isascii() and digits.isdigit()):
        raise ValueError(f"{text[:40]!r} is not {letter} and a number")
    # Python converts no more than some thousand digits; none of them changes what is decided.
    return int(digits.lstrip("0")[:9] or "0")
