"""The stub as a release: a wheel, its lock, a release set, a model card and weights, put into a copy of the repository.

From there the real `build-release.yml` builds it like any other release.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import yaml

STUB = Path(__file__).parent / "stub"
VERSION = "0.32.0"
RELEASE = "stub"
CARD = "stub-model"
LOCK = "requirements/engine-stub.txt"
SHARD_BYTES = 1 << 20
_EPOCH = (1980, 1, 1, 0, 0, 0)


def write_wheel(folder: Path, version: str = VERSION, behaviour: str = "") -> str:
    """Write the stub's wheel into `folder`; its sha256. The same sources give the same bytes."""
    files = {str(path.relative_to(STUB)): path.read_bytes() for path in sorted(STUB.rglob("*.py"))}
    if behaviour:
        files["vllm/behaviour.py"] = f'BEHAVIOUR = "{behaviour}"\n'.encode()
    info = f"vllm-{version}.dist-info"
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\nSummary: a stub\n".encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: stub\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = "".join(f"{name},sha256={_record_digest(data)},{len(data)}\n" for name, data in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"vllm-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data)
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


def _record_digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def locked_entry(lock: Path, name: str) -> str:
    """The lines of one package in a hashed lock file."""
    entries = lock.read_text().replace("\\\n", " ").splitlines()
    return next(" ".join(entry.split()) for entry in entries if entry.startswith(f"{name}=="))


def add_to(tree: Path, repository: Path) -> None:
    """Put everything that describes the stub release into `tree`, a copy of `repository`."""
    digest = write_wheel(tree / ".cache/wheelhouse")
    real_lock = repository / "requirements/engine-cpu.txt"
    (tree / LOCK).write_text(f"vllm=={VERSION} --hash=sha256:{digest}\n{locked_entry(real_lock, 'nvidia-ml-py')}\n")
    # The guard's NVML bindings; without this pip downloads them.
    for wheel in (repository / ".cache/wheelhouse").glob("nvidia_ml_py-*.whl"):
        shutil.copy2(wheel, tree / ".cache/wheelhouse")
    release = yaml.safe_load((repository / "files/releases/2026.11-cpu.yml").read_text())
    release.update(doc="A stub engine, for tests only", vllm="stub", torch=None, lock=LOCK)
    (tree / f"files/releases/{RELEASE}.yml").write_text(yaml.safe_dump(release))
    card = yaml.safe_load((repository / "files/models/tiny-dense.yml").read_text())
    card.update(doc="Random bytes in place of weights, for tests only")
    (tree / f"files/models/{CARD}.yml").write_text(yaml.safe_dump(card))
    write_model(tree / f".cache/models/{CARD}")


def add_variant(tree: Path, name: str, number: int, behaviour: str = "") -> None:
    """Another release of the stub beside the first, after `add_to`; with something wrong with it where that is said."""
    version, lock = f"0.32.{number}", f"requirements/engine-{name}.txt"
    digest = write_wheel(tree / ".cache/wheelhouse", version, behaviour)
    rest = locked_entry(tree / LOCK, "nvidia-ml-py")
    (tree / lock).write_text(f"vllm=={version} --hash=sha256:{digest}\n{rest}\n")
    release = yaml.safe_load((tree / f"files/releases/{RELEASE}.yml").read_text())
    release.update(doc=f"Another stub, for tests only: {behaviour or 'nothing wrong'}", lock=lock)
    (tree / f"files/releases/{name}.yml").write_text(yaml.safe_dump(release))


def write_model(folder: Path) -> None:
    """Write a model's folder: two shards of fixed bytes and the manifest over them."""
    shards = [hashlib.shake_256(f"stub {number}".encode()).digest(SHARD_BYTES) for number in (1, 2)]
    files = {f"model-0000{number}-of-00002.safetensors": data for number, data in enumerate(shards, 1)}
    files["config.json"] = json.dumps({"architectures": ["Stub"]}).encode()
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        if not (folder / name).is_file() or (folder / name).read_bytes() != data:
            (folder / name).write_bytes(data)
    rows = {name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} for name, data in files.items()}
    (folder / "manifest.json").write_text(json.dumps({"files": rows, "version": 1}, indent=1, sort_keys=True) + "\n")
