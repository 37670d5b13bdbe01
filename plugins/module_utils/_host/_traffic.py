# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take targets out of service and put them back, and wait until the balancer is seen to do so.

This file runs on the proxy's host: Python 3.8 and the standard library only. Several targets share
one request: one order for all, one poll answers for all.
"""

from __future__ import annotations

import contextlib
import importlib
import time
from typing import TYPE_CHECKING, Any, BinaryIO

from .._capabilities import CAPABILITIES, ON_HOST
from .._errors import TrafficError, UsageError
from . import _routed
from ._balancer import Balancer, Seen, Target

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._router import Router

    Opener = Callable[[str, dict[str, Any], list[Target]], Balancer]

ACTIONS = ("observe", "drain", "restore")
ON_DRAIN_TIMEOUT = ("proceed", "fail")

# An order that is not seen after this many seconds will not be: a refused file, a stopped watch.
TAKE_UP_SECONDS = 15.0


class _Request:
    """A request, checked. All times are seconds."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.action = _one_of(request, "action", ACTIONS)
        self.check = bool(request.get("check"))
        self.provider = _one_of(request, "provider", tuple(sorted(CAPABILITIES)))
        self.options: dict[str, Any] = dict(request.get("provider_options") or {})
        self.targets = [_target(given) for given in request.get("targets") or []]
        if not self.targets:
            raise UsageError("No target was given: name at least one in 'targets'.")
        names = [target.name for target in self.targets]
        if len(set(names)) != len(names):
            raise UsageError(f"A target is named twice: {', '.join(names)}. Name each once.")
        self.drain_timeout = _seconds(request, "drain_timeout", 300.0)
        self.restore_timeout = _seconds(request, "restore_timeout", 300.0)
        self.interval = max(0.05, _seconds(request, "interval", 0.25))
        self.on_drain_timeout = _one_of(request, "on_drain_timeout", ON_DRAIN_TIMEOUT, "proceed")


class _Progress:
    """What has been seen of each target while waiting, and when it was done."""

    def __init__(self, first: dict[str, Seen]) -> None:
        self.started = time.monotonic()
        self.last = dict(first)
        self.quiet_since: dict[str, float | None] = dict.fromkeys(first)
        self.waited: dict[str, float] = {}
        self.trouble: TrafficError | None = None

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def pending(self) -> list[str]:
        return [name for name in self.last if name not in self.waited]

    def done(self, name: str) -> None:
        self.waited[name] = round(self.elapsed, 3)

    def poll(self, balancer: Balancer) -> bool:
        """Look once; a proxy that does not answer just now is asked again until the deadline."""
        try:
            seen = balancer.observe()
        except TrafficError as error:
            self.trouble = error
            return False
        self.trouble = None
        for name, now in seen.items():
            if not now.blocked or now.active or now.ending:
                self.quiet_since[name] = None
            elif self.quiet_since[name] is None or now.served != self.last[name].served:
                self.quiet_since[name] = time.monotonic()
        self.last = seen
        return True

    def quiet_seconds(self, name: str) -> float:
        """Return for how long the target has had no open request and got no new one."""
        since = self.quiet_since[name]
        return -1.0 if since is None else time.monotonic() - since


def run(request: dict[str, Any], bundle: BinaryIO | None = None) -> dict[str, Any]:
    """Observe, drain or restore targets at one load balancer.

    :param request: ``{"operation": "traffic", "action": "observe" | "drain" | "restore", "check":
        bool, "provider": "envoy" | "haproxy", "provider_options": {...}, "targets": [{"name",
        "address", "port", "weight"?}], "drain_timeout": s, "restore_timeout": s, "interval": s,
        "on_drain_timeout": "proceed" | "fail"}``
    The actions ``route`` and ``measure`` are for pools and not for targets: see ``_routed``.

    :param bundle: not used
    :returns: see ``carry_out``
    """
    del bundle
    if request.get("action") in _routed.ACTIONS:
        return _routed.carry_out(request, open_router)
    return carry_out(request, open_balancer)


def carry_out(request: dict[str, Any], opener: Opener) -> dict[str, Any]:
    """Do what a request says at the balancer that ``opener`` gives, wherever that is reached from.

    :param request: see ``run``
    :param opener: returns the balancer for a provider's name, its options and the targets
    :returns: ``{"changed", "msg", "targets": {name: {"in_service", "state", "active", "ending",
        "ordered", "waited", "cut", "answered", "errors"}}, "diff": {"before", "after"}, "waited",
        "where", "warnings"}``; ``ordered`` says that this request has told the balancer something
        of the target, ``cut`` counts the requests that were still open when the drain's time was
        over, ``answered`` and ``errors`` are those of ``Seen``. Who only observes is told, too,
        ``served`` and ``weight`` (see ``Balancer.weights``; None where it is not known)
    :raises UsageError: a request that cannot be worked with
    :raises TrafficError: a balancer that cannot be reached, does not know the target, or does not
        do as asked in time
    """
    asked = _Request(request)
    balancer = opener(asked.provider, asked.options, asked.targets)
    asked.interval = max(asked.interval, balancer.interval)
    if asked.drain_timeout:
        asked.drain_timeout += balancer.slack
    first = balancer.observe()
    _refuse_unknown(asked, balancer, first)
    if asked.action == "observe":
        seen = _result(asked.action, balancer, first, first, _Progress(first), set())
        weights = balancer.weights()
        for name, one in seen["targets"].items():
            one.update(weight=weights.get(name), served=first[name].served)
        return seen
    todo = _to_order(asked.action, first)
    if asked.check:
        return _foreseen(asked.action, balancer, first, todo)
    if asked.action == "drain":
        return _drain(asked, balancer, first, todo)
    return _restore(asked, balancer, first, todo)


