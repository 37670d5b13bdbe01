"""Functions as hosts, from a file of an inventory."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from support import aws, lambda_plane
from support.lambda_plane import package

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lambda_plane.LambdaPlane]:
    with lambda_plane.running(tmp_path_factory.mktemp("plane")) as found:
        for name, tags in (
            ("shop-cart", {"Application": "shop", "Environment": "prod"}),
            ("shop-order", {"Application": "shop", "Environment": "production"}),
            ("shop-old", {"Application": "shop", "Environment": "dev"}),
            ("other", {"Environment": "prod"}),
        ):
            found.create(name, package("1"), Tags=tags)
        yield found


def listed(plane: lambda_plane.LambdaPlane, tmp_path: Path, text: str) -> dict[str, Any]:
    file = tmp_path / "lambda_functions.yml"
    file.write_text("plugin: bascule.deploy.lambda_functions\n" + text)
    answer = subprocess.run(
        ["ansible-inventory", "-i", str(file), "--list"],
        env={**os.environ, **plane.environment, "ANSIBLE_INVENTORY_UNPARSED_FAILED": "true"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    if answer.returncode:
        return {"failed": answer.stderr}
    told: dict[str, Any] = json.loads(answer.stdout, object_hook=plain)
    return told


def plain(value: dict[str, Any]) -> Any:
    """Undo how Ansible marks what is no template, whatever a tag says."""
    return value.get("__ansible_unsafe", value)


def test_functions_are_chosen_by_their_tags(
    plane: lambda_plane.LambdaPlane, tmp_path: Path
) -> None:
    told = listed(
        plane,
        tmp_path,
        "tags: {Application: shop, Environment: [prod, production]}\n"
        "groups: {targets: true}\n"
        "keyed_groups: [{key: lambda_tags.Environment, prefix: env}]\n"
        "compose: {deploy_lambda_package: lambda_function_name ~ '.zip'}\n",
    )
    assert sorted(told["targets"]["hosts"]) == ["shop-cart", "shop-order"]
    assert told["env_prod"]["hosts"] == ["shop-cart"]
    cart = told["_meta"]["hostvars"]["shop-cart"]
    arn = f"arn:aws:lambda:{aws.REGION}:123456789012:function:shop-cart"
    assert (cart["deploy_lambda_function"], cart["lambda_arn"]) == (arn, arn)
    assert (cart["lambda_region"], cart["lambda_runtime"]) == (aws.REGION, "python3.12")
    assert cart["ansible_connection"] == "local"
    assert cart["deploy_lambda_package"] == "shop-cart.zip"


def test_names_any_value_and_a_region_without_functions(
    plane: lambda_plane.LambdaPlane, tmp_path: Path
) -> None:
    told = listed(plane, tmp_path, "names: ['shop-o*']\ntags: {Application: ''}\n")
    assert sorted(told["_meta"]["hostvars"]) == ["shop-old", "shop-order"]
    elsewhere = listed(plane, tmp_path, "regions: [us-east-1]\n")
    assert elsewhere["_meta"]["hostvars"] == {}


def test_aws_that_cannot_be_asked_is_told_in_words(
    plane: lambda_plane.LambdaPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        type(plane), "environment", {**plane.environment, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    )
    told = listed(plane, tmp_path, "")
    assert "The Lambda functions cannot be listed" in told["failed"]
