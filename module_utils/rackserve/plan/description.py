"""The fields of a cluster's description and of the library's files; `docs/cluster.md` prints the first."""

from __future__ import annotations

from ..nccl.environment import TOPOLOGY_USES
from .gpu_settings import GPU_SETTINGS
from .schema import Field
from .sets.known import DISTRIBUTIONS

NAME = "[a-z][a-z0-9-]{0,30}"
NAME_MEANS = "a name (a-z, 0-9, -; starts with a letter; at most 31)"
FILE_ID = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}"
PATH = r"/(?!.*(?:^|/)\.\.(?:/|$))[A-Za-z0-9._/@+=-]*"
PATH_MEANS = "an absolute path (letters, digits and ._/@+=-, no ..)"

# Findings a site may let pass by naming their code in cluster.exceptions: a warning becomes a note.
EXCUSABLE = {
    "gateway-on-gpu-host": "the gateway runs on a host that also runs engines",
    "gateway-without-tls": "requests and API keys cross the network in clear",
    "uneven-replicas": "hosts carry different numbers of engines",
    "enforce-eager": "CUDA graphs are off",
    "untuned-nccl": "an NCCL tuning variable is set by hand",
    "fabric-differs": "the fabric described is not the one of the hardware profile",
    "release-unproven": "this release never ran on this hardware",
    "toolkit-newer": "the release's CUDA toolkit is newer than its driver",
    "nccl-newer": "the release's NCCL is built for a newer CUDA than its toolkit",
    "proprietary-modules": "the release brings proprietary kernel modules to GPUs that work with the open ones",
    "ecc-off": "GPUs run without error correction",
}
LAYOUTS_BUILT = ("replica", "single")
LAYOUTS_PLANNED = ("data_parallel", "multi_node", "prefill_decode")


def _name(doc: str) -> Field:
    return Field("text", doc, pattern=NAME, pattern_means=NAME_MEANS, required=True)


def _path(doc: str, default: str | None = None) -> Field:
    return Field("text", doc, pattern=PATH, pattern_means=PATH_MEANS, default=default, nullable=default is None)


def _file_id(doc: str) -> Field:
    return Field("text", doc, required=True, pattern=FILE_ID, pattern_means="a file's name without .yml")


def _whole(doc: str, default: int | None, low: int, high: int, required: bool = False) -> Field:
    return Field("whole", doc, default=default, low=low, high=high, required=required)


_FABRIC = Field(
    "object",
    "The network between GPUs of different hosts.",
    keys={
        "kind": Field("text", "Its kind.", default="none", choices=("none", "infiniband", "roce")),
        "hcas": _whole("Host channel adapters a host has for it.", 0, 0, 16),
        "rate_gbps": _whole("Rate of one adapter, Gb/s.", 0, 0, 3200),
    },
)

_NETWORK = Field(
    "object",
    "Addresses and interfaces.",
    required=True,
    keys={
        "cluster_interface": Field(
            "text",
            "Interface that carries `ansible_host`'s address on every host.",
            required=True,
            pattern=r"[A-Za-z0-9_.-]{1,15}",
            pattern_means="an interface name (at most 15 characters)",
        ),
        "management_cidrs": Field(
            "list",
            "Networks that may reach SSH, the gateway and metrics.",
            required=True,
            low=1,
            item=Field("text", "A network like 10.77.1.0/30."),
        ),
        "fabric": _FABRIC,
    },
)

_GATEWAY = Field(
    "object",
    "The one door for clients; leave it out and clients talk to the engines.",
    nullable=True,
    keys={
        "hosts": Field("names", "Group or list of hosts; exactly one host for now.", default="gateway"),
        "port": _whole("Port for clients.", 8443, 1024, 65535),
        "tls": Field("flag", "Serve HTTPS with the secret `gateway_tls_pem`.", default=True),
        "metrics_port": _whole("Port of the gateway's own metrics.", 8404, 1024, 65535),
        "client_cidrs": Field(
            "list", "Networks of clients beside the management networks.", item=Field("text", "A network.")
        ),
        "spare_slots": _whole("Server slots declared ahead for each deployment.", 4, 0, 64),
        "api_keys": Field(
            "list",
            "Names of the keys clients may use; the values are secrets `api_key_<name>`.",
            item=Field(
                "text",
                "Name a key here; its value belongs into the vault file as a secret.",
                pattern=r"[a-z][a-z0-9_-]{0,30}",
                pattern_means="a key's name (a-z, 0-9, _ and -; at most 31)",
                secret=True,
            ),
            secret=True,
        ),
        "max_queue": _whole("Requests that may wait at the gateway before 429.", 256, 1, 100000),
        "queue_timeout_s": _whole("Seconds a request may wait before 503.", 30, 1, 3600),
    },
)

