"""How adapters reach the memory of GPUs, and the module's own words."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import rdma_info as module
import yaml
from rackserve.rdma.gdr import read_gdr
from sysfs_tree import PROPRIETARY_DRIVER, Tree, infiniband

PEERMEM = "sys/module/nvidia_peermem/version"


def said(tree: Tree) -> tuple[str, list[str]]:
    gdr, findings = read_gdr(tree.root)
    return gdr, [found["why"] for found in findings]


def nothing(_tree: Tree) -> None:
    return None


@pytest.mark.parametrize(
    ("options", "change", "gdr", "why"),
    [
        ({}, nothing, "dmabuf", ""),
        ({}, lambda tree: tree.put(PEERMEM, "580.65.06"), "dmabuf", ""),
        ({"nvidia": PROPRIETARY_DRIVER}, nothing, "none", "the loaded driver is the proprietary one"),
        ({"nvidia": PROPRIETARY_DRIVER}, lambda tree: tree.put(PEERMEM, "580.65.06"), "peermem", ""),
        ({"kernel": "5.4.0-150-generic"}, nothing, "none", "DMA-BUF needs a kernel from 5.12 on, this is 5.4.0-150"),
        ({"kernel": "5.4.0-150-generic"}, lambda tree: tree.put("sys/kernel/mm/memory_peers/nv_mem_nc/version", "1.3"),
         "peermem", ""),
        ({"kernel": "5.12.0"}, nothing, "dmabuf", ""),
        ({"nvidia": None}, nothing, "none", ""),
        ({}, lambda tree: (tree.root / "proc/sys/kernel/osrelease").unlink(), "none",
         "unknown: neither proc/sys/kernel/osrelease nor proc/version"),
        ({}, lambda tree: (tree.root / "proc/driver/nvidia/version").unlink(), "none",
         "unknown: neither proc/driver/nvidia/version nor sys/module/nvidia/taint"),
        ({}, lambda tree: tree.put("boot/config-6.8.0-45-generic", "# CONFIG_DMA_SHARED_BUFFER is not set"), "none",
         "kernel 6.8.0-45-generic is built without CONFIG_DMA_SHARED_BUFFER"),
    ],
)  # fmt: skip
def test_the_way_to_the_memory_of_gpus(
    tmp_path: Path, options: dict[str, Any], change: Callable[[Tree], Any], gdr: str, why: str
) -> None:
    tree = Tree(tmp_path, **options)
    change(tree)
    seen, whys = said(tree)
    assert seen == gdr
    assert [line[: len(why)] for line in whys] == ([why] if why else [])


@pytest.mark.parametrize(("taint", "gdr"), [("OE", "dmabuf"), ("POE", "none")])
def test_the_taint_tells_the_driver_where_proc_does_not(tree: Tree, taint: str, gdr: str) -> None:
    (tree.root / "proc/driver/nvidia/version").unlink()
    tree.put("sys/module/nvidia/taint", taint)
    assert said(tree)[0] == gdr


def test_the_kernel_by_proc_version_and_its_packed_configuration(tree: Tree) -> None:
    (tree.root / "proc/sys/kernel/osrelease").unlink()
    tree.put("proc/version", "Linux version 6.8.0-45-generic (buildd@x) (gcc) #45-Ubuntu SMP")
    (tree.root / "proc/config.gz").write_bytes(gzip.compress(b"CONFIG_DMA_SHARED_BUFFER=y\n"))
    assert said(tree) == ("dmabuf", [])
    (tree.root / "proc/config.gz").write_bytes(gzip.compress(b"CONFIG_X=y\n"))
    assert said(tree)[0] == "none"


def answer(monkeypatch: pytest.MonkeyPatch, **params: Any) -> dict[str, Any]:
    class Exit(Exception):
        pass

    class Module:
        given: ClassVar = {"root": "/", "purposes": {}, **params}

        def __init__(self, argument_spec: dict[str, Any], supports_check_mode: bool) -> None:
            assert set(argument_spec) == set(self.given) and supports_check_mode
            self.params = self.given

        def exit_json(self, **result: Any) -> None:
            raise Exit(result)

        def fail_json(self, **result: Any) -> None:
            raise Exit({"failed": True, **result})

    monkeypatch.setattr(module, "AnsibleModule", Module)
    with pytest.raises(Exit) as raised:
        module.main()
    result: dict[str, Any] = raised.value.args[0]
    return result


def test_the_module_answers_what_it_documents(monkeypatch: pytest.MonkeyPatch, tree: Tree) -> None:

    tree.adapter("mlx5_0", "0000:01:00.0", ports=[infiniband()])
    result = answer(monkeypatch, root=str(tree.root))
    documented = yaml.safe_load(module.RETURN)
    assert result.pop("changed") is False and set(result) == set(documented)
    (hca,) = result["hcas"]
    assert set(hca) == set(documented["hcas"]["contains"])
    assert set(hca["ports"][0]) == set(documented["hcas"]["contains"]["ports"]["contains"])


def test_a_wrong_purpose_fails_in_one_line(monkeypatch: pytest.MonkeyPatch, tree: Tree) -> None:
    result = answer(monkeypatch, root=str(tree.root), purposes={"mlx5_0": "fast"})
    assert result["msg"].startswith("rdma_info: purposes: mlx5_0: fast: write one of")
