"""What a load balancer of AWS is between its API and its traffic: registrations, checks, delays.

The control plane is moto's; this reads it, keeps the state of every target, asks each target's
health check itself, and says what the proxies have to do just now. Rules of a target's state, as
the user guides of ELB tell them: a new target is ``initial`` until its first check passes, or
``unhealthy`` after ``UnhealthyThresholdCount`` failures; a deregistered one is ``draining`` until
the deregistration delay is over, whether its last request has ended before or not; a group without
a healthy target gets requests at all of its targets; nothing that the API is told reaches the
traffic before the propagation is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from moto.backends import get_backend
from moto.core import DEFAULT_ACCOUNT_ID

Member = tuple[str, int]

# An instance of moto has an address in a network that there is not: this tag names its real one.
ADDRESS_TAG = "test:address"
SECONDS = 0.1


@dataclass(frozen=True)
class Check:
    """A health check, as a target group or a classic load balancer has it."""

    protocol: str
    path: str
    port: int | None
    interval: float
    timeout: float
    healthy: int
    unhealthy: int
    matcher: str
    enabled: bool = True


@dataclass
class Target:
    """A registered target. ``active_at``: when the load balancer's nodes know of it."""

    member: Member
    address: str
    active_at: float
    state: str = "initial"
    reason: str = ""
    passed: int = 0
    failed: int = 0
    next_check: float = 0.0
    checking: bool = False


@dataclass
class Leaving:
    """A deregistered target: requests reach it until ``applied``; a member until ``until``."""

    address: str
    applied: float
    until: float
    served: bool


@dataclass
class Pool:
    """A target group, or the instances of a classic load balancer."""

    name: str
    check: Check
    delay: float
    used: bool = False
    targets: dict[Member, Target] = field(default_factory=dict)
    leaving: dict[Member, Leaving] = field(default_factory=dict)


@dataclass(frozen=True)
class Forward:
    """Requests shared between pools: (pool, weight), and for how long a user stays with one."""

    pools: tuple[tuple[str, int], ...]
    sticky: float | None = None


@dataclass(frozen=True)
class Answer:
    """A fixed response."""

    status: int
    body: str


@dataclass(frozen=True)
class Rule:
    """Which requests go where. Each condition is (what, name, patterns); all must hold."""

    conditions: tuple[tuple[str, str, tuple[str, ...]], ...]
    action: Forward | Answer


@dataclass(frozen=True)
class Listener:
    """A port, its rules by priority, and whether it speaks HTTP."""

    port: int
    rules: tuple[Rule, ...]
    http: bool = True


