"""AppSpec files for Lambda, in both of their spellings and both of their languages."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from ansible_collections.bascule.deploy.plugins.module_utils._appspec_lambda import (
    parse_lambda_appspec,
)
from ansible_collections.bascule.deploy.plugins.module_utils._errors import AppSpecError
from ansible_collections.bascule.deploy.plugins.module_utils._findings import validate
from jsonschema import Draft7Validator

from bascule import schemas

if TYPE_CHECKING:
    from pathlib import Path

# The example of CodeDeploy's user guide, "Example AppSpec file for a Lambda deployment".
GUIDE = """\
version: 0.0
# In this Resources section specify the name, alias,
# target version, and (optional) the current version of your AWS Lambda function.
Resources:
  - MyFunction: # Replace "MyFunction" with the name of your Lambda function
      Type: AWS::Lambda::Function
      Properties:
        Name: "myLambdaFunction" # Specify the name of your Lambda function
        Alias: "myLambdaFunctionAlias" # Specify the alias for your Lambda function
        CurrentVersion: "1" # Specify the current version of your Lambda function
        TargetVersion: "2" # Specify the version of your Lambda function to deploy
Hooks:
  - BeforeAllowTraffic: "LambdaFunctionToValidateBeforeTrafficShift"
  - AfterAllowTraffic: "LambdaFunctionToValidateAfterTrafficShift"
"""
TREE = {
    "version": 0.0,
    "platform": "lambda",
    "resource": "MyFunction",
    "function": "myLambdaFunction",
    "alias": "myLambdaFunctionAlias",
    "current_version": "1",
    "target_version": "2",
    "hooks": {
        "BeforeAllowTraffic": "LambdaFunctionToValidateBeforeTrafficShift",
        "AfterAllowTraffic": "LambdaFunctionToValidateAfterTrafficShift",
    },
}


def small(value: Any) -> Any:
    """Write every key of a document small, but those of hooks and of the resource's name."""
    keep = {"MyFunction", "BeforeAllowTraffic", "AfterAllowTraffic"}
    if isinstance(value, dict):
        return {k if k in keep else k.lower(): small(v) for k, v in value.items()}
    return [small(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    "text",
    [
        GUIDE,
        yaml.safe_dump(small(yaml.safe_load(GUIDE))),
        json.dumps(yaml.safe_load(GUIDE)),
        json.dumps(small(yaml.safe_load(GUIDE)), indent="\t"),
        GUIDE.replace('"1"', "1").replace('"2"', "2").replace("0.0", '"0.0"'),
    ],
    ids=["guide", "small", "json", "tabs", "numbers"],
)
def test_every_way_to_write_it(text: str) -> None:
    assert parse_lambda_appspec(text) == TREE
    assert parse_lambda_appspec(text.encode()) == TREE
    schema = Draft7Validator(schemas.read("appspec-lambda"))
    assert not list(schema.iter_errors(yaml.safe_load(text.replace("\t", " "))))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version: 0.0", "version: 0.1", "version must be 0.0"),
        ("version: 0.0", "", "version must be 0.0"),
        ("version: 0.0", "version: 0.0\nos: linux", "'os' is unknown in the AppSpec file"),
        ("AWS::Lambda::Function", "AWS::ECS::Service", "must be AWS::Lambda::Function"),
        ("Properties:", "Property:", "'Property' is unknown in the resource MyFunction"),
        ('        Name: "myLambdaFunction"', "#", "Name must be a text"),
        ('        Alias: "myLambdaFunctionAlias"', "#", "Alias must be a text"),
        ('"1"', "$LATEST", "CurrentVersion is '\\$LATEST'; wanted is the number"),
        ('"2"', "live", "TargetVersion is 'live'; wanted is the number"),
        ('        TargetVersion: "2"', "#", "TargetVersion must be a text"),
        ("- AfterAllowTraffic", "- AfterInstall", "AfterInstall is no event of a Lambda"),
        ("- AfterAllowTraffic", "- BeforeAllowTraffic", "named twice"),
        ('"LambdaFunctionToValidateAfterTrafficShift"', "[a]", "the name or the ARN"),
        ("Hooks:", "Hooks: x\nhooks:", "Hooks is written twice"),
        ("Hooks:\n", "Hooks: x #\nignored:\n", "'ignored' is unknown"),
    ],
)
def test_what_is_refused(old: str, new: str, message: str) -> None:
    assert old in GUIDE
    with pytest.raises(AppSpecError, match=message):
        parse_lambda_appspec(GUIDE.replace(old, new))


def test_one_resource_is_deployed() -> None:
    document = yaml.safe_load(GUIDE)
    document["Resources"].append({"Other": document["Resources"][0]["MyFunction"]})
    with pytest.raises(AppSpecError, match="one function at a time"):
        parse_lambda_appspec(json.dumps(document))


def test_a_file_beside_a_package_needs_no_versions(tmp_path: Path) -> None:
    text = "\n".join(line for line in GUIDE.splitlines() if "Version:" not in line)
    tree = parse_lambda_appspec(text, published=False)
    assert (tree["current_version"], tree["target_version"]) == (None, None)
    (tmp_path / "appspec.yml").write_text(text)
    assert validate(tmp_path).accepted
    alone = validate(tmp_path / "appspec.yml")
    assert not alone.accepted
    assert "CurrentVersion must be a text" in alone.findings[0].message


def test_validation_tells_the_place_and_the_tree(tmp_path: Path) -> None:
    file = tmp_path / "appspec.json"
    file.write_text(json.dumps(yaml.safe_load(GUIDE), indent=2))
    assert validate(file).appspec == TREE
    bad = tmp_path / "appspec.yml"
    bad.write_text(GUIDE.replace("AWS::Lambda::Function", "Lambda"))
    found = validate(bad).findings
    assert [(one.severity, one.code, one.line) for one in found] == [("error", "type", 6)]
    bad.write_text(GUIDE.replace('CurrentVersion: "1"', 'CurrentVersion: "2"'))
    same = validate(bad)
    assert same.accepted
    assert [one.code for one in same.findings] == ["same-version"]
