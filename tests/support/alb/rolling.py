"""A fleet of real hosts that are instances behind a load balancer of AWS, and users.

The load balancer hears of everything some seconds late, as AWS's own do. What it is (an
Application, a Network or a Classic Load Balancer) is said in ``Kind``; the rest is the same.
"""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from support import alb
from support.alb.site import Site
from support.bundles import LET_GO, PORT, web
from support.fleet import CONTROLLER, Fleet, interpreter
from support.rollout import BIN, Controller, Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

RATE = 200
SLOW_RATE = 10
# Seconds that a slow request takes; each host has some in flight whenever it leaves.
SLOW = 2
API = 5000
FRONT = 8000
INTERNAL = 8001
PROPAGATION = 2.0
# Longer than a request lasts that came while the order was on its way. A machine that is busy takes
# twice as long for a slow one as it should, and what is over then is rightly cut.
QUICK_DELAY = 4
DELAY = 8
# Whoever leaves is away for longer than the shorter delay.
SAMPLE_SECONDS = 0.5


@dataclass(frozen=True)
class Kind:
    """A kind of load balancer: how it is set up, and how the group's variables name it.

    :ivar set_up: makes it, and returns its pools
    :ivar healthy: counts the healthy targets of a pool by what the API says
    :ivar slow_port: where the slow requests are sent to
    :ivar slow_options: more arguments of the load generator for them
    """

    variables: Mapping[str, Any]
    set_up: Callable[[Site], list[str]]
    healthy: Callable[[Any, str], int]
    client: str = "elbv2"
    slow_port: int = FRONT
    slow_options: tuple[str, ...] = ()


def _application(site: Site) -> list[str]:
    """Make two target groups with other checks and delays, each behind a listener."""
    web = site.group("web", delay=QUICK_DELAY, Port=PORT)
    internal = site.group(
        "web-internal", delay=DELAY, Port=PORT, HealthCheckPath="/",
        HealthCheckIntervalSeconds=10, HealthyThresholdCount=3, Matcher={"HttpCode": "200-299"},
    )  # fmt: skip
    site.listen({web: 1}, port=FRONT)
    site.listen({internal: 1}, port=INTERNAL)
    return [web, internal]


def _network(site: Site) -> list[str]:
    group = site.group(
        "web", delay=DELAY, Port=PORT, Protocol="TCP", HealthCheckProtocol="HTTP"
    )  # fmt: skip
    site.listen({group: 1}, kind="network", port=FRONT)
    return [group]


def _classic(site: Site) -> list[str]:
    site.classic("web", delay=DELAY, application=PORT, port=FRONT)
    return ["web"]


def _healthy_targets(client: Any, group: str) -> int:
    answer = client.describe_target_health(TargetGroupArn=group)
    states = [one["TargetHealth"]["State"] for one in answer["TargetHealthDescriptions"]]
    return states.count("healthy")


def _instances_in_service(client: Any, name: str) -> int:
    answer = client.describe_instance_health(LoadBalancerName=name)
    return [one["State"] for one in answer["InstanceStates"]].count("InService")


def _elbv2(*groups: str) -> dict[str, Any]:
    return {
        "deploy_traffic_provider": "elbv2",
        "deploy_elbv2_target_groups": list(groups),
        "deploy_elbv2_propagation": f"{PROPAGATION + 0.5}s",
    }


KINDS = {
    "application": Kind(
        _elbv2("web", "web-internal"), _application, _healthy_targets, slow_port=INTERNAL
    ),
    # A connection outlives its target's registration: users who keep one alive are asked to let
    # go of it by the application (LET_GO), and the slow ones have one for each request.
    "network": Kind(_elbv2("web"), _network, _healthy_targets, slow_options=("--close",)),
    "classic": Kind(
        {
            "deploy_traffic_provider": "elb",
            "deploy_elb_names": ["web"],
            "deploy_elb_propagation": f"{PROPAGATION + 0.5}s",
        },
        _classic,
        _instances_in_service,
        client="elb",
    ),
}


