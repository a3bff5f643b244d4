"""Memory that does not suffice: of the GPU by cause, of the host, of a control group, of what may be locked."""

from __future__ import annotations

from collections.abc import Iterator

from .case import ENGINE, KERNEL, UNIT, Case
from .rule import DEGRADED, DOWN, ENGINE_SYMPTOMS, HEALTH, NOTICE, ROLL, SITE, Hit, Rule, either, said

_GPU_OOM = ("gpu-oom-weights", "gpu-oom-kv", "gpu-oom-taken", "gpu-oom")


def _oom_kill(case: Case) -> Iterator[Hit]:
    for host in case.hosts.values():
        for name, unit in host.units().items():
            if unit.get("result") == "oom-kill":
                yield Hit(host.name, [host.line(f"systemctl show {name}", "Result=oom-kill")], name)


RULES = (
    Rule(
        "gpu-oom-kv", "memory", DOWN, 0.95,
        "the KV cache that is left on the GPU cannot hold one request of max_model_len",
        "Weights and activations leave too little of gpu_memory_utilization for the cache. A lower value leaves less.",
        "lower engine_args.max_model_len to what the line says, or raise gpu_memory_utilization (0.92 is safe)",
        ROLL,
        said(
            r"larger than the available KV cache memory \((?P<left>[-\d.]+) GiB",
            r"Cannot auto-fit max_model_len: not enough GPU memory",
            r"max seq len \(\d+\) is larger than the maximum number of tokens that can be stored in KV cache",
        ),
        (*ENGINE_SYMPTOMS, "gpu-oom"),
    ),
    Rule(
        "gpu-oom-weights", "memory", DOWN, 0.95,
        "the weights leave no memory of the GPU for the KV cache",
        "The model, at this tensor_parallel_size and precision, fills what gpu_memory_utilization allows.",
        "more GPUs an engine (tensor_parallel_size), a quantised checkpoint, or a higher gpu_memory_utilization; "
        "playbooks/show-plan.yml prints the arithmetic",
        "ansible-playbook -i <inventory> playbooks/show-plan.yml",
        either(
            said(r"No available memory for the cache blocks", r"Available KV cache memory: -[\d.]+ GiB"),
            said(r"OutOfMemoryError: CUDA out of memory.*(?:load_weights|create_weights|_create_weights)"),
        ),
        (*ENGINE_SYMPTOMS, "gpu-oom", "gpu-oom-kv"),
    ),
    Rule(
        "gpu-oom-taken", "memory", DOWN, 0.93,
        "memory of a GPU is taken before the engine starts",
        "Another process, or what is left of an earlier engine, holds it; the engine refuses to start beside it.",
        "see who holds it: ssh {host} nvidia-smi; end it if it is yours, then site.yml starts the engine",
        HEALTH,
        said(
            r"Free memory on device(?: cuda:\d+)? \((?P<free>[\d.]+)/[\d.]+ GiB\) on startup is less than "
            r"(?:desired|the engine)",
            r"MiB are allocated that no process owns", r"GPU \d+ \(.*\) is held by process",
            r"\d+ of \d+ MiB are free, the engine demands",
        ),
        (*ENGINE_SYMPTOMS, "gpu-oom"),
    ),
    Rule(
        "gpu-oom", "memory", DOWN, 0.85,
        "an engine ran out of GPU memory while it worked",
        "Activations of a large batch, or a graph, did not fit beside weights and cache.",
        "lower engine_args.max_num_batched_tokens or max_num_seqs; only then gpu_memory_utilization, to leave room "
        "outside of the cache",
        ROLL,
        said(r"OutOfMemoryError: CUDA out of memory", r"CUDA error: out of memory", r"CUBLAS_STATUS_ALLOC_FAILED",
             unless=r"load_weights|create_weights|\bretry|\bfallback"),
        ENGINE_SYMPTOMS,
    ),
    Rule(
        "host-oom", "memory", DOWN, 0.93,
        "the kernel ended {victim} because the host had no memory left",
        "The host's memory ran out; the kernel chose the largest process.",
        "find what grew: journalctl -k -g 'Out of memory' lists all tasks; lower cpu_offload_gb or kv_offloading_size",
        HEALTH,
        said(r"Out of memory: Killed process \d+ \((?P<victim>[^)]+)\)", kinds=(KERNEL,),
             unless="Memory cgroup out of memory"),
        (*ENGINE_SYMPTOMS, "unit-oom-kill", "memory-available", "kernel-oom"),
    ),
    Rule(
        "cgroup-oom", "memory", DOWN, 0.94,
        "the kernel ended {victim} at the memory limit of its unit",
        "MemoryMax= of the unit or of its slice is lower than what the engine needs.",
        "systemctl show -P MemoryMax {unit}; remove the drop-in that sets it (systemctl cat {unit}), or raise it",
        ROLL,
        said(r"Memory cgroup out of memory: Killed process \d+ \((?P<victim>[^)]+)\)", kinds=(KERNEL,)),
        (*ENGINE_SYMPTOMS, "unit-oom-kill", "host-oom"),
    ),
    Rule(
        "unit-oom-kill", "memory", DOWN, 0.88,
        "{unit} was ended for want of memory",
        "systemd saw the OOM killer in the unit's control group.",
        "journalctl -k -g 'out of memory' says whether the host or the unit's own limit was at its end",
        HEALTH,
        either(_oom_kill, said(r"Failed with result 'oom-kill'", r"A process of this unit has been killed by the OOM",
                               kinds=(ENGINE, UNIT))),
        ENGINE_SYMPTOMS,
    ),
    Rule(
        "memlock", "memory", DOWN, 0.9,
        "locked memory is limited: RDMA or pinned buffers cannot be made",
        "LimitMEMLOCK= of the unit, or the login limit, is not infinity.",
        "remove the drop-in that lowers LimitMEMLOCK (systemctl cat {unit}); site.yml writes unlimited",
        ROLL,
        said(
            r"ibv_reg_(?:dmabuf_)?mr\w* failed with error Cannot allocate memory",
            r"ibv_create_cq failed with error Cannot allocate memory",
            r"[Mm]emlock.*(?:too low|limit)", r"RLIMIT_MEMLOCK",
        ),
        (*ENGINE_SYMPTOMS, "nccl-system-error", "engine-limits"),
    ),
    Rule(
        "pinned-memory", "memory", DOWN, 0.85,
        "the host cannot give the engine pinned memory",
        "cudaHostAlloc needs free, unlocked host memory in one piece; offloading asks for much of it.",
        "free -m on {host}; lower cpu_offload_gb, kv_offloading_size or swap_space",
        HEALTH,
        said(r"cudaHostAlloc.*(?:out of memory|failed)", r"[Ff]ailed to allocate pinned memory",
             r"CUDA error: (?:OS call failed|.*cudaErrorHostMemory)", r"pin_memory.*(?:out of memory|failed)"),
        (*ENGINE_SYMPTOMS, "gpu-oom"),
    ),
    Rule(
        "shm-small", "memory", DOWN, 0.9,
        "/dev/shm is too small for the processes of an engine",  # noqa: S108 - words for people
        "NCCL and vLLM's workers pass tensors through it.",
        "df -h /dev/shm; mount -o remount,size=16G /dev/shm, or remove what fills it",
        "ssh {host} 'df -h /dev/shm; ls -laS /dev/shm | head'",
        said(r"Error while creating shared memory segment /dev/shm/nccl", r"/dev/shm.*No space left on device",  # noqa: S108 - words of a log
             r"[Nn]o space left on device.*shared memory", r"shm_open.*No space left on device",
             r"Bus error.*insufficient shared memory"),
        (*ENGINE_SYMPTOMS, "nccl-system-error", "engine-disk-full", "disk-space"),
    ),
    Rule(
        "memory-fragmented", "memory", DEGRADED, 0.75,
        "the kernel's memory is in pieces: large allocations fail",
        "After long uptime with much page cache, drivers find no contiguous pages.",
        "echo 1 > /proc/sys/vm/compact_memory on the drained host; raise vm.min_free_kbytes (host_baseline)",
        "ssh {host} cat /proc/buddyinfo",
        said(r"page allocation failure: order:[3-9]", r"mlx5_core.*(?:alloc|create).*failed.*-12\b",
             r"NVRM: .*(?:failed to allocate|out of) (?:contiguous )?memory", kinds=(KERNEL,)),
    ),
    Rule(
        "numa-policy", "memory", NOTICE, 0.7,
        "an engine could not bind to the memory of its GPU's socket",
        "Memory on the other socket costs bandwidth of every copy.",
        "numactl -H and nvidia-smi topo -m on {host}; the unit needs SystemCallFilter=@resources, as site.yml has it",
        SITE,
        said(r"set_mempolicy.*Operation not permitted", r"numa_\w+.*(?:failed|not permitted)",
             r"Failed to (?:get|set) NUMA", r"libnuma: Warning"),
    ),
)  # fmt: skip
