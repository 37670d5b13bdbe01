"""Targets that fetch the bundle from S3 themselves, and those that cannot."""

from __future__ import annotations

import json
import re
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.aws import BUCKET
from support.host_program import Host, pack
from support.rollout import local_inventory

import bascule

BASCULE = Path(sys.executable).parent / "bascule"
APPSPEC = "version: 0.0\nos: linux\nfiles:\n  - {source: /, destination: /srv/app}\n"
FILES = {"appspec.yml": APPSPEC, "VERSION": "1"}


def address(s3: Any, body: bytes) -> str:
    s3.put_object(Bucket=BUCKET, Key="app.tgz", Body=body)
    url: str = s3.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "app.tgz"})
    return url


def test_a_host_pulls_what_it_was_promised(s3: Any, tmp_path: Path) -> None:
    host = Host(tmp_path)
    request, bundle = host.request(FILES)
    answer = host.run({**request, "url": address(s3, bundle)})
    assert (answer["staged"], answer["pulled"], answer["needs_bundle"]) == (True, True, False)


@pytest.mark.parametrize("wrong", ["other bytes", "cut short", "no object", "no server"])
def test_a_host_that_cannot_pull_says_why_and_leaves_nothing(
    s3: Any, tmp_path: Path, wrong: str
) -> None:
    host = Host(tmp_path)
    request, bundle = host.request(FILES)
    url = address(s3, bundle)
    if wrong == "other bytes":
        address(s3, pack({**FILES, "VERSION": "2"}))
    elif wrong == "cut short":
        address(s3, bundle[:-20])
    elif wrong == "no object":
        s3.delete_object(Bucket=BUCKET, Key="app.tgz")
    else:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = re.sub(r":\d+/", f":{free.getsockname()[1]}/", url, count=1)
    answer = host.run({**request, "url": url})
    assert (answer["staged"], answer["needs_bundle"]) == (False, True)
    assert "has to be sent" in answer["warnings"][0]
    # S3 says more than a status.
    assert ("404 NOT FOUND (NoSuchKey: " in answer["warnings"][0]) == (wrong == "no object")
    assert "Signature" not in json.dumps(answer)
    sent = host.run({**request, "url": url}, bundle)
    assert sent["staged"] is True


def test_a_deployment_from_s3_moves_no_bytes_through_the_controller(
    s3: Any, tmp_path: Path
) -> None:
    s3.put_object(Bucket=BUCKET, Key="app.tgz", Body=pack(FILES))
    sysroots = {name: tmp_path / "hosts" / name for name in ("one", "two")}
    for sysroot in sysroots.values():
        sysroot.mkdir(parents=True)
    inventory = local_inventory(tmp_path / "hosts.yml", sysroots)
    variables = {"deploy_application": "shop", "deploy_targets": "web"}
    command = [
        str(BASCULE), "deploy", "in_place", "-i", str(inventory), "-vvvv",
        "--revision", f"s3://{BUCKET}/app.tgz",
        "-e", json.dumps({**variables, "deploy_delivery": "pull"}),
    ]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    said = run.stdout + run.stderr
    assert run.returncode == 0, said
    assert "X-Amz-Signature" not in said
    assert "Signature=" not in said
    for sysroot in sysroots.values():
        assert (sysroot / "srv/app/VERSION").read_text() == "1"
    [signed] = (tmp_path / "state" / "presigned").iterdir()
    assert stat.S_IMODE(signed.stat().st_mode) == 0o600
    staged = re.findall(r'"bytes_sent": (\d+)', said)
    assert set(staged) == {"0"}, staged


@pytest.mark.usefixtures("s3")
def test_pull_without_s3_is_refused_before_a_target_is_touched(tmp_path: Path) -> None:
    sysroot = tmp_path / "hosts" / "one"
    sysroot.mkdir(parents=True)
    folder = tmp_path / "dist"
    folder.mkdir()
    (folder / "appspec.yml").write_text(APPSPEC)
    done = bascule.deploy(
        "in_place",
        inventory=local_inventory(tmp_path / "hosts.yml", {"one": sysroot}),
        revision=folder,
        variables={
            "deploy_application": "shop",
            "deploy_targets": "web",
            "deploy_delivery": "pull",
        },
    )
    assert done.status == "Failed"
    assert "is not in S3" in done.targets[0].message
    assert list(sysroot.iterdir()) == []
