from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError
from ansible_collections.bascule.deploy.plugins.plugin_utils import _opening, _settings

ROOT = Path(__file__).resolve().parents[4]


def test_unknown_variables_are_named_with_the_closest_known_one() -> None:
    with pytest.raises(UsageError) as refusal:
        _settings.refuse_unknown(["deploy_revison", "ansible_host"], _settings.public_variables())
    assert "deploy_revison (did you mean deploy_revision?)" in str(refusal.value)


def test_an_unknown_variable_of_one_target_is_told_with_it() -> None:
    with pytest.raises(UsageError, match=r"of web2 deploy_zon \(did you mean deploy_zone\?\)"):
        _settings.refuse_unknown(["deploy_zon"], _settings.public_variables(), "web2")


@pytest.mark.parametrize(
    ("kind", "given", "meant"),
    [
        ("list", "[1, '10%']", [1, "10%"]),
        ("list", "1,2", "1,2"),
        ("raw", "[{shift: 10%}]", [{"shift": "10%"}]),
        ("raw", "all_at_once", "all_at_once"),
        ("dict", '{"blue": "a"}', {"blue": "a"}),
        ("str", "[not a list]", "[not a list]"),
        ("list", [1], [1]),
    ],
)
def test_a_text_that_is_a_list_is_taken_as_one(kind: str, given: object, meant: object) -> None:
    assert _settings.as_data("deploy_x", given, {"type": kind}) == meant


def test_a_text_that_is_no_list_is_refused_without_what_it_holds() -> None:
    with pytest.raises(UsageError, match=r"deploy_x is a text that begins") as refused:
        _settings.as_data("deploy_x", '{"PASSWORD": "sesame"', {"type": "dict"})
    assert "sesame" not in str(refused.value)


def test_a_list_is_no_name() -> None:
    with pytest.raises(UsageError, match=r"deploy_application is a list; wanted is a text"):
        _settings.as_data("deploy_application", ["shop"], {"type": "str"})


def test_a_folder_on_the_targets_is_named_from_the_root() -> None:
    plain = {"deploy_reconnect_timeout": "60s", "deploy_notifications": []}
    roots = {"deploy_sysroot": "fleet/web1", "deploy_root": "fleet/web1/opt"}
    with pytest.raises(UsageError, match=r"deploy_sysroot is 'fleet/web1'; wanted is an absolute"):
        _settings.host_settings({**plain, **roots})
    with pytest.raises(UsageError, match=r"deploy_root is 'opt'"):
        _settings.host_settings({**plain, "deploy_sysroot": "", "deploy_root": "opt"})
    _settings.host_settings({**plain, "deploy_sysroot": "/fleet", "deploy_root": "/fleet/opt"})


def test_what_does_not_fit_is_told_in_words() -> None:
    known = "deploy_health_gates.prot. Supported parameters include: port, type."
    told = _settings.unfit([known, "value of deploy_layout must be one of: copy, release"])
    assert told == (
        "Unknown: deploy_health_gates.prot. There are: port, type. "
        "value of deploy_layout must be one of: copy, release."
    )


def test_every_default_is_a_documented_variable_and_the_same() -> None:
    text = (ROOT / "roles/deploy/defaults/main.yml").read_text(encoding="utf-8")
    defaults = yaml.safe_load(text)
    documented = _settings.public_variables()
    assert set(defaults) <= set(documented)
    for name, spec in documented.items():
        if "default" in spec:
            assert spec["default"] == defaults[name], name


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        ({"deploy_traffic_provider": "haproxy"}, "deploy_haproxy_socket, deploy_haproxy_backend"),
        (
            {"deploy_traffic_provider": "envoy", "deploy_envoy_eds_path": "/x"},
            "deploy_envoy_cluster",
        ),
    ],
)
def test_a_provider_without_its_settings_is_refused(settings: dict[str, str], missing: str) -> None:
    with pytest.raises(UsageError, match=missing):
        _settings.traffic_settings(settings)


def test_pools_name_what_a_provider_needs() -> None:
    settings = {"deploy_traffic_provider": "envoy", "deploy_traffic_pools": {"blue": {}}}
    with pytest.raises(UsageError, match=r"blue is {}; with envoy it needs cluster, eds_path"):
        _settings.traffic_settings(settings)
    pools = {"blue": {"cluster": "shop-blue", "eds_path": "/etc/envoy/eds/shop-blue.json"}}
    _settings.traffic_settings({**settings, "deploy_traffic_pools": pools})


def test_no_provider_needs_no_settings() -> None:
    _settings.traffic_settings({"deploy_traffic_provider": "none"})


LEAVING = {
    "deploy_auto_scaling_hook": "", "deploy_auto_scaling_termination_hook": "goodbye",
    "deploy_auto_scaling_groups": ["w"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("more", "refusal"),
    [
        ({"deploy_traffic_provider": "nginx"}, "deploy_traffic_provider is nginx"),
        ({"deploy_traffic_provider": "lambda_alias"}, "deploy_traffic_provider is lambda_alias"),
        (
            {"deploy_traffic_provider": "none", "deploy_auto_scaling_groups": []},
            "needs deploy_auto_scaling_groups",
        ),
    ],
)
def test_who_leaves_is_taken_out_of_the_traffic_from_here(
    more: dict[str, object], refusal: str
) -> None:
    with pytest.raises(UsageError, match=refusal):
        _settings.scaling_settings({**LEAVING, **more})
    for provider in ("none", "elb", "elbv2"):
        _settings.scaling_settings({**LEAVING, "deploy_traffic_provider": provider})
    without = {**LEAVING, **more, "deploy_auto_scaling_termination_hook": ""}
    _settings.scaling_settings(without)


def test_what_a_deployment_keeps_of_its_hooks() -> None:
    plain = {**LEAVING, "deploy_traffic_provider": "none"}
    assert _opening.scaling_of({**plain, "deploy_auto_scaling_termination_hook": ""}) is None
    assert _opening.scaling_of({**plain, "deploy_auto_scaling_groups": []}) is None
    known = {"hook": "", "termination_hook": "goodbye", "groups": ["w"], "traffic": None}
    assert _opening.scaling_of(plain) == known
    balanced = {
        **LEAVING, "deploy_traffic_provider": "elbv2", "deploy_elbv2_target_groups": ["web"],
        "deploy_elbv2_propagation": "5s", "deploy_traffic_drain_timeout": "60s",
        "deploy_traffic_restore_timeout": "90s", "deploy_traffic_pools": {},
    }  # fmt: skip
    options = {
        "elbv2_target_groups": ["web"], "elbv2_propagation": "5s", "drain_timeout": "60s",
        "restore_timeout": "90s", "pools": {}, "interval": "1s",
    }  # fmt: skip
    traffic = {"provider": "elbv2", "options": options}
    assert _opening.scaling_of(balanced) == {**known, "traffic": traffic}
    # At a launch hook alone nobody leaves.
    coming = {**balanced, "deploy_auto_scaling_hook": "hello",
              "deploy_auto_scaling_termination_hook": ""}  # fmt: skip
    found = _opening.scaling_of(coming)
    assert found == {"hook": "hello", "termination_hook": "", "groups": ["w"], "traffic": None}
