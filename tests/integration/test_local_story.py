"""Whole stories against a model of the agent: whose scripts ran, what failed, what is installed."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from support.local_host import LocalHost, appspec, hooks

if TYPE_CHECKING:
    from pathlib import Path

STOP = ["BeforeBlockTraffic", "AfterBlockTraffic", "ApplicationStop"]
START = ["AfterInstall", "ApplicationStart", "ValidateService"]
START += ["BeforeAllowTraffic", "AfterAllowTraffic"]
ALL = [*STOP, "DownloadBundle", "BeforeInstall", "Install", *START]


class Revision(NamedTuple):
    """A revision: its files, and of every event each script's name and exit status.

    A script with the status -1 is not in the bundle.
    """

    name: str
    files: dict[str, Any]
    scripts: dict[str, list[tuple[str, int]]]


def invent(name: str, dice: random.Random) -> Revision:
    """Make a revision with a few scripts, some of which fail or are missing."""
    files: dict[str, Any] = {f"app/{name}": name, "app/common": name}
    scripts: dict[str, list[tuple[str, int]]] = {}
    for event in [*STOP, "BeforeInstall", *START]:
        for number in range(dice.choice([0, 0, 1, 2])):
            script = f"{event}{number}.sh"
            status = dice.choice([0] * 16 + [1, 3, -1])
            scripts.setdefault(event, []).append((script, status))
            if status >= 0:
                text = f"#!/bin/sh\necho {name} {event}\nexit {status}\n"
                files[script] = (text, dice.choice([0o755, 0o644]))
    section = hooks(**{event: " ".join(one for one, _ in of) for event, of in scripts.items()})
    files["appspec.yml"] = appspec("app {d}/x", section if scripts else "")
    return Revision(name, files, scripts)


def choose(dice: random.Random) -> list[str]:
    """Choose events in an order that codedeploy-local accepts; it adds the missing two itself."""
    names = [event for event in ALL if dice.random() < 0.7]
    if "DownloadBundle" in names and "Install" not in names:
        names.insert(names.index("DownloadBundle") + 1, "Install")
    if dice.random() < 0.3 and "ApplicationStop" in names:
        # After DownloadBundle, the stop script is the new revision's.
        names.remove("ApplicationStop")
        names.append("ApplicationStop")
    return names


class Model:
    """What the agent does: hook_executor.rb, command_executor.rb and deployer.rb of 1.8.1."""

    def __init__(self) -> None:
        self.installed: Revision | None = None

    def deploy(self, new: Revision, names: list[str]) -> tuple[str | None, list[str]]:
        """Return the event that fails, and the lines of the log."""
        log: list[str] = []
        downloaded = False
        added = [event for event in ("DownloadBundle", "Install") if event not in names]
        for event in added + names:
            if event == "DownloadBundle":
                downloaded = True
            elif event == "Install":
                # From now on this is the last successful one, whatever fails after it.
                self.installed = new
            else:
                old = event in STOP and not downloaded
                if not self._run(self.installed if old else new, event, log):
                    return event, log
        return None, log

    @staticmethod
    def _run(revision: Revision | None, event: str, log: list[str]) -> bool:
        scripts = revision.scripts.get(event, []) if revision else []
        if revision is None or not scripts:
            return True
        log.append(f"LifecycleEvent - {event}")
        for script, status in scripts:
            if status < 0:
                return False
            log += [f"Script - {script}", f"[stdout]{revision.name} {event}"]
            if status:
                return False
        return True


@pytest.mark.parametrize("seed", range(8))
def test_a_story(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311 - the same story every time
    host, model = LocalHost(tmp_path), Model()
    pointer = host.root / "deployment-instructions"
    pointer /= "default-local-deployment-group_last_successful_install"
    for number in range(6):
        revision = invent(f"v{number}", dice)
        names = choose(dice) if dice.random() < 0.4 else ALL
        kind = dice.choice(["directory", "tgz", "zip"])
        bundle = (
            host.bundle(revision.files)
            if kind == "directory"
            else host.archive(revision.files, kind)
        )
        arguments = ["-e", ",".join(names)] if names and names is not ALL else []
        failed, log = model.deploy(revision, names or ALL)
        done = host.deploy(bundle, *arguments)
        assert (done.failed_event, done.log) == (failed, log), (number, names, done.message)
        installed = model.installed
        assert set(host.tree()) == (
            {"x", "x/common", f"x/{installed.name}"} if installed else set()
        )
        assert pointer.exists() == (installed is not None)
