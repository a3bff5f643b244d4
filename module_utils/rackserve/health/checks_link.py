"""Checks of NVLinks, the NVLink fabric and its manager, and of the driver's parts and daemons."""

from __future__ import annotations

import re

from ..converge.errors import ConvergeError
from ..driver.host import Nvml, loaded_module
from ..driver.parts import agrees, judge_flavour, judge_parts, judge_processes, read_parts
from ..rdma.sysfs import text
from .check import CRITICAL, HOST, WARNING, Check, NotHere, Problem, Unreadable
from .checks_gpu import LOST, each
from .gpus import Gpu
from .look import Look

FABRIC_MANAGER = "nvidia-fabricmanager.service"
_LOG = "var/log/fabricmanager.log"
_SIMULATED_DAEMON = "run/rackserve-simulated/state"
_SAID_BY_LOG = re.compile(r"Fabric Manager version is\s*:\s*(\d[\d.]+)")
_SAID_BY_SIMULATION = re.compile(r"^fabric_manager\.version=(\S+)$", re.MULTILINE)
_STATES = {0: "not supported", 1: "not started", 2: "in progress", 3: "completed"}
_COMPLETED = 3
_ERRORS = 5


def _inactive(look: Look) -> list[Problem]:
    wanted = (look.expect.get("gpus") or {}).get("nvlinks")

    def judge(gpu: Gpu, _: Look) -> list[Problem]:
        states = (gpu.get("links") or {}).get("states") or []
        down = [str(link) for link, state in enumerate(states) if not state]
        if down:
            return [Problem(gpu.subject, f"NVLink {','.join(down)} of {len(states)} inactive")]
        short = wanted and len(states) != wanted
        return [Problem(gpu.subject, f"{len(states)} NVLinks, the plan says {wanted}")] if short else []

    return each(judge)(look)


def _link_errors(gpu: Gpu, look: Look) -> list[Problem]:
    errors = (gpu.get("links") or {}).get("errors") or {}
    found = []
    for kind, count in errors.items():
        growth = look.counters.grew(f"nvlink-{kind}/{gpu.index}", count)
        grown = growth.total if growth.grown is None else growth.grown
        if grown >= _ERRORS:
            since = "since the driver was loaded" if growth.grown is None else f"within {growth.seconds:.0f} s"
            found.append(f"{grown} {kind} errors {since}")
    return [Problem(gpu.subject, ", ".join(found))] if found else []


def _fabric(gpu: Gpu, look: Look) -> list[Problem]:
    fabric = gpu.get("fabric")
    if not fabric or not fabric["state"]:
        wanted = (look.expect.get("gpus") or {}).get("fabric")
        return [Problem(gpu.subject, "the driver knows of no fabric")] if wanted else []
    if fabric["state"] != _COMPLETED:
        return [Problem(gpu.subject, f"registration {_STATES.get(fabric['state'], fabric['state'])}")]
    return [Problem(gpu.subject, f"registration ended with error {fabric['status']}")] if fabric["status"] else []


def _manager(look: Look) -> list[Problem]:
    if not look.wanted("driver", "fabric_manager"):
        raise NotHere("the plan gives this host no Fabric Manager")
    unit = look.units().get(FABRIC_MANAGER)
    if unit is None:
        raise NotHere(f"the plan does not expect {FABRIC_MANAGER}")
    return [] if unit.active == "active" else [Problem(HOST, f"{unit.active}/{unit.sub} ({unit.load})")]


def _manager_version(look: Look) -> list[Problem]:
    if not look.wanted("driver", "fabric_manager"):
        raise NotHere("the plan gives this host no Fabric Manager")
    log = text(look.root / _LOG)
    said = _SAID_BY_LOG.findall(log) or _SAID_BY_SIMULATION.findall(text(look.root / _SIMULATED_DAEMON))
    module = loaded_module(look.root)
    if not said or not module:
        raise Unreadable(f"neither /{_LOG} nor the loaded module says its version: is it readable, is it running?")
    return [Problem(HOST, f"the running one is {said[-1]}, the driver {module}")] if said[-1] != module else []


