"""Values of the running kernel: knobs, one or many by a pattern, and the CPUs that interrupts go to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from .document import Item
from .errors import ItemError
from .finding import Finding, Seen
from .host import Host
from .write import write_knob

_SHOWN = 3


def knob_value(text: str) -> str:
    """A knob's value as one line; of `always madvise [never]` the chosen word."""
    chosen = re.search(r"\[([^\]\s]+)\]", text)
    return chosen.group(1) if chosen else " ".join(text.split())


def knob_paths(item: Item, host: Host) -> list[Path]:
    """The files of a knob, in the order of their numbers: one, or those that match where its path has a `*`."""
    if "*" not in item.target:
        return [host.at(item.target)]
    fixed, _, pattern = item.target.partition("*")
    folder, _, start = fixed.rpartition("/")
    return sorted(host.at(folder).glob(f"{start}*{pattern}"), key=_natural)


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", str(path))]


def compare_knob(item: Item, seen: Seen) -> Finding | None:
    """Knob: the kernel's value, blanks and brackets set aside. One that is optional and not there is no difference."""
    wanted = item.spec["value"]
    paths = knob_paths(item, seen.host)
    differing: dict[str, list[str]] = {}
    try:
        for path in paths:
            present = knob_value(path.read_text(encoding="utf-8", errors="replace"))
            if present != wanted:
                differing.setdefault(present, []).append(_shown(path, item))
    except FileNotFoundError:
        paths = []
    except OSError as problem:
        text = f"{item.target} cannot be read ({problem.strerror})"
        return Finding(item, text, "", f"{wanted}\n", refusal=text)
    if not paths:
        if item.spec["optional"]:
            return None
        text = f"this kernel has no {item.target}; load its module or drop the item"
        return Finding(item, text, "", f"{wanted}\n", refusal=text)
    if not differing:
        return None
    if "*" not in item.target:
        (present,) = differing
        return Finding(item, f"{present}, wanted {wanted}", f"{present}\n", f"{wanted}\n")
    return _many(item, wanted, differing)


def _shown(path: Path, item: Item) -> str:
    """The folder or file that the `*` stands for: policy0 of /sys/…/policy*/scaling_governor."""
    behind = item.target.partition("*")[2].count("/")
    return path.parts[-1 - behind]


def _many(item: Item, wanted: str, differing: dict[str, list[str]]) -> Finding:
    why = "; ".join(f"{_some(names)}: {present}, wanted {wanted}" for present, names in sorted(differing.items()))
    pairs = [(name, present) for present, names in sorted(differing.items()) for name in names]
    before = "".join(f"{name}: {present}\n" for name, present in pairs)
    after = "".join(f"{name}: {wanted}\n" for name, _ in pairs)
    return Finding(item, why, before, after)


def _some(names: list[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def apply_knob(finding: Finding, seen: Seen) -> None:
    """Write every file of a knob that differs, and read it back. Raises ItemError where the kernel keeps its own."""
    item = finding.item
    wanted = item.spec["value"]
    for path in knob_paths(item, seen.host):
        if knob_value(path.read_text(encoding="utf-8", errors="replace")) == wanted:
            continue
        write_knob(path, wanted)
        kept = knob_value(path.read_text(encoding="utf-8", errors="replace"))
        if kept != wanted:
            where = f"/{path.relative_to(seen.host.root)}" if "*" in item.target else item.target
            raise ItemError(item.role, item.id, f"the kernel keeps {where} at {kept}, wanted {wanted}")


def _of_device(item: Item, host: Host, name: str) -> Path:
    """A file or folder of the adapter's PCI device."""
    return host.at(f"/sys/class/infiniband/{item.target}/device/{name}")


def _irqs(item: Item, host: Host) -> list[int]:
    folder = _of_device(item, host, "msi_irqs")
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()) if folder.is_dir() else []


def _affinity(host: Host, irq: int) -> Path:
    return host.at(f"/proc/irq/{irq}/smp_affinity_list")


def _wanted_cpus(item: Item, host: Host) -> str:
    if item.spec["cpus"] != "local":
        return str(item.spec["cpus"])
    return _of_device(item, host, "local_cpulist").read_text("ascii").strip()


def cpu_set(text: str) -> frozenset[int]:
    """CPUs of a list such as 0-3,8; raises ValueError for what is none."""
    cpus: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cpus.update(range(int(first), int(last or first) + 1))
    return frozenset(cpus)


def compare_irq(item: Item, seen: Seen) -> Finding | None:
    """Interrupts: where each one of the adapter goes. An adapter that is not there, or has none, is no difference."""
    host = seen.host
    wanted = ""
    differing: dict[str, list[str]] = {}
    for irq in _irqs(item, host):
        wanted = wanted or _wanted_cpus(item, host)
        present = _affinity(host, irq).read_text("ascii").strip()
        if cpu_set(present) != cpu_set(wanted):
            differing.setdefault(present, []).append(f"irq {irq}")
    return _many(item, wanted, differing) if differing else None


def apply_irq(finding: Finding, seen: Seen) -> None:
    """Send every interrupt of the adapter to the wanted CPUs, and read it back. Raises ItemError where it stays."""
    item, host = finding.item, seen.host
    wanted = _wanted_cpus(item, host)
    for irq in _irqs(item, host):
        path = _affinity(host, irq)
        if cpu_set(path.read_text("ascii")) == cpu_set(wanted):
            continue
        try:
            write_knob(path, wanted)
        except OSError as problem:
            text = f"interrupt {irq} cannot be sent to CPUs {wanted} ({problem.strerror}); its driver places it itself"
            raise ItemError(item.role, item.id, text) from None
        kept = path.read_text("ascii").strip()
        if cpu_set(kept) != cpu_set(wanted):
            raise ItemError(item.role, item.id, f"the kernel keeps interrupt {irq} at CPUs {kept}, wanted {wanted}")


def unjudged(items: Iterable[Item], host: Host) -> list[dict[str, str]]:
    """[{role, id, why}] of what this kernel or machine does not have and need not have."""
    found = []
    for item in items:
        why = ""
        if item.kind == "knob" and item.spec["optional"]:
            there = [path for path in knob_paths(item, host) if path.exists()]
            why = "" if there else f"this kernel has no {item.target}"
        elif item.kind == "irq" and not _irqs(item, host):
            why = f"no adapter {item.target} with interrupts of its own"
        if why:
            found.append({"role": item.role, "id": item.id, "why": why})
    return found
