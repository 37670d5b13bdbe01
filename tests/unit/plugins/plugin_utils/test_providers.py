from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._capabilities import ON_HOST
from ansible_collections.bascule.deploy.plugins.module_utils._errors import (
    TrafficCallError,
    TrafficError,
)
from ansible_collections.bascule.deploy.plugins.module_utils._host._balancer import Target
from ansible_collections.bascule.deploy.plugins.plugin_utils import _providers
from ansible_collections.bascule.deploy.plugins.plugin_utils._providers import (
    _calls,
    _elb,
    _elbv2,
    _members,
)
from botocore.exceptions import ClientError, EndpointConnectionError


@pytest.mark.parametrize(
    ("health", "kind", "state"),
    [
        ({"State": "healthy"}, "serving", "healthy"),
        ({"State": "unavailable"}, "serving", "unavailable"),
        (
            {"State": "initial", "Reason": "Elb.InitialHealthChecking", "Description": "Checks."},
            "waiting",
            "initial (Elb.InitialHealthChecking: Checks)",
        ),
        (
            {"State": "unhealthy", "Reason": "Target.Timeout", "Description": "Timed out"},
            "waiting",
            "unhealthy (Target.Timeout: Timed out)",
        ),
        (
            {"State": "draining", "Reason": "Target.DeregistrationInProgress", "Description": "x"},
            "ending",
            "draining",
        ),
        ({"State": "unhealthy.draining"}, "ending", "unhealthy.draining"),
        ({"State": "unused", "Reason": "Target.NotRegistered"}, "gone", "not registered"),
        ({"State": "something new"}, "waiting", "something new"),
    ],
)
def test_a_target_s_health_is_understood(health: dict[str, Any], kind: str, state: str) -> None:
    read = _elbv2.read_health(health)
    assert (read.kind, read.state, read.hopeless) == (kind, state, "")


def test_what_no_check_can_mend_says_what_can() -> None:
    read = _elbv2.read_health({"State": "unused", "Reason": "Target.NotInUse", "Description": "x"})
    assert "Attach the group to a listener" in read.hopeless


@pytest.mark.parametrize(
    ("state", "words", "kind"),
    [
        ("InService", "N/A", "serving"),
        ("OutOfService", "Instance deregistration currently in progress.", "ending"),
        ("OutOfService", "Instance is not currently registered with the LoadBalancer.", "gone"),
        ("OutOfService", "Instance registration is still in progress.", "waiting"),
        ("Unknown", "A transient error occurred.", "waiting"),
    ],
)
def test_an_instance_s_state_is_understood(state: str, words: str, kind: str) -> None:
    assert _elb.read_state({"State": state, "Description": words}).kind == kind


@pytest.mark.parametrize(
    "target",
    [{"Id": "i-1", "Port": 80}, {"Id": "10.0.0.1", "Port": 8080}, {"Id": "fe80::1", "Port": 1}],
)
def test_a_target_is_written_as_it_is_read(target: dict[str, Any]) -> None:
    assert _elbv2.described(_elbv2.member_of(target)) == target


def test_a_function_has_no_port() -> None:
    arn = "arn:aws:lambda:eu-central-1:1:function:f"
    assert _elbv2.described(arn) == {"Id": arn}


def test_an_instance_is_known_by_its_name_or_by_its_id() -> None:
    assert _members.instance_of(Target("i-1", "x", 80)) == "i-1"
    assert _members.instance_of(Target("web-1", "x", 80, instance="i-2")) == "i-2"
    with pytest.raises(TrafficError, match="set deploy_traffic_target_name"):
        _members.instance_of(Target("web-1", "x", 80))


def error(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "Said."}}, "RegisterTargets")


class Service:
    """Raises what it is told, one after the other, and then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    taken: list[float] = []
    monkeypatch.setattr(_calls.time, "sleep", taken.append)
    return taken


@pytest.mark.parametrize("code", sorted(_calls.THROTTLED))
def test_throttling_is_met_with_longer_pauses(code: str, pauses: list[float]) -> None:
    service = Service(*[error(code)] * 7)
    assert _calls.patiently(service, "It failed") == "done"
    assert len(pauses) == 7
    assert all(0.1 <= pause <= 0.5 * 2**turn for turn, pause in enumerate(pauses))


def test_the_budget_of_calls_ends(pauses: list[float]) -> None:
    service = Service(*[error("Throttling")] * 100)
    with pytest.raises(TrafficError, match=r"It failed: AWS still throttles after 24 calls"):
        _calls.patiently(service, "It failed")
    assert service.calls == 8
    assert max(pauses) <= 20


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (
            error("AccessDenied"),
            "It failed: AWS says AccessDenied: Said .to RegisterTargets.. `bascule iam-policy`",
        ),
        (EndpointConnectionError(endpoint_url="http://x"), "It failed: .*AWS_ENDPOINT_URL"),
    ],
)
def test_what_is_no_throttling_is_told_at_once(
    problem: Exception, words: str, pauses: list[float]
) -> None:
    with pytest.raises(TrafficError, match=words):
        _calls.patiently(Service(problem), "It failed")
    assert pauses == []


def test_one_wrong_member_does_not_spoil_a_call_for_the_others() -> None:
    done: list[str] = []

    def change(some: list[str]) -> None:
        if "bad" in some:
            raise TrafficCallError(f"no {', '.join(some)}", "InvalidTarget")
        done.extend(some)

    refused = _members.one_by_one(["a", "b", "bad", "c", "d"], change, code="InvalidTarget", size=3)
    assert refused == {"bad": "no bad"}
    assert sorted(done) == ["a", "b", "c", "d"]


def test_every_provider_is_reached_from_one_side() -> None:
    assert not set(_providers.PROVIDERS) & ON_HOST
