"""What a deployment costs: Bascule against a bare shell loop and against Capistrano.

Every contender brings the same content to the same hosts: real sshd hosts in network namespaces
of this machine (tests/support/fleet.py), a bundle of 5 MB in 200 files with five hooks, no load
balancer, a new revision every time. Rounds are interleaved, so that a slow minute of the machine
is shared by all. Each contender starts cold: no ssh connection is left open between its runs.

    python benchmarks/deploy.py [--quick] [--rounds N] [--sizes 1,8,16,32] [--output FILE.json]

Needs root, iproute2, openssh-server, git, and capistrano for its part. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.fleet import CONTROLLER, Fleet  # noqa: E402 - after the path is set

FILES = 200
FILE_BYTES = 5_000_000 // FILES
CHANGED = 20
EVENTS = ("ApplicationStop", "BeforeInstall", "AfterInstall", "ApplicationStart", "ValidateService")
LOG = "/srv/bench/hooks.log"
TIMEOUT = 180


# --- What is deployed -------------------------------------------------------------------------


class Bundle:
    """A folder of 200 files, an AppSpec and five hooks; `renew` makes the next revision."""

    def __init__(self, folder: Path) -> None:
        """Fill a new folder."""
        self.folder = folder
        self.number = 0
        self._random = random.Random(20)  # noqa: S311 - content, not a secret
        (folder / "app").mkdir(parents=True)
        (folder / "hooks").mkdir()
        for index in range(FILES):
            self._fill(index)
        for event in EVENTS:
            hook = folder / "hooks" / event
            hook.write_text(f"#!/bin/sh\nmkdir -p /srv/bench\necho {event} >> {LOG}\n")
            hook.chmod(0o755)
        hooks = "".join(f"  {e}:\n    - location: hooks/{e}\n      timeout: 30\n" for e in EVENTS)
        (folder / "appspec.yml").write_text(
            "version: 0.0\nos: linux\nfiles:\n  - source: app\n    destination: /srv/bench/app\n"
            f"hooks:\n{hooks}"
        )

    def _fill(self, index: int) -> None:
        path = self.folder / "app" / f"part-{index:03}.bin"
        path.write_bytes(self._random.randbytes(FILE_BYTES))

    def renew(self) -> None:
        """Change a tenth of the files."""
        self.number += 1
        for index in self._random.sample(range(FILES), CHANGED):
            self._fill(index)

    def pack(self, path: Path) -> Path:
        """Write the revision as one archive."""
        with tarfile.open(path, "w:gz", compresslevel=1) as archive:
            for child in sorted(self.folder.iterdir()):
                if child.name != ".git":
                    archive.add(child, child.name)
        return path


# --- Who deploys it ---------------------------------------------------------------------------


class _Contender(Protocol):
    """Prepares outside the clock, then gives the argv that is measured."""

    name: str

    def prepare(self, bundle: Bundle, hosts: Sequence[str]) -> None: ...

    def argv(self) -> list[str]: ...

    def environment(self) -> dict[str, str]: ...

    def current(self, host: str) -> Path: ...


class _Shell:
    """The least that could be done: pipe the archive through ssh, run the hooks; no record."""

    name = "shell loop"
    SCRIPT = """\
pids=
for host in $BENCH_HOSTS; do
  $SSH "root@$host" "$REMOTE" < "$ARCHIVE" & pids="$pids $!"
