from __future__ import annotations

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError
from ansible_collections.bascule.deploy.plugins.plugin_utils._history import (
    rollback_revision,
    way_back,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import (
    Deployment,
    RevisionRow,
)


def deployment(number: int, digest: str, status: str, strategy: str) -> Deployment:
    return Deployment(
        id=f"d-{number:09d}",
        application="shop",
        group="web",
        group_id="",
        strategy=strategy,
        status=status,
        creator="user",
        description="",
        revision=RevisionRow(digest=digest * 16),
        previous_digest=None,
        rollback_of=None,
        rolled_back_by=None,
        error_code=None,
        error_message="",
        plan={},
        options={},
        created_at=float(number),
        finished_at=None,
        started_by="",
        started_from="",
        overview={},
        fence=1,
    )


def history(*steps: str) -> list[Deployment]:
    """Newest first, from oldest-first words such as ``aaaa``, ``-bbbb`` (failed), ``<aaaa``."""
    made = []
    for number, step in enumerate(steps):
        strategy = "rollback" if step.startswith("<") else "rolling"
        status = {"-": "Failed", "~": "InProgress"}.get(step[0], "Succeeded")
        made.append(deployment(number, step.lstrip("<-~"), status, strategy))
    return made[::-1]


@pytest.mark.parametrize(
    ("steps", "wanted"),
    [
        (("aaaa", "bbbb"), "aaaa"),
        (("aaaa", "bbbb", "bbbb"), "aaaa"),
        (("aaaa", "bbbb", "cccc", "<bbbb"), "aaaa"),
        (("aaaa", "bbbb", "-cccc"), "bbbb"),
        (("aaaa", "bbbb", "-cccc", "<bbbb"), "aaaa"),
        (("aaaa", "bbbb", "<aaaa", "cccc"), "aaaa"),
        (("aaaa", "bbbb", "~cccc"), "aaaa"),
        (("aaaa", "-bbbb"), "aaaa"),
    ],
)
def test_a_rollback_goes_back_and_never_forward(steps: tuple[str, ...], wanted: str) -> None:
    assert rollback_revision(history(*steps)).digest == wanted * 16


@pytest.mark.parametrize("steps", [(), ("aaaa",), ("-aaaa",), ("aaaa", "bbbb", "<aaaa")])
def test_nothing_to_go_back_to(steps: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="nothing to go back to"):
        rollback_revision(history(*steps))


@pytest.mark.parametrize("to", ["aaaaaa", "aaaa" * 16, "d-000000000"])
def test_a_named_revision(to: str) -> None:
    assert rollback_revision(history("aaaa", "bbbb", "cccc"), to=to).digest == "aaaa" * 16


@pytest.mark.parametrize("to", ["aaa", "dddddd", "d-000000001"])
def test_a_revision_that_never_succeeded_is_refused(to: str) -> None:
    with pytest.raises(UsageError, match="aaaaaaaaaaaa"):
        rollback_revision(history("aaaa", "-bbbb"), to=to)


def test_the_way_is_oldest_first() -> None:
    steps = history("aaaa", "bbbb", "cccc")
    assert [row.digest[:4] for row in way_back(steps)] == ["aaaa", "bbbb", "cccc"]


@pytest.mark.parametrize(
    ("steps", "bad", "wanted"),
    [
        (("aaaa", "bbbb", "cccc"), {"bbbb"}, "aaaa"),
        # What is there now is left because it is bad: the one before it is as good as ever.
        (("aaaa", "bbbb", "cccc"), {"cccc"}, "bbbb"),
        (("aaaa", "bbbb", "-cccc"), {"bbbb"}, "aaaa"),
        (("aaaa", "bbbb", "-cccc"), {"cccc"}, "bbbb"),
    ],
)
def test_a_rollback_passes_over_what_is_marked_bad(
    steps: tuple[str, ...], bad: set[str], wanted: str
) -> None:
    marked = {digest * 16 for digest in bad}
    assert rollback_revision(history(*steps), bad=marked).digest == wanted * 16


def test_only_bad_revisions_to_go_back_to() -> None:
    with pytest.raises(UsageError, match="succeeded and is not marked bad"):
        rollback_revision(history("aaaa", "bbbb"), bad={"aaaa" * 16})
