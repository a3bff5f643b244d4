"""What a host has of CUDA, cuDNN and NCCL, seen through a made-up root."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pytest
from rackserve.cuda.check import check_cuda

PARTS: dict[str, dict[str, Any]] = {
    "cuda": {"version": "13.0.0", "packages": {"cuda-toolkit-13-0": "13.0.0-1"}},
    "cudnn": {
        "version": "9.12.0",
        "packages": {"libcudnn9-cuda-13": "9.12.0.46-1", "libcudnn9-headers-cuda-13": "9.12.0.46-1"},
    },
    "nccl": {
        "version": "2.27.7",
        "packages": {"libnccl-dev": "2.27.7-1+cuda13.0", "libnccl2": "2.27.7-1+cuda13.0"},
    },
}
ALL = {name: version for said in PARTS.values() for name, version in said["packages"].items()}
HELD = {name: f"{version} hold" for name, version in ALL.items()}
LIB = "usr/lib/x86_64-linux-gnu"
TOOLKIT = "usr/local/cuda-13.0"
AUTO = "auto\n/usr/local/cuda\n\n/usr/local/cuda-13.0\n1000\n\n"
Look = Callable[..., dict[str, Any]]


def paragraph(name: str, state: str) -> str:
    version, wanted, present = [*state.split(), *("install", "installed")[len(state.split()) - 1 :]]
    return f"Package: {name}\nStatus: {wanted} ok {present}\nVersion: {version}\n\n"


class Files:
    """A root with everything of the release in place; tests spoil one thing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cache = {
            "libcudart.so.13": f"/{TOOLKIT}/lib64/libcudart.so.13",
            "libcudnn.so.9": f"/{LIB}/libcudnn.so.9",
            "libnccl.so.2": f"/{LIB}/libnccl.so.2",
        }

    def write(self, path: str, text: str) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def library(self, folder: str, name: str, version: str) -> None:
        self.write(f"{folder}/{name}.so.{version}", "")
        link = self.root / folder / f"{name}.so.{version.split('.', maxsplit=1)[0]}"
        link.unlink(missing_ok=True)
        link.symlink_to(f"{name}.so.{version}")

    def foreign(self, folder: str, name: str, version: str) -> None:
        """A library that the linker finds before the package's."""
        self.library(folder, name, version)
        soname = f"{name}.so.{version.split('.', maxsplit=1)[0]}"
        self.cache[soname] = f"/{folder}/{soname}"

    def link(self, target: str = "/usr/local/cuda-13.0", admin: str = AUTO) -> None:
        self.write("var/lib/dpkg/alternatives/cuda", admin)
        for path, leads in (("usr/local/cuda", "/etc/alternatives/cuda"), ("etc/alternatives/cuda", target)):
            place = self.root / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            place.symlink_to(leads)

    def everything(self) -> None:
        self.write(f"{TOOLKIT}/version.json", '{"cuda": {"name": "CUDA SDK", "version": "13.0.0"}}')
        self.write(f"{TOOLKIT}/include/cuda.h", "#define CUDA_VERSION 13000\n")
        self.library(f"{TOOLKIT}/lib64", "libcudart", "13.0.48")
        self.write(
            "usr/include/x86_64-linux-gnu/cudnn_version_v9.h",
            "#define CUDNN_MAJOR 9\n#define CUDNN_MINOR 12\n#define CUDNN_PATCHLEVEL 0\n",
        )
        self.write("usr/include/nccl.h", "#define NCCL_MAJOR 2\n#define NCCL_MINOR 27\n#define NCCL_PATCH 7\n")
        self.library(LIB, "libcudnn", "9.12.0")
        self.library(LIB, "libnccl", "2.27.7")
        self.link()


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def look(files: Files) -> Look:
    """look({name: "version [wanted [present]]"}, **options): what the check says."""

    def run(packages: dict[str, str], **options: Any) -> dict[str, Any]:
        files.write("var/lib/dpkg/status", "".join(map(paragraph, packages, packages.values())))
        lines = [f"\t{name} (libc6,x86-64) => {path}\n" for name, path in files.cache.items()]

        def answer(argv: list[str]) -> tuple[int, str, str]:
            assert argv == ["ldconfig", "-p"]
            return 0, "3 libs found in cache\n" + "".join(lines), ""

        return check_cuda(files.root, answer, PARTS, **options)

    return run


