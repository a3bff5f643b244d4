"""Ray: a head that is gone, tokens and versions that differ, nodes that do not come."""

from __future__ import annotations

from .case import ENGINE, RAY, UNIT
from .rule import DOWN, ENGINE_SYMPTOMS, HEALTH, ROLL, SITE, Rule, said

_BOTH = (RAY, ENGINE, UNIT)
_GROUP = (*ENGINE_SYMPTOMS, "ray-nodes-missing", "nccl-remote-error", "nccl-timeout")

RULES = (
    Rule(
        "ray-head-gone", "ray", DOWN, 0.9, "the head of the Ray cluster is gone or cannot be reached",
        "Without its GCS every worker and the driver end.",
        "systemctl status rackserve-ray.service on the head's host; roll-serving.yml starts the whole group in order",
        ROLL,
        said(r"Failed to connect to GCS",
             r"GCS (?:server )?(?:may have died|has died|is unreachable|connection timeout)",
             r"Unable to connect to GCS", r"The node .* has been marked dead because the detector has missed",
             r"RpcError.*failed to connect to all addresses.*6379", r"Failed to get cluster ID from GCS",
             r"Ray.*head.*(?:not reachable|unreachable)", kinds=_BOTH),
        _GROUP,
    ),
    Rule(
        "ray-token", "ray", DOWN, 0.94, "the token of the Ray cluster is missing or wrong on this host",
        "RAY_AUTH_MODE=token must be set, and the same token stand, on every host.",
        "site.yml writes the token of the vault to every host; then roll-serving.yml", SITE,
        said(r"AuthenticationError", r"(?:Invalid|Missing|Wrong) (?:Ray )?auth(?:entication)? token",
             r"Unauthenticated.*(?:token|[Rr]ay)", r"Token authentication is enabled but no", kinds=_BOTH,
             unless=r"openai|huggingface"),
        ("ray-head-gone", *_GROUP),
    ),
    Rule(
        "ray-versions", "ray", DOWN, 0.95, "Ray or Python versions differ between hosts of a cluster",
        "Ray refuses a node of another version.",
        "compare readlink /opt/rackserve/current; site.yml installs the plan's",
        SITE,
        said(r"Version mismatch: The cluster was started with", r"Ray: \S+.*Python: \S+.*This process",
             r"has a different (?:Ray|Python) version", kinds=_BOTH),
        ("ray-head-gone", *_GROUP),
    ),
    Rule(
        "ray-nodes-missing", "ray", DOWN, 0.8, "the Ray cluster has fewer GPUs than the engine needs",
        "A worker's host did not join.", "see which host is missing: systemctl status rackserve-ray.service on each",
        HEALTH,
        said(r"No available node types can fulfill resource request", r"Cannot provide a placement group",
             r"The number of required GPUs exceeds the total number of available GPUs",
             r"Current node has no GPU available", r"placement group.*(?:infeasible|cannot be scheduled)", kinds=_BOTH),
        ("engine-loading", "engine-ready-timeout", *ENGINE_SYMPTOMS),
    ),
    Rule(
        "ray-object-store", "ray", DOWN, 0.8, "Ray's object store does not fit into /dev/shm",
        "Ray would fall back to a disk, which is slow.", "raise /dev/shm or lower object-store-memory",
        "ssh {host} df -h /dev/shm",
        said(r"object store is using /tmp instead of /dev/shm",
             r"The configured object store size .* exceeds", kinds=_BOTH),
    ),
    Rule(
        "ray-port-range", "ray", DOWN, 0.88, "a port of Ray lies within its own range of worker ports",
        "Ray ends when ports collide.", "let the plan choose the ports: remove them from the description", SITE,
        said(r"Ray component \S+ is trying to use a port number \d+ that is used by other components",
             r"port conflicts?.*worker port", kinds=_BOTH),
        _GROUP,
    ),
)  # fmt: skip
