"""Whatever the document: twice is once, comparing touches nothing, and no secret gets out."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.rackserve.converge.errors import ItemError
from converge_support import FakeSystemd, go, put, snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

SECRETS = {"alpha": "canary-a\u00e9-41b7", "beta": "canary-b-line1\ncanary-b-line2"}
BOUNDED = settings(max_examples=60)

texts = st.lists(
    st.sampled_from(["plain\n", "{secret:alpha}", "{secret:beta}\n", "x=1", "\u2603", "", "tab\t\n"]), max_size=4
).map("".join)
modes = st.sampled_from(["0600", "0640", "0644", "0755"])
gates = st.sampled_from([None, None, "up.service", "down.service"])


@st.composite
def documents(draw: st.DrawFn) -> list[dict[str, Any]]:
    """One or two roles over a small set of paths, so that runs meet what earlier content left there."""
    items: list[dict[str, Any]] = [
        {"id": "dir", "kind": "directory", "path": "/etc/r", "mode": draw(modes.map(lambda m: m.replace("6", "7")))}
    ]
    for number in range(draw(st.integers(0, 5))):
        path = f"/etc/r/{number}"
        kind = draw(st.sampled_from(["file", "link", "absent", "directory"]))
        fields: dict[str, Any] = {
            "file": {"content": draw(texts), "mode": draw(modes)},
            "link": {"target": draw(st.sampled_from(["a", "/b"]))},
            "absent": {},
            "directory": {"mode": "0755"},
        }[kind]
        if kind != "directory":
            fields["gated_by"] = draw(gates)
        items.append({"id": f"i{number}", "kind": kind, "path": path, **fields})
    items.append({"id": "knob", "kind": "knob", "path": "/sys/k", "value": draw(st.sampled_from(["0", "1", "1 2"]))})
    unit = {"id": "unit", "kind": "unit", "name": "up.service", "enabled": draw(st.booleans()), "active": True}
    return [{"role": "vllm", "items": items}, {"role": "ray", "items": [unit]}]


def host(folder: str) -> tuple[Path, FakeSystemd]:
    root = Path(folder)
    (root / "etc").mkdir(exist_ok=True)
    put(root, "/sys/k", "0\n")
    return root, FakeSystemd(up={"ActiveState": "active", "UnitFileState": "disabled"})


@BOUNDED
@given(documents())
def test_applying_twice_changes_nothing_the_second_time(wanted: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root, systemd = host(folder)
        predicted = go(root, wanted, check=True, run=systemd, secrets=SECRETS)
        first = go(root, wanted, run=systemd, secrets=SECRETS)
        assert first == predicted
        before = snapshot(root)
        second = go(root, wanted, run=systemd, secrets=SECRETS)
        assert (second["changed"], second["diff"], second["dirty_roles"]) == (False, [], [])
        assert snapshot(root) == before


@BOUNDED
@given(documents(), documents())
def test_comparing_touches_nothing_and_tells_what_applying_does(
    present: list[dict[str, Any]], wanted: list[dict[str, Any]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root, systemd = host(folder)
        go(root, present, run=systemd, secrets=SECRETS)
        before = snapshot(root)
        systemd.calls.clear()
        predicted = go(root, wanted, check=True, run=systemd, secrets=SECRETS)
        assert snapshot(root) == before
        assert systemd.verbs() == ["show"]
        try:
            applied = go(root, wanted, run=systemd, secrets=SECRETS)
        except ItemError as refused:
            assert predicted["dirty_roles"]
            assert refused.partial["changed"] is False
            assert snapshot(root) == before
        else:
            assert applied == predicted


@BOUNDED
@given(documents(), documents(), st.booleans())
def test_no_secret_in_results_diffs_or_errors(
    present: list[dict[str, Any]], wanted: list[dict[str, Any]], check: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root, systemd = host(folder)
        for document in (present, wanted):
            try:
                said = json.dumps(go(root, document, check=check, run=systemd, secrets=SECRETS), ensure_ascii=False)
            except ItemError as refused:
                said = str(refused) + json.dumps(refused.partial, ensure_ascii=False)
            assert "canary" not in said


@BOUNDED
@given(documents(), st.data())
def test_a_run_stopped_anywhere_is_finished_by_the_next(wanted: list[dict[str, Any]], data: st.DataObject) -> None:
    class Killed(BaseException):
        pass

    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as other:
        root, systemd = host(folder)
        whole, undisturbed = host(other)
        total = len(go(root, wanted, check=True, run=systemd, secrets=SECRETS)["diff"])
        stop = data.draw(st.integers(0, total))
        killed_at(root, wanted, systemd, stop, Killed)
        go(root, wanted, run=systemd, secrets=SECRETS)
        go(whole, wanted, run=undisturbed, secrets=SECRETS)
        assert contents(root) == contents(whole)


def killed_at(root: Path, wanted: Any, systemd: FakeSystemd, stop: int, killed: type[BaseException]) -> None:
    """Apply `wanted`, dying before write number `stop`."""
    from ansible.module_utils.rackserve.converge import apply as apply_module  # noqa: PLC0415 - patched only here

    saved = dict(apply_module._APPLY)
    count = [0]

    def counting(function: Any) -> Any:
        def step(finding: Any, seen: Any) -> None:
            if count[0] == stop:
                raise killed
            count[0] += 1
            function(finding, seen)

        return step

    apply_module._APPLY.update({kind: counting(function) for kind, function in saved.items()})
    try:
        go(root, wanted, run=systemd, secrets=SECRETS)
    except killed:
        pass
    finally:
        apply_module._APPLY.update(saved)


def contents(root: Path) -> dict[str, Any]:
    """Name to (mode, link target or bytes) of everything below root."""
    found: dict[str, Any] = {}
    for path in root.rglob("*"):
        what = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(root))] = (path.lstat().st_mode, what)
    return found


def test_a_converged_host_costs_little() -> None:
    """Sixty items within the budget of 0.1 CPU seconds; CPU time, since wall time is the machine's business."""
    with tempfile.TemporaryDirectory() as folder:
        root, systemd = host(folder)
        put(
            root,
            "/var/lib/dpkg/status",
            "".join(f"Package: p{n}\nStatus: install ok installed\n\n" for n in range(2000)),
        )
        items: list[dict[str, Any]] = [
            {"id": f"f{n}", "kind": "file", "path": f"/etc/f{n}", "content": "x" * 4000} for n in range(50)
        ]
        items += [{"id": f"p{n}", "kind": "package", "name": f"p{n}"} for n in range(10)]
        wanted = [{"role": "vllm", "items": items}]
        go(root, wanted, run=systemd)
        started_s = time.process_time()
        assert go(root, wanted, run=systemd)["dirty_roles"] == []
        assert time.process_time() - started_s < 0.1
