"""Packages, versions, aliases and hooks, against a Lambda service that runs what is published."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import threading
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._aliases import Alias
from ansible_collections.bascule.deploy.plugins.module_utils._errors import (
    BasculeError,
    FunctionError,
    RevisionError,
    TrafficError,
    UsageError,
)
from ansible_collections.bascule.deploy.plugins.module_utils._functions import FunctionSettings
from ansible_collections.bascule.deploy.plugins.module_utils._host import _routed
from ansible_collections.bascule.deploy.plugins.module_utils._host._router import RefusedError
from ansible_collections.bascule.deploy.plugins.module_utils._routing_data import parse_routing
from ansible_collections.bascule.deploy.plugins.plugin_utils._lambda import _hooks, _publish
from ansible_collections.bascule.deploy.plugins.plugin_utils._lambda._package import (
    prune_packages,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._lambda._revision import (
    functions_of,
    resolve_functions,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._lambda._service import Service
from ansible_collections.bascule.deploy.plugins.plugin_utils._lambda._tidy import (
    delete_old_versions,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._providers._lambda_alias import (
    AliasRouter,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import FunctionVersion
from support import lambda_plane
from support.lambda_plane import ALIAS, HANDLER, LambdaPlane, package, packed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ansible_collections.bascule.deploy.plugins.plugin_utils._record import RevisionRow

# Not where the functions are: the image's address says where it is.
ELSEWHERE = "eu-west-3"
IMAGE = f"123456789012.dkr.ecr.{ELSEWHERE}.amazonaws.com/greet"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LambdaPlane]:
    with lambda_plane.running(tmp_path_factory.mktemp("plane")) as plane:
        yield plane


@pytest.fixture
def plane(running: LambdaPlane, monkeypatch: pytest.MonkeyPatch) -> LambdaPlane:
    running.reset()
    running.use(monkeypatch)
    return running


def resolve(
    tmp_path: Path, revision: Path | str, *functions: FunctionSettings, **more: Any
) -> RevisionRow:
    settings = {
        "deploy_revision": str(revision),
        "deploy_revision_checksum": "",
        "deploy_revision_subdirectory": "",
        **more,
    }
    return resolve_functions(
        settings, functions, cache=tmp_path / "cache", base=tmp_path, service=Service()
    )


def publish(
    tmp_path: Path, revision: RevisionRow, one: FunctionSettings, **more: Any
) -> _publish.Published:
    return _publish.publish(
        Service(), one, functions_of(revision)[one.target], more.pop("history", ()),
        cache=tmp_path / "cache", description="by a test",
    )  # fmt: skip


def folder(path: Path, build: str, **files: str) -> Path:
    path.mkdir(exist_ok=True)
    (path / "app.py").write_text(HANDLER.format(build=build, errors=0.0))
    for name, text in files.items():
        (path / name.replace("_", ".")).write_text(text)
    return path


GREET = FunctionSettings("greet", "greet")


def test_the_same_code_is_the_same_revision_wherever_it_comes_from(
    plane: LambdaPlane, tmp_path: Path
) -> None:
    plane.create("greet", package("1"))
    first = resolve(tmp_path, folder(tmp_path / "code", "2"), GREET)
    again = resolve(tmp_path, folder(tmp_path / "copy", "2"), GREET)
    assert first.digest == again.digest
    kept = Path(first.bundle_path)
    bucket = plane.client("s3")
    bucket.create_bucket(
        Bucket="packages", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    bucket.put_bucket_versioning(Bucket="packages", VersioningConfiguration={"Status": "Enabled"})
    bucket.upload_file(str(kept), "packages", "greet.zip")
    stored = resolve(tmp_path, "s3://packages/greet.zip", GREET)
    assert stored.digest == first.digest
    place = functions_of(stored)["greet"]["place"]
    assert (place["S3Bucket"], place["S3Key"]) == ("packages", "greet.zip")
    assert place["S3ObjectVersion"]
    repository = folder(tmp_path / "repository", "2")
    for words in (
        ["init", "-q", "-b", "main"], ["add", "."],
        ["-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-qm", "2"],
    ):  # fmt: skip
        subprocess.run(["git", "-C", str(repository), *words], check=True)
    committed = resolve(tmp_path, f"{repository}#main", GREET)
    assert committed.digest == first.digest
    assert committed.environment["BUNDLE_COMMIT"]
    made = publish(tmp_path, stored, GREET)
    assert made == _publish.Published("2", made=True)
    assert plane.invoke("greet", qualifier="2")["payload"]["build"] == "2"


def test_an_appspec_file_brings_its_hooks_and_is_not_code(
    plane: LambdaPlane, tmp_path: Path
) -> None:
    plane.create("greet", package("1"))
    text = json.dumps(
        {
            "version": 0.0,
            "resources": [
                {"greet": {"type": "AWS::Lambda::Function",
                           "properties": {"name": "greet", "alias": ALIAS}}}
            ],
            "hooks": [{"BeforeAllowTraffic": "check"}],
        }
    )  # fmt: skip
    plain = functions_of(resolve(tmp_path, folder(tmp_path / "code", "2"), GREET))["greet"]
    source = folder(tmp_path / "code", "2", appspec_json=text)
    one = functions_of(resolve(tmp_path, source, GREET))["greet"]
    assert one["hooks"] == {"BeforeAllowTraffic": "check"}
    assert one["code_sha256"] == plain["code_sha256"]


def test_code_and_configuration_are_published_together_and_secrets_stay_secret(
    plane: LambdaPlane, tmp_path: Path
) -> None:
    plane.create("greet", package("1"), Environment={"Variables": {"GREETING": "old-secret"}})
    layer = plane.client("lambda").publish_layer_version(
        LayerName="common", Content={"ZipFile": packed({"python/common.py": "WORD = 'layer'"})},
        CompatibleRuntimes=["python3.12"],
    )["LayerVersionArn"]  # fmt: skip
    one = FunctionSettings(
        "greet", "greet",
        configuration={
            "memory": 256, "environment": {"GREETING": "new-secret"}, "layers": [layer],
        },
    )  # fmt: skip
    plane.settings(update=0.2, publish=0.2)
    revision = resolve(tmp_path, folder(tmp_path / "code", "2"), one)
    assert "secret" not in json.dumps(revision.appspec)
    assert publish(tmp_path, revision, one).version == "2"
    assert plane.invoke("greet", qualifier="2")["payload"]["greeting"] == "new-secret"
    assert plane.invoke("greet")["payload"]["greeting"] == "old-secret"
    client = plane.client("lambda")
    told = client.get_function_configuration(FunctionName="greet", Qualifier="2")
    assert told["MemorySize"] == 256
    assert [one["Arn"] for one in told["Layers"]] == [layer]
    first = client.get_function_configuration(FunctionName="greet", Qualifier="1")
    assert not first.get("Layers")
    assert told["Description"] == "by a test"
    # The same again is the version that there is.
    assert publish(tmp_path, revision, one).version == "2"
    changed = FunctionSettings("greet", "greet", configuration={"timeout": 7})
    other = resolve(tmp_path, folder(tmp_path / "code", "2"), changed)
    assert other.digest != revision.digest
    assert publish(tmp_path, other, changed).version == "3"
    # What was deployed first is republished only with the secrets it had.
    client.delete_function(FunctionName="greet", Qualifier="2")
    assert publish(tmp_path, revision, one).version == "4"
    client.update_function_configuration(FunctionName="greet", Environment={"Variables": {}})
    with pytest.raises(FunctionError, match=r"GREETING .* have other values"):
        publish(tmp_path, revision, GREET)


def test_an_image_is_pinned_to_its_digest(plane: LambdaPlane, tmp_path: Path) -> None:
    digests = ["a" * 64, "b" * 64]
    first, second = (f"{IMAGE}@sha256:{digest}" for digest in digests)
    plane.create("greet", b"", Code={"ImageUri": first}, PackageType="Image")
    plane.image(second, package("2"))
    one = FunctionSettings("greet", "greet", image=second)
    revision = resolve(tmp_path, "", one)
    assert functions_of(revision)["greet"]["code_sha256"] == digests[1]
    assert publish(tmp_path, revision, one).version == "2"
    assert plane.invoke("greet", qualifier="2")["payload"]["build"] == "2"
    assert resolve(tmp_path, second, GREET).digest == revision.digest
    ecr = plane.client("ecr", ELSEWHERE)
    ecr.create_repository(repositoryName="greet")
    manifest = {"schemaVersion": 2, "config": {"digest": "sha256:" + "c" * 64}, "layers": []}
    put = ecr.put_image(
        repositoryName="greet", imageManifest=json.dumps(manifest), imageTag="3",
        imageManifestMediaType="application/vnd.oci.image.manifest.v1+json",
    )  # fmt: skip
    tagged = functions_of(resolve(tmp_path, f"{IMAGE}:3", GREET))["greet"]
    assert tagged["place"] == {"ImageUri": f"{IMAGE}@{put['image']['imageId']['imageDigest']}"}
    with pytest.raises(RevisionError, match="cannot be looked up"):
        resolve(tmp_path, f"{IMAGE}:4", GREET)
    with pytest.raises(UsageError, match="made of an image, and the revision is a zip"):
        resolve(tmp_path, folder(tmp_path / "code", "3"), GREET)


def test_several_functions_come_from_one_revision(plane: LambdaPlane, tmp_path: Path) -> None:
    source = tmp_path / "dist"
    source.mkdir()
    for name in ("cart", "order"):
        plane.create(name, package("1"))
        (source / f"{name}.zip").write_bytes(package(f"{name} 2"))
    functions = [FunctionSettings(name, name, package=f"{name}.zip") for name in ("cart", "order")]
    revision = resolve(tmp_path, source, *functions)
    for one in functions:
        assert publish(tmp_path, revision, one).version == "2"
        assert plane.invoke(one.target, qualifier="2")["payload"]["build"] == f"{one.target} 2"
    with zipfile.ZipFile(tmp_path / "dist.zip", "w") as archive:
        for file in source.iterdir():
            archive.write(file, file.name)
    assert resolve(tmp_path, tmp_path / "dist.zip", *functions).digest == revision.digest
    with pytest.raises(RevisionError, match=r"has no 'other\.zip'"):
        resolve(tmp_path, source, FunctionSettings("cart", "cart", package="other.zip"))


def test_an_appspec_file_alone_deploys_a_version_that_others_published(
    plane: LambdaPlane, tmp_path: Path
) -> None:
    plane.create("greet", package("1"))
    client = plane.client("lambda")
    client.update_function_code(FunctionName="greet", ZipFile=package("2"))
    client.publish_version(FunctionName="greet")
    before = len(client.list_versions_by_function(FunctionName="greet")["Versions"])
    file = tmp_path / "appspec.yml"
    file.write_text(
        "version: 0.0\nResources:\n  - greet:\n      Type: AWS::Lambda::Function\n"
        f"      Properties: {{Name: greet, Alias: {ALIAS}, CurrentVersion: 1, TargetVersion: 2}}\n"
        "Hooks:\n  - AfterAllowTraffic: check\n"
    )
    revision = resolve(tmp_path, file, GREET)
    assert functions_of(revision)["greet"]["hooks"] == {"AfterAllowTraffic": "check"}
    assert publish(tmp_path, revision, GREET) == _publish.Published("2", made=False)
    # The same as JSON, in the other spelling of the keys, is the same revision.
    spelt = tmp_path / "appspec.json"
    properties = {"name": "greet", "alias": ALIAS, "currentversion": "1", "targetversion": "2"}
    spelt.write_text(
        json.dumps(
            {
                "version": 0.0,
                "resources": [
                    {"greet": {"type": "AWS::Lambda::Function", "properties": properties}}
                ],
                "hooks": [{"AfterAllowTraffic": "check"}],
            }
        )
    )
    assert resolve(tmp_path, spelt, GREET).digest == revision.digest
    assert len(client.list_versions_by_function(FunctionName="greet")["Versions"]) == before
    client.update_alias(FunctionName="greet", Name=ALIAS, FunctionVersion="2")
    with pytest.raises(UsageError, match=r"CurrentVersion .* is 1, but the alias live of greet"):
        resolve(tmp_path, file, GREET)


def test_a_failed_version_is_not_taken(plane: LambdaPlane, tmp_path: Path) -> None:
    plane.create("greet", package("1"))
    plane.settings(failing="2")
    revision = resolve(tmp_path, folder(tmp_path / "code", "2"), GREET)
    with pytest.raises(FunctionError, match=r"version 2 of .* Lambda says There is no such image"):
        publish(tmp_path, revision, GREET)
    assert plane.alias("greet") == ("1", {})
    with pytest.raises(FunctionError, match="There is no function other in this region"):
        resolve(tmp_path, folder(tmp_path / "code", "2"), FunctionSettings("x", "other"))


def test_provisioned_concurrency_is_ready_before_it_is_used(
    plane: LambdaPlane, tmp_path: Path
) -> None:
    plane.create("greet", package("1"))
    plane.settings(provision=0.5)
    one = FunctionSettings("greet", "greet", provisioned_concurrency=2)
    revision = resolve(tmp_path, folder(tmp_path / "code", "2"), one)
    publish(tmp_path, revision, one)
    client = plane.client("lambda")
    told = client.get_provisioned_concurrency_config(FunctionName="greet", Qualifier="2")
    assert told["Status"] == "READY"
    assert Service().release("greet", "2")
    assert not Service().release("greet", "2")
    # Where there is not enough of it, nothing is left that would be paid for.
    plane.settings(failing_provision="3")
    revision = resolve(tmp_path, folder(tmp_path / "code", "3"), one)
    with pytest.raises(FunctionError, match=r"version 3 of .* There are no more instances"):
        publish(tmp_path, revision, one)
    assert not Service().release("greet", "3")
    assert plane.alias("greet") == ("1", {})


def test_an_alias_that_somebody_else_moves_is_left_alone(plane: LambdaPlane) -> None:
    plane.create("greet", package("1"))
    client = plane.client("lambda")
    for build in ("2", "3"):
        client.update_function_code(FunctionName="greet", ZipFile=package(build))
        client.publish_version(FunctionName="greet")
    service = Service()
    seen = service.alias("greet", ALIAS)
    assert seen == Alias("1", {}, seen.revision_id if seen else "")
    # A change that does not move it is no reason to give up.
    client.update_alias(FunctionName="greet", Name=ALIAS, Description="somebody was here")
    moved = service.move_alias("greet", ALIAS, Alias("1", {"2": 0.1}), seen)
    assert plane.alias("greet") == ("1", {"2": 0.1})
    client.update_alias(
        FunctionName="greet", Name=ALIAS, FunctionVersion="3",
        RoutingConfig={"AdditionalVersionWeights": {}},
    )  # fmt: skip
    with pytest.raises(
        TrafficError, match=r"it led to version 1 \(90%\) and version 2 \(10%\), and"
    ):
        service.move_alias("greet", ALIAS, Alias("2"), moved)
    assert plane.alias("greet") == ("3", {})
    assert service.alias("greet", "other") is None
    made = service.move_alias("greet", "other", Alias("2"), None)
    assert service.move_alias("greet", "other", None, made) is None
    assert service.alias("greet", "other") is None


def test_the_way_home_is_not_held_up_by_a_function_that_others_have_moved(
    plane: LambdaPlane,
) -> None:
    names = ("moved", "gone", "good", "last")
    client = plane.client("lambda")
    for name in names:
        plane.create(name, package("1"))
        for build in ("2", "3"):
            client.update_function_code(FunctionName=name, ZipFile=package(build))
            client.publish_version(FunctionName=name)
    functions = {
        name: FunctionVersion(
            deployment_id="d-ABCDEFGHI",
            target=name,
            function=name,
            alias=ALIAS,
            old_version="1",
            version="2",
            code_sha256="",
            digest="",
            at=0.0,
        )
        for name in names
    }

    def route(new: float) -> dict[str, Any]:
        request = {
            "action": "route",
            "provider": "lambda_alias",
            "provider_options": {"pools": {"old": {}, "new": {}}},
            "routing": {"weights": {"old": 100 - new, "new": new}},
        }
        return _routed.carry_out(request, lambda _name, _options: AliasRouter(functions, {}))

    assert route(30)["changed"]
    client.update_alias(
        FunctionName="moved", Name=ALIAS, FunctionVersion="3",
        RoutingConfig={"AdditionalVersionWeights": {}},
    )  # fmt: skip
    client.delete_function(FunctionName="gone")
    with pytest.raises(TrafficError, match="somebody else has moved it"):
        route(60)
    assert plane.alias("good") == plane.alias("last") == ("1", {"2": 0.3}), "all or none"
    with pytest.raises(TrafficError) as told:
        route(0)
    assert plane.alias("good") == plane.alias("last") == ("1", {})
    assert plane.alias("moved") == ("3", {})
    for sentence in (
        "somebody else has moved it",
        "There is no function gone in this region",
        "All traffic of good, last is on the version before.",
    ):
        assert sentence in str(told.value)
    # Whoever moves one before it is looked at again is not taken for a change that is to come.
    wanted = parse_routing({"weights": {"old": 70, "new": 30}}, {"old": {}, "new": {}})
    router = AliasRouter({"good": functions["good"]}, {})
    router.shown()
    router.order(wanted)
    assert router.missing(wanted) == ""
    client.update_alias(
        FunctionName="good", Name=ALIAS, FunctionVersion="3",
        RoutingConfig={"AdditionalVersionWeights": {}},
    )  # fmt: skip
    with pytest.raises(RefusedError, match="somebody else has moved it"):
        router.missing(wanted)
    router.take_back()
    assert plane.alias("good") == ("3", {})


def test_old_versions_go_but_never_one_that_is_used(plane: LambdaPlane) -> None:
    plane.create("greet", package("1"))
    client = plane.client("lambda")
    for number in range(2, 7):
        client.update_function_code(FunctionName="greet", ZipFile=package(str(number)))
        client.publish_version(FunctionName="greet")
    client.update_alias(
        FunctionName="greet", Name=ALIAS, RoutingConfig={"AdditionalVersionWeights": {"2": 0.1}}
    )
    service = Service()
    assert delete_old_versions(service, "greet", keep=1, age=3600, needed={"4"}) == []
    assert delete_old_versions(service, "greet", keep=-1, age=0, needed={"4"}) == []
    assert delete_old_versions(service, "greet", keep=1, age=0, needed={"4"}) == ["3", "5"]
    assert sorted(service.versions("greet")) == ["1", "2", "4", "6"]


def test_packages_that_were_used_longest_ago_are_not_kept(
    plane: LambdaPlane, tmp_path: Path
) -> None:
    plane.create("greet", package("1"))
    cache, made = tmp_path / "cache", []
    for number in range(5):
        revision = resolve(tmp_path, folder(tmp_path / f"code-{number}", str(number)), GREET)
        made.append(revision.bundle_sha256)
        used = time.time() - (10 - number) * 86400
        os.utime(revision.bundle_path, (used, used))
    (cache / "lambda" / ".new-killed").touch()
    os.utime(cache / "lambda" / ".new-killed", (0, 0))
    # What is deployed again was used now.
    resolve(tmp_path, folder(tmp_path / "code-1", "1"), GREET)
    assert prune_packages(cache, 0, list) == []
    assert prune_packages(cache, 5, list) == []
    gone = prune_packages(cache, 2, lambda: [made[2]])
    assert [base64.b64encode(bytes.fromhex(one)).decode() for one in gone] == [made[3], made[0]]
    left = {path.stem for path in (cache / "lambda").iterdir()}
    assert left == {base64.b64decode(made[number]).hex() for number in (1, 2, 4)}


CHECK = """
import json, os, boto3

