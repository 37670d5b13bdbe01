"""How long a host is waited for whose connection was lost."""

from __future__ import annotations

import pytest
from ansible_collections.bascule.deploy.plugins.plugin_utils import _reconnect
from ansible_collections.bascule.deploy.plugins.plugin_utils._reconnect import Patience

REFUSED = "ssh: connect to host 10.0.0.1 port 22: Connection refused"


def test_a_host_is_tried_again_until_the_time_is_over() -> None:
    patience = Patience(10.0)
    pauses = [patience.lost("closed", 300.0)]
    while pauses[-1] is not None:
        pauses.append(patience.lost(REFUSED, 1.0))
    waited = sum(pause for pause in pauses if pause is not None)
    attempts = len(pauses) - 1
    assert pauses[:3] == [0.5, 1.0, 2.0]
    assert waited + attempts >= 10.0, "the time of the attempts counts, too"
    assert waited <= 10.0


def test_without_patience_a_lost_host_is_lost() -> None:
    assert Patience(0.0).lost("closed", 5.0) is None


def test_a_connection_that_held_is_a_new_loss_with_all_its_time() -> None:
    patience = Patience(10.0)
    assert patience.lost("closed", 1.0) == 0.5
    assert patience.lost(REFUSED, 8.0) is not None
    assert patience.lost("closed", _reconnect.HELD + 1) == _reconnect.FIRST_PAUSE
    assert patience.away == _reconnect.FIRST_PAUSE


def test_losses_that_repeat_scripts_come_to_an_end() -> None:
    patience = Patience(3600.0)
    pauses = [patience.lost("killed", 1.0, killed=True) for _loss in range(_reconnect.LOSSES + 1)]
    assert None not in pauses[:-1]
    assert pauses[-1] is None


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (f"Failed to connect to the host via ssh: {REFUSED}", REFUSED),
        (
            'Data could not be sent to remote host "h". Make sure this host can be reached over'
            f" ssh: Warning: known\n{REFUSED}\n",
            REFUSED,
        ),
        ("Failed to connect to the host via ssh: ", "it was closed"),
    ],
)
def test_what_ssh_said_is_told_without_what_is_around_it(said: str, reason: str) -> None:
    assert _reconnect.why(said) == reason
    assert _reconnect.never_made(reason) == (reason == REFUSED)


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        (
            "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n"
            "Offending ED25519 key in /home/ops/.ssh/known_hosts:7\nHost key verification failed.",
            "another key than the one that /home/ops/.ssh/known_hosts:7 has",
        ),
        ("Host key verification failed.", "no key of the host is known. Log in once"),
        ("ops@10.0.0.7: Permission denied (publickey).", "See that ansible_user and the key"),
    ],
)
def test_what_to_do_is_told_where_ssh_does_not_say_it(said: str, advice: str) -> None:
    told = _reconnect.why(f"Failed to connect to the host via ssh: {said}")
    assert told.startswith(said.splitlines()[-1].rstrip("."))
    assert advice in told
    assert _reconnect.never_made(told)
