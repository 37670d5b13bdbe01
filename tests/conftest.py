"""What holds for every test: nothing of the user's own is read or written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session", autouse=True)
def _own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Point the defaults for record and cache away from the user's, for child processes too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        for name in ("BASCULE_STATE", "BASCULE_RECORD", "ANSIBLE_CONFIG"):
            patch.delenv(name, raising=False)
        yield
