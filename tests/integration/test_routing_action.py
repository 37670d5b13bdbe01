"""The action traffic between pools, in a playbook, with the options that the roles give it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.bascule.deploy.plugins.module_utils._routing import (
    PROVIDER_OPTIONS,
    ROUTING_OPTIONS,
)
from support import proxies
from support.pools import Pools, pools

ROLE = Path(__file__).parents[2] / "roles/deploy"
ROUTING = {
    "weights": {"blue": 90, "green": 10},
    "match": [{"pool": "green", "header": "X-Bascule-Test", "value": "green"}],
}
BACK = {"weights": {"blue": 100, "green": 0}}
HERE = "{{ inventory_hostname }}"


def variables(site: Pools) -> dict[str, Any]:
    """Return the public variables of a proxy, beside the defaults of the role."""
    provider = site.provider
    names = {**PROVIDER_OPTIONS[provider], **ROUTING_OPTIONS[provider]}
    given = {f"deploy_{name}": site.proxy.options.get(option) for name, option in names.items()}
    return {
        **yaml.safe_load((ROLE / "defaults/main.yml").read_text()),
        **yaml.safe_load((ROLE / "vars/main.yml").read_text()),
        **{name: value for name, value in given.items() if value is not None},
        "deploy_traffic_provider": provider,
        "deploy_reconnect_timeout": "0s",
        "deploy_traffic_pools": site.proxy.options["pools"],
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
    }


def task(number: int, **arguments: Any) -> dict[str, Any]:
    check = arguments.pop("check", False)
    return {
        "name": f"Task {number}",
        "bascule.deploy.traffic": {
            "provider": "{{ deploy_traffic_provider }}",
            "options": "{{ __deploy_traffic_options }}",
            **arguments,
        },
        "check_mode": check,
        "register": f"result_{number}",
        "ignore_errors": True,
    }


def keep(count: int) -> dict[str, Any]:
    """Return the task that writes all results into a file, at once: each file costs two modules."""
    kept = ", ".join(f"result_{number}" for number in range(count))
    return {
        "name": "Keep the results",
        "ansible.builtin.copy": {
            "content": f"{{{{ [{kept}] | to_json }}}}",
            "dest": "{{ folder }}/{{ inventory_hostname }}.json",
            "mode": "0600",
        },
    }


def play(directory: Path, sites: list[Pools], *tasks: dict[str, Any], pipelining: bool) -> str:
    """Run the tasks at every proxy; their results are files; return what was shown."""
    hosts = {site.provider: variables(site) for site in sites}
    # The same proxy once more, and a host of a load balancer that is away.
    others = {f"{name}-again": own for name, own in hosts.items()}
    others["dark"] = {"ansible_host": "127.0.0.1", "ansible_port": proxies.free_port()}
    inventory = {"all": {"hosts": {**hosts, **others}, "vars": {"folder": str(directory)}}}
    (directory / "inventory.json").write_text(json.dumps(inventory))
    content = [{"hosts": list(hosts), "gather_facts": False, "tasks": [*tasks, keep(len(tasks))]}]
    (directory / "play.json").write_text(json.dumps(content))
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), "play.json",
         "-i", "inventory.json", "--diff"],
        env={**os.environ, "ANSIBLE_PIPELINING": str(pipelining)},
        cwd=directory, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def results(directory: Path, site: Pools) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((directory / f"{site.provider}.json").read_text())
    return found


def test_pools_are_routed_and_measured_by_a_playbook(tmp_path: Path) -> None:
    with (
        pools("envoy", tmp_path) as envoy,
        pools("haproxy", tmp_path) as haproxy,
        pools("nginx", tmp_path) as nginx,
    ):
        sites = [envoy, haproxy, nginx]
        for site in sites:
            site.share(blue=100, green=0)
        target = {"name": "green-1", "address": "127.0.0.1", "port": 1}
        shown = play(
            tmp_path,
            sites,
            task(0, state="routed", routing=ROUTING, check=True),
            task(1, state="routed", routing=ROUTING),
            task(2, state="measured"),
            task(3, state="observed", pool="red", targets=[target]),
            task(4, state="routed", routing={"weights": {"red": 100}}),
            task(5, state="routed", routing=BACK, hosts=[f"{HERE}-again", "dark", HERE]),
            task(6, state="routed", routing=ROUTING, hosts=[HERE, f"{HERE}-again"]),
            task(7, state="measured", hosts=[HERE, f"{HERE}-again"]),
            pipelining=True,
        )
        assert shown.count("+header X-Bascule-Test=green: green") >= 3 * len(sites)
        for site in sites:
            foreseen, made, measured, stranger, refused, back, both, twice = results(tmp_path, site)
            for answer in (foreseen, made):
                assert answer["changed"]
                assert answer["routing"]["before"]["weights"] == {"blue": 100.0, "green": 0.0}
                assert answer["routing"]["after"]["weights"] == {"blue": 90.0, "green": 10.0}
            assert set(measured["pools"]) == {"blue", "green"}
            assert measured["at"] > 1.7e9
            assert measured["counted"] == [
                {key: measured[key] for key in measured["counted"][0]}
            ], "of one load balancer"
            assert [set(one["pools"]) for one in twice["counted"]] == [{"blue", "green"}] * 2
            assert "no pool 'red'; deploy_traffic_pools has blue, green" in stranger["msg"]
            assert "there is no pool red; deploy_traffic_pools has blue, green" in refused["msg"]
            # Who is away holds nobody up, and is told of.
            assert back["failed"]
            assert back["changed"]
            assert back["msg"].startswith("dark: Cannot reach the host: ")
            assert back["bascule"]["error"]["message"] == back["msg"]
            assert not both.get("failed")
            assert [one["before"] for one in both["diff"]].count("blue: 100 %\ngreen: 0 %\n") >= 1
            assert site.ask(3, **{"X-Bascule-Test": "green"}) == {"green": 3}


def test_the_plan_warns_of_reloads_that_may_lose_requests(tmp_path: Path) -> None:
    (tmp_path / "revision").mkdir()
    (tmp_path / "revision/appspec.yml").write_text("version: 0.0\nos: linux\n")
    pool_of = {"blue-1": "blue", "green-1": "green"}
    ports = {name: proxies.free_port() for name in pool_of}
    proxy = proxies.start_nginx_pools(
        tmp_path / "nginx",
        {
            pool_of[name]: [proxies.Endpoint(name, "127.0.0.1", port)]
            for name, port in ports.items()
        },
        changes={"if (-f /etc/nginx/bascule/closing) { return 418; }": ""},
    )
    hosts = {
        name: {"deploy_pool": pool_of[name], "deploy_traffic_target_port": port}
        for name, port in ports.items()
    }
    settings = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "deploy_application": "shop",
        "deploy_revision": str(tmp_path / "revision"),
        "deploy_sysroot": str(tmp_path / "root"),
        "deploy_state_directory": str(tmp_path / "state"),
        "deploy_configuration": "CodeDeployDefault.AllAtOnce",
        "deploy_traffic_provider": "nginx",
        "deploy_traffic_pools": proxy.options["pools"],
        "deploy_nginx_directory": proxy.options["directory"],
        "deploy_nginx_command": proxy.options["command"],
        "deploy_nginx_pid_path": proxy.options["pid_path"],
        "deploy_nginx_log_path": proxy.options["log_path"],
    }
    inventory = {"all": {"children": {"targets": {"hosts": hosts}}, "vars": settings}}
    (tmp_path / "inventory.json").write_text(json.dumps(inventory))
    try:
        done = {
            strategy: subprocess.run(
                [str(Path(sys.executable).with_name("ansible-playbook")),
                 f"bascule.deploy.{strategy}", "-i", str(tmp_path / "inventory.json"), "--check",
                 "-e", json.dumps(more)],
                cwd=ROLE.parents[1], capture_output=True, text=True, timeout=300, check=False,
            )
            for strategy, more in [
                ("blue_green", {}),
                ("rolling", {"deploy_traffic_pools": {}, "deploy_nginx_upstream": "shop-green",
                             "deploy_targets": "green-1"}),
            ]
        }  # fmt: skip
    finally:
        proxy.stop()
    for run in done.values():
        assert run.returncode == 0, run.stdout + run.stderr
        assert "Warning: nginx is reloaded for each change of the traffic, and its" in run.stdout
    assert "Traffic before: blue 100%" in done["blue_green"].stdout


def test_the_module_has_all_that_it_needs(tmp_path: Path) -> None:
    with pools("nginx", tmp_path) as nginx:
        play(tmp_path, [nginx], task(0, state="routed", routing=ROUTING), pipelining=False)
        assert results(tmp_path, nginx)[0]["changed"]
        assert nginx.ask(3, **{"X-Bascule-Test": "green"}) == {"green": 3}
