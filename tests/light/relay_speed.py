"""How near a copy of weights comes to size / bandwidth, for 1, 2, 4 and 8 hosts with shaped links (needs root).

    .venv/bin/python tests/light/relay_speed.py [--hosts 1,2,4,8] [--mib 160] [--mbit 25] [--rounds 2]

Light hosts, the real module and unit, every file hashed on every host while it comes; the goal is 1.15. What the clock
counts: from the first host that begins to the last that has everything proven. Written to build/relay-speed.json too.
All hosts share the machine's cores, so the links are slow ones: it is they that have to be the limit.
Nothing here fails on a slow machine: it measures.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from light_lab import LightLab

REPORT = Path(__file__).resolve().parents[2] / "build/relay-speed.json"
FOLDER, PORT, MODEL, SHARDS = "/srv/models/relay-speed", 8690, "relay-speed", 6
GOAL = 1.15
USERS = "getent passwd rackserve-relay || useradd --system --shell /usr/sbin/nologin rackserve-relay; "
USERS += "getent group vllm || groupadd --system vllm"
MAKE = """
import hashlib, json, os, pathlib
folder = pathlib.Path("{folder}")
folder.mkdir(parents=True, exist_ok=True)
files = {{}}
for number in range({shards}):
    name, data = f"model-{{number}}.safetensors", os.urandom({size})
    (folder / name).write_bytes(data)
    files[name] = {{"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}}
print(json.dumps({{"version": 1, "files": files}}))
"""


class BareLab(LightLab):
    """Hosts without a release: nothing serves."""

    builds = False


def shape(lab: LightLab, mbit: int) -> dict[str, str]:
    """Limit what every host sends, which is what the next one gets; {host: address}."""
    for host in lab.hosts:
        lab.shell(host, f"tc qdisc replace dev host0 root tbf rate {mbit}mbit burst 64kb latency 50ms")
    return lab.place.hosts()


def parts_of(addresses: dict[str, str], names: list[str], manifest: str) -> dict[str, dict[str, Any]]:
    """The options of every host: the first has the files, each gets them from the one before."""
    token = secrets.token_hex(32)
    common = {
        "model": MODEL, "path": FOLDER, "manifest": manifest, "port": PORT, "token": token, "group": "vllm",
        "peers": [addresses[name] for name in names],
    }  # fmt: skip
    parts: dict[str, dict[str, Any]] = {}
    for place, name in enumerate(names):
        before = [{"name": one, "address": addresses[one], "port": PORT} for one in reversed(names[:place])]
        part = {"role": "receiver", "wanted": list(json.loads(manifest)["files"]), "parents": before}
        parts[name] = {**common, "address": addresses[name], **(part if place else {"role": "source"})}
    return parts


def copy_once(lab: LightLab, addresses: dict[str, str], names: list[str], manifest: str) -> dict[str, Any]:
    """One copy; {hosts, seconds, playbook_s}. RuntimeError where it fails."""
    for name in names[1:]:
        lab.shell(name, f"rm -rf {FOLDER}")
    with tempfile.TemporaryDirectory() as output:
        extra = {
            "relay_source": names[0],
            "relay_receivers": names[1:],
            "relay_parts": parts_of(addresses, names, manifest),
            "relay_output": output,
        }
        asked = Path(output) / "asked.json"
        asked.write_text(json.dumps(extra))
        asked.chmod(0o600)
        started = time.monotonic()
        lab.must("relay-speed", "-e", f"@{asked}")
        took_s = time.monotonic() - started
        asked.unlink()
        said = [json.loads(path.read_text()) for path in Path(output).glob("*.json")]
    assert len(said) == len(names) - 1, "not every host told"
    assert not any(one["left"] or one["resent"] for one in said), said
    seconds = max(one["ended"] for one in said) - min(one["began"] for one in said)
    return {"hosts": len(said), "seconds": round(seconds, 2), "playbook_s": round(took_s, 1)}


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """Boot, shape, copy, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--hosts", default="1,2,4,8", help="how many receive, one run each")
    parser.add_argument("--mib", type=int, default=160)
    parser.add_argument("--mbit", type=int, default=25)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--net", type=int, default=87, help="second octet of the light hosts' addresses")
    given = parser.parse_args()
    counts = [int(one) for one in given.hosts.split(",")]
    size = given.mib * (1 << 20) // SHARDS
    rows = []
    with BareLab(nodes=max(counts) + 1, net=given.net) as lab:
        shutil.copy(Path(__file__).with_suffix(".yml"), lab.tree / "playbooks/relay-speed.yml")
        nodes = [host for host in lab.hosts if host != "gw"]
        for host in nodes:
            lab.shell(host, USERS)
        manifest = lab.python(nodes[0], MAKE.format(folder=FOLDER, shards=SHARDS, size=size)).strip()
        manifest = json.dumps(json.loads(manifest), indent=1, sort_keys=True) + "\n"
        lab.shell(nodes[0], f"chmod 755 {FOLDER}; chmod 644 {FOLDER}/*")
        ready = {"path": FOLDER, "manifest": manifest, "fail": True}
        done = lab.ansible(nodes[0], "-m", "model_verify", "-a", json.dumps(ready))
        assert done.returncode == 0, done.stdout + done.stderr
        addresses = shape(lab, given.mbit)
        floor_s = size * SHARDS * 8 / (given.mbit * 1_000_000)
        say(f"{size * SHARDS / 1e6:.1f} MB at {given.mbit} Mbit/s: size / bandwidth is {floor_s:.2f} s")
        for count in counts:
            for _ in range(given.rounds):
                row = copy_once(lab, addresses, nodes[: count + 1], manifest)
                row["ratio"] = round(row["seconds"] / floor_s, 3)
                rows.append(row)
                verdict = "within" if row["ratio"] <= GOAL else "above"
                say(f"{count} hosts: {row['seconds']:.2f} s, {row['ratio']:.2f} x, {verdict} {GOAL}")
    digest = hashlib.sha256(manifest.encode()).hexdigest()
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    told = {"mib": given.mib, "mbit": given.mbit, "floor_s": round(floor_s, 3), "manifest": digest, "rows": rows}
    REPORT.write_text(json.dumps(told, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