@dataclass
class Story:
    """What every run said, and what was seen from outside meanwhile.

    :ivar samples: how many targets each pool called healthy, again and again
    """

    kind: Kind
    folder: Path
    fleet: Fleet
    controller: Controller
    service: alb.Alb
    rate: int = RATE
    pools: list[str] = field(default_factory=list)
    runs: dict[str, Run] = field(default_factory=dict)
    versions: dict[str, list[str]] = field(default_factory=dict)
    calls: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    load: dict[str, Any] = field(default_factory=dict)
    slow: dict[str, Any] = field(default_factory=dict)
    loaded: float = 0.0
    samples: list[dict[str, int]] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """The names of the hosts."""
        return [host.name for host in self.fleet.hosts]

    def revision(self, version: str, broken: str = "") -> Path:
        """Make a revision.

        :param broken: a pattern of the shell; hosts with such names find it broken when they ask
            their application, which answers by then
        """
        hooks = {"validate.sh": BROKEN.replace("{broken}", broken)} if broken else {}
        folder = self.folder / "revisions" / version
        more = {"BeforeBlockTraffic": LET_GO}
        return web(folder, version, python=interpreter(), hooks=hooks, more=more)

    def run(self, name: str, *options: str, **variables: Any) -> Run:
        """Run a rolling deployment, and note what it did."""
        self.fleet.inside(self.service.forget_calls)
        self.runs[name] = run = self.controller.playbook("rolling", *options, **variables)
        self.calls[name] = self.fleet.inside(self.service.calls)
        self.versions[name] = [self.version(host) for host in self.names]
        return run

    def version(self, name: str) -> str:
        """What the application on a host answers, asked past the load balancer."""
        try:
            address = self.fleet.host(name).address
            with self.fleet.connect(address, PORT, timeout=60.0) as connection:
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                answer = b"".join(iter(lambda: connection.recv(4096), b"")).decode()
        except OSError:
            return "nothing"
        return answer.rpartition("\r\n\r\n")[2].split()[0]

    def changes(self, name: str) -> list[str]:
        """Return the calls to load balancers of a run that change something."""
        return [
            one["action"]
            for one in self.calls[name]
            if one["mutating"] and one["service"] == "elasticloadbalancing"
        ]

    @contextmanager
    def users(self) -> Iterator[None]:
        """Have users until the block ends, quick and slow ones."""
        reports = [self.folder / "load.json", self.folder / "slow.json"]
        started = time.monotonic()
        loads = [
            self._loadgen(FRONT, "/", self.rate, reports[0]),
            self._loadgen(
                self.kind.slow_port, f"/slow/{SLOW}", SLOW_RATE, reports[1], *self.kind.slow_options
            ),
        ]
        time.sleep(1)
        try:
            yield
            time.sleep(1)
            self.loaded = time.monotonic() - started
        finally:
            for load in loads:
                load.send_signal(signal.SIGTERM)
            for load in loads:
                load.wait(timeout=60)
        self.load, self.slow = (json.loads(report.read_text()) for report in reports)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Ask the API for the health of all targets, again and again, until the block ends."""
        ended = threading.Event()
        watcher = threading.Thread(target=lambda: self.fleet.inside(lambda: self._sample(ended)))
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join(60)

    def _sample(self, ended: threading.Event) -> None:
        # A look that is throttled is made again: it would miss what it is for.
        client = Site(self.service).client(self.kind.client, max_attempts=20)
        # The last look is made when all is over.
        last = False
        while not last:
            last = ended.wait(SAMPLE_SECONDS)
            self.samples.append({pool: self.kind.healthy(client, pool) for pool in self.pools})

    def _loadgen(
        self, port: int, path: str, rate: int, report: Path, *options: str
    ) -> subprocess.Popen[Any]:
        url = f"http://{CONTROLLER}:{port}{path}"
        program = [BIN / "python", "-m", "bascule.demo.loadgen", url, "--rate", str(rate)]
        return self.fleet.popen([*program, "--json", report, *options], stdout=subprocess.DEVNULL)

    # What every story claims

    def check_users(self, versions: set[str]) -> None:
        """See that no request failed, and none in flight was cut."""
        assert self.load["sent"] >= 0.9 * self.rate * (self.loaded - 2), self.load
        assert self.load["failed"] == 0, self.load
        assert set(self.load["statuses"]) == {"200"}, self.load
        assert set(self.load["versions"]) == versions, self.load
        assert self.slow["sent"] >= 0.9 * SLOW_RATE * (self.loaded - 2), self.slow
        assert self.slow["failed"] == 0, self.slow
        assert set(self.slow["statuses"]) == {"200"}, self.slow

    def check_floor(self, floor: int) -> None:
        """See that the floor was reached and never broken, and all are in service at the end."""
        assert len(self.samples) > 20
        for pool in self.pools:
            assert min(sample[pool] for sample in self.samples) == floor, pool
            assert self.samples[-1][pool] == len(self.names), "at the end all are in service"


BROKEN = """\
#!/bin/sh
case $(hostname) in {broken})
  echo "the catalogue of {version} cannot be read" >&2
  exit 9
esac
"""


@contextmanager
def rolling(
    folder: Path, kind: str, *, size: int, floor: int, rate: int = RATE, hooks: Sequence[str] = ()
) -> Iterator[Story]:
    """Give a fleet behind a load balancer, with nothing deployed to it yet.

    :param hooks: what more of AWS's truth the service has (see ``alb.running``)
    """
    with (
        Fleet(size) as fleet,
        alb.running(
            folder / "service",
            propagation=PROPAGATION,
            address=CONTROLLER,
            port=API,
            hooks=hooks,
            popen=fleet.popen,
            inside=fleet.inside,
        ) as service,
    ):
        variables = {
            "deploy_application": "web",
            "deploy_targets": "web",
            "deploy_minimum_healthy_hosts": floor,
            "deploy_traffic_target_port": PORT,
            "deploy_traffic_drain_timeout": "60s",
            "deploy_traffic_restore_timeout": "60s",
            "deploy_notifications": [{"type": "eventbridge"}],
            **KINDS[kind].variables,
        }
        controller = Controller(
            fleet.inventory,
            folder / "state",
            variables,
            within=fleet.command,
            environment={
                **service.environment,
                "ANSIBLE_CALLBACKS_ENABLED": "bascule.deploy.cloudwatch",
            },
            timeout=900,
        )
        story = Story(KINDS[kind], folder, fleet, controller, service, rate)
        controller.inventory = fleet.inside(lambda: _set_up(story))
        yield story


def _set_up(story: Story) -> Path:
    """Make the instances and the load balancer; returns the inventory with the instances' ids."""
    site = Site(story.service)
    story.pools = story.kind.set_up(site)
    content = json.loads(story.fleet.inventory.read_text())
    for name, variables in content["all"]["children"]["web"]["hosts"].items():
        variables["instance_id"] = site.instance(name, story.fleet.host(name).address)
    path = story.folder / "instances.yml"
    path.write_text(json.dumps(content))
    return path
