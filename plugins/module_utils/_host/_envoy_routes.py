# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Envoy's route file (RDS) as data: read the routing between pools out of it, write one into it.

A route is ours to change if all clusters it names are pools; its match, timeouts and retries are
the user's and stay. Before it go routes of our own, whose names begin with ``bascule/``: one for
each rule, and for sticky users one for each arm. The routing is also kept in the route's metadata,
so that the administration shows it as it was ordered.

Sticky users are given their arm by a Lua filter, since Envoy's own hash is another one than that of
the other proxies: the arm is written into a header, and the route is looked for again.

This file runs on hosts: Python 3.8 and the standard library only.
"""

from __future__ import annotations

import copy
import hashlib
import json
from typing import TYPE_CHECKING, Any

from .._errors import TrafficError, UsageError
from .._routing_data import WHOLE, Routing, borders, parse_routing
from ._eds import get_field as _get
from ._eds import spelling as _key

if TYPE_CHECKING:
    from collections.abc import Iterator

OURS = "bascule/"
METADATA = "bascule"
LUA_FILTER = "envoy.filters.http.lua"
LUA_PER_ROUTE = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.LuaPerRoute"
ARM_HEADER = "x-bascule-arm"
ISSUED = "bascule"

# MurmurHash2 without 32-bit integers: products stay below 2^53 by taking one factor in halves.
# It is read by LuaJIT (Envoy) and by Lua 5.3 (HAProxy), whose operators differ.
LUA_HASH = """\
local bxor = bit and bit.bxor or load("return function(a, b) return a ~ b end")()
local floor = math.floor
local function xor(a, b) return bxor(a, b) % 4294967296 end
local function shift(a, n) return floor(a / 2 ^ n) end
local function mul(a, b)
  local low, high = a % 65536, floor(a / 65536)
  return (low * b + (high * b) % 65536 * 65536) % 4294967296
end
local function murmur(text)
  local m, size = 1540483477, #text
  local h, at = size % 4294967296, 1
  while size >= 4 do
    local a, b, c, d = text:byte(at, at + 3)
    local k = mul(a + b * 256 + c * 65536 + d * 16777216, m)
    h = xor(mul(h, m), mul(xor(k, shift(k, 24)), m))
    at, size = at + 4, size - 4
  end
  if size > 0 then
    local a, b, c = text:byte(at, at + size - 1)
    h = mul(xor(h, a + (b or 0) * 256 + (c or 0) * 65536), m)
  end
  h = mul(xor(h, shift(h, 13)), m)
  return floor(xor(h, shift(h, 15)))
end
"""

_LUA_STICKY = """\
local arms = {@ARMS@}
local salt, header, cookie, issue = @SALT@, @HEADER@, @COOKIE@, @ISSUE@
local function identity(handle)
  local headers = handle:headers()
  if header then return headers:get(header) end
  for number = 0, headers:getNumValues("cookie") - 1 do
    local line = ";" .. headers:getAtIndex("cookie", number)
    for key, value in line:gmatch(";%s*([^=;]+)=([^;]*)") do
      if key == cookie and value ~= "" then return value end
    end
  end
end
function envoy_on_request(handle)
  local id = identity(handle)
  local headers = handle:headers()
  headers:remove("@ARM@")
  if (not id or id == "") and issue then
    id = headers:get("x-request-id")
    if id then handle:streamInfo():dynamicMetadata():set("bascule", "issued", id) end
  end
  if id and id ~= "" then
    local hash = murmur(salt .. ":" .. id)
    for _, arm in ipairs(arms) do
      if hash < arm[2] then headers:add("@ARM@", arm[1]) break end
    end
  end
  handle:clearRouteCache()
end
function envoy_on_response(handle)
  local issued = handle:streamInfo():dynamicMetadata():get("bascule")
  if issued and issued["issued"] then
    handle:headers():add("set-cookie", cookie .. "=" .. issued["issued"] .. issue)
  end
