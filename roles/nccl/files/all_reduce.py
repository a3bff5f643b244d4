"""Time all-reduces of this host's GPUs under several environments, and dump the topology NCCL finds under each.

python3 all_reduce.py --variants variants.json --out result.json [--gpus N] [--rounds 5] [--limit-s 300]

variants.json is {name: {environment}}; NCCL_* of the caller's own environment that a variant does not name are kept.
Every variant has its own processes, one a GPU, and all of them live at the same time: each round asks one after the
other, in turn, so that what changes on the host meets all of them. Needs torch with CUDA; changes nothing.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, TextIO

KIB, MIB = 1024, 1024**2
SIZES = {32 * KIB: 200, 4 * MIB: 100, 1024 * MIB: 10}  # bytes: repetitions
BLOCK_BYTES = 2  # bfloat16, as tensor parallelism sends it
WARM_UP = 5
TAIL_CHARACTERS = 2000


def worker() -> None:
    """One rank: measure what is asked for on standard input, one answer a line."""
    torch = importlib.import_module("torch")
    dist = importlib.import_module("torch.distributed")
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # NCCL writes to standard output
    torch.cuda.set_device(rank)
    dist.init_process_group("nccl", rank=rank, world_size=world, device_id=torch.device("cuda", rank))
    buffer = torch.zeros(max(SIZES) // BLOCK_BYTES, dtype=torch.bfloat16, device="cuda")
    dist.all_reduce(buffer[:1024])
    torch.cuda.synchronize()
    tell(answers, {"nccl": ".".join(map(str, torch.cuda.nccl.version())), "torch": torch.__version__})
    for line in sys.stdin:
        size = int(line)
        part, times = buffer[: size // BLOCK_BYTES], SIZES[size]
        for _ in range(WARM_UP):
            dist.all_reduce(part)
        torch.cuda.synchronize()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(times):
            dist.all_reduce(part)
        end.record()
        torch.cuda.synchronize()
        tell(answers, {"us": start.elapsed_time(end) * 1000 / times})
    dist.destroy_process_group()


def tell(answers: TextIO, what: dict[str, Any]) -> None:
    answers.write(json.dumps(what) + "\n")
    answers.flush()


class Group:
    """The ranks of one variant."""

    def __init__(self, name: str, environment: dict[str, str], gpus: int, folder: Path) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.ranks = []
        with self.log.open("w") as log:
            for rank in range(gpus):
                given = {
                    **os.environ,
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(port),
                    "RANK": str(rank),
                    "WORLD_SIZE": str(gpus),
                    **environment,
                }
                command = [sys.executable, str(Path(__file__).resolve()), "--worker"]
                pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log}
                self.ranks.append(subprocess.Popen(command, env=given, text=True, bufsize=1, **pipes))

    def answers(self, until: float) -> list[dict[str, Any]] | None:
        """One line of every rank; None where one ended or the time is up."""
        found = []
        for process in self.ranks:
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, until - time.monotonic()))
            line = process.stdout.readline() if ready and process.stdout else ""
            if not line:
                return None
            found.append(json.loads(line))
        return found

    def ask(self, size: int, until: float) -> float | None:
        """Microseconds of one all-reduce, the slowest rank's."""
        try:
            for pipe in filter(None, (process.stdin for process in self.ranks)):
                pipe.write(f"{size}\n")
                pipe.flush()
        except BrokenPipeError:
            return None
        found = self.answers(until)
        return max(answer["us"] for answer in found) if found else None

    def end(self) -> str:
        """End its processes; what they wrote last."""
        for process in self.ranks:
            process.kill()
        for process in self.ranks:
            process.wait()
        return self.log.read_text("utf-8", "replace")[-TAIL_CHARACTERS:]


def measure(
    variants: dict[str, dict[str, str]], gpus: int, *, rounds: int = 5, limit_s: float = 300.0
) -> dict[str, Any]:
    """{nccl, torch, gpus, rounds, variants: {name: {error, sizes: {bytes: {us: [..], median_us, spread_us}}}}}.

    A variant that does not come up, or does not answer within `limit_s` seconds of all, has an error and no more sizes.
    """
    until = time.monotonic() + limit_s
    result: dict[str, Any] = {"gpus": gpus, "rounds": rounds, "variants": {}}
    with tempfile.TemporaryDirectory() as folder:
        groups = {name: Group(name, environment, gpus, Path(folder)) for name, environment in variants.items()}
        seen: dict[str, dict[int, list[float]]] = {name: {size: [] for size in SIZES} for name in groups}
        living = dict(groups)
        try:
            for name, group in groups.items():
                first = group.answers(until)
                if first is None:
                    living.pop(name)
                else:
                    result.update(first[0])
            for turn in range(rounds):
                for size in SIZES:
                    names = list(living)
                    for name in names[turn % len(names) :] + names[: turn % len(names)] if names else []:
                        taken = living[name].ask(size, until)
                        if taken is None:
                            living.pop(name)
                        else:
                            seen[name][size].append(taken)
        finally:
            ends = {name: group.end() for name, group in groups.items()}
    for name in groups:
        error = "" if name in living else ends[name] or "no answer in time"
        result["variants"][name] = {"error": error, "sizes": _sizes(seen[name])}
    return result


def _sizes(seen: dict[int, list[float]]) -> dict[str, dict[str, Any]]:
    return {
        str(size): {
            "us": [round(value, 2) for value in values],
            "median_us": round(statistics.median(values), 2),
            "spread_us": round(max(values) - min(values), 2),
        }
        for size, values in seen.items()
        if values
    }


def gpu_count() -> int:
    """GPUs that torch sees, asked in a process of its own."""
    code = "import torch; print(torch.cuda.device_count())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--worker", action="store_true")
    parser.add_argument("--variants", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit-s", type=float, default=300.0)
    given = parser.parse_args()
    if given.worker:
        worker()
        return
    variants = json.loads(given.variants.read_text("utf-8"))
    result = measure(variants, given.gpus or gpu_count(), rounds=given.rounds, limit_s=given.limit_s)
    given.out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
