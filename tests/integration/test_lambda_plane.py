"""The Lambda service of the tests does what AWS documents, where moto does not."""

from __future__ import annotations

import datetime
import time
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from support import lambda_plane
from support.lambda_plane import ALIAS, LambdaPlane, package

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LambdaPlane]:
    with lambda_plane.running(tmp_path_factory.mktemp("plane")) as plane:
        yield plane


@pytest.fixture
def plane(service: LambdaPlane) -> LambdaPlane:
    service.reset()
    return service


def refused(code: str) -> Any:
    return pytest.raises(ClientError, match=code)


def test_an_alias_routes_by_its_weights_to_what_was_published(plane: LambdaPlane) -> None:
    client = plane.client("lambda")
    assert plane.create("greet", package("1")) == "1"
    client.update_function_code(FunctionName="greet", ZipFile=package("2", errors=1.0))
    second = client.publish_version(FunctionName="greet")
    assert second["Version"] == "2"
    assert client.publish_version(FunctionName="greet")["Version"] == "2"
    assert plane.invoke("greet")["payload"]["build"] == "1"
    client.update_alias(
        FunctionName="greet", Name=ALIAS,
        RoutingConfig={"AdditionalVersionWeights": {"2": 0.5}},
    )  # fmt: skip
    seen = [plane.invoke("greet") for _ in range(120)]
    for version in ("1", "2"):
        # Six standard deviations of a binomial of 120 draws with 0.5.
        assert 27 <= sum(one["version"] == version for one in seen) <= 93
    assert all(one["failed"] == (one["version"] == "2") for one in seen)
    assert {one["payload"].get("build", "broken") for one in seen} == {"1", "broken"}
    now = datetime.datetime.now(datetime.UTC)
    for metric, wanted in (("Invocations", 1), ("Errors", 1)):
        told = plane.client("cloudwatch").get_metric_statistics(
            Namespace="AWS/Lambda", MetricName=metric, Statistics=["Sum"], Period=3600,
            StartTime=now - datetime.timedelta(hours=1), EndTime=now + datetime.timedelta(hours=1),
            Dimensions=[
                {"Name": "FunctionName", "Value": "greet"},
                {"Name": "Resource", "Value": f"greet:{ALIAS}"},
                {"Name": "ExecutedVersion", "Value": "2"},
            ],
        )  # fmt: skip
        total = sum(point["Sum"] for point in told["Datapoints"])
        assert total == wanted * sum(one["version"] == "2" for one in seen)


def test_a_concurrent_change_is_refused(plane: LambdaPlane) -> None:
    client = plane.client("lambda")
    plane.create("greet", package("1"))
    before = client.get_alias(FunctionName="greet", Name=ALIAS)["RevisionId"]
    changed = client.update_alias(
        FunctionName="greet", Name=ALIAS, Description="x", RevisionId=before
    )
    assert changed["RevisionId"] != before
    with refused("PreconditionFailedException"):
        client.update_alias(FunctionName="greet", Name=ALIAS, Description="y", RevisionId=before)
    with refused("PreconditionFailedException"):
        client.publish_version(FunctionName="greet", RevisionId=before)
    with refused("InvalidParameterValueException"):
        client.publish_version(FunctionName="greet", CodeSha256="x")
    with refused("ResourceNotFoundException"):
        client.update_alias(FunctionName="greet", Name=ALIAS, FunctionVersion="7")


def test_states_take_their_time(plane: LambdaPlane) -> None:
    client = plane.client("lambda")
    plane.create("greet", package("1"))
    plane.settings(update=3, publish=3, provision=1)
    updated = client.update_function_code(FunctionName="greet", ZipFile=package("2"))
    assert updated["LastUpdateStatus"] == "InProgress"
    with refused("ResourceConflictException"):
        client.publish_version(FunctionName="greet")
    client.get_waiter("function_updated_v2").wait(FunctionName="greet", WaiterConfig={"Delay": 1})
    assert client.publish_version(FunctionName="greet")["State"] == "Pending"
    with refused("ResourceConflictException"):
        plane.invoke("greet", qualifier="2")
    client.get_waiter("published_version_active").wait(
        FunctionName="greet", Qualifier="2", WaiterConfig={"Delay": 1}
    )
    assert plane.invoke("greet", qualifier="2")["payload"]["build"] == "2"
    told = client.put_provisioned_concurrency_config(
        FunctionName="greet", Qualifier="2", ProvisionedConcurrentExecutions=3
    )
    assert told["Status"] == "IN_PROGRESS"
    deadline = time.monotonic() + 60
    while told["Status"] != "READY" and time.monotonic() < deadline:
        told = client.get_provisioned_concurrency_config(FunctionName="greet", Qualifier="2")
    assert told["AllocatedProvisionedConcurrentExecutions"] == 3


def test_a_version_in_use_is_kept_and_numbers_are_not_given_twice(plane: LambdaPlane) -> None:
    client = plane.client("lambda")
    plane.create("greet", package("1"))
    client.update_function_code(FunctionName="greet", ZipFile=package("2"))
    client.publish_version(FunctionName="greet")
    with refused("ResourceConflictException"):
        client.delete_function(FunctionName="greet", Qualifier="1")
    client.delete_function(FunctionName="greet", Qualifier="2")
    client.update_function_code(FunctionName="greet", ZipFile=package("3"))
    assert client.publish_version(FunctionName="greet")["Version"] == "3"
    assert plane.alias("greet") == ("1", {})


def test_a_handler_that_takes_too_long_or_dies_is_an_error(plane: LambdaPlane) -> None:
    slow = lambda_plane.packed(
        {
            "app.py": "import os, time\n"
            "def handler(event, context):\n"
            "    if event.get('die'): os._exit(3)\n"
            "    time.sleep(event.get('sleep', 0))\n"
            "    return 'done'\n"
        }
    )
    plane.create("slow", slow, Timeout=4)
    assert plane.invoke("slow")["payload"] == "done"
    assert "timed out" in plane.invoke("slow", {"sleep": 60})["payload"]["errorMessage"]
    assert "exit status 3" in plane.invoke("slow", {"die": True})["payload"]["errorMessage"]
    assert plane.invoke("slow")["payload"] == "done"
