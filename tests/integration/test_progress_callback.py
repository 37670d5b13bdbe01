"""The stdout callback in real runs: plain lines in a pipe, a live table on a terminal."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pexpect
import pytest
from ansible_collections.bascule.deploy.plugins.callback.progress import CallbackModule
from support.bundles import files
from support.rollout import local_inventory

PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
HOSTS = ("one", "two")
SITE = """\
- name: Prepare
  hosts: web
  gather_facts: false
  tasks:
    - name: Say hello
      ansible.builtin.debug: {msg: hello}
    - name: Write a file
      ansible.builtin.copy: {content: "new\\n", dest: "{{ deploy_sysroot }}/file", mode: "0644"}
    - name: Keep a secret
      ansible.builtin.command: echo s3cr3t
      no_log: true
      changed_when: false
    - name: Fail without harm
      ansible.builtin.command: sh -c 'echo one; echo two >&2; exit 3'
      ignore_errors: true
    - name: Be skipped
      ansible.builtin.debug: {msg: never}
      when: false
- name: Deploy
  ansible.builtin.import_playbook: bascule.deploy.rolling
"""


class Setup:
    def __init__(self, folder: Path) -> None:
        sysroots = {name: folder / "hosts" / name for name in HOSTS}
        for sysroot in sysroots.values():
            sysroot.mkdir(parents=True)
        self.folder = folder
        self.inventory = local_inventory(folder / "hosts.yml", sysroots)
        (folder / "ansible.cfg").write_text("")
        self.revision = files(folder / "bundle", {"VERSION": "1.0\n"})
        self.environment = {
            **os.environ,
            "PATH": f"{PLAYBOOK.parent}:{os.environ['PATH']}",
            "ANSIBLE_STDOUT_CALLBACK": "bascule.deploy.progress",
            "ANSIBLE_CONFIG": str(folder / "ansible.cfg"),
            "BASCULE_STATE": str(folder / "state"),
        }

    def argv(self, playbook: str, *options: str) -> list[str]:
        given = {
            "deploy_application": "shop",
            "deploy_targets": "web",
            "deploy_revision": str(self.revision),
        }
        variables = [part for name in given for part in ("-e", f"{name}={given[name]}")]
        return [str(PLAYBOOK), "-i", str(self.inventory), playbook, *variables, *options]

    def run(
        self, playbook: str, *options: str, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(playbook, *options),
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(tmp_path)


def test_lines_of_a_site_playbook_that_deploys(setup: Setup) -> None:
    site = setup.folder / "site.yml"
    site.write_text(SITE)
    done = setup.run(str(site), "--diff")
    lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert "s3cr3t" not in done.stdout + done.stderr
    assert "one  ok: Say hello: hello" in lines
    assert "one  changed: Write a file" in lines
    assert lines[lines.index("one  Write a file:") + 1 :][3:4] == ["+new"]
    assert "one  ok: Keep a secret: (output hidden by no_log)" in lines
    failed = lines.index("one  ignored: Fail without harm: non-zero return code")
    assert lines[failed + 1] == "    | two"
    assert not any("Be skipped" in line for line in lines)
    staged = next(line for line in lines if " staged" in line)
    assert re.fullmatch(r"(one|two)  staged \(.* sent, .* s\)", staged)
    assert re.fullmatch(r"d-\w{9}  Succeeded in .* s: shop/web is at .*, 2 of 2 targets", lines[-1])
    # Neither banners nor our own book-keeping.
    assert not any("TASK [" in line or "PLAY " in line or "no hosts" in line for line in lines)


def test_a_failed_hook_is_told_once_with_its_output(setup: Setup) -> None:
    files(setup.revision, {}, {"AfterInstall": "echo 'no such table' >&2; exit 3\n"})
    done = setup.run("bascule.deploy.rolling", BASCULE_PROGRESS_TIMESTAMPS="1")
    assert done.returncode != 0
    assert done.stdout.count("AfterInstall failed: ") == 1
    assert done.stdout.count("no such table") == 1
    outcome = done.stdout.splitlines()[-5:]
    identifier = outcome[0].split()[0]
    assert re.fullmatch(rf"{identifier}  Failed after .* s: 1 failed, 1 not touched", outcome[0])
    assert outcome[1].startswith("  HEALTH_CONSTRAINTS: ")
    assert outcome[2] == (
        "  one: Script at specified location: AfterInstall.sh failed with exit code 3"
    )
    assert outcome[3].startswith("  No rollback is possible: no revision has succeeded")
    assert outcome[4] == (
        f"Look further with: bascule status {identifier}, bascule events {identifier}"
    )
    stamped = next(line for line in done.stdout.splitlines() if "AfterInstall failed" in line)
    assert re.match(r"\d\d:\d\d:\d\d  ", stamped)


def test_check_and_diff_show_the_plan_and_the_files(setup: Setup) -> None:
    done = setup.run("bascule.deploy.rolling", "--check", "--diff")
    assert done.returncode == 0
    assert "at most 1 at a time" in done.stdout
    assert "hosts/one/opt/files/VERSION" in done.stdout
    assert not (setup.folder / "hosts" / "one" / "opt").exists()


def test_a_refusal_is_told_once(setup: Setup) -> None:
    done = setup.run("bascule.deploy.rolling", "-e", "deploy_aplication=shop")
    assert done.returncode != 0
    (line,) = [one for one in done.stdout.splitlines() if "deploy_aplication" in one]
    assert line.startswith("bascule  cannot begin: ")


def test_a_terminal_shows_a_live_table_and_keeps_it(setup: Setup) -> None:
    files(setup.revision, {}, {"ApplicationStart": "sleep 2\n"})
    command, *arguments = setup.argv("bascule.deploy.rolling")
    child = pexpect.spawn(
        command,
        arguments,
        env={**setup.environment, "TERM": "xterm-256color", "COLUMNS": "160", "LINES": "30"},  # type: ignore[arg-type]  # as os.environ is
        dimensions=(30, 160),
        encoding="utf-8",
        timeout=180,
    )
    try:
        seen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", child.read())
    finally:
        child.close()
    assert child.exitstatus == 0
    assert re.search(r"TARGET +STATE +STEP +.*LAST EVENT", seen), seen
    assert re.search(r"two +waiting +waits for a free slot \(1 of 1 in use: one\)", seen), seen
    assert re.search(r"d-\w{9}  Succeeded in ", seen), seen


def test_what_goes_wrong_in_the_display_is_said_once_and_stays_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    callback = CallbackModule()
    warned: list[str] = []
    monkeypatch.setattr(callback._display, "warning", warned.append)

    def fail(*_: Any) -> None:
        raise RuntimeError("no more ink")

    monkeypatch.setattr(callback, "_tell", fail)
    callback.v2_runner_on_start(None, None)
    callback.v2_runner_on_start(None, None)
    callback.v2_runner_on_ok(None)
    assert len(warned) == 1
    assert warned[0].startswith("The progress display failed (")
    assert "bascule events" in dedent(warned[0])
