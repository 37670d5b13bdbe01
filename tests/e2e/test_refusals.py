"""What cannot begin says why in one message, with the right exit status, and changes nothing."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from support.bundles import files
from support.ports import free_port
from support.proxies import Endpoint, eds
from support.rollout import Controller, Run, local_inventory, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Case = Callable[[Controller, Path], tuple[dict[str, Any], list[str]]]

HOSTS = ("one", "two")


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    """Two local targets, and variables that would deploy to them."""
    sysroots = {name: tmp_path / "hosts" / name for name in HOSTS}
    for sysroot in sysroots.values():
        sysroot.mkdir(parents=True)
    variables = {
        "deploy_application": "shop",
        "deploy_targets": "web",
        "deploy_revision": str(files(tmp_path / "revision", {"hello.txt": "hello\n"})),
    }
    inventory = local_inventory(tmp_path / "hosts.yml", sysroots)
    return Controller(inventory, tmp_path / "state", variables)


def wrong_path(_: Controller, tmp_path: Path) -> tuple[dict[str, Any], list[str]]:
    missing = str(tmp_path / "no-such-revision")
    return {"deploy_revision": missing}, [missing]


def no_appspec(_: Controller, tmp_path: Path) -> tuple[dict[str, Any], list[str]]:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "index.html").write_text("hello\n")
    return {"deploy_revision": str(tmp_path / "bare")}, ["appspec.yml", str(tmp_path / "bare")]


def unknown_variable(_: Controller, _path: Path) -> tuple[dict[str, Any], list[str]]:
    return {"deploy_aplication": "shop"}, ["deploy_aplication", "deploy_application"]


def unknown_variable_of_a_host(
    controller: Controller, _path: Path
) -> tuple[dict[str, Any], list[str]]:
    inventory = json.loads(controller.inventory.read_text())
    inventory["all"]["children"]["web"]["hosts"]["two"]["deploy_zon"] = "a"
    controller.inventory.write_text(json.dumps(inventory))
    return {}, ["of two", "deploy_zon", "deploy_zone"]


def empty_group(controller: Controller, _path: Path) -> tuple[dict[str, Any], list[str]]:
    controller.inventory.write_text('{"all": {"children": {"web": {"hosts": {}}}}}\n')
    return {}, ["web"]


def unknown_group(_: Controller, _path: Path) -> tuple[dict[str, Any], list[str]]:
    return {"deploy_targets": "wbe"}, ["wbe", "(it has web)"]


def wrong_value(_: Controller, _path: Path) -> tuple[dict[str, Any], list[str]]:
    return {"deploy_bake_time": "soon"}, ["soon", "deploy_bake_time"]


def unreachable_envoy(_: Controller, tmp_path: Path) -> tuple[dict[str, Any], list[str]]:
    admin = f"127.0.0.1:{free_port()}"
    endpoints = [Endpoint(name, name, 80) for name in HOSTS]
    (tmp_path / "eds.json").write_text(json.dumps(eds(endpoints)))
    return {
        "deploy_traffic_provider": "envoy",
        "deploy_envoy_eds_path": str(tmp_path / "eds.json"),
        "deploy_envoy_cluster": "shop",
        "deploy_envoy_admin_url": f"http://{admin}",
    }, [admin]


def unreachable_haproxy(_: Controller, tmp_path: Path) -> tuple[dict[str, Any], list[str]]:
    missing = str(tmp_path / "admin.sock")
    return {
        "deploy_traffic_provider": "haproxy",
        "deploy_haproxy_socket": missing,
        "deploy_haproxy_backend": "shop",
    }, [missing]


USAGE = [
    wrong_path, no_appspec, unknown_variable, unknown_variable_of_a_host, empty_group,
    unknown_group, wrong_value,
]  # fmt: skip
FAILED = [unreachable_envoy, unreachable_haproxy]


def one_message(run: Run, words: list[str]) -> str:
    """Find the one line that says what is wrong; there is no second one and no traceback."""
    assert "Traceback" not in run.said
    lines = [line for line in run.said.splitlines() if all(word in line for word in words)]
    assert lines, f"{words} in one line of:\n{run.said}"
    return lines[0]


@pytest.mark.parametrize(
    ("case", "status"),
    [(case, 2) for case in USAGE] + [(case, 1) for case in FAILED],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_refusal_is_one_clear_message(
    case: Case,
    status: int,
    controller: Controller,
    tmp_path: Path,
) -> None:
    variables, words = case(controller, tmp_path)
    before = snapshot(tmp_path / "hosts")
    run = controller.deploy("rolling", **variables)
    assert run.status == status, run.said
    one_message(run, words)
    assert len([line for line in run.said.splitlines() if line.strip()]) <= 12, run.said
    assert snapshot(tmp_path / "hosts") == before
    assert [d.status for d in controller.deployments()] in ([], ["Failed"])


# The command runs the same playbook; one of each kind shows that both tell it alike.
@pytest.mark.parametrize(
    "case", [wrong_path, unknown_group, unreachable_envoy], ids=lambda case: case.__name__
)
def test_the_playbook_refuses_in_the_same_words(
    case: Case,
    controller: Controller,
    tmp_path: Path,
) -> None:
    variables, words = case(controller, tmp_path)
    before = snapshot(tmp_path / "hosts")
    run = controller.playbook("rolling", **variables)
    assert run.status != 0, run.said
    one_message(run, words)
    assert run.changed == 0
    assert snapshot(tmp_path / "hosts") == before


def test_what_follows_a_refusal_and_a_failure(controller: Controller, tmp_path: Path) -> None:
    """A refusal holds no group; what fails is brought back; what has vanished is refused."""
    variables, _ = unreachable_haproxy(controller, tmp_path)
    assert controller.deploy("rolling", **variables).status == 1
    run = controller.deploy("rolling")
    assert run.status == 0, run.said
    installed = [tmp_path / "hosts" / name / "opt/files/hello.txt" for name in HOSTS]
    assert [path.read_text() for path in installed] == ["hello\n"] * 2

    bad = files(
        tmp_path / "bad",
        {"hello.txt": "bad\n"},
        {"ValidateService": "echo 'the shop is shut' >&2\nexit 7\n"},
    )
    run = controller.deploy("rolling", deploy_revision=str(bad))
    assert run.status == 1, run.said
    assert "the shop is shut" in run.said
    rollback, failed = controller.deployments()[:2]
    assert (failed.status, rollback.status) == ("Failed", "Succeeded")
    assert rollback.rollback_of == failed.id
    assert [path.read_text() for path in installed] == ["hello\n"] * 2

    shutil.rmtree(tmp_path / "revision")
    before = snapshot(tmp_path / "hosts")
    assert controller.deploy("in_place").status == 2, "it is not taken from elsewhere"
    assert snapshot(tmp_path / "hosts") == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("deploy", "no-such-strategy"),
        ("deploy",),
        ("deploy", "rolling", "--no-such-option"),
        ("deploy", "rolling", "-i", "no-such-inventory.yml"),
        ("status", "d-NOSUCHONE"),
        ("validate", "no-such-folder"),
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_wrong_usage_is_status_two(controller: Controller, arguments: tuple[str, ...]) -> None:
    run = controller.command(*arguments)
    assert run.status == 2, run.said
    assert "Traceback" not in run.said
