# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Open a deployment: validate, resolve the revision, plan, and write it to the record."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import typing as t
from pathlib import Path

from ansible.errors import AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.parsing.vault import VaultHelper
from ansible.plugins.loader import lookup_loader
from ansible.utils.vars import load_extra_vars
from ansible_collections.bascule.deploy.plugins.module_utils._capabilities import RELOADED
from ansible_collections.bascule.deploy.plugins.module_utils._configuration import parse_stages
from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError
from ansible_collections.bascule.deploy.plugins.module_utils._functions import is_lambda
from ansible_collections.bascule.deploy.plugins.module_utils._notifications import parse_channels
from ansible_collections.bascule.deploy.plugins.module_utils._pools import PARTS
from ansible_collections.bascule.deploy.plugins.plugin_utils._action import (
    BasculeAction,
    open_record,
    record_url,
    state_directory,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._at_proxies import (
    NO_TRAFFIC,
    traffic_of,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._direct import program
from ansible_collections.bascule.deploy.plugins.plugin_utils._gates import (
    evidence_lines,
    remembered,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._joining import (
    by_users,
    joined_since,
    open_follow_up,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._lambda._request import (
    OWN,
    function_settings,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._lambda._request import (
    PREFIX as FUNCTION_PREFIX,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._notify import start
from ansible_collections.bascule.deploy.plugins.plugin_utils._opening import (
    no_targets,
    open_deployment,
    resume_deployment,
)
from ansible_collections.bascule.deploy.plugins.plugin_utils._pausing import pause_wanted
from ansible_collections.bascule.deploy.plugins.plugin_utils._planning import Endpoint, by_pool
from ansible_collections.bascule.deploy.plugins.plugin_utils._pooling import Observed
from ansible_collections.bascule.deploy.plugins.plugin_utils._record import employ_clerk, warm
from ansible_collections.bascule.deploy.plugins.plugin_utils._saving import Situation, routing_of
from ansible_collections.bascule.deploy.plugins.plugin_utils._settings import (
    PREFIX,
    as_data,
    fleet_settings,
    host_settings,
    public_variables,
    refuse_unknown,
    require,
    scaling_settings,
    traffic_settings,
    unfit,
)

if t.TYPE_CHECKING:
    from ansible_collections.bascule.deploy.plugins.module_utils._functions import (
        FunctionSettings,
    )
    from ansible_collections.bascule.deploy.plugins.plugin_utils._action import (
        Arguments,
        Result,
        Variables,
    )
    from ansible_collections.bascule.deploy.plugins.plugin_utils._gates._evidence import Remembered
    from ansible_collections.bascule.deploy.plugins.plugin_utils._opening import Opened
    from ansible_collections.bascule.deploy.plugins.plugin_utils._record import Record

# The plugin is loaded before the workers are forked: what is imported here, all of them inherit.
# Where SQLAlchemy is missing, opening the record says so in words.
for operation in ("stage", "lifecycle", "traffic"):
    program(operation)
with contextlib.suppress(ImportError):
    warm()


# The variables of a target that say how the load balancer knows it.
REACHED = ("traffic_target_name", "traffic_target_address", "traffic_target_port", "zone", "pool")

# The facts of a deployment that there is not.
NOBODY: dict[str, t.Any] = {
    **{
        name: []
        for name in (
            "targets", "direct", "balanced", "idle", "canaries_direct", "canaries_balanced",
            "staged", "functions", "functions_before", "functions_after",
            "unhealthy", "endpoints", "in_pools", "closing", "before_allow", "after_allow",
            "after_test", "leaving", "left", "returned", "unsafe_parts",
        )
    },
    **{name: {} for name in ("pools", "home", "pool_endpoints", "pool_of", "arms")},
    "leaving_span": "leave",
    "serial": [1],
    "steps": {part: [] for part in PARTS},
    "step_hosts": {part: [] for part in PARTS},
    "function_hosts": {part: [] for part in PARTS},
}  # fmt: skip


class ActionModule(BasculeAction):
    phase = "open"
    options: t.ClassVar[dict[str, dict[str, t.Any]]] = {
        "strategy": {"type": "str", "required": True},
        "targets": {"type": "list", "elements": "str", "required": True},
        "listing": {"type": "bool", "default": False},
        "follows": {"type": "str", "default": ""},
        "routing": {"type": "list", "elements": "dict", "default": []},
        "pool_routing": {"type": "list", "elements": "dict", "default": []},
        "foreseen": {"type": "dict", "default": {}},
    }

    def act(self, arguments: Arguments, variables: Variables) -> Result:
        self._task_variables = variables
        interrupted = str(self._templar.template(variables.get("deployment_id", "")))
        if not (
            arguments["targets"] or arguments["listing"] or arguments["follows"] or interrupted
        ):
            # Without a target its group's variables are missing as well, which would be told first.
            group, pattern = (
                str(self._templar.template(variables.get(name, "")))
                for name in ("deploy_group", "deploy_targets")
            )
            raise no_targets(group, pattern, variables.get("groups") or {})
        settings = self._settings(variables)
        state = state_directory(settings["deploy_state_directory"])
        where = {
            "record": settings["deploy_record"],
            "state_directory": settings["deploy_state_directory"],
        }
        require(settings, "deploy_group", "web")
        if arguments["listing"]:
            return self._listed(arguments["targets"], settings, variables)
        if arguments["follows"]:
            return self._follow_up(arguments, settings, variables)
        if pause_wanted() is not None and not self.checking:
            raise UsageError("Interrupted before anything was begun.")
        with open_record(where) as record:
            if interrupted:
                stop = self._templar.template(variables.get("deployment_stop") or {})
                opened = resume_deployment(
                    interrupted,
                    settings,
                    record=record,
                    check=self.checking,
                    stop=stop,
                    hosts=(variables.get("groups") or {}).get("all"),
                )
            else:
                endpoints = self._endpoints(arguments["targets"], settings, variables)
                observed = self._observed(arguments, settings, endpoints, variables)
                coming = self._foreseen(arguments["foreseen"], settings)
                for one in coming:
                    observed.endpoints[one.pool].append(one)
                opened = open_deployment(
                    arguments["strategy"],
                    settings,
                    [*endpoints, *coming],
                    record=record,
                    cache=state / "cache",
                    base=base_folder(),
                    check=self.checking,
                    situation=self._situation(arguments, settings, endpoints, variables),
                    observed=observed,
                    functions=self._functions(arguments["targets"], settings, variables),
                )
            channels = parse_channels(settings["deploy_notifications"])
            if channels and not self.checking:
                start(record_url(where), opened.deployment["id"], channels)
        if settings["deploy_judge"] and not interrupted:
            lines = self._evidence(settings, opened, variables, where)
            text = opened.plan_text + "".join(f"{line}\n" for line in lines)
            opened = dataclasses.replace(opened, plan_text=text)
        if arguments["foreseen"]:
            from ansible_collections.bascule.deploy.plugins.plugin_utils._green_fleet import (
                foreseen_text,
            )

            text = f"{foreseen_text(arguments['foreseen'])}\n\n{opened.plan_text}"
            opened = dataclasses.replace(opened, plan_text=text, fleet=NOBODY)
        if opened.fleet["targets"] and not self.checking:
            employ_clerk(record_url(where))
        return {
            # Ansible's own display shows the difference only of what would change.
            "changed": self.checking and self.diffing,
            "msg": opened.plan_text,
            "diff": {"prepared": opened.plan_text},
            "ansible_facts": {
                "bascule_deployment": opened.deployment,
                # The deployment that follows a fresh baseline is opened when that has succeeded.
                "bascule_fleet": waiting(opened.fleet) if opened.baseline else opened.fleet,
                "bascule_baseline": opened.baseline,
                "bascule_baseline_fleet": opened.baseline_fleet or NOBODY,
                "bascule_rollback": {},
                "bascule_rollback_fleet": {**NOBODY, "retreat": []},
                "bascule_joined": {},
                "bascule_joined_fleet": NOBODY,
            },
            "bascule": {
                "deployment": opened.deployment,
                "plan": opened.baseline_plan or opened.plan,
                "plan_text": opened.plan_text,
            },
        }

    def _evidence(
        self,
        settings: dict[str, t.Any],
        opened: Opened,
        variables: Variables,
        where: dict[str, str],
    ) -> list[str]:
        """Return how long the steps must last; it is of this moment, and so no part of the plan."""
        asked = self._templar.template(variables.get("__deploy_gate_traffic") or {})
        arms = opened.fleet["arms"]
        traffic = traffic_of(self, variables, {**NO_TRAFFIC, **asked, "arms": arms})

        def recall() -> Remembered | None:
            with open_record(where) as record:
                return remembered(record, settings["deploy_application"], settings["deploy_group"])

        compared = sum(len(targets) for targets in arms.values())
        pools = opened.plan.get("pools")
        beside = len(pools["members"][pools["old"]]) if pools else 0
        return evidence_lines(
            settings["deploy_judge"],
            opened.plan.get("schedule") or [],
            traffic,
            recall=recall,
            share=len(arms["canary"]) / compared if compared else None,
            # The part of the old pool that is a fresh baseline.
            beside=len(arms["baseline"]) / beside if compared and beside else 1.0,
        )

    def _foreseen(self, foreseen: dict[str, t.Any], settings: dict[str, t.Any]) -> list[Endpoint]:
        """Return the targets that a copied Auto Scaling group would bring.

        :raises UsageError: the plan is to be saved, which is for targets that there are
        """
        if not foreseen:
            return []
        if settings["deploy_plan"] or settings["deploy_plan_output"]:
            raise UsageError(
                f"A plan cannot be saved for a copy of the Auto Scaling group {foreseen['source']} "
                "that is not there yet: its instances get their names when they are launched."
            )
        from ansible_collections.bascule.deploy.plugins.plugin_utils._green_fleet import (
            foreseen_targets,
        )

        return foreseen_targets(foreseen)

    def _follow_up(
        self, arguments: Arguments, settings: dict[str, t.Any], variables: Variables
    ) -> Result:
        """Open the deployment of the targets that joined since another, or only name them."""
        endpoints = self._endpoints(arguments["targets"], settings, variables)
        pools = self._observed(arguments, settings, endpoints, variables).endpoints
        where = {
            "record": settings["deploy_record"],
            "state_directory": settings["deploy_state_directory"],
        }
        with open_record(where) as record:
            resting = joined_at_rest(arguments["follows"], endpoints, pools, record)
            if settings["deploy_late_joiners"] == "report":
                return report_joined(arguments["follows"], endpoints, record)
            opened = open_follow_up(
                arguments["follows"],
                settings,
                endpoints,
                record=record,
                cache=state_directory(settings["deploy_state_directory"]) / "cache",
                pools=pools,
            )
        told = {"warnings": [resting]} if resting else {}
        if opened is None:
            text = resting or "no target has joined"
            return {"changed": False, "msg": text, "bascule": {}, **told}
        return {
            **told,
            "changed": False,
            "msg": opened.plan_text,
            "ansible_facts": {
                "bascule_joined": opened.deployment,
                "bascule_joined_fleet": opened.fleet,
            },
            "bascule": {
                "deployment": opened.deployment,
                "plan": opened.plan,
                "plan_text": opened.plan_text,
            },
        }

    def _listed(
        self, targets: list[str], settings: dict[str, t.Any], variables: Variables
    ) -> Result:
        """Return the endpoints alone, for those who look at the routing before a plan is made."""
        found = [] if is_lambda(settings) else self._endpoints(targets, settings, variables)
        told = {"in_pools": by_pool(found)}
        return {"changed": False, "msg": f"{len(found)} targets", "bascule": told}

    def _situation(
        self,
        arguments: Arguments,
        settings: dict[str, t.Any],
        endpoints: list[Endpoint],
        variables: Variables,
    ) -> Situation | None:
        """Return what a saved plan is made of, if this run saves or applies one."""
        if not (settings["deploy_plan"] or settings["deploy_plan_output"]):
            return None
        hosts = variables["hostvars"]
        return Situation(
            inventory=[str(source) for source in variables.get("ansible_inventory_sources") or ()],
            limit=variables.get("ansible_limit"),
            base=base_folder(),
            given=load_extra_vars(self._loader),
            raw={one.target: dict(hosts.raw_get(one.target)) for one in endpoints},
            routing=routing_of(arguments["routing"], endpoints),
            vaulted=vaulted,
            public=public_variables(),
        )

    def _functions(
        self, targets: list[str], settings: dict[str, t.Any], variables: Variables
    ) -> list[FunctionSettings]:
        """Return the targets as functions, from their own variables; none if they are hosts."""
        if not is_lambda(settings):
            return []
        found = []
        for target in targets:
            own = variables["hostvars"][target]
            given = {
                name: own.get(f"{FUNCTION_PREFIX}{name}", settings[f"{FUNCTION_PREFIX}{name}"])
                for name in OWN
            }
            given["function"] = own.get(f"{FUNCTION_PREFIX}function", target)
            found.append(function_settings(target, given))
        return found

    def _observed(
        self,
        arguments: Arguments,
        settings: dict[str, t.Any],
        endpoints: list[Endpoint],
        variables: Variables,
    ) -> Observed:
        """Return which targets each pool has, and how the load balancers share the traffic."""
        members: dict[str, list[str]] = {pool: [] for pool in settings["deploy_traffic_pools"]}
        for pool, pattern in settings["deploy_pools"].items():
            members[pool] = [one for one in arguments["targets"] if one in self._hosts(pattern)]
        named = {one for found in members.values() for one in found}
        for one in endpoints:
            if one.pool in members and one.target not in named:
                members[one.pool].append(one.target)
        return Observed(
            endpoints={
                pool: self._endpoints(found, settings, variables, pool=pool)
                for pool, found in members.items()
            },
            routings=[answer["routing"].get("before") for answer in arguments["pool_routing"]],
            canaries=self._canaries(arguments["targets"], settings),
            warnings=list(
                dict.fromkeys(
                    warning
                    for answer in [*arguments["routing"], *arguments["pool_routing"]]
                    for warning in answer.get("bascule", {}).get("warnings", [])
                )
            )
            or self._reloads(arguments, settings, endpoints, variables),
        )

    def _reloads(
        self,
        arguments: Arguments,
        settings: dict[str, t.Any],
        endpoints: list[Endpoint],
        variables: Variables,
    ) -> list[str]:
        """Return what reloads of the load balancers may cost, where nobody has asked them yet."""
        provider = settings["deploy_traffic_provider"]
        asked = arguments["routing"] or arguments["pool_routing"]
        if asked or not endpoints or provider not in RELOADED:
            return []
        (first,) = by_pool(endpoints[:1])
        given = {
            "provider": provider,
            "options": self._templar.template(variables["__deploy_traffic_options"]),
            "hosts": settings["deploy_traffic_hosts"],
            "targets": first["targets"],
        }
        traffic = traffic_of(self, variables, given)
        return traffic.warned(first["pool"]) if traffic else []

    def _canaries(self, targets: list[str], settings: dict[str, t.Any]) -> list[str]:
        """Return the first so many of the targets, or those that a pattern names."""
        given = settings["deploy_canary_targets"]
        try:
            number = parse_stages([given], len(targets), "deploy_canary_targets")[:1]
        except UsageError:
            return [one for one in targets if one in self._hosts(str(given))]
        return targets[: number[0]] if number else []

    def _hosts(self, pattern: str) -> list[str]:
        """Return the hosts of the inventory that a pattern names."""
        lookup = lookup_loader.get(
            "ansible.builtin.inventory_hostnames", loader=self._loader, templar=self._templar
        )
        return list(lookup.run([pattern], variables=self._task_variables))

    def _settings(self, variables: Variables) -> dict[str, t.Any]:
        """Return the public variables, templated, checked and with their defaults.

        :raises UsageError: a variable is unknown or does not fit
        """
        known = public_variables()
        refuse_unknown(variables, known)
        given = {name: self._templated(name, variables) for name in known if name in variables}
        given = {
            name: as_data(name, value, known[name])
            for name, value in given.items()
            if value is not None
        }
        require(given, "deploy_application", "shop")
        validation = ArgumentSpecValidator(known).validate(given)
        if validation.error_messages:
            raise UsageError(unfit(validation.error_messages))
        settings = t.cast("dict[str, t.Any]", validation.validated_parameters)
        host_settings(settings)
        traffic_settings(settings)
        fleet_settings(settings)
        scaling_settings(settings)
        return settings

    def _templated(self, name: str, variables: Variables) -> t.Any:
        try:
            return self._templar.template(variables[name])
        except AnsibleError as error:
            raise UsageError(f"{name} cannot be worked out: {error}") from error

    def _endpoints(
        self,
        targets: list[str],
        settings: dict[str, t.Any],
        variables: Variables,
        *,
        pool: str = "",
    ) -> list[Endpoint]:
        """Return how the load balancer knows each target, from the target's own variables.

        :param pool: what ``deploy_pool`` is taken to be; that of each target if it is empty
        """
        found = []
        for target in targets:
            own = variables["hostvars"][target]
            if not pool:
                refuse_unknown(own, public_variables(), target)
            if pool and own.get(f"{PREFIX}pool", "") != pool:
                own = self._in_pool(target, pool, variables)
            port = own.get(f"{PREFIX}traffic_target_port", settings["deploy_traffic_target_port"])
            found.append(
                Endpoint(
                    target=target,
                    name=str(own.get(f"{PREFIX}traffic_target_name", target)),
                    address=str(
                        own.get(f"{PREFIX}traffic_target_address", own.get("ansible_host", target))
                    ),
                    port=_port(port, target),
                    zone=str(own.get(f"{PREFIX}zone", "")),
                    instance=str(own.get(f"{PREFIX}instance_id", own.get("instance_id", ""))),
                    pool=pool or str(own.get(f"{PREFIX}pool", "")),
                )
            )
        return found

    def _in_pool(self, target: str, pool: str, variables: Variables) -> dict[str, t.Any]:
        """Return where a target is reached if it is in a pool: its variables may say it by pool."""
        raw = {**variables["hostvars"].raw_get(target), f"{PREFIX}pool": pool}
        templar = self._templar.copy_with_new_env(available_variables=raw)
        names = (*(f"{PREFIX}{name}" for name in REACHED), "ansible_host")
        return {name: templar.template(raw[name]) for name in names if name in raw}


def waiting(fleet: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return the facts of a deployment that is not opened yet: whom it will need, and no more."""
    return {**NOBODY, "in_pools": fleet["in_pools"], "verdict": fleet["closing"]}


def joined_at_rest(
    follows: str,
    endpoints: list[Endpoint],
    pools: t.Mapping[str, t.Sequence[Endpoint]],
    record: Record,
) -> str:
    """Say which targets joined a pool that no user reaches; empty if none did."""
    found = record.deployment(follows)
    states = record.target_states(found.application, found.group)
    names = [
        one.target for one in by_users(found, joined_since(found, endpoints, states), pools)[1]
    ]
    if not names:
        return ""
    return (
        f"Joined the idle pool since the deployment {found.id} was planned: {', '.join(names)}. No "
        "user reaches them; they get a revision when that pool is next."
    )


def report_joined(follows: str, endpoints: list[Endpoint], record: Record) -> Result:
    """Name the targets that joined since a deployment, in a warning."""
    found = record.deployment(follows)
    if found.rolled_back_by:
        found = record.deployment(found.rolled_back_by)
    states = record.target_states(found.application, found.group)
    names = [one.target for one in joined_since(found, endpoints, states)]
    result: Result = {"changed": False, "msg": "no target has joined", "bascule": {}}
    if names:
        result["msg"] = (
            f"Joined since the deployment {found.id} was planned, without its revision: "
            f"{', '.join(names)}. Bring it to them with deploy_revision=current and "
            "deploy_only_outdated=true."
        )
        result["warnings"] = [result["msg"]]
    return result


def base_folder() -> Path:
    """Return the folder from which relative paths are looked up."""
    return Path(os.environ.get("BASCULE_BASE") or Path.cwd())


def vaulted(value: t.Any) -> bool:
    """Tell whether a value, or any part of it, comes out of a vault."""
    if isinstance(value, dict):
        return any(vaulted(one) for one in value.values())
    if isinstance(value, (list, tuple)):
        return any(vaulted(one) for one in value)
    return VaultHelper.get_ciphertext(value, with_tags=False) is not None


def _port(value: object, target: str) -> int:
    try:
        return int(str(value))
    except ValueError as error:
        raise UsageError(
            f"The variable deploy_traffic_target_port of {target} is {value!r}; "
            "it must be a port number."
        ) from error
