"""Read a deployment group of AWS CodeDeploy; write the inventory and variables of one of ours."""

from __future__ import annotations

import dataclasses
import typing as t
from pathlib import Path

from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError

if t.TYPE_CHECKING:
    from ansible_collections.bascule.deploy.plugins.module_utils._codedeploy_group import Converted


@dataclasses.dataclass(frozen=True)
class Imported:
    """What was written, what is not carried over, and how to deploy."""

    application: str
    group: str
    directory: str
    files: tuple[str, ...]
    strategy: str
    targets: str
    revision: str
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, t.Any]:
        """Return the documented JSON form."""
        told = dataclasses.asdict(self)
        return {**told, "files": list(self.files), "notes": list(self.notes)}


def import_codedeploy(
    application: str, group: str, directory: str | Path | None = None
) -> Imported:
    """Import a deployment group of CodeDeploy; it is only read.

    :param directory: where the inventory is written, a folder that is not there or empty; the
        default is ``APPLICATION-GROUP``
    :raises UsageError: AWS does not have it, it is for Lambda or ECS, or the folder is taken
    """
    from ansible_collections.bascule.deploy.plugins.module_utils._codedeploy_group import (
        convert,
        revision_of,
    )
    from ansible_collections.bascule.deploy.plugins.plugin_utils._codedeploy import read_group
    from ansible_collections.bascule.deploy.plugins.plugin_utils._settings import public_variables

    home = Path(directory or f"{application}-{group}".replace("/", "-"))
    if home.exists() and (not home.is_dir() or any(home.iterdir())):
        raise UsageError(f"{home} is there already. Name a new folder with -o.")
    read = read_group(application, group)
    made = convert(
        read.group,
        read.configuration,
        read.on_premises,
        known=public_variables(),
    )
    files = inventory_files(made, read.region)
    for name, text in files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text, encoding="utf-8")
    return Imported(
        application=application,
        group=group,
        directory=str(home),
        files=tuple(sorted(files)),
        strategy=made.strategy,
        targets=made.host_group,
        revision=revision_of(read.group),
        notes=made.notes,
    )


def inventory_files(made: Converted, region: str) -> dict[str, str]:
    """Return the files of the inventory by their path."""
    name = made.host_group
    hosts: dict[str, t.Any] = {name: {"hosts": {host: {} for host in made.hosts}}}
    files = {
        "hosts.yml": _HOSTS
        + _yaml({**hosts, **({} if name == "targets" else {"targets": {"children": {name: {}}}})}),
        f"group_vars/{name}.yml": _header(made) + _yaml(made.variables),
    }
    if made.condition:
        plugin = {
            "plugin": "amazon.aws.aws_ec2",
            "regions": [region],
            "filters": {"instance-state-name": "running"},
            "hostnames": ["instance-id"],
            "hostvars_prefix": "ec2_",
            "strict": True,
            "compose": {"deploy_zone": "ec2_placement.availability_zone"},
            "groups": {name: made.condition},
        }
        files["aws_ec2.yml"] = _EC2 + _yaml(plugin)
        files["group_vars/aws_ec2.yml"] = _REACH
    return files


_HOSTS = "---\n# On-premises hosts, and the name by which strategies find their targets.\n"
_EC2 = "---\n# The EC2 instances; needs amazon.aws (pip install 'bascule[inventory]').\n"
_REACH = """---
# How this controller reaches the instances: private, public, or ssm (docs/inventories.md).
ec2_reach: private

ansible_host: >-
  {{ {
    'private': ec2_private_ip_address | default(''),
    'public': ec2_public_ip_address | default(''),
    'ssm': ec2_instance_id
  }[ec2_reach] }}
ansible_connection: "{{ 'amazon.aws.aws_ssm' if ec2_reach == 'ssm' else 'ansible.builtin.ssh' }}"
deploy_instance_id: "{{ ec2_instance_id }}"

ansible_user: ec2-user
ansible_become: true
"""


def _header(made: Converted) -> str:
    lines = ["---", "# Imported from AWS CodeDeploy."]
    if made.notes:
        lines += ["#", "# Not carried over, or to be looked at:"]
    for note in made.notes:
        lines.append(f"# - {' '.join(note.split())}")
    return "\n".join(lines) + "\n"


def _yaml(value: t.Any) -> str:
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=110))
