"""Write the lab's two models: bin/python3 tiny_models.py <output folder>

tiny-deepseek-v3: DeepseekV3ForCausalLM, latent attention and a mixture of experts with the real head sizes, few layers.
tiny-dense: LlamaForCausalLM.

A model answers with a fixed successor of the last token: the embedding of token t points where the lm_head row of its
successor points. Attention and experts add real, smaller parts, so every log-probability depends on all weights, while
the greedy choice keeps a margin above one nat, which batching and rounding cannot close. Successors are word pieces in
one cycle: the text is readable, and the end token is never chosen.

The same seed gives the same bytes: the numbers come from numpy's frozen RandomState, the files are written here.
"""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SEED = 20261
HIDDEN, HEADS, VOCAB = 256, 4, 1024
SPECIAL = ("<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|pad|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SENTENCE = (
    ("the operator", "a rack", "the gateway", "every host", "one engine", "the switch", "the cable", "the scheduler"),
    ("drains", "serves", "restarts", "measures", "cools", "routes", "verifies", "balances", "waits for", "answers"),
    ("a request", "the model", "two shards", "the power feed", "a slow link", "the release", "its manifest", "a token"),
    ("in the morning", "behind the wall", "before noon", "at the far end", "without a pause", "by hand", "in order"),
)


def corpus(rng: np.random.RandomState) -> list[str]:
    """Sentences to train the tokenizer on."""
    lines = []
    for number in range(4000):
        words = [bag[rng.randint(len(bag))] for bag in SENTENCE]
        lines.append(f"{' '.join(words).capitalize()}, step {number % 97}: {words[2]} {words[1]} {words[0]}. ")
    return lines


