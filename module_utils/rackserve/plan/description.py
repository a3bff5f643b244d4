"""The fields of a cluster's description and of the library's files; `docs/cluster.md` prints the first."""

from __future__ import annotations

from ..nccl.environment import TOPOLOGY_USES
from .deployment import DEPLOYMENT
from .fields import file_id, name, path, whole
from .gpu_settings import GPU_SETTINGS
from .schema import Field
from .sets.known import DISTRIBUTIONS

# Findings a site may let pass by naming their code in cluster.exceptions: a warning becomes a note.
EXCUSABLE = {
    "gateway-on-gpu-host": "the gateway runs on a host that also runs engines",
    "gateway-without-tls": "requests and API keys cross the network in clear",
    "uneven-replicas": "hosts carry different numbers of engines",
    "no-room-for-probe": "an engine takes one request at a time, and the gateway's probe waits behind it",
    "enforce-eager": "CUDA graphs are off",
    "untuned-nccl": "an NCCL tuning variable is set by hand",
    "fabric-differs": "the fabric described is not the one of the hardware profile",
    "release-unproven": "this release never ran on this hardware",
    "toolkit-newer": "the release's CUDA toolkit is newer than its driver",
    "nccl-newer": "the release's NCCL is built for a newer CUDA than its toolkit",
    "proprietary-modules": "the release brings proprietary kernel modules to GPUs that work with the open ones",
    "tp-across-hosts": "tensor parallelism crosses the network between hosts",
    "ecc-off": "GPUs run without error correction",
}


