from __future__ import annotations

import math
from typing import Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._configuration import (
    parse_duration,
    parse_minimum_healthy,
    parse_stages,
)
from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("written", "total", "minimum"),
    [
        (3, 10, 3),
        ("3", 10, 3),
        (3.0, 10, 3),
        (0, 10, 0),
        ("75%", 4, 3),
        ("85%", 10, 9),
        (" 40 % ", 9, 4),
        ("33.4%", 3, 2),
        ("70%", 10, 7),
        ("0%", 10, 0),
        ("100%", 7, 7),
        ({"type": "HOST_COUNT", "value": 2}, 9, 2),
        ({"type": "FLEET_PERCENT", "value": "50"}, 9, 5),
        ({"type": "MOST_CONCURRENCY", "value": 1}, 9, 8),
        ("CodeDeployDefault.OneAtATime", 9, 8),
        ("OneAtATime", 1, 0),
        ("oneatatime", 0, 0),
        ("HalfAtATime", 9, 5),
        ("codedeploydefault.halfatatime", 10, 5),
        ("AllAtOnce", 10, 0),
    ],
)
def test_minimum_healthy(written: Any, total: int, minimum: int) -> None:
    parsed = parse_minimum_healthy(written)
    assert parsed.of(total) == minimum
    assert parse_minimum_healthy(parsed) is parsed


@pytest.mark.parametrize(
    "written",
    [
        "", "most", "-1", -1, "101%", "%", True, None, 1.5, [3], "3 hosts", "CodeDeployDefault.",
        "LambdaAllAtOnce", {"type": "HOST_COUNT"}, {"type": "HOST_COUNT", "value": "3%"},
        {"type": "PERCENT", "value": 3}, {"type": "HOST_COUNT", "value": 3, "zone": "a"},
        {"type": "MOST_CONCURRENCY", "value": 0}, {"type": "FLEET_PERCENT", "value": 200},
    ],
)  # fmt: skip
def test_a_minimum_that_cannot_be_read_is_named_with_what_is_wanted(written: Any) -> None:
    with pytest.raises(UsageError) as refusal:
        parse_minimum_healthy(written, "deploy_minimum_healthy_hosts")
    assert f"deploy_minimum_healthy_hosts is {written!r}" in str(refusal.value)
    assert "OneAtATime, HalfAtATime, AllAtOnce" in str(refusal.value)


@given(percent=st.integers(0, 100), total=st.integers(0, 5000))
def test_a_share_is_rounded_up_exactly(percent: int, total: int) -> None:
    assert parse_minimum_healthy(f"{percent}%").of(total) == -(-total * percent // 100)


@pytest.mark.parametrize(
    ("written", "text"),
    [("75%", "75%"), (3, "3"), ("OneAtATime", "all but 1"), ("33.5%", "33.5%")],
)
def test_a_minimum_is_shown_as_written(written: Any, text: str) -> None:
    assert str(parse_minimum_healthy(written)) == text


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (30, 30.0), ("30", 30.0), (0, 0.0), (1.5, 1.5), ("90s", 90.0), ("10m", 600.0),
        ("2h", 7200.0), ("1d", 86400.0), ("1h30m", 5400.0), ("1h 30m", 5400.0), ("500ms", 0.5),
        (" 10 m ", 600.0), ("0.1s", 0.1),
    ],
)  # fmt: skip
def test_durations(written: Any, seconds: float) -> None:
    assert math.isclose(parse_duration(written, "deploy_bake_time"), seconds)


@pytest.mark.parametrize(
    "written", ["", "soon", "-5", -5, None, True, "10x", "m", "1h30", "10 20", [5], float("inf")]
)
def test_a_duration_that_cannot_be_read_is_named(written: Any) -> None:
    with pytest.raises(UsageError, match=r"deploy_bake_time is .*; wanted are seconds"):
        parse_duration(written, "deploy_bake_time")


@pytest.mark.parametrize(
    ("written", "total", "sizes"),
    [
        (None, 5, [5]),
        ([], 5, [5]),
        ("100%", 5, [5]),
        (2, 5, [2, 2, 1]),
        ("2", 5, [2, 2, 1]),
        ([1, "10%", "100%"], 20, [1, 2, 17]),
        ([1, 5], 20, [1, 5, 5, 5, 4]),
        ("30%", 10, [3, 3, 3, 1]),
        # Ansible rounds a share down, but never to nothing.
        ("10%", 5, [1, 1, 1, 1, 1]),
        (["50%"], 5, [2, 2, 1]),
        ([10], 3, [3]),
        ([1, 1], 0, []),
    ],
)
def test_stages_are_batches_as_of_serial(written: Any, total: int, sizes: list[int]) -> None:
    assert parse_stages(written, total) == sizes


@pytest.mark.parametrize("written", [0, [1, 0], "0%", "101%", "some", [True], [[1]], -1])
def test_a_stage_that_cannot_be_read_is_named(written: Any) -> None:
    with pytest.raises(UsageError, match="deploy_stages holds"):
        parse_stages(written, 10)


@given(
    entries=st.lists(
        st.one_of(st.integers(1, 50), st.integers(1, 100).map(lambda share: f"{share}%"))
    ),
    total=st.integers(0, 200),
)
def test_stages_hold_every_target_once(entries: list[Any], total: int) -> None:
    sizes = parse_stages(entries, total)
    assert sum(sizes) == total
    assert all(size >= 1 for size in sizes)
