"""Every hazard of a revision is found, at its place, and honest revisions have none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import AppSpecError
from ansible_collections.bascule.deploy.plugins.module_utils._findings import Validation, validate
from hypothesis import given, settings
from hypothesis import strategies as st
from support.host_program import pack

HEAD = "version: 0.0\nos: linux\n"
GOOD = {
    "appspec.yml": HEAD
    + "files: [{source: /web, destination: /srv/app}]\n"
    + "permissions: [{object: /srv/app, pattern: '*.txt', mode: '0644', type: [file]}]\n"
    + "hooks: {ApplicationStop: [{location: stop.sh, timeout: 30}]}\n",
    "web/a.txt": "a",
    "stop.sh": ("#!/bin/sh\nexit 0\n", 0o755),
}


def write(folder: Path, files: dict[str, Any]) -> Path:
    """Write a revision's files below a folder."""
    for name, spec in files.items():
        content, mode = spec if isinstance(spec, tuple) else (spec, 0o644)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)
    return folder


def codes(validation: Validation) -> list[str]:
    """Return the codes of a validation's findings."""
    return [finding.code for finding in validation.findings]


@pytest.mark.parametrize("shape", ["folder", "tgz", "tar", "zip", "wrapped"])
def test_an_honest_revision_has_no_findings(tmp_path: Path, shape: str) -> None:
    if shape == "folder":
        path = write(tmp_path / "revision", GOOD)
    else:
        path = tmp_path / "bundle"
        files = {f"top/{name}": spec for name, spec in GOOD.items()} if shape == "wrapped" else GOOD
        path.write_bytes(pack(files, "tgz" if shape == "wrapped" else shape))
    validation = validate(path)
    assert (validation.accepted, validation.findings) == (True, [])
    assert validation.appspec is not None
    assert validation.appspec["files"] == [{"source": "/web", "destination": "/srv/app"}]


VALUES = ("false", "~", "''", "5", "x", "[]", "{}", "[~]", "[false]", "[{}]", "{a: false}", "[[]]")
PLACES = (
    *("version", "os", "files", "hooks", "permissions", "file_exists_behavior"),
    *(f"files: [{{source: a, destination: /b, {key}" for key in ("source", "destination")),
    "hooks: {X",
    *(f"hooks: {{X: [{{location: a, {key}" for key in ("location", "timeout", "runas", "sudo")),
    *(
        f"permissions: [{{object: /b, {key}"
        for key in (
            "object",
            "pattern",
            "except",
            "type",
            "owner",
            "group",
            "mode",
            "acls",
            "context",
        )
    ),
    *(f"permissions: [{{object: /b, context: {{type: t, {key}" for key in ("name", "range")),
)


@pytest.mark.parametrize("place", PLACES)
def test_any_value_anywhere_is_judged(tmp_path: Path, place: str) -> None:
    ends = "".join({"{": "}", "[": "]"}[one] for one in reversed(place) if one in "{[")
    path = tmp_path / "appspec.yml"
    for value in VALUES:
        path.write_text(f"{HEAD}{place}: {value}{ends}\n")
        validation = validate(path)
        assert validation.accepted != any(one.severity == "error" for one in validation.findings)


def test_an_appspec_file_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "appspec.yml"
    path.write_text(HEAD + "hooks: {BeforeInstall: [{location: missing.sh}]}\n")
    assert (validate(path).accepted, codes(validate(path))) == (True, [])
    path.write_text(HEAD + "hooks: [x]\n")
    finding = validate(path).findings[0]
    assert (finding.severity, finding.line, finding.column) == ("error", 3, 8)