def handler(event, context):
    assert sorted(event) == ["DeploymentId", "LifecycleEventHookExecutionId"], event
    how = os.environ["HOW"]
    if how.startswith("put "):
        boto3.client("codedeploy").put_lifecycle_event_hook_execution_status(
            deploymentId=event["DeploymentId"],
            lifecycleEventHookExecutionId=event["LifecycleEventHookExecutionId"],
            status=how.split()[1])
        return {"statusCode": 200}
    if how == "raise":
        raise ValueError("the table is missing")
    return json.loads(how)
"""


def check(plane: LambdaPlane, how: str, address: str = "") -> None:
    """Make the hook anew."""
    client = plane.client("lambda")
    variables = {"HOW": how, **({"AWS_ENDPOINT_URL_CODEDEPLOY": address} if address else {})}
    plane.create(
        "check", packed({"app.py": CHECK}), alias=None, Timeout=60,
        Environment={"Variables": variables},
    )  # fmt: skip
    assert client.get_function_configuration(FunctionName="check")["State"] == "Active"


@pytest.mark.parametrize(
    ("how", "status", "message"),
    [
        ('{"status": "Succeeded"}', "Succeeded", ""),
        ('"Failed"', "Failed", "check answered Failed"),
        ('{"lifecycleEventHookExecutionStatus": "succeeded"}', "Succeeded", ""),
        ("null", "Failed", "check returned null, which is no answer"),
        ("raise", "Failed", "check failed: ValueError: the table is missing"),
    ],
)
def test_a_hook_answers_by_what_it_returns(
    plane: LambdaPlane, how: str, status: str, message: str
) -> None:
    check(plane, how)
    answers = _hooks.Answers()
    outcome = _hooks.run_hook("check", "d-ABCDEFGHI", answers, offered=False)
    assert outcome.status == status
    assert message in outcome.message
    assert outcome.started <= outcome.ended


@pytest.mark.parametrize("status", ["Succeeded", "Failed"])
def test_a_hook_written_for_codedeploy_answers_through_the_endpoint(
    plane: LambdaPlane, status: str
) -> None:
    answers = _hooks.Answers()
    with _hooks.endpoint("127.0.0.1:0", answers) as address:
        check(plane, f"put {status}", address)
        outcome = _hooks.run_hook("check", "d-ABCDEFGHI", answers, offered=True)
    assert outcome.status == status
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(address, timeout=5)  # noqa: S310


def test_a_hook_that_says_nothing_fails_when_its_time_is_over(plane: LambdaPlane) -> None:
    check(plane, "null")
    answers = _hooks.Answers()
    with _hooks.endpoint("127.0.0.1:0", answers):
        outcome = _hooks.run_hook("check", "d-ABCDEFGHI", answers, offered=True, limit=1.5)
    assert outcome.status == "Failed"
    # Whether it has returned by then is a matter of how busy the machine is.
    assert "did not answer within 1.5 s" in outcome.message
    missing = _hooks.run_hook("nobody", "d-ABCDEFGHI", answers, offered=False)
    assert "ResourceNotFoundException" in missing.message


def test_only_who_was_told_the_id_may_answer() -> None:
    answers = _hooks.Answers()
    with _hooks.endpoint("127.0.0.1:0", answers) as address:
        client = boto3.client(
            "codedeploy", endpoint_url=address, region_name="eu-central-1",
            aws_access_key_id="testing", aws_secret_access_key="testing",  # noqa: S106
        )  # fmt: skip
        execution = answers.expect("d-ABCDEFGHI")

        def put(**given: str) -> str:
            told = {"deploymentId": "d-ABCDEFGHI", "lifecycleEventHookExecutionId": execution,
                    "status": "Succeeded", **given}  # fmt: skip
            try:
                answer = client.put_lifecycle_event_hook_execution_status(**told)
            except client.exceptions.ClientError as error:
                return str(error.response["Error"]["Code"])
            return str(answer["lifecycleEventHookExecutionId"])

        invalid = "InvalidLifecycleEventHookExecutionIdException"
        assert put(lifecycleEventHookExecutionId="guessed") == invalid
        assert put(deploymentId="d-OTHER") == invalid
        assert put(status="Pending") == "InvalidLifecycleEventHookExecutionStatusException"
        assert answers.wait(execution, 0) is None
        threading.Timer(0.2, lambda: put()).start()
        begun = time.monotonic()
        assert answers.wait(execution, 60) == "Succeeded"
        assert time.monotonic() - begun < 60
        assert put(status="Failed") == "LifecycleEventAlreadyCompletedException"
        with pytest.raises(client.exceptions.ClientError, match="UnknownOperationException"):
            client.list_deployments()


@pytest.mark.parametrize("listen", ["8700", "127.0.0.1:", "127.0.0.1:x", "256.0.0.1:0"])
def test_an_address_that_cannot_be_listened_to(listen: str) -> None:
    with (
        pytest.raises(BasculeError, match="deploy_lambda_hook_listen is"),
        _hooks.endpoint(listen, _hooks.Answers()),
    ):
        pass