def lines(result: dict[str, Any]) -> list[tuple[str, str]]:
    return [(item["code"], item["where"]) for item in result["findings"]]


def test_a_bare_host_gets_everything(look: Look, files: Files) -> None:
    files.cache = {}
    seen = look({"bash": "5.2"})
    assert seen["install"] == [f"{name}={ALL[name]}" for name in sorted(ALL)]
    assert seen["hold"] == sorted(ALL) and seen["findings"] == [] and seen["stale_cache"]
    assert not (seen["remove"] or seen["unfinished"] or seen["change_holds"] or seen["toolkits"] or seen["link"])


def test_a_host_as_it_should_be_has_nothing_to_do(look: Look, files: Files) -> None:
    files.everything()
    seen = look(HELD, prove=True)
    assert seen["findings"] == [] and not (seen["install"] or seen["hold"] or seen["commands"] or seen["stale_cache"])
    assert seen["toolkits"] == ["/usr/local/cuda-13.0"] and seen["link"] == "/usr/local/cuda-13.0"


def test_parts_of_the_toolkit_are_held_with_it(look: Look) -> None:
    assert look({**HELD, "cuda-nvcc-13-0": "13.0.48-1", "cuda-nvcc-12-8": "12.8.93-1"})["hold"] == ["cuda-nvcc-13-0"]


def test_another_version_is_named_and_left_alone(look: Look) -> None:
    seen = look({**HELD, "libnccl2": "2.26.2-1+cuda12.8 hold", "libnccl-dev": "2.26.2-1+cuda12.8 hold"})
    assert lines(seen) == [("cuda-differs", "package libnccl-dev, libnccl2")]
    assert seen["findings"][0]["why"] == "NCCL 2.26.2 installed, release says 2.27.7"


def test_on_a_drained_host_it_may_be_exchanged(look: Look) -> None:
    seen = look({**HELD, "libnccl2": "2.28.9-1+cuda13.0 hold"}, change=True)
    assert seen["findings"] == [] and seen["change_holds"]
    assert seen["install"] == ["libnccl2=2.27.7-1+cuda13.0"] and seen["hold"] == ["libnccl2"]


@pytest.mark.parametrize(
    ("mapped", "used"),
    [
        ("/usr/lib/x86_64-linux-gnu/libnccl.so.2.28.9", True),
        ("/usr/local/cuda-13.0/targets/x86_64-linux/lib/libcudart.so.13.0.96", True),
        ("/opt/rackserve/releases/r/lib/python3.11/site-packages/nvidia/nccl/lib/libnccl.so.2", False),
    ],
)
def test_not_while_a_process_has_it_loaded(mapped: str, used: bool, look: Look, files: Files) -> None:
    files.write("proc/41/maps", f"7f00-7f01 r-xp 00000000 fe:00 12 {mapped}\n")
    files.write("proc/41/comm", "all_reduce_perf\n")
    seen = look({**HELD, "libnccl2": "2.28.9-1+cuda13.0 hold"}, change=True)
    assert lines(seen) == ([("cuda-in-use", "processes")] if used else [])
    assert not used or "all_reduce_perf (pid 41)" in seen["findings"][0]["why"]
    assert look(HELD, change=True)["findings"] == []


def test_another_cuda_s_cudnn_is_a_conflict_until_it_is_given_up(look: Look) -> None:
    other = {**HELD, "libcudnn9-cuda-12": "9.8.0.87-1", "libcudnn9-static-cuda-13": "9.12.0.46-1"}
    assert lines(look(other)) == [("cuda-conflict", "package libcudnn9-cuda-12")]
    seen = look(other, take_over=["package:libcudnn9-cuda-12"])
    assert seen["findings"] == [] and seen["remove"] == ["libcudnn9-cuda-12"]


