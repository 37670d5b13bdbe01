"""The controller's cache of revisions does not grow for ever, and loses nothing that is needed."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest
from ansible_collections.bascule.deploy.plugins.plugin_utils._revisions import (
    has_revision,
    load_revision,
    note_use,
    prune,
    resolve,
)

if TYPE_CHECKING:
    from pathlib import Path

DAY = 24 * 3600.0


@pytest.fixture
def cached(tmp_path: Path) -> tuple[Path, list[str]]:
    """A cache with five revisions, the first of them used longest ago, by days."""
    cache, digests = tmp_path / "cache", []
    for number in range(5):
        folder = tmp_path / f"bundle-{number}"
        folder.mkdir()
        (folder / "appspec.yml").write_text("version: 0.0\nos: linux\n")
        (folder / "number").write_text(str(number))
        digest = resolve(str(folder), cache=cache, base=tmp_path).digest
        used = time.time() - (10 - number) * DAY
        os.utime(cache / digest / "revision.json", (used, used))
        digests.append(digest)
    (cache / "index" / "note").write_text(digests[0])
    return cache, digests


def test_what_was_used_longest_ago_goes_first(cached: tuple[Path, list[str]]) -> None:
    cache, digests = cached
    assert prune(cache, 3, set) == [digests[1], digests[0]]
    assert [has_revision(one, cache=cache) for one in digests] == [False, False, True, True, True]
    assert not (cache / "index" / "note").exists()
    assert not list(cache.glob(".new-*"))
    assert prune(cache, 3, set) == []


def test_what_is_needed_and_what_was_used_lately_stays(cached: tuple[Path, list[str]]) -> None:
    cache, digests = cached
    note_use(digests[1], cache=cache)
    assert prune(cache, 1, lambda: {digests[0], digests[3]}) == [digests[4], digests[2]]
    assert load_revision(digests[0], cache=cache) is not None
    assert load_revision(digests[1], cache=cache) is not None


def test_nobody_is_asked_where_there_is_room(cached: tuple[Path, list[str]]) -> None:
    cache, digests = cached

    def asked() -> set[str]:
        raise AssertionError

    assert prune(cache, 5, asked) == prune(cache, 0, asked) == prune(cache / "not", 1, asked) == []
    assert all(has_revision(one, cache=cache) for one in digests)
