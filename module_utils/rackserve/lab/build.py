"""The lab as a whole: bring it to what is described, or take it away."""

from __future__ import annotations

import ipaddress
import shutil
from pathlib import Path

from . import hosts, machine, network
from .spec import Host, Lab, LabError, Run, check

# A root of the hosts' own image that is never booted: releases are built in it.
BUILDER = Host("builder", "")

# Where hosts find their hardware and, on one of them, the packages of the site's mirror.
HARDWARE = "/usr/local/lib/rackserve-lab/hardware"
MIRROR = "/srv/mirror"

SSH_CONFIG = """\
Host {names}
  User root
  IdentityFile {key}
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  StrictHostKeyChecking yes
"""


def up(lab: Lab, run: Run, boot: Path, min_disk_mib: int, min_memory_mib: int) -> dict[str, list[str]]:
    """Build what is missing and finish what is half built; {host or 'network' or 'client': what was done}."""
    check(lab)
    machine.refuse(lab, run, min_disk_mib, min_memory_mib)
    hosts.refuse_other_image(lab, [*lab.hosts, BUILDER])
    lab.state_dir.mkdir(parents=True, exist_ok=True)
    present = network.namespaces()
    done: dict[str, list[str]] = {"network": network.ensure_hub(lab, run, present)}
    done["client"] = ["key"] if hosts.ensure_key(lab.client_key, "rackserve-lab", run) else []
    bridge_links, mounted = network.links(run, lab.hub), hosts.mounts()
    for host in lab.hosts:
        # A namespace or a mount that is new cannot belong to a running host: such a host is started afresh.
        rebuilt = not (lab.namespace(host) in present and f"v-{host.name}" in bridge_links)
        rebuilt |= str(lab.root_dir(host)) not in mounted
        rebuilt |= hosts.supervisor_pid(lab, host) is None
        changed = not rebuilt and hosts.booted_otherwise(lab, host)
        steps: list[str] = []
        if (rebuilt or changed) and hosts.stop(lab, [host.name]):
            steps.append("stopped: other machine or binds" if changed else "stopped a half-built host")
        if network.ensure_host_link(lab, host, run, present, bridge_links):
            steps.append("link")
        if hosts.ensure_root(lab, host, run, mounted):
            steps.append("root")
        steps += hosts.ensure_identity(lab, host, run)
        if hosts.supervisor_pid(lab, host) is None:
            hosts.start(lab, host, boot)
            hosts.record_boot(lab, host)
            steps.append("booted")
        done[host.name] = steps
    done["builder"] = ["root"] if hosts.ensure_root(lab, BUILDER, run, mounted) else []
    hosts.wait_for_ssh(lab, list(lab.hosts))
    done["client"] += [path.name for path, text in client_files(lab).items() if hosts.write(path, text, 0o600)]
    return {name: steps for name, steps in done.items() if steps}


def with_light_nodes(named: list[dict[str, str]], extra: int, subnet: str, machine: str = "") -> list[dict[str, str]]:
    """The named hosts and `extra` light ones (`light1`…), each with a free address of the subnet from the top down.

    `machine` is the hardware profile that the light ones simulate.
    """
    taken = {host["address"] for host in named}
    try:
        free = [str(address) for address in ipaddress.ip_network(subnet).hosts() if str(address) not in taken][1:]
    except ValueError as error:
        raise LabError(f"lab_host_subnet: {error}; write a network such as 10.77.0.0/24") from error
    if extra > len(free):
        raise LabError(f"lab_host_extra_nodes {extra}: {subnet} has room for {len(free)} more; take a larger subnet")
    light = {"machine": machine} if machine else {}
    return named + [{"name": f"light{i + 1}", "address": free[-1 - i], **light} for i in range(extra)]


def with_binds(
    listed: list[dict[str, str]], machines: dict[str, str], mirror: str, mirror_host: str
) -> list[dict[str, object]]:
    """Hosts with the folders they see: those with a machine its hardware, one of them the mirror.

    `machines` are the folders of built machines by profile; `mirror` is "" where there is none.
    """
    bound: list[dict[str, object]] = []
    for host in listed:
        profile = host.get("machine", "")
        if profile and profile not in machines:
            raise LabError(
                f"lab host {host['name']}: machine {profile} was not built; see files/hardware/{profile}.yml"
            )
        binds = [f"{machines[profile]}:{HARDWARE}"] if profile else []
        binds += [f"{mirror}:{MIRROR}"] if mirror and host["name"] == mirror_host else []
        bound.append({**host, "binds": binds})
    return bound


def client_files(lab: Lab) -> dict[Path, str]:
    """What a client needs to log in: known_hosts for Ansible, an ssh_config for people and testinfra."""
    known, config = [], []
    for host in lab.hosts:
        key = (lab.host_dir(host) / "ssh_host_ed25519_key.pub").read_text().split()
        known.append(f"{host.name},{host.address} {key[0]} {key[1]}\n")
        config.append(f"Host {host.name}\n  HostName {host.address}\n")
    names = " ".join(f"{host.name} {host.address}" for host in lab.hosts)
    config.append(SSH_CONFIG.format(names=names, key=lab.client_key, folder=lab.client_dir))
    return {lab.client_dir / "known_hosts": "".join(known), lab.client_dir / "ssh_config": "".join(config)}


def close_connections(lab: Lab, run: Run) -> list[str]:
    """End the ssh processes that keep connections to the hosts open; a socket nobody serves is deleted."""
    done = []
    for control in sorted(lab.control_dir.glob(f"{lab.prefix}-*")):
        run(["ssh", "-O", "exit", "-S", str(control), control.name])
        control.unlink(missing_ok=True)
        done.append(f"connection {control.name}")
    return done


def built_names(lab: Lab) -> list[str]:
    """Hosts that have a folder, whether this description names them or not."""
    folder = lab.state_dir / "hosts"
    return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []


def down(lab: Lab, run: Run) -> list[str]:
    """Stop and remove everything the lab made on this machine, but not the image; what was removed, as words."""
    names = built_names(lab)
    done = close_connections(lab, run)
    done += [f"host {name}" for name in hosts.stop(lab, names)]
    done += [f"mount {point}" for point in hosts.unmount(lab, names, run)]
    done += network.remove(lab, run)
    done += [f"cgroup {group}" for group in hosts.remove_cgroups(lab)]
    for name in names:
        shutil.rmtree(lab.state_dir / "hosts" / name)
        done.append(f"folder hosts/{name}")
    return done
