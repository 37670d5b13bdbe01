"""What a host tells of changes by hand: files, links, rights, and processes of older revisions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.host_program import Host

APPSPEC = """
version: 0.0
os: linux
files:
  - source: app
    destination: /srv/app
permissions:
  - object: /srv/app
    pattern: "run.py"
    mode: 750
    type: [file]
hooks:
  AfterInstall:
    - location: configure.sh
  ApplicationStart:
    - location: start.sh
"""
# A server that closes what it inherits and lives on, as a daemon does.
SERVER = "import time\ntime.sleep(300)\n"
CONFIGURE = "#!/bin/sh\necho secret=1 >> $SYSROOT/srv/app/settings.ini\n"
START = f"""#!/bin/sh
{sys.executable} $SYSROOT/srv/app/run.py > /dev/null 2>&1 < /dev/null &
echo $! > $SYSROOT/app.pid
"""


def bundle(version: str, start: str = START) -> dict[str, Any]:
    return {
        "appspec.yml": APPSPEC,
        "app/run.py": SERVER,
        "app/page.html": f"<p>{version}</p>",
        "app/settings.ini": "[app]\n",
        "app/latest": Path("page.html"),
        "configure.sh": (CONFIGURE, 0o755),
        "start.sh": (start, 0o755),
    }


class Site:
    """A host with the first version deployed, and the question how it differs."""

    def __init__(self, folder: Path) -> None:
        self.host = Host(folder)
        self.pids: list[int] = []
        self.digest = self.deploy("one")

    def deploy(self, version: str, start: str = START) -> str:
        result = self.host.deploy(bundle(version, start))
        assert not result["failed"], result
        pid = self.host.path("/app.pid")
        if pid.exists():
            self.pids.append(int(pid.read_text()))
        return str(self.ask()["digest"])

    def ask(self, **changes: Any) -> dict[str, Any]:
        request = {
            "operation": "drift",
            "root": str(self.host.root),
            "group_id": self.host.group_id,
            "expected": None,
            **changes,
        }
        return self.host.run(request)

    def findings(self, **changes: Any) -> list[tuple[str, str]]:
        answer = self.ask(**changes)
        assert not answer.get("failed"), answer
        return [(one["kind"], Path(one["path"]).name) for one in answer["findings"]]

    def file(self, name: str) -> Path:
        return self.host.path(f"/srv/app/{name}")

    def close(self) -> None:
        for pid in self.pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


@pytest.fixture
def site(tmp_path: Path) -> Any:
    made = Site(tmp_path)
    yield made
    made.close()


def test_what_hooks_have_written_is_no_drift(site: Site) -> None:
    answer = site.ask(expected=site.digest)
    assert answer["findings"] == []
    assert answer["checked"] >= 5
    assert "secret=1" in site.file("settings.ini").read_text()


def test_a_file_that_is_touched_but_holds_the_same_is_no_drift(site: Site) -> None:
    for name in ("page.html", "settings.ini"):
        content = site.file(name).read_bytes()
        site.file(name).unlink()
        site.file(name).write_bytes(content)
    assert site.findings() == []


def test_changes_by_hand_are_found_one_by_one(site: Site) -> None:
    site.file("page.html").write_text("<p>six</p>"[:10])
    site.file("settings.ini").write_text("secret=2\n")
    site.file("run.py").chmod(0o777)
    site.file("latest").unlink()
    site.file("latest").symlink_to("/etc/passwd")
    (site.file("new.txt")).write_text("not ours")
    assert sorted(site.findings()) == [
        ("content", "page.html"),
        ("content", "settings.ini"),
        ("link", "latest"),
        ("mode", "run.py"),
    ]


def test_the_same_number_of_other_bytes_is_found(site: Site) -> None:
    assert site.file("page.html").read_text() == "<p>one</p>"
    before = site.file("page.html").stat()
    site.file("page.html").write_text("<p>two</p>")
    os.utime(site.file("page.html"), ns=(before.st_atime_ns, before.st_mtime_ns))
    assert site.findings() == [("content", "page.html")]


def test_what_is_gone_or_of_another_kind_is_found(site: Site) -> None:
    site.file("page.html").unlink()
    site.file("settings.ini").unlink()
    site.file("settings.ini").mkdir()
    assert sorted(site.findings()) == [("missing", "page.html"), ("type", "settings.ini")]


def test_a_process_of_an_older_revision_is_found(site: Site) -> None:
    # The second version's start script forgets to stop the first one's process.
    site.deploy("two", start="#!/bin/sh\nexit 0\n")
    answer = site.ask()
    old = site.pids[0]
    assert [(one["kind"], one["pid"]) for one in answer["findings"]] == [("process", old)]
    assert "was started by deployment d-000000001" in answer["findings"][0]["message"]
    os.kill(old, signal.SIGKILL)
    # It is init's child by now; wait until init has seen it.
    deadline = time.monotonic() + 30
    while Path(f"/proc/{old}/exe").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert site.findings() == []


def test_a_process_of_another_deployment_root_is_not_ours(site: Site) -> None:
    ours = {
        "DEPLOYMENT_GROUP_ID": site.host.group_id,
        "DEPLOYMENT_ID": "d-000000000",
        "ARCHIVE_DIRECTORY": f"{site.host.root}/{site.host.group_id}/d-000000000/archive",
    }
    theirs = {**ours, "ARCHIVE_DIRECTORY": f"{site.host.root}-2/archive"}
    command = [sys.executable, "-c", "import time; time.sleep(300)"]
    servers = [subprocess.Popen(command, env=one) for one in (theirs, ours)]
    try:
        found = [one["pid"] for one in site.ask()["findings"]]
        assert found == [servers[1].pid]
    finally:
        for server in servers:
            server.kill()
            server.wait()


def test_a_process_without_our_variables_is_known_by_its_file(site: Site) -> None:
    server = subprocess.Popen([sys.executable, site.file("run.py")], env={"PATH": "/usr/bin"})
    try:
        assert site.findings() == []
        # The kernel counts the start of a process in hundredths of a second.
        time.sleep(0.2)
        site.deploy("two", start="#!/bin/sh\nexit 0\n")
        found = {one["pid"]: one["message"] for one in site.ask()["findings"]}
        assert "since before it was installed" in found[server.pid]
    finally:
        server.kill()
        server.wait()


def test_another_revision_than_the_record_says_is_found(site: Site) -> None:
    assert site.findings(expected="f" * 64) == [("revision", "")]


def test_a_host_without_the_group_is_told(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.root.mkdir()
    request = {"operation": "drift", "root": str(host.root), "group_id": "group-1"}
    assert host.run({**request, "expected": None})["findings"] == []
    assert host.run({**request, "expected": "a" * 64})["findings"][0]["kind"] == "deployment"
