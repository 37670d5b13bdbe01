"""Which paths a permission reaches: the agent's pattern and except matching, case by case."""

from __future__ import annotations

import fnmatch
import re
from typing import Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import InstallError
from ansible_collections.bascule.deploy.plugins.module_utils._host import _permissions
from hypothesis import given
from hypothesis import strategies as st

COPIES = ["/srv/app/a.sh", "/srv/app/.env", "/srv/app/lib/b.sh", "/srv/app/lib/deep/c.txt"]
DIRECTORIES = ["/srv/app", "/srv/app/lib", "/srv/app/lib/deep"]


def entry(name: str = "/srv/app", **changes: Any) -> dict[str, Any]:
    """Make a permission with the grammar's defaults."""
    return {
        "object": name,
        "pattern": "**",
        "except": [],
        "type": ["file", "directory"],
        "owner": None,
        "group": None,
        "mode": "0644",
        "acls": None,
        "context": None,
        **changes,
    }


def reached(*entries: dict[str, Any], existing: tuple[str, ...] = ()) -> list[str]:
    """Return the paths that entries reach."""
    return [
        grant.path
        for grant in _permissions.assign(
            list(entries),
            COPIES,
            DIRECTORIES,
            place=lambda path: path.rstrip("/") or "/",
            is_directory=lambda path: path in existing,
        )
    ]


@pytest.mark.parametrize(
    ("changes", "paths"),
    [
        ({}, [*COPIES, "/srv/app/lib", "/srv/app/lib/deep"]),
        ({"type": ["file"]}, COPIES),
        ({"type": ["directory"]}, ["/srv/app/lib", "/srv/app/lib/deep"]),
        ({"type": []}, []),
        ({"pattern": "*", "type": ["file"]}, ["/srv/app/a.sh", "/srv/app/.env"]),
        ({"pattern": "*"}, ["/srv/app/a.sh", "/srv/app/.env", "/srv/app/lib"]),
        ({"pattern": "*.sh"}, ["/srv/app/a.sh"]),
        ({"pattern": "**.sh"}, ["/srv/app/a.sh"]),
        ({"pattern": "**/*.sh"}, []),
        ({"pattern": "***", "type": ["file"]}, ["/srv/app/a.sh", "/srv/app/.env"]),
        ({"pattern": "lib/b.sh"}, []),
        ({"pattern": "?.sh"}, []),
        ({"pattern": "[a].sh"}, []),
        ({"pattern": "A.SH"}, []),
        ({"pattern": ""}, []),
        ({"pattern": "lib"}, ["/srv/app/lib"]),
        ({"except": ["a.sh"], "type": ["file"]}, COPIES[1:]),
        ({"except": ["*.sh"], "type": ["file"]}, COPIES[1:]),
        ({"except": ["b.sh"], "type": ["file"]}, COPIES),
        ({"except": ["/srv/app/a.sh"], "type": ["file"]}, COPIES),
        ({"except": ["lib/b.sh"], "type": ["file"]}, COPIES),
        ({"except": ["**"], "type": ["file"]}, COPIES[2:]),
    ],
)
def test_members_of_a_directory(changes: dict[str, Any], paths: list[str]) -> None:
    assert reached(entry(**changes)) == paths


def test_the_root_reaches_everything_that_is_made() -> None:
    assert reached(entry("/"), existing=("/",)) == [*COPIES, *DIRECTORIES]


def test_an_existing_directory_counts_and_a_missing_one_is_passed_over() -> None:
    assert reached(entry("/srv", type=["directory"]), existing=("/srv",)) == DIRECTORIES
    assert reached(entry("/srv")) == []
    assert reached(entry("/srv/ap"), existing=("/srv/ap",)) == []


def test_a_file_as_object() -> None:
    assert reached(entry("/srv/app/a.sh")) == ["/srv/app/a.sh"]
    assert reached(entry("/srv/app/a.sh", type=["directory"], pattern="x")) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pattern": "*"}, r"invalid pattern \(\*\)"),
        ({"except": ["x"]}, "except parameter for a pattern"),
        ({"acls": ["d:u:bob:rw"]}, "the -d parameter"),
    ],
)
def test_what_is_for_directories_only(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InstallError, match=words):
        reached(entry("/srv/app/a.sh", **changes))


def test_a_default_list_below_a_directory_is_for_directories_only() -> None:
    lists = ["u:bob:rw", "d:u:bob:rw"]
    with pytest.raises(InstallError, match=r"the -d parameter .* /srv/app/a\.sh;"):
        reached(entry(acls=lists))
    with pytest.raises(InstallError, match=r"/srv/app/\.env;"):
        reached(entry(acls=lists, type=["file"], pattern=".*"))
    directories = ["/srv/app/lib", "/srv/app/lib/deep"]
    assert reached(entry(acls=lists, type=["directory"])) == directories
    assert reached(entry(acls=lists, pattern="lib")) == ["/srv/app/lib"]
    assert reached(entry(acls=lists[:1], type=["file"])) == COPIES


def test_two_permissions_on_one_path_are_an_error_that_names_both() -> None:
    with pytest.raises(InstallError, match="specified more than once") as caught:
        reached(entry(type=["file"]), entry("/srv/app/lib", type=["file"]), existing=())
    assert "/srv/app and /srv/app/lib" in str(caught.value)
    disjoint = reached(entry(pattern="*.sh"), entry(pattern=".env"))
    assert disjoint == ["/srv/app/a.sh", "/srv/app/.env"]


@given(st.text(alphabet="ab.*/", max_size=12), st.text(alphabet="ab.*?[]", max_size=10))
def test_a_star_is_the_only_special_letter(name: str, pattern: str) -> None:
    expected = "/" not in name and re.fullmatch(
        ".*".join(map(re.escape, pattern.split("*"))), name, re.DOTALL
    )
    assert _permissions.single_level(name, pattern) == bool(expected)
    if not set("?[]*") & set(name + pattern):
        assert _permissions.single_level(name, pattern) == (
            "/" not in name and fnmatch.fnmatchcase(name, pattern)
        )


def test_a_pattern_of_many_stars_takes_no_time() -> None:
    assert not _permissions.single_level("a" * 2000 + "b", "*a" * 200 + "*c")
