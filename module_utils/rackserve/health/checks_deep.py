"""Measurements that load the host: only on a drained one, each only where its program is installed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from .check import CRITICAL, DEEP, WARNING, Check, NotHere, Problem, Unreadable
from .look import Look

BANDWIDTH_S = 60
LINE_SHARE = 0.9
_BUSBW = re.compile(r"Avg bus bandwidth\s*:\s*([\d.]+)")
_BANDWIDTH = re.compile(r"^\s*\d+\s+\d+\s+[\d.]+\s+([\d.]+)", re.MULTILINE)
_NOT_FOUND = 127
_BYTES = "1073741824"


def _drained(look: Look) -> None:
    """Raise NotHere while an engine of the plan runs: measuring would slow it down, and be slowed down by it."""
    for name in look.expect.get("gpu_units") or ():
        unit = look.units().get(name)
        if unit is not None and unit.active == "active":
            raise NotHere(f"{name} runs; drain the host first (playbooks/roll-serving.yml)")


def _measure(look: Look, words: list[str]) -> str:
    if look.tools.measure is None:
        raise Unreadable("nothing can be measured on a copied tree")
    code, out, err = look.tools.measure(words)
    if code == _NOT_FOUND:
        raise NotHere(f"{words[0]} is not installed")
    if code:
        said = " ".join((err or out).split())[-200:]
        raise Unreadable(f"{words[0]} ended with {code}: {said}")
    return out


def _diag(look: Look) -> list[Problem]:
    look.gpus()
    _drained(look)
    if look.tools.measure is None:
        raise Unreadable("nothing can be measured on a copied tree")
    code, out, err = look.tools.measure(["dcgmi", "diag", "-r", str(look.expect.get("diag_level") or 2), "-j"])
    if code == _NOT_FOUND:
        raise NotHere("dcgmi is not installed")
    try:
        answer = json.loads(out[out.index("{") :])
    except ValueError:
        raise Unreadable(f"dcgmi: {' '.join((err or out).split())[-200:]}; is nvidia-dcgm.service active?") from None
    failed = sorted({f"{test}: {said}" for test, said in _failed(answer)})
    return [Problem(_subject(line), line) for line in failed]


def _subject(line: str) -> str:
    gpu = re.search(r"\bGPU (\d+)\b", line)
    return f"GPU {gpu[1]}" if gpu else "host"


def _failed(answer: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """(test, words) of everything in DCGM's answer that failed, in the layouts of DCGM 3 and 4."""
    if isinstance(answer, dict):
        name = str(answer.get("name") or answer.get("test_name") or name)
        status = answer.get("status") or answer.get("result")
        if isinstance(status, str) and status.lower().startswith("fail"):
            gpu = answer.get("gpu_id", answer.get("entity_id", answer.get("gpu_ids", "")))
            words = json.dumps(answer.get("warnings") or answer.get("info") or status, ensure_ascii=True)
            yield name, f"GPU {gpu} {words[:200]}" if str(gpu) else words[:200]
        for value in answer.values():
            yield from _failed(value, name)
    elif isinstance(answer, list):
        for value in answer:
            yield from _failed(value, name)


def _all_reduce(look: Look) -> list[Problem]:
    gpus = look.gpus()
    _drained(look)
    out = _measure(look, ["all_reduce_perf", "-b", _BYTES, "-e", _BYTES, "-g", str(len(gpus)), "-n", "20"])
    seen = _BUSBW.search(out)
    if not seen:
        raise Unreadable("all_reduce_perf printed no bus bandwidth")
    busbw = float(seen[1])
    look.measured["all_reduce_gbytes_s"] = busbw
    least = (look.expect.get("gpus") or {}).get("all_reduce_gbytes_s")
    return [Problem("host", f"{busbw:g} GB/s, the site says {least:g}")] if least and busbw < least else []


def _write(look: Look) -> list[Problem]:
    ports = [port for port in look.ports() if port.state == "ACTIVE"]
    if not ports:
        raise NotHere("no active port")
    _drained(look)

    def judge(port: Any) -> list[Problem]:
        words = ["--report_gbits", "-F", "-s", "8388608", "-D", "3", "-d", port.hca.name, "-i", str(port.seen.number)]
        out = _measure(look, ["timeout", str(BANDWIDTH_S), "sh", "-c", _LOOPBACK, "sh", *words])
        seen = _BANDWIDTH.findall(out)
        if not seen:
            raise Unreadable(f"{port.subject}: ib_write_bw printed no bandwidth")
        gbps = float(seen[-1])
        look.measured[f"ib_write_gbits_s/{port.subject}"] = gbps
        least = ((look.expect.get("fabric") or {}).get("rate_gbps") or port.rate_gbps) * LINE_SHARE
        return [Problem(port.subject, f"{gbps:g} Gb/s, 90 % of its rate is {least:g}")] if gbps < least else []

    if look.tools.measure is not None and look.tools.measure(["ib_write_bw", "--version"])[0] == _NOT_FOUND:
        raise NotHere("ib_write_bw is not installed")
    return look.over(ports, judge)


# Server and client on the same port: what the adapter and its PCIe link can do, without the fabric.
_LOOPBACK = 'ib_write_bw "$@" >/dev/null & sleep 1; ib_write_bw "$@" localhost; code=$?; wait; exit $code'

CHECKS = (
    Check(
        "deep-dcgm", CRITICAL, "any failed test of dcgmi diag (level 2)", "NVIDIA DCGM; NVSentinel preflight",
        "NVIDIA's own test says that a part does not work.", "as the test says; keep its JSON for the vendor", _diag,
        ("gpu-lost", "driver-versions"), DEEP,
    ),
    Check(
        "deep-all-reduce", WARNING,
        "the site's gpus.all_reduce_gbytes_s; on the controller 10 % below the fleet's median",
        "nccl-tests, 1 GiB; Azure: 460 GB/s on 8 H100", "NVLinks or the switch are slower than they should be.",
        "nvidia-smi nvlink -s and -e; compare observed.xml; reset all GPUs of the drained host", _all_reduce,
        ("nvlink-inactive", "gpu-throttle", "gpu-lost"), DEEP,
    ),
    Check(
        "deep-ib-write", WARNING, "90 % of the port's rate; on the controller 10 % below the fleet's median",
        "perftest over loopback; nccl-ib 4", "The adapter or its PCIe link is slower than it should be.",
        "lspci -vv -s <address of {hca}>: LnkSta; MaxReadReq 4096; BIOS: relaxed ordering", _write,
        ("rdma-pcie-width", "rdma-rate", "rdma-port-down"), DEEP,
    ),
)  # fmt: skip
