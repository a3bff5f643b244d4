"""What is wrong with a variable of NCCL, NVSHMEM or UCX that a site sets by hand.

Sources: names.py; NCCL 2.30.7 (tuning.cc, paths.cc, net_ib, socket.cc), NVSHMEM 3, measurements on 4 x H100.
"""

from __future__ import annotations

import difflib
import re
from typing import Callable, NamedTuple

from .names import NCCL, NVSHMEM


class Verdict(NamedTuple):
    """A finding without its place."""

    severity: str
    code: str
    why: str
    fix: str


_LEAVE = "Leave it out."
_PROVE = "Leave it out, or prove it by a measurement and name the exception."
_TUNING = "is for tuning, not for production; on 4 x H100 a set of them made small all-reduces twice as slow"

# Names that go round in guides and that no library reads, with what is meant.
DEAD: dict[str, tuple[str, str]] = {
    "NCCL_TIMEOUT": ("is unknown to NCCL", "Use engine_args.distributed_timeout_seconds."),
    "NCCL_NVLINK_ENABLE": ("is unknown to NCCL; NVLink is used where it is", _LEAVE),
    "NVSHMEM_USE_IBGDA": ("is unknown to NVSHMEM", "Use NVSHMEM_IB_ENABLE_IBGDA."),
    "NVSHMEM_IBGDA_SUPPORT": (
        "is an option of NVSHMEM's build, nothing reads it later",
        "Use NVSHMEM_IB_ENABLE_IBGDA.",
    ),
}
# Read, and never right here.
HARMFUL: dict[str, tuple[str, str]] = {
    "NCCL_TOPO_FILE": (
        "replaces what NCCL detects; a wrong file is worse than none",
        "Leave it out; nccl_topology of the hardware profile injects one that was measured.",
    ),
    "NCCL_GRAPH_FILE": ("forces rings of another run; NCCL stops when a GPU differs", _LEAVE),
    "NCCL_CONF_FILE": ("would bring in variables the plan does not see", "Write them in env."),
    "NCCL_P2P_DISABLE": ("sends what NVLink carries through the memory of the host", _LEAVE),
}
TUNING: dict[str, tuple[str, str]] = {
    **{
        name: (_TUNING, _PROVE)
        for name in (
            *("NCCL_MIN_NCHANNELS", "NCCL_MAX_NCHANNELS", "NCCL_MIN_CTAS", "NCCL_MAX_CTAS", "NCCL_BUFFSIZE"),
            *("NCCL_SOCKET_NTHREADS", "NCCL_NSOCKS_PERTHREAD", "NCCL_CROSS_NIC", "NCCL_IB_QPS_PER_CONNECTION"),
            *("NCCL_P2P_LEVEL", "NCCL_NET_GDR_LEVEL", "NCCL_ALGO", "NCCL_PROTO", "NCCL_NTHREADS"),
        )
    },
    "NCCL_IB_DISABLE": ("makes NCCL use TCP", "Leave it out; describe the fabric in network.fabric."),
    "NCCL_NVLS_ENABLE": ("0 turns reductions in NVSwitches off", "Leave it out where Fabric Manager works."),
    "NCCL_PXN_DISABLE": ("keeps GPUs from the adapters of their neighbours", _PROVE),
    "NCCL_DMABUF_ENABLE": ("0 sends what the fabric carries through the memory of the host", _LEAVE),
}
DIAGNOSIS: dict[str, tuple[str, str]] = {
    "NCCL_DEBUG_SUBSYS": ("is for a diagnosis; it writes into the journal without end", "Leave it out afterwards."),
    "NCCL_TOPO_DUMP_FILE": ("is overwritten by every engine", "Use the role nccl, which keeps observed.xml."),
    "NCCL_GRAPH_DUMP_FILE": ("is for a diagnosis; every engine overwrites the file", "Leave it out afterwards."),
}
# Read by PyTorch, under older names.
RENAMED = (
    *("NCCL_BLOCKING_WAIT", "NCCL_ASYNC_ERROR_HANDLING", "NCCL_DESYNC_DEBUG", "NCCL_ENABLE_TIMING"),
    *("NCCL_TRACE_BUFFER_SIZE", "NCCL_AVOID_RECORD_STREAMS", "NCCL_HIGH_PRIORITY"),
)
# Whole numbers and what is beyond them.
RANGES: dict[str, tuple[int, int, str]] = {
    "NCCL_IB_TIMEOUT": (1, 31, "0 and 32 or more wait for ever; the default is 20"),
    "NCCL_IB_RETRY_CNT": (0, 7, "the field has three bits; the default is 7"),
    "NCCL_IB_QPS_PER_CONNECTION": (1, 128, "the default is 1"),
    "NCCL_IB_SL": (0, 15, "a service level has four bits; the default is 0"),
    "NCCL_IB_TC": (0, 255, "a traffic class has eight bits; the default is 0"),
    "NCCL_CROSS_NIC": (0, 2, "the default is 2"),
    "NCCL_SOCKET_NTHREADS": (1, 16, "NCCL takes 16 at most"),
    "NCCL_NSOCKS_PERTHREAD": (1, 64, "times NCCL_SOCKET_NTHREADS it may be 64 at most"),
    "NVSHMEM_IB_SL": (0, 15, "a service level has four bits; the default is 0"),
    "NVSHMEM_IB_TRAFFIC_CLASS": (0, 255, "a traffic class has eight bits"),
}
WORDS: dict[str, tuple[tuple[str, ...], str]] = {
    "NCCL_DEBUG": (("VERSION", "WARN", "INFO", "ABORT", "TRACE"), "anything else is read as none"),
    "NCCL_P2P_LEVEL": (("LOC", "NVL", "PIX", "PXB", "PHB", "SYS"), "an unknown word is ignored without a word"),
    "NCCL_NET_GDR_LEVEL": (("LOC", "PIX", "PXB", "PHB", "SYS"), "an unknown word is ignored without a word"),
    "NVSHMEM_REMOTE_TRANSPORT": (
        ("IBRC", "UCX", "LIBFABRIC", "IBDEVX", "NONE"),
        "IBGDA is loaded beside ibrc, by NVSHMEM_IB_ENABLE_IBGDA=1",
    ),
    "NVSHMEM_IBGDA_NIC_HANDLER": (("AUTO", "GPU", "CPU", "CPU_HOST_MEMORY"), "the default is auto"),
}
_NUMBERED = ("NCCL_P2P_LEVEL", "NCCL_NET_GDR_LEVEL")  # take a number as well, as they did before words
_HIGHEST_LEVEL = 5
_ALGORITHMS = ("tree", "ring", "collnetdirect", "collnetchain", "nvls", "nvlstree", "pat")
_PROTOCOLS = ("ll", "ll128", "simple")
_MOST_ADAPTERS = 32
_ADAPTERS = re.compile(r"\^?=?[A-Za-z0-9_-]+(:\d+){0,3}(,[A-Za-z0-9_-]+(:\d+){0,3})*")
_TABLES = ((HARMFUL, "error", "harmful-env"), (TUNING, "warning", "untuned-nccl"), (DIAGNOSIS, "warning", "debug-env"))


