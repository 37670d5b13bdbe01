# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""YAML as the CodeDeploy agent reads it, with the place of every value.

The agent loads an AppSpec with Ruby's Psych: YAML 1.1 with a few readings of its own (``1:30`` is
5400, ``1,000`` is 1000, ``089`` is text). PyYAML gives the events here, from libyaml where it has
it, as Psych does; the readings are made by :func:`scalar`, so that the same text means the same
thing on both sides.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from ._errors import AppSpecError

if TYPE_CHECKING:
    from collections.abc import Iterator

# An AppSpec is written by hand; these bounds only stop input that is meant to exhaust memory.
MAX_BYTES = 1_048_576
MAX_DEPTH = 64
MAX_NODES = 100_000
# So many characters count as a value: an alias may repeat a long text, too.
_CHARACTERS = 100

_TEXT = re.compile(r"[^\d.:-]?[A-Za-z_\s!@#$%^&*(){}<>|/\\~;=\u0080-\U0010ffff]+")
_SEXAGESIMAL = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9]){1,2}\Z")
_SEXAGESIMAL_FLOAT = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9]){1,2}\.[0-9_]*\Z")
_FLOAT = re.compile(r"[-+]?(?:[0-9][0-9_,]*)?\.[0-9]*(?:[eE][+-][0-9]+)?\Z")
_INTEGER = re.compile(r"[-+]?(?:0[0-7_,]+|0|[1-9](?:[_,]?[0-9])*|0b[01_,]+|0x[0-9a-fA-F_,]+)\Z")
_DATE = re.compile(
    r"(?:\d{4}-(?:1[012]|0\d|\d)-(?:[12]\d|3[01]|0\d|\d)"
    r"|-?\d{4}-\d{1,2}-\d{1,2}(?:[Tt]|\s+)\d{1,2}:\d\d:\d\d(?:\.\d*)?"
    r"(?:\s*(?:Z|[-+]\d{1,2}:?(?:\d\d)?))?)\Z",
    re.ASCII,
)
# What Ruby's strip takes at both ends.
BLANKS = "\0\t\n\v\f\r "
_STANDARD_TAG = "tag:yaml.org,2002:"
_BINARY_TAGS = (_STANDARD_TAG + "binary", "!binary")
_TEXT_TAGS = (_STANDARD_TAG + "str", "!str", "!ruby/string")
# What stands for objects that Psych makes no more (Psych::DisallowedClass).
_OBJECT_TAG = re.compile(
    r"!ruby/(?:object|regexp|range|struct|class|module|exception|hash:|array:)"
    r"|!(?:str|map|seq):|tag:yaml\.org,2002:set\Z"
)


class LocatedError(AppSpecError):
    """An AppSpec that is refused, with the place (counted from 1) and a short code."""

    def __init__(self, message: str, line: int = 0, column: int = 0, code: str = "invalid") -> None:
        """Keep the bare message apart from the place, for programs that print their own."""
        self.message = message
        self.line = line
        self.column = column
        self.code = code
        place = f" (AppSpec file, line {line}, column {column})" if line else ""
        super().__init__(message + place)


class _Inspected(str):
    """The name of a member whose key is a collection: what Ruby shows of it."""

    __slots__ = ()


class Symbol:
    """What Psych makes of ``:name``: its text is ``name``, but it equals no text."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        """Take the text without the colon."""
        self.text = text

    def __str__(self) -> str:
        """Return it as Ruby's ``to_s`` does."""
        return self.text


