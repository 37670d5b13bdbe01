"""Two pools of local targets behind one real proxy, and revisions of an application for them.

Each target is a sysroot on this machine; the hooks of a revision start its application on the
target's own port, so what a deployment does is seen in the answers of the proxy.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from support import proxies, site
from support.alb_pools import addresses, alb_pools
from support.bundles import SERVER
from support.pools import START
from support.rollout import BIN, ROOT, Controller
from support.users import start_users

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

APPSPEC = """\
version: 0.0
os: linux
files:
  - source: app
    destination: /opt/web
hooks:
  ApplicationStop: [{location: hooks/stop.sh, timeout: 60}]
  ApplicationStart: [{location: hooks/start.sh, timeout: 60}]
  ValidateService: [{location: hooks/validate.sh, timeout: 60}]
"""
START_HOOK = """\
#!/bin/sh
cd "$HOME_OF_WEB" || exit 1
setsid "$PYTHON" server.py </dev/null >../web.log 2>&1 &
echo $! >../web.pid
"""
STOP_HOOK = """\
#!/bin/sh
pid=$(cat "$HOME_OF_WEB/../web.pid" 2>/dev/null) || exit 0
kill "$pid" 2>/dev/null || exit 0
while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
"""
VALIDATE_HOOK = """\
#!/bin/sh
until "$PYTHON" -c "import urllib.request as u; u.urlopen('http://$ADDRESS:$PORT/health')"
do sleep 0.1; done
"""
# Who runs what, in one file for all targets; what follows is the revision whose script it is.
LOG_HOOK = """\
#!/bin/sh
version=$(cat "$(dirname "$0")/../app/VERSION")
echo "$DEPLOYMENT_ID $LIFECYCLE_EVENT $TARGET_NAME $version $TARGET_POOL" >>"$HOOKS_LOG"
"""
AROUND_TRAFFIC = (
    "AfterAllowTestTraffic", "BeforeAllowTraffic", "AfterAllowTraffic", "BeforeBlockTraffic",
    "AfterBlockTraffic",
)  # fmt: skip
# What a bad revision answers; it feels well all the same.
BAD = ("self.send_response(200)", 'self.send_response(200 if self.path == "/health" else 503)')


def revision(folder: Path, version: str, *, bad: bool = False, logged: bool = False) -> Path:
    """Write a revision of the application.

    :param bad: it answers every request but that for its health with 503
    :param logged: it has hooks for all events around the traffic, which ``TwoPools.hooks`` tells
    """
    (folder / "app").mkdir(parents=True)
    (folder / "hooks").mkdir()
    text = SERVER.replace(*BAD) if bad else SERVER
    assert not bad or text != SERVER
    (folder / "app" / "server.py").write_text(text)
    (folder / "app" / "VERSION").write_text(f"{version}\n")
    more = [f"  {event}: [{{location: hooks/log.sh}}]\n" for event in AROUND_TRAFFIC if logged]
    (folder / "appspec.yml").write_text(APPSPEC + "".join(more))
    hooks = {
        "start.sh": START_HOOK, "stop.sh": STOP_HOOK, "validate.sh": VALIDATE_HOOK,
        "log.sh": LOG_HOOK,
    }  # fmt: skip
    for name, script in hooks.items():
        path = folder / "hooks" / name
        path.write_text(script)
        path.chmod(0o755)
    return folder


@dataclass
class TwoPools:
    """The proxy, the targets and the controller."""

    provider: str
    folder: Path
    pools: dict[str, list[str]]
    proxy: proxies.Proxy
    controller: Controller
    loads: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def revision(self, version: str, **options: Any) -> Path:
        return revision(self.folder / "revisions" / version, version, **options)

    def hooks(self, deployment: str) -> list[str]:
        """The hooks around the traffic that ran in a deployment: event, target, version, pool."""
        log = self.folder / "hooks.log"
        lines = [line.partition(" ") for line in log.read_text().splitlines()]
        return [rest for name, _space, rest in lines if name == deployment]

    def ask(self, count: int = 1, **headers: str) -> dict[str, int]:
        """Send requests through the proxy; count the versions that answered."""
        seen: dict[str, int] = {}
        parts = urlsplit(self.proxy.url)
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=30)
        with contextlib.closing(connection):
            for _request in range(count):
                connection.request("GET", "/", headers=headers)
                answer = connection.getresponse()
                answer.read()
                version = answer.headers.get("X-Version") or f"status {answer.status}"
                seen[version] = seen.get(version, 0) + 1
        return seen

    def load(self, rate: float) -> Callable[[], dict[str, Any]]:
        """Start users; the function that is returned ends them and gives their report.

        ``load-NUMBER.log`` in the folder has a line for each request.
        """
        report = self.folder / f"load-{len(self.loads)}.json"
        log = str(report.with_suffix(".log"))
        return start_users(self.proxy.url + "/", rate, report, self.loads, "--log", log)

    def start(self, playbook: str, **variables: Any) -> subprocess.Popen[bytes]:
        """Start a playbook in a process group of its own, so that it can be killed as a whole."""
        said = json.dumps(self.controller.variables | variables, default=str)
        with (self.folder / f"{playbook}.log").open("ab") as log:
            return subprocess.Popen(
                [BIN / "ansible-playbook", "-i", self.controller.inventory,
                 f"bascule.deploy.{playbook}", "-e", said],
                cwd=ROOT,
                env={
                    **os.environ,
                    "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                    "ANSIBLE_NOCOLOR": "1",
                    "BASCULE_STATE": str(self.controller.state),
                    **self.controller.environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def weights(self, deployment: str) -> list[dict[str, float]]:
        """What the routing was set to in a deployment, in order."""
        with contextlib.closing(self.controller.record()) as record:
            return [
                (one.after or {}).get("weights", {}) for one in record.routing_changes(deployment)
            ]

    def steps(self, deployment: str) -> list[tuple[str, str]]:
        """The steps of a deployment with how each ended."""
        with contextlib.closing(self.controller.record()) as record:
            return [(step.told, step.status) for step in record.steps(deployment)]

    def trace(self, deployment: str) -> list[tuple[str, str, str]]:
        """The logical events of a deployment's schedule, the same on every provider."""
        kinds = ("StepStarted", "StepEnded", "TrafficRouted")
        return [
            (one.event, one.status, one.message.partition(": ")[0])
            for one in self.controller.events(deployment)
            if one.event in kinds
        ]

    def stop(self) -> None:
        for process in self.loads:
            proxies.stop(process)
        self.proxy.stop()
        for pid in self.folder.glob("hosts/*/opt/web.pid"):
            with contextlib.suppress(ProcessLookupError, ValueError):
                os.kill(int(pid.read_text()), signal.SIGKILL)


