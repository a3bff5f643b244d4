"""On-call tools over plain SSH: `fab status -i inventories/lab`, `fab logs`, `fab gpus`, `fab rerun`, `fab bundle`.

They need no Ansible run and no Python on the hosts: bash, systemd and coreutils. What they do is in
module_utils/rackserve/oncall; here are the two things that it may not import, Fabric and Ansible's inventory.
docs/oncall.md explains each.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fabric import Config, Connection
from invoke import Exit, task
from paramiko import RejectPolicy

REPO = Path(__file__).resolve().parent
sys.path.insert(0, str(REPO / "module_utils"))

from rackserve.oncall import bundle as archive  # noqa: E402 - needs the path above
from rackserve.oncall import gpus as cards  # noqa: E402 - needs the path above
from rackserve.oncall import hosts as reach  # noqa: E402 - needs the path above
from rackserve.oncall import rerun as again  # noqa: E402 - needs the path above
from rackserve.oncall import script, sweep  # noqa: E402 - needs the path above
from rackserve.oncall import status as overview  # noqa: E402 - needs the path above

LAB = "inventories/lab"
CONNECT_S, ANSWER_S, COLLECT_S = 5, 20, 240
LEFT_OUT = (
    "encrypted, and no vault password for it is configured: left out. How hosts are reached must not stand "
    "there, or set ANSIBLE_VAULT_PASSWORD_FILE"
)
# One for all connections: each would read ~/.ssh/config again.
SHARED = Config()


def source_of(inventory: str) -> Path:
    """The inventory's file; a folder stands for its hosts.yml."""
    path = Path(inventory)
    path = path if path.is_absolute() else Path.cwd() / path
    path = path / "hosts.yml" if path.is_dir() else path
    if not path.exists():
        raise Exit(f"{path}: no such inventory; give -i inventories/<site>")
    return path


def inventory_loader() -> tuple[Any, list[str]]:
    """Ansible's reader of files, with the vault passwords that are configured, and which files it could not decrypt."""
    from ansible import constants  # noqa: PLC0415 - see read_inventory
    from ansible.errors import AnsibleError  # noqa: PLC0415 - see above
    from ansible.parsing.dataloader import DataLoader  # noqa: PLC0415 - see above
    from ansible.parsing.vault import AnsibleVaultError, VaultSecretsContext  # noqa: PLC0415 - see above

    left_out: list[str] = []

    class Loader(DataLoader):
        """Leaves out what it cannot decrypt: secrets are not needed to reach a host."""

        def load_from_file(self, file_name: str, *given: Any, **options: Any) -> Any:
            try:
                return super().load_from_file(file_name, *given, **options)
            except AnsibleVaultError:
                left_out.extend({str(file_name)}.difference(left_out))
                return {}

    loader, secrets, named = Loader(), [], list(constants.DEFAULT_VAULT_IDENTITY_LIST or [])
    if named or constants.DEFAULT_VAULT_PASSWORD_FILE:
        try:
            from ansible.cli import CLI  # noqa: PLC0415 - see above

            secrets = CLI.setup_vault_secrets(loader, named, auto_prompt=False, initialize_context=False)
        except (AnsibleError, SystemExit) as problem:
            sys.stderr.write(f"no vault password: {' '.join(str(problem).split())}\n")
    loader.set_vault_secrets(secrets)
    if VaultSecretsContext.current(optional=True) is None:
        VaultSecretsContext.initialize(VaultSecretsContext(secrets))  # for single values; once a process
    return loader, left_out


