"""All rules. Their order breaks ties: what lies deeper comes first."""

from __future__ import annotations

from . import (
    rules_driver,
    rules_engine,
    rules_fleet,
    rules_gateway,
    rules_health,
    rules_host,
    rules_memory,
    rules_nccl,
    rules_ray,
    rules_unit,
    rules_weights,
    rules_xid,
)  # fmt: skip
from .rule import Rule

FAMILIES: dict[str, tuple[Rule, ...]] = {
    "Hosts": rules_fleet.RULES,
    "Health report": rules_health.RULES,
    "Xids": rules_xid.RULES,
    "Driver": rules_driver.RULES,
    "Host": rules_host.RULES,
    "Memory": rules_memory.RULES,
    "NCCL": rules_nccl.RULES,
    "Ray": rules_ray.RULES,
    "Weights and downloads": rules_weights.RULES,
    "Engine": rules_engine.RULES,
    "Units": rules_unit.RULES,
    "Gateway": rules_gateway.RULES,
}
RULES: tuple[Rule, ...] = tuple(rule for family in FAMILIES.values() for rule in family)
BY_ID = {rule.id: rule for rule in RULES}
