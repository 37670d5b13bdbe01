"""What several files of tests ask for: a record in each kind of database, a bucket."""

from __future__ import annotations

import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Record
from support import aws
from support.postgresql import Server, server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter; pytest closes its own whenever another one begins."""
    with tempfile.TemporaryDirectory(prefix="bascule-open-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A server for all tests of a process; whoever stops it starts it again."""
    with server() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a record that is not made yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/record.db"
    running: Server = request.getfixturevalue("postgresql")
    return running.create(f"record_{secrets.token_hex(6)}")


@pytest.fixture
def record(url: str) -> Iterator[Record]:
    """A record that is open."""
    with Record.open(url) as opened:
        yield opened


@pytest.fixture
def s3(moto_servers: aws.Servers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A client of S3, where there is an empty bucket with versions."""
    moto = moto_servers.fresh()
    moto.use(monkeypatch)
    monkeypatch.setenv("BASCULE_STATE", str(tmp_path / "state"))
    client = moto.client("s3")
    where = {"LocationConstraint": aws.REGION}
    client.create_bucket(Bucket=aws.BUCKET, CreateBucketConfiguration=where)
    enabled = {"Status": "Enabled"}
    client.put_bucket_versioning(Bucket=aws.BUCKET, VersioningConfiguration=enabled)
    return client


@pytest.fixture
def permitted_aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[aws.Aws]:
    """A server that can let nobody do anything but what a policy allows (see ``permitted``)."""
    begins = {"INITIAL_NO_AUTH_ACTION_COUNT": "1000"}
    with aws.running(tmp_path, "support.iam_server", begins) as running:
        running.use(monkeypatch)
        yield running
