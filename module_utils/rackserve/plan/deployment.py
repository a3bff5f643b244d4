"""The fields of a deployment."""

from __future__ import annotations

from .fields import NAME, NAME_MEANS, file_id, name, path, whole
from .schema import Field

_MODEL = Field(
    "object",
    "What is served.",
    required=True,
    keys={
        "card": file_id("Model card: `files/models/<card>.yml`."),
        "path": path("Directory on the hosts; default `<paths.models>/<card>`."),
        "revision": Field(
            "text",
            "Commit or version of the files; never a moving name such as `main`.",
            required=True,
            pattern=r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
            pattern_means="a commit or version",
        ),
        "source": Field(
            "object",
            "Where the files come from.",
            keys={
                "kind": Field(
                    "text",
                    "`controller`: copied from the controller; `present`: already there, only verified.",
                    default="controller",
                    choices=("controller", "present"),
                ),
                "path": Field(
                    "text",
                    "On the controller, relative to the repository; default `.cache/models/<card>`.",
                    nullable=True,
                ),
            },
        ),
    },
)

_SLO = Field(
    "object",
    "Promises, used by alerts and by the acceptance report.",
    nullable=True,
    keys={
        "ttft_p95_s": Field("number", "95 % of first tokens within, seconds.", nullable=True, low=0.001, high=3600),
        "itl_p95_s": Field("number", "95 % of further tokens within, seconds.", nullable=True, low=0.0001, high=60),
    },
)

LAYOUTS = ("replica", "single", "data_parallel", "multi_node", "prefill_decode")


def _engine_args(doc: str) -> Field:
    return Field(
        "map",
        doc,
        pattern=r"[a-z][a-z0-9_]*",
        pattern_means="a long option with underscores, like max_model_len",
    )


def _pool(doc: str) -> Field:
    return Field(
        "object",
        doc,
        nullable=True,
        keys={
            "hosts": Field("names", "Group or list of hosts.", required=True),
            "replicas": whole("Groups of this pool.", 1, 1, 4096),
            "tensor_parallel_size": whole("GPUs that share every layer.", 1, 1, 64),
            "data_parallel_size": whole("Ranks of one group.", 1, 1, 512),
            "hosts_per_replica": whole("Hosts of one group.", 1, 1, 64),
            "expert_parallel": Field("flag", "Whole experts on each GPU.", default=False),
            "profile": Field(
                "text",
                "Set of engine arguments; default: the deployment's.",
                nullable=True,
                pattern=NAME,
                pattern_means=NAME_MEANS,
            ),
            "engine_args": _engine_args("As the deployment's, and over them."),
        },
    )


ROUTER_SETTINGS = Field(
    "object",
    "With `vllm-router`.",
    nullable=True,
    keys={
        "policy": Field(
            "text",
            "How it chooses an engine.",
            default="cache_aware",
            choices=("cache_aware", "round_robin", "random", "power_of_two", "consistent_hash"),
        ),
        "cache_threshold": Field(
            "number", "Share of a prompt that must be known for its engine to be chosen.", default=0.5, low=0, high=1
        ),
        "balance_abs_threshold": whole("Requests by which loads may differ before they decide.", 32, 0, 100000),
        "balance_rel_threshold": Field(
            "number", "Ratio by which loads may differ before they decide.", default=1.0001, low=1, high=1000
        ),
        "port": whole("Port on the gateway's loopback; the next router takes the next.", 8300, 1024, 65535),
        "metrics_port": whole("Port of its metrics; the next router takes the next.", 8350, 1024, 65535),
    },
)

DEPLOYMENT = Field(
    "object",
    "One served model.",
    keys={
        "name": name("Name of the deployment; units are `vllm-<name>-<n>`."),
        "served_model_name": Field(
            "text",
            "What clients write as `model`; default: the name.",
            nullable=True,
            pattern=r"[A-Za-z0-9][A-Za-z0-9._/-]{0,95}",
            pattern_means="a model name (letters, digits and ._/-)",
        ),
        "model": _MODEL,
        "layout": Field(
            "text",
            "`replica`: independent engines spread over the hosts; `single`: all on one host; `data_parallel`: ranks "
            "that share requests, each with its own KV cache; `multi_node`: one engine cut over several hosts; "
            "`prefill_decode`: one pool reads prompts, another writes answers.",
            default="replica",
            choices=LAYOUTS,
        ),
        "hosts": Field("names", "Group or list of hosts.", default="gpu"),
        "tensor_parallel_size": whole("GPUs (CPU: workers) that share every layer.", 1, 1, 64),
        "pipeline_parallel_size": whole("Parts an engine's layers are cut into, one after the other.", 1, 1, 64),
        "data_parallel_size": whole("With `data_parallel`: ranks of one group in all.", 1, 1, 512),
        "data_parallel_lb": Field(
            "text",
            "Who shares requests among ranks. `internal`: the first host, which alone serves; `hybrid`: the gateway "
            "among hosts, each host among its ranks; `external`: the gateway among ranks (models with experts).",
            default="internal",
            choices=("internal", "hybrid", "external"),
        ),
        "expert_parallel": Field("flag", "Whole experts on each GPU instead of a part of every expert.", default=False),
        "hosts_per_replica": whole("With `data_parallel` and `multi_node`: hosts of one group.", 1, 1, 64),
        "executor": Field(
            "text",
            "With `multi_node`. `mp`: vLLM's own processes; `ray`: over a Ray cluster that the plan makes.",
            default="mp",
            choices=("mp", "ray"),
        ),
        "replicas": whole("Engines (groups) in all.", 1, 1, 4096),
        "prefill": _pool("With `prefill_decode`: the engines that read prompts."),
        "decode": _pool("With `prefill_decode`: the engines that write answers."),
        "router": Field(
            "text",
            "What chooses among the engines; `prefill_decode` needs `vllm-router`.",
            default="haproxy",
            choices=("haproxy", "vllm-router"),
        ),
        "router_settings": ROUTER_SETTINGS,
        "fallback": Field(
            "list",
            "Deployments that take the requests while none of this one's own engines is up, the first that can.",
            item=Field("text", "A deployment's name.", pattern=NAME, pattern_means=NAME_MEANS),
        ),
        "port_base": whole("Port of a host's first engine; the next takes the next port.", 8000, 1024, 65535),
        "profile": Field(
            "text",
            "Set of engine arguments from `files/profiles.yml`.",
            default="balanced",
            pattern=NAME,
            pattern_means=NAME_MEANS,
        ),
        "engine_args": _engine_args(
            "vLLM's long options with underscores; null removes a profile's, true is a flag, false is `--no-<flag>`."
        ),
        "env": Field(
            "map",
            "Extra environment of the engines.",
            pattern=r"[A-Za-z_][A-Za-z0-9_]*",
            pattern_means="a variable's name",
            item=Field("setting", 'Write "1", "0" or the text in quotes.'),
        ),
        "slo": _SLO,
    },
)
