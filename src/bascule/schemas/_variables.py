"""From the documentation of the variables to the JSON Schema of a file that sets them.

And to the page that lists them.
"""

from __future__ import annotations

import json
import re
import typing as t

Options = dict[str, dict[str, t.Any]]
Schema = dict[str, t.Any]

TEMPLATE: Schema = {"$ref": "#/definitions/template"}
_MARKUP = re.compile(r"\b[COVMEP]\(([^()]*)\)")
# What YAML makes of a value that Ansible turns into text by itself.
_TEXT = ["string", "number", "boolean"]
_TYPES: dict[str, t.Any] = {
    "str": _TEXT,
    "path": _TEXT,
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "list": "array",
    "dict": "object",
}


def group_variables(options: Options) -> Schema:
    """Return the schema of ``group_vars`` and ``host_vars`` files.

    Other variables are allowed beside; a name that begins like one of ours and is none is not.

    :param options: ``{name: {"type", "description", "choices", "default", "elements", "options"}}``
        as in ``argument_specs.yml``
    """
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Variables of a Bascule deployment group",
        "description": "Settings for group_vars and host_vars; names that begin with deploy_ are"
        " Bascule's, all others are yours.",
        "type": ["object", "null"],
        "properties": {name: variable(spec) for name, spec in sorted(options.items())},
        "patternProperties": {"^(?!deploy_)": True},
        "additionalProperties": False,
        "definitions": {
            "template": {"type": "string", "pattern": r"\{[{%]", "description": "A template."}
        },
    }


def variable(spec: dict[str, t.Any]) -> Schema:
    """Return the schema of one variable; a template may stand for any value."""
    schema: Schema = {"description": plain(spec.get("description", ""))}
    if "default" in spec:
        schema["default"] = spec["default"]
    value = _value(spec)
    if value:
        alone = set(value) == {"type"} and "string" in value["type"]
        schema.update(value if alone else {"anyOf": [value, TEMPLATE]})
    return schema


def _value(spec: dict[str, t.Any]) -> Schema:
    kind = spec.get("type", "str")
    if kind == "raw":
        return {}
    choices = spec.get("choices")
    if choices and kind != "list":
        return {"enum": list(choices)}
    schema: Schema = {"type": _TYPES[kind]}
    if kind == "list":
        element = {
            "type": spec.get("elements", "raw"),
            **({"choices": choices} if choices else {}),
            **({"options": spec["options"]} if "options" in spec else {}),
        }
        items = _value(element)
        if items:
            schema["items"] = {"anyOf": [items, TEMPLATE]}
    elif kind == "dict" and "options" in spec:
        inner: Options = spec["options"]
        schema["properties"] = {name: variable(option) for name, option in inner.items()}
        schema["required"] = [name for name, option in inner.items() if option.get("required")]
        schema["additionalProperties"] = False
    return schema


def plain(description: str | list[str]) -> str:
    """Return a description without Ansible's markup, as Markdown."""
    lines = [description] if isinstance(description, str) else description
    return "\n\n".join(_MARKUP.sub(r"`\1`", line.strip()) for line in lines)


PAGE = """\
# Variables

All variables of a deployment group, for `group_vars` and `host_vars`, in the order in which one
meets them. A name that begins with `deploy_` and is not here is refused. What they are for is told
by topic, on the pages beside this one; `ansible-doc` and the [editor](appspec.md) show the same.
Written by `python -m bascule.schemas`.

| variable | default | meaning |
|---|---|---|
"""


def page(options: Options) -> str:
    """Return the page of the documentation that lists the variables.

    :param options: as in :func:`group_variables`, in the order of the page
    """
    return PAGE + "".join(_row(name, spec) for name, spec in options.items())


def _row(name: str, spec: dict[str, t.Any]) -> str:
    meaning = plain(spec.get("description", ""))
    if spec.get("choices"):
        meaning += " One of " + ", ".join(f"`{one}`" for one in spec["choices"]) + "."
    if isinstance(spec.get("options"), dict):
        meaning += " Keys: " + ", ".join(f"`{one}`" for one in spec["options"]) + "."
    shown = json.dumps(spec["default"], ensure_ascii=False) if "default" in spec else ""
    cells = (f"`{name}`", f"`{shown}`" if shown else "", meaning.replace("\n\n", "<br>"))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def as_text(schema: Schema) -> str:
    """Return a schema as it stands in its file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
