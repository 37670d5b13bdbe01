# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lambda functions as the hosts of an inventory."""

from __future__ import annotations

DOCUMENTATION = r"""
name: lambda_functions
short_description: Lambda functions as targets, chosen by tag
version_added: 0.1.0
author: Bascule contributors (@bascule)
description:
  - Lists the Lambda functions of one or more regions as hosts, with their tags, as
    C(amazon.aws.aws_ec2) does instances. A strategy of Bascule deploys to them with
    C(deploy_compute_platform=lambda).
  - A function becomes a host with the name of the function and the variables
    C(lambda_function_name), C(lambda_arn), C(lambda_region), C(lambda_runtime),
    C(lambda_package_type), C(lambda_tags), C(deploy_lambda_function) (its ARN) and
    C(ansible_connection=local). Functions of the same name in several regions get the region's
    name behind theirs.
  - The file must end in C(lambda_functions.yml) or C(lambda_functions.yaml).
  - Credentials and region are looked for as boto3 does. Needed are C(lambda:ListFunctions) and
    C(lambda:ListTags).
requirements:
  - boto3
extends_documentation_fragment:
  - ansible.builtin.constructed
options:
  plugin:
    description: The name of this plugin.
    type: str
    required: true
    choices: [bascule.deploy.lambda_functions]
  regions:
    description: Regions to look in. By default the one that boto3 finds.
    type: list
    elements: str
    default: []
  tags:
    description:
      - Functions must have all of these tags. A value may be a list, of which one must fit; an
        empty value stands for any.
    type: dict
    default: {}
  names:
    description:
      - Patterns such as V(shop-*), one of which must fit the function's name. By default all fit.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
# inventories/prod/lambda_functions.yml: the functions with the tag Application=shop
plugin: bascule.deploy.lambda_functions
regions: [eu-central-1]
tags:
  Application: shop
  Environment: [prod, production]
groups:
  targets: true
keyed_groups:
  - key: lambda_tags.Team
    prefix: team
"""

import fnmatch
import typing as t

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Constructable
from ansible_collections.bascule.deploy.plugins.module_utils._errors import BasculeError

if t.TYPE_CHECKING:
    from ansible.inventory.data import InventoryData
    from ansible.parsing.dataloader import DataLoader

Found = dict[str, t.Any]


class InventoryModule(BaseInventoryPlugin, Constructable):
    NAME = "bascule.deploy.lambda_functions"

    def verify_file(self, path: str) -> bool:
        """Tell whether the file is meant for this plugin."""
        ends = ("lambda_functions.yml", "lambda_functions.yaml")
        return bool(super().verify_file(path)) and path.endswith(ends)

    def parse(
        self, inventory: InventoryData, loader: DataLoader, path: str, cache: bool = True
    ) -> None:
        """Ask AWS, and add a host for each function that fits."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        from ansible_collections.bascule.deploy.plugins.plugin_utils._lambda._listing import (
            list_functions,
        )

        try:
            found = list_functions(self.get_option("regions"))
        except BasculeError as error:
            raise AnsibleParserError(f"{path}: {error}") from error
        several = len({one["region"] for one in found}) > 1
        for one in sorted(found, key=lambda one: (one["name"], one["region"])):
            if fits(one, self.get_option("tags"), self.get_option("names")):
                self._add(one, f"{one['name']}.{one['region']}" if several else one["name"])

    def _add(self, one: Found, host: str) -> None:
        inventory = t.cast("InventoryData", self.inventory)
        inventory.add_host(host)
        variables: Found = {
            "ansible_connection": "local",
            "deploy_lambda_function": one["arn"],
            "lambda_function_name": one["name"],
            "lambda_arn": one["arn"],
            "lambda_region": one["region"],
            "lambda_runtime": one["runtime"],
            "lambda_package_type": one["package_type"],
            "lambda_tags": one["tags"],
        }
        for name, value in variables.items():
            inventory.set_variable(host, name, value)
        strict = self.get_option("strict")
        self._set_composite_vars(self.get_option("compose"), variables, host, strict=strict)
        self._add_host_to_composed_groups(self.get_option("groups"), variables, host, strict=strict)
        self._add_host_to_keyed_groups(
            self.get_option("keyed_groups"), variables, host, strict=strict
        )


def fits(one: Found, tags: dict[str, t.Any], names: list[str]) -> bool:
    """Tell whether a function is one that was asked for."""
    if names and not any(fnmatch.fnmatchcase(one["name"], pattern) for pattern in names):
        return False
    for key, wanted in tags.items():
        if key not in one["tags"]:
            return False
        values = wanted if isinstance(wanted, list) else [wanted]
        if values not in ([""], [None]) and one["tags"][key] not in [str(each) for each in values]:
            return False
    return True
