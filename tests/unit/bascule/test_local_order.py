"""The order of a local deployment's events; what the command reads of the agent's configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError
from hypothesis import given
from hypothesis import strategies as st

from bascule.cli.local import read_configuration
from bascule.local._delivery import _from_github
from bascule.local._order import DEFAULT, choose

if TYPE_CHECKING:
    from pathlib import Path


def test_without_a_list_it_is_codedeploys_order() -> None:
    assert choose(None) == choose("") == list(DEFAULT)
    assert [event for event in DEFAULT if "Traffic" not in event] == [
        "ApplicationStop",
        "DownloadBundle",
        "BeforeInstall",
        "Install",
        "AfterInstall",
        "ApplicationStart",
        "ValidateService",
    ]


@given(st.lists(st.sampled_from([*DEFAULT, "Mine", "Yours"]), unique=True, min_size=1))
def test_a_chosen_order_can_work_or_is_refused(names: list[str]) -> None:
    try:
        chosen = choose(",".join(names))
    except UsageError:
        assert "DownloadBundle" in names or "Install" in names
        return
    assert [event for event in chosen if event in names] == names
    assert set(chosen) == {*names, "DownloadBundle", "Install"}
    download, install = chosen.index("DownloadBundle"), chosen.index("Install")
    assert download < install
    assert set(chosen[:download]) <= {"BeforeBlockTraffic", "AfterBlockTraffic", "ApplicationStop"}
    for event in ("AfterInstall", "ApplicationStart", "ValidateService", "AfterAllowTraffic"):
        assert event not in chosen or chosen.index(event) > install


@pytest.mark.parametrize(
    ("location", "meant"),
    [
        ("https://github.com/a/b", "git+https://github.com/a/b.git#HEAD"),
        ("https://github.com/a/b.git", "git+https://github.com/a/b.git#HEAD"),
        (
            "https://api.github.com/repos/a/b/tarball/v1.2",
            "git+https://github.com/a/b.git#v1.2",
        ),
        (
            "https://api.github.com/repos/a/b/zipball/feature/x",
            "git+https://github.com/a/b.git#feature/x",
        ),
        ("https://example.org/a.tgz#sha256:00", "https://example.org/a.tgz#sha256:00"),
        ("https://github.com.example.org/a/b", "https://github.com.example.org/a/b"),
    ],
)
def test_githubs_addresses(location: str, meant: str) -> None:
    assert _from_github(location) == meant


@pytest.mark.parametrize(
    ("text", "root", "retained"),
    [
        ("---\n:root_dir: '/srv/cd'\n:max_revisions: 3\n:verbose: false\n", "/srv/cd", 3),
        ("root_dir: /srv/cd\n", "/srv/cd", None),
        ("", None, None),
    ],
)
def test_the_agents_configuration(
    tmp_path: Path, text: str, root: str | None, retained: int | None
) -> None:
    path = tmp_path / "codedeployagent.yml"
    path.write_text(text)
    assert read_configuration(str(path)) == {"root": root, "retained": retained}


@pytest.mark.parametrize("text", ["- a list", "a: [", None])
def test_a_configuration_that_cannot_be_read(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "codedeployagent.yml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match="agent's configuration"):
        read_configuration(str(path))
