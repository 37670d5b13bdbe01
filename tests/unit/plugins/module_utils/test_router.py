from __future__ import annotations

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import (
    TrafficError,
    UsageError,
)
from ansible_collections.bascule.deploy.plugins.module_utils._host import _routed, _router
from ansible_collections.bascule.deploy.plugins.module_utils._host._router import (
    Counters,
    RefusedError,
    Router,
)
from ansible_collections.bascule.deploy.plugins.module_utils._routing_data import (
    Routing,
    parse_routing,
)

WEIGHTS = {"weights": {"blue": 90.0, "green": 10.0}}
REQUEST = {"action": "route", "provider": "envoy", "provider_options": {}, "routing": WEIGHTS}


class Proxy(Router):
    """A proxy whose answers are given; it writes down what it is told."""

    where = "Proxy"
    interval = 0.0
    take_up_seconds = 0.05

    def __init__(self, answers: list[str | TrafficError]) -> None:
        self.answers = answers
        self.told: list[str] = []

    def shown(self) -> Routing | None:
        return parse_routing({"weights": {"blue": 100}})

    def order(self, routing: Routing) -> None:
        self.told.append(f"green {routing.points['green']}")

    def missing(self, routing: Routing) -> str:
        del routing
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, TrafficError):
            raise answer
        return answer

    def take_back(self) -> None:
        self.told.append("back")

    def measure(self) -> dict[str, Counters]:
        return {"green": Counters(10, 1)}


def test_an_order_is_waited_for_and_told_as_a_difference() -> None:
    proxy = Proxy(["not yet", TrafficError("away"), "not yet", ""])
    answer = _routed.carry_out(REQUEST, lambda _provider, _options: proxy)
    assert proxy.told == ["green 1000"]
    assert answer["changed"]
    assert answer["routing"]["before"]["weights"] == {"blue": 100.0}
    assert answer["routing"]["after"]["weights"] == {"blue": 90.0, "green": 10.0}
    assert answer["diff"]["before"] == "blue: 100 %\n"
    assert answer["diff"]["after"] == "blue: 90 %\ngreen: 10 %\n"


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (["version 3"], "after 0.05 s it does not go by it: version 3. .* was taken back"),
        ([TrafficError("away")], "away"),
        (["not yet", RefusedError("a bad route"), ""], "a bad route"),
    ],
)
def test_an_order_that_is_not_taken_up_is_taken_back(
    answers: list[str | TrafficError], message: str
) -> None:
    proxy = Proxy(answers)
    with pytest.raises(TrafficError, match=message):
        _routed.carry_out(REQUEST, lambda _provider, _options: proxy)
    assert proxy.told == ["green 1000", "back"]


def test_check_mode_and_a_routing_that_is_there_order_nothing() -> None:
    proxy = Proxy([""])
    foreseen = _routed.carry_out({**REQUEST, "check": True}, lambda _provider, _options: proxy)
    assert foreseen["changed"]
    there = {**REQUEST, "routing": {"weights": {"blue": 100}}}
    assert not _routed.carry_out(there, lambda _provider, _options: proxy)["changed"]
    assert proxy.told == []


def test_what_a_provider_cannot_do_is_refused_before_it_is_asked() -> None:
    wish = {**REQUEST, "provider": "haproxy", "routing": {**WEIGHTS, "mirror": {"pool": "green"}}}
    with pytest.raises(UsageError, match="haproxy cannot send a copy"):
        _routed.carry_out(wish, lambda _provider, _options: Proxy([""]))
    with pytest.raises(UsageError, match="elb cannot count requests"):
        _routed.carry_out({"action": "measure", "provider": "elb"}, lambda _p, _o: Proxy([""]))


def test_a_quantile_lies_within_its_bucket() -> None:
    histogram = [(0.1, 50), (0.2, 100), (0.4, 100)]
    assert _router.quantile(histogram, 0.5) == pytest.approx(0.1)
    assert _router.quantile(histogram, 0.75) == pytest.approx(0.15)
    assert _router.quantile([(0.1, 1), (float("inf"), 100)], 0.99) == pytest.approx(0.1)
    assert Counters(3, 0, [(0.1, 0)]).as_data()["latency"] is None
    assert Counters(3, 0, None).as_data() == {"requests": 3, "errors": 0, "latency": None}
    latency = Counters(100, 0, histogram).as_data()["latency"]
    assert latency == {
        "p50": 0.1,
        "p95": 0.19,
        "p99": 0.198,
        "histogram": [[0.1, 50], [0.2, 100], [0.4, 100]],
    }


def test_between_two_measurements_is_what_was_added() -> None:
    before = Counters(10, 1, [(0.1, 8), (0.2, 10)])
    after = Counters(30, 4, [(0.1, 8), (0.2, 20), (0.5, 30)])
    added = _router.window(before, after)
    assert added == Counters(20, 3, [(0.1, 0), (0.2, 10), (0.5, 20)])
    # Counters that fell are those of a proxy that was started again.
    restarted = Counters(10, 1, [(0.1, 8), (0.2, 10)])
    assert _router.window(after, restarted) == restarted
    assert _router.window(Counters(1, 0), Counters(5, 0)) == Counters(4, 0)


def test_pools_without_a_name_at_the_proxy_are_refused() -> None:
    assert _router.pool_names({"a": {"backend": "x"}}, "backend", "haproxy") == {"a": "x"}
    for pools, message in [
        (None, r"set deploy_traffic_pools, for instance {blue: {backend: shop-blue}"),
        ({"a": {}}, "a is {}; with haproxy it needs 'backend'"),
        ({"a": {"backend": "x"}, "b": {"backend": "x"}}, "two pools have the same backend: x, x"),
    ]:
        with pytest.raises(UsageError, match=message):
            _router.pool_names(pools, "backend", "haproxy")
