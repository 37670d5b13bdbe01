"""The AppSpec grammar: what is accepted, as which tree, and what is said about the rest."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._appspec import (
    LocatedError,
    appspec_name,
    find_appspec,
    parse_appspec,
)
from ansible_collections.bascule.deploy.plugins.module_utils._errors import AppSpecError
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from pathlib import Path

HEAD = "version: 0.0\nos: linux\n"


def hook(line: str) -> dict[str, Any]:
    """Parse one script of ApplicationStart."""
    tree = parse_appspec(f"{HEAD}hooks: {{ApplicationStart: [{{location: a.sh, {line}}}]}}")
    script: dict[str, Any] = tree["hooks"]["ApplicationStart"][0]
    return script


def permission(line: str, strict: str | None = None) -> dict[str, Any]:
    """Parse one permission."""
    text = f"{HEAD}permissions: [{{object: /srv, {line}}}]"
    result: dict[str, Any] = parse_appspec(text, strict=strict)["permissions"][0]
    return result


def test_a_whole_file_becomes_one_plain_tree() -> None:
    tree = parse_appspec(
        b"""\
version: 0.0
os: linux
file_exists_behavior: OVERWRITE
files:
  - source: /
    destination: /srv/app
hooks:
  BeforeInstall:
    - location: " scripts/one.sh "
      timeout: 30
      runas: app
    - location: scripts/two.sh
      sudo: yes
  Anything: []
permissions:
  - object: /srv/app
    pattern: "*.sh"
    except: [a.sh]
    type: [file]
    owner: app
    group: 33
    mode: 750
    acls: ["u:bob:rw", "d:g:ops:7"]
    context: {name: system_u, type: httpd_t, range: "s0-s3:c0.c5,c9"}
