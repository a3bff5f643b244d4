"""Names that circulate in guides for vLLM and NCCL and do nothing, or harm; each with what to do instead.

Sources: the argument parsers of vLLM 0.32 and 0.33, its `envs.py`, and the string table of libnccl.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ..nccl import variables as nccl


class Advice(NamedTuple):
    """A finding without its place."""

    severity: str
    code: str
    why: str
    fix: str


_COMMUNICATION = ("NCCL_", "NVSHMEM_", "UCX_")
_SECRET_NAME = re.compile(r"(^|_)(API_KEY|TOKEN|PASSWORD|SECRET)(_|$)")
_GONE = "is not an option of this vLLM: the engine would exit with code 2"

_SECRET_ARGS = ("api_key", "hf_token", "ssl_keyfile_password")

REFUSED_ARGS: dict[str, tuple[str, str]] = {
    "use_v2_block_manager": (_GONE, "Leave it out: the V1 engine has only one."),
    "max_chunked_prefill_tokens": ("never was an option of vLLM", "Use max_num_batched_tokens."),
    "swap_space": (_GONE, "Use kv_offloading_size."),
    "worker_use_ray": (_GONE, "Leave it out; executor decides about Ray."),
    "engine_use_ray": (_GONE, "Leave it out; executor decides about Ray."),
    "enable_async_output_proc": ("never was an option of vLLM", "Leave it out: async scheduling is on by default."),
    "disable_async_output_proc": (_GONE, "Leave it out."),
    "use_async_output_proc": ("never was an option of vLLM", "Leave it out."),
    "device": (_GONE, "Leave it out: the release decides the device."),
    "disable_log_requests": ("is refused by vLLM 0.32", "Leave it out: request logging is off by default."),
    "disable_log_stats": ("removes every vllm:* metric that alerts and diagnosis need", "Leave it out."),
    "expert_cache_size": ("never existed: vLLM keeps all local experts in GPU memory", "Leave it out."),
    "expert_cpu_offload": ("never existed: vLLM keeps all local experts in GPU memory", "Leave it out."),
    "expert_prefetch_size": ("never existed: vLLM keeps all local experts in GPU memory", "Leave it out."),
    "max_paddings": (_GONE, "Leave it out."),
    "kv_cache_free_gpu_mem_fraction": ("is a TensorRT-LLM name", "Use gpu_memory_utilization."),
    "enable_mla_optimization": ("never existed: MLA is used where the model has it", "Leave it out."),
    "config": ("would bring in arguments the plan does not see", "Write them in engine_args."),
    "download_dir": ("would let an engine fetch weights by itself", "Give model.path and model.source."),
    "enable_sleep_mode": ("needs the development endpoints, which are open to everybody", "Leave it out."),
    "ssl_keyfile": ("is the gateway's task", "Use gateway.tls."),
}
MANAGED_ARGS: dict[str, str] = {
    "model": "model.path",
    "served_model_name": "served_model_name",
    "host": "ansible_host in the inventory",
    "port": "port_base",
    "uds": "port_base",
    "tensor_parallel_size": "tensor_parallel_size",
    "revision": "model.revision",
    "pipeline_parallel_size": "pipeline_parallel_size",
    "data_parallel_size": "data_parallel_size",
    "data_parallel_size_local": "data_parallel_size and hosts_per_replica",
    "data_parallel_backend": "layout",
    "data_parallel_address": "layout",
    "data_parallel_rpc_port": "layout",
    "data_parallel_rank": "layout",
    "data_parallel_start_rank": "layout",
    "data_parallel_hybrid_lb": "data_parallel_lb",
    "data_parallel_external_lb": "data_parallel_lb",
    "data_parallel_multi_port_external_lb": "data_parallel_lb",
    "data_parallel_supervisor_port": "data_parallel_lb",
    "enable_expert_parallel": "expert_parallel",
    "headless": "layout",
    "nnodes": "layout",
    "node_rank": "layout",
    "master_addr": "layout",
    "master_port": "layout",
    "distributed_executor_backend": "executor",
    "device_ids": "tensor_parallel_size (GPUs are handed out by the plan)",
    "fail_on_environ_validation": "nothing: it is always on",
    "enable_server_load_tracking": "nothing: it is always on",
    "disable_access_log_for_endpoints": "nothing: it is always set",
}
ADVISED_ARGS: dict[str, tuple[str, str, str]] = {
    "max_parallel_loading_workers": ("ignored-argument", "is accepted and ignored by vLLM", "Leave it out."),
    "disable_custom_all_reduce": (
        "slow-argument",
        "forces NCCL inside a host; a workaround, not an optimisation",
        "Leave it out.",
    ),
    "cpu_offload_gb": ("slow-argument", "reads weights over PCIe for every token", "Leave it out in production."),
    "block_size": ("pointless-argument", "is the attention backend's choice (FlashMLA knows only 64)", "Leave it out."),
}
BAD_ARG_VALUES: dict[tuple[str, str], tuple[str, str, str]] = {
    ("dtype", "float8_e4m3fn"): (
        "error",
        "is not a choice; FP8 comes from the checkpoint",
        "Leave dtype out (auto).",
    ),
    ("quantization", "None"): ("warning", "does not dequantise anything", "Leave it out."),
    ("quantization", "none"): ("warning", "does not dequantise anything", "Leave it out."),
    ("all2all_backend", "pplx"): ("warning", "silently becomes allgather_reducescatter", "Leave it out."),
    ("all2all_backend", "naive"): ("warning", "silently becomes allgather_reducescatter", "Leave it out."),
    ("kv_cache_dtype", "float16"): ("warning", "does not match bfloat16 models", "Leave it out (auto)."),
}

_VLLM_GONE = "is no variable of this vLLM, and the engine refuses to start with an unknown VLLM_ name"

REFUSED_ENV: dict[str, tuple[str, str]] = {
    "VLLM_GPU_MEMORY_UTILIZATION": (_VLLM_GONE, "Use engine_args.gpu_memory_utilization."),
    "VLLM_SWAP_SPACE": (_VLLM_GONE, "Use engine_args.kv_offloading_size."),
    "VLLM_ALL2ALL_BACKEND": (_VLLM_GONE, "Use engine_args.all2all_backend."),
    "VLLM_ATTENTION_BACKEND": (_VLLM_GONE, "Use engine_args.attention_backend."),
    "VLLM_USE_V1": (_VLLM_GONE, "Leave it out: V1 is the only engine."),
    "VLLM_RPC_TIMEOUT": (_VLLM_GONE, "Leave it out."),
    "VLLM_MOE_DP_CHUNK_SIZE": (_VLLM_GONE, "Leave it out."),
    "VLLM_NIXL_ABORT_REQUEST_TIMEOUT": (_VLLM_GONE, "Use kv_lease_duration in the connector's extra config."),
    "VLLM_KEEP_ALIVE_ON_ENGINE_DEATH": ("keeps a dead engine answering HTTP", "Leave it out."),
    "VLLM_SERVER_DEV_MODE": ("opens unauthenticated control endpoints", "Leave it out."),
    "VLLM_PORT": ("is not the HTTP port", "Use port_base."),
    "PROMETHEUS_MULTIPROC_DIR": ("leaves stale files that corrupt gauges", "Leave it out: vLLM sets its own."),
    "CUDA_MEMORY_POOL_DISABLED": ("is unknown to CUDA and PyTorch", "Leave it out."),
    "CUDA_MALLOC_HEAP_SIZE": ("is unknown to CUDA and PyTorch", "Leave it out."),
    "LD_PRELOAD": ("would load code the release does not contain", "Leave it out."),
    "PYTHONPATH": ("would load code the release does not contain", "Leave it out."),
}
MANAGED_ENV: dict[str, str] = {
    "VLLM_HOST_IP": "nothing: loopback, or ansible_host with a KV connector or several hosts",
    "VLLM_NIXL_SIDE_CHANNEL_HOST": "layout",
    "VLLM_NIXL_SIDE_CHANNEL_PORT": "layout",
    "RAY_ADDRESS": "executor",
    "RAY_AUTH_MODE": "executor",
    "VLLM_API_KEY": "the secret engine_api_key",
    "CUDA_VISIBLE_DEVICES": "tensor_parallel_size (GPUs are handed out by the plan)",
    "CUDA_DEVICE_ORDER": "nothing: it is always PCI_BUS_ID",
    "HF_HUB_OFFLINE": "nothing: engines never download",
    "RACKSERVE_CONFIG_SHA256": "nothing: it is filled in on the host",
}
ADVISED_ENV: dict[str, tuple[str, str, str]] = {
    "NVIDIA_TF32_OVERRIDE": ("pointless-env", "changes FP32 results and nothing for BF16 or FP8", "Leave it out."),
    "CUBLAS_WORKSPACE_CONFIG": ("pointless-env", "is for determinism, not for speed", "Leave it out."),
    "TORCH_CUDNN_V8_API_ENABLED": ("pointless-env", "is unknown to current PyTorch", "Leave it out."),
    "CUDA_LAUNCH_BLOCKING": ("slow-env", "is for debugging: 1 makes every kernel launch wait", "Leave it out."),
    "RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE": ("pointless-env", "hides a /dev/shm that is too small", "Leave it out."),
}


def argument_advice(name: str, value: object, device: str) -> Advice | None:
    """What is wrong with an engine argument, or None. ``value`` is not null; ``device`` is cpu or cuda."""
    option = f"engine_args.{name}"
    advice = None
    if name in REFUSED_ARGS:
        advice = Advice("error", "dead-argument", f"{option} {REFUSED_ARGS[name][0]}.", REFUSED_ARGS[name][1])
    elif name in MANAGED_ARGS:
        fix = f"It follows from {MANAGED_ARGS[name]}."
        advice = Advice("error", "managed-argument", f"{option} is set by the plan.", fix)
    elif name in _SECRET_ARGS:
        fix = "Keys reach engines by file."
        advice = Advice("error", "secret-in-argument", f"{option} would show a secret in ps.", fix)
    elif name == "trust_remote_code":
        why = f"{option} would run code from the model's directory; it is left out."
        advice = Advice("warning", "trust-remote-code", why, "Remove it: vLLM has classes of its own for these models.")
    elif name == "enforce_eager" and value is True and device == "cuda":
        why = f"{option} turns CUDA graphs off: decoding gets slower."
        advice = Advice("warning", "enforce-eager", why, "Only for debugging.")
    elif name in ADVISED_ARGS:
        code, why, fix = ADVISED_ARGS[name]
        advice = Advice("warning", code, f"{option} {why}.", fix)
    elif isinstance(value, str) and (name, value) in BAD_ARG_VALUES:
        severity, why, fix = BAD_ARG_VALUES[name, value]
        advice = Advice(severity, "bad-argument-value", f"{option}: {value} {why}.", fix)
    return advice


def environment_advice(name: str, value: str, fabric: str, kv_connector: bool) -> Advice | None:
    """What is wrong with an environment variable, or None.

    ``fabric`` is none, infiniband or roce; ``kv_connector`` says that a KV transfer connector is configured.
    """
    advice = None
    if name in REFUSED_ENV:
        advice = Advice("error", "dead-env", f"{name} {REFUSED_ENV[name][0]}.", REFUSED_ENV[name][1])
    elif name in MANAGED_ENV:
        fix = f"It follows from {MANAGED_ENV[name]}."
        advice = Advice("error", "managed-env", f"{name} is set by the plan.", fix)
    elif _SECRET_NAME.search(name.upper()):
        advice = Advice("error", "secret-in-env", f"{name} looks like a secret.", "Put it into the vault file.")
    elif name.startswith(_COMMUNICATION):
        verdict = nccl.judge(name, value, fabric)
        advice = Advice(*verdict) if verdict else None
    elif name == "PYTORCH_CUDA_ALLOC_CONF" and "expandable_segments:True" in value and kv_connector:
        why = f"{name}: expandable segments break every KV connector."
        advice = Advice("error", "bad-env-value", why, "Leave it out.")
    elif name in ADVISED_ENV:
        code, why, fix = ADVISED_ENV[name]
        advice = Advice("warning", code, f"{name} {why}.", fix)
    return advice
