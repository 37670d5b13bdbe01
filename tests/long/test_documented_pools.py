"""The examples of blue/green, canary and schedules in the documentation, pasted and carried out.

Only what belongs to a machine is replaced in them: addresses, folders and ports; and their minutes
are seconds here.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from support import proxies
from support.pools import START
from support.rollout import ROOT, Controller
from support.twopools import TwoPools, two_pools, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STRATEGIES, SCHEDULES = ROOT / "docs/strategies.md", ROOT / "docs/schedules.md"
LOAD_BALANCERS = ROOT / "docs/load-balancers.md"
POOLS = {"blue": ["b1", "b2"], "green": ["g1", "g2"]}


def pasted(page: Path, having: str, changes: dict[str, str]) -> str:
    """Return the page's only indented example that has this text, with some texts replaced."""
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", page.read_text(), re.M)
    (found,) = [textwrap.dedent(one).strip() + "\n" for one in blocks if having in one]
    return proxies.replaced(found, changes)


def alternatives() -> dict[str, Any]:
    """Return the ways in which the page on schedules writes one, by their first line."""
    text = pasted(SCHEDULES, "deploy_schedule: all_at_once", {})
    ways = re.split(r"^(?=deploy_schedule:)", text, flags=re.M)[1:]
    return {one.splitlines()[0]: yaml.safe_load(one)["deploy_schedule"] for one in ways}


def quickened(value: Any) -> Any:
    """Return a schedule whose minutes are seconds."""
    return json.loads(re.sub(r'"(\d+)m"', '"1s"', json.dumps(value)))


def group(site: TwoPools, names: dict[str, list[str]], text: str) -> Controller:
    """Write an inventory whose settings are an example, and return who deploys with it."""
    known = json.loads(site.controller.inventory.read_text())["all"]["children"]["web"]
    hosts = {
        name: {key: value for key, value in own.items() if key != "deploy_pool"}
        for name, own in known["hosts"].items()
    }
    folder = site.folder / "inventory"
    (folder / "group_vars").mkdir(parents=True, exist_ok=True)
    children = {part: {"hosts": {one: hosts[one] for one in some}} for part, some in names.items()}
    shop = {"children": children, "vars": known["vars"]}
    (folder / "hosts.json").write_text(json.dumps({"all": {"children": {"shop": shop}}}))
    (folder / "group_vars" / "shop.yml").write_text(text)
    return Controller(folder, site.folder / "state-of-page", timeout=600)


def deployed(controller: Controller, strategy: str, revision: Path, *more: str) -> Any:
    """Deploy as the page says, and return the run."""
    return controller.command(
        "deploy", strategy, "-i", str(controller.inventory), "--targets", "shop",
        "--revision", str(revision), "-e", "deploy_application=shop", *more,
    )  # fmt: skip


def at_envoy(site: TwoPools) -> str:
    return (
        "deploy_traffic_provider: envoy\n"
        f"deploy_envoy_routes_path: {site.proxy.options['routes_path']}\n"
        f"deploy_envoy_admin_url: {site.proxy.options['admin_url']}\n"
    )


def test_the_blue_green_of_the_page(tmp_path: Path) -> None:
    with two_pools("envoy", tmp_path / "site", POOLS) as site:
        options = site.proxy.options
        text = (
            pasted(
                STRATEGIES,
                "deploy_pools: {blue: shop_blue, green: shop_green}",
                {
                    "/etc/envoy/rds/shop.json": options["routes_path"],
                    "/etc/envoy/eds/shop-blue.json": options["pools"]["blue"]["eds_path"],
                    "/etc/envoy/eds/shop-green.json": options["pools"]["green"]["eds_path"],
                    "http://lb-1/": f"{site.proxy.url}/",
                    ": 5m": ": 1s",
                    ": 10m": ": 1s",
                },
            )
            + f"deploy_envoy_admin_url: {options['admin_url']}\n"
        )
        controller = group(site, {"shop_blue": ["b1", "b2"], "shop_green": ["g1", "g2"]}, text)
        run = deployed(controller, "blue_green", site.revision("1.0"))
        assert run.status == 0, run.said
        end = site.load(50)
        for version, pool in (("2.0", "blue"), ("3.0", "green")):
            run = deployed(controller, "blue_green", site.revision(version))
            assert run.status == 0, run.said
            assert site.ask(20) == {version: 20}
            assert controller.deployments()[0].plan["pools"]["new"] == pool
        run = controller.command("rollback", "shop", "-i", str(controller.inventory))
        assert run.status == 0, run.said
        assert site.ask(20) == {"2.0": 20}
        assert end()["failed"] == 0


