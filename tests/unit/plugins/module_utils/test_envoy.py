from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import (
    TrafficError,
    UsageError,
)
from ansible_collections.bascule.deploy.plugins.module_utils._host import _eds, _envoy
from ansible_collections.bascule.deploy.plugins.module_utils._host._balancer import ABSENT, Target
from ansible_collections.bascule.deploy.plugins.module_utils._host._eds import Endpoint
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from pathlib import Path


def endpoint(port: int, **more: Any) -> dict[str, Any]:
    return {
        "endpoint": {"address": {"socket_address": {"address": "10.0.0.1", "port_value": port}}},
        **more,
    }


def test_a_status_is_written_in_the_spelling_of_the_file() -> None:
    snake = {"endpoints": [{"lb_endpoints": [endpoint(1), endpoint(2, health_status="HEALTHY")]}]}
    _eds.set_status(snake, [Endpoint("10.0.0.1", 2)], "DRAINING", None)
    assert snake["endpoints"][0]["lb_endpoints"] == [
        endpoint(1),
        endpoint(2, health_status="DRAINING"),
    ]
    there = {"endpoint": {"address": {"socketAddress": {"address": "::1", "portValue": 2}}}}
    camel = {"endpoints": [{"lbEndpoints": [{**there, "healthStatus": 3}]}]}
    assert _eds.endpoint_statuses(camel) == {Endpoint("::1", 2): "DRAINING"}
    _eds.set_status(camel, [Endpoint("::1", 2)], "HEALTHY", None)
    assert camel == {"endpoints": [{"lbEndpoints": [{**there, "healthStatus": "HEALTHY"}]}]}
    _eds.set_status(camel, [Endpoint("::1", 3)], "HEALTHY", None)
    assert len(camel["endpoints"][0]["lbEndpoints"]) == 2


def test_an_endpoint_is_added_to_an_empty_assignment() -> None:
    assignment: dict[str, Any] = {"cluster_name": "shop"}
    _eds.set_status(assignment, [Endpoint("10.0.0.1", 1)], "HEALTHY", 3)
    assert assignment == {
        "cluster_name": "shop",
        "endpoints": [
            {"lb_endpoints": [endpoint(1, health_status="HEALTHY", load_balancing_weight=3)]}
        ],
    }


def test_an_endpoint_in_two_localities_is_changed_in_both() -> None:
    assignment = {"endpoints": [{"lb_endpoints": [endpoint(1)]} for _group in range(2)]}
    _eds.set_status(assignment, [Endpoint("10.0.0.1", 1)], "DRAINING", None)
    found = [locality["lb_endpoints"][0] for locality in assignment["endpoints"]]
    assert found == [endpoint(1, health_status="DRAINING")] * 2


extras = st.dictionaries(
    st.sampled_from(["metadata", "load_balancing_weight", "locality", "policy"]),
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=5,
    ),
)


@given(
    st.lists(st.tuples(st.integers(1, 9), extras), unique_by=lambda entry: entry[0], max_size=6),
    extras,
    st.integers(1, 9),
)
def test_nothing_but_the_named_status_changes(
    entries: list[tuple[int, dict[str, Any]]], around: dict[str, Any], port: int
) -> None:
    locality = {**around, "lb_endpoints": [endpoint(number, **more) for number, more in entries]}
    assignment = {"cluster_name": "shop", "endpoints": [locality], "policy": {"x": 1}}
    before = copy.deepcopy(assignment)
    _eds.set_status(assignment, [Endpoint("10.0.0.1", port)], "DRAINING", None)
    assert _eds.endpoint_statuses(assignment)[Endpoint("10.0.0.1", port)] == "DRAINING"
    changed = [e for e in assignment["endpoints"][0]["lb_endpoints"] if "health_status" in e]
    assert len(changed) == 1
    del changed[0]["health_status"]
    if port not in [number for number, _more in entries]:
        assignment["endpoints"][0]["lb_endpoints"].remove(changed[0])
    assert assignment == before


@pytest.mark.parametrize(
    ("ordered", "health", "wanted"),
    [
        ("UNKNOWN", {"eds_health_status": "HEALTHY"}, (False, False, True)),
        ("HEALTHY", {"eds_health_status": "DEGRADED"}, (False, False, True)),
        ("HEALTHY", {}, (False, False, True)),
        ("DRAINING", {"eds_health_status": "DRAINING"}, (True, True, False)),
        ("UNHEALTHY", {"eds_health_status": "UNHEALTHY"}, (True, True, False)),
        # The file is ahead of Envoy.
        ("DRAINING", {"eds_health_status": "HEALTHY"}, (True, False, False)),
        ("HEALTHY", {"eds_health_status": "DRAINING"}, (False, True, False)),
        (
            "HEALTHY",
            {"eds_health_status": "HEALTHY", "failed_active_health_check": True},
            (False, False, False),
        ),
        (
            "HEALTHY",
            {"eds_health_status": "HEALTHY", "pending_active_hc": True},
            (False, False, False),
        ),
        (
            "HEALTHY",
            {"eds_health_status": "HEALTHY", "failed_outlier_check": True},
            (False, False, False),
        ),
    ],
)
def test_what_envoy_says_of_a_host(
    ordered: str, health: dict[str, Any], wanted: tuple[bool, bool, bool]
) -> None:
    stats = [{"name": "rq_active", "value": "3"}, {"name": "rq_pending_active"}]
    seen = _envoy.read_host(ordered, {"health_status": health, "stats": stats})
    assert (seen.drained, seen.blocked, seen.in_service) == wanted
    assert (seen.known, seen.active, seen.served) == (True, 3, 0)