@pytest.mark.parametrize(
    ("body", "code", "line", "column"),
    [
        ("permissions:\n- object: /srv/app\n  mode: 0644\n", "unquoted-mode", 5, 9),
        ("permissions: [{object: /srv/app, mode: ''}]\n", "empty-mode", 3, 40),
        ("permissions: [{object: /srv/app, pattern: '**/x'}]\n", "pattern-never-matches", 3, 43),
        ("permissions: [{object: /srv/app, pattern: 'a?'}]\n", "pattern-literal", 3, 43),
        ("permissions: [{object: /srv/app, except: [/a/b]}]\n", "except-never-matches", 3, 43),
        ("permissions: [{object: /nowhere}]\n", "permission-unused", 3, 15),
        ("permissions: [{object: /srv/app, owner: 33}]\n", "numeric-owner", 3, 41),
        ("permissions: [{object: /srv/app, context: {type: t}}]\n", "context-range", 3, 43),
        (
            "permissions: [{object: /srv/app, context: {type: t, range: s0, user: u}}]\n",
            "unknown-key",
            3,
            70,
        ),
        (
            "permissions: [{object: /srv/app, mode: '600', acls: ['u:bob:rw']}]\n",
            "acl-masked",
            3,
            54,
        ),
        ("hooks: {AfterInstall: [{location: no.sh}]}\n", "script-missing", 3, 35),
        ("hooks: {AfterInstall: [{location: plain.sh}]}\n", "script-not-executable", 3, 35),
        ("hooks: {AfterInstall: [{location: bare.sh}]}\n", "script-no-shebang", 3, 35),
        ("hooks: {AfterInstall: [{location: dos.sh}]}\n", "script-crlf", 3, 35),
        ("hooks: {ApplicationStop: [{location: no.sh}]}\n", "stop-hook-blocks", 3, 38),
        ("hooks: {ApplicationStop: [{location: fails.sh}]}\n", "stop-hook-blocks", 3, 38),
        ("hooks: {ApplicationStop: [{location: strict.sh}]}\n", "stop-hook-strict", 3, 38),
        ("hooks: {AfterInstal: [{location: ok.sh}]}\n", "unknown-event", 3, 22),
        ("hooks: {Install: [{location: ok.sh}]}\n", "reserved-event", 3, 18),
        ("hooks: {AfterInstall: [{location: ok.sh, timeout: '5'}]}\n", "timeout-text", 3, 51),
        (
            "hooks: {AfterInstall: [{location: ok.sh, timeout: 1:30}]}\n",
            "timeout-sexagesimal",
            3,
            51,
        ),
        ("hooks: {AfterInstall: [{location: ok.sh, timeout: 4000}]}\n", "timeout-limit", 3, 23),
        ("hooks: {AfterInstall: [{location: ok.sh, sudo: 'no'}]}\n", "sudo-text", 3, 48),
        ("hooks: {AfterInstall: [{location: ok.sh, runas: ''}]}\n", "runas-empty", 3, 49),
        ("hooks: {AfterInstall: [{location: ok.sh --now}]}\n", "location-space", 3, 35),
        ("hooks: {AfterInstall: [{location: 'a&b.sh'}]}\n", "location-special", 3, 35),
        ("hooks: {AfterAllowTestTraffic: [{location: ok.sh}]}\n", "own-event", 3, 32),
        ("hooks: {AfterInstall: [{location: ok.sh, arg: x}]}\n", "unknown-key", 3, 47),
        ("fiels: []\n", "unknown-key", 3, 8),
        ("os: linux\n", "duplicate-key", 3, 1),
        ("files: [{source: web, destination: srv}]\n", "relative-destination", 3, 36),
        ("files: [{source: /web, destination: ~/app}]\n", "tilde-destination", 3, 37),
        ("files: [{source: web/a.txt/, destination: /srv}]\n", "source-no-folder", 3, 18),
        ("files: [{source: ../web, destination: /srv}]\n", "source-outside", 3, 18),
        ("files: [{source: /, destination: /srv}]\n", "source-everything", 3, 18),
        ("files: [{source: no, destination: /srv}]\n", "source-missing", 3, 18),
    ],
)
def test_hazards(tmp_path: Path, body: str, code: str, line: int, column: int) -> None:
    files = {
        "web/a.txt": "a",
        "ok.sh": ("#!/bin/sh\n", 0o755),
        "plain.sh": "#!/bin/sh\n",
        "bare.sh": ("echo hello\n", 0o755),
        "dos.sh": ("#!/bin/sh\r\n", 0o755),
        "fails.sh": ("#!/bin/sh\necho no such service\nexit 3\n", 0o755),
        "strict.sh": ("#!/bin/sh\nset -eu\nsystemctl stop x\n", 0o755),
    }
    end = "" if "files:" in body else "files: [{source: /web, destination: /srv/app}]\n"
    validation = validate(write(tmp_path, {"appspec.yml": HEAD + body + end, **files}))
    assert validation.accepted
    places = [(one.code, one.line, one.column) for one in validation.findings]
    assert (code, line, column) in places
    assert all(one.severity in ("warning", "info") for one in validation.findings)


