# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look at the load balancers from an action that runs somewhere else.

A task is delegated to one host, but a gate asks all load balancers, again and again, in one task.
So each of their hosts gets a connection of its own here, made as Ansible makes that of a task.
"""

from __future__ import annotations

import copy
import threading
import time
import typing as t
from concurrent.futures import ThreadPoolExecutor

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.loader import become_loader

from ..module_utils._errors import BasculeError, TrafficError, UsageError
from ..module_utils._host._router import Counters
from ..module_utils._routing import TRAFFIC_OPTIONS, traffic_request
from ._direct import run_on_host
from ._gates._proxy import counters_from, plain_counters, together
from ._providers import on_controller, run_on_controller

if t.TYPE_CHECKING:
    from ansible.plugins.action import ActionBase

    from ._record import Record

# What an action is told of the load balancers.
TRAFFIC: dict[str, dict[str, t.Any]] = {
    "traffic": {
        "type": "dict",
        "default": {},
        "options": {
            "provider": {"type": "str", "default": "none"},
            "options": {"type": "dict", "default": {}},
            "hosts": {"type": "list", "elements": "str", "default": ["localhost"]},
            "targets": {"type": "list", "elements": "dict", "default": []},
        },
    },
}
# The action as if it were delegated to a host, and the variables of its task there.
Way = tuple["ActionBase", dict[str, t.Any]]
# Gates that ask at the same moment share an answer.
SHARED_SECONDS = 0.5

NO_TRAFFIC: dict[str, t.Any] = {"provider": "none", "options": {}, "hosts": [], "targets": []}
_DEFAULTS = {
    name: spec.get("default") for name, spec in TRAFFIC_OPTIONS["options"]["options"].items()
}


class AtProxies:
    """The load balancers of a deployment (see ``_gates.Traffic``); used by several threads."""

    def __init__(
        self,
        action: ActionBase,
        variables: dict[str, t.Any],
        settings: dict[str, t.Any],
        record: t.Callable[[], Record] | None = None,
        deployment: str = "",
    ) -> None:
        """Keep what a host is reached with; ``settings`` are the values of ``TRAFFIC``.

        :param record: opens the record for the thread that asks; some providers find there what
            the pools of the deployment are
        """
        self._record, self._deployment = record, deployment
        self._action, self._variables = action, variables
        self._settings = settings
        self._ways: dict[str, Way] = {}
        self._answers: dict[tuple[str, str], tuple[float, list[dict[str, t.Any]]]] = {}
        self._lock = threading.Lock()

    def measured(self) -> dict[str, t.Any]:
        """Return what all load balancers together have counted of each pool and of each arm."""
        arms = self._of_targets() if self._settings.get("arms") else {}
        if arms and not self._settings["options"].get("pools"):
            return {"at": time.time(), "pools": {}, **arms}
        return {**self._of_pools(), **arms}

    def _of_pools(self) -> dict[str, t.Any]:
        parts: dict[str, list[t.Any]] = {}
        at = 0.0
        for answer in self._ask("measured"):
            at = max(at, float(answer["at"]))
            for name, seen in answer["pools"].items():
                parts.setdefault(str(name), []).append(counters_from(seen))
        return {
            "at": at,
            "pools": plain_counters({name: together(some) for name, some in parts.items()}),
        }

    def _of_targets(self) -> dict[str, t.Any]:
        """Return what all load balancers together have counted of the targets of each arm.

        :returns: {"arms": {arm: counters}, "assigned": {arm: requests ever given to it, "share":
            the canaries' part of those that follow, None where the load balancers do not tell}}
        :raises TrafficError: one does not count by target
        """
        arms: dict[str, list[dict[str, t.Any]]] = self._settings["arms"]
        counted: dict[str, list[int]] = {arm: [0, 0, 0] for arm in arms}
        shares: set[float | None] = set()
        for pool in dict.fromkeys(one.get("pool", "") for some in arms.values() for one in some):
            members = {
                str(one.get("name") or one["target"]): arm
                for arm, some in arms.items()
                for one in some
                if one.get("pool", "") == pool
            }
            endpoints = [
                {key: value for key, value in one.items() if key != "pool"}
                for some in arms.values()
                for one in some
                if one.get("pool", "") == pool
            ]
            for answer in self._ask("observed", pool, targets=endpoints):
                weights = dict.fromkeys(arms, 0.0)
                told = True
                for name, seen in answer["targets"].items():
                    if seen.get("answered") is None:
                        raise TrafficError(
                            f"{answer['where']} does not count requests by target, so canaries "
                            "among the targets cannot be compared there. Give the judge's metrics "
                            "another source, or canaries a pool of their own."
                        )
                    arm = members[str(name)]
                    for place, key in enumerate(("answered", "errors", "served")):
                        counted[arm][place] += int(seen[key])
                    told = told and seen.get("weight") is not None
                    weights[arm] += float(seen.get("weight") or 0) if seen["in_service"] else 0.0
                shares.add(share_of(weights) if told else None)
        return {
            "arms": plain_counters(
                {arm: Counters(found[0], found[1]) for arm, found in counted.items()}
            ),
            "assigned": {
                **{arm: found[2] for arm, found in counted.items()},
                # Proxies of which each has its own weights, or arms in pools, have no one share.
                "share": shares.pop() if len(shares) == 1 else None,
            },
        }

    def observed(self, pool: str = "") -> dict[str, t.Any]:
        """Return the targets as the load balancers see them: in service only where all agree."""
        found: dict[str, dict[str, t.Any]] = {}
        for answer in self._ask("observed", pool):
            for name, seen in answer["targets"].items():
                before = found.get(str(name))
                if before is None or (before.get("in_service") and not seen.get("in_service")):
                    found[str(name)] = dict(seen)
        return {"targets": found}

    def warned(self, pool: str = "") -> list[str]:
        """Return what the load balancers say that a person should know before a change."""
        found = [text for answer in self._ask("observed", pool) for text in answer["warnings"]]
        return list(dict.fromkeys(found))

    def route(self, routing: dict[str, t.Any]) -> dict[str, dict[str, t.Any]]:
        """Order a routing at every proxy at once; return the answers, also of those that failed.

        Load balancers that the controller reaches itself have none.

        :raises BasculeError: a setting or a host that does not exist
        """
        if on_controller(self._settings["provider"]):
            return {}
        request = traffic_request(self._arguments("routed", routing=routing), "", check=False)
        return run_at_all(self._action, self._variables, self._settings["hosts"], request)

    def _arguments(self, state: str, **more: t.Any) -> dict[str, t.Any]:
        given = {key: value for key, value in self._settings["options"].items() if value != ""}
        return {
            "state": state,
            "provider": self._settings["provider"],
            "options": {**_DEFAULTS, **given},
            **more,
        }

    def _ask(
        self, state: str, pool: str = "", targets: list[dict[str, t.Any]] | None = None
    ) -> list[dict[str, t.Any]]:
        """Ask every load balancer once; of all targets, or of some.

        :raises TrafficError: one does not answer
        """
        arguments = self._arguments(
            state,
            targets=(targets or self._settings["targets"]) if state == "observed" else [],
            pool=pool,
        )
        request = traffic_request(arguments, "localhost", check=False)
        with self._lock:
            asked = (state, pool if targets is None else f"{pool} by arm")
            known = self._answers.get(asked)
            if known is not None and time.monotonic() - known[0] < SHARED_SECONDS:
                return known[1]
            if on_controller(request["provider"]):
                answers = [self._run_here(request)]
            else:
                answers = self._run_there(request)
            for answer in answers:
                if answer.get("failed"):
                    raise TrafficError(str(answer.get("msg")))
            self._answers[asked] = (time.monotonic(), answers)
            return answers

    def _run_here(self, request: dict[str, t.Any]) -> dict[str, t.Any]:
        if self._record is None or request["action"] != "measure":
            return run_on_controller(request)
        with self._record() as record:
            return run_on_controller(request, record=record, deployment=self._deployment)

    def _run_there(self, request: dict[str, t.Any]) -> list[dict[str, t.Any]]:
        """Ask all hosts at the same moment, on connections that are kept."""
        hosts = self._settings["hosts"]
        missing = [host for host in hosts if host not in self._ways]
        self._ways.update(ways_to(self._action, self._variables, missing))
        answers = []
        for answer in ask_all({host: self._ways[host] for host in hosts}, request).values():
            if isinstance(answer, BasculeError):
                raise answer
            answers.append(answer)
        return answers


def share_of(weights: dict[str, float]) -> float | None:
    """Return the canaries' part of the weights of both arms; None where only one has any."""
    canary, baseline = weights.get("canary", 0.0), weights.get("baseline", 0.0)
    return canary / (canary + baseline) if canary and baseline else None


def traffic_of(
    action: ActionBase,
    variables: dict[str, t.Any],
    settings: dict[str, t.Any],
    record: t.Callable[[], Record] | None = None,
    deployment: str = "",
) -> AtProxies | None:
    """Return the load balancers that an action was told of; None if there are none."""
    if settings.get("provider") in (None, "", "none"):
        return None
    return AtProxies(action, variables, settings, record, deployment)


def own_variables(variables: dict[str, t.Any], host: str) -> dict[str, t.Any]:
    """Return the variables of another host of the inventory.

    :raises UsageError: there is no such host
    """
    try:
        return dict(variables["hostvars"][host])
    except KeyError:
        raise UsageError(
            f"deploy_traffic_hosts names {host}, which is not in the inventory."
        ) from None


def run_at_all(
    action: ActionBase,
    variables: dict[str, t.Any],
    hosts: t.Sequence[str],
    request: dict[str, t.Any],
    *,
    reconnect: float = 0.0,
) -> dict[str, dict[str, t.Any]]:
    """Run a request of the host program on several hosts at the same moment; return all answers.

    What goes wrong on one is its answer.

    :raises UsageError: a host that the inventory does not have
    """
    answers = ask_all(ways_to(action, variables, hosts), request, reconnect=reconnect)
    return {
        host: _as_answer(one) if isinstance(one, BasculeError) else one
        for host, one in answers.items()
    }


def _as_answer(error: BasculeError) -> dict[str, t.Any]:
    seen = {"kind": error.kind, "message": str(error)}
    return {"failed": True, "changed": False, "msg": str(error), "bascule": {"error": seen}}


def ways_to(
    action: ActionBase, variables: dict[str, t.Any], hosts: t.Sequence[str]
) -> dict[str, Way]:
    """Return how each host is reached. Ansible's loaders are asked by one thread.

    :raises UsageError: a host that the inventory does not have
    """
    return {
        host: (
            delegate(action, variables, host),
            {**variables, "ansible_delegated_vars": {host: own_variables(variables, host)}},
        )
        for host in hosts
    }


def ask_all(
    ways: t.Mapping[str, Way], request: dict[str, t.Any], *, reconnect: float = 0.0
) -> dict[str, dict[str, t.Any] | BasculeError]:
    """Run a request on several hosts at the same moment; what goes wrong on one is its answer."""

    def ask(host: str) -> dict[str, t.Any] | BasculeError:
        made, own = ways[host]
        try:
            return run_on_host(made, own, request, reconnect=reconnect)
        except BasculeError as error:
            return error

    with ThreadPoolExecutor(max(1, len(ways))) as all_at_once:
        return dict(zip(ways, all_at_once.map(ask, ways), strict=True))


def delegate(action: ActionBase, variables: dict[str, t.Any], host: str) -> ActionBase:
    """Return the action as if its task were delegated to a host, with a connection of its own."""
    own = own_variables(variables, host)
    implicit = "local" if host in ("localhost", "127.0.0.1") else "ssh"
    name = str(own.get("ansible_connection") or implicit)
    context = copy.copy(action._play_context)
    context.remote_addr = str(own.get("ansible_host") or host)
    loader = action._shared_loader_obj.connection_loader
    connection = loader.get(name, context, task_uuid=action._task._uuid)
    if connection is None:
        raise UsageError(f"{host} has the connection {name}, which Ansible does not know.")
    own.setdefault("inventory_hostname", host)
    own["ansible_host"] = own.get("ansible_host") or host
    connection.set_options(var_options=own)
    if boolean(own.get("ansible_become", context.become)):
        connection.set_become_plugin(_become(own, context))
    made = copy.copy(action)
    made._connection = connection
    made._play_context = context
    made._task = action._task.copy()
    made._task.delegate_to = host
    return made


def _become(own: dict[str, t.Any], context: t.Any) -> t.Any:
    """Return the way to other rights that a host asks for.

    :raises UsageError: Ansible does not know it
    """
    method = str(own.get("ansible_become_method") or context.become_method or "sudo")
    found = become_loader.get(method)
    if found is None:
        raise UsageError(f"ansible_become_method is {method}, which Ansible does not know.")
    found.set_options(var_options=own)
    return found
