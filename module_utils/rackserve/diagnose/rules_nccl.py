"""NCCL: what it prints when processes on GPUs do not find, reach or hear each other."""

from __future__ import annotations

from .case import ENGINE, RAY
from .rule import DEGRADED, DOWN, ENGINE_SYMPTOMS, HEALTH, PLAY, ROLL, Rule, said

_BOTH = (ENGINE, RAY)
_GENERIC = ("nccl-timeout", "nccl-system-error", "nccl-remote-error", "nccl-internal-error")

RULES = (
    Rule(
        "nccl-interface", "network", DOWN, 0.95,
        "NCCL was told to use a network interface that this host does not have",
        "NCCL_SOCKET_IFNAME or GLOO_SOCKET_IFNAME names another interface than cluster.network.cluster_interface.",
        "ip -br addr on {host}; correct cluster.network.cluster_interface, or remove the drop-in or environment that "
        "overrides it",
        ROLL,
        said(
            r"Bootstrap : no socket interface found", r"no NCCL_SOCKET_IFNAME interface found",
            r"ncclSocketInit: connecting to address .*with family \d+ is neither",
            r"Unable to find address for: (?P<interface>\S+)", r"No interface found in the same subnet",
            r"NCCL_SOCKET_IFNAME.*(?:not found|does not exist)", kinds=_BOTH,
        ),
        (*ENGINE_SYMPTOMS, *_GENERIC),
    ),
    Rule(
        "nccl-net-name", "configuration", DOWN, 0.93,
        "NCCL_NET names adapters, which it does not take",
        "Its value is the name of a plugin such as IB or Socket; adapters belong into NCCL_IB_HCA.",
        "remove NCCL_NET from engine env; NCCL_IB_HCA names adapters",
        ROLL,
        said(r"Failed to initialize any NET plugin", r"NCCL WARN.*NCCL_NET", r"Error: network (?P<net>\S+) not found",
             kinds=_BOTH),
        (*ENGINE_SYMPTOMS, *_GENERIC),
    ),
    Rule(
        "nccl-topo-file", "configuration", DOWN, 0.93,
        "NCCL cannot read the topology file that it was given",
        "A handmade topology is worse than none: NCCL finds the real one itself.",
        "remove NCCL_TOPO_FILE from the environment of the engine",
        PLAY + "check-topology.yml --limit {host}",
        said(r"XML Parse(?: error)? ?:", r"Could not open XML topology file", r"XML Import .*(?:expected|failed)",
             kinds=_BOTH),
        (*ENGINE_SYMPTOMS, *_GENERIC),
    ),
    Rule(
        "nccl-ib-transport", "network", DOWN, 0.9,
        "an RDMA transfer between hosts was not answered",
        "Completion status 12: the fabric lost packets, the partner is gone, or GID and MTU differ between hosts.",
        "compare ports, GID and MTU of both hosts: playbooks/check-health.yml; then the switch ports between them",
        PLAY + "check-health.yml",
        said(
            r"NET/IB ?: Got completion from peer .* (?:with )?(?:status=12|error 12)\b",
            r"NET/IB.*IBV_WC_RETRY_EXC_ERR", r"ibv_modify_qp failed with error (?:Connection timed out|No such device)",
            kinds=_BOTH,
        ),
        (*ENGINE_SYMPTOMS, *_GENERIC),
    ),
    Rule(
        "nccl-ib-missing", "network", DEGRADED, 0.8,
        "NCCL found no RDMA adapter and talks over TCP",
        "Adapters are down, not allowed for the unit, or NCCL_IB_HCA names others.",
        "check the adapters of {host}; the unit needs DeviceAllow=char-infiniband_verbs, which site.yml writes",
        HEALTH,
        said(r"NET/IB ?: No device found", r"NET/IB ?: No IP interface found", kinds=_BOTH,
             unless=r"NCCL_IB_DISABLE"),
    ),
    Rule(
        "nccl-versions", "release", DOWN, 0.9,
        "processes of one group run different NCCL versions",
        "Hosts of a group must run the same release.",
        "compare readlink /opt/rackserve/current of the hosts; site.yml installs the plan's release",
        PLAY + "site.yml",
        said(r"NCCL WARN Mismatched NCCL version", r"NCCL version mismatch", r"wrong type \d+ != \d+", kinds=_BOTH),
        (*ENGINE_SYMPTOMS, *_GENERIC),
    ),
    Rule(
        "nccl-port-closed", "network", DOWN, 0.88,
        "a process of an engine cannot connect to one on another host",
        "A firewall of the site, or of ours with an older plan, closes the ports between members of a group.",
        "nft list table inet rackserve on {host}; site.yml loads the plan's rules",
        PLAY + "site.yml",
        said(r"NCCL WARN.*(?:socketPollConnect|socketStartConnect|Connect to \S+).*"
             r"(?:Connection refused|No route to host|timed out)",
             r"\[c10d\] The client socket has (?:failed to connect|timed out)", kinds=_BOTH),
        (*ENGINE_SYMPTOMS, *_GENERIC),
    ),
    Rule(
        "nccl-remote-error", "network", DOWN, 0.7,
        "another process of the group ended or lost its connection",
        "This process is a witness: the cause is on the peer that the line names.",
        "look at the engine's log on the peer: journalctl -u {unit} there, at the same second",
        PLAY + "check-health.yml",
        said(r"ncclRemoteError", r"Connection closed by remote peer", r"NCCL error: remote process exited",
             kinds=_BOTH),
        (*ENGINE_SYMPTOMS, "nccl-timeout"),
    ),
    Rule(
        "nccl-timeout", "network", DOWN, 0.8,
        "a collective of {op} was not finished in time",
        "One process of the group hangs or is gone, or the network between them stands still.",
        "find the rank that did not arrive: its host has the oldest last line; NCCL_TIMEOUT is no setting of NCCL",
        PLAY + "check-health.yml",
        said(r"Watchdog caught collective operation timeout: WorkNCCL\(.*OpType=(?P<op>\w+)",
             r"Timeout at NCCL work", r"Timed out after \d+ seconds waiting for clients", kinds=_BOTH),
        ENGINE_SYMPTOMS,
    ),
    Rule(
        "nccl-system-error", "network", DOWN, 0.65,
        "a system call of NCCL failed",
        "Sockets, shared memory or RDMA did not do what NCCL asked; a line above says which.",
        "set NCCL_DEBUG=WARN for the engine, roll it, and read the line before this one",
        ROLL,
        said(r"ncclSystemError", r"NCCL error.*unhandled system error", r"NCCL_ERROR_SYSTEM_ERROR", kinds=_BOTH),
        ENGINE_SYMPTOMS,
    ),
    Rule(
        "nccl-internal-error", "network", DOWN, 0.6,
        "NCCL could not start, and does not say why",
        "Internal check failed: wrong environment, or a driver that does not fit.",
        "set NCCL_DEBUG=INFO for one start and read what it says before this line",
        ROLL,
        said(r"ncclInternalError", r"ncclInvalidUsage", r"ncclUnhandledCudaError", r"NCCL error.*unhandled cuda error",
             kinds=_BOTH),
        ENGINE_SYMPTOMS,
    ),
)  # fmt: skip