end
"""


def base_routes(content: Any, clusters: dict[str, str], path: str) -> list[tuple[Any, int]]:
    """Return (list of routes, place in it) of every route that shares traffic between the pools.

    :param content: the file's content, or an entry of ``config_dump`` under ``resources``
    :param clusters: Envoy's cluster of each pool
    :raises TrafficError: another kind of file, or no such route
    """
    resources = content.get("resources") if isinstance(content, dict) else None
    if not isinstance(resources, list):
        raise TrafficError(
            f"{path} is not a route file of Envoy: it has no list 'resources'. Check "
            "deploy_envoy_routes_path."
        )
    found, seen = [], []
    for host in _virtual_hosts(resources):
        routes = host.get("routes", [])
        for number, route in enumerate(routes):
            if str(route.get("name", "")).startswith(OURS):
                continue
            named = [name for name, _weight in _clusters(route)]
            seen += named
            if named and set(named) <= set(clusters.values()):
                found.append((routes, number))
    if not found:
        raise TrafficError(
            f"{path} has no route to the pools' clusters {', '.join(clusters.values())}; its "
            f"routes lead to {', '.join(dict.fromkeys(seen)) or 'nothing'}. Let one route lead to "
            "one of them, or check deploy_traffic_pools."
        )
    return found


def read_routes(content: Any, clusters: dict[str, str], path: str) -> Routing | None:
    """Return the routing that a route file or Envoy itself has; ``None`` is one we do not know.

    :raises TrafficError: another kind of file, or no route to the pools
    """
    pools = {cluster: pool for pool, cluster in clusters.items()}
    routes, number = base_routes(content, clusters, path)[0]
    weights = _clusters(routes[number])
    total = sum(weight for _name, weight in weights)
    try:
        shown = {pools[name]: round(weight * 100.0 / total, 2) for name, weight in weights if total}
        kept = _get(_get(routes[number], "metadata", {}), "filter_metadata", {}).get(METADATA, {})
        routing = parse_routing(json.loads(kept["routing"]) if kept else {"weights": shown})
    except (UsageError, ValueError, KeyError, TypeError):
        return None
    positive = {pool: points / 100 for pool, points in routing.points.items() if points}
    # Somebody may have changed the weights since.
    return routing if positive == {pool: w for pool, w in shown.items() if w} else None


def write_routes(content: Any, clusters: dict[str, str], routing: Routing, path: str) -> Any:
    """Return the file's content with this routing; what is not ours is as it was.

    :raises TrafficError: another kind of file, or no route to the pools
    """
    changed = copy.deepcopy(content)
    for host in _virtual_hosts(changed.get("resources", [])):
        host["routes"] = [
            route
            for route in host.get("routes", [])
            if not str(route.get("name", "")).startswith(OURS)
        ]
    for routes, number in reversed(base_routes(changed, clusters, path)):
        routes[number : number + 1] = _rendered(routes[number], clusters, routing, number)
    text = json.dumps([changed["resources"], routing.as_data()], sort_keys=True)
    changed["version_info"] = "bascule-" + hashlib.sha256(text.encode()).hexdigest()[:16]
    changed.pop("versionInfo", None)
    return changed


def has_lua(dump: dict[str, Any]) -> bool:
    """Tell whether a configuration dump's listeners have the Lua filter."""
    return any(
        isinstance(node, dict) and str(node.get("name")) == LUA_FILTER for node in _walk(dump)
    )