class Plane:
    """All load balancers of one region."""

    def __init__(self, region: str, propagation: float, hurry: float = 1.0) -> None:
        self.region = region
        # The shortest interval that AWS takes is 5 s; tests need not wait that long.
        self.hurry = hurry
        self.propagation = propagation
        # Seconds until CloudWatch hears of requests.
        self.late = 0.0
        self.pools: dict[str, Pool] = {}
        self.lock = threading.RLock()
        self._wanted: list[tuple[float, tuple[Listener, ...]]] = []
        self._listeners: tuple[Listener, ...] = ()

    # Reading what the API was told

    def backend(self, service: str) -> Any:
        backends: Any = get_backend(service)
        return backends[DEFAULT_ACCOUNT_ID][self.region]

    def read(self) -> None:
        """Take over what has changed at the API."""
        now = time.time()
        with self.lock:
            seen = {**self._read_groups(), **self._read_classic()}
            for name in [name for name in self.pools if name not in seen]:
                del self.pools[name]
            for name, (pool, members) in seen.items():
                known = self.pools.setdefault(name, pool)
                known.check, known.delay = pool.check, pool.delay
                self._register(known, members, now)
            wanted = tuple(self._read_listeners())
            last = self._wanted[-1][1] if self._wanted else self._listeners
            if wanted != last:
                self._wanted.append((now + self.propagation, wanted))
            used = {pool for one in wanted for rule in one.rules for pool in pools_of(rule)}
            for name, pool in self.pools.items():
                if pool.used != (name in used):
                    pool.used = name in used
                    for target in pool.targets.values():
                        target.state, target.passed, target.failed = "initial", 0, 0
                        target.active_at = now + self.propagation

    def _register(self, pool: Pool, members: dict[Member, str], now: float) -> None:
        for member, address in members.items():
            if member not in pool.targets:
                pool.leaving.pop(member, None)
                pool.targets[member] = Target(member, address, now + self.propagation)
        for member in [member for member in pool.targets if member not in members]:
            target = pool.targets.pop(member)
            pool.leaving[member] = Leaving(
                target.address,
                now + self.propagation,
                now + pool.delay,
                target.state == "healthy",
            )

    def _read_groups(self) -> dict[str, tuple[Pool, dict[Member, str]]]:
        found = {}
        for group in list(self.backend("elbv2").target_groups.values()):
            members = {}
            for one in list(group.targets.values()):
                address = self.address(one["Id"], group.target_type)
                if address:
                    members[(one["Id"], int(one["Port"] or group.port or 0))] = address
            port = str(group.health_check_port or "traffic-port")
            check = Check(
                protocol=str(group.health_check_protocol or "HTTP"),
                path=str(group.health_check_path or "/"),
                port=int(port) if port.isdigit() else None,
                interval=float(group.health_check_interval_seconds),
                timeout=float(group.health_check_timeout_seconds),
                healthy=int(group.healthy_threshold_count),
                unhealthy=int(group.unhealthy_threshold_count),
                matcher=str((getattr(group, "matcher", None) or {}).get("HttpCode") or "200"),
                enabled=bool(group.health_check_enabled),
            )
            delay = float(group.attributes["deregistration_delay.timeout_seconds"])
            found[group.arn] = Pool(group.arn, check, delay), members
        return found

    def _read_classic(self) -> dict[str, tuple[Pool, dict[Member, str]]]:
        found = {}
        for one in list(self.backend("elb").load_balancers.values()):
            if not one.listeners:
                continue
            port = int(one.listeners[0].instance_port)
            members = {
                (identity, port): address
                for identity in list(one.instance_ids)
                if (address := self.address(identity, "instance"))
            }
            given = one.health_check
            protocol, _colon, rest = (given.target if given else "TCP:80").partition(":")
            number, slash, path = rest.partition("/")
            check = Check(
                protocol, slash + path, int(number), float(given.interval if given else 30),
                float(given.timeout if given else 5), int(given.healthy_threshold if given else 10),
                int(given.unhealthy_threshold if given else 2), "200",
            )  # fmt: skip
            # moto keeps a default beside what it was given.
            drain = one.attributes["connection_draining"]
            on = str(drain.get("Enabled", drain.get("enabled"))).lower() == "true"
            delay = float(drain.get("Timeout") or drain.get("timeout") or 300) if on else 0.0
            found[classic(one.name)] = Pool(classic(one.name), check, delay), members
        return found

    def _read_listeners(self) -> list[Listener]:
        found = []
        for balancer in list(self.backend("elbv2").load_balancers.values()):
            http = balancer.type == "application"
            for one in list(balancer.listeners.values()):
                found.append(Listener(int(one.port), rules_of(one), http))
        for balancer in list(self.backend("elb").load_balancers.values()):
            for one in balancer.listeners:
                forward = Forward(((classic(balancer.name), 1),))
                found.append(Listener(int(one.load_balancer_port), (Rule((), forward),)))
        return found

    def balancers_of(self, name: str) -> list[str]:
        """Return the load balancers that forward to a target group, also if at weight 0."""
        return [
            balancer.arn
            for balancer in list(self.backend("elbv2").load_balancers.values())
            if any(
                name in pools_of(rule)
                for listener in list(balancer.listeners.values())
                for rule in rules_of(listener)
            )
        ]

    def address(self, identity: str, kind: str) -> str:
        """Return where a target really is; empty for what is no host."""
        if kind == "ip":
            return identity
        instance = self.backend("ec2").get_instance_by_id(identity)
        if instance is None or instance.state != "running":
            return ""
        tags = {tag["key"]: tag["value"] for tag in instance.get_tags()}
        return str(tags.get(ADDRESS_TAG) or instance.private_ip)

    # What the API answers

    def health(self, name: str) -> dict[Member, tuple[str, str, str]]:
        """Return state, reason and description of every member."""
        now = time.time()
        with self.lock:
            pool = self.pools.get(name)
            if pool is None:
                return {}
            told = {
                member: self._told(pool, target, now) for member, target in pool.targets.items()
            }
            for member, leaving in list(pool.leaving.items()):
                if now < leaving.until:
                    told[member] = (
                        "draining",
                        "Target.DeregistrationInProgress",
                        "Target deregistration is in progress",
                    )
        return told

    def _told(self, pool: Pool, target: Target, now: float) -> tuple[str, str, str]:
        if not pool.used and not pool.name.startswith("classic "):
            words = "Target group is not configured to receive traffic from the load balancer"
            return "unused", "Target.NotInUse", words
        if target.state == "initial" and now < target.active_at:
            words = "Target registration is in progress"
            return "initial", "Elb.RegistrationInProgress", words
        if target.state == "initial":
            return "initial", "Elb.InitialHealthChecking", "Initial health checks in progress"
        return target.state, target.reason, REASONS.get(target.reason, target.reason)

    # What the proxies do just now

    def listeners(self) -> tuple[Listener, ...]:
        """Return the listeners as they have propagated."""
        now = time.time()
        with self.lock:
            while self._wanted and self._wanted[0][0] <= now:
                self._listeners = self._wanted.pop(0)[1]
            return self._listeners

    def endpoints(self) -> dict[str, dict[tuple[str, int], str]]:
        """Return Envoy's health status of each address and port, by pool."""
        now = time.time()
        found = {}
        with self.lock:
            for name, pool in self.pools.items():
                active = [one for one in pool.targets.values() if one.active_at <= now]
                healthy = [one for one in active if one.state in ("healthy", "unavailable")]
                serving = healthy or active
                found[name] = {
                    (one.address, one.member[1]): "HEALTHY" if one in serving else "UNHEALTHY"
                    for one in active
                }
                for member, leaving in list(pool.leaving.items()):
                    place = (leaving.address, member[1])
                    if now >= max(leaving.until, leaving.applied):
                        del pool.leaving[member]
                    elif place not in found[name]:
                        still = now < leaving.applied and leaving.served
                        found[name][place] = "HEALTHY" if still else "DRAINING"
        return found

    # Health checks

    async def check_for_ever(self) -> None:
        """Ask every target's check when it is due."""
        tasks: set[asyncio.Task[None]] = set()
        while True:
            now = time.time()
            with self.lock:
                due = [
                    (pool, target)
                    for pool in self.pools.values()
                    for target in pool.targets.values()
                    if not target.checking and max(target.next_check, target.active_at) <= now
                    and (pool.used or pool.name.startswith("classic "))
                ]  # fmt: skip
                for pool, target in due:
                    target.checking = True
                    target.next_check = now + pool.check.interval / self.hurry
            for pool, target in due:
                task = asyncio.create_task(self._check(pool, target))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            await asyncio.sleep(SECONDS)

    async def _check(self, pool: Pool, target: Target) -> None:
        check = pool.check
        if not check.enabled:
            reason = ""
        else:
            reason = await ask(check, target.address, check.port or target.member[1])
        with self.lock:
            target.checking = False
            if not check.enabled:
                target.state = "unavailable"
            elif reason:
                target.failed, target.passed, target.reason = target.failed + 1, 0, reason
                if target.failed >= check.unhealthy:
                    target.state = "unhealthy"
            else:
                target.passed, target.failed = target.passed + 1, 0
                if target.state == "initial" or target.passed >= check.healthy:
                    target.state, target.reason = "healthy", ""


