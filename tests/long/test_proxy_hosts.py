"""A load balancer on two hosts, one of which goes away in the middle of a deployment.

Both lead to the same proxy: ``lb-1`` is reached here, ``lb-2`` by an sshd of its own, which is
killed or stops to answer. Users must lose nothing, and the host is named.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support import proxies
from support.fleet import interpreter
from support.twopools import TwoPools, two_pools, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RATE = 50
NAMES = ("lb-1", "lb-2")
CONFIGURATION = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
StrictModes no
UsePAM no
PidFile none
MaxStartups 100
MaxSessions 100
"""


class Sshd:
    """Another way to this machine, which can be taken away."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, proxies.free_port()
        folder.mkdir()
        for name in ("host", "user"):
            subprocess.run(  # noqa: S603 - the words are the test's own
                ["/usr/bin/ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name],
                check=True,
            )
        (folder / "conf").write_text(CONFIGURATION.format(port=self.port, folder=folder))
        known = (folder / "host.pub").read_text()
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {known}")
        Path("/run/sshd").mkdir(exist_ok=True)
        self.process: subprocess.Popen[bytes] | None = None

    def variables(self) -> dict[str, Any]:
        return {
            "ansible_connection": "ssh",
            "ansible_host": "127.0.0.1",
            "ansible_port": self.port,
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self.folder / "user"),
            "ansible_ssh_common_args": f"-o UserKnownHostsFile={self.folder}/known_hosts",
            "ansible_python_interpreter": interpreter(),
        }

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - the words are the test's own
                ["/usr/sbin/sshd", "-D", "-e", "-f", self.folder / "conf"],
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def signal(self, number: int) -> None:
        """Signal the server and what it has started, its own children first."""
        assert self.process is not None
        for pid in [*descendants(self.process.pid), self.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            self.signal(signal.SIGSTOP)
            self.signal(signal.SIGKILL)
        self.process.wait()


def descendants(pid: int) -> list[int]:
    """Return all processes that a process has started, also by others."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        own = [int(word) for word in children.read_text().split()]
        return [one for child in own for one in (*descendants(child), child)]
    return []


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[TwoPools, Sshd]]:
    assert shutil.which("/usr/sbin/sshd"), "the Debian package openssh-server is needed"
    sshd = Sshd(tmp_path / "sshd")
    pools = {"blue": ["b1", "b2"], "green": ["g1", "g2"]}
    with two_pools(
        "haproxy", tmp_path / "site", pools,
        deploy_traffic_hosts=[*NAMES], deploy_reconnect_timeout="5s",
    ) as made:  # fmt: skip
        inventory = made.controller.inventory
        content = json.loads(Path(inventory).read_text())
        here = {
            "ansible_connection": "local",
            "ansible_python_interpreter": "{{ ansible_playbook_python }}",
        }
        hosts = dict(zip(NAMES, (here, sshd.variables()), strict=True))
        content["all"]["children"]["proxies"] = {"hosts": hosts}
        Path(inventory).write_text(json.dumps(content))
        sshd.start()
        try:
            first = made.controller.playbook("blue_green", deploy_revision=made.revision("1.0"))
            assert first.status == 0, first.said
            yield made, sshd
        finally:
            sshd.kill()


def deploy(site: TwoPools, step: str, act: Callable[[], None], **more: Any) -> tuple[str, Any, Any]:
    """Deploy 2.0, and do something while a step is carried out; returns it and its rollback."""
    process = site.start("blue_green", deploy_revision=site.revision("2.0"), **more)
    try:

        def begun() -> bool:
            newest = site.controller.deployments()[0]
            return (step, "InProgress") in site.steps(newest.id)

        until(begun, 180)
        act()
        assert process.wait(timeout=300) == 2
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    said = (site.folder / "blue_green.log").read_text()
    rollback, failed = site.controller.deployments()[:2]
    assert rollback.rollback_of == failed.id, said
    return said, failed, rollback


def last_answer(log: Path, version: str) -> float:
    """Return when a version has answered for the last time, in epoch seconds."""
    lines = [line.split("\t") for line in log.read_text().splitlines()]
    return max(float(at) for at, answered, _how in lines if answered == version)


def test_one_that_dies_in_mid_shift_keeps_no_user_on_the_others_from_going_back(
    site: tuple[TwoPools, Sshd],
) -> None:
    made, sshd = site
    end = made.load(RATE)
    schedule = [{"shift": "30%"}, {"bake": "3s"}, {"shift": "100%"}]
    said, failed, rollback = deploy(made, "bake for 3s", sshd.kill, deploy_schedule=schedule)
    assert made.ask(30) == {"1.0": 30}, said
    assert "lb-2: Cannot reach the host: " in failed.error_message, said
    # It has not been seen to be back there, and that is said.
    assert rollback.status == "Failed"
    assert "lb-2: Cannot reach the host: " in rollback.error_message
    assert end()["failed"] == 0
    sshd.start()
    again = made.controller.playbook("blue_green", deploy_revision=made.revision("3.0"))
    assert again.status == 0, again.said
    assert made.ask(30) == {"3.0": 30}


def test_one_that_stops_to_answer_holds_up_nobody_when_a_gate_fails(
    site: tuple[TwoPools, Sshd],
) -> None:
    made, sshd = site
    end = made.load(RATE)
    gate = {"name": "page", "type": "command", "command": "false"}
    schedule = [{"shift": "30%"}, {"bake": "3s"}, {"gate": gate}]
    said, failed, _rollback = deploy(
        made, "bake for 3s", lambda: sshd.signal(signal.SIGSTOP), deploy_schedule=schedule
    )
    assert failed.error_code == "GATE_FAILED", said
    assert made.ask(30) == {"1.0": 30}, said
    assert end()["failed"] == 0
    decided = next(e.at for e in made.controller.events(failed.id) if e.event == "GatesDecided")
    last = last_answer(made.folder / "load-0.log", "2.0")
    print(f"the last answer of the bad version {last - decided:.2f} s after the verdict")
    # The other host was waited for longer, until the deployment ended.
    assert last < failed.finished_at


def test_users_stay_where_they_are_when_it_dies_before_the_old_pool_is_retired(
    site: tuple[TwoPools, Sshd],
) -> None:
    made, sshd = site
    end = made.load(RATE)
    said, failed, rollback = deploy(
        made, "bake for 3s", sshd.kill, deploy_retire="drain", deploy_retire_after="3s"
    )
    # The old pool has left the load balancer at the other host.
    assert made.ask(30) == {"2.0": 30}, said
    assert (failed.status, rollback.status) == ("Failed", "Failed")
    assert "lb-2: Cannot reach the host: " in failed.error_message, said
    assert end()["failed"] == 0
    sshd.start()
    back = made.controller.playbook("rollback", deploy_rollback_to=failed.previous_digest)
    assert back.status == 0, back.said
    assert made.ask(30) == {"1.0": 30}
