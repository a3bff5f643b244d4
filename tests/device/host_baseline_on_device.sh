#!/bin/sh
# What host_baseline does to a real kernel: applies two sysctls and transparent huge pages, verifies them, names and
# mends a change by hand, and gives back what was there before. By the code that runs on hosts; needs root and Python 3.9,
# no systemd, no network, no Ansible.
#
#   sh tests/device/host_baseline_on_device.sh            the running kernel
#   ROOT=/some/tree sh tests/device/…                     a copied tree
#
# Exit status 0: all of it held; 1: something did not; 3: this kernel's values are read-only here, nothing was changed.
# Whatever happens, prior values are written back at the end.
set -eu
here=$(cd "$(dirname "$0")/../.." && pwd)
PYTHONPATH=$here/module_utils exec python3 -B - "${ROOT:-/}" <<'PYTHON'
import sys
from pathlib import Path

from rackserve.baseline.isolation import isolation_findings, our_devices
from rackserve.baseline.knobs import knob_items, merge_knobs
from rackserve.converge.engine import converge
from rackserve.converge.errors import ConvergeError
from rackserve.converge.kernel import knob_value
from rackserve.converge.write import write_knob
from rackserve.preflight.findings import warning_lines

ROOT = Path(sys.argv[1])
THP = "/sys/kernel/mm/transparent_hugepage/enabled"
GOVERNORS = "/sys/devices/system/cpu/cpufreq/policy*/scaling_governor"
# Two values for each, so that one of them differs from what is there.
CHOICES = {
    "sysctl-vm.swappiness": ("10", "11"),
    "sysctl-net.core.somaxconn": ("4096", "4097"),
    "thp": ("madvise", "never"),
}
failed = []


def say(holds, text):
    print(f"{'ok    ' if holds else 'FAILED'} {text}")
    if not holds:
        failed.append(text)


def items_of(values):
    knobs = merge_knobs({name.partition("-")[2]: value for name, value in values.items() if name != "thp"})
    return [*knob_items(knobs), {"id": "thp", "kind": "knob", "path": THP, "value": values["thp"]}]


def go(items, check):
    document = {"role": "host_baseline", "items": items}
    return converge([document], secrets={}, root=ROOT, run=None, check=check)


def named(result, key="changed"):
    found = result["roles"]["host_baseline"][key]
    return sorted(entry["id"] if isinstance(entry, dict) else entry for entry in found)


def read(path):
    return knob_value((ROOT / path.lstrip("/")).read_text())


paths = {item["id"]: item["path"] for item in items_of({name: pair[0] for name, pair in CHOICES.items()})}
missing = [path for path in paths.values() if not (ROOT / path.lstrip("/")).exists()]
if missing:
    sys.exit(f"host_baseline_on_device: this kernel has no {', '.join(missing)}")
prior = {name: read(path) for name, path in paths.items()}
print(f"prior  {prior}")
try:
    for name, path in paths.items():
        write_knob(ROOT / path.lstrip("/"), prior[name])
except OSError as problem:
    print(f"{paths[name]} is read-only here ({problem.strerror}); nothing was changed")
    sys.exit(3)
wanted = {name: pair[0] if prior[name] != pair[0] else pair[1] for name, pair in CHOICES.items()}
everything = sorted(wanted)
try:
    seen = go(items_of(wanted), check=True)
    say(named(seen, "differs") == everything, f"the comparison names {named(seen, 'differs')}")
    say({name: read(path) for name, path in paths.items()} == prior, "and changes nothing")
    say(named(go(items_of(wanted), check=False)) == everything, f"applied: {wanted}")
    say({name: read(path) for name, path in paths.items()} == wanted, "the kernel has them")
    say(go(items_of(wanted), check=False)["changed"] is False, "a second run changes nothing")
    write_knob(ROOT / THP.lstrip("/"), prior["thp"])
    seen = go(items_of(wanted), check=True)
    say(named(seen, "differs") == ["thp"], f"changed by hand, named: {seen['roles']['host_baseline']['differs']}")
    say(named(go(items_of(wanted), check=False)) == ["thp"], "set again, and only that")
except ConvergeError as problem:
    say(False, str(problem))
finally:
    for name, path in paths.items():
        write_knob(ROOT / path.lstrip("/"), prior[name])
    say({name: read(path) for name, path in paths.items()} == prior, "prior values are back")

print("\nread only:")
optional = [
    {"id": "governor", "kind": "knob", "path": GOVERNORS, "value": "performance", "optional": True},
    *knob_items({"kernel.numa_balancing": "0"}, ["kernel.numa_balancing"]),
]
seen = go(optional, check=True)
for entry in [*seen["roles"]["host_baseline"]["differs"], *seen["not_judged"]]:
    print(f"       {entry['id']}: {entry['why']}")
print(f"       GPUs and RDMA adapters: {', '.join(path.name for path in our_devices(ROOT)) or 'none'}")
for line in warning_lines(isolation_findings(ROOT)) or ["no IOMMU or ACS in their way, or a virtual machine"]:
    print(f"       {line}")
sys.exit(1 if failed else 0)
PYTHON
