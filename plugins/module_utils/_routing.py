# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a playbook's words to a request for the proxy's host, and from its answer to an event."""

from __future__ import annotations

from typing import Any

from ._configuration import parse_duration
from ._errors import UsageError

ACTIONS = {
    "drained": "drain",
    "in_service": "restore",
    "observed": "observe",
    "routed": "route",
    "measured": "measure",
}
# The states of pools; the others are of targets.
POOL_STATES = ("routed", "measured")
EVENTS = {"drained": "BlockTraffic", "in_service": "AllowTraffic"}
TIMES = ("drain_timeout", "restore_timeout", "interval")

_NGINX = {
    "nginx_directory": "directory",
    "nginx_command": "command",
    "nginx_pid_path": "pid_path",
    "nginx_reload_wait": "reload_wait",
}

# The options of each provider, by the name that the action's options and, with "deploy_" before
# it, the public variables have.
PROVIDER_OPTIONS: dict[str, dict[str, str]] = {
    "envoy": {
        "envoy_eds_path": "eds_path",
        "envoy_cluster": "cluster",
        "envoy_admin_url": "admin_url",
        "envoy_service_name": "service_name",
    },
    "haproxy": {
        "haproxy_socket": "socket",
        "haproxy_backend": "backend",
        "haproxy_drain_with": "drain_with",
    },
    "nginx": {
        **_NGINX,
        "nginx_upstream": "upstream",
        "nginx_health_path": "health_path",
    },
    "elbv2": {
        "elbv2_target_groups": "target_groups",
        "elbv2_target_port": "target_port",
        "elbv2_propagation": "propagation",
    },
    "elb": {
        "elb_names": "names",
        "elb_propagation": "propagation",
    },
    "lambda_alias": {},
}
# What a provider needs to share traffic between pools, beside the pools themselves.
ROUTING_OPTIONS: dict[str, dict[str, str]] = {
    "envoy": {"envoy_routes_path": "routes_path", "envoy_admin_url": "admin_url"},
    "haproxy": {
        "haproxy_socket": "socket",
        "haproxy_map_path": "map_path",
        "haproxy_map_key": "map_key",
    },
    "elbv2": {
        "elbv2_listener": "listener",
        "elbv2_test_listener": "test_listener",
        "elbv2_propagation": "propagation",
        "restore_timeout": "restore_timeout",
    },
    "nginx": {**_NGINX, "nginx_log_path": "log_path"},
}
# How deploy_traffic_pools names a pool, by provider. The values are options of the provider that
# hold for the pool's targets.
POOL_KEYS: dict[str, dict[str, str]] = {
    "envoy": {"cluster": "cluster", "eds_path": "eds_path"},
    "haproxy": {"backend": "backend"},
    "nginx": {"upstream": "upstream"},
    "elbv2": {"target_group": "target_groups"},
}
_TYPES: dict[str, dict[str, Any]] = {
    # It names an entry and is no secret, whatever its name sounds like.
    "haproxy_map_key": {"type": "str", "no_log": False},
    "elbv2_target_groups": {"type": "list", "elements": "str"},
    "elbv2_target_port": {"type": "int"},
    "elbv2_propagation": {"type": "raw"},
    "elb_names": {"type": "list", "elements": "str"},
    "elb_propagation": {"type": "raw"},
    "nginx_reload_wait": {"type": "raw"},
}
# Options that are times, for providers that are told seconds.
_DURATIONS = frozenset(("nginx_reload_wait",))

# A task needs state, provider and targets; the module can also get a finished request instead.
TRAFFIC_OPTIONS: dict[str, dict[str, Any]] = {
    "state": {"type": "str", "choices": list(ACTIONS)},
    "provider": {"type": "str", "choices": sorted(PROVIDER_OPTIONS)},
    "options": {
        "type": "dict",
        "default": {},
        "options": {
            "drain_timeout": {"type": "raw", "default": "300s"},
            "restore_timeout": {"type": "raw", "default": "300s"},
            "interval": {"type": "raw", "default": "250ms"},
            "reconnect_timeout": {"type": "raw", "default": "60s"},
            "on_drain_timeout": {
                "type": "str",
                "choices": ["proceed", "fail"],
                "default": "proceed",
            },
            **{
                name: _TYPES.get(name, {"type": "str"})
                for names in (*PROVIDER_OPTIONS.values(), *ROUTING_OPTIONS.values())
                for name in names
                if name not in ("restore_timeout",)
            },
            "pools": {"type": "dict", "default": {}},
        },
    },
    "targets": {"type": "list", "elements": "dict", "default": []},
    "pool": {"type": "str", "default": ""},
    "routing": {"type": "dict"},
    "since": {"type": "float"},
    "hosts": {"type": "list", "elements": "str", "default": []},
}


