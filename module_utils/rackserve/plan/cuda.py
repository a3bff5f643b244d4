"""Which CUDA toolkit, cuDNN and NCCL hosts get, and from where."""

from __future__ import annotations

from typing import Any

from .findings import Findings
from .sets.packages import chosen_distribution, packages_of

PARTS = ("cuda", "cudnn", "nccl")


def build_cuda(
    described: dict[str, Any], release: dict[str, Any] | None, hardware: dict[str, Any] | None, findings: Findings
) -> dict[str, Any] | None:
    """Return {parts: {part: {version, packages: {name: version}}}, repository} of the hosts with GPUs.

    None where the hardware has no GPU, the release names none of the parts, or the site brings its own; with a note
    where the site has no repository, and with an error finding where nothing says which packages they are.
    """
    parts = [part for part in PARTS if release and release[part]]
    if not release or not hardware or hardware["device"] != "cuda" or not parts:
        return None
    if described["cuda"] == "preinstalled":
        why = f"the site brings CUDA or does without; nothing checks that it is {release['cuda']}."
        findings.note("cuda-preinstalled", "cluster.cuda", why, "Leave it out to have it installed.")
        return None
    repository = described["repositories"]["nvidia"]
    if any(findings.broken(f"cluster.{key}") for key in ("repositories", "driver", "cuda")):
        return None
    if not repository:
        why = f"the release names CUDA {release['cuda']}, and no repository brings it; engines have their own."
        findings.note("cuda-without-repository", "cluster.repositories.nvidia", why, "Name it to have it installed.")
        return None
    distribution = chosen_distribution(described["distribution"], release, tuple(parts), findings)
    if not distribution or findings.broken(f"files/releases/{described['release']}.yml"):
        return None
    return {
        "parts": {
            part: {"version": release[part], "packages": packages_of(release, part, distribution)} for part in parts
        },
        "repository": repository,
    }
