"""Which targets become the fresh baseline of canaries."""

from __future__ import annotations

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._baseline import (
    baseline_lines,
    choose_baseline,
)
from ansible_collections.bascule.deploy.plugins.module_utils._errors import PlanError

OTHERS = [("c", "1"), ("d", "1"), ("e", "2"), ("f", "2")]


@pytest.mark.parametrize(
    ("canaries", "expected"),
    [
        ([("a", "1")], ["c"]),
        ([("a", "2")], ["e"]),
        ([("a", "1"), ("b", "2")], ["c", "e"]),
        ([("a", "2"), ("b", "2")], ["e", "f"]),
        # A zone without any left is made up for by the first of the others.
        ([("a", "2"), ("b", "2"), ("x", "2")], ["c", "e", "f"]),
        ([("a", "3")], ["c"]),
    ],
)
def test_as_many_as_canaries_and_in_their_zones(
    canaries: list[tuple[str, str]], expected: list[str]
) -> None:
    assert choose_baseline(canaries, OTHERS) == expected


def test_in_a_pool_of_its_own_fewer_will_do() -> None:
    assert choose_baseline([("a", "1"), ("b", "1")], [("c", "2")], fewer=True) == ["c"]
    with pytest.raises(PlanError, match="there are 0"):
        choose_baseline([("a", "1")], [], fewer=True)


def test_too_few_are_refused_with_their_numbers() -> None:
    with pytest.raises(PlanError, match=r"2 targets of canaries need as many .* there are 1"):
        choose_baseline([("a", ""), ("b", "")], [("c", "")])


def test_a_plan_names_them_and_their_revision() -> None:
    told = baseline_lines({"targets": ["c"], "digest": "0123456789abcdef", "description": "v1"})
    assert "c: the revision that is there, 0123456789ab (v1), once more;" in "\n".join(told)
    assert baseline_lines(None) == []