def write_tokenizer(folder: Path, rng: np.random.RandomState) -> tuple[dict[str, int], list[int]]:
    """Train and write the tokenizer; returns (vocabulary, ids of printable pieces of two letters or more)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(rng), trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|begin|>",
        "eos_token": "<|end|>",
        "pad_token": "<|pad|>",
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 4096,
        "chat_template": CHAT_TEMPLATE,
    }
    write_json(folder / "tokenizer_config.json", config)
    vocabulary = tokenizer.get_vocab()
    pieces = [
        token
        for name, token in vocabulary.items()
        if name.replace("Ġ", "").isascii() and len(name.replace("Ġ", "")) > 1
    ]
    return vocabulary, sorted(token for token in pieces if token >= len(SPECIAL))


def write_json(path: Path, content: object) -> None:
    """Write JSON with sorted keys."""
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def to_bfloat16(values: np.ndarray) -> bytes:
    """The bytes of ``values`` rounded to bfloat16, half to even."""
    bits = np.ascontiguousarray(values, dtype="<f4").view("<u4").astype(np.uint64)
    return (((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")).tobytes()


def write_shards(folder: Path, tensors: dict[str, np.ndarray], shards: int) -> None:
    """Write ``tensors`` as ``shards`` safetensors files of about equal size, and their index; biases stay F32."""
    total = sum(value.size for value in tensors.values())
    groups: list[list[str]] = [[] for _ in range(shards)]
    seen = 0
    for name, value in tensors.items():
        groups[min(shards - 1, seen * shards // total)].append(name)
        seen += value.size
    weight_map: dict[str, str] = {}
    size_bytes = 0
    for number, names in enumerate(groups, start=1):
        file = f"model-{number:05d}-of-{shards:05d}.safetensors"
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        body = b""
        for name in names:
            value, wide = tensors[name], name.endswith("bias")
            raw = np.ascontiguousarray(value, dtype="<f4").tobytes() if wide else to_bfloat16(value)
            header[name] = {
                "dtype": "F32" if wide else "BF16",
                "shape": list(value.shape),
                "data_offsets": [len(body), len(body) + len(raw)],
            }
            body += raw
            weight_map[name] = file
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        (folder / file).write_bytes(struct.pack("<Q", len(text)) + text + body)
        size_bytes += len(body)
    write_json(
        folder / "model.safetensors.index.json", {"metadata": {"total_size": size_bytes}, "weight_map": weight_map}
    )


class Weights:
    """Collects tensors; a matrix is scaled so that an input of unit variance gives an output of spread ``gain``."""

    def __init__(self, rng: np.random.RandomState) -> None:
        self.rng = rng
        self.tensors: dict[str, np.ndarray] = {}

    def matrix(self, name: str, rows: int, columns: int, gain: float = 1.0) -> None:
        """A random (rows, columns) matrix."""
        self.tensors[name] = (self.rng.standard_normal((rows, columns)) * gain / np.sqrt(columns)).astype(np.float32)

    def ones(self, name: str, size: int) -> None:
        """The weight of a norm: near one, not one, so that a dropped norm shows."""
        self.tensors[name] = (1 + 0.05 * self.rng.standard_normal(size)).astype(np.float32)

    def successor(self, vocabulary_size: int, pieces: list[int]) -> None:
        """Embedding and lm_head: a piece is followed by the next of a shuffled cycle, any other token by some piece."""
        cycle = [pieces[index] for index in self.rng.permutation(len(pieces))]
        following = {token: cycle[(place + 1) % len(cycle)] for place, token in enumerate(cycle)}
        others = [token for token in range(vocabulary_size) if token not in following]
        following.update((token, cycle[place % len(cycle)]) for place, token in enumerate(others))
        embedding = self.rng.standard_normal((vocabulary_size, HIDDEN)).astype(np.float32)
        embedding *= np.sqrt(HIDDEN) / np.linalg.norm(embedding, axis=1, keepdims=True)
        head = np.zeros_like(embedding)
        for token in range(vocabulary_size):
            head[following[token]] += embedding[token]
        self.tensors["model.embed_tokens.weight"] = embedding
        # A logit of about 0.3 * 16 for the successor, spread 0.3 for all others: its probability stays far from one.
        self.tensors["lm_head.weight"] = (head * 0.3 / np.sqrt(HIDDEN)).astype(np.float32)


def mlp(weights: Weights, prefix: str, inner: int, gain: float) -> None:
    """A gated feed-forward block."""
    weights.matrix(f"{prefix}.gate_proj.weight", inner, HIDDEN)
    weights.matrix(f"{prefix}.up_proj.weight", inner, HIDDEN)
    weights.matrix(f"{prefix}.down_proj.weight", HIDDEN, inner, gain)


def deepseek(weights: Weights) -> dict[str, object]:
    """Layers of a DeepSeek-V3 with the real latent sizes (512 + 64, what the kernels support); returns its config."""
    q_rank, kv_rank, nope, rope, value, experts, layers = 128, 512, 64, 64, 64, 8, 3
    for layer in range(layers):
        base = f"model.layers.{layer}"
        weights.ones(f"{base}.input_layernorm.weight", HIDDEN)
        weights.matrix(f"{base}.self_attn.q_a_proj.weight", q_rank, HIDDEN)
        weights.ones(f"{base}.self_attn.q_a_layernorm.weight", q_rank)
        weights.matrix(f"{base}.self_attn.q_b_proj.weight", HEADS * (nope + rope), q_rank, 1.5)
        weights.matrix(f"{base}.self_attn.kv_a_proj_with_mqa.weight", kv_rank + rope, HIDDEN)
        weights.ones(f"{base}.self_attn.kv_a_layernorm.weight", kv_rank)
        weights.matrix(f"{base}.self_attn.kv_b_proj.weight", HEADS * (nope + value), kv_rank)
        weights.matrix(f"{base}.self_attn.o_proj.weight", HIDDEN, HEADS * value, 0.3)
        weights.ones(f"{base}.post_attention_layernorm.weight", HIDDEN)
        if layer == 0:
            mlp(weights, f"{base}.mlp", 512, 0.3)
            continue
        weights.matrix(f"{base}.mlp.gate.weight", experts, HIDDEN, 2.0)
        weights.tensors[f"{base}.mlp.gate.e_score_correction_bias"] = (
            0.01 * weights.rng.standard_normal(experts)
        ).astype("f4")
        for expert in range(experts):
            mlp(weights, f"{base}.mlp.experts.{expert}", 128, 0.3)
        mlp(weights, f"{base}.mlp.shared_experts", 128, 0.2)
    return {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "intermediate_size": 512,
        "moe_intermediate_size": 128,
        "q_lora_rank": q_rank,
        "kv_lora_rank": kv_rank,
        "qk_nope_head_dim": nope,
        "qk_rope_head_dim": rope,
        "v_head_dim": value,
        "n_routed_experts": experts,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "n_group": 2,
        "topk_group": 1,
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.0,
        "first_k_dense_replace": 1,
        "moe_layer_freq": 1,
        "num_nextn_predict_layers": 0,
        "ep_size": 1,
    }


def dense(weights: Weights) -> dict[str, object]:
    """Layers of a Llama; returns its config."""
    head, layers = 64, 2
    for layer in range(layers):
        base = f"model.layers.{layer}"
        weights.ones(f"{base}.input_layernorm.weight", HIDDEN)
        for part in ("q_proj", "k_proj", "v_proj"):
            weights.matrix(f"{base}.self_attn.{part}.weight", HEADS * head, HIDDEN)
        weights.matrix(f"{base}.self_attn.o_proj.weight", HIDDEN, HEADS * head, 0.3)
        weights.ones(f"{base}.post_attention_layernorm.weight", HIDDEN)
        mlp(weights, f"{base}.mlp", 512, 0.3)
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "head_dim": head,
        "intermediate_size": 512,
        "mlp_bias": False,
    }


def write_manifest(folder: Path) -> None:
    """manifest.json beside the folder's files: {files: {name: {size, sha256}}}."""
    files = {}
    for path in sorted(folder.iterdir()):
        if path.name != "manifest.json":
            content = path.read_bytes()
            files[path.name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    write_json(folder / "manifest.json", {"version": 1, "files": files})


def write_model(folder: Path, layers: Callable[[Weights], dict[str, object]], shards: int, seed: int) -> None:
    """Write one model: tokenizer, weights, configs, manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary, pieces = write_tokenizer(folder, np.random.RandomState(SEED))
    size = -(-len(vocabulary) // 64) * 64
    weights = Weights(np.random.RandomState(seed))
    weights.successor(size, pieces)
    config = layers(weights)
    weights.ones("model.norm.weight", HIDDEN)
    common = {
        "hidden_size": HIDDEN,
        "vocab_size": size,
        "max_position_embeddings": 4096,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": False,
        "use_cache": True,
        "bos_token_id": vocabulary["<|begin|>"],
        "eos_token_id": vocabulary["<|end|>"],
        "pad_token_id": vocabulary["<|pad|>"],
        "torch_dtype": "bfloat16",
        "initializer_range": 0.02,
    }
    write_json(folder / "config.json", {**common, **config})
    ids = {key: common[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    write_json(folder / "generation_config.json", {**ids, "do_sample": False})
    write_shards(folder, weights.tensors, shards)
    write_manifest(folder)


def main() -> int:
    """Write both models below the folder named on the command line."""
    output = Path(sys.argv[1])
    write_model(output / "tiny-deepseek-v3", deepseek, shards=3, seed=SEED + 1)
    write_model(output / "tiny-dense", dense, shards=2, seed=SEED + 2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