def open_balancer(provider: str, options: dict[str, Any], targets: list[Target]) -> Balancer:
    """Return the provider's balancer; its file is only imported when it is asked for."""
    balancer: Balancer = _module_of(provider, "").connect(options, targets)
    return balancer


def open_router(provider: str, options: dict[str, Any]) -> Router:
    """Return what shares traffic between the provider's pools."""
    router: Router = _module_of(provider, "_router").connect(options)
    return router


def _module_of(provider: str, suffix: str) -> Any:
    if provider not in ON_HOST:
        raise UsageError(
            f"The provider {provider} is reached from the controller, not from a proxy's host: use "
            "bascule.deploy.traffic as a task of a playbook."
        )
    return importlib.import_module(f"._{provider}{suffix}", __package__)


def _drain(
    asked: _Request, balancer: Balancer, first: dict[str, Seen], todo: list[str]
) -> dict[str, Any]:
    progress = _Progress(first)
    cut: dict[str, int] = {}
    for name, seen in first.items():
        if not seen.known:
            progress.done(name)
    try:
        if todo:
            balancer.block(todo)
        while progress.pending():
            if progress.poll(balancer):
                for name in progress.pending():
                    if progress.quiet_seconds(name) >= balancer.quiet_seconds:
                        progress.done(name)
            _give_up_on_deaf_ears(asked, balancer, progress)
            if progress.pending() and progress.elapsed >= asked.drain_timeout:
                cut = _drain_is_over(asked, balancer, progress)
            elif progress.pending():
                time.sleep(asked.interval)
    except TrafficError:
        # Nothing was done to these targets yet: they go on serving as before.
        if todo:
            with contextlib.suppress(TrafficError):
                balancer.release(todo, untouched=True)
        raise
    return _result(asked.action, balancer, first, progress.last, progress, set(todo), cut)


def _give_up_on_deaf_ears(asked: _Request, balancer: Balancer, progress: _Progress) -> None:
    """Fail when the order is not seen: traffic would still flow to a target we think drained."""
    deaf = [name for name in progress.pending() if not progress.last[name].blocked]
    if not deaf or progress.elapsed < max(TAKE_UP_SECONDS, asked.interval * 3):
        return
    raise TrafficError(
        f"{balancer.where} was told to send no new request to {', '.join(deaf)}, but after "
        f"{progress.elapsed:.0f} s it still does: {_states(progress, deaf)}. "
        + _why(progress, "Look for a refused update in the proxy's log. The order was taken back.")
    )


def _drain_is_over(asked: _Request, balancer: Balancer, progress: _Progress) -> dict[str, int]:
    """Decide what becomes of targets that are not quiet at the deadline; return what is cut."""
    late = progress.pending()
    unseen = [name for name in late if not progress.last[name].blocked]
    if progress.trouble is not None or (unseen and asked.drain_timeout >= TAKE_UP_SECONDS):
        raise TrafficError(
            f"{balancer.where}: {', '.join(late)} could not be seen drained within "
            f"{asked.drain_timeout:g} s: {_states(progress, late)}. "
            + _why(progress, "Look at the proxy's log. The order was taken back.")
        )
    if unseen:
        # A short deadline is no reason to stop a target that still gets new requests.
        time.sleep(asked.interval)
        return {}
    busy = {name: progress.last[name].active for name in late if progress.last[name].active}
    ending = [name for name in late if progress.last[name].ending]
    if (busy or ending) and asked.on_drain_timeout == "fail":
        raise TrafficError(
            f"{balancer.where}: after {asked.drain_timeout:g} s there were still "
            + ", ".join(
                [f"{count} requests open on {name}" for name, count in busy.items()]
                + [f"requests ending on {name} ({progress.last[name].state})" for name in ending]
            )
            + ". The targets were put back in service. Raise deploy_traffic_drain_timeout, or set "
            "deploy_traffic_on_drain_timeout to 'proceed' to cut such requests."
        )
    for name in late:
        progress.done(name)
    return busy


