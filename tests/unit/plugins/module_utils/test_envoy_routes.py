from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import TrafficError
from ansible_collections.bascule.deploy.plugins.module_utils._host import (
    _envoy_router,
    _envoy_routes,
)
from ansible_collections.bascule.deploy.plugins.module_utils._routing_data import parse_routing

CLUSTERS = {"blue": "shop-blue", "green": "shop-green", "shadow": "shop-shadow"}
BASE = {
    "match": {"prefix": "/", "headers": [{"name": "host", "present_match": True}]},
    "route": {"cluster": "shop-blue", "timeout": "60s"},
}
OTHER = {"match": {"prefix": "/static"}, "route": {"cluster": "files"}}
ROUTING = {
    "weights": {"blue": 95.0, "green": 5.0},
    "match": [
        {"pool": "green", "header": "X-Test", "value": "yes"},
        {"pool": "green", "cookie": "pool", "value": "a.b"},
    ],
    "sticky": {"salt": "d-1", "cookie": "who", "ttl": 60.0},
    "mirror": {"pool": "shadow", "share": 12.5},
}


def content(*routes: dict[str, Any]) -> dict[str, Any]:
    host = {"name": "shop", "domains": ["*"], "routes": list(routes)}
    return copy.deepcopy({"resources": [{"name": "shop", "virtual_hosts": [host]}]})


def routes(written: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = written["resources"][0]["virtual_hosts"][0]["routes"]
    return found


def test_a_routing_is_written_before_the_user_s_route_and_read_again() -> None:
    routing = parse_routing(ROUTING)
    before = content(OTHER, BASE)
    written = _envoy_routes.write_routes(before, CLUSTERS, routing, "rds.json")
    assert before == content(OTHER, BASE)
    assert [route.get("name") for route in routes(written)] == [
        None,
        "bascule/1/match/1",
        "bascule/1/match/2",
        "bascule/1/arm/blue",
        "bascule/1/arm/green",
        None,
    ]
    assert routes(written)[0] == OTHER
    first, cookie = routes(written)[1:3]
    assert first["match"]["headers"][1:] == [{"name": "X-Test", "string_match": {"exact": "yes"}}]
    assert first["route"] == {"cluster": "shop-green", "timeout": "60s"}
    assert r"pool=a\x2eb" in json.dumps(cookie["match"]).replace("\\\\", "\\")
    last = routes(written)[-1]
    assert last["match"] == BASE["match"]
    assert last["route"]["timeout"] == "60s"
    assert last["route"]["weighted_clusters"]["clusters"] == [
        {"name": "shop-blue", "weight": 9500},
        {"name": "shop-green", "weight": 500},
    ]
    assert last["route"]["request_mirror_policies"][0]["cluster"] == "shop-shadow"
    assert _envoy_routes.read_routes(written, CLUSTERS, "rds.json") == routing
    # Written again, nothing is left of what was there.
    plain = parse_routing({"weights": {"blue": 100, "green": 0}})
    again = _envoy_routes.write_routes(written, CLUSTERS, plain, "rds.json")
    once = _envoy_routes.write_routes(before, CLUSTERS, plain, "rds.json")
    assert again == once
    assert again["version_info"] != written["version_info"]


def test_weights_that_somebody_else_wrote_are_read() -> None:
    weighted = {"clusters": [{"name": "shop-blue", "weight": 3}, {"name": "shop-green"}]}
    mixed = content({"match": {"prefix": "/"}, "route": {"weightedClusters": weighted}})
    read = _envoy_routes.read_routes(mixed, CLUSTERS, "rds.json")
    assert read is not None
    assert read.points == {"blue": 10000, "green": 0}
    written = _envoy_routes.write_routes(mixed, CLUSTERS, parse_routing(ROUTING), "rds.json")
    routes(written)[-1]["route"]["weighted_clusters"]["clusters"][0]["weight"] = 1
    assert _envoy_routes.read_routes(written, CLUSTERS, "rds.json") is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "is not a route file of Envoy: it has no list 'resources'"),
        (content(), "has no route to the pools' clusters .* its routes lead to nothing"),
        (content(OTHER), "its routes lead to files"),
    ],
)
def test_a_file_without_a_route_to_the_pools_is_refused(given: Any, message: str) -> None:
    with pytest.raises(TrafficError, match=message):
        _envoy_routes.read_routes(given, CLUSTERS, "rds.json")


def test_the_lua_filter_is_found_among_the_listeners() -> None:
    filters = [{"name": "envoy.filters.http.lua"}, {"name": "envoy.filters.http.router"}]
    assert _envoy_routes.has_lua({"configs": [{"listener": {"filters": filters}}]})
    assert not _envoy_routes.has_lua({"configs": [{"listener": {"filters": filters[1:]}}]})


def test_a_histogram_of_envoy_is_read_with_its_gaps() -> None:
    totals = [
        {"lower_bound": 0, "width": 0, "count": 5},
        {"lower_bound": 1, "width": 0.1, "count": 3},
        {"lower_bound": 1.1, "width": 0.1, "count": 1},
        {"lower_bound": 20, "width": 1, "count": 1},
    ]
    assert _envoy_router.read_histogram(totals) == [
        (0.0, 5),
        (0.001, 5),
        (0.0011, 8),
        (0.0012, 9),
        (0.02, 9),
        (0.021, 10),
    ]