class Node:
    """A YAML value with its place: ``kind`` is ``scalar``, ``list`` or ``map``.

    ``value`` is the Python value of a scalar, a list of nodes, or a dict of nodes by their key.
    ``raw`` is the text as written, ``plain`` says that a scalar stood without quotes.
    """

    __slots__ = ("column", "duplicates", "kind", "line", "plain", "raw", "value")

    def __init__(self, kind: str, value: Any, line: int, column: int) -> None:
        """Make a node at a place counted from 1."""
        self.kind = kind
        self.value = value
        self.line = line
        self.column = column
        self.raw = ""
        self.plain = False
        self.duplicates: list[tuple[str, int, int]] = []

    @property
    def is_null(self) -> bool:
        """Whether this is YAML's null."""
        return self.kind == "scalar" and self.value is None

    @property
    def is_absent(self) -> bool:
        """Whether Ruby's ``||`` goes past this to a default: null and false."""
        return self.kind == "scalar" and (self.value is None or self.value is False)

    @property
    def is_empty(self) -> bool:
        """Whether this is null or a collection without members."""
        return self.is_null or (self.kind != "scalar" and not self.value)

    def get(self, key: str) -> Node | None:
        """Return the member of a map; none for a missing key and for null alike."""
        if self.kind != "map":
            return None
        found: Node | None = self.value.get(key)
        return None if found is None or found.is_null else found

    def text(self) -> str:
        """Return the value as Ruby's ``to_s`` gives it."""
        return ruby_text(self.data())

    def data(self) -> Any:
        """Return plain Python data."""
        if self.kind == "list":
            return [item.data() for item in self.value]
        if self.kind == "map":
            return {key: item.data() for key, item in self.value.items()}
        return self.value

    def error(self, message: str, code: str = "invalid") -> LocatedError:
        """Make an error that names this place."""
        return LocatedError(message, self.line, self.column, code)


def load(text: bytes | str, *, ruby: bool = False) -> Node:
    """Read the first document of an AppSpec.

    :param ruby: refuse what Psych refuses under Ruby 3.1 and later: aliases, dates without quotes,
        and tags that stand for objects
    :raises AppSpecError: for text that is no YAML, is empty, nests or expands beyond all reason
    """
    # PyYAML is a requirement of the controller only; without it the other floors still import.
    import yaml

    decoded = _decode(text)
    if not decoded.strip():
        raise LocatedError(
            "The deployment failed because the application specification file was empty. Make sure"
            " your AppSpec file defines at minimum the 'version' and 'os' properties.",
            code="empty",
        )
    try:
        root = _Composer(yaml, ruby).document(_events(yaml, decoded))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        raise LocatedError(
            f"The AppSpec file is not valid YAML: {problem}. Correct it, and then try again.",
            mark.line + 1 if mark else 0,
            mark.column + 1 if mark else 0,
            "yaml",
        ) from error
    except RecursionError as error:
        raise LocatedError("The AppSpec file nests too deeply.", code="yaml") from error
    if root is None:
        root = Node("scalar", None, 1, 1)
    return root


