#!/usr/bin/python
# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: traffic
short_description: Take targets out of service at a load balancer, or put them back
version_added: 0.1.0
author:
  - Bascule contributors (@bascule)
description:
  - Orders the load balancer to send no new request to a target, or to send them again, and waits
    until the load balancer itself is seen to do so. A drained target has no open request left.
  - Runs on the host of the load balancer, so a task delegates to it. Needs Python 3.8 there and
    nothing else.
  - Each of the options O(state), O(provider), O(options) and O(targets) is needed by a task.
options:
  state:
    description:
      - V(drained) is a target that gets no new request and has none open.
      - V(in_service) is a target that gets requests and that the load balancer finds healthy.
        Where the load balancer can, a target it does not know is registered.
      - V(observed) changes nothing and returns what the load balancer says.
      - V(routed) shares the traffic between pools as O(routing) says, and waits until the load
        balancer itself shows that.
      - V(measured) changes nothing and returns what the load balancer has counted of each pool.
    type: str
    choices: [drained, in_service, observed, routed, measured]
  provider:
    description:
      - The load balancer. V(elbv2) is an Application or Network Load Balancer of AWS, V(elb) a
        classic one; both are reached from the controller with boto3.
    type: str
    choices: [elb, elbv2, envoy, haproxy, lambda_alias, nginx]
  options:
    description:
      - How the load balancer is reached and how long it may take. The roles fill this from the
        variables C(deploy_traffic_*) and those that begin with the provider's name.
      - A time is a number of seconds or a text such as V(90s) or V(5m).
    type: dict
    default: {}
    suboptions:
      drain_timeout:
        description:
          - How long open requests may take to end.
        type: raw
        default: 300s
      restore_timeout:
        description:
          - How long the load balancer may take to find the target healthy.
        type: raw
        default: 300s
      interval:
        description:
          - Time between two looks at the load balancer.
        type: raw
        default: 250ms
      reconnect_timeout:
        description:
          - For how long the load balancer's host is tried again when the connection to it was lost.
        type: raw
        default: 60s
      on_drain_timeout:
        description:
          - What to do with requests that are open when O(options.drain_timeout) is over.
            V(proceed) goes on, and they are cut when the application stops. V(fail) puts the
            target back in service and fails.
        type: str
        choices: [proceed, fail]
        default: proceed
      envoy_eds_path:
        description:
          - The cluster's endpoint file (EDS, JSON) as Envoy watches it.
        type: str
      envoy_cluster:
        description:
          - Name of the cluster.
        type: str
      envoy_admin_url:
        description:
          - Envoy's administration, V(http://HOST:PORT) or V(unix:///PATH). V(http://127.0.0.1:9901)
            if nothing else is said.
        type: str
      envoy_service_name:
        description:
          - Name of the cluster in its endpoint file where that is another one (C(service_name) of
            C(eds_cluster_config)).
        type: str
      envoy_routes_path:
        description:
          - The route file (RDS, JSON) as Envoy watches it. Needed for V(routed).
        type: str
      pools:
        description:
          - What the load balancer calls each pool, by the pool's name. Envoy has C(cluster) and
            C(eds_path), HAProxy C(backend), nginx C(upstream), an ALB C(target_group).
        type: dict
        default: {}
      haproxy_socket:
        description:
          - Path of the stats socket, or HOST:PORT. V(/run/haproxy/admin.sock) if nothing else is
            said.
        type: str
      haproxy_backend:
        description:
          - Name of the backend.
        type: str
      haproxy_map_path:
        description:
          - Path of the map that HAProxy's Lua program shares the traffic by.
            V(/etc/haproxy/bascule.map) if nothing else is said.
        type: str
      haproxy_map_key:
        description:
          - The map's entry, which C(http-request lua.bascule KEY) names. V(routing) if nothing else
            is said.
        type: str
      haproxy_drain_with:
        description:
          - The state that a server is drained with, V(drain), V(maint) or V(auto). A server in
            V(drain) still gets the clients whose cookie names it, one in V(maint) does not.
            V(auto), the default, means V(maint) for servers with a cookie.
        type: str
      nginx_directory:
        description:
          - The directory of the files that Bascule changes, C(UPSTREAM.conf) and C(routing.conf).
            V(/etc/nginx/bascule) if nothing else is said.
        type: str
      nginx_upstream:
        description:
          - Name of the upstream.
        type: str
      nginx_command:
        description:
          - The command with which nginx tests its configuration; C(-t) is added.
            V(/usr/sbin/nginx) if nothing else is said.
        type: str
      nginx_pid_path:
        description:
          - nginx's file of its process id. V(/run/nginx.pid) if nothing else is said.
        type: str
      nginx_reload_wait:
        description:
          - For how long a reload waits until no connection rests any more that a client keeps
            alive, such as V(6s), which it is if nothing else is said.
        type: raw
      nginx_health_path:
        description:
          - The path that a target has to answer, with a status below 400, before it is put in
            service. Without it, it has to accept a connection.
        type: str
      nginx_log_path:
        description:
          - The access log that requests are counted from. V(/var/log/nginx/bascule.log) if nothing
            else is said.
        type: str
      elbv2_target_groups:
        description:
          - Names or ARNs of the target groups; a target leaves and enters all of them together.
        type: list
        elements: str
      elbv2_listener:
        description:
          - ARN of the listener, or of one of its rules, that shares the traffic between the pools.
        type: str
      elbv2_test_listener:
        description:
          - ARN of the listener for tests. A rule of the routing by listener gives all of it to one
            pool; without such a rule it forwards as O(options.elbv2_listener) does.
        type: str
      elbv2_target_port:
        description:
          - Port with which a target is registered. The default is the port of the target group.
        type: int
      elbv2_propagation:
        description:
          - How long after an order the load balancer may still send requests as before. V(10s) if
            nothing else is said.
        type: raw
      elb_names:
        description:
          - Names of the classic load balancers; a target leaves and enters all of them together.
        type: list
        elements: str
      elb_propagation:
        description:
          - As O(options.elbv2_propagation), for classic load balancers.
        type: raw
  targets:
    description:
      - The targets, all in one order, each with its C(name) at the load balancer, C(address) and
        C(port). C(target) is its inventory name where that is another one, C(weight) the
        weight it is registered with, C(instance) the id of its EC2 instance.
    type: list
    elements: dict
    default: []
  pool:
    description:
      - The pool of O(options.pools) that the targets belong to. Without it, the load balancer's own
        options name cluster, backend or target groups.
    type: str
    default: ""
  routing:
    description:
      - Which share of the traffic, and which requests, reach which pool.
      - C(weights) are percent by pool and 100 together; a pool at 0 stays attached.
      - C(match) is a list of rules with C(pool), C(value) and either C(header) or C(cookie). The
        first that matches wins.
      - C(sticky) keeps users on one pool. It has C(salt) and either C(header) or C(cookie), which
        name the user; with C(ttl), seconds, the load balancer gives a cookie to who has none.
      - C(mirror) sends a copy of C(share) percent of the requests to C(pool).
    type: dict
  since:
    description:
      - With O(state=measured), count requests from after this moment alone, in seconds since 1970.
        A load balancer whose counters have no times counts from its beginning on, and returns no
        RV(since).
    type: float
  hosts:
    description:
      - The hosts of the load balancer, which are all told at the same moment, so that none waits
        for another. Without it the task's own host is told.
    type: list
    elements: str
    default: []
  deployment:
    description:
      - The deployment that this belongs to. Its record gets the events C(BlockTraffic) and
        C(AllowTraffic).
    type: dict
    default: {}
  record:
    description:
      - URL of the record.
    type: str
    default: ""
  state_directory:
    description:
      - The controller's state folder, in which the record is where O(record) is empty.
    type: str
    default: ""
  request:
    description:
      - What the action of this name sends where the connection allows no shorter way. Not for
        playbooks.
    type: dict
