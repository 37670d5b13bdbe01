"""Task results of a deployment as Ansible tells them, for tests of what is made of them."""

from __future__ import annotations

from typing import Any

from ansible_collections.bascule.deploy.plugins.plugin_utils._progress_events import (
    Event,
    Observation,
    Translator,
)

START = 1_700_000_000.0
DIGEST = "0123456789abcdef" * 4


def about(identifier: str = "d-AAAAAAAAA", **more: Any) -> dict[str, Any]:
    """Return a deployment as the actions tell of it."""
    return {
        "id": identifier,
        "application": "shop",
        "group": "web",
        "strategy": "rolling",
        "status": "Created",
        "digest": DIGEST,
        "revision": "/builds/2.0",
        "description": "2.0",
        **more,
    }


def plan(*names: str, **more: Any) -> dict[str, Any]:
    """Return a plan of one stage with all the targets."""
    return {
        "strategy": "rolling",
        "total": len(names),
        "minimum_healthy": len(names) - 1,
        "slots": 1,
        "stages": [list(names)],
        "targets": [{"name": name, "zone": "a", "stage": 1} for name in names],
        "estimated_seconds": None,
        **more,
    }


def observed(
    step: str, host: str = "web1", moment: str = "ok", after: float = 0.0, **result: Any
) -> Observation:
    """Return what is seen of a Bascule task; ``bascule`` in the result gets its phase."""
    if "bascule" in result:
        result["bascule"] = {"phase": step, **result["bascule"]}
    return Observation(
        moment=moment,
        host=host,
        task=f"Do {step}",
        action=f"bascule.deploy.{step}",
        at=START + after,
        result=result,
        own=True,
    )


def opened(*names: str, identifier: str = "d-AAAAAAAAA", **more: Any) -> Observation:
    """Return the opening of a deployment."""
    answer = {"deployment": about(identifier), "plan": plan(*names, **more), "plan_text": "PLAN"}
    return observed("open", names[0], bascule=answer)


def began(step: str, host: str, after: float = 0.0) -> Observation:
    """Return the start of a task on a host."""
    return observed(step, host, "start", after)


def admitted(host: str, after: float = 0.0, waited: float = 0.0) -> Observation:
    """Return a target's admission."""
    answer = {"target": host, "verdict": "admitted", "reason": "a slot is free", "waited": waited}
    return observed("admit", host, after=after, bascule=answer)


def hooked(host: str, after: float = 0.0, *, fails: bool = False) -> Observation:
    """Return a span of two lifecycle events, the second of which may fail."""
    begin = START + after - 2
    events = [
        {"event": "Install", "status": "Succeeded", "started": begin, "ended": begin + 0.5},
        {
            "event": "ValidateService",
            "status": "Failed" if fails else "Succeeded",
            "started": begin + 0.5,
            "ended": begin + 2,
            "error_code": "ScriptFailed" if fails else None,
            "script": "scripts/health.sh",
            "message": "scripts/health.sh failed with exit code 1" if fails else "",
            "log": "GET /health\n500\n" if fails else "",
        },
    ]
    error = {"kind": "hook", "message": events[1]["message"]} if fails else None
    answer = {"target": host, "span": "all", "events": events, "error": error}
    moment = "failed" if fails else "ok"
    return observed("lifecycle", host, moment, after, bascule=answer)


def settled(host: str, after: float = 0.0, status: str = "Succeeded") -> Observation:
    """Return how a target ended."""
    message = "scripts/health.sh failed with exit code 1" if status == "Failed" else ""
    answer = {"target": host, "status": status, "message": message}
    return observed("settle", host, after=after, bascule=answer)


def closed(
    status: str, after: float = 0.0, *, rollback: dict[str, Any] | None = None, **more: Any
) -> Observation:
    """Return the close of a deployment."""
    answer = {"deployment": about(status=status, **more), "rollback": rollback, "summary": "so"}
    return observed("close", after=after, bascule=answer)


def task(
    moment: str, name: str = "Tell the team", host: str = "web1", **result: Any
) -> Observation:
    """Return what is seen of a task that is not Bascule's."""
    own = bool(result.pop("own", False))
    ignored = bool(result.pop("ignored", False))
    return Observation(
        moment=moment,
        host=host,
        task=name,
        action="ansible.builtin.command",
        at=START,
        result=result,
        own=own,
        ignored=ignored,
    )


def told(*seen: Observation, differences: bool = False) -> list[Event]:
    """Return the events of observations in order."""
    translator = Translator(differences=differences)
    return [event for one in seen for event in translator.events(one)]


def failing_story() -> list[Observation]:
    """Return a deployment of three targets whose second one fails, and its rollback."""
    rollback = about(
        "d-BBBBBBBBB", strategy="rollback", rollback_of="d-AAAAAAAAA", description="1.0"
    )
    reason = "no further target can be taken"
    refusal = {"verdict": "refused", "reason": f"HEALTH_CONSTRAINTS: {reason}"}
    last = {"deployment": {**rollback, "status": "Succeeded"}, "rollback": None, "summary": ""}
    return [
        opened("web1", "web2", "web3"),
        *(began("stage", host) for host in ("web1", "web2", "web3")),
        *(
            observed(
                "stage",
                host,
                after=1,
                bascule={
                    "target": host,
                    "status": "Staged",
                    "seconds": 0.9,
                    "bytes_sent": 5_000_000,
                },
            )
            for host in ("web1", "web2", "web3")
        ),
        *(began("admit", host, 1) for host in ("web1", "web2", "web3")),
        admitted("web1", 1),
        began("lifecycle", "web1", 1),
        hooked("web1", 11),
        settled("web1", 11),
        admitted("web2", 11, waited=10.0),
        began("lifecycle", "web2", 11),
        hooked("web2", 21, fails=True),
        settled("web2", 21, "Failed"),
        observed("admit", "web3", after=21, bascule={"target": "web3", **refusal}),
        closed(
            "Failed",
            22,
            rollback=rollback,
            error_code="HEALTH_CONSTRAINTS",
            error_message=reason,
        ),
        began("stage", "web2", 22),
        admitted("web2", 23),
        hooked("web2", 26),
        settled("web2", 26),
        observed("close", after=27, bascule=last),
        closed("Failed", 28),
    ]