unknown: ignored
"""
    )
    assert tree == {
        "version": 0.0,
        "os": "linux",
        "file_exists_behavior": "OVERWRITE",
        "files": [{"source": "/", "destination": "/srv/app"}],
        "hooks": {
            "BeforeInstall": [
                {"location": "scripts/one.sh", "timeout": 30, "runas": "app", "sudo": False},
                {"location": "scripts/two.sh", "timeout": 3600, "runas": None, "sudo": True},
            ]
        },
        "permissions": [
            {
                "object": "/srv/app",
                "pattern": "*.sh",
                "except": ["a.sh"],
                "type": ["file"],
                "owner": "app",
                "group": "33",
                "mode": "750",
                "acls": ["u:bob:rw", "d:g:ops:7"],
                "context": {"name": "system_u", "type": "httpd_t", "range": "s0-s3:c0.c5,c9"},
            }
        ],
    }
    assert json.loads(json.dumps(tree)) == tree


@pytest.mark.parametrize("version", ["0", "0.0", "0.00", "-0.0", ".0", "+0", "0x0", "00"])
def test_versions_that_are_zero(version: str) -> None:
    assert parse_appspec(f"version: {version}\nos: linux")["version"] == 0.0


@pytest.mark.parametrize(
    "version",
    ["'0.0'", "0.0.0", "1", "0.1", "", "no", "false", "[0]", "0e0", "0.0e0", ".0e1", "zero", "~"],
)
def test_versions_that_are_not(version: str) -> None:
    with pytest.raises(AppSpecError, match="invalid version value") as caught:
        parse_appspec(f"os: linux\nversion: {version}")
    assert str(caught.value).startswith("The deployment failed because")


@pytest.mark.parametrize("system", ["Linux", "LINUX", "windows", "", "[linux]", "5", "linux2"])
def test_other_systems_are_refused(system: str) -> None:
    with pytest.raises(AppSpecError, match="unsupported operating system"):
        parse_appspec(f"version: 0.0\nos: {system}")


@pytest.mark.parametrize("text", ["", " \n\t\n", b"", b"\xef\xbb\xbf", "\n\n"])
def test_empty_files_are_told_apart(text: str | bytes) -> None:
    with pytest.raises(AppSpecError, match="file was empty"):
        parse_appspec(text)


def test_the_first_failure_in_the_agents_order_is_the_one_that_is_told() -> None:
    with pytest.raises(AppSpecError, match="version"):
        parse_appspec("os: mac\nversion: 3\nhooks: []")
    with pytest.raises(AppSpecError, match="hooks"):
        parse_appspec(f"{HEAD}file_exists_behavior: X\nfiles: 5\nhooks: [a]")
    with pytest.raises(AppSpecError, match="files must be a list"):
        parse_appspec(f"{HEAD}file_exists_behavior: X\nfiles: 5\npermissions: 5")


@pytest.mark.parametrize(
    ("body", "line", "column", "words"),
    [
        ("hooks: [a]", 3, 8, "hooks must be a map"),
        ("hooks: {ApplicationStop: false}", 3, 26, "hooks: ApplicationStop must be a list"),
        ("hooks:\n  ApplicationStart: a.sh", 4, 21, "must be a list"),
        ("hooks:\n  ApplicationStart:\n    - a.sh", 5, 7, "must be a map"),
        ("hooks: {ApplicationStart: [{timeout: 3}]}", 3, 28, "no location value"),
        ("hooks: {ApplicationStart: [{location: '  '}]}", 3, 39, "no location value"),
        ("files: [a and b]", 3, 9, "must be a map"),
        ("files: ['source and destination']", 3, 9, "must be a map"),
        ("files: [{source: a}]", 3, 9, "only a source file"),
        ("files: [{source: a, destination: }]", 3, 9, "only a source file"),
        ("files: [{destination: a}]", 3, 9, "no source file"),
        ("permissions: [{owner: a}]", 3, 15, "no object value"),
        ("permissions: [{object: a, type: file}]", 3, 33, "must be a list"),
        ("permissions: [{object: a, type: [link]}]", 3, 34, "not supported for permissions"),
        ("permissions: [{object: a, except: x}]", 3, 35, "must be a list"),
        ("permissions: [{object: a, mode: '08'}]", 3, 33, "invalid character (8)"),
        ("permissions: [{object: a, mode: u+x}]", 3, 33, "invalid character (u)"),
        ("permissions: [{object: a, mode: '00755'}]", 3, 33, "length of a permissions mode"),
        ("permissions: [{object: a, context: {range: s0}}]", 3, 36, "invalid context type"),
        (
            "permissions: [{object: a, context: {type: t, range: s}}]",
            3,
            36,
            "problem with the SELinux range",
        ),
        (
            "permissions: [{object: a, acls: ['u::rw']}]",
            3,
            34,
            "Use mode to set the base acl entry",
        ),
        ("file_exists_behavior: overwrite", 3, 23, "file_exists_behavior"),
    ],
)
def test_refusals_name_the_place(body: str, line: int, column: int, words: str) -> None:
    with pytest.raises(LocatedError) as caught:
        parse_appspec(HEAD + body)
    assert words in str(caught.value)
    assert (caught.value.line, caught.value.column) == (line, column)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("30", 30),
        ("'30'", 30),
        ("30s", 30),
        ("0x10", 16),
        ("1_000", 1000),
        ("1,000", 1000),
        ("1:30", 5400),
        ("2.9", 2),
        ("010", 8),
        ("~", 3600),
        ("", 3600),
        ("false", 3600),
    ],
)
def test_timeouts_are_read_as_the_agent_reads_them(written: str, seconds: int) -> None:
    text = f"{HEAD}hooks:\n  ApplicationStart:\n    - location: a.sh\n      timeout: {written}"
    assert parse_appspec(text)["hooks"]["ApplicationStart"][0]["timeout"] == seconds


@pytest.mark.parametrize("written", ["0", "-1", "x", "'0x10'", "true", "[3]", ".inf", "''", "0.5"])
def test_other_timeouts_are_refused(written: str) -> None:
    with pytest.raises(AppSpecError, match="invalid timeout value"):
        hook(f"timeout: {written}")


@pytest.mark.parametrize(
    ("written", "sudo"),
    [("true", True), ("'false'", True), ("no", False), ("~", False), ("0", True), ("''", True)],
)
def test_everything_but_false_and_null_means_sudo(written: str, sudo: bool) -> None:
    assert hook(f"sudo: {written}")["sudo"] is sudo


@pytest.mark.parametrize(
    ("written", "user"), [("''", ""), ("' app '", "app"), ("~", None), ("5", "5")]
)
def test_whom_a_script_runs_as(written: str, user: str | None) -> None:
    """An empty name is nobody else's; agent 2 has it as if it were not there."""
    assert hook(f"runas: {written}")["runas"] == user