done
status=0
for pid in $pids; do wait "$pid" || status=1; done
exit $status
"""

    def __init__(self, fleet: Fleet, work: Path) -> None:
        self.fleet = fleet
        self.archive = work / "shell.tar.gz"
        self._hosts: Sequence[str] = ()
        self._number = 0

    def prepare(self, bundle: Bundle, hosts: Sequence[str]) -> None:
        bundle.pack(self.archive)
        self._hosts, self._number = hosts, bundle.number

    def argv(self) -> list[str]:
        return ["sh", "-c", self.SCRIPT]

    def environment(self) -> dict[str, str]:
        release = f"/srv/shell/{self._number}"
        steps = [f"mkdir -p {release}", f"cd {release}", "tar -xzf -"]
        steps += [f"hooks/{event}" for event in EVENTS]
        steps += [f"ln -sfn {release} /srv/shell/current"]
        ssh = self.fleet.ssh_argv(self.fleet.hosts[0].name)[:-1]
        return {
            "BENCH_HOSTS": " ".join(self.fleet.host(name).address for name in self._hosts),
            "SSH": " ".join(ssh),
            "REMOTE": " && ".join(steps),
            "ARCHIVE": str(self.archive),
        }

    def current(self, host: str) -> Path:
        return self.fleet.root(host) / "srv/shell" / str(self._number) / "app"


class _Capistrano:
    """Capistrano 3 from Debian: a real new commit, a warm mirror on the hosts, five tasks."""

    name = "Capistrano"
    CAPFILE = """\
require "capistrano/setup"
require "capistrano/deploy"
require "capistrano/scm/git"
install_plugin Capistrano::SCM::Git
"""
    DEPLOY = """\
set :application, "bench"
set :repo_url, "git://{controller}/bench.git"
set :branch, "main"
set :deploy_to, "/srv/capistrano"
set :keep_releases, 5
set :ssh_options, {{ keys: ["{key}"], keys_only: true, config: false, auth_methods: ["publickey"],
                    user_known_hosts_file: ["{known}"] }}
{{ "deploy:starting" => "ApplicationStop", "deploy:started" => "BeforeInstall",
   "deploy:updated" => "AfterInstall", "deploy:published" => "ApplicationStart",
   "deploy:finished" => "ValidateService" }}.each do |step, event|
  task "bench:#{{event}}" do
    on roles(:all) do
      # Before the release is there, the hook of the release that is running.
      early = %w[ApplicationStop BeforeInstall].include?(event)
      hook = "#{{early ? current_path : release_path}}/hooks/#{{event}}"
      execute "if [ -x #{{hook}} ]; then #{{hook}}; fi"
    end
  end
  after step, "bench:#{{event}}"
