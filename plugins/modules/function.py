#!/usr/bin/python
# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The work is done on the controller, by the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: function
short_description: Publish, check and tidy up a Lambda function
version_added: 0.1.0
description:
  - Publishes the revision of a deployment as a version of a Lambda function, asks a function that
    checks it as CodeDeploy does, or settles the target and deletes old versions. No traffic is
    touched.
  - The host that this runs for is the target; nothing is done on it.
extends_documentation_fragment:
  - bascule.deploy.recorded
  - bascule.deploy.recorded.controller
attributes:
  diff_mode:
    description: Returns details on what has changed, or would change.
    support: none
requirements:
  - boto3
options:
  deployment:
    description:
      - The deployment, as in the fact C(bascule_deployment) of localhost.
    type: dict
    required: true
  state:
    description:
      - With V(published) the function has a version with the revision, ready to be invoked. With
        V(checked) the hook of O(event) has been asked. With V(tidied) the record has how the target
        ended, old versions are deleted, and provisioned concurrency that is not needed any more is
        given back.
    type: str
    choices: [published, checked, tidied]
    required: true
  event:
    description:
      - The event whose hook is asked.
    type: str
    choices: [BeforeAllowTraffic, AfterAllowTraffic]
  target:
    description:
      - The target that is meant, where it is not the host that this runs for. A step of the
        schedule asks for it then.
    type: str
    default: ""
  settles:
    description:
      - With O(state=checked), whether the target is done when its hook has passed, or has none. Its
        status in the record is Succeeded then.
    type: bool
    default: false
  settings:
    description:
      - What the function is deployed with, as the role C(functions) takes it from variables that
        begin with C(deploy_lambda_).
    type: dict
    required: true
    suboptions:
      function:
        description: Name or ARN of the function.
        type: str
        required: true
      alias:
        description: The alias that is moved.
        type: str
        required: true
      package:
        description: Path of the package inside of the revision.
        type: str
        default: ""
      image:
        description: Address of an image in ECR.
        type: str
        default: ""
      configuration:
        description: What is set of the function's configuration.
        type: dict
        default: {}
      provisioned_concurrency:
        description: Provisioned concurrency of the new version.
        type: int
        default: 0
      hooks:
        description: Functions that check the deployment, by event.
        type: dict
        default: {}
      hook_listen:
        description: Address and port at which hooks may answer.
        type: str
        default: ""
      hook_timeout:
        description: How long a hook may take.
        type: raw
        default: 1h
      versions_to_keep:
        description: How many old versions are kept, V(-1) for all.
        type: int
        default: -1
      versions_min_age:
        description: Versions that are younger are kept.
        type: raw
        default: "0"
author:
  - Bascule contributors (@bascule)
"""

EXAMPLES = r"""
- name: Publish it, and wait until it is ready
  bascule.deploy.function:
    state: published
    settings:
      function: checkout
      alias: live
    deployment: "{{ hostvars.localhost.ansible_facts.bascule_deployment }}"
"""

RETURN = r"""
bascule:
  description: What callbacks and the API read.
  returned: always
  type: dict
  contains:
    phase:
      description: V(stage), V(lifecycle) for a hook, V(tidy).
      type: str
      returned: always
      sample: stage
    target:
      description: Name of the target.
      type: str
      returned: always
      sample: checkout
    version:
      description: The version that holds the revision.
      type: str
      returned: when O(state=published)
      sample: "8"
    old_version:
      description: The version that the alias led to.
      type: str
      returned: when O(state=published)
      sample: "7"
    events:
      description: The lifecycle event, as the record keeps it.
      type: list
      elements: dict
      returned: when O(state=checked)
"""
