from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible_collections.bascule.deploy.plugins.module_utils._errors import UsageError
from ansible_collections.bascule.deploy.plugins.plugin_utils import _settings

ROOT = Path(__file__).resolve().parents[4]


def test_unknown_variables_are_named_with_the_closest_known_one() -> None:
    with pytest.raises(UsageError) as refusal:
        _settings.refuse_unknown(["deploy_revison", "ansible_host"], _settings.public_variables())
    assert "deploy_revison (did you mean deploy_revision?)" in str(refusal.value)


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
