"""Texts as the real programs print them, by the cause that they name, and texts that are close and name another."""

from __future__ import annotations

from typing import NamedTuple

from rackserve.diagnose.case import ENGINE, GATEWAY, KERNEL, RAY, TOOL, UNIT

CORE = "(EngineCore_DP0 pid=4112) ERROR 11-26 15:01:02 [core.py:1346] "
API = "(APIServer pid=4100) "
NVRM = "2026-11-26T15:01:02+00:00 node2 kernel: NVRM: "
XID = NVRM + "Xid (PCI:0000:18:00): "
KERN = "2026-11-26T15:01:02+00:00 node2 kernel: "
NCCL = "node2:4120:4180 [3] "
LAST = "\n" + API + "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"


class Text(NamedTuple):
    """One text of a kind: `first` is the cause that has to be first, `never` one that must not be found at all."""

    kind: str
    text: str
    first: str = ""
    never: tuple[str, ...] = ()


def _named(kind: str, first: str, *texts: str) -> list[Text]:
    return [Text(kind, text, first) for text in texts]


def _near(kind: str, text: str, *never: str) -> Text:
    return Text(kind, text, "", never)


POSITIVE: list[Text] = [
    *_named(
        ENGINE, "gpu-oom-kv",
        CORE + "ValueError: To serve at least one request with the model's max seq len (40960), (4.38 GiB KV cache is "
        "needed, which is larger than the available KV cache memory (1.0 GiB). Based on the available memory, the "
        "estimated maximum model length is 9344. Try increasing `gpu_memory_utilization` or decreasing `max_model_len` "
        "when initializing the engine." + LAST,
        CORE + "ValueError: The model's max seq len (32768) is larger than the maximum number of tokens that can be "
        "stored in KV cache (9344). Try increasing `gpu_memory_utilization`" + LAST,
    ),
    *_named(
        ENGINE, "gpu-oom-weights",
        CORE + "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when "
        "initializing the engine." + LAST,
        "(Worker_TP0 pid=9) INFO 11-26 [gpu_worker.py:298] Available KV cache memory: -0.3 GiB" + LAST,
    ),
    *_named(
        ENGINE, "gpu-oom-taken",
        CORE + "ValueError: Free memory on device cuda:0 (12.56/79.18 GiB) on startup is less than desired GPU memory "
        "utilization (0.92, 72.85 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes."
        + LAST,
        "vllm-a-0.service: GPU 0 (GPU-5e1d) is held by process 812 (python3) of user joe, 4096 MiB, unit "
        "session-3.scope: end it",
        "vllm-a-0.service: GPU 0 (GPU-5e1d): 4096 MiB are allocated that no process owns (4100 MiB used in all)",
    ),
    *_named(
        ENGINE, "gpu-oom",
        CORE + "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.96 GiB. GPU 0 has a total capacity of "
        "95.58 GiB of which 1.12 GiB is free. Process 4120 has 94.4 GiB memory in use." + LAST,
        CORE + "RuntimeError: CUDA error: out of memory",
        CORE + "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ),
    *_named(
        KERNEL, "host-oom",
        KERN + "Out of memory: Killed process 4112 (VLLM::EngineCor) total-vm:98216384kB, anon-rss:61000000kB, "
        "file-rss:0kB, shmem-rss:0kB, UID:64110 pgtables:1000kB oom_score_adj:0",
    ),
    *_named(
        KERNEL, "cgroup-oom",
        KERN + "Memory cgroup out of memory: Killed process 4112 (VLLM::EngineCor) total-vm:98216384kB, "
        "anon-rss:61000000kB, file-rss:0kB, shmem-rss:0kB, UID:64110",
    ),
    *_named(
        UNIT, "unit-oom-kill",
        "systemd: vllm-a-0.service: A process of this unit has been killed by the OOM killer.\n"
        "systemd: vllm-a-0.service: Failed with result 'oom-kill'.",
    ),
    *_named(
        ENGINE, "memlock",
        NCCL + "misc/ibvwrap.cc:183 NCCL WARN Call to ibv_reg_dmabuf_mr failed with error Cannot allocate memory\n"
        + CORE + "RuntimeError: NCCL error: unhandled system error (run with NCCL_DEBUG=INFO for details)" + LAST,
        "libibverbs: Warning: RLIMIT_MEMLOCK is 65536 bytes.",
    ),
    *_named(
        ENGINE, "pinned-memory",
        CORE + "RuntimeError: cudaHostAlloc of 34359738368 bytes failed: out of memory",
    ),
    *_named(
        ENGINE, "shm-small",
        NCCL + "misc/shmutils.cc:87 NCCL WARN Error while creating shared memory segment /dev/shm/nccl-9HpZxQ "
        "(size 33030528), error: No space left on device (28)\n" + CORE + "RuntimeError: NCCL error: unhandled system "
        "error (run with NCCL_DEBUG=INFO for details)" + LAST,
    ),
    *_named(
        KERNEL, "memory-fragmented",
        KERN + "python3: page allocation failure: order:9, mode:0xcc0(GFP_KERNEL), nodemask=(null)",
    ),
    *_named(ENGINE, "numa-policy", "libnuma: Warning: /sys not mounted or invalid. Assuming one node",
            "WARNING 11-26 [utils.py] set_mempolicy: Operation not permitted"),
    # NCCL
    *_named(
        ENGINE, "nccl-interface",
        NCCL + "bootstrap.cc:45 NCCL WARN Bootstrap : no socket interface found\n"
        + CORE + "RuntimeError: NCCL error: internal error - please report this issue to the NCCL developers\n"
        "ncclInternalError: Internal check failed." + LAST,
        "RuntimeError: Gloo: Unable to find address for: eth7",
        "ncclSocketInit: connecting to address  with family 59936 is neither AF_INET(2) nor AF_INET6(10)",
    ),
    *_named(ENGINE, "nccl-net-name", NCCL + "net.cc:301 NCCL WARN Error: network IB:mlx5_0 not found.\n"
            "ncclInvalidUsage: This usually reflects invalid usage of NCCL library." + LAST,
            NCCL + "plugin/net.cc:337 NCCL WARN Failed to initialize any NET plugin"),
    *_named(ENGINE, "nccl-topo-file", NCCL + "graph/xml.cc:52 NCCL WARN XML Parse : expected >, got '?'",
            NCCL + "graph/xml.cc:380 NCCL WARN Could not open XML topology file /opt/nccl/topo.xml : No such file"),
    *_named(
        ENGINE, "nccl-ib-transport",
        NCCL + "transport/net_ib.cc:1295 NCCL WARN NET/IB : Got completion from peer 10.0.0.12<55921> with status=12 "
        "opcode=1 len=0 vendor err 129 (Send) localGid ::ffff:10.0.0.11 remoteGids::ffff:10.0.0.12\n"
        "ncclRemoteError: A call failed possibly due to a network error or a remote process exiting prematurely.",
    ),
    *_named(ENGINE, "nccl-ib-missing", NCCL + "NCCL INFO NET/IB : No device found."),
    *_named(ENGINE, "nccl-versions", NCCL + "NCCL WARN Mismatched NCCL version detected : rank 0 version 22707 rank 8 "
            "version 22803"),
    *_named(
        ENGINE, "nccl-port-closed",
        NCCL + "misc/socket.cc:484 NCCL WARN socketStartConnect: Connect to 10.0.0.12<45011> failed : No route to host"
        + LAST,
        "[c10d] The client socket has timed out after 600000ms while trying to connect to (10.0.0.11, 29500).",
    ),
    *_named(ENGINE, "nccl-remote-error", NCCL + "misc/socket.cc:71 NCCL WARN socketProgress: Connection closed by "
        "remote "
            "peer 10.1.10.3<36138>" + LAST),
    *_named(
        ENGINE, "nccl-timeout",
        "[rank0]:[E321 02:07:08.408271257 ProcessGroupNCCL.cpp:607] [Rank 0] Watchdog caught collective operation "
        "timeout: WorkNCCL(SeqNum=1580, OpType=ALLREDUCE, NumelIn=466119168, NumelOut=466119168, Timeout(ms)=600000) "
        "ran "
        "for 600060 milliseconds before timing out." + LAST,
    ),
    *_named(
        ENGINE, "nccl-system-error",
        "torch.distributed.DistBackendError: NCCL error in: /pytorch/torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp:"
        "3690, unhandled system error (run with NCCL_DEBUG=INFO for details), NCCL version 2.27.7\nncclSystemError: "
        "System call (e.g. socket, malloc) or external library call failed or device error." + LAST,
    ),
    *_named(ENGINE, "nccl-internal-error", CORE + "RuntimeError: NCCL error: internal error\nncclInternalError: "
        "Internal "
            "check failed." + LAST),
    # Engine
    *_named(
        ENGINE, "engine-bad-argument",
        "usage: vllm serve [model_tag] [options]\nvllm serve: error: unrecognized arguments: --use-v2-block-manager",
        "cli.py: error: argument --dtype: invalid choice: 'float8_e4m3fn' (choose from auto, half, float16)",
        "api_server.py: error: ambiguous option: --device could match --device-ids, --device-memory-utilization",
    ),
    *_named(
        ENGINE, "engine-bad-environment",
        "ValueError: Unknown vLLM environment variable detected: VLLM_GPU_MEMORY_UTILIZATION",
    ),
    *_named(
        ENGINE, "engine-model-path",
        "huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name' or 'namespace/repo_name': "
        "'/srv/models/DeepSeek-V3'. Use `repo_type` argument if needed.",
        "ValueError: Invalid repository ID or local directory specified: '/srv/models/x'.",
        "RuntimeError: Cannot find any model weights with `/srv/models/x`" + LAST,
    ),
    *_named(
        ENGINE, "engine-config-invalid",
        "ValueError: Model architectures ['FooForCausalLM'] are not supported for now. Supported architectures: ...",
        "OSError: It looks like the config file at '/srv/models/x/config.json' is not a valid JSON file.",
        CORE + "KeyError: 'model.layers.3.mlp.gate.e_score_correction_bias'" + LAST,
        "ValueError: Quantization method specified in the model config (fp8) does not match the quantization method "
        "specified in the `quantization` argument (awq).",
    ),
    *_named(
        ENGINE, "engine-parallel-size",
        "ValueError: Total number of attention heads (40) must be divisible by tensor parallel size (16).",
        "ValueError: World size (16) is larger than the number of available GPUs (8) in this node.",
    ),
    *_named(ENGINE, "engine-max-len", "ValueError: User-specified max_model_len (262144) is greater than the derived "
            "max_model_len (max_position_embeddings=163840 or model_max_length=None in model's config.json)."),
    *_named(ENGINE, "engine-allocator", "ValueError: KV connector NixlConnector is incompatible with "
            "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True unless enable_cumem_allocator is also enabled."),
    *_named(ENGINE, "engine-kernel-build", "RuntimeError: Ninja is required to load C++ extensions" + LAST,
            "RuntimeError: Error building extension 'fused_moe_90'" + LAST),
    *_named(
        ENGINE, "engine-import",
        "ModuleNotFoundError: No module named 'deep_ep'",
        "ImportError: libnuma.so.1: cannot open shared object file: No such file or directory",
    ),
    *_named(ENGINE, "engine-group-wait", API + "INFO 11-26 [utils.py] Waiting for 1 local, 3 remote core engine "
        "proc(s) to"
            " start.", "INFO 11-26 [shm_broadcast.py:466] No available shared memory broadcast block found in 60 "
            "seconds."),
    *_named(ENGINE, "engine-ready-timeout", "TimeoutError: Timed out waiting for engine core processes to start. "
        "This is "
            "often caused by slow weight loading for large models."),
    *_named(
        ENGINE, "engine-core-died",
        CORE + "EngineCore encountered a fatal error.\n" + API + "vllm.v1.engine.exceptions.EngineDeadError: "
            "EngineCore "
        "encountered an issue. See stack trace (above) for the root cause.",
    ),
    *_named(UNIT, "engine-watch-ended", "python3: vllm-a-0.service hangs: its scheduler made no step for 61 s, a "
        "request "
            "for one token is unanswered for 60 s; ended 3 processes, systemd starts it again (1 of 3 within an hour)"),
    *_named(ENGINE, "file-descriptors", "OSError: [Errno 24] Too many open files: '/srv/models/x/model-1.safetensors'"
            + LAST),
    # Weights and downloads
    *_named(
        ENGINE, "weights-changed",
        "start_check: /srv/models/x is not what was proven: model.safetensors was written to and has other content: "
        "playbooks/site.yml proves the model, copies what is corrupt and starts the engine",
        CORE + "safetensors_rust.SafetensorError: Error while deserializing header: invalid header deserialization" +
            LAST,
    ),
    *_named(
        ENGINE, "download-401",
        "requests.exceptions.HTTPError: 401 Client Error: Unauthorized for url: "
        "https://huggingface.co/x/resolve/main/a",
    ),
    *_named(
        ENGINE, "download-403",
        "huggingface_hub.errors.GatedRepoError: 403 Client Error. Cannot access gated repo for url "
        "https://huggingface.co/"
        "meta-llama/x. Access to model meta-llama/x is restricted and you are not in the authorized list.",
    ),
    *_named(
        ENGINE, "download-404",
        "huggingface_hub.errors.RevisionNotFoundError: 404 Client Error. Revision Not Found for url: "
        "https://x/resolve/a",
    ),
    *_named(
        ENGINE, "download-timeout",
        "requests.exceptions.ConnectTimeout: HTTPSConnectionPool(host='huggingface.co', port=443): Max retries "
        "exceeded "
        "with url: /x/resolve/main/config.json",
        "huggingface_hub.errors.OfflineModeIsEnabled: Cannot reach https://huggingface.co/api/models/x: offline mode "
        "is "
        "enabled. To disable it, please unset the `HF_HUB_OFFLINE` environment variable.",
    ),
    *_named(UNIT, "disk-quota", "rsync: [receiver] write failed on \"/srv/models/x\": Disk quota exceeded (122)"),
    # Driver
    *_named(
        TOOL, "driver-library-mismatch",
        "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.65",
    ),
    Text(KERNEL, NVRM + "API mismatch: the client has the version 580.65.06, but\n" + NVRM + "this kernel module has "
        "the "
         "version 570.172.08.  Please", "driver-library-mismatch"),
    *_named(
        TOOL, "driver-not-loaded",
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest "
        "NVIDIA "
        "driver is installed and running.",
    ),
    *_named(
        ENGINE, "fabric-manager-missing",
        CORE + "RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 802: system not yet initialized" + LAST,
    ),
    *_named(
        UNIT, "fabric-manager-version-log",
        "fabric manager NVIDIA GPU driver interface version 570.172.08 don't match with driver version 580.65.06. "
        "Please "
        "update with matching NVIDIA driver package.",
    ),
    *_named(
        ENGINE, "cuda-driver-old",
        "RuntimeError: The NVIDIA driver on your system is too old (found version 12040). Please update your GPU "
        "driver",
    ),
    *_named(
        ENGINE, "cuda-architecture",
        CORE + "RuntimeError: CUDA error: no kernel image is available for execution on the device" + LAST,
    ),
    *_named(ENGINE, "gpu-no-device", "RuntimeError: No CUDA GPUs are available" + LAST),
    *_named(KERNEL, "gpu-init-failed", NVRM + "GPU 0000:18:00.0: RmInitAdapter failed! (0x62:0x65:1860)"),
    *_named(
        ENGINE, "cuda-init",
        "UserWarning: CUDA initialization: CUDA unknown error - this may be due to an incorrectly set up environment"
        + LAST,
    ),
    # Units
    *_named(UNIT, "unit-killed", "systemd: vllm-a-0.service: Main process exited, code=killed, status=9/KILL"),
    *_named(UNIT, "unit-bad-file", "systemd: Unit vllm-a-0.service has a bad unit file setting."),
    *_named(
        UNIT, "unit-not-executable",
        "systemd: vllm-a-0.service: Failed at step EXEC spawning /opt/rackserve/releases/x/bin/python3: No such file "
        "or "
        "directory\nsystemd: vllm-a-0.service: Main process exited, code=exited, status=203/EXEC",
    ),
    *_named(UNIT, "unit-assert", "systemd: Assertion failed for vLLM a-0: a (lab)."),
    *_named(UNIT, "unit-start-limit", "systemd: vllm-a-0.service: Start request repeated too quickly."),
    # Host
    *_named(
        ENGINE, "port-in-use",
        API + "OSError: [Errno 98] error while attempting to bind on address ('10.77.0.11', 8000): address already "
            "in use",
        "[ALERT] (1) : Starting frontend fe_api: cannot bind socket (Address already in use) [10.77.0.10:8443]",
    ),
    *_named(ENGINE, "permission-denied",
        "PermissionError: [Errno 13] Permission denied: '/srv/models/x/config.json'" + LAST),
    *_named(ENGINE, "engine-disk-full", "OSError: [Errno 28] No space left on device: '/var/cache/rackserve/a'" + LAST),
    *_named(ENGINE, "engine-read-only", "OSError: [Errno 30] Read-only file system: '/var/cache/rackserve/a'" + LAST),
    *_named(ENGINE, "clock-skew", "ssl.SSLCertVerificationError: certificate verify failed: certificate is not yet "
        "valid"),
    *_named(ENGINE, "name-unresolved", "socket.gaierror: [Errno -3] Temporary failure in name resolution" + LAST),
    *_named(ENGINE, "address-moved", "OSError: [Errno 99] Cannot assign requested address"),
    *_named(ENGINE, "process-limit", "RuntimeError: can't start new thread" + LAST),
    *_named(
        KERNEL, "denied-by-lsm",
        KERN +
            'audit: type=1400 apparmor="DENIED" operation="open" profile="/usr/sbin/haproxy" name="/etc/rackserve/x"',
    ),
    # Ray
    *_named(RAY, "ray-head-gone", "[2026-11-26 15:01:02,123 E 812 812] gcs_rpc_client.h:151: Failed to connect to "
        "GCS at "
            "address 10.0.0.11:6379 within 5 seconds."),
    *_named(RAY, "ray-token", "ray.exceptions.AuthenticationError: Ray cluster requires authentication, but the "
        "token is "
            "missing"),
    *_named(RAY, "ray-versions", "RuntimeError: Version mismatch: The cluster was started with:\n    Ray: 2.60.0\n    "
            "Python: 3.11.9\nThis process on node 10.0.0.12 was started with:\n    Ray: 2.59.0"),
    *_named(ENGINE, "ray-nodes-missing", "ValueError: The number of required GPUs exceeds the total number of "
        "available "
            "GPUs in the placement group."),
    *_named(RAY, "ray-object-store", "WARNING services.py:2148 -- WARNING: The object store is using /tmp instead of "
            "/dev/shm because /dev/shm has only 67108864 bytes available."),
    *_named(RAY, "ray-port-range", "ValueError: Ray component gcs_server is trying to use a port number 16379 that "
        "is used "
            "by other components."),
    # Gateway
    *_named(GATEWAY, "tls-expired", "curl: (60) SSL certificate problem: certificate has expired"),
    *_named(GATEWAY, "tls-unreadable", "[ALERT] (812) : config : parsing [/etc/rackserve/gateway/haproxy.cfg:44] : "
        "'bind "
            "10.77.0.10:8443' in section 'frontend' : unable to load certificate from file "
            "'/etc/rackserve/gateway/tls.pem'"
            ": no start line."),
    *_named(GATEWAY, "gateway-config", "[ALERT] (812) : config : parsing [/etc/rackserve/gateway/haproxy.cfg:9] : "
        "unknown "
            "keyword 'foo' in 'global' section\n[ALERT] (812) : config : Fatal errors found in configuration."),
    *_named(GATEWAY, "gateway-no-server", "backend be_tiny-deepseek has no server available!"),
    *_named(GATEWAY, "gateway-queue", '{"time":"x","id":"y","key":"client","status":503,"end":"sQ","retries":"0"}'),
    *_named(GATEWAY, "gateway-key", '{"time":"x","id":"y","key":"","request":"POST /v1/completions","status":401}'),
    *_named(TOOL, "host-key-changed", "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @"),
    # Kernel lines that the health report's checks know
    *_named(KERNEL, "kernel-sxid", KERN + "nvidia-nvswitch0: SXid (PCI:0000:85:00.0): 12028, Non-fatal, Link 32 "
        "egress"),
    *_named(KERNEL, "kernel-mce", KERN + "mce: [Hardware Error]: CPU 0: Machine Check: 0 Bank 7: 8c00004000010091"),
    *_named(KERNEL, "kernel-aer", KERN + "pcieport 0000:17:01.0: AER: Uncorrected (Fatal) error received: "
        "0000:18:00.0"),
    *_named(KERNEL, "kernel-hung-task", KERN + "INFO: task kworker/0:1:4242 blocked for more than 120 seconds."),
    *_named(KERNEL, "kernel-mlx5", KERN + "mlx5_core 0000:29:00.0: mlx5_pcie_event:301:(pid 0): Detected "
        "insufficient power"
            " on the PCIe slot (27W)."),
    *_named(KERNEL, "kernel-storage", KERN + "I/O error, dev nvme0n1, sector 2048 op 0x1:(WRITE) flags 0x800"),
    *_named(KERNEL, "kernel-oom", KERN + "python3 invoked oom-killer\n" + KERN + "oom-kill:constraint=CONSTRAINT_NONE"),
    Text(KERNEL, XID + "999, pid='<unknown>', name=<unknown>, something new", "xid-other"),
]  # fmt: skip

NEAR: list[Text] = [
    _near(ENGINE, "INFO 11-26 [kv_cache_utils.py:864] GPU KV cache size: 10,944 tokens", "gpu-oom-kv",
        "gpu-oom-weights"),
    _near(ENGINE, "INFO 11-26 [gpu_worker.py] Available KV cache memory: 26.41 GiB", "gpu-oom-weights", "gpu-oom-kv"),
    _near(ENGINE, "INFO Free memory on device cuda:0 (78.1/79.18 GiB) on startup. Desired GPU memory utilization is "
        "(0.92)",
          "gpu-oom-taken"),
    _near(ENGINE, "WARNING 11-26 allocation met CUDA out of memory while loading, will fallback to a smaller batch, "
          "OutOfMemoryError: CUDA out of memory, retry", "gpu-oom"),
    _near(KERNEL, KERN + "Memory cgroup out of memory: Killed process 9 (stress) total-vm:1kB", "host-oom"),
    _near(KERNEL, KERN + "Out of memory: Killed process 9 (stress) total-vm:1kB", "cgroup-oom"),
    _near(UNIT, "systemd: vllm-a-0.service: Failed with result 'exit-code'.", "unit-oom-kill", "unit-start-limit"),
    _near(ENGINE, "NCCL WARN Call to ibv_modify_qp failed with error Invalid argument", "memlock", "nccl-ib-transport"),
    _near(ENGINE, "INFO pin_memory=True, using pinned memory of 4 GiB", "pinned-memory"),
    _near(ENGINE, "OSError: [Errno 28] No space left on device: '/srv/models/x'", "shm-small"),
    _near(ENGINE, "Error while creating shared memory segment /dev/shm/nccl-1, error: No space left on device",
          "engine-disk-full"),
    _near(KERNEL, KERN + "python3: page allocation failure: order:0, mode:0x1", "memory-fragmented"),
    _near(ENGINE, "INFO 11-26 NUMA node of GPU 0 is 1", "numa-policy"),
    _near(ENGINE, NCCL + "NCCL INFO Bootstrap : Using bond0:10.0.0.11<0>", "nccl-interface"),
    _near(ENGINE, NCCL + "NCCL INFO NCCL_SOCKET_IFNAME set by environment to bond0", "nccl-interface"),
    _near(ENGINE, NCCL + "NCCL INFO NET/Plugin : No plugin found (libnccl-net.so), using internal implementation",
          "nccl-net-name", "nccl-internal-error"),
    _near(ENGINE, NCCL + "NCCL INFO NCCL_TOPO_FILE is not set", "nccl-topo-file"),
    _near(ENGINE, NCCL + "NCCL INFO NET/IB : Using [0]mlx5_0:1/IB [RO]; OOB bond0:10.0.0.11<0>", "nccl-ib-missing",
          "nccl-ib-transport"),
    _near(ENGINE, NCCL + "NCCL INFO NCCL_IB_DISABLE set by environment to 1. NET/IB : No device found.",
        "nccl-ib-missing"),
    _near(ENGINE, "NCCL version 2.27.7+cuda13.0", "nccl-versions"),
    _near(ENGINE, "[c10d] The server socket has started to listen on [::]:29500.", "nccl-port-closed"),
    _near(ENGINE, "INFO: 10.0.0.9:4711 - Connection closed by client", "nccl-remote-error"),
    _near(ENGINE, "ProcessGroupNCCL timeout is set to 600000 ms", "nccl-timeout", "nccl-system-error"),
    _near(ENGINE, "non-default args: {'model': '/srv/models/x', 'max_model_len': 2048}", "engine-bad-argument"),
    _near(ENGINE, "WARNING 11-26 [envs.py] Unknown vLLM environment variable detected: VLLM_FOO",
        "engine-bad-environment"),
    _near(ENGINE, "INFO loading weights from /srv/models/x, config.json is fine", "engine-model-path",
          "engine-config-invalid"),
    _near(ENGINE, "INFO Resolved architecture: DeepseekV3ForCausalLM", "engine-config-invalid"),
    _near(ENGINE, "INFO tensor parallel size is 8, 128 attention heads", "engine-parallel-size"),
    _near(ENGINE, "INFO Using max model len 32768", "engine-max-len"),
    _near(ENGINE, "INFO PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True", "engine-allocator"),
    _near(ENGINE, "INFO building extension took 12 s with ninja", "engine-kernel-build"),
    _near(ENGINE, "WARNING 11-26 ModuleNotFoundError: No module named 'flashinfer', using the native sampler",
          "engine-import"),
    _near(ENGINE, "INFO All 4 remote core engine procs are ready", "engine-group-wait", "engine-ready-timeout"),
    _near(ENGINE, "INFO Engine core is ready after 40 s", "engine-core-died", "engine-ready-timeout"),
    _near(UNIT, "python3: watches vllm-a-0.service: 60 s", "engine-watch-ended"),
    _near(UNIT, "ulimit -n is 1048576 open files", "file-descriptors"),
    _near(ENGINE, "start_check: /srv/models/x is what was proven", "weights-changed"),
    _near(ENGINE, "INFO:     10.0.0.9:4711 - \"POST /v1/completions HTTP/1.1\" 401 Unauthorized", "download-401"),
    _near(ENGINE, "INFO:     10.0.0.9:4711 - \"GET /nothing HTTP/1.1\" 404 Not Found", "download-404"),
    _near(ENGINE, "INFO:     10.0.0.9:4711 - \"GET /x HTTP/1.1\" 403 Forbidden", "download-403"),
    _near(ENGINE, "INFO HF_HUB_OFFLINE is True, replace model_id with its local path", "download-timeout"),
    _near(UNIT, "quota of user vllm: 12 of 100 GB used", "disk-quota"),
    _near(KERNEL, NVRM + "loading NVIDIA UNIX Open Kernel Module for x86_64  580.65.06", "driver-library-mismatch",
          "driver-not-loaded", "gpu-init-failed"),
    _near(UNIT, "nvidia-fabricmanager: Successfully configured all the available NVSwitches to route GPU NVLink "
        "traffic",
          "fabric-manager-version-log", "fabric-manager-missing"),
    _near(ENGINE, "INFO: 802 requests were answered", "fabric-manager-missing"),
    _near(ENGINE, "INFO CUDA driver version 13000, runtime version 13000", "cuda-driver-old", "cuda-init"),
    _near(ENGINE, "INFO compute capability sm_90 is supported", "cuda-architecture"),
    _near(ENGINE, "INFO 8 CUDA GPUs are available", "gpu-no-device"),
    _near(UNIT, "systemd: vllm-a-0.service: Main process exited, code=killed, status=15/TERM", "unit-killed"),
    _near(UNIT, "systemd: Started vllm-a-0.service - vLLM a-0.", "unit-bad-file", "unit-not-executable", "unit-assert",
          "unit-start-limit"),
    _near(ENGINE, "INFO: Uvicorn running on http://10.77.0.11:8000", "port-in-use", "address-moved"),
    _near(UNIT, "sshd: Permission denied (publickey) for joe from 10.0.0.9", "permission-denied"),
    _near(ENGINE, "INFO 12 GiB space left on device", "engine-disk-full"),
    _near(ENGINE, "INFO mounted read-only: false", "engine-read-only"),
    _near(ENGINE, "INFO the certificate is valid", "clock-skew", "tls-expired"),
    _near(ENGINE, "INFO resolved huggingface.co", "name-unresolved"),
    _near(ENGINE, "INFO started 12 threads", "process-limit"),
    _near(KERNEL, KERN + 'audit: apparmor="ALLOWED" operation="open" profile="/usr/sbin/haproxy"', "denied-by-lsm"),
    _near(KERNEL, KERN + 'audit: apparmor="DENIED" operation="open" profile="/usr/bin/man"', "denied-by-lsm"),
    _near(RAY, "INFO Connected to GCS at 10.0.0.11:6379", "ray-head-gone", "ray-token"),
    _near(ENGINE, "openai.AuthenticationError: Error code: 401", "ray-token"),
    _near(RAY, "Ray runtime started. Ray: 2.60.0", "ray-versions", "ray-nodes-missing", "ray-port-range"),
    _near(RAY, "INFO object store memory: 8 GiB in /dev/shm", "ray-object-store"),
    _near(GATEWAY, "[NOTICE] (812) : New worker (814) forked\n[NOTICE] (812) : Loading success.", "gateway-config",
          "tls-unreadable", "gateway-no-server"),
    _near(GATEWAY, "Server be_a/r0 is UP, reason: Layer7 check passed. 4 active and 0 backup servers online.",
          "gateway-no-server"),
    _near(GATEWAY, '{"time":"x","status":200,"end":"--","retries":"0"}', "gateway-queue", "gateway-key"),
    _near(TOOL, "Warning: Permanently added 'node2' to the list of known hosts.", "host-key-changed"),
    _near(KERNEL, KERN + "nvidia-nvswitch0: open (major=239)", "kernel-sxid"),
    _near(KERNEL, KERN + "mce: CPU supports 32 MCE banks", "kernel-mce"),
    _near(KERNEL, KERN + "pcieport 0000:17:01.0: AER: Corrected error received: 0000:18:00.0", "kernel-aer"),
    _near(KERNEL, KERN + "task kworker/0:1 finished", "kernel-hung-task"),
    _near(KERNEL, KERN + "mlx5_core 0000:29:00.0: 252.048 Gb/s available PCIe bandwidth", "kernel-mlx5"),
    _near(KERNEL, KERN + "nvme nvme0: 16/0/0 default/read/poll queues", "kernel-storage"),
    _near(KERNEL, KERN + "oom_score_adj was set", "kernel-oom", "host-oom", "cgroup-oom"),
    _near(KERNEL, XID + "79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.", "xid-other"),
    # A number of an Xid in another place is none.
    _near(KERNEL, NVRM + "GPU 0000:79:00.0 is fine; 48 channels", *(f"xid-{n}" for n in (31, 43, 45, 48, 63, 64, 74,
        79))),
]  # fmt: skip

# One line an Xid, as the driver prints it; the catalogue of faults has the text of most.
XIDS: dict[int, str] = {
    8: "pid=4242, name=python3, Channel 00000010",
    13: "pid=4242, name=python3, Graphics SM Warp Exception on (GPC 0, TPC 0, SM 0): Illegal Address",
    31: "pid=4242, name=python3, Ch 00000008, intr 00000000. MMU Fault: ENGINE GRAPHICS GPC0 GPCCLIENT_T1_0 faulted",
    32: "pid=4242, name=python3, Channel ID 00000008 intr0 00040000",
    43: "pid=4242, name=python3, Ch 00000010",
    45: "pid=4242, name=python3, Ch 00000010",
    46: "pid='<unknown>', name=<unknown>, GPU stopped processing",
    48: "pid='<unknown>', name=<unknown>, An uncorrectable double bit error (DBE) has been detected on GPU",
    62: "pid='<unknown>', name=<unknown>, 2a1d(31c8) 00000000 00000000",
    63: "pid='<unknown>', name=<unknown>, Row Remapper: New row (0x0000000000abc123) marked for remapping",
    64: "pid='<unknown>', name=<unknown>, Row Remapper: Error writing the remapping into the InfoROM",
    69: "pid=4242, name=python3, Class Error: ChId 0008, Class 0000cbc0",
    74: "pid='<unknown>', name=<unknown>, NVLink: fatal error detected on link 0(0x10000, 0x0, 0x0)",
    79: "pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
    92: "pid='<unknown>', name=<unknown>, High single-bit ECC error rate",
    94: "pid=4242, name=python3, Contained: SM (0x1). RST: No, D-RST: No",
    95: "pid='<unknown>', name=<unknown>, Uncontained: LTC TAG (0x2,0x0). RST: Yes, D-RST: No",
    109: "pid=4242, name=python3, Ch 00000008, errorString CTX SWITCH TIMEOUT, Info 0x5c003",
    110: "pid='<unknown>', name=<unknown>, Security fault error",
    119: "pid=4242, name=python3, Timeout after 6s of waiting for RPC response from GPU0 GSP! Expected function 76",
    120: "pid='<unknown>', name=<unknown>, GSP task exception: 0x0 @ pc:0x1000000",
    121: "pid='<unknown>', name=<unknown>, C2C Link corrected error",
    136: "pid='<unknown>', name=<unknown>, Link training failed",
    137: "pid=4242, name=python3, NVLink: FLA fault",
    140: "pid='<unknown>', name=<unknown>, An unrecoverable ECC error has been detected on the GPU",
    143: "pid='<unknown>', name=<unknown>, GPU initialization failed",
    154: "pid='<unknown>', name=<unknown>, GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)",
}
POSITIVE += [Text(KERNEL, f"{XID}{number}, {text}", f"xid-{number}") for number, text in XIDS.items()]
