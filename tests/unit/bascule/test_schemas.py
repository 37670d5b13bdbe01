"""The JSON Schemas are valid, say what the parser says, and fit the files of this project."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.bascule.deploy.plugins.module_utils._appspec import parse_appspec
from ansible_collections.bascule.deploy.plugins.module_utils._host import _events
from ansible_collections.bascule.deploy.plugins.module_utils._pools import TEST_EVENT
from ansible_collections.bascule.deploy.plugins.plugin_utils._settings import public_variables
from jsonschema import Draft7Validator

from bascule import schemas
from bascule.schemas._variables import as_text, plain

ROOT = Path(__file__).resolve().parents[3]
HEADER = "version: 0.0\nos: linux\n"


def problems(name: str, document: Any) -> list[str]:
    validator = Draft7Validator(schemas.read(name))
    return [error.message for error in validator.iter_errors(document)]


@pytest.mark.parametrize("name", schemas.NAMES)
def test_a_schema_is_one(name: str) -> None:
    schema = schemas.read(name)
    Draft7Validator.check_schema(schema)
    assert schemas.text(name) == as_text(schema)


def described(schema: Any, path: str = "") -> list[str]:
    """Return the properties that say nothing to who hovers over them."""
    if isinstance(schema, list):
        return [bad for item in schema for bad in described(item, path)]
    if not isinstance(schema, dict):
        return []
    missing = []
    for name, inner in schema.get("properties", {}).items():
        if isinstance(inner, dict) and "description" not in inner and "$ref" not in inner:
            missing.append(f"{path}.{name}")
    for key, inner in schema.items():
        missing += described(inner, f"{path}.{key}")
    return missing


@pytest.mark.parametrize("name", ["appspec-host", "group-variables"])
def test_every_key_has_a_description(name: str) -> None:
    assert described(schemas.read(name)) == []


def test_the_committed_variables_are_the_documented_ones() -> None:
    wanted = as_text(schemas.group_variables(public_variables()))
    assert schemas.text("group-variables") == wanted, "run: python -m bascule.schemas"


def test_the_page_of_the_variables_lists_them_all() -> None:
    written = (ROOT / "docs" / "variables.md").read_text()
    assert written == schemas.page(public_variables()), "run: python -m bascule.schemas"
    assert written.count("\n| `deploy_") == len(public_variables())


def appspecs() -> list[Path]:
    found = [
        path
        for top in ("examples", "extensions", "src")
        for path in ROOT.glob(f"{top}/**/appspec.yml")
    ]
    assert found
    return sorted(found)


@pytest.mark.parametrize("path", appspecs(), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_appspecs_of_this_project_fit(path: Path) -> None:
    assert problems("appspec-host", yaml.safe_load(path.read_text())) == []


@pytest.mark.parametrize("path", sorted(ROOT.glob("inventories/*/group_vars/*.yml")), ids=str)
def test_the_group_variables_of_this_project_fit(path: Path) -> None:
    assert problems("group-variables", yaml.safe_load(path.read_text())) == []


GOOD_HOST = [
    HEADER,
    "version: 0\nos: linux\nfiles:\nhooks:\npermissions:\n",
    f"{HEADER}files: [{{source: /, destination: /srv}}]\nfile_exists_behavior: RETAIN\n",
    f"{HEADER}hooks: {{AfterInstall: [{{location: a.sh, timeout: 5, runas: app}}], Mine: []}}\n",
    f"{HEADER}hooks: {{Mine: [{{location: a, arguments: [1, x], environment: {{A: 1}}}}]}}\n",
    f"{HEADER}hooks: {{AfterInstall: [{{location: a, retries: 2, run_on: always}}]}}\n",
    f"{HEADER}permissions: [{{object: /s, mode: '644', owner: 3, acls: ['u:x:rw', 'd:g:y:5']}}]\n",
    f"{HEADER}permissions: [{{object: /srv, context: {{type: t, range: 's0-s1:c1.c3,c9'}}}}]\n",
    f"{HEADER}permissions: [{{object: /srv, pattern: '*', except: ['a*'], type: [file]}}]\n",
]
BAD_HOST = [
    "os: linux\n",
    "version: 0.1\nos: linux\n",
    "version: '0.0'\nos: linux\n",
    "version: 0.0\nos: Linux\n",
    f"{HEADER}file: []\n",
    f"{HEADER}files: [{{source: /}}]\n",
    f"{HEADER}files: ['source and destination']\n",
    f"{HEADER}hooks: [AfterInstall]\n",
    f"{HEADER}hooks: {{AfterInstall: [a.sh]}}\n",
    f"{HEADER}hooks: {{AfterInstall: [{{location: a.sh, timeout: 0}}]}}\n",
    f"{HEADER}hooks: {{AfterInstall: [{{location: a.sh, run_as: app}}]}}\n",
    f"{HEADER}permissions: [{{mode: '0644'}}]\n",
    f"{HEADER}permissions: [{{object: /srv, mode: 0644}}]\n",
    f"{HEADER}permissions: [{{object: /srv, mode: '0888'}}]\n",
    f"{HEADER}permissions: [{{object: /srv, type: file}}]\n",
    f"{HEADER}permissions: [{{object: /srv, acls: ['x']}}]\n",
    f"{HEADER}permissions: [{{object: /srv, context: {{name: u}}}}]\n",
    f"{HEADER}permissions: [{{object: /srv, context: {{type: t, user: u}}}}]\n",
    f"{HEADER}permissions: [{{object: /srv, pattern: '**/*.sh'}}]\n",
    f"{HEADER}permissions: [{{object: /srv, except: [/srv/a]}}]\n",
    f"{HEADER}permissions: [{{object: /srv, except: a}}]\n",
    f"{HEADER}permissions: [{{object: /srv, acls: ['u::rw']}}]\n",
    f"{HEADER}permissions: [{{object: /srv, mode: u+x}}]\n",
    f"{HEADER}files: {{source: /, destination: /srv}}\n",
    f"{HEADER}files: [{{source: /, destination: srv/app}}]\n",
    f"{HEADER}files: [{{source: /, destination: ~/app}}]\n",
    f"{HEADER}files: [{{source: ../app, destination: /srv}}]\n",
    f"{HEADER}hooks: {{AfterInstall: {{location: a.sh}}}}\n",
    f"{HEADER}hooks: {{AfterInstall: [{{location: a.sh, timeout: 30s}}]}}\n",
    f"{HEADER}hooks: {{AfterInstall: [{{location: a.sh, sudo: 'true'}}]}}\n",
    f"{HEADER}hooks: {{AfterInstall: [{{location: a.sh}}], timeout: 30}}\n",
    f"{HEADER}file_exists_behavior: overwrite\n",
]


@pytest.mark.parametrize("text", GOOD_HOST)
def test_what_the_schema_takes_the_parser_takes(text: str) -> None:
    assert problems("appspec-host", yaml.safe_load(text)) == []
    assert parse_appspec(text)["os"] == "linux"


@pytest.mark.parametrize("text", BAD_HOST)
def test_what_the_schema_underlines(text: str) -> None:
    assert problems("appspec-host", yaml.safe_load(text)) != []


def test_what_an_editor_says_is_plain() -> None:
    """The editor shows a schema's own message instead of the validator's."""
    schema = schemas.read("appspec-host")
    silent = []

    def walk(where: str, node: Any) -> None:
        if isinstance(node, dict):
            if isinstance(node.get("pattern"), str) and "patternErrorMessage" not in node:
                silent.append(where)
            for key, value in node.items():
                walk(f"{where}/{key}", value)

    walk("", schema["properties"])
    # What must not be is told by the message of the whole.
    assert silent == ["/permissions/items/properties/acls/items/not"]
    hooks = schema["properties"]["hooks"]
    told = [*(one for one in hooks["properties"].values() if "items" not in one)]
    assert len(told) == len(_events.RESERVED)
    assert all("deprecationMessage" in one for one in [*told, hooks["additionalProperties"]])
    assert set(hooks["properties"]) == {*_events.HOOKS, *_events.RESERVED, TEST_EVENT}


LAMBDA = """\
version: 0.0
Resources:
  - checkout:
      Type: AWS::Lambda::Function
      Properties: {Name: checkout, Alias: live, CurrentVersion: 1, TargetVersion: 2}
