"""Revisions in S3: pushed, pinned, fetched and verified, against moto over HTTP."""

from __future__ import annotations

import contextlib
import json
import socket
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.bascule.deploy.plugins.module_utils._errors import (
    BasculeError,
    RecordError,
    RevisionError,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Record
from ansible_collections.bascule.deploy.plugins.plugin_utils._revisions import _s3, resolve
from support.aws import BUCKET
from support.host_program import pack

import bascule
from bascule.cli import main

if TYPE_CHECKING:
    from pathlib import Path

APPSPEC = "version: 0.0\nos: linux\nfiles:\n  - {source: /, destination: /srv/app}\n"


def files(version: str) -> dict[str, Any]:
    return {"appspec.yml": APPSPEC, "VERSION": version}


def put(client: Any, version: str, key: str = "shop/app.tgz", kind: str = "tgz") -> dict[str, Any]:
    answer: dict[str, Any] = client.put_object(
        Bucket=BUCKET, Key=key, Body=pack(files(version), kind)
    )
    return answer


def test_an_object_is_fetched_and_its_hooks_know_where_it_came_from(
    s3: Any, tmp_path: Path
) -> None:
    answer = put(s3, "1")
    found = resolve(f"s3://{BUCKET}/shop/app.tgz", cache=tmp_path / "cache")
    assert found.environment == {
        "BUNDLE_BUCKET": BUCKET,
        "BUNDLE_KEY": "shop/app.tgz",
        "BUNDLE_VERSION": answer["VersionId"],
        "BUNDLE_ETAG": answer["ETag"].strip('"'),
    }
    assert found.source == f"s3://{BUCKET}/shop/app.tgz?versionId={answer['VersionId']}"
    assert {entry["path"] for entry in found.manifest} == {"appspec.yml", "VERSION"}


def test_a_version_stays_what_it_was_and_the_newest_is_found_anew(s3: Any, tmp_path: Path) -> None:
    first = put(s3, "1")["VersionId"]
    cache = tmp_path / "cache"
    one = resolve(f"s3://{BUCKET}/shop/app.tgz", cache=cache)
    put(s3, "2")
    two = resolve(f"s3://{BUCKET}/shop/app.tgz", cache=cache)
    assert one.digest != two.digest
    pinned = resolve(f"s3://{BUCKET}/shop/app.tgz?versionId={first}", cache=tmp_path / "other")
    assert pinned.digest == one.digest


def test_a_known_object_is_not_fetched_again(s3: Any, tmp_path: Path) -> None:
    put(s3, "1")
    cache = tmp_path / "cache"
    one = resolve(f"s3://{BUCKET}/shop/app.tgz", cache=cache)
    before = (cache / one.digest).stat().st_mtime_ns
    again = resolve(f"s3://{BUCKET}/shop/app.tgz", cache=cache)
    assert again.digest == one.digest
    assert (cache / one.digest).stat().st_mtime_ns == before


def test_the_same_content_is_the_same_revision_wherever_it_lies(s3: Any, tmp_path: Path) -> None:
    put(s3, "1", "a.zip", "zip")
    put(s3, "1", "b.tar", "tar")
    digests = {
        resolve(f"s3://{BUCKET}/{key}", cache=tmp_path / "cache").digest
        for key in ("a.zip", "b.tar")
    }
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("s3://releases/shop/app.tgz?eTag=0123", "ETag expected 0123"),
        ("s3://releases/nothing.tgz", "no such object"),
        ("s3://releases/shop/app.tgz?versionId=nothing", "no such object"),
        ("s3://nowhere/app.tgz", "no such object|no bucket nowhere"),
        ("s3://releases/shop/app.tgz?version=1", "'version' is not known"),
        ("s3://releases", "bucket or key is missing"),
    ],
)
def test_what_is_not_there_is_told_in_one_sentence(
    s3: Any, tmp_path: Path, source: str, message: str
) -> None:
    put(s3, "1")
    with pytest.raises(RevisionError, match=message):
        resolve(source, cache=tmp_path / "cache")


def test_another_checksum_than_was_given_is_refused(s3: Any, tmp_path: Path) -> None:
    put(s3, "1")
    with pytest.raises(RevisionError, match="sha256 expected"):
        resolve(
            f"s3://{BUCKET}/shop/app.tgz", cache=tmp_path / "cache", checksum="sha256:" + "0" * 64
        )


def test_an_object_that_does_not_keep_its_promise_is_refused(s3: Any, tmp_path: Path) -> None:
    s3.put_object(
        Bucket=BUCKET,
        Key="app.tgz",
        Body=pack(files("1")),
        Metadata={"bascule-sha256": "0" * 64},
    )
    with pytest.raises(RevisionError, match="sha256 expected 0000"):
        resolve(f"s3://{BUCKET}/app.tgz", cache=tmp_path / "cache")


