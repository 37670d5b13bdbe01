# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation that the modules stage and lifecycle have in common."""

from __future__ import annotations


class ModuleDocFragment:
    """Options and attributes of the modules that run the host program."""

    DOCUMENTATION = r"""
requirements:
  - Python 3.8 or later on the target, and nothing else.
options:
  deployment:
    description:
      - The deployment, as in the fact C(bascule_deployment) of localhost.
    type: dict
  settings:
    description:
      - How this target wants to be deployed to. The role P(bascule.deploy.variables#role) fills it
        from the variables C(deploy_*) of the same names.
    type: dict
    suboptions:
      root:
        description:
          - The deployment root, the folder of all deployments on the target.
        type: str
        required: true
      sysroot:
        description:
          - Prefix of all destinations in the AppSpec file.
        type: str
        default: ""
      file_exists_behavior:
        description:
          - What happens to files that exist and that no earlier deployment of the group installed,
            V(DISALLOW), V(OVERWRITE) or V(RETAIN). The AppSpec file's own word goes before this.
        type: str
        default: DISALLOW
      ignore_application_stop_failures:
        description:
          - Whether to go on after a failed ApplicationStop, BeforeBlockTraffic or
            AfterBlockTraffic.
        type: bool
        default: false
      start_again:
        description:
          - After which failures the old version, stopped by this deployment, is started again by
            its own ApplicationStart. V(refused) is an installation that has changed nothing,
            V(unchanged) also a failed script before Install.
        type: str
        choices: [refused, unchanged, never]
        default: refused
      retained_revisions:
        description:
          - How many deployments of the group are kept on the target, this one included.
        type: int
        default: 5
      hook_environment:
        description:
          - Variables for the hooks, such as secrets. They are not logged.
        type: dict
        default: {}
      layout:
        description:
          - Whether files are copied to their destinations, or a release is made and linked to.
        type: str
        choices: [copy, release]
        default: copy
      release_directory:
        description:
          - Folder of the releases and of what they share, for the layout V(release).
        type: str
        default: ""
      release_link:
        description:
          - The link to the live release, C(current) in that folder if this is empty.
        type: str
        default: ""
      shared_paths:
        description:
          - Paths in a release that all releases share; with a slash at the end a directory.
        type: list
        elements: str
        default: []
      releases_to_keep:
        description:
          - How many releases are kept, the live one included.
        type: int
        default: 5
      pool:
        description:
          - Pool of the target, for the hooks.
        type: str
        default: ""
      outside_links:
        description:
          - Whether symbolic links of the bundle may lead out of it.
        type: bool
        default: false
      redeploy:
        description:
          - Whether to deploy to a target that has the revision already.
        type: bool
        default: false
      gates:
        description:
          - Health gates that are asked after ValidateService.
        type: list
        elements: dict
        default: []
      reconnect_timeout:
        description:
          - For how long a target is tried again whose connection was lost, a number of seconds or
            a text such as V(90s). What runs on the target goes on meanwhile.
        type: raw
        default: 60s
  request:
    description:
      - What the action of this name sends where the connection allows no shorter way. Not for
        playbooks.
    type: dict
  bundle:
    description:
      - Path on the target of the revision's archive, sent by the action with O(request). Not for
        playbooks.
    type: path
"""