attributes:
  check_mode:
    description: Says what would be ordered, and orders nothing.
    support: full
  diff_mode:
    description: Shows each target's state before and after.
    support: full
seealso:
  - module: bascule.deploy.lifecycle
"""

EXAMPLES = r"""
- name: Take this target out of service at every load balancer
  bascule.deploy.traffic:
    state: drained
    provider: haproxy
    options:
      haproxy_socket: /run/haproxy/admin.sock
      haproxy_backend: shop
      drain_timeout: 60s
    targets:
      - name: "{{ inventory_hostname }}"
        address: "{{ ansible_host }}"
        port: 8080
  delegate_to: "{{ item }}"
  loop: "{{ groups['loadbalancers'] }}"

- name: Put it back and wait until Envoy finds it healthy
  bascule.deploy.traffic:
    state: in_service
    provider: envoy
    options:
      envoy_eds_path: /etc/envoy/eds/shop.json
      envoy_cluster: shop
      restore_timeout: 2m
    targets:
      - name: "{{ inventory_hostname }}"
        address: "{{ ansible_host }}"
        port: 8080
  delegate_to: lb-1

- name: Take this instance out of two target groups and wait until its requests have ended
  bascule.deploy.traffic:
    state: drained
    provider: elbv2
    options:
      elbv2_target_groups: [shop, shop-internal]
    targets:
      - name: "{{ inventory_hostname }}"
        address: "{{ ansible_host }}"
        port: 8080
        instance: "{{ instance_id }}"
  delegate_to: localhost
