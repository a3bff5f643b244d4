"""What the plan starts on one machine's GPUs, layout by layout, with models of dummy weights."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "module_utils"))
sys.path.insert(0, str(REPO / "files/lab"))
import yaml
from rackserve.plan import compile_plan, load_library

HARDWARE, HOST, ADDRESS = "h100-x4-vm", "gpu1", "127.0.0.1"
_LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
    "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "hidden_act": "silu",
    "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
_EXPERTS = {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "hidden_size": 2048,
    "intermediate_size": 4096, "moe_intermediate_size": 768, "num_hidden_layers": 8, "first_k_dense_replace": 1,
    "num_attention_heads": 16, "num_key_value_heads": 16, "n_routed_experts": 64, "n_shared_experts": 1,
    "num_experts_per_tok": 4, "n_group": 4, "topk_group": 2, "topk_method": "noaux_tc", "scoring_func": "sigmoid",
    "norm_topk_prob": True, "routed_scaling_factor": 1.0, "moe_layer_freq": 1, "q_lora_rank": 512, "kv_lora_rank": 512,
    "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "hidden_act": "silu", "attention_bias": False,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
MODELS = {"llama-8b": _LLAMA, "experts-64": _EXPERTS}
_CARDS = {
    "llama-8b": {
        "doc": "The shape of Llama 3.1 8B, a small vocabulary", "architecture": "LlamaForCausalLM",
        "dtype": "bfloat16", "bytes": 14 * 10**9, "weights_bytes": 14 * 10**9, "layers": 32, "attention_heads": 32,
        "kv_heads": 8, "kv_bytes_per_token": 131072, "max_model_len": 8192,
    },
    "experts-64": {
        "doc": "Experts and a shared latent (MLA)", "architecture": "DeepseekV3ForCausalLM", "dtype": "bfloat16",
        "bytes": 6 * 10**9, "weights_bytes": 6 * 10**9, "layers": 8, "attention_heads": 16, "kv_heads": 1,
        "kv_bytes_per_token": 9216, "max_model_len": 8192, "experts": 64, "expert_dim": 768, "dense_layers": 1,
        "expert_weights_bytes": 4 * 10**9,
    },
}  # fmt: skip
LAYOUTS = ("replica", "tensor", "experts", "ray", "prefill-decode")


def deployment(layout: str, gpus: int) -> dict[str, Any]:
    """The description's deployment that uses all GPUs. ValueError for a layout or a number of GPUs that has none."""
    if gpus not in (2, 4) or layout not in LAYOUTS:
        raise ValueError(f"no layout {layout} on {gpus} GPU(s): {', '.join(LAYOUTS)} on 2 or 4")
    half = gpus // 2
    keys: dict[str, dict[str, Any]] = {
        "replica": {"layout": "replica", "replicas": 2, "tensor_parallel_size": half},
        "tensor": {"layout": "replica", "tensor_parallel_size": gpus},
        "experts": {"layout": "data_parallel", "data_parallel_size": gpus, "expert_parallel": True},
        # Two hosts of the plan, both on this machine: one Ray node with all of its GPUs stands for both.
        "ray": {
            "layout": "multi_node", "hosts_per_replica": 2, "tensor_parallel_size": half, "pipeline_parallel_size": 2,
            "executor": "ray",
        },
        "prefill-decode": {
            "layout": "prefill_decode", "router": "vllm-router",
            "prefill": {"hosts": "gpu", "tensor_parallel_size": half},
            "decode": {"hosts": "gpu", "tensor_parallel_size": half},
        },
    }  # fmt: skip
    return keys[layout]


def plan_of(layout: str, gpus: int, models: Path, args: dict[str, Any]) -> dict[str, Any]:
    """The compiled plan; ``args`` are engine_args. RuntimeError with its errors where it has some."""
    library = load_library(REPO, yaml.safe_load)
    name = "experts-64" if layout == "experts" else "llama-8b"
    hosts = {HOST: ADDRESS, "gpu2": "127.0.0.2"} if layout == "ray" else {HOST: ADDRESS}
    hardware = {**library.hardware[HARDWARE], "slots": gpus // len(hosts)}
    library = type(library)(
        library.releases, {**library.hardware, HARDWARE: hardware}, {**library.models, **_CARDS},
        library.profiles, library.options,
    )  # fmt: skip
    cluster = {
        "name": "device", "release": "2026.11", "distribution": "ubuntu-24.04", "hardware": HARDWARE,
        "network": {"cluster_interface": "lo", "management_cidrs": ["127.0.0.0/8"]},
        "repositories": {"nvidia": {"uri": "http://127.0.0.1/", "key": "none.asc"}},
        "gateway": {"hosts": "gateway", "api_keys": ["operator"]},
        "deployments": [
            {
                "name": layout, "served_model_name": "dummy", **deployment(layout, gpus),
                "model": {
                    "card": name, "path": str(models / name), "revision": "dummy", "source": {"kind": "present"}
                },
                "engine_args": {"load_format": "dummy", **args},
            }
        ],
    }  # fmt: skip
    groups = {"gpu": list(hosts), "gateway": ["gw"], "monitoring": [], "builder": ["gw"]}
    plan = compile_plan(cluster, groups, {**hosts, "gw": "127.0.0.9"}, library)
    errors = [f"{item['where']}: {item['why']}" for item in plan["findings"] if item["severity"] == "error"]
    if errors:
        raise RuntimeError("\n".join(errors))
    return plan


def write_models(folder: Path) -> None:
    """Configurations and the lab's tokenizer; the weights are vLLM's dummies."""
    random = importlib.import_module("numpy").random
    tiny_models = importlib.import_module("tiny_models")
    for name, config in MODELS.items():
        target = folder / name
        target.mkdir(parents=True, exist_ok=True)
        vocabulary, _ = tiny_models.write_tokenizer(target, random.RandomState(1))
        sizes = {"vocab_size": -(-len(vocabulary) // 64) * 64, "bos_token_id": 0, "eos_token_id": 1}
        tiny_models.write_json(target / "config.json", {**config, **sizes})
