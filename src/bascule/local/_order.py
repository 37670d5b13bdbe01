"""Which lifecycle events a local deployment runs, and in which order (codedeploy-local's rules)."""

from __future__ import annotations

from ansible_collections.bascule.deploy.plugins.module_utils._errors import AppSpecError, UsageError
from ansible_collections.bascule.deploy.plugins.module_utils._host import _events
from ansible_collections.bascule.deploy.plugins.module_utils._pools import TEST_EVENT

DEFAULT = tuple(
    event
    for event in _events.IN_PLACE_WITH_LOAD_BALANCER
    if event not in ("BlockTraffic", "AllowTraffic")
)
# Need files that Install brings.
AFTER_INSTALL = ("AfterInstall", "ApplicationStart", "ValidateService", *_events.START)
NEVER = _events.RESERVED - {"DownloadBundle", "Install"}


def choose(text: str | None) -> list[str]:
    """Return the events of ``--events``, a comma-separated list; all of them for None.

    DownloadBundle and Install come first where they are not named.

    :raises UsageError: for an order that cannot work
    """
    if not text:
        return list(DEFAULT)
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if not name or name in NEVER or any(letter.isspace() for letter in name):
            raise UsageError(
                f"--events {text}: {name!r} is no event that can be run here. Name lifecycle events"
                f" with commas between them, of {', '.join(DEFAULT)} or your own."
            )
        if names.count(name) > 1:
            raise UsageError(f"--events {text}: {name} is named more than once. Name it once.")
    _check_order(names, text)
    if "DownloadBundle" not in names:
        names.insert(0, "DownloadBundle")
    if "Install" not in names:
        names.insert(names.index("DownloadBundle") + 1, "Install")
    return names


def _check_order(names: list[str], text: str) -> None:
    earlier = ", ".join(event for event in DEFAULT if event in _events.OF_PREVIOUS)
    if "DownloadBundle" in names:
        before = names[: names.index("DownloadBundle")]
        if not _events.OF_PREVIOUS.issuperset(before):
            raise UsageError(
                f"The only events that can be specified before DownloadBundle are {earlier}. Fix"
                f" the order of --events {text}."
            )
    if "Install" in names:
        before = names[: names.index("Install")]
        if any(event in AFTER_INSTALL for event in before):
            raise UsageError(
                f"The only events that can be specified before Install are {earlier},"
                f" DownloadBundle, BeforeInstall. Fix the order of --events {text}."
            )


def check_hooks(hooks: dict[str, object], names: list[str]) -> None:
    """Compare the AppSpec's events with those that are run, as Install does on the agent.

    :raises AppSpecError: for an event that is never run, and for a custom one without scripts
    """
    known_events = {*DEFAULT, *names, TEST_EVENT}
    unknown = [event for event in hooks if event not in known_events]
    if unknown:
        known = ", ".join(event for event in DEFAULT if event in _events.HOOKS)
        raise AppSpecError(
            f"The AppSpec file contains unknown lifecycle events: {', '.join(unknown)}. Name them"
            f" in --events if they are yours, or correct them; the known ones are {known}."
        )
    absent = [event for event in names if event not in DEFAULT and event not in hooks]
    if absent:
        raise AppSpecError(
            "You specified a lifecycle event which is not a default one and doesn't exist in your"
            f" AppSpec file: {', '.join(absent)}. Add scripts for it to hooks, or leave it out of"
            " --events."
        )
