from __future__ import annotations

import configparser
import sys
from pathlib import Path

import pytest

from bascule._environment import SETTINGS, configured, environment

ROOT = Path(__file__).resolve().parents[3]


def test_the_settings_are_those_of_the_checkout() -> None:
    parser = configparser.RawConfigParser()
    parser.read_string((ROOT / "ansible.cfg").read_text(encoding="utf-8"))
    assert {(section, key): value for section, key, _variable, value in SETTINGS} == {
        (section, key): parser.get(section, key) for section, key, _variable, _value in SETTINGS
    }


def test_defaults_in_an_empty_folder(tmp_path: Path) -> None:
    given = {"PATH": "/usr/bin", "HOME": str(tmp_path)}
    added = environment(folder=tmp_path, given=given)
    assert added["ANSIBLE_FORKS"] == "50"
    assert added["ANSIBLE_PIPELINING"] == "True"
    assert added["ANSIBLE_HOST_KEY_CHECKING"] == "True"
    assert added["PATH"] == f"{Path(sys.executable).parent}:/usr/bin"
    assert added["BASCULE_BASE"] == str(tmp_path)
    assert "BASCULE_RECORD" not in added
    own = configured(Path(added["ANSIBLE_CONFIG"]))
    theirs = configured(ROOT / "ansible.cfg")
    assert own.items() <= theirs.items(), "what the checkout says, too"


@pytest.mark.parametrize(
    ("given", "added"),
    [
        ({}, "C.UTF-8"),
        ({"LANG": "C"}, "C.UTF-8"),
        ({"LC_ALL": "POSIX", "LANG": "en_US.UTF-8"}, "C.UTF-8"),
        ({"LANG": "de_DE.utf8"}, None),
        ({"LC_ALL": "", "LC_CTYPE": "C.UTF-8", "LANG": "C"}, None),
    ],
)
def test_ansible_gets_a_locale_that_it_starts_with(
    tmp_path: Path, given: dict[str, str], added: str | None
) -> None:
    assert environment(folder=tmp_path, given=given).get("LC_ALL") == added


def test_what_the_user_set_stays(tmp_path: Path) -> None:
    (tmp_path / "ansible.cfg").write_text(
        "[defaults]\nforks = 7 ; few\nhost_key_checking = False\n[connection]\npipelining = no\n"
    )
    added = environment(
        folder=tmp_path, given={"HOME": "/nonexistent", "ANSIBLE_GATHERING": "smart"}
    )
    assert not {"ANSIBLE_FORKS", "ANSIBLE_PIPELINING", "ANSIBLE_GATHERING"} & set(added)
    # ansible-runner would turn it off by itself: the user's own word has to be repeated.
    assert added["ANSIBLE_HOST_KEY_CHECKING"] == "False"
    assert "ANSIBLE_SSH_ARGS" in added
    assert "ANSIBLE_CONFIG" not in added


def test_the_configuration_that_is_named_wins(tmp_path: Path) -> None:
    (tmp_path / "ansible.cfg").write_text("[defaults]\nforks = 7\n")
    other = tmp_path / "other"
    other.mkdir()
    (other / "ansible.cfg").write_text("[defaults]\ngathering = smart\n")
    given = {"HOME": "/nonexistent", "ANSIBLE_CONFIG": str(other)}
    added = environment(folder=tmp_path, given=given)
    assert "ANSIBLE_FORKS" in added
    assert "ANSIBLE_GATHERING" not in added


def test_a_broken_configuration_is_left_to_ansible(tmp_path: Path) -> None:
    (tmp_path / "ansible.cfg").write_text("forks = 7\n")
    assert environment(folder=tmp_path, given={"HOME": "/x"})["ANSIBLE_FORKS"] == "50"


def test_the_record_goes_by_environment(tmp_path: Path) -> None:
    url = "postgresql://bascule:s3cr3t@db/bascule"
    assert environment(folder=tmp_path, given={}, record=url)["BASCULE_RECORD"] == url
