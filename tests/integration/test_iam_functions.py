"""Functions with the policy that is printed for them, and with no statement less."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from ansible_collections.bascule.deploy.plugins.module_utils._aliases import Alias
from ansible_collections.bascule.deploy.plugins.module_utils._functions import FunctionSettings
from ansible_collections.bascule.deploy.plugins.module_utils._permissions import policy
from ansible_collections.bascule.deploy.plugins.plugin_utils._lambda import (
    _hooks,
    _metrics,
    _publish,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._lambda._listing import list_functions
from ansible_collections.bascule.deploy.plugins.plugin_utils._lambda._revision import (
    functions_of,
    resolve_functions,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._lambda._service import Service
from ansible_collections.bascule.deploy.plugins.plugin_utils._lambda._tidy import (
    delete_old_versions,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._record._functions import (
    FunctionVersion,
)
from support import aws as moto
from support import lambda_plane
from support.lambda_plane import HANDLER, package, packed
from support.permitted import Account, Flow, failure, part, prove, without

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

PROVISIONED = {f"lambda:{verb}ProvisionedConcurrencyConfig" for verb in ("Delete", "Get", "Put")}
CHECK = """
def handler(event, context):
    return {"status": "Succeeded" if event["DeploymentId"] == "d-ABCDEFGHI" else "Failed"}
"""


def test_functions_with_the_policy_and_without(
    permitted_aws: moto.Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws = permitted_aws
    account = Account(aws, monkeypatch)
    iam, functions = aws.client("iam"), aws.client("lambda")
    role = iam.create_role(RoleName="runs", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    for name, code in (("greet", package("1")), ("check", packed({"app.py": CHECK}))):
        functions.create_function(
            FunctionName=name, Role=role, Runtime="python3.12", Handler="app.handler",
            Code={"ZipFile": code},
        )  # fmt: skip
    functions.publish_version(FunctionName="greet")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "app.py").write_text(HANDLER.format(build="2", errors=0.0))
    one = FunctionSettings("greet", "greet", configuration={"memory": 256})
    settings = {
        "deploy_revision": str(tmp_path / "code"),
        "deploy_revision_checksum": "",
        "deploy_revision_subdirectory": "",
    }

    def deploy() -> None:
        """Publish, move an alias by steps and away again, and delete what nobody needs."""
        service = Service()
        revision = resolve_functions(
            settings, [one], cache=tmp_path / "cache", base=tmp_path, service=service
        )
        wanted = functions_of(revision)["greet"]
        made = _publish.publish(
            service, one, wanted, (), cache=tmp_path / "cache", description="by a test"
        )
        assert made == _publish.Published("2", made=True)
        function = wanted["function"]
        alias = service.alias(function, "live")
        for step in (Alias("1"), Alias("1", {"2": 0.1}), Alias("2")):
            alias = service.move_alias(function, "live", step, alias)
        assert delete_old_versions(service, function, keep=0, age=0.0, needed=()) == ["1"]
        assert service.move_alias(function, "live", None, alias) is None

    def check() -> None:
        ended = _hooks.run_hook("check", "d-ABCDEFGHI", _hooks.Answers(), offered=False)
        if ended.status != "Succeeded":
            raise AssertionError(ended.message)

    def measure() -> None:
        version = FunctionVersion(
            deployment_id="d-ABCDEFGHI", target="greet", alias="live", old_version="1",
            version="2", code_sha256="", digest="", at=time.time(),
            function="arn:aws:lambda:eu-central-1:123456789012:function:greet",
        )  # fmt: skip
        assert _metrics.counted(version)["new"].requests == 0

    hooks = {"deploy_lambda_hooks": {"BeforeAllowTraffic": "check"}}
    gates = {"deploy_gates": [{"name": "errors", "type": "traffic"}]}
    arn = "arn:aws:lambda:eu-central-1:123456789012:function:greet"
    flows: list[Flow] = [
        Flow(policy({}, functions=["greet"]), deploy, unused=PROVISIONED),
        Flow(part(policy(hooks, functions=["greet"]), "LambdaHooks"), check),
        Flow(part(policy(gates, functions=["greet"]), "LambdaMetrics"), measure),
        Flow(
            part(policy({}, functions=[arn]), "LambdaInventory"),
            lambda: list_functions(["eu-central-1"]),
        ),
    ]
    prove(account, flows)


def test_provisioned_layers_and_images_with_the_policy_and_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What moto does not ask for: the guard before the Lambda service does."""
    with lambda_plane.running(tmp_path) as plane:
        plane.use(monkeypatch)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ci")
        digest = "b" * 64
        registry = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
        plane.create("greet", package("1"))
        plane.create(
            "paint", b"", Code={"ImageUri": f"{registry}/paint@sha256:{'a' * 64}"},
            PackageType="Image",
        )  # fmt: skip
        layer = plane.client("lambda").publish_layer_version(
            LayerName="base", Content={"ZipFile": package("0")}
        )["LayerVersionArn"]
        ecr = plane.client("ecr")
        ecr.create_repository(repositoryName="paint")
        manifest = {"schemaVersion": 2, "config": {"digest": f"sha256:{digest}"}, "layers": []}
        put = ecr.put_image(
            repositoryName="paint", imageManifest=json.dumps(manifest), imageTag="2",
            imageManifestMediaType="application/vnd.oci.image.manifest.v1+json",
        )["image"]  # fmt: skip
        plane.image(f"{registry}/paint@{put['imageId']['imageDigest']}", package("2"))
        (tmp_path / "code").mkdir()
        (tmp_path / "code" / "app.py").write_text(HANDLER.format(build="2", errors=0.0))

        def publish(one: FunctionSettings, source: str) -> None:
            service = Service()
            settings = {
                "deploy_revision": source, "deploy_revision_checksum": "",
                "deploy_revision_subdirectory": "",
            }  # fmt: skip
            revision = resolve_functions(
                settings, [one], cache=tmp_path / "cache", base=tmp_path, service=service
            )
            wanted = functions_of(revision)[one.target]
            made = _publish.publish(
                service, one, wanted, (), cache=tmp_path / "cache", description="by a test"
            )
            if one.provisioned_concurrency:
                service.release(wanted["function"], made.version)

        greet = FunctionSettings(
            "greet", "greet", configuration={"layers": [layer]}, provisioned_concurrency=1
        )
        paint = FunctionSettings("paint", "paint")
        image = f"{registry}/paint:2"
        layers = {"deploy_lambda_configuration": {"layers": [layer]}}
        for made, work, lacking in (
            (policy(layers, functions=["greet"]), lambda: publish(greet, str(tmp_path / "code")),
             ["lambda:GetLayerVersion", *sorted(PROVISIONED, reverse=True)]),
            (policy({"deploy_revision": image}, functions=["paint"]),
             lambda: publish(paint, image),
             ["ecr:DescribeImages", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]),
        ):  # fmt: skip
            for action in lacking:
                plane.guard(without(made, action), "ci")
                refused = failure(Flow(made, work))
                assert f"not authorized to perform: {action}" in refused, refused
            plane.guard(made, "ci")
            assert failure(Flow(made, work)) == ""
