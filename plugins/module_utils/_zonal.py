# Copyright: Bascule contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One zone at a time: CodeDeploy's zonal configuration, for hosts.

A zone is deployed to, watched for a while, and only then comes the next one. In each zone a minimum
must stay healthy, beside that of the whole fleet: a number, or a share of the zone's targets that
is rounded up as that of the fleet is (the user guide does not say; this is its closed form for N =
targets of the zone).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeVar

from ._admission import HEALTH_CONSTRAINTS_INVALID
from ._configuration import (
    FLEET_PERCENT,
    HOST_COUNT,
    MinimumHealthy,
    parse_duration,
    parse_minimum_healthy,
)
from ._errors import PlanError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Item = TypeVar("Item")

# Our keys, and those of CodeDeploy's ``zonalConfig``.
_KEYS = {
    "first_zone_monitor": "first_zone_monitor",
    "monitor": "monitor",
    "minimum_healthy_hosts_per_zone": "minimum",
    "order": "order",
    "firstZoneMonitorDurationInSeconds": "first_zone_monitor",
    "monitorDurationInSeconds": "monitor",
    "minimumHealthyHostsPerZone": "minimum",
}
_NOTHING = MinimumHealthy(FLEET_PERCENT, Fraction(0))
_ON = ("true", "yes", "on")
_OFF = ("", "false", "no", "off", "none")


@dataclass(frozen=True)
class Zonal:
    """How long a zone is watched before the next one, in seconds, and what each must keep.

    ``order`` names the zones that come first, in this order.
    """

    first_monitor: float = 0.0
    monitor: float = 0.0
    minimum: MinimumHealthy = _NOTHING
    order: tuple[str, ...] = ()


def parse_zonal(value: Any, name: str = "deploy_zonal") -> Zonal | None:
    """Read ``{first_zone_monitor: 10m, monitor: 5m, minimum_healthy_hosts_per_zone: 50%}``.

    CodeDeploy's ``zonalConfig`` with its own keys is understood, too. Each key may be left out:
    then nothing is waited for, and no zone has a minimum. ``true`` is one zone at a time and no
    more; nothing, ``false`` and ``{}`` are no zones at all (None).
    Raises UsageError, which names the variable ``name``.
    """
    if value is None or value is False or (isinstance(value, str) and value.lower() in _OFF):
        return None
    if value is True or (isinstance(value, str) and value.lower() in _ON):
        return Zonal()
    if not isinstance(value, Mapping):
        raise UsageError(_wanted(name, value))
    if not value:
        return None
    given: dict[str, Any] = {}
    for key, one in value.items():
        known = _KEYS.get(str(key))
        if known is None or known in given:
            twice = " is said twice" if known else ""
            raise UsageError(f"{_wanted(name, value)} Not {key!r}{twice}.")
        if one is not None:
            given[known] = one
    minimum = parse_minimum_healthy(given.get("minimum", "0%"), f"The minimum per zone of {name}")
    if minimum.kind not in (HOST_COUNT, FLEET_PERCENT):
        raise UsageError(f"The minimum per zone of {name} must be a number or a share.")
    monitor = parse_duration(given.get("monitor", 0), f"monitor of {name}")
    order = given.get("order", ())
    if isinstance(order, str) or len(set(order)) != len(order):
        raise UsageError(f"order of {name} must be a list of zones, each of them once.")
    return Zonal(
        # As in CodeDeploy, the first zone is watched as long as the others unless it says so.
        first_monitor=parse_duration(
            given.get("first_zone_monitor", monitor), f"first_zone_monitor of {name}"
        ),
        monitor=monitor,
        minimum=minimum,
        order=tuple(str(zone) for zone in order),
    )


def _wanted(name: str, value: Any) -> str:
    return (
        f"{name} is {value!r}; wanted is a mapping with any of first_zone_monitor and monitor "
        "(durations), minimum_healthy_hosts_per_zone (a number or a share) and order (zones), or "
        "true."
    )


def divide(
    zonal: Zonal,
    ordered: Sequence[tuple[str, str, Item]],
    totals: Mapping[str, int],
    sizes: Callable[[int], Sequence[int]],
    bake_time: float,
) -> tuple[list[list[Item]], dict[str, Any]]:
    """Divide targets into batches of one zone each.

    ``ordered`` are (name, zone, target) in the order of the plan, ``totals`` how many targets the
    whole group has in each zone, ``sizes`` gives the batches of so many targets of one zone. The
    zone of the first target comes first and so on, after those that ``order`` names.

    Returns the batches and {"zones": [{"name", "total", "minimum_healthy", "monitor": seconds}],
    "stages": for each batch the index of its zone, "waits": for each batch the seconds after it}.
    Raises PlanError if a target has no zone, or a zone could not give a target.
    """
    homeless = [name for name, zone, _target in ordered if not zone]
    if homeless:
        raise PlanError(
            "The targets go zone by zone, but of some the zone is not known: {}. Set deploy_zone "
            "for them, or leave out deploy_zonal.".format(", ".join(homeless))
        )
    present = list(dict.fromkeys(zone for _name, zone, _target in ordered))
    zones = [zone for zone in zonal.order if zone in present]
    zones += [zone for zone in present if zone not in zones]
    batches: list[list[Item]] = []
    told: dict[str, Any] = {"zones": [], "stages": [], "waits": []}
    for number, zone in enumerate(zones):
        members = [target for _name, own, target in ordered if own == zone]
        minimum = zonal.minimum.of(totals[zone])
        if minimum >= totals[zone]:
            raise PlanError(
                f"{HEALTH_CONSTRAINTS_INVALID}: {minimum} of the {totals[zone]} targets of zone "
                f"{zone} must stay healthy, so none of it could be taken. Set the minimum per zone "
                f"to {totals[zone] - 1} or less, or add targets there."
            )
        monitor = zonal.monitor if number else zonal.first_monitor
        told["zones"].append(
            {
                "name": zone,
                "total": totals[zone],
                "minimum_healthy": minimum,
                "monitor": monitor if number < len(zones) - 1 else 0.0,
            }
        )
        start = 0
        for size in sizes(len(members)):
            batches.append(members[start : start + size])
            start += size
            told["stages"].append(number)
            told["waits"].append(float(bake_time))
        told["waits"][-1] = told["zones"][-1]["monitor"]
    return batches, told


def zone_lines(zonal: Mapping[str, Any], stage: int, duration: Callable[[float], str]) -> list[str]:
    """Tell what a plan says of the zone that begins with ``stage`` (from 0), if one does."""
    number = zonal["stages"][stage]
    if stage and zonal["stages"][stage - 1] == number:
        return []
    zone = zonal["zones"][number]
    text = f"Zone {zone['name']} ({number + 1} of {len(zonal['zones'])}): "
    text += f"{zone['minimum_healthy']} of {zone['total']} must stay healthy"
    if zone["monitor"]:
        text += f", watched for {duration(zone['monitor'])} before the next one"
    return [text]