def test_a_foreign_hold_stops(look: Look) -> None:
    held = {"libnccl2": "2.27.7-1+cuda13.0 hold not-installed"}
    assert lines(look(held)) == [("cuda-foreign-hold", "package libnccl2")]
    assert look(held, take_over=["hold:libnccl2"])["change_holds"]


def test_what_a_killed_run_left_is_seen(look: Look) -> None:
    assert look({**HELD, "libnccl2": "2.27.7-1+cuda13.0 install half-configured"})["unfinished"]


@pytest.mark.parametrize(
    ("spoil", "where", "fix"),
    [
        (lambda f: f.write(f"{TOOLKIT}/version.json", '{"cuda": {"version": "13.0.2"}}'),
         f"file /{TOOLKIT}/version.json", "--reinstall"),
        (lambda f: f.write(f"{TOOLKIT}/version.json", "[]"), f"file /{TOOLKIT}/version.json", "--reinstall"),
        (lambda f: f.write(f"{TOOLKIT}/include/cuda.h", "#define CUDA_VERSION 12080\n"),
         f"header /{TOOLKIT}/include/cuda.h", f"dpkg -S /{TOOLKIT}/include/cuda.h"),
        (lambda f: f.write("usr/include/nccl.h", "#define NCCL_MAJOR 2\n#define NCCL_MINOR 26\n#define NCCL_PATCH 2\n"),
         "header /usr/include/nccl.h", "dpkg -S /usr/include/nccl.h"),
        (lambda f: (f.root / "usr/include/nccl.h").unlink(), "header /usr/include/nccl.h", "--reinstall"),
        (lambda f: (f.root / "usr/include/x86_64-linux-gnu/cudnn_version_v9.h").unlink(),
         "header /usr/include/cudnn_version.h", "--reinstall"),
        (lambda f: f.library(LIB, "libcudnn", "9.8.0"), f"library /{LIB}/libcudnn.so.9", "--reinstall"),
        (lambda f: f.foreign("opt/lib", "libnccl", "2.26.2"),
         "library /opt/lib/libnccl.so.2", "remove the foreign NCCL"),
        (lambda f: f.cache.pop("libnccl.so.2"), "library libnccl.so.2", "ldconfig"),
    ],
)  # fmt: skip
def test_the_odd_one_out_is_named_with_what_mends_it(
    spoil: Callable[[Files], object], where: str, fix: str, look: Look, files: Files
) -> None:
    files.everything()
    spoil(files)
    seen = look(HELD, prove=True)
    assert lines(seen) == [("cuda-mismatch", where)]
    assert fix in seen["findings"][0]["fix"]
    assert "release " in seen["findings"][0]["why"] and "packages " in seen["findings"][0]["why"]


def test_a_package_that_is_not_the_release_s_is_the_odd_one(look: Look, files: Files) -> None:
    files.everything()
    seen = look({**HELD, "libnccl-dev": "2.28.9-1+cuda13.0 hold"}, prove=True, change=True)
    assert lines(seen) == [("cuda-mismatch", "package libnccl-dev")]
    assert seen["findings"][0]["fix"].endswith("libnccl-dev=2.27.7-1+cuda13.0")


def test_a_linker_that_does_not_know_the_toolkit_is_named(look: Look, files: Files) -> None:
    files.everything()
    files.cache["libcudart.so.13"] = "/usr/local/cuda-13.1/lib64/libcudart.so.13"
    assert look(HELD)["stale_cache"]
    assert lines(look(HELD, prove=True)) == [("cuda-cache", "/etc/ld.so.cache")]
    files.cache["libcudart.so.13"] = "/usr/local/cuda/lib64/libcudart.so.13"
    assert not look(HELD)["stale_cache"]
