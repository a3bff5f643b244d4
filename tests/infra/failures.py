"""Failures for diagnose: each put on a lab host, and taken off again; beside the catalogue of simulated faults."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

NODE, LOST = "node3", "node4"
GATEWAY = "rackserve-gateway.service"
TLS = "/etc/rackserve/gateway/tls.pem"
LEASE = "/var/lib/rackserve/lease.json"


@dataclass(frozen=True)
class Failure:
    """Shell lines on a host; they may name {unit}, {name}, {address}, {port}, {model}, {folder}.

    `until`: a line that says `yes` once the failure shows.
    """

    name: str
    cause: str
    inject: Sequence[str]
    undo: Sequence[str]
    on: str = NODE
    until: str = ""


RELOAD = "systemctl daemon-reload"
DROP_IN = "/etc/systemd/system/{unit}.d"
START = "systemctl reset-failed {unit}; systemctl start --no-block {unit}"
NO_DROP_IN = (f"rm -rf {DROP_IN}", RELOAD)
# The unit's own command with one word more.
FLAG = (
    f"mkdir -p {DROP_IN}; {{{{ echo '[Service]'; echo 'ExecStart='; sed -n '/^ExecStart=/,/[^\\\\]$/p' "
    f"/etc/systemd/system/{{unit}} | sed '$s/$/ --use-v2-block-manager/'; }}}} > {DROP_IN}/flag.conf"
)
FAILED = "[ $(systemctl show -P ActiveState {unit}) = failed ] && echo yes; exit 0"


def _drop_in(name: str, text: str) -> str:
    return f"mkdir -p {DROP_IN}; printf '[Service]\\n{text}\\n' > {DROP_IN}/{name}.conf"


ENGINES = (
    Failure("a flag that vLLM does not know, in a drop-in", "engine-bad-argument",
            (FLAG, RELOAD, "systemctl restart --no-block {unit}"), (*NO_DROP_IN, START), until=FAILED),
    Failure("a variable that vLLM does not know, in a drop-in", "engine-bad-environment",
            (_drop_in("env", "Environment=VLLM_SWAP_SPACE=4"), RELOAD, "systemctl restart --no-block {unit}"),
            (*NO_DROP_IN, START),
            until="journalctl -u {unit} --since -90s | grep -q 'Unknown vLLM environment' && echo yes; exit 0"),
    Failure("the engine's process killed", "unit-killed",
            ("systemctl kill -s KILL --kill-whom=main {unit}", "sleep 8"), (START,)),
    Failure("the engine stopped and forgotten", "unit-stopped", ("systemctl stop {unit}",), (START,)),
    Failure("the engine's unit masked", "unit-masked",
            ("systemctl stop {unit}", "mv {folder}/{unit} {folder}/.kept-unit",
             "ln -s /dev/null {folder}/{unit}", RELOAD),
            ("rm {folder}/{unit}", "mv {folder}/.kept-unit {folder}/{unit}", RELOAD, START)),
    Failure("another process on the engine's port", "port-in-use",
            ("systemctl stop {unit}",
             "systemd-run --quiet --collect --unit=squatter python3 -m http.server --bind {address} {port}", "sleep 2",
             "systemctl start --no-block {unit}"),
            ("systemctl stop squatter.service", "systemctl restart --no-block {unit}")),
    Failure("the engine frozen", "engine-frozen",
            ("systemctl kill -s STOP --kill-whom=main {unit}",), ("systemctl kill -s CONT --kill-whom=main {unit}",)),
)  # fmt: skip
FILES = (
    Failure("a byte of the weights changed", "weights-changed",
            ("cp -p {model}/model-00001-of-*.safetensors /run/kept.safetensors",
             "printf X | dd of=$(echo {model}/model-00001-of-*.safetensors) bs=1 seek=4000 conv=notrunc status=none"),
            ("cp -p /run/kept.safetensors $(echo {model}/model-00001-of-*.safetensors); rm /run/kept.safetensors",)),
    Failure("weights without their proof", "weights-not-ready", ("mv {model}/READY {model}/.READY",),
            ("mv {model}/.READY {model}/READY",)),
    Failure("weights that the engine's user may not read", "permission-denied", ("chmod 0700 {model}",),
            ("chmod 0755 {model}",)),
    Failure("a full disk", "disk-full",
            ("mount -t tmpfs -o size=20m tmpfs /tmp", "head -c 20400000 /dev/zero > /tmp/fill"), ("umount /tmp",)),
    Failure("a file system that became read-only", "read-only",
            ("mount --bind /var/lib/rackserve /var/lib/rackserve", "mount -o remount,ro,bind /var/lib/rackserve"),
            ("umount /var/lib/rackserve",)),
    Failure("the firewall flushed", "firewall-flushed", ("nft delete table inet rackserve",),
            ("nft -f /etc/rackserve/firewall/rackserve.nft",)),
    Failure("a secret that others may read", "secret-readable", ("chmod 0644 /etc/rackserve/vllm/{name}.secret.env",),
            ("chmod 0600 /etc/rackserve/vllm/{name}.secret.env",)),
    Failure("a unit that systemd cannot use", "unit-bad-file", (_drop_in("bad", "ExecStart="), RELOAD), NO_DROP_IN),
    Failure("a unit file that was touched", "unit-stale", ("touch {folder}/{unit}",), (RELOAD,)),
    Failure("a drop-in that is not ours", "unit-drop-in", (_drop_in("nice", "Nice=5"), RELOAD), NO_DROP_IN),
    Failure("a unit that will not start at boot", "unit-disabled", ("systemctl disable {unit}",),
            ("systemctl enable {unit}",)),
    Failure("the gateway stopped", "unit-stopped", (f"systemctl stop {GATEWAY}",), (f"systemctl start {GATEWAY}",),
            on="gw"),
    Failure("a lease that nobody can read", "lease-unreadable", (f"echo nothing > {LEASE}",),
            (f"rm {LEASE}",), on="gw"),
    Failure("a lease that was left", "lease-forgotten",
            ("echo '{{\"owner\": \"ada@ops1\", \"plan_hash\": \"x\", \"operation\": \"roll-serving\","
             f" \"acquired_at\": 1, \"expires_at\": 2}}}}' > {LEASE}",), (f"rm {LEASE}",), on="gw"),
)  # fmt: skip

# Faults of the catalogue, what is given to them, and the cause that has to be first.
FAULTS: tuple[tuple[str, dict[str, Any], str], ...] = (
    *(("xid", {"gpu": number % 8, "xid": number}, f"xid-{number}") for number in (31, 48, 63, 74, 79, 92, 94, 95, 119)),
    ("ecc-uncorrectable", {}, "gpu-ecc-uncorrectable"),
    ("ecc-off", {}, "gpu-ecc-mode"),
    ("remap-pending", {}, "gpu-remap-pending"),
    ("remap-failed", {}, "gpu-remap-failed"),
    ("gpu-off-bus", {"gpu": 3}, "gpu-lost"),
    ("gpu-absent", {"gpu": 5}, "gpu-init-failed"),
    ("gpu-hot", {}, "gpu-temperature"),
    ("nvlink-down", {}, "nvlink-inactive"),
    ("fabric-not-ready", {}, "fabric-state"),
    ("fabric-manager-absent", {}, "fabric-manager"),
    ("fabric-manager-version", {}, "fabric-manager-version"),
    ("driver-mismatch", {}, "driver-library-mismatch"),
    ("clocks-throttled", {}, "gpu-throttle"),
    ("pcie-narrower", {}, "gpu-pcie-width"),
    ("power-limit-low", {}, "gpu-power-limit"),
    ("persistenced-stopped", {}, "driver-daemons"),
    ("foreign-process", {}, "gpu-foreign-process"),
    ("orphan-memory", {}, "gpu-orphan-memory"),
    ("hca-down", {}, "rdma-port-down"),
    ("hca-slow", {}, "rdma-rate"),
    ("gid-missing", {}, "rdma-gid"),
    ("nvme-dead", {}, "disk-nvme"),
    ("disk-read-only", {}, "disk-read-only"),
    *(("kernel-log", {"message": one}, f"kernel-{one}") for one in ("aer", "mce", "hung-task", "sxid")),
    ("kernel-log", {"line": "Out of memory: Killed process 4242 (python3) total-vm:1kB"}, "host-oom"),
)


def expired(pem: str) -> str:
    """A certificate that ended long ago, with a key that is none: the file is looked at, and not loaded."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    der = ssl.PEM_cert_to_DER_cert(pem[pem.index(begin) : pem.index(end) + len(end)] + "\n")
    first = der.index(b"\x17\x0d")
    second = der.index(b"\x17\x0d", first + 2)
    old = der[: second + 2] + b"200101000000Z" + der[second + 15 :]
    return ssl.DER_cert_to_PEM_cert(old) + "-----BEGIN PRIVATE KEY-----\nnone\n-----END PRIVATE KEY-----\n"


def as_file(path: str, text: str) -> str:
    """A shell line that writes a text that is no secret, keeping mode and owner."""
    return f"echo {base64.b64encode(text.encode()).decode()} | base64 -d > {path}"