def test_the_canary_of_the_page_with_pools_of_its_own(tmp_path: Path) -> None:
    pools = {"fleet": ["f1", "f2", "f3"], "canary": ["c1"]}
    with two_pools("envoy", tmp_path / "site", pools) as site:
        options = site.proxy.options
        text = at_envoy(site) + pasted(
            STRATEGIES,
            "deploy_pools: {fleet: shop_fleet, canary: shop_canary}",
            {
                "cluster: shop,": "cluster: shop-fleet,",
                "/etc/envoy/eds/shop.json": options["pools"]["fleet"]["eds_path"],
                "/etc/envoy/eds/shop-canary.json": options["pools"]["canary"]["eds_path"],
                "- bake: 10m": "- bake: 2s",
                "count: 5": "count: 2, interval: 1s, consecutive_error_limit: 30",
            },
        )
        controller = group(site, {"shop_fleet": pools["fleet"], "shop_canary": ["c1"]}, text)
        first = ("-e", "deploy_schedule=all_at_once")
        run = deployed(controller, "canary", site.revision("1.0"), *first)
        assert run.status == 0, run.said
        end = site.load(100)
        run = deployed(controller, "canary", site.revision("2.0"))
        assert run.status == 0, run.said
        assert site.ask(20) == {"2.0": 20}
        before = controller.deployments()[0]
        with_revision = controller.targets(before.id)
        assert {one.status for one in with_revision.values()} == {"Succeeded"}
        assert set(with_revision) == {"f1", "f2", "f3", "c1"}
        run = deployed(controller, "canary", site.revision("3.0", bad=True))
        assert run.status == 1, run.said
        assert site.ask(20) == {"2.0": 20}
        touched = controller.targets(controller.deployments()[1].id)
        assert {name for name, one in touched.items() if one.changed} == {"c1"}
        load = end()
        assert load["failed"] == load["versions"].get("3.0", 0)


def test_the_canary_of_the_page_among_the_targets_with_a_fresh_baseline(tmp_path: Path) -> None:
    names = ["w1", "w2", "w3", "w4", "w5", "w6"]
    with two_pools("envoy", tmp_path / "site", {"web": names}) as site:
        text = pasted(STRATEGIES, "deploy_canary_baseline: fresh", {"bake: 10m": "bake: 20s"})
        text += "".join(
            f"{name}: {json.dumps(value)}\n"
            for name, value in site.controller.variables.items()
            if name.startswith(("deploy_traffic_provider", "deploy_envoy_"))
        )
        controller = group(site, {"shop_web": names}, text)
        first = ("-e", '{"deploy_judge": {}}')
        rolling = deployed(controller, "rolling", site.revision("1.0"), *first)
        assert rolling.status == 0, rolling.said
        end = site.load(200)
        run = deployed(controller, "canary", site.revision("2.0"))
        assert run.status == 0, run.said
        assert site.ask(20) == {"2.0": 20}
        canary, baseline = controller.deployments()[:2]
        assert canary.options["baseline"] == baseline.id
        assert len(baseline.plan["targets"]) == 2
        run = deployed(controller, "canary", site.revision("3.0", bad=True))
        assert run.status == 1, run.said
        back, bad = controller.deployments()[:2]
        assert (bad.error_code, back.rollback_of) == ("GATE_FAILED", bad.id)
        assert site.ask(20) == {"2.0": 20}
        load = end()
        assert load["failed"] == load["versions"].get("3.0", 0)


def test_the_two_slots_of_the_page(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    block = f"127.{proxies.free_port() % 200 + 10}.{proxies.free_port() % 200 + 10}"
    places = {"one": f"{block}.1", "two": f"{block}.2"}
    ports = {"blue": proxies.free_port(), "green": proxies.free_port()}
    folder.mkdir()
    proxy = START["envoy"](
        folder / "proxy",
        {
            pool: [proxies.Endpoint(name, place, port) for name, place in places.items()]
            for pool, port in ports.items()
        },
    )
    text = pasted(
        STRATEGIES,
        "deploy_pools: {blue: shop, green: shop}",
        {
            "8081": str(ports["blue"]),
            "8082": str(ports["green"]),
            '"/srv/{{ deploy_pool }}"': f'"{folder}/hosts/{{{{ inventory_hostname }}}}-'
            '{{ deploy_pool }}"',
            "deploy_hook_environment: {": "deploy_hook_environment: {ADDRESS: "
            f'"{{{{ deploy_traffic_target_address }}}}", PYTHON: {sys.executable}, HOME_OF_WEB: '
            '"{{ deploy_sysroot }}/opt/web", ',
        },
    )
    common = {
        "ansible_connection": "local",
        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
    }
    hosts = {name: {"deploy_traffic_target_address": place} for name, place in places.items()}
    inventory = folder / "inventory"
    (inventory / "group_vars").mkdir(parents=True)
    shop = {"hosts": hosts, "vars": common}
    (inventory / "hosts.json").write_text(json.dumps({"all": {"children": {"shop": shop}}}))
    for name in places:
        for pool in ports:
            (folder / "hosts" / f"{name}-{pool}").mkdir(parents=True)
    controller = Controller(inventory, folder / "state", timeout=600)
    names = {pool: [*places] for pool in ports}
    site = TwoPools("envoy", folder, names, proxy, controller)
    try:
        pools = json.dumps(proxy.options["pools"])
        (inventory / "group_vars/shop.yml").write_text(
            f"{at_envoy(site)}deploy_traffic_pools: {pools}\n{text}"
        )
        run = deployed(controller, "blue_green", site.revision("1.0"))
        assert run.status == 0, run.said
        end = site.load(50)
        for version in ("2.0", "3.0"):
            run = deployed(controller, "blue_green", site.revision(version))
            assert run.status == 0, run.said
            assert site.ask(20) == {version: 20}
        assert end()["failed"] == 0
    finally:
        site.stop()


@pytest.fixture(scope="module")
def scheduled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoPools]:
    with two_pools("envoy", tmp_path_factory.mktemp("schedules") / "site", POOLS) as site:
        site.controller.timeout = 600
        run = site.controller.playbook("blue_green", deploy_revision=site.revision("0.0"))
        assert run.status == 0, run.said
        yield site


