from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from ansible_collections.bascule.deploy.plugins.module_utils._errors import HostError
from ansible_collections.bascule.deploy.plugins.plugin_utils import _at_proxies

if TYPE_CHECKING:
    import pytest


def test_all_hosts_are_asked_at_the_same_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(3, timeout=60)

    def run(action: Any, variables: dict[str, Any], request: Any, **_more: Any) -> dict[str, Any]:
        together.wait()
        if action == "lb-2":
            raise HostError("it is away")
        return {"host": variables["name"], **request}

    monkeypatch.setattr(_at_proxies, "run_on_host", run)
    ways: dict[str, Any] = {name: (name, {"name": name}) for name in ("lb-1", "lb-2", "lb-3")}
    answers = _at_proxies.ask_all(ways, {"action": "measure"})
    assert list(answers) == ["lb-1", "lb-2", "lb-3"]
    assert answers["lb-1"] == {"host": "lb-1", "action": "measure"}
    assert isinstance(answers["lb-2"], HostError)
    assert answers["lb-3"] == {"host": "lb-3", "action": "measure"}