def until(condition: Callable[[], Any], seconds: float = 90.0) -> Any:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.05)
    return found


def all_counted(looks: list[dict[str, Any]], metric: str) -> dict[str, dict[str, int]]:
    """What a judge has counted of a rate in all its looks, by arm; a look may see no request."""
    found = {arm: {"bad": 0, "total": 0} for arm in ("canary", "baseline")}
    for look in looks:
        for arm, counts in (look["rates"].get(metric) or {}).items():
            for key in counts.keys() & found[arm].keys():
                found[arm][key] += counts[key]
    return found


def provider_variables(proxy: proxies.Proxy) -> dict[str, Any]:
    """The public variables that name this proxy and its pools, if it has any."""
    prefix = f"deploy_{proxy.provider}_"
    own = {f"{prefix}{name}": value for name, value in proxy.options.items() if name != "pools"}
    return {
        "deploy_traffic_provider": proxy.provider,
        "deploy_traffic_pools": proxy.options.get("pools", {}),
        **own,
    }


@contextlib.contextmanager
def two_pools(
    provider: str,
    folder: Path,
    pools: dict[str, Sequence[str]],
    **variables: Any,
) -> Iterator[TwoPools]:
    """Start a proxy over the pools; the first has the traffic. Nothing runs on the targets yet.

    :param pools: names of targets by pool; a single one is all that the proxy knows, without pools
    :param variables: public variables of the deployment group
    """
    names = [name for some in pools.values() for name in some]
    places = dict.fromkeys(names, "127.0.0.1")
    ports = {name: proxies.free_port() for name in names}
    if provider == "elbv2":
        # The members of a target group have one port.
        places, ports = addresses(names), dict.fromkeys(names, ports[names[0]])
    endpoints = {
        pool: [proxies.Endpoint(name, places[name], ports[name]) for name in some]
        for pool, some in pools.items()
    }
    hosts = {
        name: {
            **({"deploy_pool": pool} if len(pools) > 1 else {}),
            "deploy_sysroot": str(folder / "hosts" / name),
            "deploy_traffic_target_address": places[name],
            "deploy_traffic_target_port": ports[name],
            "deploy_hook_environment": {
                "ADDRESS": places[name],
                "PORT": str(ports[name]),
                "PYTHON": sys.executable,
                "HOOKS_LOG": str(folder / "hooks.log"),
                "HOME_OF_WEB": str(folder / "hosts" / name / "opt" / "web"),
            },
        }
        for pool, some in pools.items()
        for name in some
    }
    common = {
        "ansible_connection": "local",
        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
    }
    inventory = folder / "inventory.json"
    folder.mkdir(parents=True, exist_ok=True)
    for name in hosts:
        (folder / "hosts" / name).mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        environment: dict[str, str] = {}
        proxy: proxies.Proxy
        if provider == "elbv2":
            balancer = stack.enter_context(alb_pools(folder, endpoints))
            environment, proxy = balancer.service.environment, balancer
            for name, variables_of in hosts.items():
                variables_of["deploy_instance_id"] = balancer.ids[name]
        elif len(pools) > 1:
            proxy = START[provider](folder / "proxy", endpoints)
        else:
            proxy = site.START[provider](
                folder / "proxy", *endpoints.values(), changes=site.QUICK[provider]
            )
        groups = {"web": {"hosts": hosts, "vars": common}}
        inventory.write_text(json.dumps({"all": {"children": groups}}, indent=1))
        given = {
            "deploy_application": "shop",
            "deploy_targets": "web",
            **provider_variables(proxy),
            **variables,
        }
        controller = Controller(inventory, folder / "state", given, environment=environment)
        made = TwoPools(provider, folder, {k: list(v) for k, v in pools.items()}, proxy, controller)
        stack.callback(made.stop)
        yield made