@pytest.mark.parametrize(
    "script",
    [
        "pkill app && exit 0\nexit 1\n",
        "pkill app\nexit 0\n",
        "pkill app || exit 2\n",
        "exit $code\n",
    ],
)
def test_a_stop_script_that_may_end_well_is_no_hazard(tmp_path: Path, script: str) -> None:
    files = dict(GOOD, **{"stop.sh": ("#!/bin/sh\n" + script, 0o755)})
    assert codes(validate(write(tmp_path, files))) == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (
            "permissions: [{object: /srv/app, mode: '644'}, {object: /srv, type: [file]}]\n",
            "permissions-overlap",
        ),
        ("permissions: [{object: /srv/app/a.txt, pattern: 'x'}]\n", "permission-on-file"),
        (
            "files: [{source: web, destination: /a}, {source: web, destination: /a}]\n",
            "files-conflict",
        ),
        ("hooks: [a]\n", "type"),
    ],
)
def test_rejections(tmp_path: Path, body: str, code: str) -> None:
    end = "" if "files:" in body else "files: [{source: /web, destination: /srv/app}]\n"
    files = {"appspec.yml": HEAD + body + end, "web/a.txt": "a"}
    validation = validate(write(tmp_path, files))
    assert not validation.accepted
    assert [one.code for one in validation.findings if one.severity == "error"] == [code]


def test_names_and_marks_of_the_file(tmp_path: Path) -> None:
    write(tmp_path, {"appspec.yaml": b"\xef\xbb\xbf" + HEAD.encode() + b"hooks: {}\n"})
    assert set(codes(validate(tmp_path))) >= {"appspec-yaml", "byte-order-mark"}
    assert not validate(tmp_path, strict="agent-v1").accepted


def test_links_that_leave_the_revision(tmp_path: Path) -> None:
    files = {**GOOD, "web/in": Path("a.txt"), "web/out": Path("/etc/passwd")}
    (tmp_path / "bundle").write_bytes(pack(files))
    validation = validate(tmp_path / "bundle")
    assert (validation.accepted, codes(validation)) == (True, ["link-outside"])
    assert "web/out leads to /etc/passwd" in validation.findings[0].message


def test_what_is_no_revision(tmp_path: Path) -> None:
    assert codes(validate(tmp_path)) == ["appspec-missing"]
    (tmp_path / "bundle").write_bytes(b"no archive")
    assert codes(validate(tmp_path / "bundle")) == ["archive"]
    (tmp_path / "bundle.tgz").write_text(HEAD)
    assert codes(validate(tmp_path / "bundle.tgz")) == ["archive"]
    (tmp_path / "appspec.blue").write_text(HEAD)
    assert validate(tmp_path / "appspec.blue").accepted
    (tmp_path / "bundle").write_bytes(pack({"../x": "x"}))
    validation = validate(tmp_path / "bundle")
    assert not validation.accepted
    assert "'..'" in validation.findings[0].message
    with pytest.raises(AppSpecError, match="agent-v1, agent-v2"):
        validate(tmp_path, strict="agent-v9")


WORDS = st.sampled_from(
    [
        "version",
        "os",
        "files",
        "hooks",
        "permissions",
        "location",
        "timeout",
        "source",
        "destination",
        "object",
        "mode",
        "acls",
        "type",
        "except",
        "context",
        "range",
        "/srv",
        "a.sh",
        "0644",
        "0",
        "'x'",
        "AfterInstall",
        "ApplicationStop",
        "linux",
        "0.0",
        "-",
        ":",
        "[",
        "]",
        "{",
        "}",
        ",",
        "~",
        "u:bob:rw",
        "*a",
        "&a",
        "<<",
    ]
)


@settings(max_examples=200, deadline=None)
@given(words=st.lists(WORDS, max_size=30), joint=st.sampled_from([" ", "\n", ": ", "\n- "]))
def test_any_file_is_judged(
    tmp_path_factory: pytest.TempPathFactory, words: list[str], joint: str
) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "appspec.yml").write_text(HEAD + joint.join(words))
    validation = validate(folder)
    assert validation.accepted == all(one.severity != "error" for one in validation.findings)