@pytest.mark.parametrize("location", ["/x.sh", "../x.sh", "a b.sh", "5", "true"])
def test_locations_are_whole_file_names(location: str) -> None:
    tree = parse_appspec(f"{HEAD}hooks: {{X: [{{location: {location}}}]}}")
    assert tree["hooks"]["X"][0]["location"] == location


@pytest.mark.parametrize(
    ("written", "mode"),
    [
        ("'0644'", "0644"),
        ("644", "644"),
        ("0644", "0644"),
        ("0755", "0755"),
        ("4755", "4755"),
        ("04755", "4755"),
        ("''", "000"),
        ("0", "000"),
        ("'7'", "007"),
        ("~", None),
    ],
)
def test_modes(written: str, mode: str | None) -> None:
    assert permission(f"mode: {written}")["mode"] == mode


@pytest.mark.parametrize("field", ["owner", "group"])
@pytest.mark.parametrize(("written", "name"), [("false", None), ("~", None), ("33", "33")])
def test_owners(field: str, written: str, name: str | None) -> None:
    """To the agent, false stands for nobody in particular."""
    assert permission(f"{field}: {written}")[field] == name


def test_strict_agents_read_an_unquoted_mode_each_in_its_own_way() -> None:
    assert permission("mode: 0644", "agent-v1")["mode"] == "420"
    assert permission("mode: 0644", "agent-v2")["mode"] == "0644"
    with pytest.raises(AppSpecError, match="without quotes") as caught:
        permission("mode: 0755", "agent-v1")
    assert "'0755'" in str(caught.value)


@pytest.mark.parametrize(
    ("strict", "body", "accepted"),
    [
        ("agent-v1", "hooks: {X: [{location: a, timeout: '30'}]}", True),
        ("agent-v2", "hooks: {X: [{location: a, timeout: '30'}]}", False),
        ("agent-v1", "hooks: {X: [{location: a, sudo: 'false'}]}", True),
        ("agent-v2", "hooks: {X: [{location: a, sudo: 'false'}]}", False),
        ("agent-v1", "permissions: [{object: a, context: {type: t}}]", False),
        ("agent-v2", "permissions: [{object: a, context: {type: t}}]", True),
        ("agent-v1", "permissions: [{object: a, owner: 33}]", False),
        ("agent-v1", "files: [{source: 1, destination: /a}]", False),
        ("agent-v2", "files: [{source: 1, destination: /a}]", True),
        ("agent-v1", "files: [{source: a, destination: ''}]", True),
        ("agent-v2", "files: [{source: a, destination: ''}]", False),
        ("agent-v2", "files: [{source: '', destination: /a}]", False),
        ("agent-v2", "hooks: {X: [{location: a, timeout: 1_0}]}", False),
        ("agent-v2", "hooks: {X: [{location: a, timeout: 0x10}]}", True),
        ("agent-v2", "hooks: {X: [{location: a, timeout: 0o10}]}", True),
        ("agent-v1", "hooks: {X: [{location: a, timeout: 0o10}]}", False),
        ("agent-v1", "x: !ruby/object:Foo {}", False),
        ("agent-v1", "x: [!!set {a}]", False),
        ("agent-v1", "x: !ruby/sym a", True),
        ("agent-v1", "x: !foo b", True),
        ("agent-v2", "x: !ruby/object:Foo {}", True),
        ("agent-v2", "hooks: {X: [{location: a, sudo: yes}]}", False),
        ("agent-v2", "hooks: {X: [{location: a, sudo: True}]}", True),
    ],
)
def test_each_agents_own_refusals(strict: str, body: str, accepted: bool) -> None:
    parse_appspec(HEAD + body)
    if accepted:
        parse_appspec(HEAD + body, strict=strict)
    else:
        with pytest.raises(AppSpecError):
            parse_appspec(HEAD + body, strict=strict)