def traffic_request(arguments: dict[str, Any], here: str, *, check: bool) -> dict[str, Any]:
    """Return the request for the host program (see ``_host/_traffic.run``).

    :param arguments: values of ``TRAFFIC_OPTIONS``
    :param here: inventory name of the current host, the name of a target that has none
    :raises UsageError: a time that cannot be read, a pool that is not named
    """
    options = arguments["options"]
    provider = arguments["provider"]
    request = {
        "operation": "traffic",
        "action": ACTIONS[arguments["state"]],
        "check": check,
        "provider": provider,
    }
    if arguments["state"] in POOL_STATES:
        return {
            **request,
            "provider_options": {
                **_given(options, ROUTING_OPTIONS.get(provider, {})),
                "pools": pools_of(options.get("pools"), provider),
            },
            **({"routing": arguments["routing"]} if arguments["state"] == "routed" else {}),
            **({"since": arguments["since"]} if arguments.get("since") is not None else {}),
        }
    return {
        **request,
        "provider_options": {
            **_given(options, PROVIDER_OPTIONS[provider]),
            **_of_pool(arguments.get("pool"), options.get("pools"), provider),
        },
        "targets": [
            {
                "name": given.get("name") or given.get("target") or here,
                "address": given.get("address") or here,
                "port": given.get("port"),
                "weight": given.get("weight"),
                **({"instance": given["instance"]} if given.get("instance") else {}),
            }
            for given in arguments["targets"]
        ],
        "on_drain_timeout": options["on_drain_timeout"],
        **{name: parse_duration(options[name], f"deploy_traffic_{name}") for name in TIMES},
    }


def pools_of(pools: Any, provider: str) -> dict[str, dict[str, Any]]:
    """Check ``deploy_traffic_pools``: each pool has what the provider knows it by.

    :raises UsageError: no pools, or a pool without one of its names
    """
    keys = POOL_KEYS.get(provider, {})
    if not pools or not isinstance(pools, dict):
        raise UsageError(
            "No pools are named: set deploy_traffic_pools, for instance {blue: {"
            + ", ".join(f"{key}: …" for key in keys)
            + "}, green: {…}}."
        )
    for pool, entry in pools.items():
        missing = [
            key for key in keys if not (isinstance(entry, dict) and entry.get(key, "") != "")
        ]
        if missing:
            raise UsageError(
                f"deploy_traffic_pools: {pool} is {entry!r}; with {provider} it needs "
                f"{', '.join(missing)}."
            )
    return {str(pool): dict(entry) for pool, entry in pools.items()}


def _of_pool(pool: Any, pools: Any, provider: str) -> dict[str, Any]:
    """Return the provider's options for the targets of a pool; none where there are no pools."""
    if not pool or not pools:
        return {}
    known = pools_of(pools, provider)
    if pool not in known:
        raise UsageError(f"There is no pool {pool!r}; deploy_traffic_pools has {', '.join(known)}.")
    return {
        option: [known[pool][key]] if option == "target_groups" else known[pool][key]
        for key, option in POOL_KEYS[provider].items()
    }


def _given(options: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {
        names[name]: (
            parse_duration(options[name], f"deploy_{name}") if name in _DURATIONS else options[name]
        )
        for name in names
        if options.get(name) not in (None, "", [])
    }


def traffic_event(
    state: str, answer: dict[str, Any], started: float, ended: float
) -> dict[str, Any] | None:
    """Return the lifecycle event that this change of traffic is, or None if it only looked.

    :param started: epoch seconds, as ``ended``
    """
    if state not in EVENTS:
        return None
    return {
        "event": EVENTS[state],
        "status": "Failed" if answer.get("failed") else "Succeeded",
        "started": started,
        "ended": ended,
        "message": answer["msg"],
    }