_MODEL = Field(
    "object",
    "What is served.",
    required=True,
    keys={
        "card": _file_id("Model card: `files/models/<card>.yml`."),
        "path": _path("Directory on the hosts; default `<paths.models>/<card>`."),
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

_REPOSITORY = Field(
    "object",
    "Where NVIDIA's packages come from: their repository, a mirror or a bundle. Flat, and signed.",
    nullable=True,
    keys={
        "uri": Field(
            "text",
            "Its address, as the hosts reach it; `file:///<folder>/` is a folder of every host.",
            required=True,
            pattern=r"(https?://[A-Za-z0-9.:\[\]-]+/|file:///(?!(.*/)?\.\./))([A-Za-z0-9._~+-]+/)*",
            pattern_means="an http, https or file address that ends in / (no user, password or query)",
            secret=True,
        ),
        "key": Field(
            "text",
            "OpenPGP key it is signed with: a file on the controller, relative to the repository.",
            required=True,
            pattern=r"(?!.*(?:^|/)\.\.(?:/|$))[A-Za-z0-9._/@+=-]+\.(asc|gpg)",
            pattern_means="a path that ends in .asc (ASCII) or .gpg (binary), no ..",
        ),
        "suite": Field(
            "text",
            "Its folder below the address.",
            default="./",
            pattern=r"([A-Za-z0-9._-]+/)+|/",
            pattern_means="a folder that ends in /",
        ),
    },
)

DEPLOYMENT = Field(
    "object",
    "One served model.",
    keys={
        "name": _name("Name of the deployment; units are `vllm-<name>-<n>`."),
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
            "`replica`: independent engines spread over the hosts; `single`: all on one host. "
            "The others are known and not built yet.",
            default="replica",
            choices=LAYOUTS_BUILT + LAYOUTS_PLANNED,
        ),
        "hosts": Field("names", "Group or list of hosts.", default="gpu"),
        "tensor_parallel_size": _whole("GPUs (CPU: workers) an engine uses.", 1, 1, 64),
        "replicas": _whole("Engines in all.", 1, 1, 4096),
        "port_base": _whole("Port of a host's first engine; the next takes the next port.", 8000, 1024, 65535),
        "profile": Field(
            "text",
            "Set of engine arguments from `files/profiles.yml`.",
            default="balanced",
            pattern=NAME,
            pattern_means=NAME_MEANS,
        ),
        "engine_args": Field(
            "map",
            "vLLM's long options with underscores; null removes a profile's, true is a flag, false is `--no-<flag>`.",
            pattern=r"[a-z][a-z0-9_]*",
            pattern_means="a long option with underscores, like max_model_len",
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

CLUSTER = Field(
    "object",
    "The description.",
    required=True,
    keys={
        "name": _name("Name of the cluster."),
        "release": _file_id("Release set: `files/releases/<release>.yml`."),
        "distribution": Field(
            "text",
            "Operating system of the hosts; needed where the release's distributions get different packages.",
            nullable=True,
            choices=tuple(DISTRIBUTIONS),
        ),
        "hardware": _file_id("Hardware profile: `files/hardware/<hardware>.yml`."),
        "simulated_hardware": Field(
            "flag",
            "The profile's GPUs are simulated, as in the lab; engines of a release for CPUs stand for their engines.",
            default=False,
        ),
        "network": _NETWORK,
        "driver": Field(
            "text",
            "On GPU hosts. `release`: the release's packages; `runfile`: NVIDIA's runfile, where there can be no "
            "packages; `preinstalled`: the site brings its own.",
            default="release",
            choices=("release", "runfile", "preinstalled"),
        ),
        "driver_runfile": Field(
            "text",
            "With `driver: runfile`: the file on the controller, relative to the repository.",
            nullable=True,
            pattern=r"(?!.*(?:^|/)\.\.(?:/|$))[A-Za-z0-9._/@+=-]+\.run",
            pattern_means="a path that ends in .run, no ..",
        ),
        "cuda": Field(
            "text",
            "On GPU hosts. `release`: the release's toolkit, cuDNN and NCCL are installed; `preinstalled`: the site "
            "brings its own, or none.",
            default="release",
            choices=("release", "preinstalled"),
        ),
        "gpu_settings": GPU_SETTINGS,
        "repositories": Field("object", "Package repositories of the site.", keys={"nvidia": _REPOSITORY}),
        "gateway": _GATEWAY,
        "paths": Field(
            "object",
            "Where things lie on hosts.",
            keys={
                "releases": _path("Parent of the releases.", "/opt/rackserve/releases"),
                "models": _path("Parent of model directories.", "/srv/models"),
            },
        ),
        "take_over": Field(
            "list",
            "Foreign settings the site lets us overwrite, like `sysctl:vm.swappiness`.",
            item=Field("text", "A setting like sysctl:vm.swappiness."),
        ),
        "exceptions": Field(
            "list",
            "Codes of warnings the site accepts; each becomes a note.",
            item=Field("text", "A finding's code.", choices=tuple(sorted(EXCUSABLE))),
        ),
        "deployments": Field("list", "What is served.", required=True, item=DEPLOYMENT),
    },
)


def _text(doc: str, nullable: bool = True) -> Field:
    return Field("text", doc, nullable=nullable, required=not nullable)


HARDWARE = Field(
    "object",
    "A kind of host.",
    required=True,
    keys={
        "doc": _text("What it is.", nullable=False),
        "device": Field("text", "What engines run on.", required=True, choices=("cpu", "cuda")),
        "slots": _whole("GPUs (CPU: workers) a host has.", None, 1, 64, required=True),
        "gpu": _text("Name of the GPU."),
        "memory_mib": _whole("Memory of one GPU, MiB, as the driver reports it.", 0, 0, 10**7),
        "power_limit_w": _whole("Power limit of one GPU, W.", 0, 0, 5000),
        "memory_gbytes_s": _whole("Memory bandwidth of one GPU, GB/s.", 0, 0, 10**5),
        "hcas": _whole("Fabric adapters.", 0, 0, 16),
        "rate_gbps": _whole("Rate of one, Gb/s.", 0, 0, 3200),
        "host_memory_mib": _whole("Memory of the host, MiB.", 0, 0, 10**8),
        "disk_read_mib_s": _whole("What loading weights reaches, MiB/s.", None, 1, 10**6, required=True),
        "start_base_s": _whole("Start of an engine without its weights, s.", None, 1, 7200, required=True),
        "activation_reserve_mib": _whole("Set aside for activations and graphs on each GPU, MiB.", 0, 0, 10**6),
        "omp_threads": _whole("OpenMP threads of a CPU engine.", 1, 1, 512),
        "fabric_manager": Field(
            "flag", "The host has to run Fabric Manager; default: its `machine` has NVSwitches.", nullable=True
        ),
        "nccl_topology": Field(
            "text",
            "NCCL's topology: observe (record it), measure (inject it where a measurement is faster), inject.",
            default="observe",
            choices=TOPOLOGY_USES,
        ),
        "machine": Field("argument", "The machine that the lab simulates; hardware/profile.py checks it."),
        "sources": Field("argument", "Where values come from: citations by id."),
        "cites": Field("argument", "The source of each value by its path; the longest prefix wins."),
    },
)

MODEL = Field(
    "object",
    "What the plan has to know of a model.",
    required=True,
    keys={
        "doc": _text("What it is.", nullable=False),
        "architecture": _text("Class in config.json.", nullable=False),
        "dtype": _text("Native data type of the weights.", nullable=False),
        "bytes": _whole("Size on disk.", None, 1, 10**14, required=True),
        "weights_bytes": _whole("Size of the weights an engine loads.", None, 1, 10**14, required=True),
        "layers": _whole("Layers.", None, 1, 10000, required=True),
        "attention_heads": _whole("Attention heads.", None, 1, 10000, required=True),
        "kv_heads": _whole("Key/value heads; 1 for a shared latent.", None, 1, 10000, required=True),
        "kv_bytes_per_token": _whole("KV cache of one token over all layers and heads.", None, 1, 10**8, required=True),
        "max_model_len": _whole("Longest context, tokens.", None, 1, 10**8, required=True),
        "shard_dims": Field("list", "Dimensions that tensor parallelism divides.", item=Field("whole", "", low=1)),
        "shard_block": _whole("Quantisation block that must divide every shard.", 1, 1, 65536),
    },
)

OPTIONS = Field("list", "Long options of an engine.", required=True, low=1, item=_text("An option.", nullable=False))

PROFILE = Field(
    "object",
    "A set of engine arguments.",
    required=True,
    keys={
        "doc": _text("What it is for.", nullable=False),
        "devices": Field("list", "Devices it suits.", low=1, item=Field("text", "", choices=("cpu", "cuda"))),
        "engine_args": Field("map", "Arguments.", pattern=r"[a-z][a-z0-9_]*", pattern_means="a long option"),
        "shutdown_timeout_s": _whole("How long a stop waits for requests, s.", None, 1, 3600, required=True),
        "check": Field(
            "object",
            "How the gateway checks an engine.",
            keys={
                "interval_s": _whole("Between checks, s.", 5, 1, 300),
                "timeout_s": _whole("Of one check, s.", 10, 1, 300),
                "fall": _whole("Failures until down.", 3, 1, 20),
                "rise": _whole("Successes until up.", 2, 1, 20),
            },
        ),
    },
)