def read_inventory(source: Path) -> list[reach.Host]:
    """Every host that is reached by SSH, as Ansible itself reads the inventory."""
    from ansible.inventory.manager import InventoryManager  # noqa: PLC0415 - costs half a second
    from ansible.template import Templar  # noqa: PLC0415 - see above
    from ansible.vars.manager import VariableManager  # noqa: PLC0415 - see above

    loader, left_out = inventory_loader()
    inventory = InventoryManager(loader=loader, sources=[str(source)])
    variables = VariableManager(loader=loader, inventory=inventory)
    found = []
    for host in inventory.get_hosts("all"):
        known = variables.get_vars(host=host, include_hostvars=False)
        if left_out:
            sys.stderr.write(f"{', '.join(left_out)}: {LEFT_OUT}\n")
            left_out.clear()
        templar = Templar(loader, variables=known)
        ways = {name: templar.template(known[name]) for name in reach.VARIABLES if name in known}
        way = reach.host_from(host.name, [group.name for group in host.get_groups()], ways)
        if way:
            found.append(way)
    return found


def signature(source: Path) -> str:
    """Changes with every file that the inventory is made of."""
    folder, told = source.parent, [str(source)]
    for path in sorted([source, *folder.glob("group_vars/**/*"), *folder.glob("host_vars/**/*")]):
        seen = path.stat()
        told.append(f"{path}:{seen.st_mtime_ns}:{seen.st_size}")
    # What could not be decrypted was left out; it is read with a password.
    told += [os.environ.get(f"ANSIBLE_{name}", "") for name in ("CONFIG", "VAULT_PASSWORD_FILE", "VAULT_IDENTITY_LIST")]
    config = REPO / "ansible.cfg"
    told.append(str(config.stat().st_mtime_ns if config.exists() else ""))
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


def inventory_hosts(inventory: str) -> list[reach.Host]:
    """The inventory's hosts. What Ansible read is kept: a second, and the way in when Ansible itself is broken."""
    source = source_of(inventory)
    kept = REPO / ".cache/oncall" / f"{hashlib.sha256(str(source).encode()).hexdigest()[:16]}.json"
    now = signature(source)
    old = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
    hosts = [reach.Host(*row[:1], tuple(row[1]), *row[2:]) for row in old.get("hosts", [])]
    if old.get("signature") == now:
        return hosts
    try:
        found = read_inventory(source)
    except reach.HostError as problem:
        raise Exit(str(problem)) from None
    except Exception as problem:
        if not hosts:
            raise Exit(f"{source} cannot be read: {' '.join(str(problem).split())}") from None
        sys.stderr.write(f"{source} cannot be read ({' '.join(str(problem).split())}); hosts are those of earlier\n")
        return hosts
    kept.parent.mkdir(parents=True, exist_ok=True)
    part = kept.with_name(f"{kept.name}.{os.getpid()}")
    part.write_text(json.dumps({"signature": now, "hosts": found}), "utf-8")
    part.replace(kept)
    return found


def connect(host: reach.Host) -> Connection:
    """A connection that refuses a host whose key is not the noted one; Fabric by itself would take any."""
    keys: dict[str, Any] = {"allow_agent": not host.own_key_only, "look_for_keys": not host.own_key_only}
    if host.key_file:
        keys["key_filename"] = str(Path(host.key_file).expanduser())
    keys.update(banner_timeout=CONNECT_S, auth_timeout=CONNECT_S)
    connection = Connection(
        host.address,
        user=host.user or None,
        port=host.port,
        config=SHARED,
        gateway=host.proxy or None,
        connect_timeout=CONNECT_S,
        connect_kwargs=keys,
    )
    connection.client.set_missing_host_key_policy(RejectPolicy())
    if host.known_hosts:
        connection.client.load_host_keys(str(Path(host.known_hosts).expanduser()))
    else:
        connection.client.load_system_host_keys()
    return connection


def asker(text: str, limit_s: int) -> sweep.Ask:
    """Runs a script on a host and returns its output."""

    def ask(host: reach.Host) -> str:
        with connect(host) as connection:
            words = script.shell_command(text, host.become)
            done = connection.run(words, hide=True, warn=True, in_stream=False, timeout=limit_s)
        if not done.stdout and done.failed:
            raise RuntimeError(done.stderr.strip() or f"its shell ended with {done.exited}")
        return str(done.stdout)

    return ask


