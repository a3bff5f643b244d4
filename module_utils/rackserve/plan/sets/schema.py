"""The fields of a release set, `files/releases/<release>.yml`; `docs/releases.md` prints them."""

from __future__ import annotations

from ..schema import Field
from .known import DISTRIBUTIONS

PARTS = ("driver", "fabric_manager", "cuda", "cudnn", "nccl", "rdma_core", "doca")
"""What is installed as packages; each is also the key of its version."""

SOURCES = ("distribution", "nvidia", "doca", "mirror", "bundle")
SET_ID = "[0-9a-f]{12}"


def _text(doc: str, nullable: bool = True) -> Field:
    return Field("text", doc, nullable=nullable, required=not nullable)


def _version(doc: str, pattern: str, means: str) -> Field:
    return Field("text", doc, nullable=True, pattern=pattern, pattern_means=means)


_DRIVER = r"\d{3}\.\d{2,3}(\.\d{2})?"
_DRIVER_MEANS = "a driver's version like 580.65.06"
_TWO = r"\d{1,2}\.\d{1,2}"
_THREE = r"\d{1,2}\.\d{1,2}\.\d{1,2}"
_DEBIAN = Field(
    "text",
    "A package's full version.",
    required=True,
    pattern=r"[0-9][A-Za-z0-9.+~:-]*",
    pattern_means="a package's full version",
)
_DISTRIBUTION = Field("text", "", choices=tuple(DISTRIBUTIONS))

_PACKAGES = Field(
    "object",
    "Packages of one part for some distributions.",
    keys={
        "part": Field("text", "What they are.", required=True, choices=PARTS),
        "source": Field(
            "text",
            "The distribution's archive, NVIDIA's CUDA or DOCA repository, the site's own mirror, an offline bundle.",
            required=True,
            choices=SOURCES,
        ),
        "distributions": Field("list", "Operating systems they are for.", required=True, low=1, item=_DISTRIBUTION),
        "versions": Field(
            "map",
            "Name to exact version.",
            required=True,
            pattern=r"[a-z0-9][a-z0-9.+-]+",
            pattern_means="a package's name",
            item=_DEBIAN,
        ),
    },
)

_ARTEFACT = Field(
    "object",
    "A file that is known by its hash.",
    keys={
        "part": Field("text", "What it is of.", required=True, choices=PARTS),
        "file": Field("text", "Its name, which carries the part's version.", required=True),
        "uri": Field(
            "text",
            "Folder in which its maker offers it.",
            nullable=True,
            pattern=r"https://[A-Za-z0-9._~/:%+-]+/",
            pattern_means="an https address that ends in /",
        ),
        "sha256": Field(
            "text",
            "Its SHA-256 in hexadecimal.",
            required=True,
            pattern="[0-9a-f]{64}",
            pattern_means="64 lower-case hexadecimal digits",
        ),
    },
)

_RECORD = Field(
    "object",
    "One place where the set ran.",
    keys={
        "set": Field(
            "text",
            "The set's id as `show-plan` prints it; another id means that the set was changed since.",
            required=True,
            pattern=SET_ID,
            pattern_means="a set's id (12 lower-case hexadecimal digits)",
        ),
        "hardware": Field("text", "Hardware profile it ran on.", required=True),
        "simulated": Field("flag", "Its GPUs and driver were simulated.", required=True),
        "date": Field(
            "text",
            "When, in quotes.",
            required=True,
            pattern=r"\d{4}-\d{2}-\d{2}",
            pattern_means="a date like 2026-11-25",
        ),
        "what": _text("What was seen to work.", nullable=False),
    },
)

RELEASE = Field(
    "object",
    "A release set.",
    required=True,
    keys={
        "doc": _text("What it is for.", nullable=False),
        "device": Field("text", "What engines run on.", required=True, choices=("cpu", "cuda")),
        "built": Field("flag", "rackserve can build and install its engine.", required=True),
        "distributions": Field("list", "Operating systems it is for.", required=True, low=1, item=_DISTRIBUTION),
        "python": _version("Python that the engine brings along.", r"3\.\d{1,2}", 'a Python like "3.11"'),
        "vllm": _text("vLLM: its version, after the package's name where that is not vllm."),
        "torch": _version("PyTorch, exactly what vLLM pins.", r"\d{1,2}\.\d{1,2}\.\d{1,2}", "a version like 2.14.0"),
        "torch_cuda": _version("CUDA of torch's wheels; null for a CPU build.", _TWO, 'a CUDA like "13.0"'),
        "ray": _version("Ray, installed beside vLLM; null: none.", _THREE, "a version like 2.60.0"),
        "driver_branch": _version("The driver's branch.", r"\d{3}", 'a branch like "580"'),
        "driver": _version("GPU driver; null: none is installed.", _DRIVER, _DRIVER_MEANS),
        "kernel_modules": Field(
            "text", "Which of the driver's kernel modules.", choices=("open", "proprietary"), nullable=True
        ),
        "fabric_manager": _version("Fabric Manager, exactly the driver's version.", _DRIVER, _DRIVER_MEANS),
        "persistenced": _version("nvidia-persistenced, exactly the driver's version.", _DRIVER, _DRIVER_MEANS),
        "cuda": _version("CUDA toolkit on hosts.", _THREE, "a toolkit like 13.0.0 (13.0 Update 2 is 13.0.2)"),
        "cudnn": _version("cuDNN on hosts; torch's wheels bring their own.", _THREE, "a version like 9.12.0"),
        "nccl": _version("NCCL on hosts; torch's wheels bring their own.", _THREE, "a version like 2.27.7"),
        "rdma_core": Field(
            "map",
            "rdma-core by distribution.",
            pattern="|".join(DISTRIBUTIONS),
            pattern_means=f"one of {', '.join(DISTRIBUTIONS)}",
            item=Field("text", "", pattern=r"\d{1,3}\.\d{1,2}", pattern_means='a version like "39.0"'),
        ),
        "doca": _version("DOCA; null: the distribution's rdma-core is used.", _THREE, "a version like 3.1.0"),
        "packages": Field("list", "Packages by part and distribution.", item=_PACKAGES),
        "artefacts": Field("list", "Files with known hashes, for a bundle and for checks.", item=_ARTEFACT),
        "options": _text("Engine options it knows: `files/options/<options>.yml`; null: names are not checked."),
        "lock": _text("Lock file of the engine, relative to the repository."),
        "router": Field(
            "object",
            "The router of gateways; null: none can be had with this set.",
            nullable=True,
            keys={
                "version": Field(
                    "text", "vllm-router.", required=True, pattern=_THREE, pattern_means="one like 0.1.17"
                ),
                "lock": Field("text", "Its lock file, relative to the repository.", required=True),
            },
        ),
        "engine_command": Field(
            "list",
            "Interpreter and module, relative to the release.",
            required=True,
            low=1,
            item=_text("A word.", nullable=False),
        ),
        "proven_on": Field("list", "Where exactly this set ran.", item=_RECORD),
        "sources": Field("argument", "Where values come from: citations by id."),
        "cites": Field("argument", "The source of each value by its path; `unverified`: nobody could establish it."),
    },
)
