"""A cluster that reaches nothing but itself, controller included, installed from a bundle by the real playbooks.

A bundle is built and signed where its sources are, forged and refused, brought to bare hosts, installed from. Whatever
was sent to an address outside the cluster meanwhile was written down.

RACKSERVE_BUNDLE=install   asks for it (minutes, root): make test-bundle
RACKSERVE_BUNDLE_NODES, RACKSERVE_BUNDLE_NET   light nodes (1), second octet of their addresses (86)
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from offline_lab import BUNDLE_KEY, HOST_DIR, Key, OfflineLab

pytestmark = pytest.mark.asked_by("RACKSERVE_BUNDLE", "install")

NODES = int(os.environ.get("RACKSERVE_BUNDLE_NODES", "1"))
NET = int(os.environ.get("RACKSERVE_BUNDLE_NET", "86"))
REPORT = Path(__file__).resolve().parents[2] / "build/bundle-install.json"
# What the roles of this lab take from the distribution; the image has the others, and the lab offers no logrotate.
FROM_DISTRIBUTION = dict.fromkeys(("chrony", "haproxy", "libnuma1", "nftables", "python3", "rsync", "zstd"), "")
NVIDIA = "nvidia-open"


class Bundled:
    """A lab that is cut off, the bundle it is installed from, and what was seen."""

    def __init__(self, lab: OfflineLab, bundle: Path) -> None:
        self.lab, self.bundle = lab, bundle
        self.seen: dict[str, object] = {}

    def note(self, **row: object) -> None:
        """Add to the report, on disk at once."""
        self.seen.update(row)
        REPORT.parent.mkdir(parents=True, exist_ok=True)
        REPORT.write_text(json.dumps(self.seen, indent=1) + "\n")

    @property
    def arguments(self) -> list[str]:
        return ["-e", f"bundle_path={self.bundle}", "-e", f"bundle_key_file={self.lab.tree / BUNDLE_KEY}"]

    def site(self) -> subprocess.CompletedProcess[str]:
        """The main job, with the engine out of the bundle as well."""
        return self.lab.site("-e", f"serving_runtime_cache_dir={self.bundle}/engine")

    def debs(self) -> set[str]:
        """Names of the packages in the bundle."""
        lines = (self.bundle / "debs/Packages").read_text().splitlines()
        return {line.split()[1] for line in lines if line.startswith("Package: ")}


def tail(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stdout + done.stderr)[-4000:]


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundled]:
    """Bare hosts, cut off, and a bundle that was built before they were."""
    folder = tmp_path_factory.mktemp("bundle")
    site_key, distribution_key = Key("site"), Key("distribution")
    try:
        with OfflineLab(NODES, NET) as lab:
            assert lab.shell("gw", "find /srv/rackserve /etc/rackserve 2>/dev/null || true") == "", "hosts are not bare"
            shutil.copy2(site_key.public, lab.tree / BUNDLE_KEY)
            asked = {
                "bundle_sign_key": site_key.fingerprint,
                "bundle_gpg_home": str(site_key.home),
                "bundle_output_dir": str(folder),
                "bundle_apt_sources": str(lab.write_sources(folder, distribution_key)),
                "bundle_apt_status": str(lab.image / "var/lib/dpkg/status"),
                "bundle_packages_extra": FROM_DISTRIBUTION,
                "bundle_engine_wheels": False,
            }
            started = time.monotonic()
            lab.must("build-bundle", "-e", json.dumps(asked))
            found = Bundled(lab, folder / "stub")
            found.note(hosts=lab.hosts, built_s=round(time.monotonic() - started, 1), packages=len(found.debs()))
            # Where the bundle arrives nobody has built a release.
            for name in ("releases", "golden"):
                shutil.rmtree(lab.tree / ".cache" / name)
            shutil.copytree(found.bundle / "engine/golden", lab.tree / ".cache/golden")
            lab.cut_off()
            yield found
    finally:
        site_key.forget()
        distribution_key.forget()


def test_the_watch_sees_every_way_out(bundled: Bundled) -> None:
    """First: a net that catches nothing proves nothing."""
    lab = bundled.lab
    lab.forget_outside()
    wanted = lab.probe()
    packets, tried = lab.outside()
    assert sorted(line.partition(" ")[2] for line in tried) == wanted
    assert packets >= len(wanted)
    bundled.note(probe_packets=packets, probe_tried=len(tried))
    lab.forget_outside()
    assert lab.outside() == (0, [])


def test_a_forged_bundle_reaches_no_host(bundled: Bundled, tmp_path: Path) -> None:
    """One byte of one package: the playbook that brings it names the file and touches nothing."""
    forged = tmp_path / "forged"
    shutil.copytree(bundled.bundle, forged)
    deb = flip_a_byte(forged / "debs")
    done = bundled.lab.playbook("bring-bundle", *bundled.arguments, "-e", f"bundle_path={forged}")
    assert done.returncode != 0
    assert f"debs/{deb} differs" in done.stdout, tail(done)
    for host in bundled.lab.hosts:
        assert bundled.lab.shell(host, f"ls {HOST_DIR} 2>/dev/null | wc -l; ls /etc/apt/sources.list.d").split() == [
            "0"
        ]


def test_the_controller_is_installed_from_the_bundle(bundled: Bundled, tmp_path: Path) -> None:
    wheels, python = bundled.bundle / "wheels/controller", tmp_path / "venv/bin/python"
    pip = ["-m", "pip", "install", "--quiet", "--no-index", "--find-links", str(wheels), "--require-hashes", "-r"]
    for command in (
        [sys.executable, "-m", "venv", str(tmp_path / "venv")],
        [str(python), *pip, str(wheels / "requirements.txt")],
        [str(python.with_name("ansible-playbook")), "--version"],
    ):
        done = subprocess.run([*bundled.lab.inside(), *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, tail(done)
    bundled.note(controller_wheels=len(list(wheels.glob("*.whl"))))
    assert bundled.lab.outside() == (0, [])


def test_a_package_forged_on_a_host_is_not_installed(bundled: Bundled) -> None:
    """Changed where it lies, after the bundle was proven and brought: apt refuses it, and nothing is installed."""
    lab = bundled.lab
    brought = lab.playbook("bring-bundle", *bundled.arguments)
    assert brought.returncode == 0, tail(brought)
    before = {host: lab.shell(host, "dpkg-query -W") for host in lab.hosts}
    for host in lab.hosts:
        known = lab.policy(host, sorted(bundled.debs()))
        assert set(known) == bundled.debs()
        assert {name: where for name, where in known.items() if where != {f"file:{HOST_DIR}/debs"}} == {}
    [deb] = lab.shell("node1", f"cd {HOST_DIR}/debs && ls {NVIDIA}_*.deb").split()
    lab.python("node1", FLIP.format(path=f"{HOST_DIR}/debs/{deb}"))
    done = bundled.site()
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert deb in said, tail(done)
    assert "Hash Sum mismatch" in said, tail(done)
    after = lab.shell("node1", "dpkg-query -W")
    assert [line for line in after.splitlines() if line not in before["node1"].splitlines()] == []
    bundled.note(refused=said[said.index("E: Failed to fetch") :].splitlines()[0][:200])


def test_hosts_are_installed_from_the_bundle_alone(bundled: Bundled) -> None:
    """Bundle to a served model; every package that was added is the bundle's, and nobody tried to go elsewhere."""
    lab = bundled.lab
    lab.shell("node1", f"touch {HOST_DIR}/debs/left_1.0-1_all.deb")
    again = lab.playbook("bring-bundle", *bundled.arguments)
    assert again.returncode == 0, tail(again)
    lying = set(lab.shell("node1", f"ls {HOST_DIR}/debs").split())
    assert lying == {path.name for path in (bundled.bundle / "debs").iterdir()}
    started = time.monotonic()
    done = bundled.site()
    took_s = time.monotonic() - started
    assert done.returncode == 0, tail(done)
    bare = set(installed((lab.image / "var/lib/dpkg/status").read_text()))
    added: dict[str, int] = {}
    for host in lab.hosts:
        new = [name for name in lab.shell(host, "dpkg-query -W -f '${Package}\\n'").split() if name not in bare]
        known = lab.policy(host, new)
        assert {name: where for name, where in known.items() if where != {f"file:{HOST_DIR}/debs"}} == {}
        added[host] = len(new)
        assert ("libnvidia-ml1" in new) == (host != "gw")
        assert "nftables" in new
    packets, tried = lab.outside()
    bundled.note(site_s=round(took_s, 1), added=added, outside_packets=packets, outside_tried=tried)
    assert (packets, tried) == (0, [])


