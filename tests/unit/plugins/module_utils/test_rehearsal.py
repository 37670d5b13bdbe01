"""What is said, before a deployment, of the way back."""

from __future__ import annotations

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._rehearsal import (
    GoodRevision,
    rehearsal_lines,
    rehearse,
)

NEW, GOOD = "n" * 64, "g" * 64
NAMES = ["web1", "web2"]


def good(*, cached: bool, holders: tuple[str, ...] = ()) -> GoodRevision:
    return GoodRevision(
        GOOD,
        description="1.4",
        deployment_id="d-AAAAAAAAA",
        succeeded_at=1_700_000_000.0,
        cached=cached,
        holders=frozenset(holders),
    )


@pytest.mark.parametrize(
    ("cached", "holders", "possible"),
    [
        (True, (), True),
        (False, ("web1", "web2"), True),
        (False, ("web1", "other"), False),
        (False, (), False),
    ],
)
def test_the_bundle_has_to_be_somewhere(
    cached: bool, holders: tuple[str, ...], possible: bool
) -> None:
    told = rehearse(NEW, good(cached=cached, holders=holders), NAMES)
    assert told["possible"] == possible
    if not possible:
        assert "the bundle of the last good revision gggggggggggg is neither" in told["why"]
        assert told["why"].endswith("web2")


def test_what_a_person_reads() -> None:
    told = rehearse(NEW, good(cached=False, holders=("web1", "web2")), NAMES, automatic=False)
    assert rehearsal_lines(told) == [
        "Rollback: to revision gggggggggggg (1.4), it succeeded before, last on 2023-11-14 22:13 "
        "UTC (d-AAAAAAAAA).",
        "  Its bundle is on the targets; at most 2 targets would be changed; only by hand.",
    ]


@pytest.mark.parametrize(
    ("marked_bad", "why"), [(False, "no revision has succeeded"), (True, "is marked bad")]
)
def test_without_a_good_revision_the_reason_is_told(marked_bad: bool, why: str) -> None:
    told = rehearse(NEW, None, NAMES, marked_bad=marked_bad)
    assert not told["possible"]
    assert why in told["why"]
    assert rehearsal_lines(told) == [f"Rollback: not possible, {told['why']}."]


def test_a_redeployment_would_roll_back_to_itself() -> None:
    assert "being deployed" in rehearse(GOOD, good(cached=True), NAMES)["why"]
