"""AWS for tests: moto's API, and load balancers that move traffic. One process, one Envoy.

Started by ``support.alb.running``. Beside the API of AWS it answers ``/alb/calls`` (every call
that was made), ``/alb/settings`` (``throttle``: the share of calls to load balancers that are
refused; ``late``: seconds until CloudWatch hears of requests; ``stall``: see ``Front``) and
``/alb/forget``.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import importlib
import io
import json
import os
import random
import re
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from moto.cloudwatch.models import Statistics
from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.elb.responses import ELBResponse
from moto.elbv2.exceptions import ELBClientError
from moto.elbv2.models import ELBv2Backend, FakeHealthStatus, FakeTargetGroup
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from support.alb.envoy import AccessLog, Envoy
from support.alb.plane import Plane, classic, cluster_of
from support.guard import Guard
from werkzeug.serving import WSGIRequestHandler, run_simple

if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable, Iterable

SCOPE = re.compile(r"Credential=[^/]+/[0-9]+/([^/]+)/([^/]+)/")
READING = re.compile(r"(?i)(describe|list|get|head|query|search|filter|batchget|assume)")
METRIC_SECONDS = 1.0


class Front:
    """The WSGI application before moto: it counts, throttles, and tells the plane of changes.

    ``stall`` names an action, and whether it is done: its next call gets no answer as long as that
    is set. ``stalled`` says that there is such a call.
    """

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._random = random.Random(7)  # noqa: S311 - a fixed sequence, not a secret
        self._lock = threading.Lock()
        self._go_on = threading.Event()
        self.calls: list[dict[str, Any]] = []
        self.throttle = 0.0
        self.stall: dict[str, Any] = {}
        self.stalled = False

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path.startswith("/alb/"):
            return self._own(path, environ, start)
        if path.startswith("/moto-api/"):
            answer: Iterable[bytes] = self._moto(environ, start)
            return answer
        service, action = self._name(environ)
        refused = service == "elasticloadbalancing" and self._random.random() < self.throttle
        with self._lock:
            self.calls.append(
                {
                    "at": time.time(),
                    "service": service,
                    "action": action,
                    "mutating": not READING.match(action) and service != "sts",
                    "throttled": refused,
                }
            )
        if refused:
            body = (
                b"<ErrorResponse><Error><Type>Sender</Type><Code>Throttling</Code>"
                b"<Message>Rate exceeded</Message></Error><RequestId>0</RequestId></ErrorResponse>"
            )
            start("400 Bad Request", [("Content-Type", "text/xml")])
            return [body]
        with self._lock:
            stalls = self.stall.get("action") == action and not self.stalled
            self.stalled = self.stalled or stalls
            done, go_on = self.stall.get("done"), self._go_on
        if stalls and not done:
            go_on.wait()
            start("503 Service Unavailable", [])
            return [b""]
        answered = list(self._moto(environ, start))
        if stalls:
            go_on.wait()
        if not READING.match(action):
            self._plane.read()
        return answered

    def _name(self, environ: dict[str, Any]) -> tuple[str, str]:
        """Return service and action of a call, whichever protocol it speaks."""
        found = SCOPE.search(environ.get("HTTP_AUTHORIZATION", ""))
        service = found.group(2) if found else "unsigned"
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        if target:
            return service, target.rpartition(".")[2]
        path = environ.get("PATH_INFO", "")
        if "/operation/" in path:
            return service, path.rpartition("/")[2]
        kind = environ.get("CONTENT_TYPE", "")
        if "x-www-form-urlencoded" in kind:
            length = int(environ.get("CONTENT_LENGTH") or 0)
            body = environ["wsgi.input"].read(length)
            environ["wsgi.input"] = io.BytesIO(body)
            action = parse_qs(body.decode()).get("Action", [""])[0]
            if action:
                return service, action
        method = environ["REQUEST_METHOD"]
        return service, f"{method.capitalize()}{path}"

    def _own(self, path: str, environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        told = json.loads(environ["wsgi.input"].read(length) or b"{}")
        answer: Any = {}
        with self._lock:
            if path == "/alb/calls":
                answer = list(self.calls)
            elif path == "/alb/stalled":
                answer = self.stalled
            elif path == "/alb/settings":
                self.throttle = float(told.get("throttle", self.throttle))
                self._plane.late = float(told.get("late", self._plane.late))
                if "stall" in told:
                    self._go_on.set()
                    self._go_on = threading.Event()
                    self.stall, self.stalled = told["stall"] or {}, False
            elif path == "/alb/forget":
                self.calls.clear()
        start("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(answer).encode()]


def patch(plane: Plane) -> None:
    """Let moto answer what the plane knows better, and refuse what AWS refuses."""
    known_stat = Statistics.get_statistics_for_type
    register = FakeTargetGroup.register

    def describe_target_health(
        self: ELBv2Backend, target_group_arn: str, targets: list[dict[str, Any]]
    ) -> list[FakeHealthStatus]:
        group = self.describe_target_groups(None, [target_group_arn], [])[0]
        told = plane.health(target_group_arn)
        wanted = [(one["Id"], int(one.get("Port") or group.port)) for one in targets] or list(told)
        absent = ("unused", "Target.NotRegistered", "Target is not registered to the target group")
        return [
            FakeHealthStatus(
                member[0], str(member[1]), str(member[1]), *described(told.get(member, absent))
            )
            for member in wanted
        ]

    def register_known(self: FakeTargetGroup, targets: list[dict[str, Any]]) -> None:
        unknown = [
            one["Id"]
            for one in targets
            if self.target_type == "instance" and not plane.address(one["Id"], "instance")
        ]
        if unknown:
            raise ELBClientError(
                "InvalidTarget",
                f"The following targets are not in a running state and cannot be registered: "
                f"'{', '.join(unknown)}'",
            )
        # moto knows one port of an instance alone; a target is both.
        for one in targets:
            register(self, [one])
            self.targets[place(self, one)] = self.targets.pop(one["Id"])

    def deregister(self: FakeTargetGroup, targets: list[dict[str, Any]]) -> None:
        for one in targets:
            self.targets.pop(place(self, one), None)

    def terminated(self: FakeTargetGroup, instance_ids: list[str]) -> None:
        for one in [one for one in self.targets.values() if one["Id"] in instance_ids]:
            self.targets.pop(place(self, one), None)

    def describe_instance_health(self: ELBResponse) -> ActionResult:
        name = self._get_param("LoadBalancerName")
        given = self._get_param("Instances", [])
        # It raises if there is no such load balancer.
        self.elb_backend.describe_instance_health(name, [])
        told = {member[0]: seen for member, seen in plane.health(classic(name)).items()}
        wanted = [one["InstanceId"] for one in given] or list(told)
        states = [{"InstanceId": one, **instance_state(told.get(one))} for one in wanted]
        return ActionResult({"InstanceStates": states})

    def statistic(self: Statistics, stat: str) -> Any:
        if not re.fullmatch(r"p[0-9.]+", stat):
            return known_stat(self, stat)
        values = sorted(self.metric_single_values_list)
        return values[min(len(values) - 1, int(len(values) * float(stat[1:]) / 100))]

    ELBv2Backend.describe_target_health = describe_target_health
    FakeTargetGroup.register = register_known
    FakeTargetGroup.deregister = deregister
    FakeTargetGroup.deregister_terminated_instances = terminated
    ELBResponse.describe_instance_health = describe_instance_health
    Statistics.get_statistics_for_type = statistic


def place(group: FakeTargetGroup, target: dict[str, Any]) -> str:
    """Return what a target of a group is known by: its id and its port, if not the group's."""
    return f"{target['Id']}:{target.get('Port') or group.port}"


