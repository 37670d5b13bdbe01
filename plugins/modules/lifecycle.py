#!/usr/bin/python
# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: lifecycle
short_description: Run lifecycle events of a deployment on a target
version_added: 0.1.0
description:
  - Runs a span of lifecycle events in their order. The scripts of the AppSpec file's hooks are run,
    its files installed, its permissions set, as CodeDeploy does it.
  - Goes on from the journal that the target keeps of each deployment. An event that ended is not
    run again, so a repeated task continues where an interrupted one stopped.
  - A refused installation leaves the installed revision as it is. Files are replaced by one rename
    each, and what the earlier revision alone had is removed last.
extends_documentation_fragment:
  - bascule.deploy.host_program
  - bascule.deploy.recorded
options:
  span:
    description:
      - Which events are run.
      - V(all) is the installation of a target without a load balancer, from ApplicationStop to
        ValidateService and the health gates.
      - V(before_block) is BeforeBlockTraffic.
      - V(install) is everything between the blocking and the allowing of traffic, from
        AfterBlockTraffic to BeforeAllowTraffic.
      - V(after_allow) is AfterAllowTraffic.
      - V(idle) is what V(all) is, for a target of a pool that no user reaches yet.
      - V(after_test) is AfterAllowTestTraffic of such a target, V(before_allow) its
        BeforeAllowTraffic.
      - V(leaving) is BeforeBlockTraffic and V(left) AfterBlockTraffic of a target that the
        deployment does not change, in a pool that users leave; V(leave) is both. V(returned) is
        BeforeAllowTraffic and AfterAllowTraffic of one in a pool that users go back to. The scripts
        are those of what is installed there.
    type: str
    choices:
      - all
      - before_block
      - install
      - after_allow
      - idle
      - after_test
      - before_allow
      - leaving
      - left
      - leave
      - returned
    default: all
  staged:
    description:
      - What M(bascule.deploy.stage) returned in C(bascule) for this target. With it a span that
        has no script to run costs no connection.
    type: dict
    default: {}
  settle:
    description:
      - Write down in the record that the target succeeded when the span has; for the last span.
    type: bool
    default: false
  going:
    description:
      - Run nothing if the deployment is ending or paused.
    type: bool
    default: false
attributes:
  check_mode:
    description: Says which events would be run, and runs none.
    support: full
  diff_mode:
    description: Shows nothing; M(bascule.deploy.stage) shows what an installation changes.
    support: none
  action:
    description: Has an action plugin that takes a shorter way where the connection has pipelining.
    support: full
seealso:
  - module: bascule.deploy.stage
  - module: bascule.deploy.traffic
"""

EXAMPLES = r"""
- name: Install the staged revision, start it and ask its health gates
  bascule.deploy.lifecycle:
    deployment: "{{ hostvars.localhost.ansible_facts.bascule_deployment }}"
    settings:
      root: /opt/codedeploy-agent/deployment-root
      gates:
        - type: http
          port: 8080
          path: /health
          hold: 10
"""

RETURN = r"""
events:
  description: What came of each event, in order.
  returned: always
  type: list
  elements: dict
  contains:
    event:
      description: Name of the event. C(HealthGate) is the asking of the health gates,
        C(StartOldVersion) the start of the old version after an installation that changed nothing.
      type: str
      returned: always
      sample: ApplicationStart
    status:
      description: V(Succeeded), V(Failed), or V(Skipped) after a failure.
      type: str
      returned: always
      sample: Succeeded
    started:
      description: Seconds since the epoch.
      type: float
      returned: always
      sample: 1795387255.845
    ended:
      description: Seconds since the epoch.
      type: float
      returned: always
      sample: 1795387256.012
    error_code:
      description: CodeDeploy's name for how the script ended.
      type: str
      returned: always
      sample: ScriptFailed
    script:
      description: The script that failed.
      type: str
      returned: always
      sample: scripts/start.sh
    message:
      description: What happened.
      type: str
      returned: always
      sample: 'Script at specified location: scripts/start.sh failed with exit code 1'
    log:
      description: The last 2 KB that the event's scripts wrote.
      type: str
      returned: always
      sample: "[stderr]port 8080 is in use"
error:
  description: The failed event with its code, script, message and log, C(null) without a failure.
  returned: always
  type: dict
  sample:
    event: ApplicationStart
    code: ScriptFailed
    script: scripts/start.sh
    message: 'Script at specified location: scripts/start.sh failed with exit code 1'
    log: "[stderr]port 8080 is in use"
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bascule.deploy.plugins.module_utils._module import (
    HOST_PROGRAM_SPEC,
    run_module,
)


def main() -> None:
    spec = {
        **HOST_PROGRAM_SPEC,
        "span": {
            "type": "str",
            "choices": [
                "all",
                "before_block",
                "install",
                "after_allow",
                "idle",
                "after_test",
                "before_allow",
                "leaving",
                "left",
                "leave",
                "returned",
            ],
            "default": "all",
        },
        "staged": {"type": "dict", "default": {}},
        "settle": {"type": "bool", "default": False},
        "going": {"type": "bool", "default": False},
    }
    run_module(AnsibleModule(argument_spec=spec, supports_check_mode=True), "lifecycle")


if __name__ == "__main__":
    main()