end
"""

    def __init__(self, fleet: Fleet, work: Path) -> None:
        self.fleet = fleet
        self.folder = work / "capistrano"
        self.served = work / "served"
        self.repository = self.served / "bench.git"
        (self.folder / "config/deploy").mkdir(parents=True)
        (self.folder / "Capfile").write_text(self.CAPFILE)
        (self.folder / "config/deploy.rb").write_text(
            self.DEPLOY.format(
                controller=CONTROLLER, key=fleet.folder / "id", known=fleet.known_hosts
            )
        )
        (self.folder / "config/deploy/bench.rb").write_text(
            'ENV.fetch("BENCH_HOSTS").split.each { |h| server h, user: "root", roles: %w[app] }\n'
        )
        self._git("init", "-q", "--bare", "-b", "main", str(self.repository), folder=work)
        self._hosts: Sequence[str] = ()
        self._serve()

    def _serve(self) -> None:
        # Not through `git`, which would put a process of its own before the daemon.
        where = subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True)
        daemon = Path(where.stdout.strip()) / "git-daemon"
        argv: list[str | Path] = [
            daemon,
            "--export-all",
            f"--base-path={self.served}",
            "--reuseaddr",
        ]
        self.fleet.popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while True:
            try:
                self.fleet.connect(CONTROLLER, 9418).close()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return

    def _git(self, *argv: str, folder: Path) -> None:
        author = [f"-c user.{key}={value}" for key, value in (("name", "b"), ("email", "b@b"))]
        options = " ".join(author).split()
        subprocess.run(["git", *options, *argv], cwd=folder, check=True)

    def prepare(self, bundle: Bundle, hosts: Sequence[str]) -> None:
        self._hosts = hosts
        if not (bundle.folder / ".git").exists():
            self._git("init", "-q", "-b", "main", folder=bundle.folder)
        self._git("add", "-A", folder=bundle.folder)
        self._git("commit", "-q", "-m", f"revision {bundle.number}", folder=bundle.folder)
        self._git("push", "-q", str(self.repository), "main", folder=bundle.folder)

    def argv(self) -> list[str]:
        return ["sh", "-c", 'cd "$CAPISTRANO" && exec cap bench deploy']

    def environment(self) -> dict[str, str]:
        hosts = " ".join(self.fleet.host(name).address for name in self._hosts)
        return {"BENCH_HOSTS": hosts, "CAPISTRANO": str(self.folder)}

    def current(self, host: str) -> Path:
        root = self.fleet.root(host)
        link = (root / "srv/capistrano/current").readlink()
        return root / str(link).lstrip("/") / "app"


class _Bascule:
    """The playbook, all hosts at once, with its record, its plan and its staging barrier."""

    name = "Bascule"

    def __init__(self, fleet: Fleet, work: Path) -> None:
        self.fleet = fleet
        self.work = work
        self.archive = work / "bascule.tar.gz"
        self._hosts: Sequence[str] = ()

    def prepare(self, bundle: Bundle, hosts: Sequence[str]) -> None:
        bundle.pack(self.archive)
        self._hosts = hosts

    def argv(self) -> list[str]:
        variables = {
            "deploy_application": "bench",
            # One group for every size: two groups must not own the same files of a host.
            "deploy_group": "bench",
            "deploy_targets": ":".join(self._hosts),
            "deploy_revision": str(self.archive),
            "deploy_configuration": "AllAtOnce",
        }
        playbook = Path(sys.executable).with_name("ansible-playbook")
        inventory = str(self.fleet.inventory)
        argv = [str(playbook), "-i", inventory, "bascule.deploy.in_place"]
        return [*argv, "-e", json.dumps(variables)]

    def environment(self) -> dict[str, str]:
        return {
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "BASCULE_STATE": str(self.work / "state"),
        }

    def current(self, host: str) -> Path:
        return self.fleet.root(host) / "srv/bench/app"


# --- Measuring --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """One deployment: seconds on the clock, CPU seconds of the controller and of all hosts."""

    contender: str
    hosts: int
    round: int
    wall: float
    controller: float
    fleet: float


def _controller_pids(fleet: Fleet, spared: set[int]) -> list[int]:
    said = subprocess.run(
        ["ip", "netns", "pids", fleet.controller], capture_output=True, text=True, check=True
    )
    return [pid for pid in map(int, said.stdout.split()) if pid not in spared]


def _cpu_of(pid: int, *, with_children: bool = False) -> float:
    """CPU seconds of a process, and of every descendant that has ended if asked for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    ticks = sum(map(int, fields[11 : 15 if with_children else 13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _fleet_cpu(fleet: Fleet, size: int) -> float:
    """CPU seconds that the first hosts have used since they are up; no session may be open."""
    total = 0.0
    for host in fleet.hosts[:size]:
        pid = fleet.first_process(host.name)
        deadline = time.monotonic() + 5
        while Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            if time.monotonic() > deadline:
                break
            time.sleep(0.01)
        total += _cpu_of(pid, with_children=True)
    return total


def measure(fleet: Fleet, contender: _Contender, size: int, number: int, spared: set[int]) -> Run:
    """Run a contender once. ssh masters that it leaves open are counted, then ended."""
    hosts = _fleet_cpu(fleet, size)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    done = fleet.run(
        contender.argv(), env={**os.environ, **contender.environment()}, timeout=TIMEOUT, cwd=ROOT
    )
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{contender.name} failed on {size} hosts:\n{done.stdout}{done.stderr}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    for pid in _controller_pids(fleet, spared):
        cpu += _cpu_of(pid)
        os.kill(pid, 9)
    hosts = _fleet_cpu(fleet, size) - hosts
    return Run(contender.name, size, number, wall, cpu, hosts)


def verify(bundle: Bundle, contender: _Contender, hosts: Sequence[str]) -> None:
    """Every host has this very revision, or the benchmark measures nothing."""
    wanted = {p.name: p.read_bytes() for p in (bundle.folder / "app").iterdir()}
    for host in hosts:
        found = {p.name: p.read_bytes() for p in contender.current(host).iterdir()}
        if found != wanted:
            raise SystemExit(f"{contender.name} left another revision on {host}")


def fit(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Least squares: the fixed part and the part per host."""
    if len({x for x, _ in points}) < 2:
        return points[0][1], float("nan")
    slope, fixed = statistics.linear_regression(*zip(*points, strict=True))
    return fixed, slope


def table(runs: Sequence[Run], sizes: Sequence[int], names: Sequence[str]) -> str:
    """Medians as Markdown: tables of wall time and of CPU on both sides, each fitted."""
    parts = []
    values: tuple[tuple[str, Callable[[Run], float]], ...] = (
        ("Wall time, seconds", lambda run: run.wall),
        ("Controller CPU, seconds", lambda run: run.controller),
        ("CPU of all hosts, seconds", lambda run: run.fleet),
    )
    for title, value in values:
        head = " | ".join(f"{size} host{'s' * (size > 1)}" for size in sizes)
        ratio = "per host : shell loop"
        lines = [f"| {title} | {head} | fixed | per host | {ratio} |"]
        lines.append("|---|" + "---:|" * (len(sizes) + 3))
        fits: dict[str, tuple[float, float]] = {}
        for name in names:
            medians = {
                size: statistics.median(
                    value(run) for run in runs if (run.contender, run.hosts) == (name, size)
                )
                for size in sizes
            }
            fits[name] = fit([(float(size), median) for size, median in medians.items()])
            cells = " | ".join(f"{medians[size]:.2f}" for size in sizes)
            fixed, each = fits[name]
            share = each / fits[names[0]][1]
            lines.append(f"| {name} | {cells} | {fixed:.2f} | {each:.3f} | {share:.2f} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def main() -> None:
    """Run it all and print it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="1 and 8 hosts, one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", default="1,8,16,32", help="numbers of hosts")
    parser.add_argument("--only", default="", help="names of contenders, separated by commas")
    parser.add_argument("--output", type=Path, help="where to write every run as JSON")
    options = parser.parse_args()
    sizes = [1, 8] if options.quick else [int(size) for size in options.sizes.split(",")]
    rounds = 1 if options.quick else options.rounds
    if not shutil.which("cap"):
        parser.error("needs the Debian package capistrano")
    with (
        tempfile.TemporaryDirectory(prefix="bascule-bench-") as folder,
        Fleet(max(sizes)) as fleet,
    ):
        work = Path(folder)
        work.chmod(0o711)
        bundle = Bundle(work / "bundle")
        contenders: list[_Contender] = [
            _Shell(fleet, work),
            _Capistrano(fleet, work),
            _Bascule(fleet, work),
        ]
        if options.only:
            contenders = [c for c in contenders if c.name in options.only.split(",")]
        spared = set(_controller_pids(fleet, set()))
        runs: list[Run] = []
        # Round 0 warms up: first deployments, mirrors, caches. It is not counted.
        for number in range(rounds + 1):
            for size in sizes if number else sizes[-1:]:
                hosts = [host.name for host in fleet.hosts[:size]]
                shift = number % len(contenders)
                for contender in contenders[shift:] + contenders[:shift]:
                    bundle.renew()
                    contender.prepare(bundle, hosts)
                    run = measure(fleet, contender, size, number, spared)
                    verify(bundle, contender, hosts)
                    print(f"# {run}", file=sys.stderr, flush=True)
                    runs += [run] * (number > 0)
    print(
        f"{os.cpu_count()} cores shared by controller and hosts, {platform.system()}"
        f" {platform.release()}, Python {platform.python_version()};"
        f" median of {rounds} rounds\n"
    )
    print(table(runs, sizes, [contender.name for contender in contenders]))
    if options.output:
        options.output.write_text(json.dumps([asdict(run) for run in runs], indent=1) + "\n")


if __name__ == "__main__":
    main()