def _versions(look: Look) -> list[Problem]:
    """The parts of the driver's own proof, with NVML asked directly."""
    driver = look.expect.get("driver")
    answer, module = look.driver(), loaded_module(look.root)
    if not driver:
        differs = module and answer.version and module != answer.version
        return [Problem(HOST, f"module {module}, NVML {answer.version}")] if differs else _silent(look)
    if not module:
        raise Unreadable("/proc/driver/nvidia/version: no module is loaded, or it cannot be read")
    nvml = Nvml(answer.version, len(answer.gpus), answer.problem)
    if look.tools.run is None:
        same = agrees(module, driver["version"]) and (not answer.version or agrees(answer.version, driver["version"]))
        words = f"module {module}, NVML {answer.version or '?'}; the release says {driver['version']}"
        return _silent(look) if same else [Problem(HOST, words)]
    parts = read_parts(look.root, look.tools.run, driver, nvml)
    found = judge_parts(driver, parts, False) + judge_flavour(look.root, driver)
    try:
        found += judge_processes(look.root, look.tools.run, driver)
    except ConvergeError as problem:
        raise Unreadable(str(problem)) from None
    return [Problem(HOST, f"{item['where']}: {item['why']}", fix=item["fix"]) for item in found] or _silent(look)


def _silent(look: Look) -> list[Problem]:
    """NVML that says what is wrong with the driver itself; what it cannot say is unreadable."""
    problem = look.driver().problem
    if "different versions" in problem or "not loaded" in problem:
        return [Problem(HOST, problem)]
    if problem:
        raise Unreadable(problem)
    return []


CHECKS = (
    Check(
        "driver-versions", CRITICAL, "module, NVML, nvidia-persistenced, Fabric Manager and release: one version",
        "files/releases; the driver role's own proof", "Programs that start now get no GPU; those that run go on.",
        "drain the host (playbooks/upgrade-driver.yml), or reboot it so that the installed module is loaded", _versions,
    ),
    Check(
        "nvlink-inactive", CRITICAL, "any link down, or not the number of the plan", "nccl-ib 5: 18 x 8 on Hopper",
        "Traffic goes over fewer links; with NVSwitch, NCCL may not start at all.",
        "drain the host and reset all its GPUs; if it comes back: nvidia-smi nvlink -s -i {gpu}, reseat or replace",
        _inactive, ("fabric-manager", *LOST),
    ),
    Check(
        "nvlink-errors", WARNING, "5 or more of a kind within an hour; at the first look since the driver was loaded",
        "imbue: 5; DCGM: 1", "Each is a packet sent again; many slow every all-reduce down.",
        "nvidia-smi nvlink -e -i {gpu} names the link; at the next drain reset the GPUs, then replace the card",
        each(_link_errors), ("nvlink-inactive", *LOST),
    ),
    Check(
        "fabric-manager", CRITICAL, "not active where the plan has one", "systemd; NVIDIA Fabric Manager guide",
        "No GPU gets into the NVLink fabric: CUDA does not start (error 802).",
        f"systemctl status {FABRIC_MANAGER}; its log /var/log/fabricmanager.log; then systemctl start it", _manager,
        ("driver-versions",),
    ),
    Check(
        "fabric-manager-version", CRITICAL, "not the loaded driver's", "nccl-ib 5: same version",
        "A Fabric Manager of another version does not register GPUs.",
        f"install the release's nvidia-fabricmanager, then systemctl restart {FABRIC_MANAGER} on the drained host",
        _manager_version, ("driver-versions", "fabric-manager"),
    ),
    Check(
        "fabric-state", CRITICAL, "not Completed and Success on every GPU", "NVSentinel; OCI; nccl-ib 5",
        "CUDA does not start on such a GPU.",
        f"journalctl -u {FABRIC_MANAGER}; drain the host and restart it, then reset the GPU", each(_fabric),
        ("fabric-manager", "fabric-manager-version", "nvlink-inactive", *LOST),
    ),
)  # fmt: skip
