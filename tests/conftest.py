"""What holds for every test: nothing of the user's own is read or written."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.aws import Servers

# How busy the machine is says nothing about the code. In CI the same examples are tried each time;
# new ones are looked for wherever else the tests are run.
settings.register_profile(
    "bascule",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
    print_blob=True,
)
settings.load_profile("bascule")


@pytest.fixture(scope="session", autouse=True)
def _own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Point the defaults for record and cache away from the user's, for child processes too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        for name in ("BASCULE_STATE", "BASCULE_RECORD", "ANSIBLE_CONFIG"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def moto_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Give servers of AWS's calls, each started when it is first asked for."""
    from support.aws import Servers

    with ExitStack() as stack:
        yield Servers(tmp_path_factory.mktemp("moto"), stack)
