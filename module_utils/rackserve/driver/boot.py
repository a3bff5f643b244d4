"""What decides whether the driver is there after a boot: kernel, module, signature, initramfs, nouveau."""

from __future__ import annotations

import re
from pathlib import Path

from ..converge.host import Host, Run
from ..preflight.findings import Finding, finding
from .service import module_loaded

BLACKLIST = "/etc/modprobe.d/rackserve-nvidia.conf"
# dkms signs with one of these: Debian, Ubuntu.
SIGNING_KEYS = ("/var/lib/dkms/mok.pub", "/var/lib/shim-signed/mok/MOK.der")
_SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
_EFI_ATTRIBUTES_BYTES = 4
_NOT_FOUND = 127
_GRUB_DEFAULT = re.compile(r"^\s*GRUB_DEFAULT=[\"']?([^\"'\n]*?)[\"']?\s*$", re.MULTILINE)


def nouveau_loaded(root: Path) -> bool:
    """Whether the kernel's own driver has the GPUs."""
    return module_loaded(root, "nouveau")


def initramfs_older(root: Path) -> list[str]:
    """Kernels whose initramfs was made before nouveau was blacklisted; it may load nouveau before our file is read."""
    host = Host(root, None)
    blacklist, made = host.at(BLACKLIST), []
    for kernel in _kernels(host):
        image = host.at(f"/boot/initrd.img-{kernel}")
        if image.exists() and (not blacklist.exists() or image.stat().st_mtime < blacklist.stat().st_mtime):
            made.append(kernel)
    return made


def boot_kernels(root: Path) -> list[str]:
    """Kernels that the next boot may take: the newest, or every one where GRUB is told another rule."""
    host = Host(root, None)
    kernels = _kernels(host)
    if not kernels:
        return [host.read_text("/proc/sys/kernel/osrelease").strip()]
    settings = ["/etc/default/grub"]
    settings += [f"/etc/default/grub.d/{path.name}" for path in sorted(host.at("/etc/default/grub.d").glob("*.cfg"))]
    said = [value for path in settings for value in _GRUB_DEFAULT.findall(host.read_text(path))]
    return kernels if said and said[-1] not in ("", "0") else kernels[-1:]


def _kernels(host: Host) -> list[str]:
    names = [path.name.partition("-")[2] for path in host.at("/boot").glob("vmlinuz-*")]
    return sorted(names, key=_version_key)


def _version_key(version: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"\d+|[a-z]+", version)]


def check_boot(root: Path, run: Run, version: str) -> list[Finding]:
    """What forbids a reboot: no module of `version` for a kernel that may boot, or one that Secure Boot refuses."""
    host, found = Host(root, None), []
    secured = _secure_boot(host, run)
    for kernel in boot_kernels(root):
        where = f"kernel {kernel}"
        modules = sorted(host.at(f"/lib/modules/{kernel}").glob("**/nvidia.ko*"))
        if not modules:
            why = f"it may be the one that boots, and has no module of driver {version}"
            fix = f"apt-get install linux-headers-{kernel}; dkms autoinstall -k {kernel}"
            found.append(finding("error", "no-module-for-kernel", where, why, fix))
            continue
        built = _modinfo(run, modules[0], "version")
        if built != version:
            why = f"its module is of driver {built or 'unknown'}, the release says {version}"
            found.append(
                finding("error", "no-module-for-kernel", where, why, f"dkms install nvidia/{version} -k {kernel}")
            )
        elif secured:
            found += _unsigned(host, run, where, modules[0])
    return found


def _modinfo(run: Run, module: Path, field: str) -> str:
    code, out, _ = run(["modinfo", "-F", field, str(module)])
    return out.strip() if code == 0 else ""


def _secure_boot(host: Host, run: Run) -> bool:
    code, out, _ = run(["mokutil", "--sb-state"])
    if code != _NOT_FOUND:
        return "SecureBoot enabled" in out
    try:
        return host.at(_SECURE_BOOT).read_bytes()[_EFI_ATTRIBUTES_BYTES:] == b"\x01"
    except OSError:
        return False


def _unsigned(host: Host, run: Run, where: str, module: Path) -> list[Finding]:
    signer = _modinfo(run, module, "signer")
    if "Canonical" in signer:  # the distribution's own modules, whose key is in shim
        return []
    if not signer:
        why = "Secure Boot is on and the module is not signed"
        return [
            finding(
                "error", "secure-boot-key", where, why, "let dkms sign it (/etc/dkms/framework.conf), or turn it off"
            )
        ]
    keys = [key for key in SIGNING_KEYS if host.at(key).exists()]
    if any("already enrolled" in "".join(run(["mokutil", "--test-key", key])[1:]) for key in keys):
        return []
    key = keys[0] if keys else SIGNING_KEYS[0]
    why = f"Secure Boot is on and the key of {signer} is not enrolled"
    return [
        finding(
            "error", "secure-boot-key", where, why, f"mokutil --import {key}, and confirm it at the console at boot"
        )
    ]
