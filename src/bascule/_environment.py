"""The settings ansible-playbook runs with when Bascule starts it."""

from __future__ import annotations

import configparser
import os
import sys
from pathlib import Path

# (section, key, environment variable, value), the same as in this project's ansible.cfg.
SETTINGS = (
    ("defaults", "forks", "ANSIBLE_FORKS", "50"),
    ("defaults", "gathering", "ANSIBLE_GATHERING", "explicit"),
    ("defaults", "host_key_checking", "ANSIBLE_HOST_KEY_CHECKING", "True"),
    ("inventory", "any_unparsed_is_failed", "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED", "True"),
    ("connection", "pipelining", "ANSIBLE_PIPELINING", "True"),
    (
        "ssh_connection",
        "ssh_args",
        "ANSIBLE_SSH_ARGS",
        "-o ControlMaster=auto -o ControlPersist=60s"
        " -o ServerAliveInterval=5 -o ServerAliveCountMax=3",
    ),
)
# What only a file can set is in this one; a user who has a file has all of it in hand.
OWN_FILE = Path(__file__).with_name("waiting.cfg")
# ansible-runner drops results that are longer; a plan of thousands of targets is.
LONGEST_RESULT = 256 * 1024 * 1024


def environment(
    *, folder: Path, given: dict[str, str], record: str | None = None
) -> dict[str, str]:
    """Return the variables to add to the environment ``given`` for a run in ``folder``.

    What the user set, in the environment or in the ansible.cfg that Ansible would find, stays.
    The record's address goes by environment, because it may hold a password.
    """
    file = config_file(folder, given)
    chosen = configured(file)
    added = {
        variable: value
        for section, key, variable, value in SETTINGS
        if variable not in given and (section, key) not in chosen
    }
    # ansible-runner turns host key checking off unless the environment says something.
    if ("defaults", "host_key_checking") in chosen:
        added.setdefault("ANSIBLE_HOST_KEY_CHECKING", chosen["defaults", "host_key_checking"])
    if not _speaks_utf8(given):
        # As under cron; Ansible refuses to start without.
        added["LC_ALL"] = "C.UTF-8"
    if file is None and "ANSIBLE_CONFIG" not in given:
        added["ANSIBLE_CONFIG"] = str(OWN_FILE)
    added["ANSIBLE_STDOUT_CALLBACK"] = "ansible.builtin.default"
    added["PATH"] = os.pathsep.join(
        [str(Path(sys.executable).parent), given.get("PATH", os.defpath)]
    )
    added["BASCULE_BASE"] = str(folder)
    added["MAX_EVENT_RES"] = str(LONGEST_RESULT)
    if record is not None:
        added["BASCULE_RECORD"] = record
    return added


def _speaks_utf8(given: dict[str, str]) -> bool:
    """Tell whether the locale that the environment names has UTF-8 for its encoding."""
    named = next((given[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if given.get(name)), "")
    return named.lower().replace("-", "").endswith("utf8")


def config_file(folder: Path, given: dict[str, str]) -> Path | None:
    """Return the ansible.cfg that a run in ``folder`` reads, or None."""
    named = given.get("ANSIBLE_CONFIG")
    home = Path(given.get("HOME", "~")).expanduser()
    places = [folder / "ansible.cfg", home / ".ansible.cfg", Path("/etc/ansible/ansible.cfg")]
    if named:
        path = Path(named).expanduser()
        places.insert(0, path / "ansible.cfg" if path.is_dir() else path)
    return next((place for place in places if place.is_file()), None)


def configured(path: Path | None) -> dict[tuple[str, str], str]:
    """Return what an ansible.cfg sets, by section and key; nothing of one that cannot be read."""
    parser = configparser.RawConfigParser(
        strict=False, allow_no_value=True, inline_comment_prefixes=(";",)
    )
    if path is not None:
        try:
            parser.read_string(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, configparser.Error):
            # ansible-playbook reads the same file next and says better what is wrong with it.
            return {}
    return {
        (section, key): value or ""
        for section in parser.sections()
        for key, value in parser.items(section)
    }