def test_an_unknown_strictness_is_refused() -> None:
    with pytest.raises(AppSpecError, match="agent-v1, agent-v2"):
        parse_appspec(HEAD, strict="agent-v3")


def test_a_byte_order_mark_is_only_in_the_way_of_agent_1() -> None:
    text = b"\xef\xbb\xbf" + HEAD.encode()
    assert parse_appspec(text)["os"] == "linux"
    with pytest.raises(AppSpecError, match="byte order mark"):
        parse_appspec(text, strict="agent-v1")


def test_empty_sections_are_empty() -> None:
    for empty in ("", "~", "[]"):
        tree = parse_appspec(f"{HEAD}files: {empty}\npermissions: {empty}\nhooks: {{}}")
        assert (tree["files"], tree["permissions"], tree["hooks"]) == ([], [], {})
    assert parse_appspec(f"{HEAD}hooks: {{A: , B: ~, C: []}}")["hooks"] == {}
    found = permission("except: {}, acls: {}, type: {}")
    assert (found["except"], found["acls"], found["type"]) == ([], [], [])


def test_bascules_own_keys_are_left_out_unless_written_and_in_strict_mode() -> None:
    script = hook("arguments: [a, 5, 0644], environment: {A: 1, B: x}, retries: 2, run_on: always")
    assert script["arguments"] == ["a", "5", "0644"]
    assert script["environment"] == {"A": "1", "B": "x"}
    assert (script["retries"], script["run_on"]) == (2, "always")
    assert set(hook("timeout: 1")) == {"location", "timeout", "runas", "sudo"}
    text = f"{HEAD}hooks: {{X: [{{location: a, arguments: 5}}]}}"
    assert "arguments" not in parse_appspec(text, strict="agent-v1")["hooks"]["X"][0]


@pytest.mark.parametrize(
    "line", ["arguments: x", "environment: [a]", "environment: {1A: b}", "retries: -1", "run_on: x"]
)
def test_bascules_own_keys_are_checked(line: str) -> None:
    with pytest.raises(AppSpecError):
        hook(line)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["appspec.yml", "appspec.yaml"], "appspec.yml"),
        (["appspec.yaml", "x"], "appspec.yaml"),
        (["AppSpec.yml"], None),
    ],
)
def test_where_the_file_is(names: list[str], chosen: str | None) -> None:
    assert appspec_name(names) == chosen


def test_a_folder_named_like_it_is_no_appspec(tmp_path: Path) -> None:
    (tmp_path / "appspec.yml").mkdir()
    assert find_appspec(tmp_path) is None
    (tmp_path / "appspec.yaml").write_text(HEAD)
    assert find_appspec(tmp_path) == tmp_path / "appspec.yaml"


SECTIONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["source", "destination", "location", "timeout", "object", "type", "mode", "acls"]
            )
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(hooks=SECTIONS, files=SECTIONS, permissions=SECTIONS)
def test_no_data_makes_it_crash(hooks: Any, files: Any, permissions: Any) -> None:
    data = {
        "version": 0,
        "os": "linux",
        "hooks": hooks,
        "files": files,
        "permissions": permissions,
    }
    try:
        tree = parse_appspec(json.dumps(data))
    except AppSpecError:
        return
    assert set(tree) == {*data, "file_exists_behavior"}
    json.dumps(tree)