def chosen(inventory: str, limit: str) -> list[reach.Host]:
    """The hosts that a command is about."""
    try:
        return reach.choose(inventory_hosts(inventory), limit)
    except reach.HostError as problem:
        raise Exit(str(problem)) from None


def show(lines: list[str]) -> None:
    """Print lines."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def finish(fine: bool) -> None:
    """Exit with 1 where something is not as it should be, at once: threads of silent hosts are not waited for."""
    sys.stdout.flush()
    os._exit(0 if fine else 1)


@task(help={"inventory": "folder or file of the inventory", "limit": "hosts or groups, such as node3 or gpu,!node3"})
def status(_context, inventory=LAB, limit=""):
    """Every host in one table: engines, in flight, drained, GPUs, load, disk, health; below it what is wrong."""
    hosts = chosen(inventory, limit)
    lines, fine = overview.table(hosts, sweep.sweep(hosts, asker(script.STATUS, ANSWER_S), ANSWER_S))
    show(lines)
    finish(fine)


@task(
    help={
        "host": "the host",
        "unit": "unit or pattern",
        "since": "'1 hour ago'",
        "lines": "how many",
        "follow": "go on",
    }
)
def logs(_context, host, *, inventory=LAB, unit="vllm-*", since="", lines=200, follow=False):
    """The journal of one host's units."""
    (one, *others) = chosen(inventory, host)
    if others:
        raise Exit(f"{host} names {len(others) + 1} hosts; logs shows one")
    try:
        words = script.journal_command(unit, since, lines, follow, one.become)
    except ValueError as problem:
        raise Exit(str(problem)) from None
    with connect(one) as connection:
        done = connection.run(words, warn=True, in_stream=False, pty=follow)
    raise Exit(code=done.exited)


@task(help={"inventory": "folder or file of the inventory", "limit": "hosts or groups"})
def gpus(_context, inventory=LAB, limit="gpu"):
    """Every GPU: load, memory, heat, power, clock, errors; who uses it; the last Xids."""
    hosts = chosen(inventory, limit)
    lines, fine = cards.table(sweep.sweep(hosts, asker(script.GPUS, ANSWER_S), ANSWER_S))
    show(lines)
    finish(fine)


@task(help={"limit": "hosts or groups", "check": "only say what would change"})
def rerun(_context, inventory=LAB, limit="", check=False):
    """Run site.yml again for some hosts, after showing the command and asking."""
    try:
        words = again.command(str(source_of(inventory)), inventory_hosts(inventory), limit, check)
    except reach.HostError as problem:
        raise Exit(str(problem)) from None
    if not again.agreed(words, input, lambda line: show([line])):
        raise Exit("nothing was run", code=1)
    program = Path(sys.executable).with_name(words[0])
    raise Exit(code=subprocess.run([str(program), *words[1:]], cwd=REPO, check=False).returncode)


@task(help={"output": "the archive", "since": "how far back journals are read", "limit": "hosts or groups"})
def bundle(_context, inventory=LAB, limit="", output="", since="1 day ago"):
    """Collect logs, units, configuration and state of hosts into one archive without secrets."""
    hosts = chosen(inventory, limit)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    target = Path(output or REPO / f"build/bundles/bundle-{stamp}.tar.gz")
    try:
        answers = sweep.sweep(hosts, asker(archive.script(since), COLLECT_S), COLLECT_S)
        target.parent.mkdir(parents=True, exist_ok=True)
        size = archive.write(target, f"bundle-{stamp}", archive.contents(answers), time.time())
    except (OSError, ValueError) as problem:
        raise Exit(str(problem)) from None
    silent = [f"{name}: {answer.problem}" for name, answer in answers.items() if answer.problem]
    show(
        [
            f"{target}: {len(hosts) - len(silent)} of {len(hosts)} hosts, {size / 2**20:.1f} MiB, secrets removed",
            *silent,
        ]
    )
    finish(not silent)