def _restore(
    asked: _Request, balancer: Balancer, first: dict[str, Seen], todo: list[str]
) -> dict[str, Any]:
    progress = _Progress(first)
    for name, seen in first.items():
        if seen.in_service:
            progress.done(name)
    if todo:
        balancer.release(todo)
    while progress.pending():
        if progress.poll(balancer):
            balancer.advance()
            for name in progress.pending():
                if progress.last[name].in_service:
                    progress.done(name)
        late = progress.pending()
        if late and progress.elapsed >= asked.restore_timeout:
            raise TrafficError(
                f"{balancer.where} did not take {', '.join(late)} back into service within "
                f"{asked.restore_timeout:g} s; it says: {_states(progress, late)}. "
                + _why(
                    progress,
                    "See that the application answers the proxy's health check, or raise "
                    "deploy_traffic_restore_timeout.",
                )
            )
        if late:
            time.sleep(asked.interval)
    return _result(asked.action, balancer, first, progress.last, progress, set(todo))


def _to_order(action: str, seen: dict[str, Seen]) -> list[str]:
    if action == "drain":
        return [name for name, now in seen.items() if now.known and not now.drained]
    return [name for name, now in seen.items() if now.held]


def _refuse_unknown(asked: _Request, balancer: Balancer, seen: dict[str, Seen]) -> None:
    unknown = [name for name, now in seen.items() if not now.known]
    if unknown and "register" not in CAPABILITIES[asked.provider]:
        raise TrafficError(
            f"{balancer.where} does not know {', '.join(unknown)}; it has "
            f"{', '.join(balancer.known_names()) or 'nothing'}. Add it to the proxy's "
            "configuration, or name it as the proxy does in deploy_traffic_target_name."
        )


def _foreseen(
    action: str, balancer: Balancer, first: dict[str, Seen], todo: list[str]
) -> dict[str, Any]:
    after = "out of service" if action == "drain" else "in service"
    then = {
        name: now._replace(state=after, in_service=action == "restore") if name in todo else now
        for name, now in first.items()
    }
    result = _result(action, balancer, first, then, _Progress(first), set(todo))
    for name, now in first.items():
        result["targets"][name].update(in_service=now.in_service, state=now.state)
    return result


def _result(
    action: str,
    balancer: Balancer,
    first: dict[str, Seen],
    last: dict[str, Seen],
    progress: _Progress,
    ordered: set[str],
    cut: dict[str, int] | None = None,
) -> dict[str, Any]:
    cut = cut or {}
    missing = [name for name, now in last.items() if not now.known]
    return {
        "changed": bool(ordered),
        "msg": f"{balancer.where}: "
        + ", ".join(
            f"{name} {now.state}" + (f", {cut[name]} requests cut" if name in cut else "")
            for name, now in last.items()
        ),
        "targets": {
            name: {
                "in_service": now.in_service,
                "state": now.state,
                "active": now.active,
                "ending": now.ending,
                "ordered": name in ordered,
                "waited": progress.waited.get(name, 0.0),
                "cut": cut.get(name, 0),
                "answered": now.answered,
                "errors": now.errors,
            }
            for name, now in last.items()
        },
        "diff": {
            "before_header": balancer.where,
            "after_header": balancer.where,
            "before": _lines(first),
            # What only the clock changes is no change: targets without an order keep their line.
            "after": _lines({n: last[n] if n in ordered else first[n] for n in first}),
        },
        "waited": max(progress.waited.values(), default=0.0),
        "where": balancer.where,
        "warnings": [
            *balancer.warnings,
            *(
                [
                    f"{balancer.where} does not know {', '.join(missing)}: nothing to drain. Check "
                    "address and port if it should."
                ]
                if missing and action == "drain"
                else []
            ),
        ],
    }


def _lines(seen: dict[str, Seen]) -> str:
    return "".join(f"{name}: {now.state}\n" for name, now in seen.items())


def _states(progress: _Progress, names: list[str]) -> str:
    return ", ".join(
        f"{name} {progress.last[name].state}"
        + (f", {progress.last[name].active} requests open" if progress.last[name].counted else "")
        for name in names
    )


def _why(progress: _Progress, otherwise: str) -> str:
    return str(progress.trouble) if progress.trouble is not None else otherwise


def _target(given: dict[str, Any]) -> Target:
    try:
        weight = given.get("weight")
        return Target(
            name=str(given["name"]),
            address=str(given["address"]),
            port=int(given["port"]),
            weight=None if weight is None else int(weight),
            instance=str(given.get("instance") or ""),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"A target is a name, an address and a port (a number), got {given!r}: set "
            "deploy_traffic_target_port."
        ) from error


def _one_of(request: dict[str, Any], key: str, allowed: Any, default: str | None = None) -> str:
    value = request.get(key, default)
    if value not in allowed:
        raise UsageError(f"{key} is {value!r}, wanted one of {', '.join(allowed)}.")
    return str(value)


def _seconds(request: dict[str, Any], key: str, default: float) -> float:
    value = request.get(key)
    try:
        seconds = default if value is None else float(value)
    except (TypeError, ValueError):
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise UsageError(f"{key} is {value!r}, wanted a number of seconds, 0 or more.")
    return seconds