def _rendered(
    base: dict[str, Any], clusters: dict[str, str], routing: Routing, number: int
) -> list[dict[str, Any]]:
    """Return our routes and, last, the user's own with the new weights."""
    action = _action(base)
    for name in ("cluster", "weighted_clusters", "request_mirror_policies"):
        action.pop(_key(action, name), None)
    base.pop(_key(base, "metadata"), None)
    per_filter = _key(base, "typed_per_filter_config")
    if LUA_FILTER in base.get(per_filter, {}):
        del base[per_filter][LUA_FILTER]
        if not base[per_filter]:
            del base[per_filter]
    found = []
    for place, rule in enumerate(routing.match, 1):
        route = _copy(base, f"{OURS}{number}/match/{place}", clusters[rule.pool])
        if rule.header:
            matcher = {"name": rule.header, "string_match": {"exact": rule.value}}
        else:
            pattern = rf"(?:.*;)?\s*{_quoted(str(rule.cookie))}={_quoted(rule.value)}\s*(?:;.*)?"
            matcher = {"name": "cookie", "string_match": {"safe_regex": {"regex": pattern}}}
        _add_matcher(route, matcher)
        found.append(route)
    if routing.mirror and routing.mirror.share:
        numerator = round(routing.mirror.share * 100)
        action["request_mirror_policies"] = [
            {
                "cluster": clusters[routing.mirror.pool],
                "runtime_fraction": {
                    "default_value": {"numerator": numerator, "denominator": "TEN_THOUSAND"}
                },
            }
        ]
    if routing.sticky:
        lua = {"@type": LUA_PER_ROUTE, "source_code": {"inline_string": sticky_lua(routing)}}
        base.setdefault(per_filter, {})[LUA_FILTER] = lua
        for pool, _border in borders(routing):
            route = _copy(base, f"{OURS}{number}/arm/{pool}", clusters[pool])
            _add_matcher(route, {"name": ARM_HEADER, "string_match": {"exact": pool}})
            found.append(route)
    action["weighted_clusters"] = {
        "clusters": [
            {"name": clusters[pool], "weight": points}
            for pool, points in sorted(routing.points.items())
        ]
    }
    kept = json.dumps(routing.as_data(), sort_keys=True)
    metadata = base.setdefault("metadata", {})
    metadata["filter_metadata"] = {METADATA: {"routing": kept}}
    return [*found, base]


def sticky_lua(routing: Routing) -> str:
    """Return the program that gives sticky users their arm."""
    by = routing.sticky
    if by is None:
        raise UsageError("routing: it is not sticky.")
    texts = {
        "@ARMS@": ", ".join(f"{{{_lua(pool)}, {border}}}" for pool, border in borders(routing)),
        "@SALT@": _lua(by.salt),
        "@HEADER@": _lua(by.header),
        "@COOKIE@": _lua(by.cookie),
        "@ISSUE@": _lua(cookie_attributes(by.ttl) if by.ttl else None),
        "@ARM@": ARM_HEADER,
    }
    program = _LUA_STICKY
    for old, new in texts.items():
        program = program.replace(old, new)
    return LUA_HASH + program


def cookie_attributes(ttl: float) -> str:
    """Return what follows name and value of a cookie that the proxy gives."""
    return f"; Max-Age={int(ttl)}; Path=/; HttpOnly; SameSite=Lax"


def _lua(text: str | None) -> str:
    # Names and values were checked: none has a quote, a backslash or a control character.
    return "nil" if text is None else f'"{text}"'


def _quoted(text: str) -> str:
    """Return RE2's pattern of a text."""
    return "".join(c if c.isalnum() or c in "_-" else f"\\x{ord(c):02x}" for c in text)


def _copy(base: dict[str, Any], name: str, cluster: str) -> dict[str, Any]:
    route = copy.deepcopy(base)
    route["name"] = name
    _action(route)["cluster"] = cluster
    return route


def _add_matcher(route: dict[str, Any], matcher: dict[str, Any]) -> None:
    match = route["match"]
    match.setdefault(_key(match, "headers"), []).append(matcher)


def _virtual_hosts(resources: list[Any]) -> Iterator[dict[str, Any]]:
    for resource in resources:
        inner = resource.get("resource", resource)
        yield from _get(inner, "virtual_hosts", [])


def _clusters(route: dict[str, Any]) -> list[tuple[str, int]]:
    """Return the clusters that a route leads to, with their weights."""
    action = _action(route)
    if "cluster" in action:
        return [(str(action["cluster"]), WHOLE)]
    weighted = _get(_get(action, "weighted_clusters", {}), "clusters", [])
    # protobuf's JSON leaves a weight of 0 out in some versions.
    return [(str(entry.get("name")), int(entry.get("weight") or 0)) for entry in weighted]


def _action(route: dict[str, Any]) -> dict[str, Any]:
    action: dict[str, Any] = route.get("route", {})
    return action


def _walk(node: Any) -> Iterator[Any]:
    yield node
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for child in children:
        yield from _walk(child)