# Where a rule has the values of a condition, by its field.
CONFIGS = {"path-pattern": "PathPatternConfig", "host-header": "HostHeaderConfig"}
REASONS = {
    "Target.Timeout": "Request timed out",
    "Target.FailedHealthChecks": "Health checks failed",
    "Target.ResponseCodeMismatch": "Health checks failed with these codes",
}


def classic(name: str) -> str:
    """Name the pool of a classic load balancer."""
    return f"classic {name}"


async def ask(check: Check, address: str, port: int) -> str:
    """Ask a target once; returns why it failed, or nothing."""
    writer = None
    try:
        async with asyncio.timeout(check.timeout):
            reader, writer = await asyncio.open_connection(address, port)
            if check.protocol in ("TCP", "SSL"):
                return ""
            request = f"GET {check.path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n"
            writer.write(f"{request}User-Agent: ELB-HealthChecker/2.0\r\n\r\n".encode())
            line = await reader.readline()
    except TimeoutError:
        return "Target.Timeout"
    except OSError:
        return "Target.FailedHealthChecks"
    finally:
        if writer is not None:
            with contextlib.suppress(OSError):
                writer.close()
    status = line.split(b" ")[1:2]
    code = int(status[0]) if status and status[0].isdigit() else 0
    return "" if matches(check.matcher, code) else "Target.ResponseCodeMismatch"


