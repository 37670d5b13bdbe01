from __future__ import annotations

import io
import os
import tarfile
from typing import TYPE_CHECKING

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import ArchiveError
from ansible_collections.bascule.deploy.plugins.module_utils._host._archive import unpack
from ansible_collections.bascule.deploy.plugins.module_utils._host._links import leaving
from hypothesis import given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("links", "wanted"),
    [
        ({"a": "b"}, []),
        ({"a": "./x/../b"}, []),
        ({"x/a": "../b"}, []),
        ({"a": "nowhere/at/all"}, []),
        ({"a": "/etc/passwd"}, ["a"]),
        ({"a": ".."}, ["a"]),
        ({"x/y/a": "../../../b"}, ["x/y/a"]),
        ({"a": "x/../../b"}, ["a"]),
        ({"a": "b/..", "b": "x/y"}, []),
        ({"x/y/l1": "../../a", "x/y/l2": "l1/../../b"}, ["x/y/l2"]),
        ({"a": "b", "b": "/etc"}, ["a", "b"]),
        ({"a": "b", "b": "a"}, []),
        ({"a": "a/../.."}, ["a"]),
        ({"d": "x", "d2/a": "../d/../../y"}, ["d2/a"]),
    ],
)
def test_which_links_leave(links: dict[str, str], wanted: list[str]) -> None:
    assert leaving(links) == wanted


NAMES = st.sampled_from(["a", "b", "x/a", "x/b", "x/y/a"])
TARGETS = st.lists(st.sampled_from(["a", "b", "x", "y", "..", "."]), min_size=1, max_size=5)


@settings(max_examples=400)
@given(links=st.dictionaries(NAMES, TARGETS.map("/".join), max_size=4))
def test_it_agrees_with_the_operating_system(
    links: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("bundle") / "deep" / "root"
    for folder in ("", "x", "x/y"):
        (root / folder).mkdir(parents=True)
    for name, target in links.items():
        (root / name).symlink_to(target)
    inside = str(root) + "/"
    outside = [
        name
        for name in sorted(links)
        if not (os.path.realpath(root / name) + "/").startswith(inside)
    ]
    # A path that leaves and comes back ends inside, yet it depends on where the bundle lies.
    assert set(outside) <= set(leaving(links))


def archive(path: Path, name: str, target: str) -> str:
    with tarfile.open(path, "w") as bundle:
        data = b"version: 0.0\n"
        entry = tarfile.TarInfo("appspec.yml")
        entry.size = len(data)
        bundle.addfile(entry, io.BytesIO(data))
        link = tarfile.TarInfo(name)
        link.type, link.linkname = tarfile.SYMTYPE, target
        bundle.addfile(link)
    return str(path)


@pytest.mark.parametrize("target", ["/var/log/shop", "../../shop", "x/../../shop"])
def test_an_archive_with_such_a_link_is_refused_unless_allowed(tmp_path: Path, target: str) -> None:
    path = archive(tmp_path / "bundle.tar", "logs", target)
    for number, allowed in enumerate((False, True)):
        folder = tmp_path / str(number)
        folder.mkdir()
        if allowed:
            unpack(path, str(folder), limit=10**6, outside_links=True)
            assert os.readlink(folder / "logs") == target  # noqa: PTH115 - the text itself
        else:
            with pytest.raises(ArchiveError, match="'logs' leads to"):
                unpack(path, str(folder), limit=10**6)