Hooks:
  - BeforeAllowTraffic: check-before
  - AfterAllowTraffic: check-after
"""
ECS = """\
version: 0.0
Resources:
  - TargetService:
      Type: AWS::ECS::Service
      Properties:
        TaskDefinition: arn:aws:ecs:eu-west-1:111122223333:task-definition/web:2
        LoadBalancerInfo: {ContainerName: web, ContainerPort: 8080}
        NetworkConfiguration:
          AwsvpcConfiguration: {Subnets: [s-1], SecurityGroups: [g-1], AssignPublicIp: DISABLED}
Hooks:
  - AfterAllowTestTraffic: check
"""


def test_lambda_in_both_spellings() -> None:
    document = yaml.safe_load(LAMBDA)
    assert problems("appspec-lambda", document) == []
    function = document["Resources"][0]["checkout"]
    lower = {
        "version": 0.0,
        "resources": [
            {
                "checkout": {
                    "type": function["Type"],
                    "properties": {k.lower(): v for k, v in function["Properties"].items()},
                }
            }
        ],
        "hooks": document["Hooks"],
    }
    assert problems("appspec-lambda", lower) == []


@pytest.mark.parametrize(
    ("name", "text", "old", "new"),
    [
        ("appspec-lambda", LAMBDA, "Alias: live, ", ""),
        ("appspec-lambda", LAMBDA, "AfterAllowTraffic", "AfterInstall"),
        ("appspec-lambda", LAMBDA, "AWS::Lambda::Function", "Lambda"),
        ("appspec-ecs", ECS, "ContainerPort: 8080", "ContainerPort: http"),
        ("appspec-ecs", ECS, ", AssignPublicIp: DISABLED", ""),
        ("appspec-ecs", ECS, "TargetService", "Service"),
        ("appspec-ecs", ECS, "AfterAllowTestTraffic", "ApplicationStop"),
    ],
)
def test_what_lambda_and_ecs_want(name: str, text: str, old: str, new: str) -> None:
    assert problems(name, yaml.safe_load(text)) == []
    assert old in text
    assert problems(name, yaml.safe_load(text.replace(old, new))) != []


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("", True),
        ("other: 1\ndeploy_application: shop\n", True),
        ("deploy_aplication: shop\n", False),
        ("deploy_retained_revisions: many\n", False),
        ("deploy_retained_revisions: '{{ revisions }}'\n", True),
        ("deploy_file_exists_behavior: KEEP\n", False),
        ("deploy_file_exists_behavior: RETAIN\n", True),
        ("deploy_rollback_on: [ALARM]\n", False),
        ("deploy_health_gates: [{type: http, port: 80, path: /}]\n", True),
        ("deploy_health_gates: [{type: http, port: '{{ port }}'}]\n", True),
        ("deploy_health_gates: [{port: 80}]\n", False),
        ("deploy_health_gates: [{type: http, prot: 80}]\n", False),
        ("deploy_minimum_healthy_hosts: 50%\ndeploy_stages: [1, '10%']\n", True),
    ],
)
def test_group_variables(text: str, good: bool) -> None:
    assert (problems("group-variables", yaml.safe_load(text)) == []) == good


def test_ansibles_markup_becomes_markdown() -> None:
    assert plain(["See C(a b) or O(x[].y).", "  V(1)  "]) == "See `a b` or `x[].y`.\n\n`1`"


def test_the_editor_settings_name_schemas_that_are_there() -> None:
    settings = json.loads((ROOT / ".vscode" / "settings.json").read_text())
    assert {(ROOT / name).stem for name in settings["yaml.schemas"]} == set(schemas.NAMES)
    assert all((ROOT / name).is_file() for name in settings["yaml.schemas"])