@pytest.mark.usefixtures("s3")
def test_without_credentials_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(RevisionError, match="there are no credentials"):
        resolve(f"s3://{BUCKET}/app.tgz", cache=tmp_path / "cache")


@pytest.mark.usefixtures("s3")
def test_without_a_server_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
        monkeypatch.setattr(
            "ansible_collections.bascule.deploy.plugins.plugin_utils._aws.ATTEMPTS", 1
        )
        with pytest.raises(RevisionError, match="AWS_ENDPOINT_URL"):
            resolve(f"s3://{BUCKET}/app.tgz", cache=tmp_path / "cache")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "dist"
    folder.mkdir()
    (folder / "appspec.yml").write_text(APPSPEC)
    (folder / "VERSION").write_text("1")
    return folder


def test_a_directory_is_pushed_once_and_can_be_deployed_by_what_push_says(
    s3: Any, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["push", str(project), "--to", f"s3://{BUCKET}/shop/", "--format", "json"]
    assert main(arguments) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["sent"] is True
    assert told["source"].startswith(f"s3://{BUCKET}/shop/{told['digest']}.tgz?versionId=")
    assert main(arguments) == 0
    again = json.loads(capsys.readouterr().out)
    assert again == {**told, "sent": False}
    found = resolve(told["source"], cache=tmp_path / "another-controller")
    assert (found.digest, found.bundle_sha256) == (told["digest"], told["sha256"])
    metadata = s3.head_object(Bucket=BUCKET, Key=f"shop/{told['digest']}.tgz")["Metadata"]
    assert metadata["bascule-digest"] == told["digest"]
    assert main(["revisions", "list"]) == 0
    assert capsys.readouterr().out == ""
    assert main([*arguments, "--application", "shop"]) == 0
    assert json.loads(capsys.readouterr().out) == {**again, "application": "shop"}
    assert main(["revisions", "show", told["digest"][:8], "--format", "json"]) == 0
    known = json.loads(capsys.readouterr().out)
    assert (known["application"], known["source"]) == ("shop", told["source"])
    assert (known["deployments"], known["groups"], known["holders"]) == ({}, [], [])
    assert main(arguments[:-2]) == 0
    assert "The record does not know it; with --application NAME" in capsys.readouterr().out


def test_nothing_is_sent_that_the_record_cannot_know(
    s3: Any, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "record.db"
    url, place = f"sqlite:///{path}", f"s3://{BUCKET}/shop/"

    def push(record: str) -> bascule.Pushed:
        return bascule.push(project, place, application="shop", record=record)

    def lose() -> None:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("DROP TABLE revisions")

    with pytest.raises(RecordError, match="cannot be opened or created"):
        push("sqlite:////proc/none/record.db")
    Record.open(url).close()
    lose()
    with pytest.raises(RecordError, match="revisions"):
        push(url)
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET)
    # Where it is lost meanwhile it is said what is there, and that another push is enough.
    path.unlink()
    send = _s3.upload

    def send_and_lose(*given: Any) -> tuple[str, bool]:
        answer = send(*given)
        lose()
        return answer

    with monkeypatch.context() as patched:
        patched.setattr(_s3, "upload", send_and_lose)
        with pytest.raises(RecordError, match=r"shop/\S+ is uploaded, but not registered.*again"):
            push(url)
    path.unlink()
    pushed = push(url)
    assert (pushed.sent, pushed.application) == (False, "shop")
    with Record.open(url) as record:
        [known] = record.revisions("shop")
        assert known.digest == pushed.digest


@pytest.mark.usefixtures("s3")
def test_push_takes_a_name_that_fits_the_archive(project: Path) -> None:
    pushed = bascule.push(project, f"s3://{BUCKET}/one.tgz")
    assert pushed.source.startswith(f"s3://{BUCKET}/one.tgz?versionId=")
    for place in (f"s3://{BUCKET}/one.zip", "one.tgz", "s3://", "http://a/b.tgz"):
        with pytest.raises(BasculeError, match="--to"):
            bascule.push(project, place)
    with pytest.raises(BasculeError, match="no bucket nowhere"):
        bascule.push(project, "s3://nowhere/")


def test_a_refused_bundle_is_not_pushed(s3: Any, project: Path) -> None:
    (project / "appspec.yml").write_text("version: 1.0\nos: linux\n")
    with pytest.raises(BasculeError, match="invalid version"):
        bascule.push(project, f"s3://{BUCKET}/")
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET)