_FABRIC = Field(
    "object",
    "The network between GPUs of different hosts.",
    keys={
        "kind": Field("text", "Its kind.", default="none", choices=("none", "infiniband", "roce")),
        "hcas": whole("Host channel adapters a host has for it.", 0, 0, 16),
        "rate_gbps": whole("Rate of one adapter, Gb/s.", 0, 0, 3200),
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
        "port": whole("Port for clients.", 8443, 1024, 65535),
        "tls": Field("flag", "Serve HTTPS with the secret `gateway_tls_pem`.", default=True),
        "metrics_port": whole("Port of the gateway's own metrics.", 8404, 1024, 65535),
        "client_cidrs": Field(
            "list", "Networks of clients beside the management networks.", item=Field("text", "A network.")
        ),
        "spare_slots": whole("Server slots declared ahead for each deployment.", 4, 0, 64),
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
        "max_queue": whole("Requests that may wait at the gateway before 429.", 256, 1, 100000),
        "queue_timeout_s": whole("Seconds a request may wait before 503.", 30, 1, 3600),
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

RAY = Field(
    "object",
    "Ports of Ray on its hosts, where a deployment's executor is `ray`.",
    keys={
        "port": whole("Of the head's control store.", 6379, 1024, 65535),
        "node_manager_port": whole("Of the node manager.", 6380, 1024, 65535),
        "object_manager_port": whole("Of the object manager.", 6381, 1024, 65535),
        "runtime_env_agent_port": whole("Of the runtime environment's agent.", 6382, 1024, 65535),
        "dashboard_agent_listen_port": whole("Of the dashboard's agent.", 52365, 1024, 65535),
        "metrics_export_port": whole("Of metrics.", 6383, 1024, 65535),
        "worker_port_min": whole("First port of workers.", 20000, 1024, 65535),
        "worker_port_max": whole("Last port of workers.", 20199, 1024, 65535),
    },
)

CLUSTER = Field(
    "object",
    "The description.",
    required=True,
    keys={
        "name": name("Name of the cluster."),
        "release": file_id("Release set: `files/releases/<release>.yml`."),
        "distribution": Field(
            "text",
            "Operating system of the hosts; needed where the release's distributions get different packages.",
            nullable=True,
            choices=tuple(DISTRIBUTIONS),
        ),
        "hardware": file_id("Hardware profile: `files/hardware/<hardware>.yml`."),
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
                "releases": path("Parent of the releases.", "/opt/rackserve/releases"),
                "models": path("Parent of model directories.", "/srv/models"),
            },
        ),
        "ray": RAY,
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
        "slots": whole("GPUs (CPU: workers) a host has.", None, 1, 64, required=True),
        "gpu": _text("Name of the GPU."),
        "memory_mib": whole("Memory of one GPU, MiB, as the driver reports it.", 0, 0, 10**7),
        "power_limit_w": whole("Power limit of one GPU, W.", 0, 0, 5000),
        "memory_gbytes_s": whole("Memory bandwidth of one GPU, GB/s.", 0, 0, 10**5),
        "hcas": whole("Fabric adapters.", 0, 0, 16),
        "rate_gbps": whole("Rate of one, Gb/s.", 0, 0, 3200),
        "host_memory_mib": whole("Memory of the host, MiB.", 0, 0, 10**8),
        "disk_read_mib_s": whole("What loading weights reaches, MiB/s.", None, 1, 10**6, required=True),
        "start_base_s": whole("Start of an engine without its weights, s.", None, 1, 7200, required=True),
        "activation_reserve_mib": whole("Set aside for activations and graphs on each GPU, MiB.", 0, 0, 10**6),
        "omp_threads": whole("OpenMP threads of a CPU engine.", 1, 1, 512),
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
        "bytes": whole("Size on disk.", None, 1, 10**14, required=True),
        "weights_bytes": whole("Size of the weights an engine loads.", None, 1, 10**14, required=True),
        "layers": whole("Layers.", None, 1, 10000, required=True),
        "attention_heads": whole("Attention heads.", None, 1, 10000, required=True),
        "kv_heads": whole("Key/value heads; 1 for a shared latent.", None, 1, 10000, required=True),
        "kv_bytes_per_token": whole("KV cache of one token over all layers and heads.", None, 1, 10**8, required=True),
        "max_model_len": whole("Longest context, tokens.", None, 1, 10**8, required=True),
        "shard_dims": Field("list", "Dimensions that tensor parallelism divides.", item=Field("whole", "", low=1)),
        "experts": whole("Routed experts of a layer; 0: the model has none.", 0, 0, 65536),
        "expert_weights_bytes": whole("Of the weights, those of routed experts.", 0, 0, 10**14),
        "expert_dim": whole("Width of one routed expert.", 0, 0, 10**6),
        "dense_layers": whole("Layers at the beginning that have no experts.", 0, 0, 10000),
        "embedding_bytes": whole("Of the weights, the input embedding; the output head takes as much.", 0, 0, 10**13),
        "shard_block": whole("Quantisation block that must divide every shard.", 1, 1, 65536),
    },
)

OPTIONS = Field(
    "map",
    "Long options of an engine, each with its choices; null: any value.",
    required=True,
    pattern=r"[a-z0-9_.]+",
    pattern_means="an option with underscores",
    item=Field("list", "What it may be.", nullable=True, item=_text("A choice.", nullable=False)),
)

PROFILE = Field(
    "object",
    "A set of engine arguments.",
    required=True,
    keys={
        "doc": _text("What it is for.", nullable=False),
        "devices": Field("list", "Devices it suits.", low=1, item=Field("text", "", choices=("cpu", "cuda"))),
        "engine_args": Field("map", "Arguments.", pattern=r"[a-z][a-z0-9_]*", pattern_means="a long option"),
        "shutdown_timeout_s": whole("How long a stop waits for requests, s.", None, 1, 3600, required=True),
        "check": Field(
            "object",
            "How the gateway checks an engine.",
            keys={
                "interval_s": whole("Between checks, s.", 5, 1, 300),
                "timeout_s": whole("Of one check, s.", 10, 1, 300),
                "fall": whole("Failures until down.", 3, 1, 20),
                "rise": whole("Successes until up.", 2, 1, 20),
            },
        ),
    },
)
