from __future__ import annotations

import io
import json
import marshal
import subprocess
import sys
import zlib

import pytest
from ansible_collections.bascule.deploy.plugins.plugin_utils import _direct

MARK = _direct.MARK


def run(request: dict[str, object], more: bytes = b"", **options: object) -> str:
    data = _direct.compose(request, **options) + more  # type: ignore[arg-type]
    done = subprocess.run(  # noqa: S603 - our own interpreter and program
        [sys.executable, "-I", "-c", _direct._BOOTSTRAP],
        input=data,
        capture_output=True,
        check=True,
    )
    return done.stdout.decode()


def test_the_program_runs_from_standard_input_alone() -> None:
    result = _direct.read_result(run({"operation": "nonsense"}))
    assert result is not None
    assert result["failed"] is True
    assert "nonsense" in result["msg"]


def test_a_host_with_other_bytecode_compiles_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    source, _code = _direct.program("stage")
    monkeypatch.setattr(_direct.importlib.util, "MAGIC_NUMBER", b"none")
    monkeypatch.setattr(_direct, "program", lambda _operation: (source, b"not even compressed"))
    result = _direct.read_result(run({"operation": "stage"}))
    assert result is not None
    assert result["failed"] is True


@pytest.mark.parametrize(
    ("operation", "there", "not_there"),
    [
        ("stage", "_host._stage", "_host._envoy"),
        ("lifecycle", "_host._lifecycle", "_host._haproxy"),
        ("traffic", "_host._envoy", "_host._stage"),
    ],
)
def test_an_operation_is_sent_what_it_needs(operation: str, there: str, not_there: str) -> None:
    source, code = _direct.program(operation)
    names = set(json.loads(zlib.decompress(source)))
    compiled = set(marshal.loads(zlib.decompress(code)))  # noqa: S302 - our own
    assert {f"bascule_host.{there}", "bascule_host._host._entry"} <= compiled <= names
    assert f"bascule_host.{not_there}" not in names
    assert ("bascule_host._appspec" in names) is (operation != "traffic")


@pytest.mark.parametrize(
    ("before", "after"), [("", ""), ("Welcome!\n", ""), ("x" * 5000, "\nBye"), ("\nBASCULE", "")]
)
def test_the_result_is_found_between_other_output(before: str, after: str) -> None:
    body = json.dumps({"msg": "line\nBASCULE-RESULT:9\n{}", "changed": True})
    text = f"{before}\n{_direct.MARK}{len(body)}\n{body}\n{after}"
    result = _direct.read_result(text)
    assert result is not None
    assert result["changed"] is True


@pytest.mark.parametrize(
    "text", ["", "Traceback", "\nBASCULE-RESULT:40\n{cut", "\nBASCULE-RESULT:x"]
)
def test_no_result_is_none(text: str) -> None:
    assert _direct.read_result(text) is None


def test_the_bundle_follows_the_request() -> None:
    data = io.BytesIO(_direct.compose({"operation": "stage"}, inline=True) + b"bundle")
    head = json.loads(data.readline())
    data.read(head["program"] + head["compiled"] + head["request"])
    assert data.read() == b"bundle"


@pytest.mark.parametrize(
    ("delegated_to", "wanted"), [(None, "/opt/python"), ("lb", "/lb/python"), ("other", None)]
)
def test_the_interpreter_is_that_of_the_host_the_task_runs_on(
    delegated_to: str | None, wanted: str | None
) -> None:
    variables = {
        "ansible_python_interpreter": "/opt/python",
        "ansible_delegated_vars": {"lb": {"ansible_python_interpreter": "/lb/python"}},
    }
    assert _direct.configured_interpreter(variables, delegated_to) == wanted


def test_a_configured_interpreter_is_used() -> None:
    assert _direct.interpreter("/opt/py thon") == "'/opt/py thon'"


@pytest.mark.parametrize("setting", [None, "", "auto", "auto_silent"])
def test_without_a_setting_the_hosts_shell_finds_python(setting: str | None) -> None:
    command = _direct.interpreter(setting)
    done = subprocess.run(  # noqa: S603
        ["/bin/sh", "-c", f"{command} -c 'print(6 * 7)'"], capture_output=True, check=True
    )
    assert done.stdout == b"42\n"
