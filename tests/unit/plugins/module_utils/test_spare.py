from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import TrafficError
from ansible_collections.bascule.deploy.plugins.module_utils._host import _spare

if TYPE_CHECKING:
    from pathlib import Path

FILE = "route file"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "routes.json"
    made.write_text("old")
    made.chmod(0o640)
    return made


def no_room(number: int) -> TrafficError:
    error = TrafficError("it cannot be replaced")
    error.__cause__ = OSError(number, "No space left on device")
    return error


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing new can be written; what is there can be written over."""

    def refuse(*_given: str) -> None:
        raise no_room(errno.ENOSPC)

    monkeypatch.setattr(_spare, "replace_file", refuse)


def test_room_is_kept_and_left_as_long_as_it_is_enough(path: Path) -> None:
    _spare.keep_spare(str(path), "x" * 100, FILE)
    spare = _spare.spare_of(str(path))
    assert spare.stat().st_size == 100 + _spare.SLACK_BYTES
    first = spare.stat().st_mtime_ns
    _spare.keep_spare(str(path), "x" * 50, FILE)
    assert spare.stat().st_mtime_ns == first
    _spare.keep_spare(str(path), "x" * 5000, FILE)
    assert spare.stat().st_size == 5000 + _spare.SLACK_BYTES


def test_with_room_a_file_is_replaced_and_room_is_kept_for_the_next_time(path: Path) -> None:
    assert _spare.replace_at_need(str(path), "new", FILE) == ""
    assert path.read_text() == "new"
    assert _spare.spare_of(str(path)).stat().st_size > _spare.SLACK_BYTES


@pytest.mark.usefixtures("full")
def test_on_a_full_disk_the_kept_room_takes_the_file_s_place(path: Path) -> None:
    _spare.keep_spare(str(path), "first", FILE)
    kept = _spare.spare_of(str(path)).stat().st_ino
    told = _spare.replace_at_need(str(path), "new", FILE)
    assert told.startswith("No space left on device: the route file")
    assert told.endswith("written in the room that is kept for that. Make room on this disk.")
    assert (path.read_text(), path.stat().st_ino) == ("new", kept)
    assert path.stat().st_mode & 0o777 == 0o640
    assert _spare.spare_of(str(path)).stat().st_size > _spare.SLACK_BYTES


@pytest.mark.usefixtures("full")
def test_room_that_cannot_be_kept_again_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _spare.keep_spare(str(path), "first", FILE)

    def refuse(*_given: str) -> None:
        raise no_room(errno.ENOSPC)

    monkeypatch.setattr(_spare, "keep_spare", refuse)
    told = _spare.replace_at_need(str(path), "new", FILE)
    assert told.endswith("and none is left. Make room on this disk.")
    assert path.read_text() == "new"


@pytest.mark.usefixtures("full")
def test_without_kept_room_a_full_disk_refuses(path: Path) -> None:
    with pytest.raises(TrafficError, match="cannot be replaced"):
        _spare.replace_at_need(str(path), "new", FILE)
    assert path.read_text() == "old"


def test_another_fault_than_a_full_disk_uses_no_room(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _spare.keep_spare(str(path), "first", FILE)

    def refuse(*_given: str) -> None:
        raise no_room(errno.EACCES)

    monkeypatch.setattr(_spare, "replace_file", refuse)
    with pytest.raises(TrafficError):
        _spare.replace_at_need(str(path), "new", FILE)
    assert _spare.spare_of(str(path)).is_file()


def test_a_file_system_that_copies_what_is_written_over_gets_the_room_itself(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _spare.keep_spare(str(path), "first", FILE)
    written = _spare.replace_file
    asked = []

    def replace(*given: str) -> None:
        asked.append(_spare.spare_of(given[0]).exists())
        if asked[-1]:
            raise no_room(errno.ENOSPC)
        written(*given)

    def truncate(_descriptor: int, _size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_spare, "replace_file", replace)
    monkeypatch.setattr("os.ftruncate", truncate)
    assert "No space left on device" in _spare.replace_at_need(str(path), "new", FILE)
    assert asked == [True, False]
    assert path.read_text() == "new"


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrafficError, match=r"No room can be kept at .*: No such file"):
        _spare.keep_spare(str(tmp_path / "gone" / "routes.json"), "x", FILE)