@pytest.mark.parametrize(("number", "first"), [*enumerate(alternatives(), 1)])
def test_a_schedule_of_the_page(scheduled: TwoPools, number: int, first: str) -> None:
    given = alternatives()[first]
    run = scheduled.controller.playbook(
        "blue_green", "--check",
        deploy_revision=scheduled.folder / "revisions" / "0.0", deploy_redeploy=True,
        deploy_schedule=given,
    )  # fmt: skip
    assert run.status == 0, run.said
    assert "shift 100% of the traffic to" in run.said
    if isinstance(given, str) and given != "all_at_once":
        assert "bake for 5m" in run.said
        return
    schedule = quickened(given)
    if isinstance(schedule, list):
        schedule[0]["gate"] |= {"url": f"{scheduled.proxy.url}/", "interval": "1s"}
        gates = [step["gate"] for step in schedule if "gate" in step]
        gates[1] |= {"interval": "1s", "consecutive_error_limit": 30}
    end = scheduled.load(100)
    version = f"{number}.0"
    process = scheduled.start(
        "blue_green", deploy_revision=scheduled.revision(version), deploy_schedule=schedule
    )
    try:
        if isinstance(schedule, list):
            controller = scheduled.controller

            def asked() -> str:
                assert process.poll() is None, (scheduled.folder / "blue_green.log").read_text()
                newest = controller.deployments()[0]
                waits = [
                    told
                    for told, status in scheduled.steps(newest.id)
                    if told.startswith("wait for an approval") and status == "InProgress"
                ]
                return str(newest.id) if waits else ""

            answer = controller.command("approve", until(asked, 300))
            assert answer.status == 0, answer.said
        status = process.wait(timeout=600)
    finally:
        process.kill()
        process.wait()
    assert status == 0, (scheduled.folder / "blue_green.log").read_text()
    assert scheduled.ask(20) == {version: 20}
    assert end()["failed"] == 0


def test_the_test_listener_of_the_page(tmp_path: Path) -> None:
    with two_pools("elbv2", tmp_path / "site", POOLS) as site:
        balancer: Any = site.proxy
        port = proxies.free_port()
        groups = balancer.options["pools"]
        test = balancer.site.elbv2.create_listener(
            LoadBalancerArn=balancer.site.balancer, Protocol="HTTP", Port=port,
            DefaultActions=[
                {"Type": "forward", "TargetGroupArn": groups["blue"]["target_group"]}
            ],
        )["Listeners"][0]["ListenerArn"]  # fmt: skip
        url = f"http://{balancer.service.address}:{port}/"
        text = pasted(LOAD_BALANCERS, "deploy_test_route: {listener:", {})
        text = re.sub('"arn:[^"]*"', json.dumps(test), text)
        route = yaml.safe_load(text)["deploy_test_route"]
        end: Any = None
        for version in ("1.0", "2.0"):
            body = rf"^{version} "
            asked = {"type": "http", "url": url, "count": 1, "body": body, "interval": "1s"}
            run = site.controller.playbook(
                "blue_green", deploy_revision=site.revision(version), deploy_test_route=route,
                deploy_schedule=[{"gate": asked}, {"shift": "50%"}, {"bake": "2s"}],
            )  # fmt: skip
            assert run.status == 0, run.said
            assert site.ask(20) == {version: 20}
            end = end or site.load(50)
        seen = [urllib.request.urlopen(url, timeout=30).headers["X-Version"] for _ in range(10)]
        assert set(seen) == {"2.0"}
        assert end()["failed"] == 0