def _events(yaml: Any, text: str) -> Iterator[Any]:
    return iter(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def second_document(text: bytes | str) -> tuple[int, int] | None:
    """Return where a second document begins, which nobody reads; None without one.

    :param text: what :func:`load` accepts
    """
    import yaml

    documents = 0
    try:
        for event in _events(yaml, _decode(text)):
            documents += isinstance(event, yaml.DocumentStartEvent)
            if documents == 2:
                return event.start_mark.line + 1, event.start_mark.column + 1
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        return (mark.line + 1, mark.column + 1) if mark else None
    return None


def _decode(text: bytes | str) -> str:
    if len(text) > MAX_BYTES:
        raise LocatedError(
            f"The AppSpec file has {len(text)} bytes; at most {MAX_BYTES} are read."
            " Is this the right file?",
            code="yaml",
        )
    if isinstance(text, str):
        # libyaml takes bytes, which half a surrogate pair cannot become.
        text = text.encode("utf-8", "surrogatepass")
    try:
        encoding = "utf-16" if text[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        return text.decode(encoding)
    except UnicodeDecodeError as error:
        line = text[: error.start].count(b"\n") + 1
        raise LocatedError(
            "The AppSpec file is not UTF-8 text. Save it as UTF-8, and then try again.",
            line,
            error.start - (text.rfind(b"\n", 0, error.start) + 1) + 1,
            "yaml",
        ) from error


class _Composer:
    """Builds nodes from PyYAML's events; aliases are copied against a budget."""

    def __init__(self, yaml: Any, ruby: bool) -> None:
        self._yaml = yaml
        self._ruby = ruby
        self._anchors: dict[str, Node | None] = {}
        self._sizes: dict[int, int] = {}
        self._made = 0

    def document(self, events: Iterator[Any]) -> Node | None:
        for event in events:
            if isinstance(event, (self._yaml.StreamStartEvent, self._yaml.DocumentStartEvent)):
                continue
            if isinstance(event, self._yaml.StreamEndEvent):
                return None
            return self._node(event, events, 0)
        return None

    def _count(self, event: Any, size: int) -> None:
        self._made += size
        if self._made > MAX_NODES:
            raise self._error(
                event,
                f"The AppSpec file holds more than {MAX_NODES} values, counted with what aliases"
                " repeat.",
            )

    @staticmethod
    def _error(event: Any, message: str) -> LocatedError:
        mark = event.start_mark
        return LocatedError(message, mark.line + 1, mark.column + 1, "yaml")

    def _node(self, event: Any, events: Iterator[Any], depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise self._error(event, f"The AppSpec file nests deeper than {MAX_DEPTH} levels.")
        if isinstance(event, self._yaml.AliasEvent):
            return self._alias(event)
        if self._ruby and event.tag and _OBJECT_TAG.match(event.tag):
            raise self._error(
                event, f"The tag {event.tag} is refused by CodeDeploy's agent 1. Leave it out."
            )
        before = self._made
        text = event.value if isinstance(event, self._yaml.ScalarEvent) else ""
        self._count(event, 1 + len(text) // _CHARACTERS)
        mark = event.start_mark
        node = Node("scalar", None, mark.line + 1, mark.column + 1)
        if event.anchor is not None:
            # None marks an anchor whose value is still being read: an alias to it is a loop.
            self._anchors[event.anchor] = None
        if isinstance(event, self._yaml.ScalarEvent):
            node.raw = event.value
            node.plain = not event.style and event.tag is None
            node.value = self._scalar(event)
        elif isinstance(event, self._yaml.SequenceStartEvent):
            node.kind, node.value = "list", []
            for child in events:
                if isinstance(child, self._yaml.SequenceEndEvent):
                    break
                node.value.append(self._node(child, events, depth + 1))
        else:
            node.kind, node.value = "map", {}
            self._members(node, events, depth)
        self._sizes[id(node)] = self._made - before
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, event: Any) -> Node:
        if self._ruby:
            raise self._error(
                event,
                f"The alias *{event.anchor} is refused by CodeDeploy's agent 1 where it runs on"
                " Ruby 3.1 or later. Write the value again in its place.",
            )
        if event.anchor not in self._anchors:
            raise self._error(event, f"The alias *{event.anchor} has no anchor before it.")
        node = self._anchors[event.anchor]
        if node is None:
            raise self._error(event, f"The alias *{event.anchor} contains itself.")
        self._count(event, self._sizes[id(node)])
        return node

    def _members(self, node: Node, events: Iterator[Any], depth: int) -> None:
        for event in events:
            if isinstance(event, self._yaml.MappingEndEvent):
                return
            key = self._node(event, events, depth + 1)
            following = next(events)
            value = self._node(following, events, depth + 1)
            # Psych merges under a quoted "<<", too, but not under one that says it is a text.
            if key.value == "<<" and getattr(event, "tag", "") not in _TEXT_TAGS[:1]:
                is_alias = isinstance(following, self._yaml.AliasEvent)
                if self._merge(node, value, is_alias):
                    continue
            # A name within a name is not quoted again: each level would double it.
            name = key.text() if key.kind == "scalar" else _Inspected(key.text())
            if isinstance(key.value, Symbol):
                name = key.raw
            if name in node.value:
                node.duplicates.append((name, key.line, key.column))
            node.value[name] = value

    @staticmethod
    def _merge(node: Node, value: Node, is_alias: bool) -> bool:
        """Merge what stands under ``<<``: of a list the first map with a key wins.

        :returns: whether there was something to merge; if not, ``<<`` is a key like others
        """
        sources = value.value if value.kind == "list" and not is_alias else [value]
        if any(source.kind != "map" for source in sources):
            return False
        for source in reversed(sources):
            node.value.update(source.value)
        return True

    def _scalar(self, event: Any) -> Any:
        tag = event.tag or ""
        if tag in _TEXT_TAGS or (tag == "" and not event.implicit[0]):
            return event.value
        if tag in _BINARY_TAGS:
            return _from_base64(event.value)
        if self._ruby and _DATE.match(event.value):
            raise self._error(
                event,
                f"The date {event.value} is refused by CodeDeploy's agent 1 where it runs on Ruby"
                " 3.1 or later. Put it in quotes.",
            )
        return scalar(event.value)


def _from_base64(text: str) -> str:
    """Return the text of a scalar in base 64, of as much of it as is base 64."""
    import base64
    import binascii

    try:
        return base64.b64decode(text).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return ""


def scalar(text: str) -> Any:
    """Read a plain scalar as Psych's ``ScalarScanner#tokenize`` does; dates stay text."""
    if not text:
        return None
    if "\n" in text or _TEXT.match(text):
        return _word(text)
    lowered = text.lower()
    if lowered in (".inf", "+.inf"):
        return float("inf")
    if lowered == "-.inf":
        return float("-inf")
    if lowered == ".nan":
        return float("nan")
    if text.startswith(":") and len(text) > 1:
        quoted = re.match(r":([\"'])(.*)\1", text)
        name = quoted.group(2) if quoted else text
        return Symbol(name[1:] if name.startswith(":") else name)
    for pattern, number in ((_SEXAGESIMAL, int), (_SEXAGESIMAL_FLOAT, float)):
        if pattern.match(text):
            # Psych's own reading: the first of two parts counts as hours, too.
            parts = enumerate(text.replace("_", "").split(":"))
            return sum(number(part) * 60 ** abs(index - 2) for index, part in parts)
    if _FLOAT.match(text):
        digits = text.replace(",", "").replace("_", "")
        return text if digits in (".", "-.", "+.") else float(digits)
    if _INTEGER.match(text):
        return _integer(text)
    return text


def _word(text: str) -> Any:
    lowered = text.lower()
    if text == "~" or lowered == "null":
        return None
    if lowered in ("yes", "true", "on"):
        return True
    if lowered in ("no", "false", "off"):
        return False
    return text


def _integer(text: str) -> Any:
    digits = text.replace(",", "").replace("_", "")
    sign = -1 if digits.startswith("-") else 1
    digits = digits.lstrip("+-")
    if len(digits) > 4000:  # Python refuses to convert longer ones; no field wants such a number
        return text
    if digits.startswith("0x"):
        base, digits = 16, digits[2:]
    elif digits.startswith("0b"):
        base, digits = 2, digits[2:]
    elif len(digits) > 1 and digits.startswith("0"):
        base = 8
    else:
        base = 10
    return sign * int(digits, base) if digits else text


def ruby_text(value: Any) -> str:
    """Return what Ruby's ``to_s`` makes of data that came from YAML."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, Symbol):
        return value.text
    return _inspect(value)


def _inspect(value: Any) -> str:
    if value is None:
        return "nil"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, _Inspected):
        return str(value)
    if isinstance(value, Symbol):
        plain = re.match(r"[^\W\d]\w*[?!=]?\Z", value.text)
        return ":" + (value.text if plain else _inspect(value.text))
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, list):
        return "[" + ", ".join(_inspect(item) for item in value) + "]"
    if isinstance(value, dict):
        pairs = (f"{_inspect(key)}=>{_inspect(item)}" for key, item in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"
    return str(value)
