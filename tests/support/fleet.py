"""A fleet of real sshd hosts in network namespaces, on this machine alone.

A controller namespace holds a bridge; every host has a namespace of its own, joined to it by a
veth pair, and own mount, UTS, IPC and PID namespaces. Its root is an overlay over the machine's
own ``/``, so there is no image to build, and what a host writes stays on a tmpfs of the fleet.

Needs root, iproute2, util-linux and openssh-server; says so and fails where they are missing.
Whatever a killed run left behind is found by its registry file and removed by the next run.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Made = TypeVar("Made")

NETWORK = "10.88.0"
CONTROLLER = f"{NETWORK}.1"
FIRST_HOST = 11
RUN = Path("/run")
NAMESPACES = RUN / "netns"
PREFIX = "bascule-"

PROGRAMS = {
    "ip": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "mount": "mount",
    "pivot_root": "util-linux",
    "/usr/sbin/sshd": "openssh-server",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
}

# Folders that are empty on a host whatever the machine has there.
BARE = ("srv", "opt/codedeploy-agent", "opt/bascule", "var/lib/bascule")

SSHD_CONFIG = """\
HostKey /etc/bascule-fleet/host_key
AuthorizedKeysFile /etc/bascule-fleet/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
StrictModes no
UsePAM no
UseDNS no
PidFile none
PrintMotd no
MaxStartups 100
MaxSessions 100
Subsystem sftp internal-sftp
"""

# Runs as the first process of a host, in its namespaces, with the host's folder as $1, its name
# as $2 and its address as $3; sshd takes over as process 1 and reaps whatever hooks leave behind.
BOOT = """\
cd "$1"
mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"
mount -t proc proc proc
mount --rbind /dev dev
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mkdir run/sshd run/lock
hostname "$2"
ip link set lo up
ip address replace "$3/24" dev eth0
ip link set eth0 up
pivot_root . .
umount -l .
cd /
exec /usr/sbin/sshd -D -e -f /etc/bascule-fleet/sshd_config
"""


class FleetError(RuntimeError):
    """The fleet cannot be had here, or did not come up; the message says what is needed."""


@dataclass(frozen=True)
class Host:
    """One host of the fleet: its name, its address, and where its own files lie."""

    name: str
    address: str
    folder: Path
    namespace: str

    @property
    def log(self) -> Path:
        """What the host's sshd said."""
        return self.folder / "console.log"


def require() -> None:
    """Raise a FleetError that names everything the fleet needs and does not find."""
    problems = [] if os.geteuid() == 0 else ["root (namespaces and overlays are made)"]
    search = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
    missing = {package for name, package in PROGRAMS.items() if not shutil.which(name, path=search)}
    problems += [f"the Debian package {package}" for package in sorted(missing)]
    if problems:
        raise FleetError(f"a fleet of namespaces needs {', '.join(problems)}")


def interpreter() -> str:
    """The Python that hosts use: the distribution's where there is one, else this one's."""
    system = Path("/usr/bin/python3")
    return str(system if system.exists() else Path(sys.executable).resolve())