def test_bringing_and_installing_again_changes_nothing(bundled: Bundled) -> None:
    for done in (bundled.lab.playbook("bring-bundle", *bundled.arguments), bundled.site()):
        assert done.returncode == 0, tail(done)
        changed = [line for line in done.stdout.splitlines() if "changed=" in line and "changed=0" not in line]
        assert changed == []
    assert bundled.lab.outside() == (0, [])


def test_the_watch_saw_to_the_end(bundled: Bundled) -> None:
    """Last: what was installed, the hosts' own filter above all, has not put the watch out of action."""
    wanted = bundled.lab.probe()
    assert sorted(line.partition(" ")[2] for line in bundled.lab.outside()[1]) == wanted


FLIP = """
with open("{path}", "r+b") as deb:
    deb.seek(-1, 2)
    last = deb.read(1)
    deb.seek(-1, 2)
    deb.write(bytes([last[0] ^ 1]))
"""


def flip_a_byte(folder: Path) -> str:
    """Change the last byte of NVIDIA's package; its name."""
    [deb] = folder.glob(f"{NVIDIA}_*.deb")
    data = bytearray(deb.read_bytes())
    data[-1] ^= 1
    deb.write_bytes(bytes(data))
    return deb.name


def installed(status: str) -> Iterator[str]:
    """Names of the packages in dpkg's status."""
    for paragraph in status.split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in paragraph.splitlines() if not line.startswith(" "))
        if fields.get("Status", "").endswith(" installed"):
            yield fields["Package"]
