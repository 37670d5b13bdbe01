"""Runs Bascule's playbooks the way a person does, and reads what they left behind."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Deployment, Record

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.M)


@dataclass(frozen=True)
class Run:
    """One run of a playbook: its exit status, what it said, and when."""

    status: int
    said: str
    started: float
    ended: float

    @property
    def changed(self) -> int:
        """How many changes Ansible counted on all hosts."""
        return sum(int(row[2]) for row in RECAP.findall(self.said))

    @property
    def messages(self) -> list[str]:
        """The ``msg`` of every failed task, unfolded."""
        found = re.findall(r'(?:"msg": |\[ERROR\]: Task failed: )"?(.*)', self.said)
        return [text.rstrip('",') for text in found]


@dataclass
class Controller:
    """The controlling side: an inventory, a state folder of its own, and variables for every run.

    ``within`` turns an argv into the one that runs it where the hosts can be reached.
    """

    inventory: Path
    state: Path
    variables: dict[str, Any] = field(default_factory=dict)
    within: Callable[[Sequence[str | Path]], list[str]] = lambda argv: [*map(str, argv)]
    environment: dict[str, str] = field(default_factory=dict)
    timeout: float = 900.0

    def playbook(
        self, name: str, *options: str, callback: str = "default", **variables: Any
    ) -> Run:
        """Run ``ansible-playbook bascule.deploy.NAME`` from the checkout.

        :param callback: Ansible's own by default, since it counts changes at the end
        """
        said = json.dumps(self.variables | variables, default=str)
        argv: list[str | Path] = [
            BIN / "ansible-playbook",
            "-i",
            self.inventory,
            f"bascule.deploy.{name}",
        ]
        return self._run([*argv, "-e", said, *options], ANSIBLE_STDOUT_CALLBACK=callback)

    def command(self, *arguments: str) -> Run:
        """Run the ``bascule`` command."""
        return self._run([BIN / "bascule", *arguments])

    def deploy(self, strategy: str, *options: str, **variables: Any) -> Run:
        """Run ``bascule deploy STRATEGY`` with this controller's inventory and variables."""
        given = [
            part
            for name, value in (self.variables | variables).items()
            for part in ("-e", json.dumps({name: value}, default=str))
        ]
        return self.command("deploy", strategy, "-i", str(self.inventory), *given, *options)

    def _run(self, argv: Sequence[str | Path], **environment: str) -> Run:
        started = time.time()
        done = subprocess.run(
            self.within(argv),
            cwd=ROOT,
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "ANSIBLE_NOCOLOR": "1",
                "BASCULE_STATE": str(self.state),
                **self.environment,
                **environment,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=self.timeout,
            check=False,
        )
        return Run(done.returncode, done.stdout, started, time.time())

    def record(self) -> Record:
        """The record of this controller; the caller closes it."""
        from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Record

        return Record.open(f"sqlite:///{self.state / 'record.db'}")

    def deployments(self) -> list[Deployment]:
        """Every deployment in the record, the newest first; none where there is no record."""
        if not (self.state / "record.db").exists():
            return []
        with closing(self.record()) as record:
            return list(record.deployments(limit=100))

    def targets(self, deployment: str) -> dict[str, Any]:
        """The targets of a deployment by name."""
        with closing(self.record()) as record:
            return {target.name: target for target in record.targets(deployment)}

    def events(self, deployment: str) -> list[Any]:
        """The events of a deployment in order."""
        with closing(self.record()) as record:
            return list(record.events(deployment))


def kill_controller(process: subprocess.Popen[Any], state: Path) -> None:
    """Kill a controller as a crash would: the program, and the workers of its ansible-playbook.

    They have sessions of their own, and are found by the state folder in their environment.
    """
    process.kill()
    mark = f"BASCULE_STATE={state}\0".encode()
    deadline = time.monotonic() + 60
    # A worker may be forked while the others are looked for.
    while found := [pid for pid in _playbooks() if mark in _environment_of(pid)]:
        assert time.monotonic() < deadline, found
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    process.wait(timeout=60)


def _playbooks() -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if b"bin/ansible-playbook" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


def _environment_of(pid: int) -> bytes:
    """Return the environment that a process was started with; nothing of one that has ended."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def local_inventory(path: Path, sysroots: dict[str, Path], group: str = "web") -> Path:
    """Write an inventory of local targets, each with a sysroot of its own."""
    hosts = {
        name: {
            "deploy_sysroot": str(sysroot),
            "ansible_connection": "local",
        }
        for name, sysroot in sysroots.items()
    }
    common = {"ansible_python_interpreter": "{{ ansible_playbook_python }}"}
    groups = {group: {"hosts": hosts, "vars": common}}
    path.write_text(json.dumps({"all": {"children": groups}}, indent=2) + "\n")
    return path


def snapshot(folder: Path) -> dict[str, str]:
    """What is in a folder: kind, mode and content of every path, whatever the times say."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        name = str(path.relative_to(folder))
        kind = stat.S_IFMT(status.st_mode)
        text = f"{stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid}"
        if kind == stat.S_IFREG:
            text += " " + hashlib.sha256(path.read_bytes()).hexdigest()
        elif kind == stat.S_IFLNK:
            text += f" -> {path.readlink()}"
        found[name] = text
    return found


def differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """The paths on which two snapshots do not agree, with what each has there."""
    names = sorted(before.keys() | after.keys())
    return [
        f"{name}: {before.get(name)} became {after.get(name)}"
        for name in names
        if before.get(name) != after.get(name)
    ]