def judge(name: str, value: str, fabric: str) -> Verdict | None:
    """What is wrong with `name`=`value` on an engine, None where nothing is known to be.

    fabric: none, infiniband or roce. An error is dead (nothing reads it) or harmful; neither may reach an engine.
    """
    if name in DEAD:
        return Verdict("error", "dead-env", f"{name} {DEAD[name][0]}.", DEAD[name][1])
    if name in RENAMED:
        why = f"{name} is PyTorch's and is called TORCH_{name} now."
        return Verdict("warning", "renamed-env", why, f"Use TORCH_{name}.")
    return _unknown(name) or _by_value(name, value, fabric) or _by_name(name)


def _unknown(name: str) -> Verdict | None:
    for prefix, known, library in (("NCCL_", NCCL, "NCCL"), ("NVSHMEM_", NVSHMEM, "NVSHMEM")):
        rest = name[len(prefix) :]
        if name.startswith(prefix) and rest not in known:
            near = difflib.get_close_matches(rest, sorted(known), n=1, cutoff=0.75)
            fix = f'Did you mean "{prefix}{near[0]}"?' if near else _LEAVE
            return Verdict("error", "dead-env", f"{name} is unknown to {library}; nothing reads it.", fix)
    return None


def _by_name(name: str) -> Verdict | None:
    for table, severity, code in _TABLES:
        if name in table:
            return Verdict(severity, code, f"{name} {table[name][0]}.", table[name][1])
    return None


def _by_value(name: str, value: str, fabric: str) -> Verdict | None:
    if name in RANGES:
        low, high, why = RANGES[name]
        if not value.isdigit() or not low <= int(value) <= high:
            return _bad(f"{name}={value} is not between {low} and {high}: {why}.")
    if name in WORDS:
        words, why = WORDS[name]
        level = name in _NUMBERED and value.isdigit() and int(value) <= _HIGHEST_LEVEL
        if value.upper() not in words and not level:
            return _bad(f"{name}={value} is none of {', '.join(words)}: {why}.")
    special = _SPECIAL.get(name)
    return special(name, value, fabric) if special else None


def _bad(why: str, fix: str = _LEAVE) -> Verdict:
    return Verdict("error", "bad-env-value", why, fix)


def _net(name: str, value: str, fabric: str) -> Verdict | None:
    if re.search(r"[:,= ]", value):
        why = f"{name} takes a plugin's name (IB, Socket), not adapters: NCCL fails with ncclInvalidUsage."
        return _bad(why, "Leave it out; choose adapters with NCCL_IB_HCA.")
    if value.upper() == "IB" and fabric == "none":
        return _bad(f"{name}={value} stops NCCL on hosts without RDMA.", "Describe network.fabric, or leave it out.")
    return None