"""

RETURN = r"""
targets:
  description: What the load balancer says of each target, by name.
  returned: success
  type: dict
  sample:
    web-1:
      in_service: false
      state: DRAINING
      active: 0
      ending: false
      ordered: true
      waited: 1.27
      cut: 0
routing:
  description: The routing C(before), or nothing if the load balancer had none, and C(after).
  returned: O(state=routed)
  type: dict
  sample:
    before: {weights: {blue: 100.0, green: 0.0}, match: [], sticky: null, mirror: null}
    after: {weights: {blue: 95.0, green: 5.0}, match: [], sticky: null, mirror: null}
pools:
  description:
    - What the load balancer has counted of each pool since it began. C(errors) are answers with a
      status of 500 or more and connections that failed.
    - C(latency) has C(p50), C(p95) and C(p99) in seconds, and the C(histogram) they come from as
      pairs of an upper bound and the requests up to it. It is null where it is not known.
  returned: O(state=measured)
  type: dict
  sample:
    blue:
      requests: 12034
      errors: 3
      latency: {p50: 0.012, p95: 0.043, p99: 0.11, histogram: [[0.05, 11900], [0.25, 12034]]}
since:
  description: O(since), where no request from before it is counted.
  returned: O(state=measured) and the load balancer can tell
  type: float
  sample: 1767225540.0
at:
  description: When that was, in seconds since 1970.
  returned: O(state=measured)
  type: float
  sample: 1767225600.1
counted:
  description: The RV(pools), RV(at) and RV(since) of each load balancer, in the order of O(hosts).
  returned: O(state=measured)
  type: list
  elements: dict
waited:
  description: Seconds until the last target was as wanted.
  returned: success
  type: float
  sample: 1.27
where:
  description: The load balancer and its place.
  returned: success
  type: str
  sample: Envoy cluster shop (127.0.0.1:9901)
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bascule.deploy.plugins.module_utils._errors import BasculeError
from ansible_collections.bascule.deploy.plugins.module_utils._host import (
    _envoy,
    _envoy_router,
    _haproxy,
    _haproxy_router,
    _nginx,
    _nginx_router,
    _traffic,
)
from ansible_collections.bascule.deploy.plugins.module_utils._host._entry import run
from ansible_collections.bascule.deploy.plugins.module_utils._routing import (
    TRAFFIC_OPTIONS,
    traffic_request,
)

# The door imports an operation by its name, which Ansible cannot see when it packs a module.
SENT_ALONG = (_traffic, _envoy, _envoy_router, _haproxy, _haproxy_router, _nginx, _nginx_router)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **TRAFFIC_OPTIONS,
            "deployment": {"type": "dict", "default": {}},
            "record": {"type": "str", "default": "", "no_log": True},
            "state_directory": {"type": "str", "default": ""},
            "request": {"type": "dict"},
        },
        required_one_of=[["state", "request"]],
        required_by={"state": ["provider"]},
        required_if=[["state", "routed", ["routing"]]],
        supports_check_mode=True,
    )
    try:
        request = module.params["request"] or traffic_request(
            module.params, "localhost", check=module.check_mode
        )
    except BasculeError as error:
        module.fail_json(msg=str(error))
    answer = run(request)
    for warning in answer.pop("warnings", ()):
        module.warn(warning)
    if answer.get("failed"):
        module.fail_json(**answer)
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
