"""The load balancers that the tests of AWS stand on do what AWS's do, with real requests."""

from __future__ import annotations

import collections
import contextlib
import signal
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from support import alb
from support.alb.site import Site, sites

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROPAGATION = 2.0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[alb.Alb]:
    with alb.running(tmp_path_factory.mktemp("alb"), propagation=PROPAGATION) as running:
        yield running


@pytest.fixture
def site(service: alb.Alb) -> Iterator[Site]:
    with sites(service) as made:
        yield made


def until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def ask(url: str, count: int, **headers: str) -> collections.Counter[str]:
    """Return how often each version answered, or an error's status."""
    seen: collections.Counter[str] = collections.Counter()
    for _ in range(count):
        request = urllib.request.Request(url, headers=headers)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                seen[str(answer.headers["X-Version"])] += 1
        except urllib.error.HTTPError as error:
            seen[str(error.code)] += 1
        except urllib.error.URLError:
            seen["down"] += 1
    return seen


def test_a_target_is_initial_then_healthy_then_draining_then_gone(site: Site) -> None:
    group = site.group("shop", delay=6)
    site.register(group, "blue")
    assert site.reasons(group) == ["Target.NotInUse"], "no listener forwards to it"
    # Until it answers no check passes, however late we look.
    site.processes["blue"].send_signal(signal.SIGSTOP)
    url = site.listen({group: 1})
    assert site.states(group) == ["initial"]
    site.processes["blue"].send_signal(signal.SIGCONT)
    until(lambda: site.states(group) == ["healthy"], "it becomes healthy")
    until(lambda: ask(url, 1) == {"blue": 1}, "it answers")
    left = time.time()
    site.deregister(group, "blue")
    assert site.states(group) == ["draining"] or time.time() - left >= 6
    early = ask(url, 1) == {"blue": 1}
    assert early or time.time() - left >= PROPAGATION, "the load balancer has not heard of it yet"
    until(lambda: ask(url, 1) == {"503": 1}, "no request reaches it any more")
    assert time.time() - left >= PROPAGATION * 0.9
    until(lambda: site.states(group) == [], "it is no member any more")
    assert time.time() - left >= 6


def test_a_target_that_fails_its_checks_is_unhealthy(site: Site) -> None:
    group = site.group("shop")
    site.listen({group: 1})
    identity = site.instance("nobody")
    site.elbv2.register_targets(TargetGroupArn=group, Targets=[{"Id": identity, "Port": site.free}])
    until(lambda: site.states(group) == ["unhealthy"], "its check fails")


def test_what_aws_refuses_is_refused(site: Site) -> None:
    group = site.group("shop")
    with pytest.raises(ClientError, match="InvalidTarget"):
        site.elbv2.register_targets(TargetGroupArn=group, Targets=[{"Id": "i-0123456789abcdef0"}])


def test_weights_rules_and_stickiness_are_those_of_the_listener(site: Site) -> None:
    blue, green = site.group("blue"), site.group("green")
    site.register(blue, "blue")
    site.register(green, "green")
    url = site.listen({blue: 3, green: 1})
    site.rule({green: 1}, header=("X-Test", "green"))
    until(lambda: site.states(blue) + site.states(green) == ["healthy"] * 2, "both are healthy")
    until(lambda: ask(url, 20).keys() == {"blue", "green"}, "both answer")
    seen = ask(url, 400)
    assert 250 < seen["blue"] < 350, seen
    until(lambda: ask(url, 20, **{"X-Test": "green"}) == {"green": 20}, "the rule is followed")
    site.forward({blue: 1, green: 1}, sticky=60)
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())

    def stays() -> bool:
        with opener.open(url, timeout=60) as answer:
            return "AWSALBTG" in (answer.headers["Set-Cookie"] or "")

    until(stays, "the new forward has reached the traffic")
    versions = set()
    for _ in range(30):
        with opener.open(url, timeout=60) as answer:
            versions.add(answer.headers["X-Version"])
    assert len(versions) == 1
    site.forward({blue: 0, green: 1})
    until(lambda: ask(url, 20) == {"green": 20}, "all requests go to green")


def test_a_classic_load_balancer_tells_of_draining(site: Site) -> None:
    url = site.classic("old", delay=2)
    identity = site.instances["blue"]
    site.elb.register_instances_with_load_balancer(
        LoadBalancerName="old", Instances=[{"InstanceId": identity}]
    )

    def told() -> list[str]:
        states = site.elb.describe_instance_health(LoadBalancerName="old")["InstanceStates"]
        return [f"{one['State']} {one['Description']}" for one in states]

    until(lambda: told() == ["InService N/A"], "it comes into service")
    until(lambda: ask(url, 1) == {"blue": 1}, "it answers")
    left = time.time()
    site.elb.deregister_instances_from_load_balancer(
        LoadBalancerName="old", Instances=[{"InstanceId": identity}]
    )
    draining = told() == ["OutOfService Instance deregistration currently in progress."]
    assert draining or time.time() - left >= 2
    until(lambda: told() == [], "it is gone")


def test_requests_are_counted_by_target_group(site: Site) -> None:
    blue = site.group("blue")
    site.register(blue, "blue")
    url = site.listen({blue: 1})
    until(lambda: ask(url, 1) == {"blue": 1}, "it answers")
    before = site.sum("RequestCount", blue)
    ask(url, 50)
    until(lambda: site.sum("RequestCount", blue) >= before + 50, "all are counted")
    # Also those of a group that was attached later.
    green = site.group("green")
    site.register(green, "green")
    site.forward({blue: 0, green: 1})
    until(lambda: ask(url, 1) == {"green": 1}, "the other one answers")
    until(lambda: site.sum("RequestCount", green) > 0, "it is counted")


def test_calls_are_counted_and_throttled_as_wished(site: Site, service: alb.Alb) -> None:
    group = site.group("shop")
    service.forget_calls()
    site.register(group, "blue")
    site.health(group)
    calls = service.calls("elasticloadbalancing")
    assert [(one["action"], one["mutating"]) for one in calls] == [
        ("RegisterTargets", True),
        ("DescribeTargetHealth", False),
    ]
    service.throttle(1.0)
    with contextlib.ExitStack() as stack:
        stack.callback(service.throttle, 0.0)
        with pytest.raises(ClientError, match="Rate exceeded"):
            site.client("elbv2", max_attempts=1).describe_load_balancers()
