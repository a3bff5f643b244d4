"""What rdma_info says of this machine, beside the raw files that it was read from. It only reads.

python3 tests/device/rdma_info_on_device.py              this machine
python3 tests/device/rdma_info_on_device.py --root DIR   a copied tree

Exit status 0: it answered. It needs the standard library only, and starts no other program.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "module_utils"))
from rackserve.rdma.info import rdma_info

FILES = (
    "proc/sys/kernel/osrelease",
    "proc/driver/nvidia/version",
    "sys/module/nvidia/version",
    "sys/module/nvidia/taint",
    "sys/module/nvidia_peermem/version",
    "sys/module/ib_core/refcnt",
    "sys/module/mlx5_ib/refcnt",
    "proc/net/route",
    "proc/net/vlan/config",
)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def raw(root: Path) -> None:
    """What lies below the answer, so that it can be judged by somebody who was not there."""
    folder = root / "sys/class/infiniband"
    names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else None
    say(f"{folder}: {'is not there' if names is None else names or 'is there, and empty'}")
    for name in FILES:
        try:
            text = (root / name).read_text("utf-8", "replace").strip()
        except OSError as problem:
            text = problem.strerror or "cannot be read"
        say(f"{name}: {text}")


def main() -> int:
    parser = argparse.ArgumentParser(description="What rdma_info says here; nothing is changed.")
    parser.add_argument("--root", type=Path, default=Path("/"), help="directory taken for the root of the host")
    given = parser.parse_args()
    raw(given.root)
    start = time.monotonic()
    said = rdma_info(given.root)
    took_ms = (time.monotonic() - start) * 1000
    say(json.dumps(said, indent=1))
    ports = [(hca["name"], port) for hca in said["hcas"] for port in hca["ports"]]
    for hca in said["hcas"]:
        say(f"{hca['name']}: {hca['kind']}, {hca['purpose']}: {hca['purpose_reason']}")
    for name, port in ports:
        say(f"{name} port {port['port']}: usable {port['usable']}: {port['reason']}")
    for found in said["findings"]:
        say(f"{found['severity']} {found['code']} {found['where']}: {found['why']}; {found['fix']}")
    say(f"gdr: {said['gdr']}; NCCL_IB_HCA: {said['nccl_ib_hca'] or '(empty)'}; read in {took_ms:.0f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