def test_an_endpoint_that_envoy_has_not_taken_up_is_not_in_service() -> None:
    seen = _envoy.read_host("HEALTHY", None)
    assert seen.known
    assert not seen.in_service
    assert not seen.blocked
    assert seen.state == "HEALTHY in the file, unknown to Envoy"
    assert not ABSENT.known


@pytest.mark.parametrize(
    ("common", "seconds"),
    [({}, 1.0), ({"update_merge_window": "0s"}, 0.0), ({"update_merge_window": "0.250s"}, 0.25)],
)
def test_the_merge_window_is_read_from_the_dump(common: dict[str, str], seconds: float) -> None:
    dump = {"configs": [{"cluster": {"name": "shop", "common_lb_config": common}}]}
    assert _envoy.merge_window(dump, "shop") == seconds
    assert _envoy.merge_window(dump, "other") == 1.0


@pytest.mark.parametrize(
    ("cluster", "turns"),
    [
        ({}, True),
        ({"lb_policy": "ROUND_ROBIN"}, True),
        ({"lb_policy": "LEAST_REQUEST"}, False),
        ({"load_balancing_policy": {"policies": [{}]}}, False),
        ({"lb_subset_config": {"subset_selectors": [{}]}}, False),
        ({"common_lb_config": {"update_merge_window": "0s"}}, True),
        ({"common_lb_config": {"locality_weighted_lb_config": {}}}, False),
    ],
)
def test_who_takes_turns_is_read_from_the_dump(cluster: dict[str, Any], turns: bool) -> None:
    dump = {"configs": [{"cluster": {"name": "shop", **cluster}}]}
    assert _envoy.by_turns(dump, "shop") is turns
    assert not _envoy.by_turns(dump, "other")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:9901", ("127.0.0.1", 9901)),
        ("http://127.0.0.1:9901/", ("127.0.0.1", 9901)),
        ("http://[::1]:9901", ("::1", 9901)),
        ("http://lb", ("lb", 80)),
        ("unix:///run/envoy/admin.sock", ("/run/envoy/admin.sock", 0)),
    ],
)
def test_addresses_of_the_administration(url: str, address: tuple[str, int]) -> None:
    assert _envoy.parse_admin_url(url) == address


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:9901", "https://lb:9901", "unix://run", "http://lb:port", "http://"]
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="deploy_envoy_admin_url"):
        _envoy.parse_admin_url(url)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resources: []\n", "not JSON"),
        ("[]", "no list 'resources'"),
        ("{}", "no list 'resources'"),
        ('{"resources": []}', "of nothing"),
        ('{"resources": [{"cluster_name": "a"}, {"clusterName": "b"}]}', "of a, b"),
    ],
)
def test_a_file_that_is_not_this_cluster_s_is_refused(
    text: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "eds.json"
    path.write_text(text)
    balancer = _envoy.connect(
        {"eds_path": str(path), "cluster": "shop"}, [Target("web-1", "127.0.0.1", 1)]
    )
    with pytest.raises(TrafficError, match=message):
        balancer.observe()
    assert path.read_text() == text


def test_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text('{"resources": [{"cluster_name": "shop"}]}')
    link = tmp_path / "eds.json"
    link.symlink_to("real.json")
    balancer = _envoy.connect({"eds_path": str(link), "cluster": "shop"}, [])
    with pytest.raises(TrafficError, match="symbolic link"):
        balancer.observe()


def test_a_wrapped_assignment_is_found() -> None:
    inner = {"cluster_name": "shop"}
    content = {"resources": [{"name": "x", "resource": inner}]}
    assert _eds.find_assignment(content, "shop", "eds.json") is inner


def test_a_file_is_replaced_as_a_whole_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "eds.json"
    path.write_text("old")
    path.chmod(0o640)
    inode = path.stat().st_ino
    _eds.replace_file(str(path), "new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o7777 == 0o640
    assert path.stat().st_ino != inode
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(TrafficError, match="cannot be replaced"):
        _eds.replace_file(str(tmp_path / "missing" / "eds.json"), "new")


def test_names_are_resolved_and_addresses_made_equal() -> None:
    assert _envoy.resolve("0:0::1") == ["::1"]
    assert "127.0.0.1" in _envoy.resolve("localhost")
    with pytest.raises(TrafficError, match=r"'no such\.host\.invalid'.*IP address"):
        _envoy.resolve("no such.host.invalid")


def test_a_lock_that_is_held_is_waited_for_and_then_named(tmp_path: Path) -> None:
    holder = subprocess.Popen(  # noqa: S603 (our own words)
        [
            sys.executable,
            "-c",
            "import fcntl,os,sys\n"
            "fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)\n"
            "print('held', flush=True)\n"
            "sys.stdin.read()\n",
            str(tmp_path),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(TrafficError, match=r"kept .* locked for"),
            _eds.locked(str(tmp_path), 0.2),
        ):
            pass
    finally:
        holder.communicate(timeout=10)
    with _eds.locked(str(tmp_path)):
        pass
    assert os.listdir(tmp_path) == []  # noqa: PTH208


def test_the_written_file_is_json_with_the_text_of_before(tmp_path: Path) -> None:
    path = tmp_path / "eds.json"
    content = {"version_info": "7", "resources": [{"cluster_name": "shop", "note": "Füße"}]}
    path.write_text(json.dumps(content), encoding="utf-8")
    balancer = _envoy.connect(
        {"eds_path": str(path), "cluster": "shop"}, [Target("web-1", "10.0.0.1", 1)]
    )
    balancer.release(["web-1"])
    written = path.read_text(encoding="utf-8")
    assert "Füße" in written
    after = json.loads(written)
    assert after["version_info"] == "7"
    assert after["resources"][0]["endpoints"][0]["lb_endpoints"] == [
        endpoint(1, health_status="HEALTHY")
    ]