def _gid_index(name: str, _value: str, fabric: str) -> Verdict | None:
    return None if fabric == "roce" else _bad(f"{name} is only for RoCE.")


def _adapters(name: str, value: str, _fabric: str) -> Verdict | None:
    if not _ADAPTERS.fullmatch(value):
        return _bad(f"{name}={value} is not [^][=]name[:port],... without spaces.", "Write =mlx5_0:1,mlx5_1:1.")
    if value.count(",") >= _MOST_ADAPTERS:
        return _bad(f"{name} names more than {_MOST_ADAPTERS} adapters; NCCL takes no more.", "Name fewer.")
    if "=" not in value:
        why = f"{name}={value} matches by prefix: mlx5_1 takes mlx5_10 to mlx5_19 as well."
        return Verdict("warning", "prefix-match", why, f"Write {'^=' if value[0] == '^' else '='}{value.lstrip('^')}.")
    return None


def _plain_adapters(name: str, value: str, _fabric: str) -> Verdict | None:
    if value[:1] in ("=", "^"):
        return _bad(f"{name}={value}: only NCCL knows = and ^ before names.", f"Write {value.lstrip('^=')}.")
    return None


def _choices(value: str, known: tuple[str, ...]) -> tuple[set[str], list[str]]:
    """What an all-reduce may still use of `known`, by NCCL's `a,b;allreduce:^c`; and the words it does not know."""
    allowed, unknown = set(known), []
    for part in value.lower().split(";"):
        function, colon, words = part.rpartition(":")
        if colon and function != "allreduce":
            continue
        negated = words.startswith("^")
        given = [word.strip() for word in words.lstrip("^").split(",") if word.strip()]
        unknown += [word for word in given if word not in known]
        allowed = set(known) - set(given) if negated else set(given) & set(known)
    return allowed, unknown


def _algorithm(name: str, value: str, _fabric: str) -> Verdict | None:
    allowed, unknown = _choices(value, _ALGORITHMS)
    if unknown:
        return _bad(f"{name}: {unknown[0]} is none of {', '.join(_ALGORITHMS)}.")
    if not {"nvls", "nvlstree"} & allowed:
        why = f"{name}={value} excludes NVLS, and an operation may be left without any algorithm."
        return Verdict("error", "harmful-env", why, _LEAVE)
    return None


def _protocol(name: str, value: str, _fabric: str) -> Verdict | None:
    allowed, unknown = _choices(value, _PROTOCOLS)
    if unknown:
        return _bad(f"{name}: {unknown[0]} is none of {', '.join(_PROTOCOLS)}.")
    if not {"ll", "ll128"} <= allowed:
        why = f"{name}={value} excludes the protocols of small messages: 4 MiB took 109 us instead of 48 on 4 x H100."
        return Verdict("error", "harmful-env", why, _LEAVE)
    return None


def _verbose(name: str, value: str, _fabric: str) -> Verdict | None:
    if value.upper() in ("INFO", "TRACE"):
        why = f"{name}={value} writes into the journal at every start."
        return Verdict("warning", "debug-env", why, "Leave it out afterwards: engines have WARN.")
    return None


def _nic_pe_mapping(name: str, value: str, _fabric: str) -> Verdict | None:
    if value == "0":
        return None
    why = f"{name}={value}: as DeepEP begins, every rank takes the first adapter (DeepEP issues 336, 466)."
    return Verdict("error", "harmful-env", why, "Leave it out: the nearest adapter is the default.")


def _disable(name: str, value: str, fabric: str) -> Verdict | None:
    if value == "0":
        return Verdict("warning", "untuned-nccl", f"{name}=0 is the default.", _LEAVE)
    if fabric != "none":
        why = f"{name}={value} makes NCCL use TCP, and network.fabric describes {fabric}."
        return Verdict("error", "harmful-env", why, _LEAVE)
    return None


def _off(name: str, value: str, _fabric: str) -> Verdict | None:
    """Harm is in 0 alone."""
    return None if value == "0" else Verdict("warning", "untuned-nccl", f"{name}={value} is the default.", _LEAVE)


_SPECIAL: dict[str, Callable[[str, str, str], Verdict | None]] = {
    "NCCL_NET": _net,
    "NCCL_IB_GID_INDEX": _gid_index,
    "NVSHMEM_IB_GID_INDEX": _gid_index,
    "UCX_IB_GID_INDEX": _gid_index,
    "NCCL_IB_HCA": _adapters,
    "NVSHMEM_HCA_LIST": _plain_adapters,
    "UCX_NET_DEVICES": _plain_adapters,
    "NCCL_ALGO": _algorithm,
    "NCCL_PROTO": _protocol,
    "NCCL_DEBUG": _verbose,
    "NCCL_IB_DISABLE": _disable,
    "NCCL_DMABUF_ENABLE": _off,
    "NVSHMEM_ENABLE_NIC_PE_MAPPING": _nic_pe_mapping,
}
