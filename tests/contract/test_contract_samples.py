"""What roles write for every sample is taken by the programs that read it: systemd and HAProxy themselves."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from contract_support import SAMPLES
from rackserve.converge.render import render_documents
from rendered_lab import RenderedLab

# Programs that a site brings: releases, and what drivers install. systemd wants them there, whatever they are.
BROUGHT = re.compile(r"/opt/rackserve/\S+/bin/\w+|/usr/(?:bin|sbin)/(?:nvidia-\S+|nv-\S+|rdma|haproxy|nft)\b")


@pytest.fixture(scope="module", params=SAMPLES)
def rendered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every file of one host of each kind of a sample, <host>/<path>."""
    folder = tmp_path_factory.mktemp("sample")
    site = RenderedLab(folder / "cache", request.param)
    for host in site.hosts:
        roles = site.plan["slices"][host]["roles"]
        render_documents([site.document(role, host) for role in roles], folder / "hosts" / host)
    return folder / "hosts"


def test_systemd_takes_every_unit(rendered: Path, tmp_path: Path) -> None:
    units: dict[str, str] = {}
    for path in sorted(rendered.glob("*/etc/systemd/system/*")):
        units.setdefault(path.name, path.read_text("utf-8"))
    for name, text in units.items():
        (tmp_path / name).write_text(BROUGHT.sub("/bin/true", text), "utf-8")
    command = ["systemd-analyze", "verify", "--recursive-errors=no", *map(str, sorted(tmp_path.iterdir()))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert units
    assert done.returncode == 0, done.stderr


def test_haproxy_takes_every_configuration(rendered: Path, tmp_path: Path) -> None:
    found = sorted(rendered.glob("*/etc/rackserve/gateway/haproxy.cfg"))
    assert found
    for path in found:
        text = path.read_text("utf-8").replace("/etc/rackserve/gateway", str(path.parent))
        if "tls.pem" in text:
            certificate(path.parent / "tls.pem")
        (tmp_path / "haproxy.cfg").write_text(text, "utf-8")
        command = ["/usr/sbin/haproxy", "-c", "-q", "-f", str(tmp_path / "haproxy.cfg")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def certificate(path: Path) -> None:
    key = path.with_suffix(".key")
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=gateway", "-days", "2"]
    subprocess.run([*make, "-keyout", str(key), "-out", str(path)], capture_output=True, check=True)
    path.write_text(path.read_text("utf-8") + key.read_text("utf-8"), "utf-8")