class Fleet:
    """``with Fleet(8) as fleet:`` — hosts ``h1`` to ``h8`` that answer over ssh.

    ``folder`` gets the inventory and the keys; it defaults to the fleet's own tmpfs.
    """

    def __init__(self, size: int, *, folder: Path | None = None) -> None:
        self.name = f"{PREFIX}{secrets.token_hex(3)}"
        self.home = RUN / self.name
        self.folder = folder or self.home
        self.controller = f"{self.name}-c"
        self.hosts = tuple(self._host(number) for number in range(1, size + 1))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._children: list[subprocess.Popen[Any]] = []

    def _host(self, number: int) -> Host:
        return Host(
            name=f"h{number}",
            address=f"{NETWORK}.{FIRST_HOST + number - 1}",
            folder=self.home / f"h{number}",
            namespace=f"{self.name}-{number}",
        )

    # --- Coming and going -----------------------------------------------------------------

    def __enter__(self) -> Self:
        require()
        remove_leftovers()
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> None:
        self.home.mkdir(mode=0o711)
        _register(self.name)
        _call("mount", "-t", "tmpfs", "-o", "mode=711", self.name, self.home)
        self._make_keys()
        self._make_network()
        for host in self.hosts:
            self._make_disk(host)
            self._start(host)
        self.wait(self.hosts)
        self._write_inventory()

    def close(self) -> None:
        """End every process of the fleet by its id and remove all that was made."""
        for process in (*self._children, *self._processes.values()):
            if process.poll() is None:
                process.kill()
        _remove(self.name)
        for process in (*self._children, *self._processes.values()):
            process.wait()
        self._children.clear()
        self._processes.clear()

    def _make_keys(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.home / "cp").mkdir(mode=0o700)
        for path in (self.folder / "id", self.home / "host_key"):
            _call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.name, "-f", path)
        public = (self.home / "host_key.pub").read_text()
        self.known_hosts.write_text(f"{NETWORK}.* {public}")

    def _make_network(self) -> None:
        lines = [f"netns add {self.controller}"]
        for host in self.hosts:
            lines.append(f"netns add {host.namespace}")
            lines.append(
                f"link add name {host.name} netns {self.controller} type veth"
                f" peer name eth0 netns {host.namespace}"
            )
        _call("ip", "-batch", "-", text="\n".join(lines) + "\n")
        inside = [
            "link set lo up",
            "link add br0 type bridge",
            f"address add {CONTROLLER}/24 dev br0",
            "link set br0 up",
            *(f"link set {host.name} master br0 up" for host in self.hosts),
        ]
        _call("ip", "-n", self.controller, "-batch", "-", text="\n".join(inside) + "\n")

    def _make_disk(self, host: Host) -> None:
        for name in ("upper", "work", "root"):
            (host.folder / name).mkdir(parents=True)
        upper = host.folder / "upper"
        for name in BARE:
            folder = upper / name
            folder.mkdir(parents=True)
            os.setxattr(folder, "trusted.overlay.opaque", b"y")
        own = upper / "etc/bascule-fleet"
        own.mkdir(parents=True)
        (own / "sshd_config").write_text(SSHD_CONFIG)
        shutil.copy(self.home / "host_key", own)
        shutil.copy(self.folder / "id.pub", own / "authorized_keys")
        etc = upper / "etc"
        # A resolver out of reach costs ten seconds at every look-up of a name.
        (etc / "resolv.conf").write_text("")
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n{host.address} {host.name}\n")
        (etc / "hostname").write_text(f"{host.name}\n")
        # What the machine's root starts in every shell would be paid at every ssh command.
        home = upper / Path.home().relative_to("/")
        home.mkdir(mode=0o700, parents=True)
        for name in (".bashrc", ".bash_profile", ".profile", ".ssh/environment"):
            (home / name).parent.mkdir(exist_ok=True)
            (home / name).write_text("")

    def _start(self, host: Host) -> None:
        argv = ["nsenter", f"--net={NAMESPACES / host.namespace}"]
        argv += ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child"]
        argv += ["sh", "-ec", BOOT, "boot", str(host.folder), host.name, host.address]
        with host.log.open("ab") as log:
            self._processes[host.name] = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self, hosts: Sequence[Host], seconds: float = 120.0) -> None:
        """Wait until the sshd of every given host answers."""
        deadline = time.monotonic() + seconds
        for host in hosts:
            while not self.answers(host):
                process = self._processes[host.name]
                if process.poll() is not None or time.monotonic() > deadline:
                    said = host.log.read_text(errors="replace")[-2000:]
                    raise FleetError(f"{host.name} did not come up in {seconds:g} s: {said}")
                time.sleep(0.02)

    def answers(self, host: Host) -> bool:
        """Whether the sshd of a host can be reached."""
        try:
            with self.connect(host.address, 22, timeout=1.0) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def _write_inventory(self) -> None:
        options = [
            f"-o UserKnownHostsFile={self.known_hosts}",
            "-o GlobalKnownHostsFile=/dev/null",
            "-o IdentitiesOnly=yes",
            "-o ConnectTimeout=5",
        ]
        hosts = {
            host.name: {"ansible_host": host.address, "ansible_python_interpreter": interpreter()}
            for host in self.hosts
        }
        common = {
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self.folder / "id"),
            "ansible_ssh_common_args": " ".join(options),
            # Masters of another fleet with the same addresses must never be met.
            "ansible_control_path_dir": str(self.home / "cp"),
        }
        fleet = {"all": {"children": {"web": {"hosts": hosts, "vars": common}}}}
        # JSON is YAML.
        self.inventory.write_text(json.dumps(fleet, indent=2) + "\n")

    # --- Where things are -----------------------------------------------------------------

    @property
    def inventory(self) -> Path:
        """The Ansible inventory: one group, ``web``, with every host."""
        return self.folder / "hosts.yml"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    def host(self, name: str) -> Host:
        """The host of that name."""
        return next(host for host in self.hosts if host.name == name)

    def root(self, name: str) -> Path:
        """The root folder of a running host, as seen from the machine."""
        return Path(f"/proc/{self.first_process(name)}/root")

    def first_process(self, name: str) -> int:
        """The id, on the machine, of a running host's process 1."""
        outer = self._processes[name].pid
        children = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
        if not children:
            raise FleetError(f"{name} is not running")
        return int(children[0])

    # --- Doing things on the controller's side ----------------------------------------------

    def command(self, argv: Sequence[str | Path]) -> list[str]:
        """The argv that runs ``argv`` in the controller's namespace."""
        return ["nsenter", f"--net={NAMESPACES / self.controller}", "--", *map(str, argv)]

    def run(self, argv: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command in the controller's namespace and capture what it says."""
        settings: dict[str, Any] = {"capture_output": True, "text": True, "check": False}
        return subprocess.run(self.command(argv), **(settings | options))

    def popen(self, argv: Sequence[str | Path], **options: Any) -> subprocess.Popen[Any]:
        """Start a command in the controller's namespace; it ends with the fleet at the latest."""
        process = subprocess.Popen(self.command(argv), **options)
        self._children.append(process)
        return process

    def connect(self, address: str, port: int, *, timeout: float = 5.0) -> socket.socket:
        """A TCP connection made from the controller's namespace."""
        return _within(
            NAMESPACES / self.controller,
            lambda: socket.create_connection((address, port), timeout=timeout),
        )

    def inside(self, work: Callable[[], Made]) -> Made:
        """What ``work`` returns, called in a thread in the controller's namespace."""
        return _within(NAMESPACES / self.controller, work)

    def ssh(self, name: str, command: str) -> subprocess.CompletedProcess[str]:
        """Run a shell command on a host over ssh."""
        return self.run(self.ssh_argv(name, command))

    def ssh_argv(self, name: str, *command: str) -> list[str]:
        """The argv of ssh to a host, to be run in the controller's namespace."""
        argv = ["ssh", "-F", "none", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5"]
        argv += ["-o", f"UserKnownHostsFile={self.known_hosts}", "-o", "IdentitiesOnly=yes"]
        argv += ["-i", str(self.folder / "id"), f"root@{self.host(name).address}"]
        return [*argv, *command]

    # --- Breaking things ------------------------------------------------------------------

    def dark(self, name: str) -> None:
        """Cut the host's cable: packets vanish, nothing is refused."""
        _call("ip", "-n", self.controller, "link", "set", name, "down")

    def light(self, name: str) -> None:
        """Plug the cable in again."""
        _call("ip", "-n", self.controller, "link", "set", name, "up")

    def kill(self, name: str) -> None:
        """The host dies with all its processes; its disk stays."""
        process = self._processes[name]
        process.kill()
        process.wait()
        for pid in _pids(self.host(name).namespace):
            _kill(pid)

    def restart(self, name: str) -> None:
        """The host dies, if it still lives, and boots again from its disk."""
        host = self.host(name)
        self.kill(name)
        self._start(host)
        self.wait([host])


# --- The machine ----------------------------------------------------------------------------


def _call(*argv: str | Path, text: str | None = None) -> str:
    done = subprocess.run(
        list(map(str, argv)), input=text, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise FleetError(f"{' '.join(map(str, argv))}: {done.stderr.strip()}")
    return done.stdout


def _within(namespace: Path, make: Callable[[], Made]) -> Made:
    """Call ``make`` in a thread that has moved into a network namespace, and only that thread."""
    result: list[Made] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            library = ctypes.CDLL(None, use_errno=True)
            with namespace.open() as handle:
                if library.setns(handle.fileno(), 0x40000000):
                    raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
            result.append(make())
        except BaseException as error:  # handed to the caller's thread below
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return result[0]


def _pids(namespace: str) -> list[int]:
    done = subprocess.run(
        ["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False
    )
    return [int(pid) for pid in done.stdout.split()]


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


# --- The registry: what a killed run leaves is removed by the next one ----------------------


def _registry(name: str) -> Path:
    return RUN / f"{name}.json"


def _started(pid: int) -> str | None:
    """When a process started (clock ticks since boot), or None if it is no more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _register(name: str) -> None:
    owner = {"pid": os.getpid(), "started": _started(os.getpid())}
    _registry(name).write_text(json.dumps(owner) + "\n")


def leftovers() -> list[str]:
    """The names of fleets whose owner is no more."""
    names = []
    for path in RUN.glob(f"{PREFIX}??????.json"):
        try:
            owner: Mapping[str, Any] = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        if _started(owner["pid"]) != owner["started"]:
            names.append(path.stem)
    return names


def remove_leftovers() -> None:
    """Remove every fleet whose owner is no more; who comes beside us may do so at once."""
    for name in leftovers():
        with contextlib.suppress(FleetError, OSError):
            _remove(name)


def _remove(name: str) -> None:
    """End the processes in a fleet's namespaces, then remove namespaces, disks and registry."""
    spaces = [path.name for path in NAMESPACES.glob(f"{name}-*")]
    deadline = time.monotonic() + 60
    while (pids := [pid for space in spaces for pid in _pids(space)]) and (
        time.monotonic() < deadline
    ):
        for pid in pids:
            _kill(pid)
        time.sleep(0.02)
    if spaces:
        _call("ip", "-batch", "-", text="".join(f"netns del {space}\n" for space in spaces))
    home = RUN / name
    if home.is_mount():
        _call("umount", "--lazy", home)
    if home.is_dir():
        home.rmdir()
    _registry(name).unlink(missing_ok=True)
