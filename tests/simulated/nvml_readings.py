"""What NVML says, through an unmodified nvidia-ml-py: on a simulated host, or on a real one to compare the two.

python tests/simulated/nvml_readings.py                       the lines of tests/fixtures/h100-x4-vm/nvml.txt
python tests/simulated/nvml_readings.py --json                path -> value of everything in `nvidia-smi -q -x`
python tests/simulated/nvml_readings.py --compare FILE.xml    what differs from that output of nvidia-smi -q -x

It only reads: no setting is changed. Needs nvidia-ml-py and a libnvidia-ml.so.1.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pynvml

SMI = Path(__file__).resolve().parents[2] / "files/simulated/driver/nvidia_smi_simulated"
sys.path.insert(0, str(SMI))
from smi.device import gpus  # noqa: E402 - found by the line above
from smi.fields import NOT_IN_NVML  # noqa: E402 - as above
from smi.log import Node, readings, whole  # noqa: E402 - as above

# Readings that change between two looks at a healthy host: (pattern of the path below a GPU, why).
VOLATILE = (
    (r"timestamp", "time of the look"),
    (r"pci/[tr]x_util", "PCIe throughput of the last 20 ms"),
    (r"utilization/.*", "load of the last sampling period"),
    (r"temperature/(gpu_temp|gpu_temp_tlimit|memory_temp)", "follows the load"),
    (r"gpu(_memory)?_power_readings/(average|instant)_power_draw", "follows the load"),
    (r"clocks/.*", "follows the load"),
)
LINES_OF = (
    ("nvmlDeviceGetPersistenceMode", ()),
    ("nvmlDeviceGetSupportedMemoryClocks", ()),
    ("nvmlDeviceGetEnforcedPowerLimit", ()),
    ("nvmlDeviceGetTotalEccErrors", (pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC)),
    ("nvmlDeviceGetRemappedRows", ()),
    ("nvmlDeviceGetGpuFabricInfo", ()),  # the fixture was read with this wrong call
)


def call(name: str, *arguments: Any) -> str:
    try:
        return str(getattr(pynvml, name)(*arguments))
    except (pynvml.NVMLError, TypeError) as error:
        return str(error)


def lines() -> list[str]:
    """The readings of nvml.txt."""
    text = []
    for index in range(pynvml.nvmlDeviceGetCount()):
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        pci = pynvml.nvmlDeviceGetPciInfo(handle)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        capability = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
        text.append(f"{index} {pynvml.nvmlDeviceGetName(handle)} {pci.busId} {capability} {memory.total}")
        text += link_lines(handle)
        text += [f"   {name} {call(name, *((handle, *more) if more else (handle,)))}" for name, more in LINES_OF]
    return text


def link_lines(handle: Any) -> list[str]:
    text = []
    for link in range(pynvml.NVML_NVLINK_MAX_LINKS):
        try:
            state = pynvml.nvmlDeviceGetNvLinkState(handle, link)
            remote = pynvml.nvmlDeviceGetNvLinkRemotePciInfo(handle, link).busId
            version = pynvml.nvmlDeviceGetNvLinkVersion(handle, link)
        except pynvml.NVMLError:
            break
        text.append(f"  link {link} {state} {remote} {version}")
    return text


def from_xml(element: ElementTree.Element) -> Node:
    return Node(element.tag, element.text, [from_xml(child) for child in element])


def below_gpu(path: str) -> str:
    """A path without the GPU and without the numbers of repeated elements."""
    return re.sub(r"\[\d+\]", "", re.sub(r"^gpu(\[\d+\])?/", "", path))


def left_out(path: str) -> str | None:
    """Why a reading is not compared."""
    name = below_gpu(path)
    if name in NOT_IN_NVML:
        return f"not in NVML: {NOT_IN_NVML[name]}"
    for pattern, why in VOLATILE:
        if re.fullmatch(pattern, name):
            return why
    return None


def said(value: str | None) -> str:
    return "has it not" if value is None else repr(value)


def differences(wanted: dict[str, str], have: dict[str, str]) -> list[str]:
    found = []
    for path in [*wanted, *(path for path in have if path not in wanted)]:
        one, other = wanted.get(path), have.get(path)
        if one != other and (one is None or other is None or not left_out(path)):
            found.append(f"{path}: nvidia-smi {said(one)}, NVML {said(other)}")
    return found


def compare(path: Path, have: dict[str, str]) -> int:
    wanted = dict(readings(from_xml(ElementTree.parse(path).getroot())))  # noqa: S314 - nvidia-smi's own output
    found = differences(wanted, have)
    skipped = sorted({f"{below_gpu(path)}: {why}" for path in wanted if (why := left_out(path))})
    sys.stdout.writelines(f"not compared: {line}\n" for line in skipped)
    sys.stdout.writelines(f"differs: {line}\n" for line in found)
    sys.stdout.write(f"{len(wanted)} readings of nvidia-smi, {len(have)} of NVML, {len(found)} differ\n")
    return 1 if found else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="What NVML says; reads only.")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--json", action="store_true", help="path and value of everything in nvidia-smi -q -x")
    chosen.add_argument("--compare", type=Path, metavar="FILE", help="output of nvidia-smi -q -x to compare with")
    options = parser.parse_args()
    pynvml.nvmlInit()
    try:
        if not options.json and not options.compare:
            sys.stdout.writelines(f"{line}\n" for line in lines())
            return 0
        have = dict(readings(whole(gpus())))
    finally:
        pynvml.nvmlShutdown()
    if options.compare:
        return compare(options.compare, have)
    sys.stdout.write(json.dumps(have, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
