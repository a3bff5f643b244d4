"""Whatever is thrown at the compiler, it answers with findings."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rackserve.plan import Library, compile_plan, plan_errors, plan_tables

from .conftest import Site, load_site, put
from .layouts_support import H20, POOLS, STAGES_OF_TWO_HOSTS, keys


def changed(patch: dict[str, Any]) -> Site:
    """The H20 sample in another layout."""
    cluster, groups, addresses = copy.deepcopy(load_site(H20))
    for path, value in patch.items():
        put(cluster, path, value)
    return cluster, groups, addresses


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=[]), max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
SITES = [
    *(load_site(name) for name in ("lab", "h20-4x8-deepseek-v3")),
    changed(POOLS),
    changed(STAGES_OF_TWO_HOSTS | keys(executor="ray")),
]
QUICK = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])


def check(plan: dict[str, Any]) -> None:
    json.dumps(plan)
    "\n".join(plan_tables(plan) + plan_errors(plan)).encode()
    assert all(set(item) == {"severity", "code", "where", "why", "fix"} for item in plan["findings"])


@given(cluster=JSON, groups=JSON, addresses=JSON, overrides=JSON)
@QUICK
def test_any_input_gives_findings(library: Library, cluster: Any, groups: Any, addresses: Any, overrides: Any) -> None:
    plan = compile_plan(cluster, groups, addresses, library, overrides)
    check(plan)
    assert plan_errors(plan)


def paths(data: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in the data."""
    pairs = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [here, *(path for key, value in pairs for path in paths(value, (*here, key)))]


@given(data=st.data(), value=JSON)
@QUICK
def test_any_value_anywhere_gives_a_plan_or_findings(library: Library, data: st.DataObject, value: Any) -> None:
    site = copy.deepcopy(list(data.draw(st.sampled_from(SITES))))
    path = data.draw(st.sampled_from([path for path in paths(site) if path]))
    target: Any = site
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    plan = compile_plan(*site, library)
    check(plan)
    assert plan == compile_plan(*site, library)


@given(value=JSON, extra=st.dictionaries(st.text(max_size=8), JSON, max_size=2))
@QUICK
def test_any_library_gives_findings(library: Library, value: Any, extra: dict[str, Any]) -> None:
    for shelf, key in (
        ("releases", "2026.11"),
        ("hardware", "h20-8"),
        ("models", "deepseek-v3"),
        ("profiles", "balanced"),
    ):
        entry = {**getattr(library, shelf)[key], **extra}
        check(compile_plan(*copy.deepcopy(SITES[0]), Library(**{**library.__dict__, "options": {"vllm-0.32": value}})))
        for changed in (value, entry, {**entry, next(iter(entry)): value}):
            books = Library(**{**library.__dict__, shelf: {key: changed}})
            check(compile_plan(*copy.deepcopy(SITES[1]), books))


@given(args=st.dictionaries(st.sampled_from(["gpu_memory_utilization", "max_model_len", "x"]), JSON, max_size=3))
@QUICK
def test_any_argument_gives_findings(library: Library, args: dict[str, Any]) -> None:
    site = copy.deepcopy(SITES[1])
    site[0]["deployments"][0]["engine_args"] = args
    check(compile_plan(*site, library))