def described(told: tuple[str, str, str]) -> tuple[str, str | None, str | None]:
    """Return what a health has; a healthy target has no reason."""
    return told[0], told[1] or None, told[2] or None


def instance_state(told: tuple[str, str, str] | None) -> dict[str, str]:
    """Return a target's state in the words of a classic load balancer."""
    if told is None:
        words = "Instance is not currently registered with the LoadBalancer."
        return {"State": "OutOfService", "ReasonCode": "Instance", "Description": words}
    if told[0] == "healthy":
        return {"State": "InService", "ReasonCode": "N/A", "Description": "N/A"}
    words = {
        "draining": "Instance deregistration currently in progress.",
        "initial": "Instance registration is still in progress.",
    }.get(told[0], "Instance has failed at least the UnhealthyThreshold number of health checks "
          "consecutively.")  # fmt: skip
    reason = "ELB" if told[0] in ("draining", "initial") else "Instance"
    return {"State": "OutOfService", "ReasonCode": reason, "Description": words}


def measure(plane: Plane, fresh: list[dict[str, Any]], at: datetime.datetime) -> None:
    """Tell CloudWatch what the proxies counted at a time, by target group and load balancer."""
    by_cluster: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    for line in fresh:
        by_cluster[str(line["cluster"])].append(line)
    groups = {cluster_of(one.arn): one for one in plane.backend("elbv2").target_groups.values()}
    for cluster, lines in by_cluster.items():
        group = groups.get(cluster)
        if group is None:
            continue
        name = group.arn.split(":")[-1]
        for balancer in plane.balancers_of(group.arn):
            dimensions = [
                {"Name": "TargetGroup", "Value": name},
                {"Name": "LoadBalancer", "Value": balancer.split(":loadbalancer/")[-1]},
            ]
            # The proxy's own answers, as when no target can be reached, are none of a target.
            answered = [one for one in lines if one["flags"] in ("-", None)]
            fives = sum(one["status"] >= 500 for one in answered)
            counted = [
                ("RequestCount", [float(len(lines))], "Count"),
                ("HTTPCode_Target_5XX_Count", [float(fives)], "Count"),
                ("TargetConnectionErrorCount", [float(len(lines) - len(answered))], "Count"),
                ("TargetResponseTime", [one["milliseconds"] / 1000 for one in answered], "Seconds"),
            ]
            told = [
                {"MetricName": metric, "Dimensions": dimensions, "Value": value, "Unit": unit,
                 "Timestamp": at}
                for metric, values, unit in counted
                for value in values
            ]  # fmt: skip
            plane.backend("cloudwatch").put_metric_data("AWS/ApplicationELB", told)