def matches(matcher: str, code: int) -> bool:
    """Tell whether a status is among ``200``, ``200,202`` or ``200-299``."""
    for part in matcher.split(","):
        first, _dash, last = part.partition("-")
        if int(first) <= code <= int(last or first):
            return True
    return False


def conditions(given: list[dict[str, Any]]) -> list[tuple[str, str, tuple[str, ...]]]:
    """Understand the conditions of a rule."""
    found = []
    for one in given:
        kind = one["Field"]
        if kind == "http-header":
            config = one["HttpHeaderConfig"]
            found.append((kind, str(config["HttpHeaderName"]), tuple(config["Values"])))
        else:
            config = one.get(CONFIGS[kind]) or one
            found.append((kind, "", tuple(config["Values"])))
    return found


def rules_of(listener: Any) -> tuple[Rule, ...]:
    """Return the rules of a listener of moto by priority, its default action last."""
    rules = sorted(listener._non_default_rules.values(), key=lambda rule: int(rule.priority))
    read = [Rule(tuple(conditions(rule.conditions)), action_of(rule.actions)) for rule in rules]
    return (*read, Rule((), action_of(listener.default_actions)))


def action_of(actions: list[Any]) -> Forward | Answer:
    """Understand the last action of a rule, which is the one that answers."""
    data = actions[-1].data
    if data["Type"] == "fixed-response":
        config = data["FixedResponseConfig"]
        return Answer(int(config["StatusCode"]), str(config.get("MessageBody") or ""))
    config = data.get("ForwardConfig") or {}
    groups = config.get("TargetGroups") or [{"TargetGroupArn": data["TargetGroupArn"], "Weight": 1}]
    sticky = config.get("TargetGroupStickinessConfig") or {}
    on = str(sticky.get("Enabled")).lower() == "true"
    return Forward(
        tuple((one["TargetGroupArn"], int(one.get("Weight", 1))) for one in groups),
        float(sticky.get("DurationSeconds") or 3600) if on else None,
    )


def pools_of(rule: Rule) -> list[str]:
    """Name the pools that a rule forwards to."""
    return [name for name, _w in rule.action.pools] if isinstance(rule.action, Forward) else []


def cluster_of(name: str) -> str:
    """Return Envoy's name of a pool: a name of ours that is safe in files and statistics."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name.split(":targetgroup/")[-1])
