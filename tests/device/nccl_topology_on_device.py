"""Our topology beside NCCL's own on this machine's GPUs, and what environments cost. It changes nothing.

python3 tests/device/nccl_topology_on_device.py [--rounds 7] [--limit-s 300] [--gpus N]

1. NCCL dumps its topology (NCCL_TOPO_DUMP_FILE) and is compared with nccl_topology's `observed`, without order,
   host_hash and rank. 2. NCCL gets `inject` (NCCL_TOPO_FILE): it comes up, finds the same, and is as fast. 3. NCCL gets
   the blueprint's file and its NCCL_NET: it stops, as the linter and the plan say. 4. All-reduces of 32 KiB, 4 MiB and
   1 GiB under the default, our environment and the blueprint's, in interleaved rounds: median and spread.
Needs torch with CUDA, and the driver's library. Prints a table; writes JSON and all topologies below $OUT where that is
set. Exit status 0: NCCL's dump is ours, NCCL takes `inject`, and it refuses what we refuse.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "module_utils"))
from rackserve.nccl import gpus, nets
from rackserve.nccl.document import PASSING, differences, read
from rackserve.nccl.environment import as_environment, engine_variables
from rackserve.nccl.lint import errors, lint
from rackserve.nccl.topology import observe
from rackserve.nccl.trial import judge_trial
from rackserve.nccl.variables import judge

REPO = Path(__file__).resolve().parents[2]
BLUEPRINT_FILE = REPO / "tests/fixtures/nccl-topology/refused-blueprint.xml"
BLUEPRINT = {
    "NCCL_ALGO": "Ring,Tree",
    "NCCL_PROTO": "Simple",
    "NCCL_MIN_NCHANNELS": "16",
    "NCCL_MAX_NCHANNELS": "32",
    "NCCL_NVLINK_ENABLE": "1",
    "NCCL_IB_DISABLE": "0",
    "NCCL_NET_GDR_LEVEL": "2",
    "NCCL_P2P_LEVEL": "NVL",
    "NCCL_IB_GID_INDEX": "3",
}
BLUEPRINT_NET = {"NCCL_NET": "IB:mlx5_0,mlx5_1,mlx5_2,mlx5_3"}
REFUSAL_LIMIT_S = 60.0


def load_program() -> Any:
    path = REPO / "roles/nccl/files/all_reduce.py"
    spec = importlib.util.spec_from_file_location("all_reduce", path)
    if not spec or not spec.loader:
        sys.exit(f"{path} is not there; copy the whole repository")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def say(line: str = "") -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def table(result: dict[str, Any], sizes: list[str]) -> None:
    """Median and spread by variant, and the median as a share of the default's."""
    base = result["variants"]["default"]["sizes"]
    say(f"all-reduce, bfloat16, {result['gpus']} GPU(s), NCCL {result.get('nccl', '?')}, {result['rounds']} rounds")
    say(f"{'variant':<12}" + "".join(f"{int(size) // 1024:>12} KiB: us (spread)  share" for size in sizes))
    for name, variant in result["variants"].items():
        cells = []
        for size in sizes:
            seen = variant["sizes"].get(size)
            share = f"{seen['median_us'] / base[size]['median_us']:.2f}" if seen and size in base else "-"
            cells.append(f"{seen['median_us']:>18.1f} ({seen['spread_us']:.1f}) {share:>8}" if seen else f"{'-':>34}")
        say(f"{name:<12}" + "".join(f"{cell:>34}" for cell in cells) + (" FAILED" if variant["error"] else ""))


def show_refusals(stopped: dict[str, Any]) -> list[str]:
    """Print what NCCL says to the blueprint's file and network, beside what we say; those it came up with."""
    ours = {
        "blueprint-file": errors(lint(BLUEPRINT_FILE.read_bytes()))[0],
        "blueprint-net": getattr(judge("NCCL_NET", BLUEPRINT_NET["NCCL_NET"], "none"), "why", "nothing"),
    }
    bad = []
    for name, says in ours.items():
        error = stopped["variants"][name]["error"]
        said = next((line for line in error.splitlines() if "WARN" in line or "rror" in line), "it came up")
        say(f"{name}: ours: {says}")
        say(f"  NCCL: {said[-200:]}")
        bad += [] if error else [f"{name}: NCCL came up with it"]
    return bad


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--limit-s", type=float, default=230.0)
    parser.add_argument("--gpus", type=int, default=0)
    given = parser.parse_args()
    began = time.monotonic()
    program = load_program()
    out = Path(os.environ.get("OUT") or tempfile.mkdtemp(prefix="nccl-topology-"))
    seen = gpus.read()
    count = given.gpus or min(len(seen), program.gpu_count())
    topology = observe(Path("/"), seen[:count])
    texts = topology.texts()
    for name in ("observed", "inject"):
        (out / f"{name}.xml").write_text(texts[name], "ascii")
    refused = [line for name in ("observed", "inject") for line in errors(lint(texts[name]))]
    ours = as_environment(engine_variables(hosts=1, interface="lo"))
    variants = {
        "default": {"NCCL_TOPO_DUMP_FILE": str(out / "default.xml")},
        "ours": ours,
        "blueprint": BLUEPRINT,
        "injected": {
            "NCCL_TOPO_FILE": str(out / "inject.xml"),
            "NCCL_TOPO_DUMP_FILE": str(out / "injected.xml"),
        },
    }
    result = program.measure(variants, count, rounds=given.rounds, limit_s=given.limit_s)
    wrong = {
        "blueprint-file": {"NCCL_TOPO_FILE": str(BLUEPRINT_FILE), "NCCL_DEBUG": "WARN"},
        "blueprint-net": {**BLUEPRINT_NET, "NCCL_DEBUG": "WARN"},
    }
    stopped = program.measure(wrong, count, rounds=0, limit_s=REFUSAL_LIMIT_S)

    bad = [f"the linter refuses our own text: {line}" for line in refused]
    dumps = {
        name: (out / f"{name}.xml").read_text() for name in ("default", "injected") if (out / f"{name}.xml").exists()
    }
    lines = ["NCCL wrote no dump"]
    if "default" in dumps:
        lines = differences(read(dumps["default"]), read(texts["observed"]), without=PASSING)
    say(f"observed against NCCL's dump: {'equal' if not lines else f'{len(lines)} differences'}")
    for line in lines:
        say(f"  {line}")
    bad += ["observed differs from NCCL's dump"] if lines else []

    taken, found = judge_trial(Path("/"), texts["inject"], result, dumps, "inject")
    accepted = not result["variants"]["injected"]["error"]
    say(f"NCCL takes inject.xml: {'yes' if accepted else 'no'}; the trial would {'keep' if taken else 'refuse'} it")
    for item in found:
        say(f"  {item['severity']} {item['code']}: {item['why']}")
    bad += [] if accepted else ["NCCL refuses inject.xml"]

    bad += show_refusals(stopped)
    say()
    table(result, [str(size) for size in program.SIZES])
    for name, variant in result["variants"].items():
        if variant["error"]:
            say(f"{name}: {variant['error'][-600:]}")
            bad.append(f"{name} did not finish")
    say()
    say(f"findings about this host: {topology.findings or 'none'}; RDMA ports: {len(nets.rdma(Path('/')))}")
    say("; ".join(bad) or "all as it should be")
    report = {"result": result, "stopped": stopped, "differences": lines, "bad": bad, "findings": topology.findings}
    report["trial"] = {"taken": taken, "findings": found}
    report["wall_s"] = round(time.monotonic() - began, 1)
    (out / "nccl_topology.json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    say(f"{report['wall_s']} s; {out}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