def run_plane(plane: Plane, envoy: Envoy) -> None:
    """Keep the proxies as the plane says, for ever."""
    log = AccessLog(envoy.access_log)
    measured = time.monotonic()
    waiting: list[tuple[float, datetime.datetime, list[dict[str, Any]]]] = []
    while True:
        plane.read()
        envoy.apply(plane.listeners(), plane.endpoints())
        if time.monotonic() - measured > METRIC_SECONDS:
            measured = time.monotonic()
            waiting.append((measured, utcnow(), log.fresh()))
            while waiting and waiting[0][0] + plane.late <= measured:
                _when, at, lines = waiting.pop(0)
                measure(plane, lines, at)
        time.sleep(0.1)


def or_end(work: Callable[[], Any]) -> None:
    """Let the whole process end when a part of it has failed."""
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os.kill(os.getpid(), signal.SIGTERM)


class Quiet(WSGIRequestHandler):
    """Leave the log to failures."""

    def log_request(self, *_: Any) -> None:
        return


def main() -> None:
    reader = argparse.ArgumentParser()
    reader.add_argument("--address", required=True)
    reader.add_argument("--port", type=int, required=True)
    reader.add_argument("--folder", type=Path, required=True)
    reader.add_argument("--region", required=True)
    reader.add_argument("--propagation", type=float, required=True)
    reader.add_argument("--hurry", type=float, required=True)
    reader.add_argument("--hook", action="append", default=[])
    asked = reader.parse_args()
    os.environ["MOTO_PORT"] = str(asked.port)
    plane = Plane(asked.region, asked.propagation, asked.hurry)
    for service in ("elb", "elbv2", "ec2", "cloudwatch"):
        plane.backend(service)
    patch(plane)
    for hook in asked.hook:
        module, _colon, name = hook.partition(":")
        getattr(importlib.import_module(module), name)(plane)
    envoy = Envoy(asked.folder, asked.address)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    envoy.start()
    try:
        for work in (lambda: run_plane(plane, envoy), lambda: asyncio.run(plane.check_for_ever())):
            threading.Thread(target=or_end, args=(work,), daemon=True).start()
        front = Guard(Front(plane))
        run_simple(asked.address, asked.port, front, threaded=True, request_handler=Quiet)
    finally:
        envoy.stop()


if __name__ == "__main__":
    main()
