"""Any sequence of installations: what is there afterwards follows from the last one alone."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import InstallError
from ansible_collections.bascule.deploy.plugins.module_utils._host import (
    _cleanup,
    _files,
    _install,
    _layout,
    _steps,
    _tree,
)
from hypothesis import given, settings
from hypothesis import strategies as st

NAMES = st.sampled_from(["a", "b", "c"])
# A tree of files (text), links (a path that dangles) and directories.
TREES = st.recursive(
    st.text("xyz", max_size=2) | st.just(Path("nowhere")),
    lambda inner: st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
).filter(lambda tree: isinstance(tree, dict))
# What people do between two deployments: put a file or a directory somewhere, or remove something.
DEEDS = st.lists(
    st.tuples(
        st.sampled_from(["file", "directory", "remove"]),
        st.lists(st.sampled_from(["a", "b", "c", "user"]), min_size=1, max_size=3).map("/".join),
    ),
    max_size=3,
)


def write(folder: Path, tree: dict[str, Any]) -> None:
    """Write a tree below a folder."""
    folder.mkdir(parents=True)
    for name, spec in tree.items():
        if isinstance(spec, dict):
            write(folder / name, spec)
        elif isinstance(spec, Path):
            (folder / name).symlink_to(spec)
        else:
            (folder / name).write_text(spec)


def read(folder: Path) -> dict[str, str]:
    """Return every path below a folder: its text, its link's target, or ``/``."""
    result = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            result[name] = f"->{path.readlink()}"
        else:
            result[name] = "/" if path.is_dir() else "=" + path.read_text()
    return result


def do(deed: str, path: Path) -> None:
    """Do what people do."""
    try:
        if deed == "remove":
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        elif deed == "file":
            path.write_text("user's")
        else:
            path.mkdir()
    except OSError:
        return


class Host:
    """A host that is installed to without hooks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.destination = folder / "app"
        self.layout = _layout.Layout(str(folder / "root"), "group", "deployment")
        Path(self.layout.instructions).mkdir(parents=True)
        self._number = 0

    def install(self, tree: dict[str, Any], existing: str) -> None:
        self._number += 1
        archive = self.folder / f"archive-{self._number}"
        write(archive, {"web": tree})
        made = _cleanup.read(self.layout.cleanup, self.layout.install)
        ground = _cleanup.Ground(made)
        scanned = _tree.scan(str(archive))
        appspec = {
            "files": [{"source": "web", "destination": str(self.destination)}],
            "permissions": [],
        }
        plan = _files.make(appspec, scanned, ground, existing=existing)
        if plan.conflicts:
            raise InstallError(plan.conflict_text())
        _install.carry_out(plan, scanned, str(archive), made, ground, self.layout, lambda: None)


@settings(max_examples=150, deadline=None)
@given(
    steps=st.lists(
        st.tuples(TREES, st.sampled_from(["DISALLOW", "OVERWRITE", "RETAIN"]), DEEDS),
        min_size=1,
        max_size=4,
    )
)
def test_any_sequence(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[dict[str, Any], str, Any]]
) -> None:
    host = Host(tmp_path_factory.mktemp("host"))
    ours: dict[str, str] = {}
    for number, (tree, existing, deeds) in enumerate(steps):
        before = read(host.destination) if host.destination.exists() else {}
        wanted_folder = host.folder / f"wanted-{number}"
        write(wanted_folder, tree)
        wanted = read(wanted_folder)
        try:
            host.install(tree, existing)
        except InstallError:
            after = read(host.destination) if host.destination.exists() else {}
            assert after == before, "a refused installation changed something"
            continue
        after = read(host.destination)
        foreign = {path for path, what in before.items() if ours.get(path) != what}
        places = {path: path for path in wanted}
        for path, what in wanted.items():
            if existing == "OVERWRITE" and what != "/" and after.get(path) == "/":
                # As with the agent, a file goes into a directory that is somebody else's.
                assert any(one == path or one.startswith(f"{path}/") for one in foreign)
                places[path] = f"{path}/{Path(path).name}"
            # A directory of ours stays where the user put something into it, and is retained.
            if existing != "RETAIN" or (path not in foreign and before.get(path) != "/"):
                assert after[places[path]] == what
        for path, what in before.items():
            if path in wanted or path in places.values():
                continue
            parents = {str(parent) for parent in Path(path).parents}
            if path in foreign and what != "/" and not path_was_ours(path, what, ours):
                if not (parents & set(wanted)) or existing == "RETAIN":
                    assert after.get(path) == what, f"{path} was the user's"
            elif path not in foreign and what != "/":
                assert path not in after, f"{path} of the last revision stayed"
        assert not list(host.folder.rglob(_cleanup.TEMPORARY))
        retained = {one for one in foreign if not path_was_ours(one, before[one], ours)}
        # What went into somebody's directory is theirs from then on, as with the agent.
        ours = {
            path: after[path] for path in wanted if existing != "RETAIN" or path not in retained
        }
        for deed, path in deeds:
            do(deed, host.destination / path)


def path_was_ours(path: str, what: str, ours: dict[str, str]) -> bool:
    """Tell whether a file of ours was changed in place, which nobody can tell from ours."""
    return path in ours and (ours[path] == "/") == (what == "/")


@settings(max_examples=150, deadline=None)
@given(first=TREES, second=TREES, stop=st.integers(0, 12))
def test_an_interruption_anywhere_is_made_good_by_the_next_installation(
    tmp_path_factory: pytest.TempPathFactory,
    first: dict[str, Any],
    second: dict[str, Any],
    stop: int,
) -> None:
    host = Host(tmp_path_factory.mktemp("host"))
    host.install(first, "DISALLOW")
    (host.destination / "user").write_text("user's")
    calls = 0
    real = os.rename

    class Cut(BaseException):
        """What a power cut is to a test."""

    def rename(source: str, target: str) -> None:
        nonlocal calls
        calls += 1
        if calls > stop:
            raise Cut
        real(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_steps.os, "rename", rename)
        with contextlib.suppress(Cut):
            host.install(second, "DISALLOW")
    host.install(second, "DISALLOW")
    wanted = host.folder / "wanted"
    write(wanted, second)
    assert read(host.destination) == {**read(wanted), "user": "=user's"}
    host.install({}, "DISALLOW")
    assert read(host.destination) == {"user": "=user's"}
