# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take targets out of service at a load balancer, put them back, share traffic between pools."""

from __future__ import annotations

import time
import typing as t

from ansible_collections.bascule.deploy.plugins.module_utils._configuration import parse_duration
from ansible_collections.bascule.deploy.plugins.module_utils._errors import BasculeError
from ansible_collections.bascule.deploy.plugins.module_utils._routing import (
    TRAFFIC_OPTIONS,
    traffic_event,
    traffic_request,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._action import (
    DEPLOYMENT_OPTIONS,
    Arguments,
    BasculeAction,
    Result,
    Variables,
    open_record,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._at_proxies import run_at_all
from ansible_collections.bascule.deploy.plugins.plugin_utils._direct import run_on_host
from ansible_collections.bascule.deploy.plugins.plugin_utils._providers import (
    on_controller,
    run_on_controller,
)


class ActionModule(BasculeAction):
    phase = "traffic"
    options: t.ClassVar[dict[str, dict[str, t.Any]]] = {
        **DEPLOYMENT_OPTIONS,
        **{
            name: {**spec, "required": name in ("state", "provider")}
            for name, spec in TRAFFIC_OPTIONS.items()
        },
        "deployment": {"type": "dict", "default": {}},
    }

    def act(self, arguments: Arguments, variables: Variables) -> Result:
        here = str(variables["inventory_hostname"])
        request = traffic_request(arguments, here, check=self.checking)
        targets = [_inventory_name(given, here, variables) for given in arguments["targets"]]
        started = time.time()
        noted = bool(arguments["deployment"]) and not self.checking
        try:
            if on_controller(request["provider"]):
                answer = self._run_here(arguments, request)
                answers = {str(self._task.delegate_to or here): answer}
            else:
                answers = self._run_there(arguments, request, variables, here)
                answer = together(answers, here)
        except BasculeError as error:
            answer, answers = self.refuse(error, variables), {}
        if arguments["state"] == "measured":
            # Each load balancer has its own share: what all have counted together may hide one.
            keys = ("pools", "at", "since")
            answer["counted"] = [
                {key: one[key] for key in keys if key in one} for one in answers.values()
            ]
        event = traffic_event(arguments["state"], answer, started, time.time())
        events = [event] if event and not self.checking else []
        if events and arguments["deployment"]:
            some = any(not one.get("failed") for one in answers.values())
            self._write_down(arguments, targets, events, some=some)
        for where, one in answers.items():
            if one.get("routing") and noted:
                self._note_routing(arguments, one, where)
        failure = answer.pop("error", None)
        answer["bascule"] = {
            "target": targets[0] if len(targets) == 1 else None,
            "targets": targets,
            "state": arguments["state"],
            "events": events,
            "waited": answer.get("waited", 0.0),
            "warnings": answer.get("warnings", []),
            **({"error": {**failure, "message": answer["msg"]}} if failure else {}),
            **answer.get("bascule", {}),
        }
        return answer

    def _run_here(self, arguments: Arguments, request: dict[str, t.Any]) -> Result:
        """Ask a provider that is reached from here, together with all who ask it just now."""
        deployment = arguments["deployment"].get("id")
        if not deployment or self.checking:
            return run_on_controller(request)
        with open_record(arguments) as record:
            return run_on_controller(request, record=record, deployment=deployment)

    def _run_there(
        self, arguments: Arguments, request: dict[str, t.Any], variables: Variables, here: str
    ) -> dict[str, Result]:
        """Ask on the task's host, or on all hosts of the load balancer at the same moment.

        :raises BasculeError: a host that the inventory does not have; of the task's own host,
            whatever goes wrong there
        """
        limit = arguments["options"]["reconnect_timeout"]
        reconnect = parse_duration(limit, "deploy_reconnect_timeout")
        if not arguments["hosts"]:
            answer = run_on_host(self, variables, request, reconnect=reconnect)
            return {str(self._task.delegate_to or here): answer}
        return run_at_all(self, variables, arguments["hosts"], request, reconnect=reconnect)

    def _note_routing(self, arguments: Arguments, answer: Result, where: str) -> None:
        """Keep in the record what the routing was, and is now, at this load balancer."""
        with open_record(arguments) as record:
            record.note_routing(
                arguments["deployment"]["id"],
                provider=arguments["provider"],
                where=where,
                before=answer["routing"].get("before"),
                after=answer["routing"].get("after"),
                waited=float(answer.get("waited") or 0.0),
            )

    def _write_down(
        self,
        arguments: Arguments,
        targets: list[str],
        events: list[dict[str, t.Any]],
        *,
        some: bool,
    ) -> None:
        """Keep in the record what was done; ``some`` load balancer at least has done it."""
        deployment = arguments["deployment"]["id"]
        with open_record(arguments) as record:
            for target in targets:
                record.add_events(deployment, target, events)
                # Out of service is what one load balancer has taken out; in service again is only
                # what all of them have back, which the end of the target's lifecycle writes down.
                if some and arguments["state"] == "drained":
                    record.set_in_service(deployment, target, in_service=False)


def together(answers: dict[str, Result], here: str) -> Result:
    """Return what several hosts have answered as one result, which fails if one of them does.

    :param here: the task's own host, which a message need not name
    """
    failed = {host: one for host, one in answers.items() if one.get("failed")}
    if len(answers) == 1 and (not failed or not failed.keys() - {here, "localhost"}):
        return next(iter(answers.values()))
    told = failed or answers
    whole: Result = {
        "changed": any(one.get("changed") for one in answers.values()),
        "msg": "; ".join(f"{host}: {one['msg']}" for host, one in told.items()),
        "diff": [one["diff"] for one in answers.values() if one.get("diff")],
        "waited": max(float(one.get("waited") or 0.0) for one in answers.values()),
        "warnings": list(
            dict.fromkeys(text for one in answers.values() for text in one.get("warnings") or [])
        ),
    }
    for one in failed.values():
        whole.update({key: one[key] for key in ("failed", "error") if key in one})
        error = (one.get("bascule") or {}).get("error")
        if error:
            whole["bascule"] = {"error": {**error, "message": whole["msg"]}}
        break
    return whole


def _inventory_name(given: dict[str, t.Any], here: str, variables: Variables) -> str:
    """Return the target's name in the record; at the load balancer it may have another."""
    name = str(given.get("name") or here)
    return str(given.get("target") or (name if name in variables["groups"]["all"] else here))
